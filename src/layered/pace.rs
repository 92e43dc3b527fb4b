//! Bounds on bytes: how many in all, and how many in a second.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

use crate::sync::lock::lock;

/// A number of bytes, of which some are left.
#[derive(Debug)]
pub(super) struct ByteBudget(AtomicU64);

impl ByteBudget {
    pub(super) const fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Takes this many bytes, if they are left. Of an unknown number none is taken, while some are left.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let take = |left: u64| match left {
            0 => None,
            left => left.checked_sub(bytes),
        };
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.is_ok()
    }

    /// It became this many bytes and not those that were taken.
    pub(super) fn correct(&self, taken: u64, bytes: u64) {
        let correct = |left: u64| Some(left.saturating_add(taken).saturating_sub(bytes));
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, correct);
    }
}

/// Bytes in a second, on average: what was begun is paid for before the next begins.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    /// When all bytes so far are paid for.
    free_at: Mutex<Instant>,
}

/// No number of bytes takes longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            bytes_per_second,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits for the turn of this many bytes.
    pub(super) async fn wait(&self, bytes: u64) {
        let Some(time) = self.time(bytes) else {
            return;
        };
        let turn = {
            let mut free_at = lock(&self.free_at);
            let turn = (*free_at).max(Instant::now());
            *free_at = turn + time;
            turn
        };
        sleep_until(turn).await;
    }

    /// It became this many bytes and not those that were waited for.
    pub(super) fn correct(&self, expected: u64, bytes: u64) {
        let (Some(expected), Some(time)) = (self.time(expected), self.time(bytes)) else {
            return;
        };
        let mut free_at = lock(&self.free_at);
        *free_at += time.saturating_sub(expected);
        let less = expected.saturating_sub(time);
        *free_at = free_at.checked_sub(less).unwrap_or(*free_at);
    }

    fn time(&self, bytes: u64) -> Option<Duration> {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second?.max(1));
        let time = u64::try_from(nanos).map_or(LONGEST, Duration::from_nanos);
        Some(time.min(LONGEST))
    }
}
