//! An object store.

mod contract;
mod seaweed;
