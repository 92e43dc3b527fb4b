//! What came of a run, in numbers.

use serde::Serialize;

use crate::args::Fleet;
use crate::tally::{Second, Tally};

#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) machines: usize,
    pub(crate) remote: &'static str,
    pub(crate) leases: bool,
    pub(crate) edges: bool,
    pub(crate) requests: u64,
    /// Those that found the artifact in memory.
    pub(crate) from_memory: u64,
    pub(crate) failed: u64,
    pub(crate) wrong: u64,
    pub(crate) programs: usize,
    pub(crate) compiles: u64,
    pub(crate) compiles_per_program: f64,
    /// Milliseconds to the artifact, of requests that memory did not answer.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) remote_requests: u64,
    /// Of these, those that are not about leases.
    pub(crate) gets_and_puts: u64,
    /// In the busiest second.
    pub(crate) peak_requests: u64,
    pub(crate) peak_bytes_out: u64,
    pub(crate) bytes_out: u64,
    /// Programs that were compiled and are not on the remote a minute after the last answer, or after the
    /// outage.
    pub(crate) missing: usize,
    pub(crate) seconds: Vec<Second>,
}

impl Outcome {
    pub(crate) fn new(fleet: &Fleet, tally: &Tally, missing: usize) -> Self {
        tally.with(|counts| {
            let quantile = |quantile| counts.times.value_at_quantile(quantile) as f64 / 1e3;
            let programs = counts.wanted.len();
            let sum = |of: fn(&Second) -> u64| counts.seconds.iter().map(of).sum();
            let most = |of: fn(&Second) -> u64| counts.seconds.iter().map(of).max().unwrap_or(0);
            Self {
                machines: fleet.machines,
                remote: fleet.remote.name(),
                leases: fleet.leases,
                edges: fleet.edge_of.is_some(),
                requests: counts.requests,
                from_memory: counts.from_memory,
                failed: counts.failed,
                wrong: counts.wrong,
                programs,
                compiles: counts.compiles,
                compiles_per_program: counts.compiles as f64 / programs.max(1) as f64,
                p50_ms: quantile(0.5),
                p99_ms: quantile(0.99),
                gets_and_puts: counts.gets_and_puts,
                remote_requests: sum(|second| second.requests),
                peak_requests: most(|second| second.requests),
                peak_bytes_out: most(|second| second.bytes_out),
                bytes_out: sum(|second| second.bytes_out),
                missing,
                seconds: counts.seconds.clone(),
            }
        })
    }

    pub(crate) fn setup(&self) -> &'static str {
        match (self.leases, self.edges) {
            (false, false) => "neither",
            (false, true) => "edges",
            (true, false) => "leases",
            (true, true) => "leases and edges",
        }
    }
}
