//! How long requests took.

use std::time::Duration;

use pipeline_cache::layered::LATENCY_BUCKETS;
use serde::Serialize;

#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Times {
    pub(super) count: u64,
    /// All of them together.
    seconds: f64,
    pub(super) buckets: [u64; LATENCY_BUCKETS.len() + 1],
}

impl Times {
    pub(super) fn record(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.count += 1;
        self.seconds += seconds;
        self.buckets[LATENCY_BUCKETS.partition_point(|bound| *bound < seconds)] += 1;
    }
}
