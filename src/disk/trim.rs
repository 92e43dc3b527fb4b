//! Trim: the folder brought back within its bounds, the least recently used entries first.
//!
//! An entry's time of use is its file's modification time, which a hit renews when it is an hour
//! old: far cheaper than keeping an index, and shared by all processes on the folder. A trim lists
//! the folder in steps, remembers the oldest [`VICTIMS`] entries and no more, and removes them in
//! steps; where that is not enough, it lists again. So it never holds up the others, can be dropped
//! at any time, and takes the same memory for a million entries as for a hundred thousand.
//!
//! Puts of a bounded cache start one in the background when the count of [`super::usage`] passes
//! the high-water mark. It stops at the low-water mark, so that the listing is paid for by many
//! puts.

use std::collections::BinaryHeap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

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

/// The longest time between two counts of a bounded folder, as long as there are puts.
const COUNT_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How long to let a folder alone that another process trims, or that a trim could not help.
const PAUSE_WHILE_OTHERS_TRIM: Duration = Duration::from_millis(20);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long, and how often, to wait for others who report. After that the next put tries again.
const PAUSE_WHILE_OTHERS_REPORT: Duration = Duration::from_millis(1);
const REPORT_ATTEMPTS: u32 = 20;

/// The bounds that a trim brings a folder back within. `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    pub(super) max_bytes: Option<u64>,
    pub(super) max_entries: Option<u64>,
    pub(super) max_age: Option<Duration>,
}

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
        let _lock = inner.run(|inner| lock_trim(&inner.folder)).await;
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
    /// Tells what was stored or removed to all who keep the folder within its bounds, and starts a
    /// trim where one is due. Never on a caller's path.
    pub(super) fn account(self: &Arc<Self>, bytes: i64, entries: i64) {
        if !self.bounds.is_any() {
            return;
        }
        self.usage.add(Change { bytes, entries });
        if self.usage.wake() {
            let awake = Awake {
                inner: Arc::clone(self),
                rests: false,
            };
            self.tasks.spawn(awake.keep_within_bounds());
        }
    }

    /// Whether that helped.
    async fn trim_in_background(self: &Arc<Self>) -> bool {
        let Ok(_lock) = self.run(|inner| lock_trim(&inner.folder)).await else {
            // Whoever trims looks again at the end, and sees what this process has reported.
            self.usage.put_off(PAUSE_WHILE_OTHERS_TRIM);
            return false;
        };
        match self.trim(self.bounds.low_water()).await {
            // Where nothing was due but a count, or others were quicker, it helped as well.
            Ok(report) if report.removed > 0 || self.bounds.less(16).hold(&report.kept()) => true,
            // Traced. Before long the same would happen again.
            _ => {
                self.usage.put_off(PAUSE_AFTER_FAILURE);
                false
            }
        }
    }

    async fn trim(self: &Arc<Self>, bounds: Bounds) -> Result<DiskCacheTrimReport, StoreError> {
        let operation = StoreOperation::Trim;
        let start = Instant::now();
        let mut report = DiskCacheTrimReport {
            scanned: 0,
            scanned_bytes: 0,
            removed: 0,
            removed_bytes: 0,
            oldest_kept: None,
            elapsed: Duration::ZERO,
        };
        let mut failure = None;
        for round in 0.. {
            let survey = self.survey().await?;
            if round == 0 {
                report.scanned = survey.total.entries;
                report.scanned_bytes = survey.total.bytes;
            }
            let was_full = survey.oldest.len() == VICTIMS;
            let removed_before = report.removed;
            let mut left = survey.total;
            let expired = bounds.expired();
            let victims = self.run(move |_| survey.oldest.into_sorted_vec()).await;
            let mut victims = victims.into_iter().peekable();
            loop {
                // As many as have to go if all of them can.
                let mut after = left;
                let mut step = Vec::with_capacity(EVICTION_STEP);
                while step.len() < EVICTION_STEP {
                    let goes = |seen: &Seen| {
                        !bounds.hold(&after) || expired.is_some_and(|e| seen.used < e)
                    };
                    let Some(seen) = victims.next_if(goes) else {
                        break;
                    };
                    after = after.without(&seen);
                    step.push(seen);
                }
                if step.is_empty() {
                    break;
                }
                self.check_open(operation)?;
                let done = self.run(move |inner| inner.evict(step)).await;
                for (seen, outcome) in done {
                    match outcome {
                        Ok(Eviction::Removed) => {
                            report.removed += 1;
                            report.removed_bytes += seen.bytes;
                            left = left.without(&seen);
                        }
                        Ok(Eviction::Gone) => left = left.without(&seen),
                        Ok(Eviction::Used) => {}
                        Err(fault) if failure.is_none() => {
                            failure = Some(self.failed(operation, Some(&seen.key), fault));
                        }
                        Err(fault) => tracing::debug!(key = %seen.key, %fault, "and so did this"),
                    }
                }
            }
            report.oldest_kept = victims.peek().map(|seen| seen.used);
            let again = was_full && victims.peek().is_none() && report.removed > removed_before;
            if !again {
                break;
            }
        }
        report.elapsed = start.elapsed();
        tracing::debug!(tier = %self, ?report, "trimmed");
        failure.map_or(Ok(report), Err)
    }

    /// Lists the folder, and removes what was set aside in it.
    async fn survey(self: &Arc<Self>) -> Result<Survey, StoreError> {
        let operation = StoreOperation::Trim;
        let counts = self.bounds.is_any();
        let opened = self.run(move |inner| {
            let before = counts
                .then(|| inner.usage.report(&inner.folder).0)
                .flatten();
            Listing::open(&inner.folder).map(|listing| (before, listing))
        });
        let failed = |fault| self.failed(operation, None, fault);
        let (before, mut listing) = opened.await.map_err(failed)?;
        let mut survey = Survey::default();
        loop {
            self.check_open(operation)?;
            let step = self.run(move |inner| {
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
            self.run(move |inner| inner.usage.correct(&inner.folder, before, total))
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

/// The one who reports and trims. However it ends, another can begin.
struct Awake {
    inner: Arc<Inner>,
    rests: bool,
}

impl Awake {
    async fn keep_within_bounds(mut self) {
        let inner = Arc::clone(&self.inner);
        let mut refusals = 0;
        loop {
            let report = inner.run(|inner| inner.usage.report(&inner.folder));
            let (total, reported) = report.await;
            let due = total.is_none_or(|total| inner.bounds.is_due(&total));
            if due && !inner.usage.is_put_off() && inner.trim_in_background().await {
                continue;
            }
            refusals = if reported { 0 } else { refusals + 1 };
            if refusals > 0 && refusals < REPORT_ATTEMPTS {
                tokio::time::sleep(PAUSE_WHILE_OTHERS_REPORT).await;
                continue;
            }
            self.rests = true;
            inner.usage.rest();
            // What came between the report and the rest has woken nobody.
            let again = reported && inner.usage.has_news();
            if !again || inner.closed.load(Ordering::SeqCst) || !inner.usage.wake() {
                break;
            }
            self.rests = false;
        }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        if !self.rests {
            self.inner.usage.rest();
        }
    }
}

impl Bounds {
    pub(super) fn is_any(&self) -> bool {
        self.max_bytes.is_some() || self.max_entries.is_some() || self.max_age.is_some()
    }

    /// Whether a folder that holds so much is within the bounds on that.
    fn hold(&self, total: &Total) -> bool {
        self.max_bytes.is_none_or(|max| total.bytes <= max)
            && self.max_entries.is_none_or(|max| total.entries <= max)
    }

    /// Before when an entry must have been used to be too old.
    fn expired(&self) -> Option<SystemTime> {
        self.max_age
            .and_then(|age| SystemTime::now().checked_sub(age))
    }

    /// Whether it is time for a trim in the background.
    fn is_due(&self, total: &Total) -> bool {
        !self.less(16).hold(total) || total.age() > self.count_interval()
    }

    fn count_interval(&self) -> Duration {
        self.max_age
            .map_or(COUNT_INTERVAL, |age| (age / 8).min(COUNT_INTERVAL))
            // A count of seconds says no more.
            .max(Duration::from_secs(2))
    }

    /// Where a trim in the background stops.
    fn low_water(&self) -> Self {
        self.less(8)
    }

    /// Bounds that are lower by one part in so many, and never nothing of something.
    fn less(&self, part: u64) -> Self {
        Self {
            max_bytes: self.max_bytes.map(|max| max - max / part),
            max_entries: self.max_entries.map(|max| max - max / part),
            max_age: self.max_age,
        }
    }
}

impl DiskCacheTrimReport {
    fn kept(&self) -> Total {
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

impl Change {
    fn removal(bytes: u64) -> Self {
        Self {
            bytes: -i64::try_from(bytes).unwrap_or(i64::MAX),
            entries: -1,
        }
    }
}

/// Renews an entry's time of use. Where that is not permitted, the entry is the next to go.
pub(super) fn renew_use(file: &File, used: Option<SystemTime>) {
    let now = SystemTime::now();
    let age = used.and_then(|used| now.duration_since(used).ok());
    if age.is_some_and(|age| age >= USE_GRANULARITY) {
        let _ = file.set_modified(now);
    }
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

    #[test]
    fn marks_leave_something_of_a_small_bound() {
        for max in 0..100 {
            let bounds = Bounds {
                max_entries: Some(max),
                ..Bounds::default()
            };
            let (high, low) = (bounds.less(16), bounds.low_water());
            assert!(low.max_entries <= high.max_entries && high.max_entries <= Some(max));
            assert_eq!(low.max_entries == Some(0), max == 0);
        }
    }
}
