//! What came of a prefetch, and where it is counted.

use std::fmt;
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::store::metrics::Counter;
use crate::sync::lock::lock;

/// What came of a prefetch. Every key is counted once.
///
/// `keys == fetched + already_there + missing + refused + failed + over_budget + left` at all times.
///
/// `Display` prints one line.
///
/// See [`prefetch`](super::LayeredPipelineCache::prefetch) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PrefetchReport {
    /// Whether it is under way, or why it has ended.
    pub state: PrefetchState,
    /// Keys of the run.
    pub keys: u64,
    /// Keys that were fetched, and are now in a local tier.
    pub fetched: u64,
    /// The payload bytes of these.
    pub fetched_bytes: u64,
    /// Keys that a local tier had, or was being given.
    pub already_there: u64,
    /// Keys that no tier had.
    pub missing: u64,
    /// Keys that a tier refused to serve, or that no local tier takes: too large, or from a tier whose
    /// hits may not be [promoted](crate::PipelineCacheStore::is_trusted_source).
    pub refused: u64,
    /// Keys for which a tier failed, timed out or held a corrupt entry, or that could not be written.
    pub failed: u64,
    /// Keys that were skipped because their size was beyond what was left of the
    /// [budget](super::Prefetch::max_bytes).
    pub over_budget: u64,
    /// Keys that were not decided: not yet, or, once it has ended, for the reason that `state` tells.
    pub left: u64,
}

/// How far a prefetch is.
///
/// See [`prefetch`](super::LayeredPipelineCache::prefetch) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum PrefetchState {
    /// It is under way.
    Running,
    /// All keys were decided.
    Complete,
    /// It was cancelled, or its runtime was shut down.
    Cancelled,
    /// The circuit breaker of the network was open for longer than it was to be
    /// [waited for](super::Prefetch::max_outage).
    Outage,
}

impl fmt::Display for PrefetchState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
            Self::Outage => "ended by an open circuit breaker",
        })
    }
}

impl fmt::Display for PrefetchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, keys, .. } = self;
        write!(
            f,
            "prefetch {state}: {} of {keys} keys fetched ({} bytes), {} already there",
            self.fetched, self.fetched_bytes, self.already_there
        )?;
        let others = [
            (self.missing, "missing"),
            (self.refused, "refused"),
            (self.failed, "failed"),
            (self.over_budget, "over the budget"),
            (self.left, "left"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        Ok(())
    }
}

/// What came of the keys so far, and whether to go on.
#[derive(Debug)]
pub(super) struct Tally {
    keys: u64,
    fetched: Counter,
    fetched_bytes: Counter,
    already_there: Counter,
    missing: Counter,
    refused: Counter,
    failed: Counter,
    over_budget: Counter,
    state: Mutex<PrefetchState>,
    cancelled: CancellationToken,
}

/// What came of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// So many payload bytes were fetched.
    Fetched(u64),
    AlreadyThere,
    Missing,
    Refused,
    Failed,
    OverBudget,
    /// No request was sent, because the circuit breaker of whoever may have it is open.
    NotSent,
}

impl Tally {
    pub(super) fn new(keys: usize) -> Self {
        Self {
            keys: keys as u64,
            fetched: Counter::default(),
            fetched_bytes: Counter::default(),
            already_there: Counter::default(),
            missing: Counter::default(),
            refused: Counter::default(),
            failed: Counter::default(),
            over_budget: Counter::default(),
            state: Mutex::new(PrefetchState::Running),
            cancelled: CancellationToken::new(),
        }
    }

    pub(super) fn cancel(&self) {
        self.cancelled.cancel();
        self.end(PrefetchState::Cancelled);
    }

    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// The first reason to end counts.
    pub(super) fn end(&self, reason: PrefetchState) {
        let mut state = lock(&self.state);
        if *state == PrefetchState::Running {
            *state = reason;
        }
    }

    pub(super) fn count(&self, answer: Answer) {
        match answer {
            Answer::Fetched(bytes) => {
                self.fetched_bytes.add(bytes);
                self.fetched.increment();
            }
            Answer::AlreadyThere => self.already_there.increment(),
            Answer::Missing => self.missing.increment(),
            Answer::Refused => self.refused.increment(),
            Answer::Failed => self.failed.increment(),
            Answer::OverBudget => self.over_budget.increment(),
            Answer::NotSent => {}
        }
    }

    pub(super) fn report(&self) -> PrefetchReport {
        let mut report = PrefetchReport {
            state: *lock(&self.state),
            keys: self.keys,
            fetched: self.fetched.get(),
            fetched_bytes: self.fetched_bytes.get(),
            already_there: self.already_there.get(),
            missing: self.missing.get(),
            refused: self.refused.get(),
            failed: self.failed.get(),
            over_budget: self.over_budget.get(),
            left: 0,
        };
        let decided = [
            report.fetched,
            report.already_there,
            report.missing,
            report.refused,
            report.failed,
            report.over_budget,
        ];
        report.left = report.keys.saturating_sub(decided.iter().sum());
        report
    }
}
