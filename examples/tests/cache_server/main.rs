//! The server of `cache_server`.
#![cfg(unix)]

mod answers;
mod bad_clients;
mod batch_times;
mod batches;
mod foreign_caches;
mod leases;
#[cfg(target_os = "linux")]
mod limits;
// The library's tests read its own export with the same parser.
#[path = "../../../tests/store/prometheus.rs"]
mod prometheus;
mod serves;
mod support;
mod withstands;
