//! The breaker: whether a tier is asked at all.
//!
//! It counts how calls end, and not how many failed: a busy server that fails now and then is no
//! failing server. While it is open no caller waits for the server. A background task of the tier
//! probes it, one request at a time, so that no caller pays for the probe either.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::key::PipelineFingerprint;
use crate::store::metrics::Counter;

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
/// Misses are successes, and so are refusals, of credentials as of a write: only a server that
/// cannot be reached, does not answer in time, says that it is out of service or makes no sense has
/// failed. A call that never came to ask the server counts as nothing.
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

    /// A call whose caller gave it up this long or longer after it first asked the server counts
    /// as failed: a lookup with a deadline of its own would otherwise never teach the breaker
    /// anything. One given up sooner, or while it still waited for its turn, counts as nothing.
    /// Default: 1 second.
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
    epoch: Epoch,
    /// Whether somebody probes, or waits to.
    healing: bool,
    last_asked: Option<PipelineFingerprint>,
}

/// Raised at each closing: what began before it says nothing about what came after, and has no
/// part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Epoch(u64);

impl Breaker {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            state: watch::Sender::new(BreakerState::Closed),
            inner: Mutex::new(Inner {
                state: BreakerState::Closed,
                window: Window::new(policy.window),
                in_a_row: 0,
                epoch: Epoch::default(),
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
            asked: None,
        })
    }

    fn record(&self, epoch: Epoch, success: bool) {
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
        let floor = min_calls.max(1);
        let by_rate = calls >= floor && failures * 100 >= calls * u64::from(failure_percent);
        // However few of them the window holds: calls that wait long are few.
        let by_row = failure_percent <= 100 && inner.in_a_row >= floor.saturating_mul(2);
        if !success && (by_rate || by_row) {
            self.opened.increment();
            self.enter(&mut inner, BreakerState::Open);
        }
    }

    fn enter(&self, inner: &mut Inner, state: BreakerState) {
        inner.state = state;
        self.state.send_replace(state);
    }

    /// Whether the caller is to probe from now on: it is open, and nobody does so yet.
    pub(super) fn start_healing(&self) -> Option<Epoch> {
        let mut inner = self.lock();
        let starts = inner.state != BreakerState::Closed && !inner.healing;
        inner.healing |= starts;
        starts.then_some(inner.epoch)
    }

    /// Who has probed since this epoch does so no more. After it, others may.
    pub(super) fn stop_healing(&self, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.epoch == epoch {
            inner.healing = false;
        }
    }

    /// What to probe with, now that it is time. None if it has closed since this epoch.
    pub(super) fn half_open(&self, epoch: Epoch) -> Option<PipelineFingerprint> {
        let mut inner = self.lock();
        if inner.epoch != epoch {
            return None;
        }
        self.enter(&mut inner, BreakerState::HalfOpen);
        inner.last_asked
    }

    /// Closes after a probe that went well, or opens again.
    pub(super) fn probed(&self, epoch: Epoch, success: bool) {
        let mut inner = self.lock();
        if inner.epoch != epoch {
            return;
        }
        if success {
            inner.window = Window::new(self.policy.window);
            inner.in_a_row = 0;
            inner.epoch.0 += 1;
            inner.healing = false;
            self.closed.increment();
            self.enter(&mut inner, BreakerState::Closed);
        } else {
            self.enter(&mut inner, BreakerState::Open);
        }
    }
}

/// A call that was let through. It counts when it is reported, or when it is given up late; one
/// that has not asked the server says nothing of it and does not count.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    breaker: &'a Breaker,
    epoch: Epoch,
    /// When it first asked, until it is reported.
    asked: Option<Instant>,
}

impl Ticket<'_> {
    /// From now on the server is asked.
    pub(super) fn asks(&mut self) {
        self.asked.get_or_insert_with(Instant::now);
    }

    pub(super) fn report(&mut self, success: bool) {
        if self.asked.take().is_some() {
            self.breaker.record(self.epoch, success);
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let late = self.breaker.policy.abandoned_after;
        if self.asked.is_some_and(|asked| asked.elapsed() >= late) {
            self.report(false);
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

    /// A call that asks the server.
    fn ask(breaker: &Breaker) -> Ticket<'_> {
        let mut ticket = breaker.admit(&KEY).unwrap();
        ticket.asks();
        ticket
    }

    fn call(breaker: &Breaker, success: bool) {
        ask(breaker).report(success);
    }

    fn open(breaker: &Breaker) {
        (0..5).for_each(|_| call(breaker, false));
        assert_eq!(breaker.state(), BreakerState::Open);
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

    /// Lookups of one caller, each of which waits long: there are never many within the window.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_keeps_few_callers_waiting_is_left_alone_too() {
        let breaker = Breaker::new(BreakerPolicy::default());
        for failed in 0..10 {
            assert_eq!(breaker.state(), BreakerState::Closed, "after {failed}");
            let mut ticket = ask(&breaker);
            advance(Duration::from_secs(15)).await;
            ticket.report(false);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
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
        let late: Vec<_> = (0..20).map(|_| ask(&breaker)).collect();
        open(&breaker);
        let healer = breaker.start_healing().unwrap();
        breaker.half_open(healer);
        assert!(
            breaker.admit(&KEY).is_none(),
            "half-open is not for callers"
        );
        breaker.probed(healer, true);
        for mut ticket in late {
            ticket.report(false);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_given_up_late_has_failed_and_one_given_up_soon_has_not() {
        let breaker = breaker();
        for _ in 0..20 {
            drop(ask(&breaker));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for _ in 0..5 {
            let ticket = ask(&breaker);
            advance(Duration::from_secs(1)).await;
            drop(ticket);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_did_not_ask_says_nothing() {
        let breaker = breaker();
        for _ in 0..20 {
            breaker.admit(&KEY).unwrap().report(false);
            let ticket = breaker.admit(&KEY);
            advance(Duration::from_secs(1)).await;
            drop(ticket);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        // Nor that the server is well.
        for _ in 0..4 {
            call(&breaker, false);
            breaker.admit(&KEY).unwrap().report(true);
        }
        call(&breaker, false);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[tokio::test(start_paused = true)]
    async fn only_one_heals_and_another_may_take_over() {
        let breaker = breaker();
        assert!(
            breaker.start_healing().is_none(),
            "there is nothing to heal"
        );
        open(&breaker);
        let first = breaker.start_healing().unwrap();
        assert!(breaker.start_healing().is_none());
        breaker.stop_healing(first);
        let second = breaker.start_healing().unwrap();
        assert_eq!(breaker.half_open(second), Some(KEY));
        breaker.probed(second, false);
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.half_open(second);
        breaker.probed(second, true);
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(breaker.start_healing().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_healed_is_not_in_the_way_of_the_next() {
        let breaker = breaker();
        open(&breaker);
        let first = breaker.start_healing().unwrap();
        breaker.half_open(first);
        breaker.probed(first, true);
        open(&breaker);
        let second = breaker.start_healing().unwrap();
        // It ends only now.
        breaker.stop_healing(first);
        assert!(breaker.start_healing().is_none(), "two would probe at once");
        assert_eq!(breaker.half_open(first), None);
        breaker.probed(first, true);
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.half_open(second), Some(KEY));
    }
}
