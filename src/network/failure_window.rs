//! Counts calls and failures within a sliding window of time.

use std::time::Duration;
use tokio::time::Instant;

const SLICES: usize = 10;

/// Calls and failures within the window, in slices that are dropped one by one.
#[derive(Debug)]
pub(super) struct Window {
    slice: Duration,
    origin: Instant,
    slices: [Slice; SLICES],
}

#[derive(Debug, Clone, Copy, Default)]
struct Slice {
    /// Which slice since the origin it is.
    number: u128,
    calls: u64,
    failures: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            slice: (length / SLICES as u32).max(Duration::from_nanos(1)),
            origin: Instant::now(),
            slices: [Slice::default(); SLICES],
        }
    }

    /// Adds a call. Returns all calls and failures within the window.
    pub(super) fn record(&mut self, now: Instant, success: bool) -> (u64, u64) {
        let number = (now - self.origin).as_nanos() / self.slice.as_nanos();
        let slice = &mut self.slices[(number % SLICES as u128) as usize];
        if slice.number != number {
            *slice = Slice {
                number,
                ..Slice::default()
            };
        }
        slice.calls += 1;
        slice.failures += u64::from(!success);
        let recent = self.slices.iter();
        recent
            .filter(|slice| slice.number + SLICES as u128 > number)
            .fold((0, 0), |(calls, failures), slice| {
                (calls + slice.calls, failures + slice.failures)
            })
    }
}
