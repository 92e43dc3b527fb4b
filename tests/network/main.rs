//! The network tiers: servers that behave, servers that do not, and real ones.
#![cfg(any(
    feature = "remote-cache",
    all(feature = "object-store", feature = "testing")
))]

#[cfg(feature = "remote-cache")]
mod http;
#[cfg(all(feature = "object-store", feature = "testing"))]
mod object_store;
mod support;
