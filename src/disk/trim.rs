//! Trim: the folder brought back within its bounds, the least recently used entries first.
//!
//! An entry's time of use is its file's modification time, which a hit renews when it is an hour
//! old: far cheaper than keeping an index, and shared by all processes on the folder. A trim lists
//! the folder in steps, remembers the oldest [`VICTIMS`] entries and no more, and removes them in
//! steps; where that is not enough, it lists again. So it never holds up the others, can be dropped
//! at any time, and takes the same memory for a million entries as for a hundred thousand.

use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::bounds::Bounds;
use super::error::{Fault, at};
use super::folder::look;
use super::listing::{Listing, Named, Seen, see};
use super::usage::{Change, Total, lock_trim};
use super::{DiskCache, Inner};
use crate::{StoreError, StoreOperation};

/// How old a time of use gets before a hit renews it.
const USE_GRANULARITY: Duration = Duration::from_secs(60 * 60);

/// How many entries are remembered to be removed: 4 MiB of memory.
const VICTIMS: usize = 64 * 1024;

/// How many entries one step removes.
const EVICTION_STEP: usize = 32;

/// What a trim did.
///
/// ```
/// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::new(folder.path()).await?;
/// for number in 0..5 {
///     let key = PipelineFingerprint::from_bytes([number; 32]);
///     cache.put(&key, Artifact::new("code")).await?;
/// }
/// let bounded = DiskCache::builder()
///     .root(folder.path())
///     .max_entries(2)
///     .open()
///     .await?;
/// let report = bounded.trim().await?;
/// assert_eq!((report.scanned, report.removed), (5, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCacheTrimReport {
    /// Entries that were found.
    pub scanned: u64,
    /// Bytes of their files.
    pub scanned_bytes: u64,
    /// Entries that were removed.
    pub removed: u64,
    /// Bytes of their files.
    pub removed_bytes: u64,
    /// When the least recently used of the entries that stay was used, to within an hour.
    pub oldest_kept: Option<SystemTime>,
    /// How long it took.
    pub elapsed: Duration,
}

impl DiskCache {
    /// Removes the least recently used entries until the folder is within the builder's
    /// [`max_bytes`](super::DiskCacheBuilder::max_bytes),
    /// [`max_entries`](super::DiskCacheBuilder::max_entries) and
    /// [`max_age`](super::DiskCacheBuilder::max_age), and all corrupt entries that were set aside.
    ///
    /// Looks at every name in the folder, once for each 65,536 entries that have to go, with at
    /// most 8 MiB of memory. Others may go on, and trim, too: what they store or use meanwhile
    /// stays. What is no entry is left alone.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed, and when an entry cannot be removed, after the others
    /// have been; of kind [`StoreErrorKind::Closed`](crate::StoreErrorKind::Closed) when the cache is closed meanwhile.
    ///
    /// # Cancel safety
    ///
    /// A dropped trim has removed some of what it was to remove.
    pub async fn trim(&self) -> Result<DiskCacheTrimReport, StoreError> {
        let inner = &self.inner;
        let _token = inner.tasks.token();
        inner.check_open(StoreOperation::Trim)?;
        // Where another process trims, two do: what either removes, both take for gone.
        let _lock = inner.run_aside(|inner| lock_trim(&inner.folder)).await;
        inner.trim(inner.bounds).await
    }
}

/// What a listing found.
#[derive(Debug, Default)]
struct Survey {
    total: Total,
    /// The least recently used, at most [`VICTIMS`] of them.
    oldest: BinaryHeap<Seen>,
}

impl Survey {
    fn count(&mut self, seen: Seen) {
        self.total.entries += 1;
        self.total.bytes = self.total.bytes.saturating_add(seen.bytes);
        if self.oldest.len() < VICTIMS {
            self.oldest.push(seen);
        } else if let Some(mut newest) = self.oldest.peek_mut().filter(|newest| seen < **newest) {
            *newest = seen;
        }
    }
}

/// The eviction of entries that have been found.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// What is left in the folder.
    pub(super) left: Total,
    /// The least recently used first.
    pub(super) victims: VecDeque<Seen>,
    pub(super) removed: u64,
    pub(super) removed_bytes: u64,
    pub(super) failure: Option<StoreError>,
}

impl Sweep {
    /// The next victims: as many as have to go if all of them can.
    fn next_step(&mut self, bounds: Bounds) -> Vec<Seen> {
        let expired = bounds.expired();
        let mut after = self.left;
        let mut step = Vec::with_capacity(EVICTION_STEP);
        while step.len() < EVICTION_STEP {
            let goes = |seen: &Seen| !bounds.hold(&after) || expired.is_some_and(|e| seen.used < e);
            let Some(seen) = self.victims.front().copied().filter(goes) else {
                break;
            };
            self.victims.pop_front();
            after = after.without(&seen);
            step.push(seen);
        }
        step
    }
}

/// When the victims of a sweep were counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    /// By the listing that this trim began with: one that is gone since was counted.
    InThisTrim,
    /// Long ago: one that is gone is out of the count.
    Before,
}

/// The entries that the last trim of a bounded folder found and left, the least recently used
/// first. They are the next to go, unless they are used: so the next trim need not list.
#[derive(Debug, Default)]
pub(super) struct Victims(Mutex<VecDeque<Seen>>);

impl Victims {
    pub(super) fn keep(&self, victims: VecDeque<Seen>) {
        *self.lock() = victims;
    }

    /// Whether they are few, of so many entries.
    pub(super) fn are_few(&self, entries: u64) -> bool {
        let few = (entries / 4).min(VICTIMS as u64 / 4);
        (self.lock().len() as u64) < few
    }

    pub(super) fn take(&self) -> VecDeque<Seen> {
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
    pub(super) async fn trim(
        self: &Arc<Self>,
        bounds: Bounds,
    ) -> Result<DiskCacheTrimReport, StoreError> {
        let start = Instant::now();
        let mut found = None;
        let mut sweep = Sweep::default();
        loop {
            let survey = self.survey().await?;
            let total = survey.total;
            let found = *found.get_or_insert(total);
            let was_full = survey.oldest.len() == VICTIMS;
            let removed_before = sweep.removed;
            sweep.left = total;
            sweep.victims = self
                .run_aside(move |_| survey.oldest.into_sorted_vec().into())
                .await;
            while self
                .evict_step(bounds, &mut sweep, Counted::InThisTrim)
                .await?
            {}
            let again = was_full && sweep.victims.is_empty() && sweep.removed > removed_before;
            if again {
                continue;
            }
            let report = DiskCacheTrimReport {
                scanned: found.entries,
                scanned_bytes: found.bytes,
                removed: sweep.removed,
                removed_bytes: sweep.removed_bytes,
                oldest_kept: sweep.victims.front().map(|seen| seen.used),
                elapsed: start.elapsed(),
            };
            tracing::debug!(tier = %self, ?report, "trimmed");
            if self.bounds.is_any() {
                self.victims.keep(sweep.victims);
            }
            return sweep.failure.map_or(Ok(report), Err);
        }
    }

    /// Evicts the next victims; whether there were any that have to go.
    pub(super) async fn evict_step(
        self: &Arc<Self>,
        bounds: Bounds,
        sweep: &mut Sweep,
        counted: Counted,
    ) -> Result<bool, StoreError> {
        let operation = StoreOperation::Trim;
        let step = sweep.next_step(bounds);
        if step.is_empty() {
            return Ok(false);
        }
        self.check_open(operation)?;
        let done = self.run_aside(move |inner| {
            let done = inner.evict(step);
            if inner.bounds.is_any() {
                // Or else others, who do not see it shrink, would trim it as well.
                inner.usage.report(&inner.folder);
            }
            done
        });
        for (seen, outcome) in done.await {
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
                Err(fault) if sweep.failure.is_none() => {
                    sweep.failure = Some(self.failed(operation, Some(&seen.key), fault));
                }
                Err(fault) => tracing::debug!(key = %seen.key, %fault, "and so did this"),
            }
        }
        Ok(true)
    }

    /// Lists the folder, and removes what was set aside in it.
    async fn survey(self: &Arc<Self>) -> Result<Survey, StoreError> {
        let operation = StoreOperation::Trim;
        let counts = self.bounds.is_any();
        let opened = self.run_aside(move |inner| {
            let (before, reported) = match counts {
                true => inner.usage.report(&inner.folder),
                false => (None, false),
            };
            // What could not be reported is about to be counted, and must not be added to that.
            let before = before.filter(|_| reported);
            if before.is_none() {
                inner.usage.forget_unreported();
            }
            let stored_before = inner.usage.stored();
            Listing::open(&inner.folder).map(|listing| (before, stored_before, listing))
        });
        let failed = |fault| self.failed(operation, None, fault);
        let (before, stored_before, mut listing) = opened.await.map_err(failed)?;
        let mut survey = Survey::default();
        loop {
            self.check_open(operation)?;
            let step = self.run_aside(move |inner| {
                let more = listing.step(&inner.folder, |key, named, file| {
                    match (named, see(key, file)?) {
                        (Named::Entry, Some(seen)) => survey.count(seen),
                        (Named::Aside, Some(_)) => inner.folder.remove_aside(&key)?,
                        // Gone meanwhile, or nothing that a cache made.
                        (_, None) => {}
                    }
                    Ok(())
                });
                more.map(|more| (more, listing, survey))
            });
            let more;
            (more, listing, survey) = step.await.map_err(failed)?;
            if !more {
                break;
            }
        }
        if counts {
            let total = survey.total;
            self.run_aside(move |inner| {
                let (usage, folder) = (&inner.usage, &inner.folder);
                usage.correct(folder, before, stored_before, total);
            })
            .await;
        }
        Ok(survey)
    }

    /// Removes entries, unless they were used or stored anew since they were seen.
    fn evict(&self, entries: Vec<Seen>) -> Vec<(Seen, Result<Eviction, Fault>)> {
        let evict = |seen: Seen| (seen, self.evict_one(&seen));
        entries.into_iter().map(evict).collect()
    }

    fn evict_one(&self, seen: &Seen) -> Result<Eviction, Fault> {
        // As a removal does, so that it does not remove what a put has just stored.
        let Some(_turn) = self.turns.try_of(&seen.key) else {
            return Ok(Eviction::Used);
        };
        let path = self.folder.entry(&seen.key);
        match look(&path) {
            Ok(Some(metadata)) if metadata.modified().ok() == Some(seen.used) => {}
            Ok(None) => return Ok(Eviction::Gone),
            Ok(Some(_)) | Err(Fault::NotAFile(_)) => return Ok(Eviction::Used),
            Err(fault) => return Err(fault),
        }
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Eviction::Gone);
            }
            Err(error) => return Err(at("remove", &path)(error).into()),
        }
        self.ledger.forget(&seen.key);
        self.counters.evictions.increment();
        self.counters.evicted_bytes.add(seen.bytes);
        self.forget_bytes(seen.bytes);
        Ok(Eviction::Removed)
    }

    /// Counts an entry that was removed. The next report tells the others.
    pub(super) fn forget_bytes(&self, bytes: u64) {
        if self.bounds.is_any() {
            self.usage.add(Change::removal(bytes));
        }
    }
}

impl DiskCacheTrimReport {
    pub(super) fn kept(&self) -> Total {
        Total {
            entries: self.scanned.saturating_sub(self.removed),
            bytes: self.scanned_bytes.saturating_sub(self.removed_bytes),
            ..Total::default()
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

/// Renews an entry's time of use, where that is due.
pub(super) fn renew_use(file: &File, used: Option<SystemTime>) {
    if is_use_stale(used) {
        touch(file);
    }
}

/// Whether an entry's time of use is so old that its next use is to be recorded.
pub(super) fn is_use_stale(used: Option<SystemTime>) -> bool {
    let age = used.and_then(|used| SystemTime::now().duration_since(used).ok());
    age.is_some_and(|age| age >= USE_GRANULARITY)
}

/// Records that an entry is used now. Where that is not permitted, the entry is the next to go.
pub(super) fn touch(file: &File) {
    #[cfg(unix)]
    {
        use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};
        // Who may write a file may say "now" of both its times, and nothing else unless it is his.
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let _ = futimens(file, &times);
    }
    #[cfg(not(unix))]
    let _ = file.set_modified(SystemTime::now());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Artifact, PipelineCacheStore as _, PipelineFingerprint};

    #[tokio::test]
    async fn what_was_used_since_the_scan_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::new(folder.path()).await.unwrap();
        let key = PipelineFingerprint::from_bytes([1; 32]);
        cache.put(&key, Artifact::new("code")).await.unwrap();
        let survey = cache.inner.survey().await.unwrap();
        let seen = *survey.oldest.peek().unwrap();
        let before = Seen {
            used: seen.used - USE_GRANULARITY,
            ..seen
        };
        assert_eq!(cache.inner.evict_one(&before).unwrap(), Eviction::Used);
        assert_eq!(cache.inner.evict_one(&seen).unwrap(), Eviction::Removed);
        assert_eq!(cache.inner.evict_one(&seen).unwrap(), Eviction::Gone);
        assert_eq!(cache.metrics().evictions, 1);
    }

    #[test]
    fn a_survey_remembers_the_oldest() {
        let mut survey = Survey::default();
        let total = VICTIMS as u64 + 1000;
        for number in (0..total).map(|number| number * 7919 % total) {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            survey.count(Seen {
                used: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
                key: PipelineFingerprint::from_bytes(key),
                bytes: 1,
            });
        }
        assert_eq!((survey.total.entries, survey.total.bytes), (total, total));
        let oldest = survey.oldest.into_sorted_vec();
        assert_eq!(oldest.len(), VICTIMS);
        for (number, seen) in oldest.iter().enumerate() {
            let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
            assert_eq!(seen.used, expected);
        }
    }
}
