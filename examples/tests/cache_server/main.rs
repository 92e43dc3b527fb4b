//! The server of `cache_server`.
#![cfg(unix)]

mod bad_clients;
mod foreign_caches;
mod serves;
mod support;
mod withstands;
