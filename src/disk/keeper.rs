//! Who keeps a bounded folder within its bounds: puts start a trim in the background when the count
//! of [`super::usage`] passes the high-water mark.
//!
//! It stops at the low-water mark, and goes on from there the next time with the entries that the
//! last listing found to be the oldest: so a listing is paid for by the eviction of all it found,
//! and what has to go goes at once. Every process looks at the common count before each step, so
//! several that evict at once remove little more than one would. One process lists at a time,
//! unless the bound itself is passed, or nobody knows: then whoever lists may stand still, and is
//! not waited for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Inner;
use super::trim::{Counted, Sweep};
use super::usage::{Change, Total, lock_trim};

/// How long to let a folder alone that another process lists, or that a trim could not help.
const PAUSE_WHILE_OTHERS_LIST: Duration = Duration::from_millis(2);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long, and how often, to wait for others who report, or write what is to go. After that the
/// next put tries again.
const PAUSE_WHILE_OTHERS_WRITE: Duration = Duration::from_millis(1);
const ATTEMPTS: u32 = 20;

impl Inner {
    /// Tells what was stored, and removed before, to all who keep the folder within its bounds,
    /// and starts a trim where one is due. Never on a caller's path.
    pub(super) fn account(self: &Arc<Self>, bytes: u64) {
        if !self.bounds.is_any() {
            return;
        }
        self.usage.add(Change::put(bytes));
        if self.usage.wake() {
            let awake = Awake {
                inner: Arc::clone(self),
                rests: false,
            };
            self.tasks.spawn(awake.keep_within_bounds());
        }
    }

    /// Whether it is time for a trim. One that stores much and has little to go on with lists
    /// sooner, so that it is done before there has to be room; one that comes and goes does not.
    fn is_due(&self, total: &Total) -> bool {
        let unprepared = self.victims.are_few(total.entries)
            && !self.bounds.low_water().hold(total)
            && self.bounds.is_part(self.usage.stored(), 256);
        unprepared || self.bounds.is_due(total)
    }

    async fn trim_in_background(self: &Arc<Self>, total: Option<Total>) -> Trimmed {
        let goes_on = |total: &Total| {
            total.age() <= self.bounds.count_interval() && !self.bounds.less(16).hold(total)
        };
        if let Some(total) = total.filter(goes_on) {
            if self.evict_remembered(total).await {
                return Trimmed::Enough;
            }
        }
        let lock = self.run_aside(|inner| lock_trim(&inner.folder)).await;
        let within = total.is_some_and(|total| self.bounds.hold(&total));
        if lock.is_err() && within {
            // Whoever lists looks again at the end, and sees what this process has reported.
            self.usage.put_off(PAUSE_WHILE_OTHERS_LIST);
            return Trimmed::NotNow;
        }
        match self.trim(self.bounds.low_water()).await {
            // Where nothing was due but a count, or others were quicker, it helped as well.
            Ok(report) if report.removed > 0 || self.bounds.less(16).hold(&report.kept()) => {
                Trimmed::Enough
            }
            Ok(_) => Trimmed::TooLittle,
            Err(_) => {
                // Traced. Before long the same would happen again.
                self.usage.put_off(PAUSE_AFTER_FAILURE);
                Trimmed::NotNow
            }
        }
    }

    /// Evicts what the last listing found to be the oldest; whether that was enough.
    async fn evict_remembered(self: &Arc<Self>, mut total: Total) -> bool {
        let low_water = self.bounds.low_water();
        let mut sweep = Sweep {
            victims: self.victims.take(),
            ..Sweep::default()
        };
        let mut more = !sweep.victims.is_empty();
        while more && !low_water.hold(&total) {
            sweep.left = total;
            let step = self.evict_step(low_water, &mut sweep, Counted::Before);
            more = step.await.unwrap_or(false) && sweep.failure.is_none();
            total = self.report().await.0.unwrap_or(total);
        }
        self.victims.keep(sweep.victims);
        more
    }

    async fn report(self: &Arc<Self>) -> (Option<Total>, bool) {
        self.run_aside(|inner| inner.usage.report(&inner.folder))
            .await
    }
}

/// What a trim in the background came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trimmed {
    Enough,
    /// What had to go was just being written.
    TooLittle,
    /// It failed, or others are at it. The next put tries again, when the pause is over.
    NotNow,
}

/// The one who reports and trims. However it ends, another can begin.
struct Awake {
    inner: Arc<Inner>,
    rests: bool,
}

impl Awake {
    async fn keep_within_bounds(mut self) {
        let inner = Arc::clone(&self.inner);
        let mut retries = 0;
        loop {
            let (total, reported) = inner.report().await;
            let due = total.is_none_or(|total| inner.is_due(&total));
            let trimmed = if due && !inner.usage.is_put_off() {
                inner.trim_in_background(total).await
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
            self.rests = true;
            inner.usage.rest();
            // What came between the report and the rest has woken nobody.
            let again = if reported && total.is_some() {
                inner.usage.has_news()
            } else {
                let total = inner.usage.estimate();
                total.is_some_and(|total| inner.is_due(&total)) && !inner.usage.is_put_off()
            };
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
