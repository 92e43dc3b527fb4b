//! The server of `cache_server`.
#![cfg(unix)]

mod answers;
mod bad_clients;
mod batch_times;
mod batches;
mod cachectl;
mod certificates;
mod foreign_caches;
mod leases;
#[cfg(target_os = "linux")]
mod limits;
// The library's tests read its own export with the same parser.
#[path = "../../../tests/store/prometheus.rs"]
mod prometheus;
#[path = "../../../tests/network/support/real_server.rs"]
mod real_server;
mod reload;
mod serves;
mod settings;
mod support;
mod tls;
mod withstands;
