//! Whether the server is asked, how many ask it at once, how long, and how often again.

use std::future::Future;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Failure;
use super::breaker::{Breaker, BreakerPolicy, BreakerState};
use super::denial::Denial;
use super::retry::{RetryBudget, RetryPolicy};
use crate::metrics::Counter;
use crate::{PipelineFingerprint, StoreErrorKind, StoreOperation};

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
pub(super) struct Guard {
    pub(super) limits: Limits,
    pub(super) breaker: Breaker,
    pub(super) retries: Counter,
    /// Calls that were answered without asking.
    pub(super) short_circuited: Counter,
    /// One permit for each request under way.
    slots: Semaphore,
    budget: RetryBudget,
    denial: Denial,
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

impl Guard {
    pub(super) fn new(limits: Limits) -> Self {
        let slots = limits.concurrent_requests.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            breaker: Breaker::new(limits.breaker),
            retries: Counter::default(),
            short_circuited: Counter::default(),
            slots: Semaphore::new(slots),
            budget: RetryBudget::new(&limits.retry),
            denial: Denial::default(),
            limits,
        }
    }

    /// Runs a call whose requests `attempt` makes, one each time, and `credentials` names what
    /// they are made with.
    pub(super) async fn run<T, F>(
        &self,
        call: Call<'_>,
        credentials: impl Fn() -> Result<Option<u64>, Failure> + Send,
        attempt: impl Fn() -> F + Send,
    ) -> Result<T, Failure>
    where
        T: Send,
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let deadline = after(self.limits.call_timeout);
        let Some(ticket) = self.breaker.admit(call.key) else {
            self.short_circuited.increment();
            return Err(Failure::circuit_open());
        };
        self.budget.deposit();
        let mut ticket = Some(ticket);
        let mut tried = 0;
        let result = loop {
            let slot = match self.slot(deadline).await {
                Ok(slot) => slot,
                Err(failure) => {
                    if tried == 0 {
                        // The server was not asked.
                        ticket.take().into_iter().for_each(|ticket| ticket.forget());
                        self.short_circuited.increment();
                    }
                    break Err(failure);
                }
            };
            let version = match credentials() {
                Ok(version) => version,
                Err(failure) => break Err(failure),
            };
            if let Err(failure) = self.denial.check(call.operation, version) {
                ticket.take().into_iter().for_each(|ticket| ticket.forget());
                break Err(failure);
            }
            let end = deadline.min(after(self.limits.attempt_timeout));
            let result = match timeout_at(end, attempt()).await {
                Ok(result) => result,
                Err(_) => Err(Failure::timed_out(
                    "not done",
                    self.time_limit(end, deadline),
                )),
            };
            drop(slot);
            tried += 1;
            if self.denial.learn(call.operation, version, &result) {
                tracing::error!(
                    tier = call.tier,
                    operation = %call.operation,
                    "the server refuses the credentials: the tier is of no use for this until they change"
                );
            }
            let Err(failure) = result else { break result };
            if !self
                .waits_for_another(call, &failure, tried, deadline)
                .await
            {
                break Err(failure);
            }
        };
        if let Some(ticket) = ticket {
            ticket.report(!matches!(&result, Err(failure) if failure.is_an_illness()));
        }
        result
    }

    fn time_limit(&self, end: Instant, deadline: Instant) -> Duration {
        if end < deadline {
            self.limits.attempt_timeout
        } else {
            self.limits.call_timeout
        }
    }

    /// A request slot. Nobody waits for one once the breaker is open.
    async fn slot(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        let mut state = self.breaker.subscribe();
        tokio::select! {
            biased;
            slot = self.slots.acquire() => slot.map_err(|_| {
                Failure::new(StoreErrorKind::Closed, "the request slots are closed")
            }),
            _ = state.wait_for(|state| *state != BreakerState::Closed) => {
                Err(Failure::circuit_open())
            }
            () = sleep_until(deadline) => {
                Err(Failure::timed_out("no request slot came free", self.limits.call_timeout))
            }
        }
    }

    /// Waits for the time of the next attempt, if there is to be one.
    async fn waits_for_another(
        &self,
        call: Call<'_>,
        failure: &Failure,
        tried: u32,
        deadline: Instant,
    ) -> bool {
        if !failure.is_worth_a_retry() {
            return false;
        }
        let random = fastrand::f64();
        let Some(delay) = self.limits.retry.delay(tried, failure.retry_after, random) else {
            return false;
        };
        // A wait that cannot end in an answer is not begun, nor is the budget spent on it.
        if after(delay) >= deadline || !self.budget.withdraw() {
            return false;
        }
        tracing::debug!(
            tier = call.tier, key = %call.key, operation = %call.operation, reason = %failure,
            ?delay, "request failed, to be made again"
        );
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
        request: impl Future<Output = Result<T, Failure>> + Send,
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
