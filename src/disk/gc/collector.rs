//! Keeps a bounded folder within its bounds: puts start a trim in the background when the count of
//! [`super::usage`] exceeds the high-water mark.
//!
//! A trim stops at the low-water mark. The next one goes on with the candidates that the last scan
//! found, so that one scan yields enough candidates for many evictions. Every process reads the
//! common count before each step, so several that evict at once remove little more than one would.
//! One process scans at a time. Others do not wait for it where the bound itself is exceeded or the
//! count is unknown, because that process may have been stopped.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::bounds::Bounds;
use super::evict::{Counted, Evictor, Sweep};
use super::trim::Trimmer;
use super::usage::{Change, Total, Usage};
use crate::disk::durability::ledger::Ledger;
use crate::disk::lock::open_locked;
use crate::disk::operations::in_task;
use crate::disk::report::DiskCacheTrimReport;
use crate::disk::shared::Shared;
use crate::store::{StoreError, StoreOperation};
use crate::sync::blocking;

/// The pause between trims where another process scans, and where a trim failed.
const PAUSE_WHILE_OTHERS_SCAN: Duration = Duration::from_millis(2);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long, and how often, to wait while others report, or write the candidates. After that the
/// next put tries again.
const PAUSE_WHILE_OTHERS_WRITE: Duration = Duration::from_millis(1);
const ATTEMPTS: u32 = 20;

/// The longest time that a put waits for evictions where the bound is exceeded.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Starts trims, in the background and on demand.
#[derive(Debug)]
pub(in crate::disk) struct Collector {
    shared: Arc<Shared>,
    bounds: Bounds,
    usage: Arc<Usage>,
    trimmer: Trimmer,
    /// Notified after each step of an eviction.
    evicted: Notify,
}

impl Collector {
    pub(in crate::disk) fn new(shared: &Arc<Shared>, ledger: &Arc<Ledger>, bounds: Bounds) -> Self {
        let usage = Arc::<Usage>::default();
        let evictor = Evictor::new(shared, ledger, &usage, bounds);
        Self {
            shared: Arc::clone(shared),
            bounds,
            trimmer: Trimmer::new(shared, &usage, bounds, evictor),
            usage,
            evicted: Notify::new(),
        }
    }

    #[cfg(test)]
    pub(in crate::disk) fn trimmer(&self) -> &Trimmer {
        &self.trimmer
    }

    /// What the folder holds, as far as this cache knows.
    pub(in crate::disk) fn estimate(&self) -> Total {
        self.usage.estimate().unwrap_or_default()
    }

    /// Counts an entry that was stored, and starts a task that reports it and trims the folder if
    /// that is due.
    pub(in crate::disk) fn account_put(self: &Arc<Self>, bytes: u64) {
        if !self.bounds.is_any() {
            return;
        }
        self.usage.add(Change::put(bytes));
        if self.usage.start_collecting() {
            let collection = Collection {
                collector: Arc::clone(self),
                stopped: false,
            };
            self.shared.tasks.spawn(collection.run());
        }
    }

    /// Counts an entry that was removed.
    pub(in crate::disk) fn account_removal(&self, bytes: u64) {
        self.trimmer.evictor().account_removal(bytes);
    }

    /// Trims on demand, in a task that is aborted when this future is dropped. So a caller that does
    /// not poll it keeps no lock.
    pub(in crate::disk) async fn trim(self: &Arc<Self>) -> Result<DiskCacheTrimReport, StoreError> {
        let token = self.shared.tasks.token();
        self.shared.check_open(StoreOperation::Trim)?;
        let collector = Arc::clone(self);
        in_task(async move {
            let _token = token;
            // Where another process trims, both do: each counts what the other removes as gone.
            let _lock = collector.lock_trim().await;
            let (report, failures) = collector.trimmer.trim(collector.bounds).await?;
            match failures.into_first() {
                None => Ok(report),
                Some((key, fault)) => {
                    let operation = StoreOperation::Trim;
                    Err(collector.shared.failed(operation, Some(&key), fault))
                }
            }
        })
        .await
    }

    /// Whether a trim is due. It is due sooner for a process that stores much and knows few
    /// candidates: it scans before the bound is reached. A process that runs for a short time does
    /// not.
    fn is_due(&self, total: &Total) -> bool {
        let unprepared = self.trimmer.candidates().are_few(total.entries)
            && !self.bounds.low_water().admit(total)
            && self.bounds.is_part(self.usage.stored(), 256);
        unprepared || self.bounds.is_due(total)
    }

    async fn trim_in_background(&self, total: Option<Total>) -> Trimmed {
        let only_full = |total: &Total| {
            total.age() <= self.bounds.scan_interval() && !self.bounds.high_water().admit(total)
        };
        if let Some(total) = total.filter(only_full) {
            if self.evict_candidates(total).await {
                return Trimmed::Enough;
            }
        }
        let lock = self.lock_trim().await;
        // By the count of now: others have put while this evicted.
        let total = self.usage.estimate();
        let within = total.is_some_and(|total| self.bounds.admit(&total));
        if lock.is_err() && within {
            // The process that scans looks again at the end, and sees what this one has reported.
            self.usage.pause(PAUSE_WHILE_OTHERS_SCAN);
            return Trimmed::NotNow;
        }
        let trimmed = self.trimmer.trim(self.bounds.low_water()).await;
        // Awaited, so that the next trim does not find this one's lock.
        blocking::blocking(|| lock.map(TrimLock::release).ok()).await;
        match trimmed {
            // It also helped where only a scan was due, or other processes were faster.
            Ok((report, _))
                if report.removed > 0 || self.bounds.high_water().admit(&report.kept()) =>
            {
                Trimmed::Enough
            }
            Ok((_, failures)) if failures.is_empty() => Trimmed::TooLittle,
            outcome => {
                if let Some((key, fault)) = outcome.ok().and_then(|(_, all)| all.into_first()) {
                    self.shared.failed(StoreOperation::Trim, Some(&key), fault);
                }
                // Traced. The next trim would soon fail in the same way.
                self.usage.pause(PAUSE_AFTER_FAILURE);
                Trimmed::NotNow
            }
        }
    }

    /// The lock that lets one process scan the folder at a time.
    async fn lock_trim(&self) -> io::Result<TrimLock> {
        let token = self.shared.tasks.token();
        let lock = self.shared.run_in_background(|shared| {
            let file = open_locked(&shared.directory, "trim")?;
            Ok(TrimLock(Some((file, token))))
        });
        lock.await
    }

    /// Evicts the candidates that the last scan found. Returns whether that was enough.
    async fn evict_candidates(&self, total: Total) -> bool {
        let low_water = self.bounds.low_water();
        let mut sweep = Sweep {
            left: total,
            candidates: self.trimmer.candidates().take(),
            ..Sweep::default()
        };
        let _evicting = Evicting::start(self);
        let evictor = self.trimmer.evictor();
        let mut more = !sweep.candidates.is_empty();
        // When no candidates are left, a scan tries the failed ones again and reports them.
        while more && !low_water.admit(&sweep.left) && !self.shared.is_closed() {
            more = evictor.step(low_water, &mut sweep, Counted::Before).await;
            self.evicted.notify_waiters();
        }
        self.trimmer.candidates().keep(sweep.candidates);
        more
    }

    /// Lets a put wait where the bound is exceeded and entries are being evicted, so that puts do not
    /// outrun the eviction. No put waits for a scan. Called in the task of the put.
    pub(in crate::disk) async fn await_room(&self) {
        let is_exceeded = || {
            let total = self.usage.estimate();
            total.is_some_and(|total| !self.bounds.admit(&total))
        };
        if !self.bounds.is_any() || !is_exceeded() {
            return;
        }
        let room = async {
            loop {
                let mut step = pin!(self.evicted.notified());
                // Registered before the look, so that no step falls between the two.
                step.as_mut().enable();
                if !is_exceeded() || !self.usage.is_evicting() {
                    return;
                }
                step.await;
            }
        };
        // An eviction that makes no progress delays a put by no more than this.
        let _ = timeout(MAX_WAIT, room).await;
    }

    async fn report(&self) -> (Option<Total>, bool) {
        let usage = Arc::clone(&self.usage);
        let report = move |shared: &Shared| usage.report(&shared.directory);
        self.shared.run_in_background(report).await
    }
}

/// The lock of a trim. Released on the blocking pool when it is dropped; a close waits for that.
#[derive(Debug)]
struct TrimLock(Option<(File, TaskTrackerToken)>);

impl TrimLock {
    /// Releases the lock here and now. Waits.
    fn release(mut self) {
        drop(self.0.take());
    }
}

impl Drop for TrimLock {
    fn drop(&mut self) {
        if let Some(lock) = self.0.take() {
            blocking::discard(lock);
        }
    }
}

/// Marks an eviction in progress. When it is dropped, the puts that wait for it go on.
struct Evicting<'a>(&'a Collector);

impl<'a> Evicting<'a> {
    fn start(collector: &'a Collector) -> Self {
        collector.usage.set_evicting(true);
        Self(collector)
    }
}

impl Drop for Evicting<'_> {
    fn drop(&mut self) {
        self.0.usage.set_evicting(false);
        self.0.evicted.notify_waiters();
    }
}

/// The outcome of a trim in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trimmed {
    Enough,
    /// The candidates were just being written.
    TooLittle,
    /// It failed, or another process trims. The next put after the pause tries again.
    NotNow,
}

/// The task that reports and trims, one at a time. When it is dropped, another can start.
struct Collection {
    collector: Arc<Collector>,
    stopped: bool,
}

impl Collection {
    async fn run(mut self) {
        let collector = Arc::clone(&self.collector);
        let usage = &collector.usage;
        let mut retries = 0;
        loop {
            let (total, reported) = collector.report().await;
            // A process that holds the count releases it in a moment: that is no reason to scan.
            let unknown = reported || retries + 1 == ATTEMPTS;
            let due = total.map_or(unknown, |total| collector.is_due(&total));
            // A close waits for this task, and leaves what is due to another process.
            let closed = collector.shared.is_closed();
            let trimmed = if due && !closed && !usage.is_paused() {
                collector.trim_in_background(total).await
            } else {
                Trimmed::NotNow
            };
            if trimmed == Trimmed::Enough {
                continue;
            }
            let settled = reported && trimmed != Trimmed::TooLittle;
            retries = if settled { 0 } else { retries + 1 };
            if retries > 0 && retries < ATTEMPTS {
                tokio::time::sleep(PAUSE_WHILE_OTHERS_WRITE).await;
                continue;
            }
            self.stopped = true;
            usage.stop_collecting();
            // A put between the report and this point has started no task.
            let again = if reported && total.is_some() {
                usage.has_unreported()
            } else {
                let total = usage.estimate();
                total.is_some_and(|total| collector.is_due(&total)) && !usage.is_paused()
            };
            if !again || collector.shared.is_closed() || !usage.start_collecting() {
                break;
            }
            self.stopped = false;
        }
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        if !self.stopped {
            self.collector.usage.stop_collecting();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Artifact;
    use crate::disk::DiskCache;
    use crate::disk::gc::usage::Stored;
    use crate::key::PipelineFingerprint;
    use crate::store::PipelineCacheStore as _;
    use futures::poll;

    #[tokio::test(start_paused = true)]
    async fn a_put_waits_for_an_eviction_where_the_bound_is_exceeded_and_not_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::builder().root(folder.path()).max_entries(4);
        let cache = cache.open().await.unwrap();
        let put = |number| {
            let key = PipelineFingerprint::from_bytes([number; 32]);
            let cache = cache.clone();
            async move { cache.put(&key, Artifact::new("code")).await.unwrap() }
        };
        let collector = &cache.collector;
        cache.shared.directory.create_staging().unwrap();
        let hold = |entries| {
            let total = Total {
                entries,
                ..Total::default()
            };
            let stored = Stored::default();
            let directory = &cache.shared.directory;
            collector.usage.correct(directory, None, stored, total);
        };
        // No trim in the background interferes.
        collector.usage.pause(Duration::from_secs(3600));

        hold(5);
        put(1).await;
        let evicting = Evicting::start(collector);
        let mut second = Box::pin(put(2));
        assert!(poll!(&mut second).is_pending());
        collector.evicted.notify_waiters();
        assert!(poll!(&mut second).is_pending());
        tokio::time::advance(MAX_WAIT - Duration::from_millis(1)).await;
        assert!(poll!(&mut second).is_pending());
        assert_eq!(cache.ledger.len(), 1);
        tokio::time::advance(Duration::from_millis(2)).await;
        second.await;

        let mut third = Box::pin(put(3));
        assert!(poll!(&mut third).is_pending());
        let start = tokio::time::Instant::now();
        drop(evicting);
        third.await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    /// Another process evicts the rest. A close does not wait for it.
    #[test]
    fn a_close_ends_an_eviction_with_its_step() {
        const STEP: u64 = 32;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build();
        runtime.unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let cache = DiskCache::builder().root(folder.path());
            let cache = cache.max_entries(10_000).open().await.unwrap();
            let collector = &cache.collector;
            for number in 0..400_u64 {
                let key = *blake3::hash(&number.to_le_bytes()).as_bytes();
                let entry = cache
                    .shared
                    .directory
                    .entry(&PipelineFingerprint::from_bytes(key));
                std::fs::write(entry, "not a frame").unwrap();
            }
            let survey = collector.trimmer.survey().await.unwrap();
            let candidates = collector.trimmer.candidates();
            candidates.keep(survey.oldest.into_sorted_vec().into());
            let total = Total {
                entries: 10_000,
                ..Total::default()
            };
            let stored = Stored::default();
            let directory = &cache.shared.directory;
            collector.usage.correct(directory, None, stored, total);
            assert!(collector.usage.start_collecting());
            let collection = Collection {
                collector: Arc::clone(collector),
                stopped: false,
            };
            cache.shared.tasks.spawn(collection.run());
            while cache.metrics().evictions <= STEP {
                tokio::task::yield_now().await;
            }
            let before = cache.metrics().evictions;
            cache.close(Duration::from_secs(60)).await.unwrap();
            let after = cache.metrics().evictions;
            assert!(after <= before + STEP, "{before}, then {after}");
        });
    }
}
