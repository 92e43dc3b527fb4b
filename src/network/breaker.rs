//! The breaker: whether a tier is asked at all.
//!
//! It counts how calls end, and not how many failed: a busy server that fails now and then is no
//! failing server. While it is open no caller waits for the server. A background task of the tier
//! probes it, one request at a time, so that no caller pays for the probe either.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::PipelineFingerprint;
use crate::metrics::Counter;

/// Whether a tier across a network is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// The tier is asked.
    Closed,
    /// The tier is not asked: too many calls failed. Each call fails at once, with
    /// [`CircuitOpen`](crate::StoreErrorKind::CircuitOpen).
    Open,
    /// As [`Open`](Self::Open) to callers, while one request finds out whether the tier is well
    /// again.
    HalfOpen,
}

/// When a tier across a network is left alone for a while, and for how long.
///
/// Misses are successes, and so are refusals: only a server that cannot be reached, does not
/// answer in time, says that it is out of service or makes no sense has failed.
///
/// ```
/// use pipeline_cache::BreakerPolicy;
/// use std::time::Duration;
///
/// let impatient = BreakerPolicy::default()
///     .min_calls(3)
///     .probe_interval(Duration::from_secs(1));
/// # let _ = impatient;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BreakerPolicy {
    pub(super) window: Duration,
    pub(super) min_calls: u64,
    pub(super) failure_percent: u8,
    pub(super) probe_interval: Duration,
    pub(super) abandoned_after: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(60),
            min_calls: 5,
            failure_percent: 50,
            probe_interval: Duration::from_secs(5),
            abandoned_after: Duration::from_secs(1),
        }
    }
}

impl BreakerPolicy {
    /// The time over which the rate of failures is taken. Calls that take long need a long one.
    /// Default: 60 seconds.
    #[must_use]
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// The calls within the window below which no rate is taken, at least 1. Twice as many failures
    /// in a row open the breaker whatever the rate is: a server that has just died may have
    /// answered thousands of calls within the window. Default: 5.
    #[must_use]
    pub const fn min_calls(mut self, calls: u64) -> Self {
        self.min_calls = calls;
        self
    }

    /// The part of the calls within the window, in percent, whose failure opens the breaker; above
    /// 100 it never opens. Default: 50.
    #[must_use]
    pub const fn failure_percent(mut self, percent: u8) -> Self {
        self.failure_percent = percent;
        self
    }

    /// How long the tier is left alone before it is probed, and from one probe to the next. A probe
    /// reads the entry that was asked for last. A server that is well again is asked again after
    /// this time, or that of a probe that hangs (the timeout of an attempt), whichever is longer.
    /// Default: 5 seconds.
    #[must_use]
    pub const fn probe_interval(mut self, interval: Duration) -> Self {
        self.probe_interval = interval;
        self
    }

    /// A call whose caller gave it up after this long or longer counts as failed: a lookup with a
    /// deadline of its own would otherwise never teach the breaker anything. One given up sooner
    /// counts as nothing. Default: 1 second.
    #[must_use]
    pub const fn abandoned_after(mut self, time: Duration) -> Self {
        self.abandoned_after = time;
        self
    }
}

#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    /// Changed under the lock of `inner` only, so that watchers see every change in order.
    state: watch::Sender<BreakerState>,
    inner: Mutex<Inner>,
    pub(super) opened: Counter,
    pub(super) closed: Counter,
}

#[derive(Debug)]
struct Inner {
    state: BreakerState,
    window: Window,
    /// Failures since the last success.
    in_a_row: u64,
    /// Raised at each closing: a call that began before it says nothing about what came after.
    epoch: u64,
    /// Whether somebody probes, or waits to.
    healing: bool,
    last_asked: Option<PipelineFingerprint>,
}

impl Breaker {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: watch::Sender::new(BreakerState::Closed),
            inner: Mutex::new(Inner {
                state: BreakerState::Closed,
                window: Window::new(policy.window),
                in_a_row: 0,
                epoch: 0,
                healing: false,
                last_asked: None,
            }),
            opened: Counter::default(),
            closed: Counter::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> BreakerState {
        *self.state.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BreakerState> {
        self.state.subscribe()
    }

    /// Never so short that probes would follow one another without a pause.
    pub(super) fn probe_interval(&self) -> Duration {
        self.policy.probe_interval.max(Duration::from_millis(1))
    }

    /// Lets a call through, or not.
    pub(super) fn admit(&self, key: &PipelineFingerprint) -> Option<Ticket<'_>> {
        let mut inner = self.lock();
        inner.last_asked = Some(*key);
        (inner.state == BreakerState::Closed).then(|| Ticket {
            breaker: self,
            epoch: inner.epoch,
            started: Instant::now(),
            reported: false,
        })
    }

    fn record(&self, epoch: u64, success: bool) {
        let mut inner = self.lock();
        if inner.epoch != epoch || inner.state != BreakerState::Closed {
            return;
        }
        let (calls, failures) = inner.window.record(Instant::now(), success);
        inner.in_a_row = if success { 0 } else { inner.in_a_row + 1 };
        let BreakerPolicy {
            min_calls,
            failure_percent,
            ..
        } = self.policy;
        let failing = failures * 100 >= calls * u64::from(failure_percent)
            || failure_percent <= 100 && inner.in_a_row >= min_calls.max(1).saturating_mul(2);
        if !success && calls >= min_calls.max(1) && failing {
            self.opened.increment();
            self.enter(&mut inner, BreakerState::Open);
        }
    }

    fn enter(&self, inner: &mut Inner, state: BreakerState) {
        inner.state = state;
        self.state.send_replace(state);
    }

    /// Whether the caller is to probe from now on: it is open, and nobody does so yet.
    pub(super) fn start_healing(&self) -> bool {
        let mut inner = self.lock();
        let starts = inner.state != BreakerState::Closed && !inner.healing;
        inner.healing |= starts;
        starts
    }

    /// Whoever probed does so no more.
    pub(super) fn stop_healing(&self) {
        self.lock().healing = false;
    }

    /// What to probe with, now that it is time.
    pub(super) fn half_open(&self) -> Option<PipelineFingerprint> {
        let mut inner = self.lock();
        self.enter(&mut inner, BreakerState::HalfOpen);
        inner.last_asked
    }

    /// Closes after a probe that went well, or opens again; whether it closed.
    pub(super) fn probed(&self, success: bool) -> bool {
        let mut inner = self.lock();
        if success {
            inner.window = Window::new(self.policy.window);
            inner.in_a_row = 0;
            inner.epoch += 1;
            inner.healing = false;
            self.closed.increment();
            self.enter(&mut inner, BreakerState::Closed);
        } else {
            self.enter(&mut inner, BreakerState::Open);
        }
        success
    }
}

/// A call that was let through. It counts when it is reported, or when it is given up late.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    breaker: &'a Breaker,
    epoch: u64,
    started: Instant,
    reported: bool,
}

impl Ticket<'_> {
    pub(super) fn report(mut self, success: bool) {
        self.reported = true;
        self.breaker.record(self.epoch, success);
    }

    /// The call ended without having asked the server anything.
    pub(super) fn forget(mut self) {
        self.reported = true;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if !self.reported && self.started.elapsed() >= self.breaker.policy.abandoned_after {
            self.breaker.record(self.epoch, false);
        }
    }
}

const SLICES: usize = 10;

/// Calls and failures of the last while, in slices that are forgotten one by one.
#[derive(Debug)]
struct Window {
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
    fn new(length: Duration) -> Self {
        Self {
            slice: (length / SLICES as u32).max(Duration::from_nanos(1)),
            origin: Instant::now(),
            slices: [Slice::default(); SLICES],
        }
    }

    /// Adds a call; all calls and failures within the window.
    fn record(&mut self, now: Instant, success: bool) -> (u64, u64) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy::default().window(Duration::from_secs(10)))
    }

    fn call(breaker: &Breaker, success: bool) {
        breaker.admit(&KEY).unwrap().report(success);
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_at_a_rate_and_not_below_the_floor() {
        let breaker = breaker();
        for _ in 0..4 {
            call(&breaker, false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&breaker, false);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert!(breaker.admit(&KEY).is_none());
        assert_eq!(breaker.opened.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_fails_now_and_then_is_still_asked() {
        let breaker = breaker();
        for call_number in 0..1000 {
            call(&breaker, call_number % 3 != 0);
            advance(Duration::from_millis(10)).await;
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_dies_in_the_midst_of_success_is_left_alone_soon() {
        let breaker = breaker();
        for _ in 0..10_000 {
            call(&breaker, true);
        }
        for _ in 0..9 {
            call(&breaker, false);
        }
        call(&breaker, true);
        for _ in 0..9 {
            call(&breaker, false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&breaker, false);
        assert_eq!(breaker.state(), BreakerState::Open);

        let never = Breaker::new(BreakerPolicy::default().failure_percent(101));
        for _ in 0..1000 {
            call(&never, false);
        }
        assert_eq!(never.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_are_forgotten() {
        let breaker = breaker();
        for _ in 0..4 {
            call(&breaker, false);
        }
        advance(Duration::from_secs(11)).await;
        for _ in 0..4 {
            call(&breaker, false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        // And so are old successes.
        let breaker = self::breaker();
        for _ in 0..1000 {
            call(&breaker, true);
        }
        advance(Duration::from_secs(11)).await;
        for _ in 0..5 {
            call(&breaker, false);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_from_before_says_nothing_about_after() {
        let breaker = breaker();
        let late: Vec<_> = (0..20).map(|_| breaker.admit(&KEY).unwrap()).collect();
        for _ in 0..5 {
            call(&breaker, false);
        }
        breaker.half_open();
        assert!(
            breaker.admit(&KEY).is_none(),
            "half-open is not for callers"
        );
        assert!(breaker.probed(true));
        for ticket in late {
            ticket.report(false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_given_up_late_has_failed_and_one_given_up_soon_has_not() {
        let breaker = breaker();
        for _ in 0..20 {
            drop(breaker.admit(&KEY));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..5 {
            let ticket = breaker.admit(&KEY);
            advance(Duration::from_secs(1)).await;
            drop(ticket);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_heals_and_another_may_take_over() {
        let breaker = breaker();
        assert!(!breaker.start_healing(), "there is nothing to heal");
        for _ in 0..5 {
            call(&breaker, false);
        }
        assert!(breaker.start_healing());
        assert!(!breaker.start_healing());
        breaker.stop_healing();
        assert!(breaker.start_healing());
        assert_eq!(breaker.half_open(), Some(KEY));
        assert!(!breaker.probed(false));
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.half_open();
        assert!(breaker.probed(true));
        assert!(!breaker.start_healing());
    }
}
