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
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::bounds::Bounds;
use super::evict::{Counted, Evictor, Sweep};
use super::order::EvictionOrder;
use super::room::{Room, Throttle};
use super::trim::Trimmer;
use super::usage::{Change, Total, Usage};
use crate::disk::durability::ledger::Ledger;
use crate::disk::lock::open_locked;
use crate::disk::report::DiskCacheTrimReport;
use crate::disk::shared::Shared;
use crate::store::{StoreError, StoreOperation};
use crate::sync::blocking;
use crate::sync::operations::in_task;

/// The pause between trims where another process scans, and where a trim failed.
const PAUSE_WHILE_OTHERS_SCAN: Duration = Duration::from_millis(2);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long, and how often, to wait while others report, or write the candidates. After that the
/// next put tries again.
const PAUSE_WHILE_OTHERS_WRITE: Duration = Duration::from_millis(1);
const ATTEMPTS: u32 = 20;

/// Starts trims, in the background and on demand.
#[derive(Debug)]
pub(in crate::disk) struct Collector {
    shared: Arc<Shared>,
    bounds: Bounds,
    usage: Arc<Usage>,
    trimmer: Trimmer,
    throttle: Throttle,
}

impl Collector {
    pub(in crate::disk) fn new(
        shared: &Arc<Shared>,
        ledger: &Arc<Ledger>,
        bounds: Bounds,
        order: EvictionOrder,
    ) -> Self {
        let usage = Arc::<Usage>::default();
        let evictor = Evictor::new(shared, ledger, &usage, bounds);
        Self {
            shared: Arc::clone(shared),
            bounds,
            trimmer: Trimmer::new(shared, &usage, bounds, order, evictor),
            throttle: Throttle::new(shared, &usage, bounds),
            usage,
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
        self.collect();
    }

    /// Starts a task that trims the folder, if that is due.
    fn collect_if_due(self: &Arc<Self>) {
        let is_due = |total: Total| self.is_due(&total);
        if !self.usage.is_paused() && self.usage.estimate().is_none_or(is_due) {
            self.collect();
        }
    }

    fn collect(self: &Arc<Self>) {
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
        let unprepared = self.trimmer.keeps_candidates()
            && self.trimmer.candidates().are_few(total.entries)
            && !self.bounds.low_water().admit(total)
            && self.bounds.is_part(self.usage.stored(), 256);
        unprepared || self.bounds.is_due(total, self.usage.age(total))
    }

    async fn trim_in_background(&self, total: Option<Total>) -> Trimmed {
        let only_full = |total: &Total| {
            self.usage.age(total) <= self.bounds.scan_interval()
                && !self.bounds.high_water().admit(total)
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
            let path = shared.directory.staging().join("trim");
            let file = open_locked(&shared.directory, &path)?;
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
        let evictor = self.trimmer.evictor();
        let mut more = !sweep.candidates.is_empty();
        // When no candidates are left, a scan tries the failed ones again and reports them.
        while more && !low_water.admit(&sweep.left) && !self.shared.is_closed() {
            more = evictor.step(low_water, &mut sweep, Counted::Before).await;
        }
        self.trimmer.candidates().keep(sweep.candidates);
        more
    }

    /// Waits for room for an entry of so many bytes. Called in the task of the put.
    pub(in crate::disk) async fn await_room(self: &Arc<Self>, bytes: u64) -> Room {
        self.throttle.room(bytes, || self.collect_if_due()).await
    }

    /// The largest file that a put may add.
    pub(in crate::disk) fn max_entry_bytes(&self) -> u64 {
        self.bounds.max_entry_bytes()
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
mod tests;
