//! What a cache saves, scope by scope: the compile time of its hits, less what keys and lookups cost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::key::CompileScope;

/// Scopes that are kept an account of. Requests of others are not counted.
const MAX_SCOPES: usize = 256;

/// Requests over which a scope is judged.
const WINDOW: usize = 1_000;

/// What the compile requests of one scope have cost and saved so far.
///
/// See [`LayeredMetrics`](super::LayeredMetrics) for an example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ScopeMetrics {
    /// The compiler of the scope.
    pub compiler: String,
    /// The target of the scope.
    pub target: String,
    /// Requests that were hits with a known compile time, and requests that compiled.
    pub requests: u64,
    /// Of these, the hits.
    pub hits: u64,
    /// The compile time of the hits, less the time of hashes, keys and lookups of all these requests,
    /// in nanoseconds. Negative for a scope that costs more than it saves.
    pub saved_nanos: i64,
    /// Requests that passed the cache by.
    pub passed_by: u64,
}

/// The accounts of all scopes.
#[derive(Debug)]
pub(super) struct Savings {
    /// By the hash of the scope.
    accounts: RwLock<HashMap<[u8; 32], Arc<Account>>>,
    passes_by: bool,
}

/// The account of one scope.
#[derive(Debug, Default)]
pub(super) struct Account(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    metrics: ScopeMetrics,
    /// What each of the last requests saved, in nanoseconds, and the sum of it.
    recent: VecDeque<i64>,
    recent_sum: i64,
    is_warned: bool,
    /// Requests that are still to pass the cache by.
    to_pass_by: usize,
}

impl Savings {
    pub(super) fn new(passes_by: bool) -> Self {
        Self {
            accounts: RwLock::default(),
            passes_by,
        }
    }

    /// The account of a scope. `None` if there are too many.
    pub(super) fn account(&self, scope: &CompileScope) -> Option<Arc<Account>> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = accounts.get(scope.digest()) {
            return Some(Arc::clone(account));
        }
        // Accounts are never removed. The many requests of other scopes share this lock.
        if accounts.len() >= MAX_SCOPES {
            return None;
        }
        drop(accounts);
        let mut accounts = self
            .accounts
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if accounts.len() >= MAX_SCOPES {
            return None;
        }
        let account = accounts.entry(*scope.digest()).or_insert_with(|| {
            let metrics = ScopeMetrics {
                compiler: scope.compiler().to_owned(),
                target: scope.target().to_owned(),
                ..ScopeMetrics::default()
            };
            let state = State {
                metrics,
                ..State::default()
            };
            Arc::new(Account(Mutex::new(state)))
        });
        Some(Arc::clone(account))
    }

    /// Whether the next request of the scope is to pass the cache by.
    pub(super) fn passes_by(&self, account: Option<&Arc<Account>>) -> bool {
        self.passes_by && account.is_some_and(|account| account.lock().pass_by())
    }

    pub(super) fn metrics(&self) -> Vec<ScopeMetrics> {
        let accounts = self.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let metrics = accounts
            .values()
            .map(|account| account.lock().metrics.clone());
        let mut metrics: Vec<_> = metrics.collect();
        metrics.sort_by(|a, b| (&a.compiler, &a.target).cmp(&(&b.compiler, &b.target)));
        metrics
    }
}

impl Account {
    /// A hit that saved so much.
    pub(super) fn hit(&self, saved_nanos: i64) {
        self.lock().record(saved_nanos, true);
    }

    /// A request that compiled after all, for this cost beside the compile.
    pub(super) fn miss(&self, cost: Duration) {
        self.lock().record(-nanos(cost), false);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, saved: i64, is_hit: bool) {
        self.metrics.requests += 1;
        self.metrics.hits += u64::from(is_hit);
        self.metrics.saved_nanos = self.metrics.saved_nanos.saturating_add(saved);
        self.recent.push_back(saved);
        self.recent_sum = self.recent_sum.saturating_add(saved);
        if self.recent.len() > WINDOW {
            let oldest = self.recent.pop_front().unwrap_or_default();
            self.recent_sum = self.recent_sum.saturating_sub(oldest);
        }
        if self.recent.len() == WINDOW && self.recent_sum < 0 {
            self.lose();
        }
    }

    /// The last requests have cost more than they saved.
    fn lose(&mut self) {
        if !self.is_warned {
            self.is_warned = true;
            tracing::warn!(
                compiler = self.metrics.compiler,
                target = self.metrics.target,
                requests = WINDOW,
                lost = ?Duration::from_nanos(self.recent_sum.unsigned_abs()),
                "the cache costs more than it saves: keys and lookups of this scope took longer than the compiles that its hits saved"
            );
        }
        self.to_pass_by = WINDOW;
    }

    /// After as many requests past the cache as led to it, the scope is judged anew.
    fn pass_by(&mut self) -> bool {
        if self.to_pass_by == 0 {
            return false;
        }
        self.to_pass_by -= 1;
        self.metrics.passed_by += 1;
        self.recent.clear();
        self.recent_sum = 0;
        true
    }
}

/// What a hit saves: the time of the compile, less its own cost. In nanoseconds.
pub(super) fn saved_nanos(compile: Duration, cost: Duration) -> i64 {
    nanos(compile).saturating_sub(nanos(cost))
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn account(savings: &Savings) -> Arc<Account> {
        let scope = CompileScope::new("cc", "x").unwrap();
        savings.account(&scope).unwrap()
    }

    #[test]
    fn a_scope_that_loses_is_passed_by_for_a_thousand_requests_and_then_judged_anew() {
        let savings = Savings::new(true);
        let account = account(&savings);
        for _ in 0..WINDOW - 1 {
            account.miss(MS);
            assert!(!savings.passes_by(Some(&account)));
        }
        account.miss(MS);
        for _ in 0..WINDOW {
            assert!(savings.passes_by(Some(&account)));
        }
        assert!(!savings.passes_by(Some(&account)));
        for _ in 0..WINDOW {
            account.hit(saved_nanos(3 * MS, MS));
        }
        assert!(!savings.passes_by(Some(&account)));
        let metrics = &savings.metrics()[0];
        assert_eq!((metrics.requests, metrics.hits), (2_000, 1_000));
        assert_eq!(metrics.saved_nanos, 1_000_000 * 1_000);
        assert_eq!(metrics.passed_by, 1_000);
    }

    #[test]
    fn a_scope_that_loses_is_not_passed_by_unless_it_is_asked_for() {
        let savings = Savings::new(false);
        let account = account(&savings);
        for _ in 0..2 * WINDOW {
            account.miss(MS);
        }
        assert!(!savings.passes_by(Some(&account)));
    }

    #[test]
    fn accounts_are_bounded() {
        let savings = Savings::new(false);
        for number in 0..2 * MAX_SCOPES {
            let scope = CompileScope::new(number.to_string(), "x").unwrap();
            assert_eq!(savings.account(&scope).is_some(), number < MAX_SCOPES);
        }
    }
}
