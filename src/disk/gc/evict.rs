//! Eviction: the entries that a listing found to be the oldest, removed in steps, unless they were
//! used since.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::Bounds;
use super::survey::Seen;
use super::usage::{Change, Total};
use crate::disk::Inner;
use crate::disk::directory::{ignore_missing, look};
use crate::disk::error::{Failures, Fault, at};

/// How many entries are remembered to be removed: 4 MiB of memory.
pub(in crate::disk) const MAX_CANDIDATES: usize = 64 * 1024;

/// How many entries one step removes, and how many where the bound itself is passed: the more the
/// others write, the less often a step gets its turn.
const STEP: usize = 32;
const URGENT_STEP: usize = 512;

/// The eviction of entries that have been found.
#[derive(Debug, Default)]
pub(in crate::disk) struct Sweep {
    /// What is left in the folder.
    pub(in crate::disk) left: Total,
    /// The least recently used first.
    pub(in crate::disk) candidates: VecDeque<Seen>,
    pub(in crate::disk) removed: u64,
    pub(in crate::disk) removed_bytes: u64,
    pub(in crate::disk) failures: Failures,
}

impl Sweep {
    /// The next candidates: as many as have to go if all of them can.
    fn next_step(&mut self, bounds: Bounds, most: usize) -> Vec<Seen> {
        let expired = bounds.expired();
        let mut after = self.left;
        let mut step = Vec::new();
        while step.len() < most {
            let goes = |seen: &Seen| !bounds.hold(&after) || expired.is_some_and(|e| seen.used < e);
            let Some(seen) = self.candidates.front().copied().filter(goes) else {
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
    /// By the listing that this trim began with: one that is gone since was counted.
    InThisTrim,
    /// Long ago: one that is gone is out of the count.
    Before,
}

/// The entries that the last trim of a bounded folder found and left, the least recently used
/// first. They are the next to go, unless they are used: so the next trim need not list.
#[derive(Debug, Default)]
pub(in crate::disk) struct EvictionCandidates(Mutex<VecDeque<Seen>>);

impl EvictionCandidates {
    pub(in crate::disk) fn keep(&self, candidates: VecDeque<Seen>) {
        *self.lock() = candidates;
    }

    /// Whether they are few, of so many entries.
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
    /// Somebody else removed it.
    Gone,
    /// It was used or stored since it was seen.
    Used,
}

impl Inner {
    /// Evicts the next candidates; whether there were any that have to go.
    pub(in crate::disk) async fn evict_step(
        self: &Arc<Self>,
        bounds: Bounds,
        sweep: &mut Sweep,
        counted: Counted,
    ) -> bool {
        let urgent = counted == Counted::Before && !self.bounds.hold(&sweep.left);
        let step = sweep.next_step(bounds, if urgent { URGENT_STEP } else { STEP });
        if step.is_empty() {
            return false;
        }
        let done = self.run_aside(move |inner| {
            let done = inner.evict(step);
            // Or else others, who do not see it shrink, would trim it as well.
            let reported = inner
                .bounds
                .is_any()
                .then(|| inner.usage.report(&inner.folder));
            (done, reported.and_then(|(total, _)| total))
        });
        let (done, total) = done.await;
        for (seen, outcome) in done {
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

    /// Removes entries, unless they were used or stored anew since they were seen.
    fn evict(&self, entries: Vec<Seen>) -> Vec<(Seen, Result<Eviction, Fault>)> {
        let evict = |seen: Seen| (seen, self.evict_one(&seen));
        entries.into_iter().map(evict).collect()
    }

    fn evict_one(&self, seen: &Seen) -> Result<Eviction, Fault> {
        // As a removal does, so that it does not remove what a put has just stored.
        let Some(_turn) = self.key_locks.try_lock(&seen.key) else {
            return Ok(Eviction::Used);
        };
        let path = self.folder.entry(&seen.key);
        match look(&path) {
            Ok(Some(metadata)) if metadata.modified().ok() == Some(seen.used) => {}
            Ok(None) => return Ok(Eviction::Gone),
            Ok(Some(_)) | Err(Fault::NotAFile(_)) => return Ok(Eviction::Used),
            Err(fault) => return Err(fault),
        }
        let removed = ignore_missing(std::fs::remove_file(&path)).map_err(at("remove", &path))?;
        if removed.is_none() {
            return Ok(Eviction::Gone);
        }
        self.ledger.forget(&seen.key);
        self.counters.evictions.increment();
        self.counters.evicted_bytes.add(seen.bytes);
        self.forget_bytes(seen.bytes);
        Ok(Eviction::Removed)
    }

    /// Counts an entry that was removed. The next report tells the others.
    pub(in crate::disk) fn forget_bytes(&self, bytes: u64) {
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
        let survey = cache.inner.survey().await.unwrap();
        let seen = *survey.oldest.peek().unwrap();
        (cache, seen)
    }

    #[tokio::test]
    async fn what_was_used_since_the_scan_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, seen) = seen(folder.path()).await;
        let before = Seen {
            used: seen.used - Duration::from_secs(3600),
            ..seen
        };
        assert_eq!(cache.inner.evict_one(&before).unwrap(), Eviction::Used);
        assert_eq!(cache.inner.evict_one(&seen).unwrap(), Eviction::Removed);
        assert_eq!(cache.inner.evict_one(&seen).unwrap(), Eviction::Gone);
        assert_eq!(cache.metrics().evictions, 1);
    }

    #[tokio::test]
    async fn what_is_being_written_keeps_nothing_else_from_going() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, seen) = seen(folder.path()).await;
        let key_locks = &cache.inner.key_locks;
        let mut others = Vec::new();
        for other in 0..=255 {
            for last in [2, 3] {
                let mut key = [other; 32];
                key[31] = last;
                others.push(key_locks.lock(&PipelineFingerprint::from_bytes(key)).await);
            }
        }
        let own = key_locks.lock(&KEY).await;
        assert_eq!(cache.inner.evict_one(&seen).unwrap(), Eviction::Used);
        drop(own);
        assert_eq!(cache.inner.evict_one(&seen).unwrap(), Eviction::Removed);
    }
}
