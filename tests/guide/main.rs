//! The guide says what the code does.
#![cfg(all(
    feature = "metrics",
    feature = "object-store",
    feature = "redis",
    feature = "remote-cache",
    feature = "signatures",
    feature = "testing",
    feature = "zstd"
))]

mod builders;
mod defaults;
mod examples;
mod failures;
mod sources;
mod table;
