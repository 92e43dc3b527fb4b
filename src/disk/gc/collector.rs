//! Who keeps a bounded folder within its bounds: puts start a trim in the background when the count
//! of [`super::usage`] passes the high-water mark.
//!
//! It stops at the low-water mark, and goes on from there the next time with the entries that the
//! last listing found to be the oldest: so a listing is paid for by the eviction of all it found,
//! and what has to go goes at once. Every process looks at the common count before each step, so
//! several that evict at once remove little more than one would. One process lists at a time,
//! unless the bound itself is passed, or nobody knows: then whoever lists may stand still, and is
//! not waited for.

use std::fs::File;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::evict::{Counted, Sweep};
use super::usage::{Change, Total};
use crate::disk::Inner;
use crate::disk::lock::open_locked;
use crate::store::StoreOperation;
use crate::sync::blocking;

/// How long to let a folder alone that another process lists, or that a trim could not help.
const PAUSE_WHILE_OTHERS_LIST: Duration = Duration::from_millis(2);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How long, and how often, to wait for others who report, or write what is to go. After that the
/// next put tries again.
const PAUSE_WHILE_OTHERS_WRITE: Duration = Duration::from_millis(1);
const ATTEMPTS: u32 = 20;

/// For how long a put waits for entries to go where the bound is passed.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

impl Inner {
    /// Tells what was stored, and removed before, to all who keep the folder within its bounds,
    /// and starts a trim where one is due. Never on a caller's path.
    pub(in crate::disk) fn account(self: &Arc<Self>, bytes: u64) {
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
        let unprepared = self.candidates.are_few(total.entries)
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
        let lock = self.lock_trim().await;
        // By what is there now: others have put while this evicted.
        let within = self
            .usage
            .estimate()
            .is_some_and(|total| self.bounds.hold(&total));
        if lock.is_err() && within {
            // Whoever lists looks again at the end, and sees what this process has reported.
            self.usage.put_off(PAUSE_WHILE_OTHERS_LIST);
            return Trimmed::NotNow;
        }
        let trimmed = self.trim(self.bounds.low_water()).await;
        // Waited for, so that the next trim does not find this one's lock.
        self.run_aside(|_| lock.map(TrimLock::release).ok()).await;
        match trimmed {
            // Where nothing was due but a count, or others were quicker, it helped as well.
            Ok((report, _)) if report.removed > 0 || self.bounds.less(16).hold(&report.kept()) => {
                Trimmed::Enough
            }
            Ok((_, failures)) if failures.is_empty() => Trimmed::TooLittle,
            outcome => {
                if let Some((key, fault)) = outcome.ok().and_then(|(_, all)| all.into_first()) {
                    self.failed(StoreOperation::Trim, Some(&key), fault);
                }
                // Traced. Before long the same would happen again.
                self.usage.put_off(PAUSE_AFTER_FAILURE);
                Trimmed::NotNow
            }
        }
    }

    /// The right to trim the folder, which one process has at a time.
    pub(in crate::disk) async fn lock_trim(self: &Arc<Self>) -> io::Result<TrimLock> {
        let token = self.tasks.token();
        self.run_aside(|inner| {
            let file = open_locked(&inner.folder, "trim")?;
            Ok(TrimLock(Some((file, token))))
        })
        .await
    }

    /// Evicts what the last listing found to be the oldest; whether that was enough.
    async fn evict_remembered(self: &Arc<Self>, total: Total) -> bool {
        let low_water = self.bounds.low_water();
        let mut sweep = Sweep {
            left: total,
            candidates: self.candidates.take(),
            ..Sweep::default()
        };
        let _evicting = Evicting::start(self);
        let mut more = !sweep.candidates.is_empty();
        // What fails is tried again, and told, by the listing that comes when none are left.
        while more && !low_water.hold(&sweep.left) && !self.closed.load(Ordering::SeqCst) {
            more = self
                .evict_step(low_water, &mut sweep, Counted::Before)
                .await;
            self.room.notify_waiters();
        }
        self.candidates.keep(sweep.candidates);
        more
    }

    /// Lets a put wait where the bound is passed and entries are going, so that those who store
    /// cannot outrun the one who evicts. Nobody waits for a listing.
    pub(in crate::disk) async fn await_room(&self) {
        let is_past = || {
            let total = self.usage.estimate();
            total.is_some_and(|total| !self.bounds.hold(&total))
        };
        if !self.bounds.is_any() || !is_past() {
            return;
        }
        let room = async {
            loop {
                let mut step = pin!(self.room.notified());
                // Registered before the look, so that no step falls between the two.
                step.as_mut().enable();
                if !is_past() || !self.usage.is_evicting() {
                    return;
                }
                step.await;
            }
        };
        // One who does not get on holds nobody up for long.
        let _ = timeout(LONGEST_WAIT, room).await;
    }

    async fn report(self: &Arc<Self>) -> (Option<Total>, bool) {
        self.run_aside(|inner| inner.usage.report(&inner.folder))
            .await
    }
}

/// Let go of on the blocking pool, as a file whose drop waits. A close waits for that.
pub(in crate::disk) struct TrimLock(Option<(File, TaskTrackerToken)>);

impl TrimLock {
    /// Lets go of it here and now; waits.
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

/// Says that entries are going. However it ends, nobody waits for it after that.
struct Evicting<'a>(&'a Inner);

impl<'a> Evicting<'a> {
    fn start(inner: &'a Inner) -> Self {
        inner.usage.set_evicting(true);
        Self(inner)
    }
}

impl Drop for Evicting<'_> {
    fn drop(&mut self) {
        self.0.usage.set_evicting(false);
        self.0.room.notify_waiters();
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
            // Another who just now has the count tells it in a moment: no reason to list.
            let unknown = reported || retries + 1 == ATTEMPTS;
            let due = total.map_or(unknown, |total| inner.is_due(&total));
            // A close waits for this, and what is past the bound another will find.
            let closed = inner.closed.load(Ordering::SeqCst);
            let trimmed = if due && !closed && !inner.usage.is_put_off() {
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
    async fn a_put_past_the_bound_waits_while_entries_are_going_and_not_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::builder().root(folder.path()).max_entries(4);
        let cache = cache.open().await.unwrap();
        let put = |number| {
            let key = PipelineFingerprint::from_bytes([number; 32]);
            let cache = cache.clone();
            async move { cache.put(&key, Artifact::new("code")).await.unwrap() }
        };
        let inner = &cache.inner;
        inner.folder.create_staging().unwrap();
        let hold = |entries| {
            let total = Total {
                entries,
                ..Total::default()
            };
            let (usage, stored) = (&inner.usage, Stored::default());
            usage.correct(&inner.folder, None, stored, total);
        };
        // No trim of its own interferes.
        inner.usage.put_off(Duration::from_secs(3600));

        hold(5);
        put(1).await;
        let evicting = Evicting::start(inner);
        let mut second = Box::pin(put(2));
        assert!(poll!(&mut second).is_pending());
        inner.room.notify_waiters();
        assert!(poll!(&mut second).is_pending());
        tokio::time::advance(LONGEST_WAIT - Duration::from_millis(1)).await;
        assert!(poll!(&mut second).is_pending());
        assert_eq!(inner.ledger.len(), 1);
        tokio::time::advance(Duration::from_millis(2)).await;
        second.await;

        let mut third = Box::pin(put(3));
        assert!(poll!(&mut third).is_pending());
        let start = tokio::time::Instant::now();
        drop(evicting);
        third.await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    /// What is past the bound another will find; a close is not to wait until it is gone.
    #[test]
    fn a_close_ends_an_eviction_with_its_step() {
        const STEP: u64 = 32;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build();
        runtime.unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let cache = DiskCache::builder().root(folder.path());
            let cache = cache.max_entries(10_000).open().await.unwrap();
            let inner = &cache.inner;
            for number in 0..400_u64 {
                let key = *blake3::hash(&number.to_le_bytes()).as_bytes();
                let entry = inner.folder.entry(&PipelineFingerprint::from_bytes(key));
                std::fs::write(entry, "of no interest").unwrap();
            }
            let survey = inner.survey().await.unwrap();
            inner
                .candidates
                .keep(survey.oldest.into_sorted_vec().into());
            let total = Total {
                entries: 10_000,
                ..Total::default()
            };
            let (usage, stored) = (&inner.usage, Stored::default());
            usage.correct(&inner.folder, None, stored, total);
            assert!(inner.usage.wake());
            let awake = Awake {
                inner: Arc::clone(inner),
                rests: false,
            };
            inner.tasks.spawn(awake.keep_within_bounds());
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
