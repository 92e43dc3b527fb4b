//! A tier on real Redis servers.

mod contract;
mod fault_table;
mod faults;
mod groups;
mod holders;
mod lease_edges;
mod leases;

use pipeline_cache::network::{BreakerPolicy, RetryPolicy};
use pipeline_cache::{Artifact, PipelineFingerprint, RedisCache, RedisCacheBuilder};
use std::time::Duration;

/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(2);

fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What belongs under a key, and under no other.
fn artifact(number: u64) -> Artifact {
    let mut payload = vec![0; 500 + (number * 7919 % 4000) as usize];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut payload);
    Artifact::new(payload)
}

/// With the default of everything that is no time limit.
fn writing() -> RedisCacheBuilder {
    RedisCache::builder().writes()
}

/// Learns fast that a server is in trouble, and that it is well again.
fn impatient() -> RedisCacheBuilder {
    let breaker = BreakerPolicy::default()
        .min_calls(3)
        .probe_interval(Duration::from_millis(50));
    writing()
        .retry(RetryPolicy::default().attempts(1))
        .breaker(breaker)
        .connect_timeout(Duration::from_millis(500))
        .inactivity_timeout(Duration::from_millis(500))
        .attempt_timeout(Duration::from_secs(1))
        .request_timeout(Duration::from_secs(1))
}
