//! What each tier has answered to a search, while the search runs and after it.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::lookup::{TierOutcome, TierReport};
use crate::store::Locality;
use crate::sync::lock::lock;

/// The state of each tier in one search.
#[derive(Debug)]
pub(super) struct Progress {
    state: Mutex<State>,
    localities: Vec<Locality>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    tiers: Vec<TierProgress>,
    /// When the search first waited for nothing but network tiers, if it ever did.
    on_network_since: Option<Instant>,
}

#[derive(Debug, Clone)]
enum TierProgress {
    /// The options leave it out.
    Excluded,
    NotAsked,
    AskedAt(Instant),
    /// Asked at this time, and its answer is arriving.
    Answering(Instant),
    Answered(TierReport),
    /// The search ended before it was asked.
    NeverAsked(TierReport),
}

/// What a search waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// For a tier on this machine, or for nothing.
    Local,
    /// For network tiers alone, and none of them has begun to answer.
    Network,
    /// For network tiers alone, and the answer of one is arriving.
    Answer,
}

impl Progress {
    /// For each tier, whether it may be asked, and where it is.
    pub(super) fn new(tiers: impl Iterator<Item = (bool, Locality)>) -> Self {
        let progress = |(allowed, locality)| match allowed {
            true => (TierProgress::NotAsked, locality),
            false => (TierProgress::Excluded, locality),
        };
        let (tiers, localities) = tiers.map(progress).unzip();
        Self {
            state: Mutex::new(State {
                tiers,
                on_network_since: None,
            }),
            localities,
            changed: Notify::new(),
        }
    }

    pub(super) fn asked(&self, tier: usize) {
        self.set(tier, |_| TierProgress::AskedAt(Instant::now()));
    }

    /// The answer of the tier has begun to arrive.
    pub(super) fn answering(&self, tier: usize) {
        self.set(tier, |before| match before {
            TierProgress::AskedAt(start) => TierProgress::Answering(*start),
            other => other.clone(),
        });
    }

    fn set(&self, tier: usize, next: impl FnOnce(&TierProgress) -> TierProgress) {
        {
            let mut state = lock(&self.state);
            state.tiers[tier] = next(&state.tiers[tier]);
            if self.waits(&state.tiers) != WaitsFor::Local {
                state.on_network_since.get_or_insert_with(Instant::now);
            }
        }
        self.changed.notify_waiters();
    }

    fn waits(&self, tiers: &[TierProgress]) -> WaitsFor {
        let waited_for = |wanted: Locality| {
            let tiers = tiers.iter().zip(&self.localities);
            tiers
                .filter(move |(_, locality)| **locality == wanted)
                .map(|(tier, _)| tier)
        };
        let is_asked = |tier: &TierProgress| matches!(tier, TierProgress::AskedAt(_));
        let is_answering = |tier: &TierProgress| matches!(tier, TierProgress::Answering(_));
        let is_waited_for = |tier: &TierProgress| is_asked(tier) || is_answering(tier);
        if waited_for(Locality::Local).any(is_waited_for) {
            WaitsFor::Local
        } else if waited_for(Locality::Network).any(is_answering) {
            WaitsFor::Answer
        } else if waited_for(Locality::Network).any(is_asked) {
            WaitsFor::Network
        } else {
            // For its permit, or for the next tier.
            WaitsFor::Local
        }
    }

    /// How long ago the search first waited for network tiers alone.
    pub(super) fn network_time(&self) -> Duration {
        let since = lock(&self.state).on_network_since;
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Waits until `budget` has passed since the search first waited for network tiers alone, and it
    /// waits for them and none has begun to answer.
    pub(super) async fn network_is_late(&self, budget: Duration) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (waits, since) = {
                let state = lock(&self.state);
                (self.waits(&state.tiers), state.on_network_since)
            };
            match since.and_then(|since| since.checked_add(budget)) {
                Some(end) if waits == WaitsFor::Network => {
                    if timeout_at(end, changed).await.is_err() {
                        return;
                    }
                }
                _ => changed.await,
            }
        }
    }

    pub(super) fn answered(&self, tier: usize, outcome: TierOutcome) {
        self.set(tier, |before| {
            let elapsed = match before {
                TierProgress::AskedAt(start) | TierProgress::Answering(start) => start.elapsed(),
                TierProgress::Excluded
                | TierProgress::NotAsked
                | TierProgress::Answered(_)
                | TierProgress::NeverAsked(_) => Duration::ZERO,
            };
            TierProgress::Answered(TierReport { outcome, elapsed })
        });
    }

    /// Whether the tier is known not to have the artifact, nor another reader's entry of its key.
    pub(super) fn is_missing(&self, tier: usize) -> bool {
        matches!(
            &lock(&self.state).tiers[tier],
            TierProgress::Answered(TierReport {
                outcome: TierOutcome::Miss | TierOutcome::Corrupt(_),
                ..
            })
        )
    }

    /// Whether the tier has an entry that its settings refuse.
    pub(super) fn is_refused(&self, tier: usize) -> bool {
        matches!(
            &lock(&self.state).tiers[tier],
            TierProgress::Answered(TierReport {
                outcome: TierOutcome::Refused,
                ..
            })
        )
    }

    /// The reports as they stand. A tier that has not answered yet is reported as `unanswered`. If
    /// that is [`TierOutcome::TimedOut`], so is a tier that has not been asked yet.
    pub(super) fn reports(&self, unanswered: &TierOutcome) -> Arc<[TierReport]> {
        let state = lock(&self.state);
        let tiers = state.tiers.iter();
        tiers.map(|tier| tier.report(unanswered)).collect()
    }

    /// Ends the search: the reports do not change any more.
    pub(super) fn end(&self, unanswered: &TierOutcome) {
        for tier in &mut lock(&self.state).tiers {
            let report = tier.report(unanswered);
            *tier = match tier {
                TierProgress::Excluded | TierProgress::NotAsked | TierProgress::NeverAsked(_) => {
                    TierProgress::NeverAsked(report)
                }
                TierProgress::AskedAt(_)
                | TierProgress::Answering(_)
                | TierProgress::Answered(_) => TierProgress::Answered(report),
            };
        }
    }

    /// The reports of the tiers that were asked, and `None` for each other.
    pub(super) fn of_asked(&self, unanswered: &TierOutcome) -> Vec<Option<TierReport>> {
        let of_asked = |tier: &TierProgress| match tier {
            TierProgress::Excluded | TierProgress::NotAsked | TierProgress::NeverAsked(_) => None,
            TierProgress::AskedAt(_) | TierProgress::Answering(_) | TierProgress::Answered(_) => {
                Some(tier.report(unanswered))
            }
        };
        lock(&self.state).tiers.iter().map(of_asked).collect()
    }
}

impl TierProgress {
    fn report(&self, unanswered: &TierOutcome) -> TierReport {
        match self {
            Self::Excluded => TierReport::SKIPPED,
            Self::NotAsked if matches!(unanswered, TierOutcome::TimedOut) => TierReport::TIMED_OUT,
            Self::NotAsked => TierReport::SKIPPED,
            Self::AskedAt(start) | Self::Answering(start) => TierReport {
                outcome: unanswered.clone(),
                elapsed: start.elapsed(),
            },
            Self::Answered(report) | Self::NeverAsked(report) => report.clone(),
        }
    }
}
