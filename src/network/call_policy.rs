//! Whether a request is made, how many at once, with which time limits, and how often again.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::access::{Access, PerAccess};
use super::auth_block::AuthBlock;
use super::breaker::{Breaker, Ticket};
use super::breaker_policy::BreakerPolicy;
use super::call::{Call, log_success};
use super::caller::AnswerBegan;
use super::request_error::RequestError;
use super::retry::{RetryBudget, RetryPolicy};
use super::time::after;
use super::trouble::Trouble;
use crate::store::StoreErrorKind;
use crate::store::metrics::Counter;

/// The bounds of every call of a tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) concurrent_requests: usize,
    /// Requests under way whose callers have left.
    pub(crate) abandoned_requests: usize,
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
            abandoned_requests: 16,
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
    pub(super) retries: Counter,
    sides: PerAccess<Side>,
    /// One for each request under way whose caller waits.
    permits: Semaphore,
    /// One for each write among them. There are fewer, so that writes that hang leave room to reads.
    write_permits: Semaphore,
    auth_block: AuthBlock,
}

/// What is kept for reads and for writes, each on its own.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) breaker: Breaker,
    /// Calls that sent no request because the breaker was open.
    pub(super) short_circuited: Counter,
    /// When failures are logged.
    pub(super) trouble: Trouble,
    budget: RetryBudget,
    /// One for each request under way whose caller has left.
    abandoned: Semaphore,
}

/// Allows one request.
struct Permit<'a> {
    _one_of_all: SemaphorePermit<'a>,
    _one_of_writes: Option<SemaphorePermit<'a>>,
}

impl CallPolicy {
    pub(super) fn new(limits: Limits) -> Self {
        let requests = limits.concurrent_requests.clamp(1, Semaphore::MAX_PERMITS);
        let abandoned = limits.abandoned_requests.min(Semaphore::MAX_PERMITS);
        Self {
            sides: PerAccess::new(|access| Side {
                breaker: Breaker::new(limits.breaker, access),
                short_circuited: Counter::default(),
                trouble: Trouble::new(limits.breaker.quiet()),
                budget: RetryBudget::new(&limits.retry),
                abandoned: Semaphore::new(abandoned),
            }),
            retries: Counter::default(),
            permits: Semaphore::new(requests),
            write_permits: Semaphore::new(requests.div_ceil(2)),
            auth_block: AuthBlock::new(),
            limits,
        }
    }

    pub(super) const fn of(&self, access: Access) -> &Side {
        self.sides.of(access)
    }

    /// Runs a call: sends `request`, once or again, or fails without it. `None` once its caller has
    /// left.
    pub(super) async fn run<T, F>(
        &self,
        call: Call<'_>,
        request: impl Fn(AnswerBegan) -> F + Send,
    ) -> Option<Result<T, RequestError>>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        let result = self.attempts(&call, request).await?;
        if let Err(error) = &result {
            if error.is_unsent {
                call.log_unsent(&self.of(call.access()).trouble, error);
            }
        }
        Some(result)
    }

    async fn attempts<T, F>(
        &self,
        call: &Call<'_>,
        request: impl Fn(AnswerBegan) -> F + Send,
    ) -> Option<Result<T, RequestError>>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        let deadline = after(self.limits.call_timeout);
        let side = self.of(call.access());
        // Outlives the ticket: the call that gets the permit next must see how this one ended.
        let mut permit;
        let Some(mut ticket) = side.breaker.admit(call.key) else {
            side.short_circuited.increment();
            return Some(Err(side.breaker.error()));
        };
        side.budget.deposit();
        let mut tried = 0;
        loop {
            let wait = self.permit(call.access(), &ticket, deadline);
            permit = match call.caller.waits_for(wait).await? {
                Ok(permit) => Some(permit),
                Err(error) => {
                    if tried == 0 {
                        side.short_circuited.increment();
                    }
                    ticket.report(!error.is_server_failure());
                    return Some(Err(error));
                }
            };
            let version = match self.credentials(call) {
                Ok(version) => version,
                Err(error) => return Some(Err(error)),
            };
            let end = deadline.min(after(self.limits.attempt_timeout));
            ticket.sends();
            let answer = AnswerBegan::default();
            let mut attempt = pin!(self.attempt(request(answer.clone()), end, deadline));
            let Some(result) = call.caller.waits_for(&mut attempt).await else {
                if let Ok(_bounded) = side.abandoned.try_acquire() {
                    // Callers that wait come first.
                    drop(permit.take());
                    let result = until_answered(attempt, &answer, ticket.gives_up_at()).await;
                    self.learn(call, version, &mut ticket, &result);
                }
                return None;
            };
            tried += 1;
            if let Some((delay, reason)) = self.delay(side, &ticket, &result, tried, deadline) {
                tracing::debug!(
                    tier = call.tier, key = %call.key, operation = %call.operation,
                    %reason, ?delay, "request failed; retrying after the delay"
                );
                drop(permit.take());
                if call.caller.waits_for(self.pause(&ticket, delay)).await? {
                    continue;
                }
            }
            self.learn(call, version, &mut ticket, &result);
            return Some(result);
        }
    }

    /// The version of the credentials, unless the server would reject them.
    fn credentials(&self, call: &Call<'_>) -> Result<Option<u64>, RequestError> {
        let version = call.credentials.version()?;
        self.auth_block.check(call.access(), version)?;
        Ok(version)
    }

    async fn attempt<T>(
        &self,
        request: impl Future<Output = Result<T, RequestError>> + Send,
        end: Instant,
        deadline: Instant,
    ) -> Result<T, RequestError> {
        let limit = if end < deadline {
            self.limits.attempt_timeout
        } else {
            self.limits.call_timeout
        };
        let late = |_| Err(RequestError::timed_out("the request did not end", limit));
        timeout_at(end, request).await.unwrap_or_else(late)
    }

    /// Learns how the last request of a call ended.
    fn learn<T>(
        &self,
        call: &Call<'_>,
        version: Option<u64>,
        ticket: &mut Ticket<'_>,
        result: &Result<T, RequestError>,
    ) {
        self.auth_block.learn(call.access(), version, result);
        let trouble = &self.of(call.access()).trouble;
        let Err(error) = result else {
            ticket.report(true);
            log_success(call.tier, call.access(), trouble);
            return;
        };
        call.log_failed(trouble, version.is_some(), error);
        ticket.report(!error.is_server_failure());
        let longest = self.limits.retry.max_retry_after;
        if let Some(pause) = error.retry_after.filter(|asked| *asked > longest) {
            if call.access() == Access::Write {
                ticket.pause(pause);
            }
        }
    }

    /// A request permit. No call waits for one once the breaker is open, nor is given one.
    async fn permit(
        &self,
        access: Access,
        ticket: &Ticket<'_>,
        deadline: Instant,
    ) -> Result<Permit<'_>, RequestError> {
        let breaker = &self.of(access).breaker;
        let permit = tokio::select! {
            biased;
            () = ticket.revoked() => return Err(breaker.error()),
            permit = self.next_permit(access) => permit,
            () = sleep_until(deadline) => {
                let what = "no request permit became free";
                return Err(RequestError::timed_out(what, self.limits.call_timeout).unsent());
            }
        };
        let closed = |_| {
            RequestError::new(StoreErrorKind::Closed, "the tier makes no more requests").unsent()
        };
        let permit = permit.map_err(closed)?;
        if ticket.may_send() {
            Ok(permit)
        } else {
            Err(breaker.error())
        }
    }

    async fn next_permit(&self, access: Access) -> Result<Permit<'_>, AcquireError> {
        let one_of_writes = match access {
            Access::Read => None,
            Access::Write => Some(self.write_permits.acquire().await?),
        };
        Ok(Permit {
            _one_of_all: self.permits.acquire().await?,
            _one_of_writes: one_of_writes,
        })
    }

    /// How long to wait for the next attempt, if there is to be one. A probe is one request.
    fn delay<'e, T>(
        &self,
        side: &Side,
        ticket: &Ticket<'_>,
        result: &'e Result<T, RequestError>,
        tried: u32,
        deadline: Instant,
    ) -> Option<(Duration, &'e RequestError)> {
        let error = result.as_ref().err()?;
        if !error.is_retryable() || ticket.is_probe() {
            return None;
        }
        let random = fastrand::f64();
        let delay = self.limits.retry.delay(tried, error.retry_after, random)?;
        // A delay that ends after the deadline is not begun, and costs no budget.
        (after(delay) < deadline && side.budget.withdraw()).then_some((delay, error))
    }

    /// Waits for the next attempt, unless the breaker opens meanwhile.
    async fn pause(&self, ticket: &Ticket<'_>, delay: Duration) -> bool {
        tokio::select! {
            biased;
            () = ticket.revoked() => false,
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

/// How a request ends whose caller has left: its result, or a success as soon as its answer begins,
/// or a failure if that does not come in time.
async fn until_answered<T>(
    request: impl Future<Output = Result<T, RequestError>> + Send,
    answer: &AnswerBegan,
    limit: Instant,
) -> Result<(), RequestError> {
    tokio::select! {
        biased;
        result = request => result.map(drop),
        () = sleep_until(limit) => Err(RequestError::new(
            StoreErrorKind::TimedOut,
            "no answer came in time, nor before the caller left",
        )),
        () = answer.wait() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::backend::CredentialsVersion;
    use super::*;
    use crate::key::PipelineFingerprint;
    use crate::network::BreakerState;
    use crate::network::caller::Caller;
    use crate::store::StoreOperation;
    use futures::FutureExt as _;
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::time::{advance, timeout};

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

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

    async fn run_for<F>(
        caller: &Caller,
        operation: StoreOperation,
        policy: &CallPolicy,
        request: impl Fn(AnswerBegan) -> F + Send,
    ) -> Option<Result<(), RequestError>>
    where
        F: Future<Output = Result<(), RequestError>> + Send,
    {
        let call = Call {
            tier: "t",
            operation,
            key: &KEY,
            credentials: &NoCredentials,
            caller,
        };
        policy.run(call, request).await
    }

    /// A lookup whose caller waits.
    async fn run<F>(policy: &CallPolicy, request: impl Fn() -> F + Send) -> Result<(), RequestError>
    where
        F: Future<Output = Result<(), RequestError>> + Send,
    {
        let stays = Caller::default();
        let ended = run_for(&stays, StoreOperation::Get, policy, move |_| request()).await;
        ended.expect("its caller stays")
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
        assert_eq!(waited.unwrap_err().kind, StoreErrorKind::BreakerOpen);
        assert_eq!(requests.load(Ordering::SeqCst), 0);
        assert_eq!(policy.of(Access::Read).short_circuited.get(), 1);
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
        assert_eq!(waited.unwrap_err().kind, StoreErrorKind::BreakerOpen);
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
        assert_eq!(
            policy.of(Access::Read).breaker.state(),
            BreakerState::Closed
        );
        run(&policy, || ready(Ok(()))).await.unwrap();
    }

    /// The state of the reads after this many lookups whose callers left after 50 ms, each of which
    /// then ended so.
    async fn after_abandoned<F>(
        lookups: usize,
        request: impl Fn(AnswerBegan) -> F + Send + Sync,
    ) -> BreakerState
    where
        F: Future<Output = Result<(), RequestError>> + Send,
    {
        let policy = policy(5);
        for _ in 0..lookups {
            let caller = Caller::default();
            let leaves = async {
                sleep(Duration::from_millis(50)).await;
                caller.leave();
            };
            let call = run_for(&caller, StoreOperation::Get, &policy, &request);
            let (ended, ()) = tokio::join!(call, leaves);
            assert!(ended.is_none());
            assert_eq!(policy.permits.available_permits(), 1);
            assert_eq!(policy.of(Access::Read).abandoned.available_permits(), 16);
        }
        policy.of(Access::Read).breaker.state()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_caller_has_left_counts_when_its_answer_begins_fails_or_is_late() {
        let late = |_| pending();
        assert_eq!(after_abandoned(5, late).await, BreakerState::Open);
        let fails = |_| async {
            sleep(Duration::from_millis(100)).await;
            unavailable()
        };
        assert_eq!(after_abandoned(5, fails).await, BreakerState::Open);
        let succeeds = |_| async {
            sleep(Duration::from_millis(100)).await;
            Ok(())
        };
        assert_eq!(after_abandoned(50, succeeds).await, BreakerState::Closed);
        // However long the body takes.
        let begins = |answer: AnswerBegan| async move {
            sleep(Duration::from_millis(100)).await;
            answer.signal();
            pending().await
        };
        assert_eq!(after_abandoned(50, begins).await, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn abandoned_requests_are_bounded_and_hold_no_permit() {
        let policy = policy(100);
        let callers: Vec<_> = (0..20).map(|_| Caller::default()).collect();
        let mut calls = Vec::new();
        for caller in &callers {
            let mut call = Box::pin(run_for(caller, StoreOperation::Get, &policy, |_| pending()));
            assert!((&mut call).now_or_never().is_none());
            caller.leave();
            let ended = (&mut call).now_or_never();
            assert_eq!(ended.is_some(), calls.len() >= 16, "{}", calls.len());
            calls.push(call);
            run(&policy, || ready(Ok(()))).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_whose_caller_left_while_it_waited_for_a_permit_sends_nothing() {
        let (policy, caller) = (policy(1), Caller::default());
        let mut holds = Box::pin(run(&policy, pending));
        assert!((&mut holds).now_or_never().is_none());
        let waits = run_for(&caller, StoreOperation::Get, &policy, |_| async {
            panic!("sent")
        });
        let mut waits = Box::pin(waits);
        assert!((&mut waits).now_or_never().is_none());
        caller.leave();
        drop(holds);
        assert!(waits.now_or_never().unwrap().is_none());
    }

    /// Neither the breaker nor the budget of retries.
    #[tokio::test(start_paused = true)]
    async fn failing_writes_take_nothing_from_reads() {
        let policy = CallPolicy::new(Limits::default());
        let stays = Caller::default();
        for _ in 0..100 {
            let put = run_for(&stays, StoreOperation::Put, &policy, |_| {
                ready(unavailable())
            });
            put.await.unwrap().unwrap_err();
        }
        assert_eq!(policy.of(Access::Write).breaker.state(), BreakerState::Open);
        let tried = AtomicUsize::new(0);
        let second_time = || match tried.fetch_add(1, Ordering::SeqCst) {
            0 => ready(unavailable()),
            _ => ready(Ok(())),
        };
        run(&policy, second_time).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn writes_that_hang_leave_permits_to_reads() {
        let policy = CallPolicy::new(Limits {
            concurrent_requests: 2,
            ..Limits::default()
        });
        let stays = Caller::default();
        let mut puts = Vec::new();
        for _ in 0..5 {
            let mut put = Box::pin(run_for(&stays, StoreOperation::Put, &policy, |_| pending()));
            assert!((&mut put).now_or_never().is_none());
            puts.push(put);
        }
        let read = run(&policy, || ready(Ok(()))).now_or_never();
        read.expect("no permit is free").unwrap();
    }
}
