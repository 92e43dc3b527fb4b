//! Eviction: removes the entries that a scan found to be the first in the order of eviction, in steps,
//! unless they were used since.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::Bounds;
use super::survey::Seen;
use super::usage::{Change, Total, Usage};
use crate::disk::durability::ledger::Ledger;
use crate::disk::error::{Failures, Fault, at};
use crate::disk::files::{ignore_missing, look};
use crate::disk::shared::Shared;
use crate::sync::blocking;

/// The most candidates that are remembered, in 4 MiB of memory.
pub(in crate::disk) const MAX_CANDIDATES: usize = 64 * 1024;

/// How many entries one step removes. More where the bound itself is exceeded: a step then rarely gets
/// a thread, because others write.
const STEP: usize = 32;
const URGENT_STEP: usize = 512;

/// The progress of an eviction.
#[derive(Debug, Default)]
pub(in crate::disk) struct Sweep {
    /// What is left in the folder.
    pub(in crate::disk) left: Total,
    /// The next to go first.
    pub(in crate::disk) candidates: VecDeque<Seen>,
    pub(in crate::disk) removed: u64,
    pub(in crate::disk) removed_bytes: u64,
    pub(in crate::disk) failures: Failures,
}

impl Sweep {
    /// The next candidates, at most `limit`: no more than bring the folder within the bounds.
    fn next_step(&mut self, bounds: Bounds, limit: usize) -> Vec<Seen> {
        let expired = bounds.expired();
        let mut after = self.left;
        let mut step = Vec::new();
        while step.len() < limit {
            let excess =
                |seen: &Seen| !bounds.admit(&after) || expired.is_some_and(|e| seen.used < e);
            let Some(seen) = self.candidates.front().copied().filter(excess) else {
                break;
            };
            self.candidates.pop_front();
            after = after.without(&seen);
            step.push(seen);
        }
        step
    }
}

/// When the candidates of a sweep were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::disk) enum Counted {
    /// By the scan of this trim: a candidate that is gone since is in the count.
    InThisTrim,
    /// By an earlier scan: a candidate that is gone is no longer in the count.
    Before,
}

/// The entries that the last trim of a bounded folder found and left, the next to go first.
/// The next trim evicts them without a scan, unless they were used since.
#[derive(Debug, Default)]
pub(in crate::disk) struct EvictionCandidates(Mutex<VecDeque<Seen>>);

impl EvictionCandidates {
    pub(in crate::disk) fn keep(&self, candidates: VecDeque<Seen>) {
        *self.lock() = candidates;
    }

    /// Whether there are few candidates in a folder of so many entries.
    pub(in crate::disk) fn are_few(&self, entries: u64) -> bool {
        let few = (entries / 4).min(MAX_CANDIDATES as u64 / 4);
        (self.lock().len() as u64) < few
    }

    pub(in crate::disk) fn take(&self) -> VecDeque<Seen> {
        std::mem::take(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of an entry that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Eviction {
    Removed,
    /// Another process or task removed it.
    Gone,
    /// It was used or stored since it was seen.
    Used,
}

/// Removes entries to keep a folder within its bounds.
#[derive(Debug)]
pub(in crate::disk) struct Evictor {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    usage: Arc<Usage>,
    bounds: Bounds,
}

impl Evictor {
    pub(in crate::disk) fn new(
        shared: &Arc<Shared>,
        ledger: &Arc<Ledger>,
        usage: &Arc<Usage>,
        bounds: Bounds,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            ledger: Arc::clone(ledger),
            usage: Arc::clone(usage),
            bounds,
        }
    }

    /// Evicts the next candidates until the folder is within `bounds`. Returns whether there were
    /// any to evict.
    pub(in crate::disk) async fn step(
        self: &Arc<Self>,
        bounds: Bounds,
        sweep: &mut Sweep,
        counted: Counted,
    ) -> bool {
        let urgent = counted == Counted::Before && !self.bounds.admit(&sweep.left);
        let candidates = sweep.next_step(bounds, if urgent { URGENT_STEP } else { STEP });
        if candidates.is_empty() {
            return false;
        }
        let evictor = Arc::clone(self);
        // One hop for a step, and one report of it. Without the report, other processes would not
        // see the folder shrink and would trim it as well.
        let evict = blocking::blocking(move || {
            let evicted = evictor.evict(candidates);
            let directory = &evictor.shared.directory;
            let is_bounded = evictor.bounds.is_any();
            let reported = is_bounded.then(|| evictor.usage.report(directory));
            (evicted, reported.and_then(|(total, _)| total))
        });
        let (evicted, total) = evict.await;
        for (seen, outcome) in evicted {
            match outcome {
                Ok(Eviction::Removed) => {
                    sweep.removed += 1;
                    sweep.removed_bytes += seen.bytes;
                    sweep.left = sweep.left.without(&seen);
                }
                Ok(Eviction::Gone) if counted == Counted::InThisTrim => {
                    sweep.left = sweep.left.without(&seen);
                }
                Ok(Eviction::Gone | Eviction::Used) => {}
                Err(fault) => sweep.failures.note(&seen.key, fault),
            }
        }
        if let (Counted::Before, Some(total)) = (counted, total) {
            sweep.left = total;
        }
        true
    }

    fn evict(&self, candidates: Vec<Seen>) -> Vec<(Seen, Result<Eviction, Fault>)> {
        let evict = |seen: Seen| (seen, self.evict_one(&seen));
        candidates.into_iter().map(evict).collect()
    }

    /// Removes an entry, unless it was used or stored again since it was seen.
    fn evict_one(&self, seen: &Seen) -> Result<Eviction, Fault> {
        // With the lock of the key, so that it does not remove what a put has just stored.
        let Some(_key_lock) = self.shared.key_locks.try_lock(&seen.key) else {
            return Ok(Eviction::Used);
        };
        let path = self.shared.directory.entry(&seen.key);
        match look(&path) {
            Ok(Some(metadata)) if metadata.modified().is_ok_and(|used| seen.is_unused(used)) => {}
            Ok(None) => return Ok(Eviction::Gone),
            Ok(Some(_)) | Err(Fault::NotAFile(_)) => return Ok(Eviction::Used),
            Err(fault) => return Err(fault),
        }
        let removed = ignore_missing(std::fs::remove_file(&path)).map_err(at("remove", &path))?;
        if removed.is_none() {
            return Ok(Eviction::Gone);
        }
        self.ledger.forget(&seen.key);
        self.shared.counters.evictions.increment();
        self.shared.counters.evicted_bytes.add(seen.bytes);
        self.account_removal(seen.bytes);
        Ok(Eviction::Removed)
    }

    /// Counts an entry that was removed. The next report tells the other processes.
    pub(in crate::disk) fn account_removal(&self, bytes: u64) {
        if self.bounds.is_any() {
            self.usage.add(Change::removal(bytes));
        }
    }
}

impl Total {
    fn without(self, seen: &Seen) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(seen.bytes),
            entries: self.entries.saturating_sub(1),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Artifact;
    use crate::disk::DiskCache;
    use crate::key::PipelineFingerprint;
    use crate::store::PipelineCacheStore as _;
    use std::time::Duration;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    /// A cache of one entry, as a listing sees it.
    async fn seen(root: &std::path::Path) -> (DiskCache, Seen) {
        let cache = DiskCache::new(root).await.unwrap();
        cache.put(&KEY, Artifact::new("code")).await.unwrap();
        let survey = cache.collector.trimmer().survey().await.unwrap();
        let seen = *survey.first.peek().unwrap();
        (cache, seen)
    }

    #[tokio::test]
    async fn an_entry_that_was_used_since_the_scan_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, seen) = seen(folder.path()).await;
        let before = Seen {
            used: seen.used - Duration::from_secs(3600),
            ..seen
        };
        assert_eq!(
            cache
                .collector
                .trimmer()
                .evictor()
                .evict_one(&before)
                .unwrap(),
            Eviction::Used
        );
        assert_eq!(
            cache
                .collector
                .trimmer()
                .evictor()
                .evict_one(&seen)
                .unwrap(),
            Eviction::Removed
        );
        assert_eq!(
            cache
                .collector
                .trimmer()
                .evictor()
                .evict_one(&seen)
                .unwrap(),
            Eviction::Gone
        );
        assert_eq!(cache.metrics().evictions, 1);
    }

    #[tokio::test]
    async fn a_key_that_is_being_written_keeps_no_other_from_eviction() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, seen) = seen(folder.path()).await;
        let key_locks = &cache.shared.key_locks;
        let mut others = Vec::new();
        for other in 0..=255 {
            for last in [2, 3] {
                let mut key = [other; 32];
                key[31] = last;
                others.push(key_locks.lock(&PipelineFingerprint::from_bytes(key)).await);
            }
        }
        let own = key_locks.lock(&KEY).await;
        assert_eq!(
            cache
                .collector
                .trimmer()
                .evictor()
                .evict_one(&seen)
                .unwrap(),
            Eviction::Used
        );
        drop(own);
        assert_eq!(
            cache
                .collector
                .trimmer()
                .evictor()
                .evict_one(&seen)
                .unwrap(),
            Eviction::Removed
        );
    }
}
