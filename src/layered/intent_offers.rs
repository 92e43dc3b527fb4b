//! What earlier processes left for network tiers, offered in the background.
//!
//! A local tier keeps the intents, see [`super::intents`], and has the artifacts. While a tier takes
//! nothing it is offered a few of them now and then; once it takes one, all others follow. What this
//! process has in memory is offered from there, see [`super::unwritten`].

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::background::{BackgroundWrites, Offered};
use super::intents::Intents;
use super::tier::Tier;
use crate::key::PipelineFingerprint;
use crate::store::{Fetched, IntentClaim, IntentList, Locality, StoreError};

/// How often intents are looked for while none is known: those of a process that died.
const IDLE: Duration = Duration::from_secs(30);

/// After so many failures in a row the tier is taken to be in trouble, and the rest waits.
const MAX_FAILURES: usize = 3;

/// How long another process may hold the claim before this one offers too. It may be stopped.
const MAX_CLAIM: Duration = Duration::from_secs(60);

/// The pause between two passes grows so often to twice its length while nothing is taken.
const MAX_DOUBLINGS: u32 = 2;

/// Offers intents while it is not dropped.
#[derive(Debug)]
pub(super) struct IntentOffers {
    work: Arc<Work>,
    is_running: Arc<AtomicBool>,
    end: CancellationToken,
    _end: DropGuard,
}

#[derive(Debug)]
struct Work {
    tiers: Arc<[Tier]>,
    background: Arc<BackgroundWrites>,
    intents: Arc<Intents>,
    interval: Duration,
    timeout: Duration,
    /// Writes to each tier at a time.
    concurrency: usize,
    max_refusals: u32,
}

/// What one tier has done so far.
#[derive(Debug, Default)]
struct Course {
    /// Since when another process has the claim.
    claimed_since: Option<Instant>,
    /// What it was offered and has not taken.
    failed: HashMap<PipelineFingerprint, Failures>,
    /// Passes since the last in which something was taken.
    fruitless: u32,
}

/// What became of the offers of one artifact.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    offers: u32,
    /// How often the tier refused it that took another since the refusal before.
    refusals: u32,
    /// How many writes the tier had taken when it did not take this one the last time.
    taken_before: u64,
}

/// What one pass over the intents of a tier has done.
#[derive(Debug, Default)]
struct Pass {
    taken: usize,
    failures_in_a_row: usize,
    /// What was offered and not taken, and whether the tier refused it.
    failed: Vec<(PipelineFingerprint, bool)>,
}

impl Course {
    /// What was not taken before comes last, so that it keeps no other from the tier. What is no
    /// longer kept is forgotten.
    async fn in_order(&mut self, keys: Vec<PipelineFingerprint>) -> Vec<PipelineFingerprint> {
        let mut first = Vec::with_capacity(keys.len());
        let mut last = Vec::new();
        for key in keys {
            // There may be thousands.
            tokio::task::coop::consume_budget().await;
            match self.failed.remove(&key) {
                Some(failures) => last.push((key, failures)),
                None => first.push(key),
            }
        }
        last.sort_by_key(|(_, failures)| failures.offers);
        first.extend(last.iter().map(|(key, _)| *key));
        self.failed = last.into_iter().collect();
        first
    }
}

impl Pass {
    fn note(&mut self, key: PipelineFingerprint, outcome: Outcome) {
        match outcome {
            Outcome::Taken => (self.taken, self.failures_in_a_row) = (self.taken + 1, 0),
            Outcome::Failed | Outcome::Busy => {
                self.failures_in_a_row += 1;
                self.failed.push((key, matches!(outcome, Outcome::Failed)));
            }
            Outcome::PassedOver => {}
        }
    }

    fn is_over(&self) -> bool {
        self.failures_in_a_row >= MAX_FAILURES
    }
}

#[derive(Debug, Clone, Copy)]
enum Outcome {
    Taken,
    Failed,
    /// It could not be offered now, and others cannot either.
    Busy,
    /// It is not for this process to offer.
    PassedOver,
}

impl IntentOffers {
    pub(super) fn new(
        tiers: &Arc<[Tier]>,
        background: &Arc<BackgroundWrites>,
        timeout: Duration,
        interval: Duration,
        concurrency: usize,
        max_refusals: u32,
    ) -> Self {
        let end = CancellationToken::new();
        Self {
            work: Arc::new(Work {
                tiers: Arc::clone(tiers),
                intents: Arc::clone(&background.intents),
                background: Arc::clone(background),
                interval: interval.max(Duration::from_millis(1)),
                timeout,
                concurrency: concurrency.max(1),
                max_refusals: max_refusals.max(1),
            }),
            is_running: Arc::default(),
            _end: end.clone().drop_guard(),
            end,
        }
    }

    /// Starts the task that offers, if there is none: also where the last one is gone with its runtime.
    pub(super) fn start(&self) {
        if self.end.is_cancelled() || !self.work.has_to_do() {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if self.is_running.swap(true, Ordering::AcqRel) {
            return;
        }
        let running = Running(Arc::clone(&self.is_running));
        let (work, end) = (Arc::clone(&self.work), self.end.clone());
        runtime.spawn(async move {
            let _running = running;
            end.run_until_cancelled(work.run()).await;
        });
    }

    /// Offers no more.
    pub(super) fn stop(&self) {
        self.end.cancel();
    }
}

/// Another task may start when it is dropped.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Work {
    fn has_to_do(&self) -> bool {
        let is_target = |tier: &Tier| tier.locality == Locality::Network;
        self.intents.keeper().is_some() && self.tiers.iter().any(is_target)
    }

    async fn run(&self) {
        let mut courses: Vec<_> = self.tiers.iter().map(|_| Course::default()).collect();
        loop {
            let passes = courses.iter_mut().enumerate();
            let passes = passes.map(|(tier, course)| self.offer_to(tier, course));
            let pauses = join_all(passes).await;
            let pause = pauses.into_iter().min().unwrap_or(IDLE);
            if pause < IDLE {
                sleep(pause).await;
            } else {
                let _ = timeout(IDLE, self.intents.left.notified()).await;
            }
        }
    }

    /// Offers a tier what is kept for it; how long to wait before the next time.
    async fn offer_to(&self, tier: usize, course: &mut Course) -> Duration {
        let target = &self.tiers[tier];
        if target.locality != Locality::Network || !target.is_writable() {
            return IDLE;
        }
        let keys = match self.list(tier).await {
            Ok(keys) if keys.is_empty() => return IDLE,
            Ok(keys) => keys,
            // The tier that keeps them has logged why.
            Err(_) => return IDLE,
        };
        let Some(_claim) = self.claim(tier, course).await else {
            return self.interval;
        };
        let keys = course.in_order(keys).await;
        let pass = self.offer_all(tier, &keys).await;
        // Before the next process lists them.
        self.intents.remove_settled().await;
        if pass.taken > 0 {
            tracing::info!(
                tier = target.name(),
                taken = pass.taken,
                left = keys.len() - pass.taken,
                "artifacts of earlier processes uploaded"
            );
        }
        self.count_failures(tier, course, &pass);
        if pass.taken == 0 && pass.failures_in_a_row == 0 {
            return IDLE;
        }
        course.fruitless = match pass.taken {
            0 => course.fruitless.saturating_add(1),
            _ => 0,
        };
        self.interval
            .saturating_mul(1 << course.fruitless.min(MAX_DOUBLINGS))
    }

    /// The keys that are kept for a tier.
    async fn list(&self, tier: usize) -> Result<Vec<PipelineFingerprint>, StoreError> {
        let Some(keeper) = self.intents.keeper() else {
            return Ok(Vec::new());
        };
        let name = self.tiers[tier].name();
        let list = keeper.intents(|intents| intents.list(name));
        let listed = timeout(self.timeout, list).await;
        let IntentList { keys, dropped } = listed.unwrap_or_else(|_| Ok(IntentList::default()))?;
        self.intents.counters.dropped.add(dropped);
        Ok(keys)
    }

    /// One process at a time offers, unless it takes very long.
    async fn claim(&self, tier: usize, course: &mut Course) -> Option<IntentClaim> {
        let name = self.tiers[tier].name();
        let claim = self
            .intents
            .keeper()?
            .intents(|intents| intents.claim(name));
        match timeout(self.timeout, claim).await {
            Ok(Ok(Some(claim))) => {
                course.claimed_since = None;
                Some(claim)
            }
            Ok(Ok(None)) => {
                let since = *course.claimed_since.get_or_insert_with(Instant::now);
                (since.elapsed() > MAX_CLAIM).then(|| IntentClaim::new(()))
            }
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Offers one after the other until one is taken, and then several at a time.
    async fn offer_all(&self, tier: usize, keys: &[PipelineFingerprint]) -> Pass {
        let mut pass = Pass::default();
        let mut keys = keys.iter();
        while pass.taken == 0 && !pass.is_over() {
            let Some(key) = keys.next() else {
                return pass;
            };
            pass.note(*key, self.offer(tier, key).await);
        }
        if pass.is_over() {
            return pass;
        }
        let keys: Vec<_> = keys.copied().collect();
        let offers =
            stream::iter(keys).map(move |key| async move { (key, self.offer(tier, &key).await) });
        let mut offers = offers.buffer_unordered(self.concurrency);
        while let Some((key, outcome)) = offers.next().await {
            pass.note(key, outcome);
            if pass.is_over() {
                break;
            }
        }
        pass
    }

    async fn offer(&self, tier: usize, key: &PipelineFingerprint) -> Outcome {
        // There may be thousands that need no wait.
        tokio::task::coop::consume_budget().await;
        let background = &self.background;
        let keeper = match self.intents.keeper() {
            // What is in memory is offered from there.
            Some(keeper) if !self.intents.is_owed(key, tier) => keeper,
            _ => return Outcome::PassedOver,
        };
        let generation = background.generation(key);
        let fetched = timeout(self.timeout, keeper.fetch(key)).await;
        let artifact = match fetched {
            Ok(Ok(Fetched::Hit(artifact))) => artifact,
            // Evicted, or damaged.
            Ok(Ok(Fetched::Miss | Fetched::Corrupt(_))) => return self.drop_intent(tier, key),
            // Another process with other settings offers it.
            Ok(Ok(Fetched::Refused)) => return Outcome::PassedOver,
            Ok(Err(_)) | Err(_) => return Outcome::Busy,
        };
        if artifact.len() as u64 > self.tiers[tier].max_artifact_bytes() {
            return match self.tiers[tier].is_writable() {
                true => self.drop_intent(tier, key),
                false => Outcome::Busy,
            };
        }
        match background
            .offer_intent(key, &artifact, tier, generation)
            .await
        {
            Some(Offered::Taken) => {
                self.intents.counters.taken.increment();
                Outcome::Taken
            }
            Some(Offered::Failed) => Outcome::Failed,
            Some(Offered::Never) => self.drop_intent(tier, key),
            Some(Offered::NotSent) | None => Outcome::Busy,
        }
    }

    fn drop_intent(&self, tier: usize, key: &PipelineFingerprint) -> Outcome {
        tracing::debug!(%key, tier = self.tiers[tier].name(), "intent dropped: the artifact is gone, or the tier never takes it");
        self.intents.counters.dropped.increment();
        self.intents.settle_recorded(key, tier);
        Outcome::PassedOver
    }

    /// An artifact that is refused again and again while others are taken is not for the tier.
    fn count_failures(&self, tier: usize, course: &mut Course, pass: &Pass) {
        let taken = self.background.number_taken(tier);
        for (key, is_refused) in &pass.failed {
            let failures = course.failed.entry(*key).or_insert(Failures {
                taken_before: taken,
                ..Failures::default()
            });
            failures.offers = failures.offers.saturating_add(1);
            if *is_refused {
                failures.refusals += u32::from(taken > failures.taken_before);
                failures.taken_before = taken;
            }
            if failures.refusals >= self.max_refusals {
                course.failed.remove(key);
                self.drop_intent(tier, key);
            }
        }
    }
}
