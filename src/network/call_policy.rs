//! Whether the server is asked, how many ask it at once, how long, and how often again.

use std::future::Future;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::RequestError;
use super::auth_block::AuthBlock;
use super::breaker::{Breaker, BreakerPolicy, BreakerState};
use super::retry::{RetryBudget, RetryPolicy};
use crate::key::PipelineFingerprint;
use crate::store::metrics::Counter;
use crate::store::{StoreErrorKind, StoreOperation};

/// The bounds of every call of a tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) concurrent_requests: usize,
    /// For one request.
    pub(crate) attempt_timeout: Duration,
    /// For a call with all its requests and waits.
    pub(crate) call_timeout: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) breaker: BreakerPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_requests: 64,
            attempt_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            breaker: BreakerPolicy::default(),
        }
    }
}

#[derive(Debug)]
pub(super) struct CallPolicy {
    pub(super) limits: Limits,
    pub(super) breaker: Breaker,
    pub(super) retries: Counter,
    /// Calls that were answered without asking.
    pub(super) short_circuited: Counter,
    /// One permit for each request under way.
    slots: Semaphore,
    budget: RetryBudget,
    auth_block: AuthBlock,
}

/// The moment in so long from now, or in some thirty years if that is sooner.
pub(super) fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(1_000_000_000);
    Instant::now() + time.min(FAR)
}

/// A call as the guard sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) tier: &'a str,
    pub(super) operation: StoreOperation,
    pub(super) key: &'a PipelineFingerprint,
}

impl CallPolicy {
    pub(super) fn new(limits: Limits) -> Self {
        let slots = limits.concurrent_requests.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            breaker: Breaker::new(limits.breaker),
            retries: Counter::default(),
            short_circuited: Counter::default(),
            slots: Semaphore::new(slots),
            budget: RetryBudget::new(&limits.retry),
            auth_block: AuthBlock::default(),
            limits,
        }
    }

    /// Runs a call whose requests `attempt` makes, one each time, and `credentials` names what
    /// they are made with.
    pub(super) async fn run<T, F>(
        &self,
        call: Call<'_>,
        credentials: impl Fn() -> Result<Option<u64>, RequestError> + Send,
        attempt: impl Fn() -> F + Send,
    ) -> Result<T, RequestError>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        let deadline = after(self.limits.call_timeout);
        // Outlives the ticket: who is given it must see what became of this call.
        let mut slot;
        let Some(mut ticket) = self.breaker.admit(call.key) else {
            self.short_circuited.increment();
            return Err(RequestError::circuit_open());
        };
        self.budget.deposit();
        let mut tried = 0;
        loop {
            slot = match self.slot(deadline).await {
                Ok(slot) => Some(slot),
                Err(failure) => {
                    if tried == 0 {
                        self.short_circuited.increment();
                    }
                    ticket.report(!failure.is_an_illness());
                    return Err(failure);
                }
            };
            let version = credentials()?;
            self.auth_block.check(call.operation, version)?;
            let end = deadline.min(after(self.limits.attempt_timeout));
            ticket.asks();
            let result = match timeout_at(end, attempt()).await {
                Ok(result) => result,
                Err(_) => Err(RequestError::timed_out(
                    "not done",
                    self.time_limit(end, deadline),
                )),
            };
            tried += 1;
            if self.auth_block.learn(call.operation, version, &result) {
                tracing::error!(
                    tier = call.tier,
                    operation = %call.operation,
                    "the server refuses the credentials: the tier is of no use for this until they change"
                );
            }
            if let Err(failure) = &result {
                if let Some(delay) = self.delay(failure, tried, deadline) {
                    tracing::debug!(
                        tier = call.tier, key = %call.key, operation = %call.operation,
                        reason = %failure, ?delay, "request failed, to be made again"
                    );
                    drop(slot.take());
                    if self.pause(delay).await {
                        continue;
                    }
                }
            }
            ticket.report(!matches!(&result, Err(failure) if failure.is_an_illness()));
            return result;
        }
    }

    fn time_limit(&self, end: Instant, deadline: Instant) -> Duration {
        if end < deadline {
            self.limits.attempt_timeout
        } else {
            self.limits.call_timeout
        }
    }

    /// A request slot. Nobody waits for one once the breaker is open, nor is given one.
    async fn slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, RequestError> {
        let slot = match self.slots.try_acquire() {
            Ok(slot) => slot,
            Err(_) => self.next_slot(deadline).await?,
        };
        if self.breaker.state() == BreakerState::Closed {
            Ok(slot)
        } else {
            Err(RequestError::circuit_open())
        }
    }

    async fn next_slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, RequestError> {
        let mut state = self.breaker.subscribe();
        tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != BreakerState::Closed) => {
                Err(RequestError::circuit_open())
            }
            slot = self.slots.acquire() => slot.map_err(|_| {
                RequestError::new(StoreErrorKind::Closed, "the request slots are closed")
            }),
            () = sleep_until(deadline) => {
                Err(RequestError::timed_out("no request slot came free", self.limits.call_timeout))
            }
        }
    }

    /// How long to wait for the next attempt, if there is to be one.
    fn delay(&self, failure: &RequestError, tried: u32, deadline: Instant) -> Option<Duration> {
        if !failure.is_worth_a_retry() {
            return None;
        }
        let random = fastrand::f64();
        let delay = self
            .limits
            .retry
            .delay(tried, failure.retry_after, random)?;
        // A wait that cannot end in an answer is not begun, nor is the budget spent on it.
        (after(delay) < deadline && self.budget.withdraw()).then_some(delay)
    }

    /// Waits for the next attempt, unless the breaker opens meanwhile.
    async fn pause(&self, delay: Duration) -> bool {
        let mut state = self.breaker.subscribe();
        tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != BreakerState::Closed) => false,
            () = sleep(delay) => {
                self.retries.increment();
                true
            }
        }
    }

    /// One request to find out whether the server is well again, past the breaker.
    pub(super) async fn probe<T>(
        &self,
        request: impl Future<Output = Result<T, RequestError>> + Send,
    ) -> bool {
        let end = after(self.limits.attempt_timeout.min(self.limits.call_timeout));
        let probe = async {
            let _slot = self.slots.acquire().await;
            request.await
        };
        match timeout_at(end, probe).await {
            Ok(result) => !matches!(result, Err(failure) if failure.is_an_illness()),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::{advance, timeout};

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
    const CALL: Call<'static> = Call {
        tier: "t",
        operation: StoreOperation::Get,
        key: &KEY,
    };

    /// One request at a time and no retries.
    fn guard(min_calls: u64) -> CallPolicy {
        CallPolicy::new(Limits {
            concurrent_requests: 1,
            retry: RetryPolicy::default().attempts(1),
            breaker: BreakerPolicy::default().min_calls(min_calls),
            ..Limits::default()
        })
    }

    async fn run<F>(guard: &CallPolicy, attempt: impl Fn() -> F + Send) -> Result<(), RequestError>
    where
        F: Future<Output = Result<(), RequestError>> + Send,
    {
        guard.run(CALL, || Ok(None), attempt).await
    }

    fn ill() -> Result<(), RequestError> {
        Err(RequestError::new(StoreErrorKind::Unavailable, "503"))
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_slot_of_the_call_that_opens_the_breaker_asks_nobody() {
        let (guard, asked) = (guard(1), AtomicUsize::new(0));
        let fails = run(&guard, || async {
            tokio::task::yield_now().await;
            ill()
        });
        let waits = run(&guard, || {
            asked.fetch_add(1, Ordering::SeqCst);
            ready(Ok(()))
        });
        let (failed, waited) = tokio::join!(fails, waits);
        assert_eq!(failed.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(waited.unwrap_err().kind, StoreErrorKind::CircuitOpen);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        assert_eq!(guard.short_circuited.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_slot_of_a_call_that_is_given_up_late_asks_nobody() {
        let (guard, asked) = (guard(1), AtomicUsize::new(0));
        let mut hangs = Box::pin(run(&guard, pending));
        assert!((&mut hangs).now_or_never().is_none());
        let mut waits = Box::pin(run(&guard, || {
            asked.fetch_add(1, Ordering::SeqCst);
            ready(Ok(()))
        }));
        assert!((&mut waits).now_or_never().is_none());
        advance(Duration::from_secs(2)).await;
        drop(hangs);
        let waited = waits.now_or_never().unwrap();
        assert_eq!(waited.unwrap_err().kind, StoreErrorKind::CircuitOpen);
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    }

    /// Those who hold the slots are under way, and tell how the server is by how they end.
    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_slot_is_not_held_against_the_server() {
        let guard = guard(2);
        let mut slow = Box::pin(run(&guard, || async {
            sleep(Duration::from_secs(9)).await;
            Ok(())
        }));
        assert!((&mut slow).now_or_never().is_none());
        for _ in 0..4 {
            let given_up = timeout(Duration::from_secs(2), run(&guard, || ready(Ok(())))).await;
            assert!(given_up.is_err());
        }
        slow.await.unwrap();
        assert_eq!(guard.breaker.state(), BreakerState::Closed);
        run(&guard, || ready(Ok(()))).await.unwrap();
    }
}
