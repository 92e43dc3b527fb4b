//! The task of a prefetch: some workers, each with one key at a time.

use futures::FutureExt as _;
use futures::future::join_all;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::background::BackgroundWrites;
use super::lookup::{Lookup, LookupSource, TierOutcome};
use super::pace::{ByteBudget, Pace};
use super::prefetch_report::{Answer, PrefetchState, Tally};
use super::recorded_run::{RecordedKey, RecordedKind, RecordedRun};
use super::search::Search;
use super::tier::Tier;
use crate::key::PipelineFingerprint;
use crate::source_alias::{PrefetchedAlias, SourceAliases};
use crate::store::urgency;
use crate::store::{Locality, StoreErrorKind};
use crate::sync::blocking;
use crate::sync::lock::lock;
use crate::sync::single_flight::panic_message;

/// How long the first wait for an open circuit breaker takes, and the longest. Each is twice as long as
/// the last.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The bounds of a prefetch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) max_bytes: u64,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) concurrency: usize,
    pub(super) give_way: Duration,
    pub(super) max_outage: Duration,
}

#[derive(Debug)]
pub(super) struct PrefetchTask {
    tiers: Arc<[Tier]>,
    search: Arc<Search>,
    background: Arc<BackgroundWrites>,
    aliases: Arc<SourceAliases>,
    bounds: Bounds,
    budget: ByteBudget,
    pace: Pace,
    tally: Arc<Tally>,
    /// Cancelled when the network was out of service for too long.
    outage: CancellationToken,
}

impl PrefetchTask {
    pub(super) fn new(
        tiers: Arc<[Tier]>,
        search: Arc<Search>,
        background: Arc<BackgroundWrites>,
        aliases: Arc<SourceAliases>,
        bounds: Bounds,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            tiers,
            search,
            background,
            aliases,
            budget: ByteBudget::new(bounds.max_bytes),
            pace: Pace::new(bounds.bytes_per_second),
            bounds,
            tally,
            outage: CancellationToken::new(),
        }
    }

    pub(super) async fn run(self, run: RecordedRun) {
        let keys = blocking::blocking(move || run.most_valuable_first()).await;
        let keys = Mutex::new(keys.into_iter());
        let workers = join_all((0..self.bounds.concurrency).map(|_| self.work(&keys)));
        let reason = tokio::select! {
            biased;
            () = self.tally.cancelled() => PrefetchState::Cancelled,
            () = self.outage.cancelled() => PrefetchState::Outage,
            _ = workers => PrefetchState::Complete,
        };
        self.tally.end(reason);
        let report = self.tally.report();
        tracing::debug!(?report, "prefetch ended");
    }

    async fn work(&self, keys: &Mutex<vec::IntoIter<RecordedKey>>) {
        loop {
            let Some(key) = lock(keys).next() else {
                return;
            };
            let answer = self.until_sent(&key).await;
            self.tally.count(answer);
            // Local tiers may answer without a wait, a hundred thousand times.
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Asks for a key, once more after each wait for an open circuit breaker.
    async fn until_sent(&self, key: &RecordedKey) -> Answer {
        let begin = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let answer = self.answer(key).await;
            if answer != Answer::NotSent {
                return answer;
            }
            if begin.elapsed() >= self.bounds.max_outage {
                self.outage.cancel();
                // This worker ends with the others.
                std::future::pending::<()>().await;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn answer(&self, key: &RecordedKey) -> Answer {
        self.give_way().await;
        if key.kind == RecordedKind::Artifact && self.is_local(&key.key).await {
            return Answer::AlreadyThere;
        }
        let expected = key.bytes.unwrap_or(0);
        if !self.budget.take(expected) {
            return Answer::OverBudget;
        }
        self.pace.wait(expected).await;
        self.give_way().await;
        let answer = match key.kind {
            RecordedKind::Artifact => self.artifact(&key.key).await,
            RecordedKind::SourceAlias => self.alias(&key.key).await,
        };
        let bytes = match answer {
            Answer::Fetched(bytes) => bytes,
            _ => 0,
        };
        self.budget.correct(expected, bytes);
        self.pace.correct(expected, bytes);
        answer
    }

    /// Waits until no user waits for a search, or for as long as was set: a cache that is always busy
    /// fetches all the same.
    async fn give_way(&self) {
        let _ = timeout(self.bounds.give_way, self.search.no_user_waits()).await;
    }

    /// Whether a local tier says that it has the key. The last keeps the most.
    async fn is_local(&self, key: &PipelineFingerprint) -> bool {
        let is_local = |tier: &&Tier| tier.locality == Locality::Local;
        for tier in self.tiers.iter().rev().filter(is_local) {
            // What fails here fails again below, and is counted there.
            if let Ok(Ok(true)) = timeout(self.search.deadline, tier.contains(key)).await {
                return true;
            }
        }
        false
    }

    async fn artifact(&self, key: &PipelineFingerprint) -> Answer {
        let lookup = self.search.prefetch(key).await;
        let Some((artifact, source)) = &lookup.found else {
            return self.unfound(&lookup);
        };
        let source = match source {
            LookupSource::Tier(tier) if self.tiers[*tier].locality == Locality::Network => *tier,
            _ => return Answer::AlreadyThere,
        };
        let bytes = artifact.len() as u64;
        let mut above = self.tiers[..source].iter();
        let is_taken = self.tiers[source].is_trusted_source()
            && above.any(|tier| tier.locality == Locality::Local && tier.takes(artifact));
        drop(lookup);
        // One key of each worker is on its way, so that the queue stays free for others.
        self.background.drain_key(key).await;
        match is_taken {
            false => Answer::Refused,
            true if self.is_local(key).await => Answer::Fetched(bytes),
            true => Answer::Failed,
        }
    }

    fn unfound(&self, lookup: &Lookup) -> Answer {
        let outcomes = || lookup.tiers().map(|tier| tier.outcome);
        let answered = self.tiers.iter().zip(outcomes()).any(|(tier, outcome)| {
            tier.locality == Locality::Network
                && matches!(outcome, TierOutcome::Miss | TierOutcome::Refused)
        });
        let is_open = outcomes().any(|outcome| matches!(outcome, TierOutcome::BreakerOpen));
        match () {
            () if is_open && !answered => Answer::NotSent,
            () if outcomes().any(|outcome| outcome.is_failure()) => Answer::Failed,
            () if outcomes().any(|outcome| matches!(outcome, TierOutcome::Refused)) => {
                Answer::Refused
            }
            () => Answer::Missing,
        }
    }

    async fn alias(&self, key: &PipelineFingerprint) -> Answer {
        let nobody_waits = CancellationToken::new();
        let call = urgency::in_background(nobody_waits, self.aliases.prefetch(key));
        let call = AssertUnwindSafe(timeout(self.search.deadline, call)).catch_unwind();
        match call.await {
            Ok(Ok(Ok(alias))) => match alias {
                PrefetchedAlias::Fetched(bytes) => Answer::Fetched(bytes),
                PrefetchedAlias::AlreadyThere => Answer::AlreadyThere,
                PrefetchedAlias::Missing => Answer::Missing,
                PrefetchedAlias::Refused => Answer::Refused,
                PrefetchedAlias::Damaged => Answer::Failed,
            },
            Ok(Ok(Err(error))) if error.kind() == StoreErrorKind::BreakerOpen => Answer::NotSent,
            Ok(Ok(Err(error))) => {
                // The store has logged its failure where it began.
                tracing::debug!(%key, error = %format_args!("{error:#}"), "source alias not prefetched");
                Answer::Failed
            }
            Ok(Err(_late)) => Answer::Failed,
            Err(panic) => {
                let message = panic_message(&*panic);
                tracing::error!(%key, %message, "the store of source aliases panicked; the alias is not prefetched");
                Answer::Failed
            }
        }
    }
}
