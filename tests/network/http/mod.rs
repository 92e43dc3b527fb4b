//! A server that is spoken to over HTTP.

mod bad_days;
mod batches;
mod compile_requests;
mod confined_trouble;
#[cfg(target_os = "linux")]
mod connections;
mod credentials;
#[cfg(unix)]
mod faults;
mod hostile_server;
mod http2;
mod kept_connections;
mod leases;
mod nginx;
mod outage;
#[cfg(unix)]
mod partial_faults;
mod prefetch;
mod proxy;
mod tls;
mod transformed;
