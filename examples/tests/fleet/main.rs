//! A fleet that is all cold: four processes on folders of their own, and one backend that grants
//! compile leases. Each program is compiled once, whatever becomes of a holder; what the server's
//! trouble costs is second compiles, and never a wrong artifact or a request that is late.
//!
//! `PIPELINE_CACHE_LONG_TESTS=1` runs 1,000 programs instead of 60, and all scenarios with every
//! backend. Each prints a row of a table.
#![cfg(unix)]

mod backend;
#[expect(dead_code, reason = "other tests need the rest")]
#[path = "../cache_server/support.rs"]
mod cache_server;
mod namespace;
mod run;
mod scenarios;
mod support;
mod worker;
