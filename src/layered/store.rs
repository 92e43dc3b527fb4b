//! A layered store as a tier, so that it can stand wherever a tier can.

use async_trait::async_trait;
use std::time::Duration;

use super::LayeredPipelineCache;
use super::lookup::{LookupOptions, TierOutcome};
use super::tier::Tier;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{
    CompileLease, CompileLeases, Fetched, Locality, PipelineCacheMetrics, PipelineCacheStore,
    StoreError, StoreErrorKind, StoreOperation,
};

/// A layered store is a tier too. Where the inherent [`get`](LayeredPipelineCache::get) takes a
/// failing tier for a miss, these methods return its error, as the contract of a tier asks.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl PipelineCacheStore for LayeredPipelineCache {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        let (artifact, _) = self.inner.at_hand(key)?;
        self.inner.counters.hits.increment();
        Some(artifact)
    }

    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        self.fetch(key).await.map(Fetched::into_artifact)
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let lookup = self.lookup(key, &LookupOptions::new()).await;
        if lookup.artifact().is_some() {
            return Ok(Fetched::from(lookup.into_artifact()));
        }
        let mut fetched = Fetched::Miss;
        for (tier, report) in self.inner.tiers.iter().zip(lookup.tiers()) {
            match report.outcome {
                TierOutcome::Failed(error) => return Err(error),
                TierOutcome::TimedOut => return Err(tier.timed_out(StoreOperation::Get)),
                TierOutcome::BreakerOpen => {
                    return Err(tier.error(StoreErrorKind::CircuitOpen, StoreOperation::Get));
                }
                TierOutcome::Corrupt(reason) => fetched = Fetched::Corrupt(reason),
                TierOutcome::Refused if fetched == Fetched::Miss => fetched = Fetched::Refused,
                _ => {}
            }
        }
        Ok(fetched)
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        Self::put(self, key, artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.remove(key).await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        Self::flush(self).await
    }

    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        let report = Self::close(self, deadline).await;
        let timed_out = || {
            StoreError::new(
                StoreErrorKind::TimedOut,
                self.to_string(),
                StoreOperation::Close,
            )
        };
        match report.errors.into_iter().next() {
            Some(error) => Err(error),
            None if report.unfinished_writes > 0 => Err(timed_out()),
            None => Ok(()),
        }
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        Some(self)
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.inner.metrics()
    }

    /// Network where every tier is: asking it then surely crosses one.
    fn locality(&self) -> Locality {
        let mut tiers = self.inner.tiers.iter();
        if tiers.all(|tier| tier.locality == Locality::Network) {
            Locality::Network
        } else {
            Locality::Local
        }
    }

    fn is_writable(&self) -> bool {
        self.inner.tiers.iter().any(Tier::is_writable)
    }

    /// Only if every tier is: nobody can tell which one a hit came from.
    fn is_trusted_source(&self) -> bool {
        let mut tiers = self.inner.tiers.iter();
        tiers.all(|tier| tier.store.is_trusted_source())
    }

    fn max_artifact_bytes(&self) -> u64 {
        let largest = self.inner.tiers.iter().map(Tier::max_artifact_bytes);
        largest.max().unwrap_or(0)
    }
}

#[async_trait]
impl CompileLeases for LayeredPipelineCache {
    /// The leave of every tier that gives one. Held, too, by what a put of the key leaves to the
    /// background.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        let mut leads = Vec::new();
        for tier in self.inner.tiers_in_order() {
            leads.extend(tier.compile_lease(key).await?);
        }
        Ok((!leads.is_empty()).then(|| self.inner.held_leases.give(*key, leads)))
    }
}
