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
use super::caller::AnswerProgress;
use super::request_error::RequestError;
use super::retry::{RetryBudget, RetryPolicy};
use super::time::after;
use crate::store::StoreErrorKind;
use crate::store::metrics::Counter;
use crate::store::urgency;
use crate::sync::trouble::Trouble;

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
    /// One for each call among them that no user waits for. There are fewer, so that users find room.
    background_permits: Semaphore,
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
    _one_of_background: Option<SemaphorePermit<'a>>,
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
            background_permits: Semaphore::new((requests / 2).max(1)),
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
        request: impl Fn(AnswerProgress) -> F + Send,
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
        request: impl Fn(AnswerProgress) -> F + Send,
    ) -> Option<Result<T, RequestError>>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        let limit = self.limits.call_timeout;
        let limit = call.single_request.map_or(limit, |time| time.min(limit));
        let deadline = after(limit);
        let side = self.of(call.access());
        // Outlives the ticket: the call that gets the permit next must see how this one ended.
        let mut permit;
        let Some(mut ticket) = side.breaker.admit(call.key) else {
            side.short_circuited.increment();
            return Some(Err(side.breaker.error()));
        };
        side.budget.deposit();
        let mut tried = 0;
        // What is to be learnt where no attempt comes after it.
        let mut earlier = None;
        loop {
            let wait = self.permit(call.access(), &ticket, deadline, limit);
            let Some(allowed) = call.caller.waits_for(wait).await else {
                self.learn_earlier(call, &mut ticket, earlier);
                return None;
            };
            permit = match allowed {
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
                Err(error) => {
                    if !error.is_unsent {
                        call.log_failed(&side.trouble, false, &error);
                    }
                    self.learn_earlier(call, &mut ticket, earlier);
                    return Some(Err(error));
                }
            };
            let end = deadline.min(after(self.limits.attempt_timeout));
            ticket.sends();
            let answer = AnswerProgress::default();
            // In a box: the futures around it would each have room for it, and are moved.
            let request = Box::pin(request(answer.clone()));
            let limit_of_attempt = self.limits.attempt_timeout.min(limit);
            let mut attempt = pin!(within(request, end, limit_of_attempt));
            let Some(result) = call.caller.waits_for(&mut attempt).await else {
                let last_part = answer.last();
                let limit = ticket.gives_up_at(last_part);
                if let Ok(_bounded) = side.abandoned.try_acquire() {
                    // Callers that wait come first.
                    drop(permit.take());
                    let result = until_answered(attempt, &answer, limit).await;
                    self.learn(call, version, &mut ticket, &result);
                } else if last_part.is_some() && Instant::now() < limit {
                    ticket.says_nothing();
                }
                return None;
            };
            tried += 1;
            let again = match call.single_request {
                Some(_) => None,
                None => self.delay(side, &ticket, &result, tried, deadline),
            };
            if let Some((delay, reason)) = again {
                tracing::debug!(
                    tier = call.tier, key = %call.key, operation = %call.operation,
                    %reason, ?delay, "request failed; retrying after the delay"
                );
                drop(permit.take());
                let again = call.caller.waits_for(self.pause(&ticket, delay)).await;
                if again == Some(true) {
                    earlier = result.err().map(|error| (version, error));
                    continue;
                }
                if again.is_none() {
                    self.learn(call, version, &mut ticket, &result);
                    return None;
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
        if !error.is_server_failure() {
            // A time that the server names with the rejection of one entry is about that entry.
            return;
        }
        let longest = self.limits.retry.max_retry_after;
        if let Some(pause) = error.retry_after.filter(|asked| *asked > longest) {
            if call.access() == Access::Write {
                ticket.pause(pause);
            }
        }
    }

    /// Learns how an attempt ended that none came after.
    fn learn_earlier(
        &self,
        call: &Call<'_>,
        ticket: &mut Ticket<'_>,
        earlier: Option<(Option<u64>, RequestError)>,
    ) {
        if let Some((version, error)) = earlier {
            self.learn::<()>(call, version, ticket, &Err(error));
        }
    }

    /// A request permit. No call waits for one once the breaker is open, nor is given one.
    async fn permit(
        &self,
        access: Access,
        ticket: &Ticket<'_>,
        deadline: Instant,
        limit: Duration,
    ) -> Result<Permit<'_>, RequestError> {
        let breaker = &self.of(access).breaker;
        // Most often one is free, and nothing has to be waited for.
        let is_users_read = access == Access::Read && urgency::background().is_none();
        if let (true, Ok(permit)) = (is_users_read, self.permits.try_acquire()) {
            let permit = Permit {
                _one_of_all: permit,
                _one_of_writes: None,
                _one_of_background: None,
            };
            return match ticket.may_send() {
                true => Ok(permit),
                false => Err(breaker.error()),
            };
        }
        let permit = tokio::select! {
            biased;
            () = ticket.revoked() => return Err(breaker.error()),
            permit = self.next_permit(access) => permit,
            () = sleep_until(deadline) => {
                let what = "no request permit became free";
                return Err(RequestError::timed_out(what, limit).unsent());
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
        let one_of_background = match urgency::background() {
            None => None,
            Some(urgent) => tokio::select! {
                biased;
                () = urgent.cancelled() => None,
                permit = self.background_permits.acquire() => Some(permit?),
            },
        };
        Ok(Permit {
            _one_of_all: self.permits.acquire().await?,
            _one_of_writes: one_of_writes,
            _one_of_background: one_of_background,
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

/// How a request ends that is given up at its end, after this limit.
async fn within<T>(
    request: impl Future<Output = Result<T, RequestError>> + Send,
    end: Instant,
    limit: Duration,
) -> Result<T, RequestError> {
    let late = |_| Err(RequestError::timed_out("the request did not end", limit));
    timeout_at(end, request).await.unwrap_or_else(late)
}

/// How a request ends whose caller has left: its result, or a success at the next part of its answer,
/// or a failure if that does not come in time.
async fn until_answered<T>(
    request: impl Future<Output = Result<T, RequestError>> + Send,
    answer: &AnswerProgress,
    limit: Instant,
) -> Result<(), RequestError> {
    let next_part = answer.next();
    tokio::select! {
        biased;
        result = request => result.map(drop),
        () = next_part => Ok(()),
        () = sleep_until(limit) => Err(RequestError::new(
            StoreErrorKind::TimedOut,
            "no answer came in time, nor before the caller left",
        )),
    }
}

#[cfg(test)]
mod tests;
