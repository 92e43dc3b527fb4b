//! The circuit breaker: whether requests are sent to a tier at all.
//!
//! It takes the rate of failures and not their number: a busy server that fails now and then works.
//! Reads and writes have one each. While the breaker of the reads is open no caller waits for the
//! server: a background task of the tier probes it, see `healer`. A write cannot be probed without
//! writing, so the first write after the probe interval is the probe.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

use super::access::Access;
use super::breaker_policy::{BreakerPolicy, BreakerState};
use super::failure_window::Window;
use super::request_error::RequestError;
use super::time::after;
use crate::key::PipelineFingerprint;
use crate::store::StoreErrorKind;
use crate::store::metrics::Counter;

#[derive(Debug)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    access: Access,
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
    generation: Generation,
    opened_by: Cause,
    /// Whether a healer runs.
    healing: bool,
    next_probe: Instant,
    last_key: Option<PipelineFingerprint>,
}

/// What opened the breaker.
#[derive(Debug, Clone, Copy)]
enum Cause {
    /// So many failures, and the calls they are among.
    Failures(u64, u64),
    /// The server asked for it.
    RetryAfter,
}

/// Raised at each closing. What began in an earlier generation says nothing about this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Generation(u64);

impl Breaker {
    pub(super) fn new(policy: BreakerPolicy, access: Access) -> Self {
        Self {
            policy,
            access,
            state: watch::Sender::new(BreakerState::Closed),
            inner: Mutex::new(Inner {
                state: BreakerState::Closed,
                window: Window::new(policy.window),
                in_a_row: 0,
                generation: Generation::default(),
                opened_by: Cause::Failures(0, 0),
                healing: false,
                next_probe: Instant::now(),
                last_key: None,
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

    /// Admits a call, unless the breaker is open. The first write that comes when a probe is due is
    /// admitted as the probe.
    pub(super) fn admit(&self, key: &PipelineFingerprint) -> Option<Ticket<'_>> {
        let mut inner = self.lock();
        inner.last_key = Some(*key);
        let is_probe = self.access == Access::Write
            && inner.state == BreakerState::Open
            && inner.next_probe <= Instant::now();
        if is_probe {
            self.enter(&mut inner, BreakerState::HalfOpen);
        }
        (is_probe || inner.state == BreakerState::Closed).then(|| Ticket {
            breaker: self,
            generation: inner.generation,
            is_probe,
            first_request: None,
        })
    }

    fn record(&self, generation: Generation, success: bool) {
        let mut inner = self.lock();
        if inner.generation != generation || inner.state != BreakerState::Closed {
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
        // However few of them the window holds: slow calls are few.
        let by_row = failure_percent <= 100 && inner.in_a_row >= floor.saturating_mul(2);
        if !success && (by_rate || by_row) {
            let cause = match by_rate {
                true => Cause::Failures(failures, calls),
                false => Cause::Failures(inner.in_a_row, inner.in_a_row),
            };
            self.open(&mut inner, cause);
        }
    }

    fn open(&self, inner: &mut Inner, cause: Cause) {
        inner.opened_by = cause;
        inner.next_probe = after(self.probe_interval());
        self.opened.increment();
        self.enter(inner, BreakerState::Open);
    }

    fn enter(&self, inner: &mut Inner, state: BreakerState) {
        inner.state = state;
        self.state.send_replace(state);
    }

    /// The error of a call that is not made because the breaker is open.
    pub(super) fn error(&self) -> RequestError {
        let inner = self.lock();
        let why = match inner.opened_by {
            Cause::Failures(failures, calls) => {
                format!("{failures} of the last {calls} {} failed", self.access)
            }
            Cause::RetryAfter => format!("the server asked for a pause of {}", self.access),
        };
        let next = match inner.state {
            BreakerState::HalfOpen => "a probe is under way".to_owned(),
            _ => {
                let left = inner.next_probe.saturating_duration_since(Instant::now());
                format!("next probe in {:.1} s", left.as_secs_f64())
            }
        };
        RequestError::new(StoreErrorKind::BreakerOpen, format!("{why}; {next}")).unsent()
    }

    /// Some, where the caller is to probe from now on: the breaker is open, and no healer runs.
    pub(super) fn start_healing(&self) -> Option<Generation> {
        let mut inner = self.lock();
        let starts = inner.state != BreakerState::Closed && !inner.healing;
        inner.healing |= starts;
        starts.then_some(inner.generation)
    }

    pub(super) fn set_next_probe(&self, at: Instant) {
        self.lock().next_probe = at;
    }

    /// The healer of this generation has ended. Another may start.
    pub(super) fn stop_healing(&self, generation: Generation) {
        let mut inner = self.lock();
        if inner.generation == generation {
            inner.healing = false;
        }
    }

    /// The key to probe with, now that it is time. `None` where the breaker has closed since this
    /// generation.
    pub(super) fn half_open(&self, generation: Generation) -> Option<PipelineFingerprint> {
        let mut inner = self.lock();
        if inner.generation != generation {
            return None;
        }
        self.enter(&mut inner, BreakerState::HalfOpen);
        inner.last_key
    }

    /// Closes the breaker after a successful probe, or opens it again.
    pub(super) fn probed(&self, generation: Generation, success: bool) {
        let mut inner = self.lock();
        if inner.generation != generation {
            return;
        }
        if success {
            inner.window = Window::new(self.policy.window);
            inner.in_a_row = 0;
            inner.generation.0 += 1;
            inner.healing = false;
            self.closed.increment();
            self.enter(&mut inner, BreakerState::Closed);
        } else {
            inner.next_probe = after(self.probe_interval());
            self.enter(&mut inner, BreakerState::Open);
        }
    }

    /// Opens the breaker for at least this time, because the server asks for it.
    fn pause(&self, generation: Generation, time: Duration) {
        let mut inner = self.lock();
        if inner.generation != generation || inner.state == BreakerState::HalfOpen {
            return;
        }
        if inner.state == BreakerState::Closed {
            self.open(&mut inner, Cause::RetryAfter);
        }
        inner.next_probe = inner.next_probe.max(after(time.min(self.policy.max_pause)));
    }

    /// A probe ended without a result. The next call may be the probe.
    fn probe_was_given_up(&self, generation: Generation) {
        let mut inner = self.lock();
        if inner.generation == generation {
            self.enter(&mut inner, BreakerState::Open);
        }
    }
}

/// An admitted call. It counts when it is reported, or when it is dropped late. A call that has
/// sent no request does not count.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    breaker: &'a Breaker,
    generation: Generation,
    /// Whether this call is the probe of an open breaker, until it is reported.
    is_probe: bool,
    /// When it sent its first request, until it is reported.
    first_request: Option<Instant>,
}

impl Ticket<'_> {
    pub(super) const fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Whether the call may still send requests: no breaker has opened since it was admitted.
    pub(super) fn may_send(&self) -> bool {
        self.is_probe || self.breaker.state() == BreakerState::Closed
    }

    /// Waits until the call may send no more requests.
    pub(super) async fn revoked(&self) {
        let mut state = self.breaker.subscribe();
        let open = state.wait_for(|state| !self.is_probe && *state != BreakerState::Closed);
        // The breaker outlives the ticket, so its state is never gone.
        let _ = open.await;
    }

    /// A request is sent now.
    pub(super) fn sends(&mut self) {
        self.first_request.get_or_insert_with(Instant::now);
    }

    /// When a call whose caller has left counts as failed: some time after the last part of its
    /// answer, or after its first request.
    pub(super) fn gives_up_at(&self, last_part: Option<Instant>) -> Instant {
        let limit = self.breaker.policy.abandoned_after;
        let last = last_part.or(self.first_request);
        let last = last.unwrap_or_else(Instant::now);
        last.checked_add(limit).unwrap_or_else(|| after(limit))
    }

    /// How the call ends will not be known, and its answer goes well so far.
    pub(super) fn says_nothing(&mut self) {
        self.first_request = None;
    }

    pub(super) fn report(&mut self, success: bool) {
        if self.first_request.take().is_none() {
            return;
        }
        if std::mem::take(&mut self.is_probe) {
            self.breaker.probed(self.generation, success);
        } else {
            self.breaker.record(self.generation, success);
        }
    }

    /// The server asks that no such request is sent for this time.
    pub(super) fn pause(&self, time: Duration) {
        self.breaker.pause(self.generation, time);
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let late = self.breaker.policy.abandoned_after;
        if self
            .first_request
            .is_some_and(|sent| self.is_probe || sent.elapsed() >= late)
        {
            self.report(false);
        } else if self.is_probe {
            self.breaker.probe_was_given_up(self.generation);
        }
    }
}

#[cfg(test)]
mod tests;
