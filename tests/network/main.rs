//! The network tiers: servers that behave, servers that do not, and real ones.
//!
//! One subscriber of traces serves the whole process, and keeps what is traced on the threads that
//! ask for it. So what lookups trace is tested here as well.
#![cfg(any(
    feature = "remote-cache",
    all(feature = "object-store", feature = "testing"),
    all(feature = "redis", feature = "testing", unix)
))]

#[cfg(feature = "remote-cache")]
mod http;
#[cfg(all(feature = "object-store", feature = "testing"))]
mod object_store;
mod outside_of_a_runtime;
#[cfg(all(feature = "redis", feature = "testing", unix))]
mod redis;
#[cfg(all(
    feature = "object-store",
    feature = "remote-cache",
    feature = "signatures",
    feature = "testing"
))]
mod signatures;
mod support;
#[cfg(all(feature = "remote-cache", feature = "testing"))]
mod traces;
