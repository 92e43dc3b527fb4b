//! What each tier has answered to a search, while the search runs and after it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::lookup::{TierOutcome, TierReport};

/// The state of each tier in one search.
#[derive(Debug)]
pub(super) struct Progress {
    tiers: Mutex<Vec<TierProgress>>,
}

#[derive(Debug, Clone)]
enum TierProgress {
    /// The options leave it out.
    Excluded,
    NotAsked,
    AskedAt(Instant),
    Answered(TierReport),
    /// The search ended before it was asked.
    NeverAsked(TierReport),
}

impl Progress {
    /// For each tier, whether it may be asked.
    pub(super) fn new(allowed: impl Iterator<Item = bool>) -> Self {
        let progress = |allowed| match allowed {
            true => TierProgress::NotAsked,
            false => TierProgress::Excluded,
        };
        Self {
            tiers: Mutex::new(allowed.map(progress).collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<TierProgress>> {
        self.tiers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asked(&self, tier: usize) {
        self.lock()[tier] = TierProgress::AskedAt(Instant::now());
    }

    pub(super) fn answered(&self, tier: usize, outcome: TierOutcome) {
        let mut tiers = self.lock();
        let elapsed = match tiers[tier] {
            TierProgress::AskedAt(start) => start.elapsed(),
            TierProgress::Excluded
            | TierProgress::NotAsked
            | TierProgress::Answered(_)
            | TierProgress::NeverAsked(_) => Duration::ZERO,
        };
        tiers[tier] = TierProgress::Answered(TierReport { outcome, elapsed });
    }

    /// Whether the tier is known not to have the artifact, nor another reader's entry of its key.
    pub(super) fn is_missing(&self, tier: usize) -> bool {
        matches!(
            &self.lock()[tier],
            TierProgress::Answered(TierReport {
                outcome: TierOutcome::Miss | TierOutcome::Corrupt(_),
                ..
            })
        )
    }

    /// Whether the tier has an entry that its settings refuse.
    pub(super) fn is_refused(&self, tier: usize) -> bool {
        matches!(
            &self.lock()[tier],
            TierProgress::Answered(TierReport {
                outcome: TierOutcome::Refused,
                ..
            })
        )
    }

    /// The reports as they stand. A tier that has not answered yet is reported as `unanswered`. If
    /// that is [`TierOutcome::TimedOut`], so is a tier that has not been asked yet.
    pub(super) fn reports(&self, unanswered: &TierOutcome) -> Arc<[TierReport]> {
        let tiers = self.lock();
        tiers.iter().map(|tier| tier.report(unanswered)).collect()
    }

    /// Ends the search: the reports do not change any more.
    pub(super) fn end(&self, unanswered: &TierOutcome) {
        for tier in self.lock().iter_mut() {
            let report = tier.report(unanswered);
            *tier = match tier {
                TierProgress::Excluded | TierProgress::NotAsked | TierProgress::NeverAsked(_) => {
                    TierProgress::NeverAsked(report)
                }
                TierProgress::AskedAt(_) | TierProgress::Answered(_) => {
                    TierProgress::Answered(report)
                }
            };
        }
    }

    /// The reports of the tiers that were asked, and `None` for each other.
    pub(super) fn of_asked(&self, unanswered: &TierOutcome) -> Vec<Option<TierReport>> {
        let of_asked = |tier: &TierProgress| match tier {
            TierProgress::Excluded | TierProgress::NotAsked | TierProgress::NeverAsked(_) => None,
            TierProgress::AskedAt(_) | TierProgress::Answered(_) => Some(tier.report(unanswered)),
        };
        self.lock().iter().map(of_asked).collect()
    }
}

impl TierProgress {
    fn report(&self, unanswered: &TierOutcome) -> TierReport {
        match self {
            Self::Excluded => TierReport::SKIPPED,
            Self::NotAsked if matches!(unanswered, TierOutcome::TimedOut) => TierReport::TIMED_OUT,
            Self::NotAsked => TierReport::SKIPPED,
            Self::AskedAt(start) => TierReport {
                outcome: unanswered.clone(),
                elapsed: start.elapsed(),
            },
            Self::Answered(report) | Self::NeverAsked(report) => report.clone(),
        }
    }
}
