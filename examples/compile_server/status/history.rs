//! What was counted at times in the past.

use std::collections::{BTreeMap, VecDeque};

use pipeline_cache::layered::LayeredMetrics;
use serde::Serialize;

use super::Tier;
use super::times::Times;

/// With a step of 5 s, of the last five minutes.
const KEPT: usize = 60;

/// The oldest first.
#[derive(Debug, Default, Serialize)]
pub(super) struct History(VecDeque<Sample>);

impl History {
    pub(super) fn keep(&mut self, sample: Sample) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Sample {
    at: f64,
    running: u64,
    queued: u64,
    tiers: Vec<TierThen>,
    sources: BTreeMap<String, Times>,
}

#[derive(Debug, Serialize)]
struct TierThen {
    hits: u64,
    misses: u64,
    failed: u64,
    breaker_open: bool,
}

impl Sample {
    pub(super) fn new(
        at: f64,
        metrics: &LayeredMetrics,
        tiers: &[Tier],
        sources: &BTreeMap<String, Times>,
    ) -> Self {
        let then = |tier: &Tier| TierThen {
            hits: tier.hits,
            misses: tier.misses,
            failed: tier.failed,
            breaker_open: tier.breaker_open,
        };
        Self {
            at,
            running: metrics.running_compiles,
            queued: metrics.queued_compiles,
            tiers: tiers.iter().map(then).collect(),
            sources: sources.clone(),
        }
    }
}
