//! What is written in the background: promotions, writes behind, and what was compiled.
//!
//! All three use one queue.

use futures::future::join_all;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::intents::Intents;
use super::lease::TierLease;
use super::lookup::{Found, LookupSource, Promotion};
use super::report::{LayeredPromotionReport, WriteBehindReport};
use super::tier::Tier;
use super::unwritten::{Kept, Unwritten, passes};
use super::write_events::{Cause, Event, Reports, WriteEnd};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, Locality, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::lock::lock;
use crate::sync::write_queue::{
    Block, Generation, Submission, Submitted, WriteJob, WriteKind, WriteLimits, WriteQueue,
};

/// The background writes of a layered store.
#[derive(Debug)]
pub(super) struct BackgroundWrites {
    /// For the writes, which must not keep it alive.
    me: Weak<Self>,
    tiers: Arc<[Tier]>,
    queue: Arc<WriteQueue<TierWrite>>,
    write_timeout: Duration,
    retry_interval: Duration,
    reports: Arc<Mutex<Reports>>,
    unwritten: Unwritten,
    pub(super) intents: Arc<Intents>,
}

/// What a tier did with an artifact of an intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offered {
    /// It has it.
    Taken,
    Failed,
    /// Its circuit breaker is open.
    NotSent,
    /// It never takes this one.
    Never,
}

/// Whether a tier is known to lack the artifact, or has to be asked before it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Missing,
    Unknown,
    /// It has an entry that its settings refuse, and that may be another reader's: it is kept.
    Refused,
}

impl BackgroundWrites {
    pub(super) fn new(
        tiers: Arc<[Tier]>,
        limits: WriteLimits,
        write_timeout: Duration,
        retry_interval: Duration,
        max_refusals: u32,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            queue: Arc::new(WriteQueue::new(tiers.len(), limits)),
            write_timeout,
            // Never so short that offers would follow one another without a pause.
            retry_interval: retry_interval.max(Duration::from_millis(1)),
            reports: Arc::default(),
            unwritten: Unwritten::new(limits, max_refusals),
            intents: Intents::new(&tiers, write_timeout),
            tiers,
        })
    }

    pub(super) fn promotion_report(&self) -> LayeredPromotionReport {
        lock(&self.reports).promotions
    }

    pub(super) fn behind_report(&self) -> WriteBehindReport {
        WriteBehindReport {
            waiting: self.unwritten.len(),
            intents_kept: self.intents.counters.kept.get(),
            intents_taken: self.intents.counters.taken.get(),
            intents_dropped: self.intents.counters.dropped.get(),
            intents_failed: self.intents.counters.failed.get(),
            ..lock(&self.reports).behind
        }
    }

    /// Why some write behind is not done: the first that was lost since the last call, or the oldest
    /// that is still kept.
    pub(super) fn take_behind_error(&self) -> Option<StoreError> {
        let lost = lock(&self.reports).take_behind_error();
        lost.or_else(|| self.unwritten.error())
    }

    /// How many writes behind are kept to be offered again.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten.len()
    }

    /// How many writes a tier has taken in the background.
    pub(super) fn number_taken(&self, tier: usize) -> u64 {
        self.unwritten.number_taken(tier)
    }

    /// How many puts have lost writes behind since the last call, for a flush to return.
    pub(super) fn take_behind_lost(&self) -> u64 {
        lock(&self.reports).take_behind_lost()
    }

    /// The artifact, if it is on its way to a tier, and its signer was not revoked meanwhile.
    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<Found> {
        let (artifact, source) = self.queue.peek(key)?;
        self.may_serve(&artifact, source)
            .then_some((artifact, source))
    }

    /// Whether whoever gave the artifact would serve it now as well. It may have been found a while ago,
    /// and its signer was revoked since.
    pub(super) fn may_serve(&self, artifact: &Artifact, source: LookupSource) -> bool {
        match source {
            LookupSource::Tier(tier) | LookupSource::Promotion(tier) => {
                self.tiers[tier].accepts_maker(artifact)
            }
            // It was put to this store, or compiled by it.
            LookupSource::WriteBehind => {
                let mut tiers = self.tiers.iter();
                tiers.any(|tier| tier.accepts_maker(artifact))
            }
        }
    }

    /// The generation of a key. Take it before you look for the artifact.
    pub(super) fn generation(&self, key: &PipelineFingerprint) -> Generation {
        self.queue.generation(key)
    }

    /// Sends what was found in the tier `source` to the faster tiers that take it.
    pub(super) fn promote(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        source: usize,
        generation: Generation,
        promotion: Promotion,
        presence: impl Fn(usize) -> Presence,
    ) {
        if !self.tiers[source].is_trusted_source() {
            return;
        }
        let mut targets: Vec<_> = (0..source)
            .filter(|&tier| self.tiers[tier].takes(artifact))
            .filter(|&tier| self.tiers[tier].accepts_maker(artifact))
            .filter(|&tier| presence(tier) != Presence::Refused)
            .collect();
        if promotion == Promotion::ToLastLocal {
            targets.retain(|&tier| self.tiers[tier].locality == Locality::Local);
            targets.drain(..targets.len().saturating_sub(1));
        }
        if targets.is_empty() {
            return;
        }
        let targets = targets.into_iter().map(|tier| (tier, Vec::new())).collect();
        let submission = Submission {
            key,
            artifact,
            kind: WriteKind::BestEffort,
            tag: LookupSource::Promotion(source),
            generation: Some(generation),
            targets,
        };
        let submitted = self.submit(submission, Cause::Hit(source), presence);
        if submitted == Submitted::Refused {
            tracing::debug!(%key, "promotion dropped: the background queue did not take it");
        }
        let report = &mut lock(&self.reports).promotions;
        let count = match submitted {
            // Counted by its event.
            Submitted::Queued => return,
            Submitted::Joined => &mut report.coalesced,
            Submitted::Refused => &mut report.dropped,
        };
        *count += 1;
        report.events += 1;
    }

    /// Leaves a write to these tiers to the background; whether the caller may rely on it.
    ///
    /// A lease is held until the artifact is where others look for it: in the tier that granted the
    /// lease, or, for a local one, in all local tiers. Other processes on this machine need not wait
    /// for a network. The lease of a network tier that does not take the artifact is held until all
    /// other network tiers have it. A write that hangs holds a lease no longer than its timeout.
    pub(super) fn write_behind(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        tiers: &[usize],
        leases: &[TierLease],
    ) -> bool {
        let is_local = |tier: usize| self.tiers[tier].locality == Locality::Local;
        let holds = |tier: usize| {
            let held = leases.iter().filter(|held| match is_local(held.tier) {
                true => is_local(tier),
                false if tiers.contains(&held.tier) => held.tier == tier,
                false => !is_local(tier),
            });
            held.map(|held| held.lease.clone()).collect()
        };
        let submission = Submission {
            key,
            artifact,
            kind: WriteKind::Required,
            tag: LookupSource::WriteBehind,
            generation: None,
            targets: tiers.iter().map(|&tier| (tier, holds(tier))).collect(),
        };
        // The task that offers may have gone down with its runtime.
        self.start_offering();
        // Before the writes, which may end at once.
        tiers.iter().for_each(|&tier| self.intents.owe(key, tier));
        let submitted = self.submit(submission, Cause::Put, |_| Presence::Missing);
        let behind = &mut lock(&self.reports).behind;
        match submitted {
            Submitted::Queued => {}
            Submitted::Joined => behind.coalesced += 1,
            Submitted::Refused => behind.awaited += 1,
        }
        submitted != Submitted::Refused
    }

    fn submit(
        &self,
        submission: Submission<'_, TierWrite>,
        cause: Cause,
        presence: impl Fn(usize) -> Presence,
    ) -> Submitted {
        let mut event = None;
        let key = *submission.key;
        self.queue.submit(submission, |tier| {
            let event = event.get_or_insert_with(|| Event::begin(&self.reports, cause));
            self.job(key, tier, presence(tier), event)
        })
    }

    fn job(
        &self,
        key: PipelineFingerprint,
        tier: usize,
        presence: Presence,
        event: &Arc<Event>,
    ) -> TierWrite {
        TierWrite {
            background: Weak::clone(&self.me),
            tiers: Arc::clone(&self.tiers),
            tier,
            presence,
            write_timeout: self.write_timeout,
            event: Arc::clone(event),
            end: WriteEnd::Lost,
            told: None,
            key,
        }
    }

    /// Waits until every write of a key that was started before the call has ended.
    pub(super) async fn drain_key(&self, key: &PipelineFingerprint) {
        self.queue.drain_key(key).await;
    }

    /// Waits until every write that was started before the call has ended.
    pub(super) async fn drain(&self) {
        self.queue.drain().await;
    }

    /// A write failed whose caller was not told. It is kept, or the next flush tells of it.
    /// `generation` is that of the key before the write.
    pub(super) fn not_written(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        tier: usize,
        error: StoreError,
        generation: Generation,
    ) {
        if !passes(error.kind()) {
            self.intents.settle(key, tier);
            lock(&self.reports).remember(Some(error));
            return;
        }
        // What was removed meanwhile displaces no other.
        if !self.queue.is_current(key, generation) {
            self.intents.settle(key, tier);
            return;
        }
        self.keep(Kept::new(key, artifact, tier, error));
        // Once more: from the keeping on, a removal forgets it.
        if !self.queue.is_current(key, generation) {
            self.unwritten.forget(key, tier);
            self.intents.settle(key, tier);
        }
    }

    /// Keeps an artifact that a tier could not take, to be offered again.
    fn keep(&self, kept: Kept) {
        let given_up = self.unwritten.keep(kept);
        if let Some(first) = given_up.first() {
            let error = first.error.clone();
            let lost = given_up.iter().filter(|kept| self.is_lost(kept)).count();
            tracing::debug!(
                key = %first.key, tier = self.tiers[first.tier].name(), given_up = given_up.len(), lost,
                "background write given up: refused too often, or too many wait for their tiers"
            );
            lock(&self.reports).abandon(lost as u64, error);
        }
        self.start_offering();
    }

    /// Whether nobody offers again what is no longer kept in memory.
    fn is_lost(&self, kept: &Kept) -> bool {
        if self.unwritten.is_refused(kept) {
            self.intents.settle(&kept.key, kept.tier);
            return true;
        }
        !self.intents.overflow(&kept.key, kept.tier)
    }

    /// Starts the task that offers what is kept, where there is something and no such task: also
    /// where the last one is gone with its runtime.
    fn start_offering(&self) {
        if let Ok(runtime) = Handle::try_current() {
            if self.unwritten.start_offering() {
                runtime.spawn(Offers(Weak::clone(&self.me)).run(self.retry_interval));
            }
        }
    }

    /// Offers each tier what it could not take. No tier waits for another.
    pub(super) async fn offer_again(&self) {
        join_all((0..self.tiers.len()).map(|tier| self.offer_to(tier))).await;
    }

    /// Offers one artifact, and all others once the tier took that.
    async fn offer_to(&self, tier: usize) {
        let kept = self.unwritten.of(tier);
        let Some((first, others)) = kept.split_first() else {
            return;
        };
        self.offer(first);
        self.queue.drain_target(tier).await;
        if !self.unwritten.contains(&first.key, tier) {
            others.iter().for_each(|kept| self.offer(kept));
            self.queue.drain_target(tier).await;
        }
    }

    fn offer(&self, kept: &Kept) {
        let generation = self.queue.generation(&kept.key);
        // It may have been removed, or written, while others were offered.
        if !self.unwritten.contains(&kept.key, kept.tier) {
            return;
        }
        let submission = Submission {
            key: &kept.key,
            artifact: &kept.artifact,
            kind: WriteKind::Required,
            tag: LookupSource::WriteBehind,
            generation: Some(generation),
            targets: vec![(kept.tier, Vec::new())],
        };
        // Where it is refused, it is kept.
        self.submit(submission, Cause::Offer, |_| Presence::Missing);
    }

    /// Offers a tier an artifact that an earlier process owed it. `generation` is that of the key before
    /// the artifact was looked for. `None` where it was not offered.
    pub(super) async fn offer_intent(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        tier: usize,
        generation: Generation,
    ) -> Option<Offered> {
        let (told, outcome) = oneshot::channel();
        let submission = Submission {
            key,
            artifact,
            kind: WriteKind::Required,
            tag: LookupSource::WriteBehind,
            generation: Some(generation),
            targets: vec![(tier, Vec::new())],
        };
        let mut told = Some(told);
        let event = Event::begin(&self.reports, Cause::Intent);
        self.queue.submit(submission, |tier| {
            let mut job = self.job(*key, tier, Presence::Missing, &event);
            job.told = told.take();
            job
        });
        // Where no job was made of it.
        drop(told);
        outcome.await.ok()
    }

    /// Ends the writes of a key, and keeps others from starting while the block is held.
    pub(super) async fn block(&self, key: &PipelineFingerprint) -> Block<TierWrite> {
        let block = self.queue.block(key).await;
        self.unwritten.forget_key(key);
        self.intents.forget_key(key);
        block
    }

    /// Takes no more writes.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Gives up the writes under way; how many those were.
    pub(super) fn abort(&self) -> u64 {
        self.queue.abort()
    }
}

/// The task that offers again what tiers could not take, until they have it all.
struct Offers(Weak<BackgroundWrites>);

impl Offers {
    async fn run(mut self, interval: Duration) {
        loop {
            sleep(interval).await;
            // Not held while nothing happens: dropping the cache ends the task.
            let Some(background) = self.0.upgrade() else {
                return;
            };
            background.offer_again().await;
            if background.unwritten.stop_if_empty() {
                // Another may have started since: it is not for this one to stop that.
                self.0 = Weak::new();
                return;
            }
        }
    }
}

impl Drop for Offers {
    /// It ends early, as with its runtime: another may take over.
    fn drop(&mut self) {
        if let Some(background) = self.0.upgrade() {
            background.unwritten.stop_offering();
        }
    }
}

/// One write to one tier.
#[derive(Debug)]
pub(super) struct TierWrite {
    background: Weak<BackgroundWrites>,
    tiers: Arc<[Tier]>,
    tier: usize,
    presence: Presence,
    write_timeout: Duration,
    event: Arc<Event>,
    end: WriteEnd,
    /// Whoever offers an intent is told how that ends.
    told: Option<oneshot::Sender<Offered>>,
    key: PipelineFingerprint,
}

impl WriteJob for TierWrite {
    type Tag = LookupSource;
    type Hold = CompileLease;

    async fn attempt(&mut self, key: &PipelineFingerprint, artifact: &Artifact) -> bool {
        let (tier, cause) = (&self.tiers[self.tier], self.event.cause);
        let write = write(tier, self.presence, key, artifact);
        let written = timeout(self.write_timeout, write)
            .await
            .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Put)));
        // Another try writes, whatever the tier says it has.
        self.presence = Presence::Missing;
        self.end = match written {
            Ok(true) => {
                let (tier, bytes) = (tier.name(), artifact.len() as u64);
                tracing::debug!(%key, %cause, tier, bytes, "background write done");
                WriteEnd::Written(bytes)
            }
            Ok(false) => WriteEnd::WasThere,
            // It is the tier's to say which entry it keeps, and it has.
            Err(error) if error.kind() == StoreErrorKind::Foreign => {
                tracing::debug!(%key, %cause, error = %format_args!("{error:#}"), "background write refused");
                WriteEnd::WasThere
            }
            Err(error) => {
                // The tier has logged its failure where it began.
                tracing::debug!(%key, %cause, error = %format_args!("{error:#}"), "background write failed");
                WriteEnd::Failed(error)
            }
        };
        self.keep_or_forget(key, artifact);
        matches!(self.end, WriteEnd::Written(_) | WriteEnd::WasThere)
    }

    fn begins_quickly(&self) -> bool {
        self.tiers[self.tier].locality == Locality::Local
    }

    fn give_up(&mut self) {
        self.end = WriteEnd::GivenUp;
    }
}

impl TierWrite {
    fn keep_or_forget(&mut self, key: &PipelineFingerprint, artifact: &Artifact) {
        let Some(background) = self.background.upgrade() else {
            return;
        };
        match &self.end {
            // A put may have left the same write to be offered again.
            WriteEnd::Failed(_) if !self.event.cause.is_kept() => {}
            WriteEnd::Failed(error) if passes(error.kind()) => {
                background.keep(Kept::new(key, artifact, self.tier, error.clone()));
                self.end = WriteEnd::Kept;
                return;
            }
            WriteEnd::Written(_) => background.unwritten.taken(key, self.tier),
            _ => background.unwritten.forget(key, self.tier),
        }
        self.settle_intent(&background.intents, key);
    }

    /// The write went down with its runtime. The artifact may be in the tier that keeps intents.
    fn owe_to_restart(&self) {
        if let Some(background) = self.background.upgrade() {
            background.intents.overflow(&self.key, self.tier);
        }
    }

    fn settle_intent(&mut self, intents: &Intents, key: &PipelineFingerprint) {
        let is_intent = self.event.cause == Cause::Intent;
        let offered = match &self.end {
            WriteEnd::Written(_) | WriteEnd::WasThere if is_intent => {
                intents.settle_recorded(key, self.tier);
                Offered::Taken
            }
            WriteEnd::Failed(error) if is_intent => match error.kind() {
                StoreErrorKind::TooLarge | StoreErrorKind::InvalidArtifact => Offered::Never,
                kind => {
                    // A put that joined this write has nobody else to offer it again.
                    if intents.is_owed(key, self.tier) {
                        intents.overflow(key, self.tier);
                    }
                    match kind {
                        StoreErrorKind::BreakerOpen => Offered::NotSent,
                        _ => Offered::Failed,
                    }
                }
            },
            // A promotion that fails says nothing of a put.
            WriteEnd::Failed(_) if !self.event.cause.is_kept() => return,
            _ => return intents.settle(key, self.tier),
        };
        if let Some(told) = self.told.take() {
            let _ = told.send(offered);
        }
    }
}

/// Writes to a tier, unless it turns out to have the artifact; whether it was written.
async fn write(
    tier: &Tier,
    presence: Presence,
    key: &PipelineFingerprint,
    artifact: &Artifact,
) -> Result<bool, StoreError> {
    if presence == Presence::Unknown && tier.contains(key).await? {
        return Ok(false);
    }
    tier.put(key, artifact.clone()).await.map(|()| true)
}

impl Drop for TierWrite {
    fn drop(&mut self) {
        let end = std::mem::replace(&mut self.end, WriteEnd::Lost);
        if matches!(end, WriteEnd::Lost) && self.event.cause.is_kept() {
            self.owe_to_restart();
        }
        self.event.add(end);
    }
}
