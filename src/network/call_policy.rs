//! Whether a request is made, how many at once, with which time limits, and how often again.

use std::future::Future;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::auth_block::AuthBlock;
use super::backend::CredentialsVersion;
use super::breaker::Breaker;
use super::breaker_policy::{BreakerPolicy, BreakerState};
use super::request_error::RequestError;
use super::retry::{RetryBudget, RetryPolicy};
use super::time::after;
use crate::key::PipelineFingerprint;
use crate::store::metrics::Counter;
use crate::store::{StoreErrorKind, StoreOperation};

/// The bounds of every call of a tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) concurrent_requests: usize,
    /// Of one request.
    pub(crate) attempt_timeout: Duration,
    /// Of a call with all its requests and waits.
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
    /// Calls that sent no request because the breaker was open.
    pub(super) short_circuited: Counter,
    /// One for each request under way.
    permits: Semaphore,
    budget: RetryBudget,
    auth_block: AuthBlock,
}

/// What a call is about.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) tier: &'a str,
    pub(super) operation: StoreOperation,
    pub(super) key: &'a PipelineFingerprint,
    pub(super) credentials: &'a dyn CredentialsVersion,
}

impl Call<'_> {
    /// The server rejected the credentials of this version for the first time.
    fn log_rejected_credentials(&self, version: Option<u64>) {
        let requests = match self.operation {
            StoreOperation::Put | StoreOperation::Remove => "writes",
            _ => "reads",
        };
        let Self {
            tier, operation, ..
        } = self;
        match version {
            Some(_) => tracing::error!(
                tier, %operation,
                "credentials rejected: no further {requests} are sent until the credentials change"
            ),
            None => tracing::error!(
                tier, %operation,
                "credentials rejected: {requests} are still sent; not logged again until one succeeds"
            ),
        }
    }
}

impl CallPolicy {
    pub(super) fn new(limits: Limits) -> Self {
        let requests = limits.concurrent_requests.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            breaker: Breaker::new(limits.breaker),
            retries: Counter::default(),
            short_circuited: Counter::default(),
            permits: Semaphore::new(requests),
            budget: RetryBudget::new(&limits.retry),
            auth_block: AuthBlock::default(),
            limits,
        }
    }

    /// Runs a call: sends `request`, once or again, or fails without it.
    pub(super) async fn run<T, F>(
        &self,
        call: Call<'_>,
        request: impl Fn() -> F + Send,
    ) -> Result<T, RequestError>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        let deadline = after(self.limits.call_timeout);
        // Outlives the ticket: the call that gets the permit next must see how this one ended.
        let mut permit;
        let Some(mut ticket) = self.breaker.admit(call.key) else {
            self.short_circuited.increment();
            return Err(self.breaker.error());
        };
        self.budget.deposit();
        let mut tried = 0;
        loop {
            permit = match self.permit(deadline).await {
                Ok(permit) => Some(permit),
                Err(error) => {
                    if tried == 0 {
                        self.short_circuited.increment();
                    }
                    ticket.report(!error.is_server_failure());
                    return Err(error);
                }
            };
            let version = call.credentials.version()?;
            self.auth_block.check(call.operation, version)?;
            let end = deadline.min(after(self.limits.attempt_timeout));
            ticket.sends();
            let result = match timeout_at(end, request()).await {
                Ok(result) => result,
                Err(_) => Err(RequestError::timed_out(
                    "the request did not end",
                    self.time_limit(end, deadline),
                )),
            };
            tried += 1;
            if self.auth_block.learn(call.operation, version, &result) {
                call.log_rejected_credentials(version);
            }
            if let Err(error) = &result {
                if let Some(delay) = self.delay(error, tried, deadline) {
                    tracing::debug!(
                        tier = call.tier, key = %call.key, operation = %call.operation,
                        reason = %error, ?delay, "request failed; retrying after the delay"
                    );
                    drop(permit.take());
                    if self.pause(delay).await {
                        continue;
                    }
                }
            }
            ticket.report(!matches!(&result, Err(error) if error.is_server_failure()));
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

    /// A request permit. No call waits for one once the breaker is open, nor is given one.
    async fn permit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, RequestError> {
        let permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.next_permit(deadline).await?,
        };
        if self.breaker.state() == BreakerState::Closed {
            Ok(permit)
        } else {
            Err(self.breaker.error())
        }
    }

    async fn next_permit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, RequestError> {
        let mut state = self.breaker.subscribe();
        tokio::select! {
            biased;
            _ = state.wait_for(|state| *state != BreakerState::Closed) => Err(self.breaker.error()),
            permit = self.permits.acquire() => permit.map_err(|_| {
                RequestError::new(StoreErrorKind::Closed, "the tier makes no more requests")
            }),
            () = sleep_until(deadline) => Err(RequestError::timed_out(
                "no request permit became free",
                self.limits.call_timeout,
            )),
        }
    }

    /// How long to wait for the next attempt, if there is to be one.
    fn delay(&self, error: &RequestError, tried: u32, deadline: Instant) -> Option<Duration> {
        if !error.is_retryable() {
            return None;
        }
        let random = fastrand::f64();
        let delay = self.limits.retry.delay(tried, error.retry_after, random)?;
        // A delay that ends after the deadline is not begun, and costs no budget.
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

    /// One request past the breaker; whether the server works again.
    pub(super) async fn probe<T>(
        &self,
        request: impl Future<Output = Result<T, RequestError>> + Send,
    ) -> bool {
        let end = after(self.limits.attempt_timeout.min(self.limits.call_timeout));
        let probe = async {
            let _permit = self.permits.acquire().await;
            request.await
        };
        match timeout_at(end, probe).await {
            Ok(result) => !matches!(result, Err(error) if error.is_server_failure()),
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
        credentials: &NoCredentials,
    };

    struct NoCredentials;

    impl CredentialsVersion for NoCredentials {
        fn version(&self) -> Result<Option<u64>, RequestError> {
            Ok(None)
        }
    }

    /// One request at a time and no retries.
    fn policy(min_calls: u64) -> CallPolicy {
        CallPolicy::new(Limits {
            concurrent_requests: 1,
            retry: RetryPolicy::default().attempts(1),
            breaker: BreakerPolicy::default().min_calls(min_calls),
            ..Limits::default()
        })
    }

    async fn run<F>(policy: &CallPolicy, request: impl Fn() -> F + Send) -> Result<(), RequestError>
    where
        F: Future<Output = Result<(), RequestError>> + Send,
    {
        policy.run(CALL, request).await
    }

    fn unavailable() -> Result<(), RequestError> {
        Err(RequestError::new(StoreErrorKind::Unavailable, "503"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_the_permit_of_the_call_that_opens_the_breaker_sends_nothing() {
        let (policy, requests) = (policy(1), AtomicUsize::new(0));
        let fails = run(&policy, || async {
            tokio::task::yield_now().await;
            unavailable()
        });
        let waits = run(&policy, || {
            requests.fetch_add(1, Ordering::SeqCst);
            ready(Ok(()))
        });
        let (failed, waited) = tokio::join!(fails, waits);
        assert_eq!(failed.unwrap_err().kind, StoreErrorKind::Unavailable);
        assert_eq!(waited.unwrap_err().kind, StoreErrorKind::CircuitOpen);
        assert_eq!(requests.load(Ordering::SeqCst), 0);
        assert_eq!(policy.short_circuited.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_the_permit_of_a_call_that_is_dropped_late_sends_nothing() {
        let (policy, requests) = (policy(1), AtomicUsize::new(0));
        let mut hangs = Box::pin(run(&policy, pending));
        assert!((&mut hangs).now_or_never().is_none());
        let mut waits = Box::pin(run(&policy, || {
            requests.fetch_add(1, Ordering::SeqCst);
            ready(Ok(()))
        }));
        assert!((&mut waits).now_or_never().is_none());
        advance(Duration::from_secs(2)).await;
        drop(hangs);
        let waited = waits.now_or_never().unwrap();
        assert_eq!(waited.unwrap_err().kind, StoreErrorKind::CircuitOpen);
        assert_eq!(requests.load(Ordering::SeqCst), 0);
    }

    /// The calls that hold the permits are under way, and count when they end.
    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_permit_is_not_counted_against_the_server() {
        let policy = policy(2);
        let mut slow = Box::pin(run(&policy, || async {
            sleep(Duration::from_secs(9)).await;
            Ok(())
        }));
        assert!((&mut slow).now_or_never().is_none());
        for _ in 0..4 {
            let given_up = timeout(Duration::from_secs(2), run(&policy, || ready(Ok(())))).await;
            assert!(given_up.is_err());
        }
        slow.await.unwrap();
        assert_eq!(policy.breaker.state(), BreakerState::Closed);
        run(&policy, || ready(Ok(()))).await.unwrap();
    }
}
