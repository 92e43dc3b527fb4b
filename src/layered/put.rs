//! Writes: which tiers an artifact is put to, removed from and flushed in.

use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

use super::background::{BackgroundWrites, TierWrite};
use super::builder::WritePolicy;
use super::intent_offers::IntentOffers;
use super::intents::Intents;
use super::lease::TierLease;
use super::lookup::TierSelection;
use super::metrics::WriteCounters;
use super::report::CloseReport;
use super::search::Search;
use super::tier::{Tier, stack_name};
use crate::artifact::Artifact;
#[cfg(feature = "signatures")]
use crate::artifact::SigningKey;
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::runtime::require_runtime;
use crate::store::{CompileLease, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::write_queue::Block;

/// How a cache writes.
#[derive(Debug)]
pub(super) struct Writer {
    tiers: Arc<[Tier]>,
    policy: WritePolicy,
    /// For each write to a tier.
    timeout: Duration,
    background: Arc<BackgroundWrites>,
    offers: IntentOffers,
    search: Arc<Search>,
    /// Leases of each tier that a layered store above this one holds.
    held_leases: Box<[HeldLeases]>,
    #[cfg(feature = "signatures")]
    signing_key: Option<SigningKey>,
    pub(super) counters: WriteCounters,
}

impl Writer {
    pub(super) fn new(
        tiers: Arc<[Tier]>,
        background: Arc<BackgroundWrites>,
        offers: IntentOffers,
        search: Arc<Search>,
        policy: WritePolicy,
        timeout: Duration,
    ) -> Self {
        Self {
            held_leases: tiers.iter().map(|_| HeldLeases::default()).collect(),
            tiers,
            policy,
            timeout,
            background,
            offers,
            search,
            #[cfg(feature = "signatures")]
            signing_key: None,
            counters: WriteCounters::default(),
        }
    }

    #[cfg(feature = "signatures")]
    pub(super) fn signing_with(self, signing_key: Option<SigningKey>) -> Self {
        Self {
            signing_key,
            ..self
        }
    }

    /// The artifact with a signature of this cache, unless it has one.
    pub(super) fn signed(&self, key: &PipelineFingerprint, artifact: &Artifact) -> Artifact {
        #[cfg(feature = "signatures")]
        if let (Some(signing_key), None) = (&self.signing_key, artifact.signature()) {
            return artifact.signed(key, signing_key);
        }
        let _ = key;
        artifact.clone()
    }

    /// An error outside of a tokio runtime.
    pub(super) fn require_runtime(&self, operation: StoreOperation) -> Result<(), StoreError> {
        require_runtime(|| stack_name(&self.tiers), operation)
    }

    /// Writes to the tiers that the policy names.
    ///
    /// The first error, in the order of the tiers, of those that this waited for.
    pub(super) async fn put(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<(), StoreError> {
        self.require_runtime(StoreOperation::Put)?;
        if let Some(recorder) = &self.search.recorder {
            recorder.put(key, artifact);
        }
        let takers = self.takers(artifact);
        let Some((&first, others)) = takers.split_first() else {
            let error = self.no_taker(artifact);
            self.end_put(key, std::slice::from_ref(&error));
            return Err(error);
        };
        let failed = match self.policy {
            WritePolicy::First => self.write(&[first], key, artifact).await,
            WritePolicy::Through => self.write(&takers, key, artifact).await,
            WritePolicy::Behind => {
                let mut failed = self.write(&[first], key, artifact).await;
                let leases = self.held_leases(key);
                failed.extend(self.write_behind(others, key, artifact, leases).await);
                // The caller is told of them.
                let intents = &self.background.intents;
                failed
                    .iter()
                    .for_each(|(tier, _)| intents.settle(key, *tier));
                failed
            }
        };
        let errors: Vec<_> = failed.into_iter().map(|(_, error)| error).collect();
        self.end_put(key, &errors);
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// Passes the lease of a tier on to a layered store above this one.
    pub(super) fn pass_on(&self, key: PipelineFingerprint, granted: TierLease) -> CompileLease {
        self.held_leases[granted.tier].give(key, granted.lease)
    }

    /// The leases of a key that a layered store above this one holds.
    fn held_leases(&self, key: &PipelineFingerprint) -> Vec<TierLease> {
        let held = self.held_leases.iter().enumerate();
        held.filter_map(|(tier, held)| held.of(key).map(|lease| TierLease { tier, lease }))
            .collect()
    }

    /// Writes what was compiled to every one of these tiers that takes it, in the background. Until
    /// it is in the local tiers it is served from there, and the leases are held as
    /// [`BackgroundWrites::write_behind`] says.
    ///
    /// Where the background takes no more, this waits for the writes, so that what waits is bounded.
    pub(super) async fn put_compiled(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        leases: Vec<TierLease>,
        tiers: TierSelection,
    ) {
        let artifact = &self.signed(key, artifact);
        let generation = self.background.generation(key);
        let mut takers = self.takers(artifact);
        if takers.is_empty() {
            self.end_put(key, &[self.no_taker(artifact)]);
            return;
        }
        takers.retain(|&tier| tiers.allows(self.tiers[tier].locality));
        if takers.is_empty() {
            // Others would take it, and its requests did not want them to.
            self.search.detach(key);
            return;
        }
        let failed = self.write_behind(&takers, key, artifact, leases).await;
        let errors: Vec<_> = failed.iter().map(|(_, error)| error.clone()).collect();
        self.end_put(key, &errors);
        for (tier, error) in failed {
            // The tier has logged its failure where it began.
            tracing::debug!(%key, error = %format_args!("{error:#}"), "compiled artifact not stored");
            // Nobody else is told.
            let background = &self.background;
            background.not_written(key, artifact, tier, error, generation);
        }
    }

    fn end_put(&self, key: &PipelineFingerprint, errors: &[StoreError]) {
        self.search.detach(key);
        match errors.is_empty() {
            true => self.counters.puts.increment(),
            false => self.counters.put_errors.increment(),
        }
    }

    fn takers(&self, artifact: &Artifact) -> Vec<usize> {
        let tiers = 0..self.tiers.len();
        tiers
            .filter(|&tier| self.tiers[tier].takes(artifact))
            .collect()
    }

    fn no_taker(&self, artifact: &Artifact) -> StoreError {
        let kind = match self.tiers.iter().any(Tier::is_writable) {
            true => StoreErrorKind::TooLarge,
            false => StoreErrorKind::ReadOnly,
        };
        tracing::debug!(
            bytes = artifact.len(),
            ?kind,
            "artifact not stored: every tier is read-only or its size limit is smaller"
        );
        StoreError::new(kind, stack_name(&self.tiers), StoreOperation::Put)
    }

    /// Writes to these tiers at once, each under its timeout. Those that failed, in the order of the
    /// tiers.
    async fn write(
        &self,
        tiers: &[usize],
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Vec<(usize, StoreError)> {
        let writes = tiers.iter().map(|&tier| async move {
            let store = &self.tiers[tier];
            let written = timeout(self.timeout, store.put(key, artifact.clone())).await;
            let written = written.unwrap_or_else(|_| Err(store.timed_out(StoreOperation::Put)));
            written.err().map(|error| (tier, error))
        });
        join_all(writes).await.into_iter().flatten().collect()
    }

    /// Leaves these tiers to the background, or waits for them where that takes no more.
    async fn write_behind(
        &self,
        tiers: &[usize],
        key: &PipelineFingerprint,
        artifact: &Artifact,
        leases: Vec<TierLease>,
    ) -> Vec<(usize, StoreError)> {
        self.offers.start();
        if tiers.is_empty() || self.background.write_behind(key, artifact, tiers, &leases) {
            return Vec::new();
        }
        let intents = &self.background.intents;
        let mut unfinished = Unfinished {
            intents,
            key,
            tiers,
        };
        let failed = self.write(tiers, key, artifact).await;
        unfinished.tiers = &[];
        drop(leases);
        for tier in tiers {
            if failed.iter().all(|(failed, _)| failed != tier) {
                intents.settle(key, *tier);
            }
        }
        failed
    }

    /// Ends the background writes of a key, and keeps others from starting while the block is held.
    pub(super) async fn block(&self, key: &PipelineFingerprint) -> Block<TierWrite> {
        self.background.block(key).await
    }

    /// Removes the key from every tier; whether one had it. The caller holds a block of the key.
    pub(super) async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let removals = self.tiers.iter().map(|tier| async move {
            timeout(self.timeout, remove_from(tier, key))
                .await
                .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Remove)))
        });
        let results = join_all(removals).await;
        // A later lookup must not join a search that found the artifact before it was removed.
        self.search.detach(key);
        let mut removed = false;
        for result in results {
            removed |= result?;
        }
        if removed {
            self.counters.removes.increment();
        }
        Ok(removed)
    }

    /// Starts to offer what earlier processes left, on the runtime of the caller.
    pub(super) fn start_offers(&self) {
        self.offers.start();
    }

    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.require_runtime(StoreOperation::Flush)?;
        self.background.drain().await;
        self.background.offer_again().await;
        self.offers.start();
        // Before the tier that keeps them is flushed.
        self.background.intents.record_all().await;
        let flushed = join_all(self.tiers.iter().map(Tier::flush)).await;
        let failed = flushed.into_iter().find_map(Result::err);
        // Taken when nothing is awaited any more: a flush that is dropped must not lose it. A loss
        // comes first: it is told once, and what a tier could not flush fails its next flush again.
        let lost = self.take_loss(StoreOperation::Flush);
        let failed = lost.or(failed);
        match failed.or_else(|| self.background.take_behind_error()) {
            None => {
                self.counters.flushes.increment();
                Ok(())
            }
            Some(error) => {
                self.counters.flush_errors.increment();
                tracing::warn!(error = %format_args!("{error:#}"), "flush failed");
                Err(error)
            }
        }
    }

    /// The loss of writes behind that nobody was told of, if there is one.
    fn take_loss(&self, operation: StoreOperation) -> Option<StoreError> {
        let puts = match self.background.take_behind_lost() {
            0 => return None,
            1 => "1 put was".to_owned(),
            lost => format!("{lost} puts were"),
        };
        let reason = format!(
            "{puts} not written to all tiers, because the runtime was shut down; flush or close before a shutdown"
        );
        let lost = StoreError::new(StoreErrorKind::Lost, stack_name(&self.tiers), operation);
        Some(lost.with_source(reason))
    }

    /// `aliases` is the end of the writes of source aliases that are under way: the tiers keep them too.
    pub(super) async fn close(
        &self,
        deadline: Duration,
        aliases: impl Future<Output = ()>,
    ) -> CloseReport {
        let start = Instant::now();
        self.background.close();
        self.offers.stop();
        // Half the time is kept for the tiers, so that a write that hangs costs no tier its flush.
        let half = deadline / 2;
        let (drained, _) = tokio::join!(
            timeout(half, self.background.drain()),
            timeout(half, aliases)
        );
        let unfinished_writes = match drained {
            Ok(()) => 0,
            Err(_) => self.background.abort(),
        };
        let intents = &self.background.intents;
        // Before the tier that keeps them is closed, and within half of what time is left.
        let left = deadline.saturating_sub(start.elapsed());
        let _ = timeout(left / 2, intents.record_all()).await;
        let left = deadline.saturating_sub(start.elapsed());
        let closed = join_all(self.tiers.iter().map(|tier| tier.close(left))).await;
        let errors = self.take_loss(StoreOperation::Close).into_iter();
        let errors = errors.chain(closed.into_iter().filter_map(Result::err));
        CloseReport {
            unfinished_compiles: 0,
            unfinished_writes: unfinished_writes + self.background.unwritten(),
            kept_intents: intents.recorded(),
            errors: errors.chain(self.background.take_behind_error()).collect(),
        }
    }
}

/// A write that waits for its tiers. Where its caller gives it up, they are offered it from the disk.
struct Unfinished<'a> {
    intents: &'a Intents,
    key: &'a PipelineFingerprint,
    tiers: &'a [usize],
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        for tier in self.tiers {
            self.intents.overflow(self.key, *tier);
        }
    }
}

/// A read-only tier keeps what it has. If it has the key, that is an error.
async fn remove_from(tier: &Tier, key: &PipelineFingerprint) -> Result<bool, StoreError> {
    if tier.is_writable() {
        return tier.remove(key).await;
    }
    match tier.contains(key).await? {
        false => Ok(false),
        true => Err(tier.error(StoreErrorKind::ReadOnly, StoreOperation::Remove)),
    }
}
