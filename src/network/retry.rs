//! How often and when a failed request is repeated.
//!
//! The delay is drawn from nothing to all of an exponentially growing limit ("full jitter"), so
//! that calls which failed together do not retry together. The budget bounds what retries add to a
//! server that is in trouble already: all calls of a tier share it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How a tier across a network repeats requests that failed for a transient reason.
///
/// ```
/// use pipeline_cache::network::RetryPolicy;
/// use std::time::Duration;
///
/// // For a batch job: waits as long as the server asks for, up to 10 seconds.
/// let patient = RetryPolicy::default()
///     .attempts(5)
///     .base_delay(Duration::from_millis(200))
///     .max_delay(Duration::from_secs(4))
///     .max_retry_after(Duration::from_secs(10));
///
/// // For a large fleet: retries add about 5 percent to what a server in trouble gets.
/// let sparing = RetryPolicy::default().budget_percent(5).budget_reserve(3);
/// # let _ = (patient, sparing);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    pub(super) attempts: u32,
    base_delay: Duration,
    max_delay: Duration,
    pub(super) max_retry_after: Duration,
    budget_percent: u32,
    budget_reserve: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            base_delay: Duration::from_millis(50),
            max_delay: Duration::from_secs(1),
            max_retry_after: Duration::from_secs(2),
            budget_percent: 20,
            budget_reserve: 10,
        }
    }
}

impl RetryPolicy {
    /// The most times that a request is made, the first included. Default: 3.
    #[must_use]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// The longest delay before the first retry; each further one may be twice as long. The delay
    /// itself is random. Default: 50 milliseconds.
    #[must_use]
    pub const fn base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// The longest delay before any retry. Default: 1 second.
    #[must_use]
    pub const fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    /// The longest `Retry-After` that a call waits for. After a longer one it fails without another
    /// attempt; after a longer one to a write, all writes of the tier pause, see
    /// [`BreakerPolicy::max_pause`](super::BreakerPolicy::max_pause). Default: 2 seconds.
    #[must_use]
    pub const fn max_retry_after(mut self, delay: Duration) -> Self {
        self.max_retry_after = delay;
        self
    }

    /// Retries allowed per 100 calls, in addition to the [reserve](Self::budget_reserve). Reads and
    /// writes have a budget each.
    /// Default: 20.
    #[must_use]
    pub const fn budget_percent(mut self, percent: u32) -> Self {
        self.budget_percent = percent;
        self
    }

    /// Retries available at the start; the budget never exceeds this. Default: 10.
    #[must_use]
    pub const fn budget_reserve(mut self, retries: u32) -> Self {
        self.budget_reserve = retries;
        self
    }

    /// How long to wait after the `tried`th attempt; `None` to give up. `random` is in 0 to 1.
    pub(super) fn delay(
        &self,
        tried: u32,
        retry_after: Option<Duration>,
        random: f64,
    ) -> Option<Duration> {
        if tried >= self.attempts {
            return None;
        }
        let doublings = tried.saturating_sub(1).min(31);
        let limit = self.base_delay.saturating_mul(1 << doublings);
        let limit = limit.min(self.max_delay).min(LONGEST_DELAY);
        let delay = limit.mul_f64(random.clamp(0.0, 1.0));
        match retry_after {
            Some(asked) if asked > self.max_retry_after => None,
            Some(asked) => Some(delay.max(asked)),
            None => Some(delay),
        }
    }
}

/// Whatever the settings say: the product with a fraction must fit.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What one retry costs, in hundredths.
const RETRY: u64 = 100;

/// The retries that are left to all calls of a tier.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// In hundredths of a retry.
    left: Mutex<u64>,
    per_call: u64,
    most: u64,
}

impl RetryBudget {
    pub(super) const fn new(policy: &RetryPolicy) -> Self {
        let most = policy.budget_reserve as u64 * RETRY;
        Self {
            left: Mutex::new(most),
            per_call: policy.budget_percent as u64,
            most,
        }
    }

    /// A call was made.
    pub(super) fn deposit(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        *left = (*left + self.per_call).min(self.most);
    }

    /// Whether a retry may be made.
    pub(super) fn withdraw(&self) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        match left.checked_sub(RETRY) {
            Some(rest) => {
                *left = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn delays_double_up_to_their_limit_and_are_jittered_in_full() {
        let policy = RetryPolicy::default().attempts(u32::MAX);
        for (tried, most) in [(1, 50), (2, 100), (3, 200), (5, 800), (6, 1000), (90, 1000)] {
            assert_eq!(policy.delay(tried, None, 1.0), Some(MS * most));
            assert_eq!(policy.delay(tried, None, 0.5), Some(MS * most / 2));
            assert_eq!(policy.delay(tried, None, 0.0), Some(Duration::ZERO));
        }
    }

    #[test]
    fn attempts_are_bounded() {
        let policy = RetryPolicy::default();
        assert!(policy.delay(2, None, 0.5).is_some());
        assert!(policy.delay(3, None, 0.5).is_none());
        assert!(policy.attempts(1).delay(1, None, 0.5).is_none());
        assert!(policy.attempts(0).delay(1, None, 0.5).is_none());
    }

    #[test]
    fn extreme_settings_do_no_harm() {
        let endless = Duration::MAX;
        let policy = RetryPolicy::default()
            .base_delay(endless)
            .max_delay(endless);
        assert_eq!(policy.delay(1, None, 1.0), Some(LONGEST_DELAY));
        let policy = policy.max_retry_after(endless);
        assert_eq!(policy.delay(1, Some(endless), 0.0), Some(endless));
    }

    #[test]
    fn a_retry_after_is_waited_for_up_to_its_limit() {
        let policy = RetryPolicy::default();
        let after = |seconds, random| policy.delay(1, Some(Duration::from_secs(seconds)), random);
        assert_eq!(after(0, 1.0), Some(MS * 50));
        assert_eq!(after(2, 0.0), Some(MS * 2000));
        assert_eq!(after(3, 0.0), None);
        assert_eq!(after(u64::MAX, 0.0), None);
    }

    #[test]
    fn the_budget_is_a_reserve_and_a_part_of_the_calls() {
        let budget = RetryBudget::new(&RetryPolicy::default().budget_reserve(3));
        let available = || (0..100).take_while(|_| budget.withdraw()).count();
        assert_eq!(available(), 3);
        (0..10).for_each(|_| budget.deposit());
        assert_eq!(available(), 2, "20 % of 10 calls");
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(available(), 3, "no more than the reserve is saved up");
    }
}
