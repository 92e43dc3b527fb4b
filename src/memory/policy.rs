//! Who stays: one moka cache per budget, over keys and sizes alone.
//!
//! moka holds one budget, and this tier has two. So each has a moka of its own, and an artifact
//! stays while it is in both. Nothing here is on the path of a read. Evicted keys leave the [`Index`] at once, from moka's listener, and
//! are then forgotten by the other budget too.

use moka::notification::RemovalCause;
use moka::sync::Cache;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::eviction::{Limit, Tally};
use super::index::{Index, PassThrough};
use crate::PipelineFingerprint;

type Weights = Cache<PipelineFingerprint, u32, BuildHasherDefault<PassThrough>>;

#[derive(Debug)]
pub(super) struct Policy {
    bytes: Weights,
    entries: Weights,
    evicted: Arc<Mutex<Evicted>>,
}

/// What the listeners leave for the put that caused it.
#[derive(Debug, Default)]
struct Evicted {
    tally: Tally,
    keys: Vec<PipelineFingerprint>,
}

impl Policy {
    pub(super) fn new(max_entries: u64, max_bytes: u64, index: &Arc<Index>) -> Self {
        let evicted = Arc::default();
        Self {
            bytes: weights(Limit::Bytes, max_bytes, index, &evicted),
            entries: weights(Limit::Entries, max_entries, index, &evicted),
            evicted,
        }
    }

    /// Tells of a lookup, found or not: what is often asked for stays.
    pub(super) fn touch(&self, key: &PipelineFingerprint) {
        self.bytes.get(key);
        self.entries.get(key);
    }

    /// Makes room for an artifact of `cost` bytes; whether it may stay. On return both budgets
    /// hold with it counted in, and the tally says what was driven out, itself perhaps.
    ///
    /// One call at a time: the caller holds the lock of puts.
    pub(super) fn admit(&self, key: &PipelineFingerprint, cost: u32) -> (bool, Tally) {
        for (limit, budget) in [(Limit::Bytes, &self.bytes), (Limit::Entries, &self.entries)] {
            budget.insert(*key, cost);
            settle(budget);
            self.forget_evicted();
            if !budget.contains_key(key) {
                self.forget(key);
                let mut tally = std::mem::take(&mut self.lock().tally);
                tally.add(limit, u64::from(cost), Duration::ZERO);
                return (false, tally);
            }
        }
        (true, std::mem::take(&mut self.lock().tally))
    }

    /// Whether the artifact may stay in the index.
    pub(super) fn keeps(&self, key: &PipelineFingerprint) -> bool {
        self.bytes.contains_key(key) && self.entries.contains_key(key)
    }

    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        self.bytes.invalidate(key);
        self.entries.invalidate(key);
    }

    /// What one budget evicted, the other forgets. Out of the listener, which must not call moka.
    fn forget_evicted(&self) {
        let keys = std::mem::take(&mut self.lock().keys);
        for key in &keys {
            self.forget(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Evicted> {
        lock(&self.evicted)
    }
}

fn lock(evicted: &Mutex<Evicted>) -> MutexGuard<'_, Evicted> {
    evicted.lock().unwrap_or_else(PoisonError::into_inner)
}

fn weights(
    limit: Limit,
    capacity: u64,
    index: &Arc<Index>,
    evicted: &Arc<Mutex<Evicted>>,
) -> Weights {
    let (index, evicted) = (Arc::clone(index), Arc::clone(evicted));
    Cache::builder()
        // A moka of no capacity would refuse empty artifacts too.
        .max_capacity(capacity.max(1))
        .weigher(move |_, cost: &u32| match limit {
            Limit::Bytes => *cost,
            Limit::Entries => 1,
        })
        .eviction_listener(move |key, _, cause| {
            // Replaced and removed keys are this tier's own doing.
            if cause != RemovalCause::Size {
                return;
            }
            let entry = index.remove(&key);
            let mut evicted = lock(&evicted);
            if let Some(entry) = entry {
                evicted.tally.add(limit, entry.cost(), entry.age());
            }
            evicted.keys.push(*key);
        })
        .build_with_hasher(BuildHasherDefault::default())
}

/// Runs moka's maintenance until the budget holds. Each run evicts at least one batch while there
/// is anything to evict, so this ends.
fn settle(budget: &Weights) {
    budget.run_pending_tasks();
    let capacity = budget.policy().max_capacity().unwrap_or(u64::MAX);
    while budget.weighted_size() > capacity && budget.entry_count() > 0 {
        budget.run_pending_tasks();
    }
}
