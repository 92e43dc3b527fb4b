//! An object store.

mod contract;
#[cfg(feature = "remote-cache")]
mod leases;
mod seaweed;
