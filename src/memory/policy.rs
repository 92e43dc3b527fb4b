//! The eviction policy: one moka cache per budget, over keys and sizes alone.
//!
//! moka holds one budget, and this tier has two. So each has a moka of its own, and an artifact
//! stays while it is in both. Nothing here is on the path of a read. Evicted keys leave the
//! [`Index`] at once, from moka's listener, and are then forgotten by the other budget too.

use moka::notification::RemovalCause;
use moka::sync::Cache;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::eviction::{Limit, Tally};
use super::index::Index;
use crate::key::{PassThrough, PipelineFingerprint};

type Weights = Cache<PipelineFingerprint, u32, BuildHasherDefault<PassThrough>>;

#[derive(Debug)]
pub(super) struct Policy {
    bytes: Weights,
    entries: Weights,
    evicted: Arc<Mutex<Evicted>>,
}

/// What the eviction listeners collect for the put that caused the evictions.
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

    /// Records a lookup, hit or miss: frequently requested keys stay.
    pub(super) fn touch(&self, key: &PipelineFingerprint) {
        self.bytes.get(key);
        self.entries.get(key);
    }

    /// Makes room for an artifact of `cost` bytes and says whether it was admitted. On return both
    /// budgets hold, the artifact included, and the tally counts what was evicted.
    ///
    /// One call at a time: the caller holds the lock of puts.
    pub(super) fn admit(&self, key: &PipelineFingerprint, cost: u32) -> (bool, Tally) {
        // The budget of entries first: where both are full, the one whose moka counts more exactly
        // decides.
        for (limit, budget) in [(Limit::Entries, &self.entries), (Limit::Bytes, &self.bytes)] {
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

    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        self.bytes.invalidate(key);
        self.entries.invalidate(key);
    }

    /// What one budget evicted, the other forgets. Not done in the listener, which must not call
    /// moka.
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
    // A moka of no capacity would refuse empty artifacts too.
    let cache = Cache::builder().max_capacity(capacity.max(1));
    let cache = match limit {
        Limit::Bytes => cache.weigher(|_, cost: &u32| *cost),
        // One each without a weigher: then moka knows from the start how many entries there will
        // be, and makes its table of lookups as large as it needs.
        Limit::Entries => cache,
    };
    cache
        .eviction_listener(move |key, _, cause| {
            // This tier itself replaces and removes keys.
            if cause != RemovalCause::Size {
                return;
            }
            // The artifact, which may be large to free, is gone before the lock is taken.
            let gone = index.remove(&key).map(|entry| (entry.cost(), entry.age()));
            let mut evicted = lock(&evicted);
            if let Some((cost, age)) = gone {
                evicted.tally.add(limit, cost, age);
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
