//! The search of the tiers: all that may answer are asked at once, and the first hit wins.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

use super::admission::{Admission, LookupPriority, PriorityBoost};
use super::background::{Background, Cause, Generation, Route};
use super::lookup::{Lookup, LookupPolicy, LookupSource, Progress, TierOutcome, TierSelection};
use super::metrics::Counters;
use super::tier::Tier;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{Fetched, Locality, StoreErrorKind};

/// The search for one key, as those see it who wait for it.
#[derive(Debug)]
pub(super) struct SearchState {
    pub(super) progress: Progress,
    /// Told when someone joins who must not wait in the lane of the background.
    pub(super) boost: PriorityBoost,
}

impl SearchState {
    pub(super) fn new(tiers: &[Tier], selection: TierSelection) -> Self {
        let allowed = tiers.iter().map(|tier| selection.allows(tier.locality));
        Self {
            progress: Progress::new(allowed),
            boost: PriorityBoost::default(),
        }
    }
}

/// What some tier can tell at once.
pub(super) fn peek_all(
    tiers: &[Tier],
    key: &PipelineFingerprint,
) -> Option<(Artifact, LookupSource)> {
    tiers.iter().enumerate().find_map(|(index, tier)| {
        let artifact = tier.peek(key)?;
        Some((artifact, LookupSource::Tier(index)))
    })
}

/// One search, as a flight runs it.
pub(super) struct Search {
    pub(super) key: PipelineFingerprint,
    pub(super) selection: TierSelection,
    pub(super) policy: LookupPolicy,
    /// For all tiers together.
    pub(super) deadline: Duration,
    pub(super) tiers: Arc<[Tier]>,
    pub(super) background: Arc<Background>,
    pub(super) counters: Arc<Counters>,
    pub(super) admission: Arc<Admission>,
    pub(super) priority: LookupPriority,
    pub(super) state: Arc<SearchState>,
}

impl Search {
    pub(super) async fn run(self) -> Lookup {
        // An earlier search may have ended since the caller looked. Its promotion began before it
        // left the table: it is either still on its way, or in the tiers that are asked below.
        if let Some(found) = self.background.peek(&self.key) {
            return Lookup {
                found: Some(found),
                asked: None,
                tiers: self.tiers.len(),
            };
        }
        let generation = self.background.generation(&self.key);
        let start = Instant::now();
        let hit = timeout(self.deadline, async {
            let _pass = self.admission.enter(self.priority, &self.state.boost).await;
            self.ask_all().await
        })
        .await;
        self.counters.latency.record(start.elapsed());
        let unanswered = match hit {
            Ok(_) => TierOutcome::Cancelled,
            Err(_) => TierOutcome::TimedOut,
        };
        self.state.progress.settle(&unanswered);
        let found = hit.ok().flatten().map(|(tier, artifact)| {
            self.promote(generation, tier, &artifact);
            (artifact, LookupSource::Tier(tier))
        });
        Lookup {
            found,
            asked: Some(self.state.progress.reports(&unanswered)),
            tiers: self.tiers.len(),
        }
    }

    async fn ask_all(&self) -> Option<(usize, Artifact)> {
        let mut waves = self.waves().into_iter();
        let mut asked = FuturesUnordered::new();
        while let Some(wave) = waves.next() {
            asked.extend(wave.into_iter().map(|tier| self.ask(tier)));
            let head_start = self.head_start();
            tokio::pin!(head_start);
            loop {
                tokio::select! {
                    biased;
                    answer = asked.next() => match answer {
                        Some((tier, Some(artifact))) => return Some((tier, artifact)),
                        Some((_, None)) => {}
                        // No tier of the wave has it: the next need not wait.
                        None => break,
                    },
                    () = &mut head_start, if waves.len() > 0 => break,
                }
            }
        }
        None
    }

    /// The tiers that may be asked, in the waves in which they are.
    fn waves(&self) -> Vec<Vec<usize>> {
        let allowed =
            (0..self.tiers.len()).filter(|&tier| self.selection.allows(self.tiers[tier].locality));
        match self.policy {
            LookupPolicy::Concurrent
            | LookupPolicy::Hedged {
                delay: Duration::ZERO,
            } => vec![allowed.collect()],
            LookupPolicy::Sequential => allowed.map(|tier| vec![tier]).collect(),
            LookupPolicy::Hedged { .. } => {
                let (local, network): (Vec<_>, Vec<_>) =
                    allowed.partition(|&tier| self.tiers[tier].locality == Locality::Local);
                vec![local, network]
            }
        }
    }

    /// How long a wave has for itself.
    async fn head_start(&self) {
        match self.policy {
            LookupPolicy::Hedged { delay } => sleep(delay).await,
            LookupPolicy::Concurrent | LookupPolicy::Sequential => std::future::pending().await,
        }
    }

    async fn ask(&self, index: usize) -> (usize, Option<Artifact>) {
        let tier = &self.tiers[index];
        self.state.progress.asked(index);
        let (outcome, artifact) = match tier.fetch(&self.key).await {
            Ok(Fetched::Hit(artifact)) => (TierOutcome::Hit, Some(artifact)),
            Ok(Fetched::Miss) => (TierOutcome::Miss, None),
            Ok(Fetched::Refused) => (TierOutcome::Refused, None),
            Ok(Fetched::Corrupt(reason)) => {
                tracing::warn!(key = %self.key, tier = tier.name(), %reason, "corrupt entry");
                (TierOutcome::Corrupt(reason), None)
            }
            Err(error) => {
                // A tier says once that it is left alone, or that its credentials are refused.
                let kind = error.kind();
                if matches!(
                    kind,
                    StoreErrorKind::CircuitOpen | StoreErrorKind::PermissionDenied
                ) {
                    tracing::debug!(key = %self.key, %error, "tier refuses");
                } else {
                    tracing::warn!(key = %self.key, %error, "tier failed");
                }
                let outcome = match kind {
                    StoreErrorKind::CircuitOpen => TierOutcome::BreakerOpen,
                    _ => TierOutcome::Failed(error),
                };
                (outcome, None)
            }
        };
        self.state.progress.answered(index, outcome);
        (index, artifact)
    }

    /// Sends a hit to the faster tiers that take it. Before the flight lands, so that a lookup
    /// which comes right after finds the promotion.
    fn promote(&self, generation: Generation, source: usize, artifact: &Artifact) {
        let progress = &self.state.progress;
        promote(
            &self.background,
            &self.tiers,
            &self.key,
            artifact,
            generation,
            source,
            |tier| progress.lacks(tier),
        );
    }
}

impl Drop for Search {
    /// Counts what the tiers that were asked did, also in a search that nobody waited for to the end.
    fn drop(&mut self) {
        let reports = self.state.progress.of_asked(&TierOutcome::Cancelled);
        for (tier, report) in self.tiers.iter().zip(reports) {
            if let Some(report) = report {
                tier.counters.count(&report);
            }
        }
    }
}

/// Sends what was found in one tier to the faster ones that take it.
pub(super) fn promote(
    background: &Arc<Background>,
    tiers: &[Tier],
    key: &PipelineFingerprint,
    artifact: &Artifact,
    generation: Generation,
    source: usize,
    lacks: impl Fn(usize) -> bool,
) {
    if !tiers[source].is_trusted_source() {
        return;
    }
    let targets: Vec<_> = (0..source)
        .filter(|&tier| tiers[tier].takes(artifact))
        .map(|tier| (tier, lacks(tier)))
        .collect();
    if !targets.is_empty() {
        let route = Route {
            cause: Cause::Promotion(source),
            generation: Some(generation),
            targets,
            leads: Vec::new(),
        };
        background.start(key, artifact, route);
    }
}
