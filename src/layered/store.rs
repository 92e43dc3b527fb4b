//! A layered store as a tier of another.

use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

use super::admission::LookupPriority;
use super::lease;
use super::lookup::{Lookup, LookupOptions, TierOutcome};
use super::tier::Tier;
use super::{LayeredPipelineCache, Parts};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::urgency;
use crate::store::{
    CompileLease, CompileLeases, Fetched, Locality, PipelineCacheMetrics, PipelineCacheStore,
    StoreError, StoreErrorKind, StoreOperation, WriteIntents,
};

/// The options of a lookup by the store that this one is a tier of.
fn options_of_call() -> LookupOptions {
    let priority = match urgency::background() {
        Some(_) => LookupPriority::Background,
        None => LookupPriority::Interactive,
    };
    LookupOptions::new().priority(priority)
}

impl LayeredPipelineCache {
    /// A lookup as a tier answers it.
    fn fetched(&self, lookup: &Lookup) -> Result<Fetched, StoreError> {
        if let Some(artifact) = lookup.artifact() {
            return Ok(Fetched::Hit(artifact.clone()));
        }
        let mut fetched = Fetched::Miss;
        for (tier, report) in self.parts.tiers.iter().zip(lookup.tiers()) {
            match report.outcome {
                TierOutcome::Failed(error) => return Err(error),
                TierOutcome::TimedOut => return Err(tier.timed_out(StoreOperation::Get)),
                TierOutcome::BreakerOpen => {
                    return Err(tier.error(StoreErrorKind::BreakerOpen, StoreOperation::Get));
                }
                TierOutcome::Corrupt(reason) => fetched = Fetched::Corrupt(reason),
                TierOutcome::Refused if fetched == Fetched::Miss => fetched = Fetched::Refused,
                _ => {}
            }
        }
        Ok(fetched)
    }
}

/// A layered store is a tier too. The inherent [`get`](LayeredPipelineCache::get) treats a failing
/// tier as a miss; these methods return its error, as the contract of a tier requires.
#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl PipelineCacheStore for LayeredPipelineCache {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        let (artifact, _) = self.parts.search.peek(key)?;
        Some(artifact)
    }

    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        self.fetch(key).await.map(Fetched::into_artifact)
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let lookup = self.lookup(key, &options_of_call()).await;
        self.fetched(&lookup)
    }

    /// As [`get_many`](LayeredPipelineCache::get_many): a network tier is asked for many keys at once.
    async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
        let lookups = self.lookups_by_key(keys, &options_of_call()).await;
        let fetched = |key| match lookups.get(key) {
            Some(lookup) => self.fetched(lookup),
            // Every key is answered.
            None => Ok(Fetched::Miss),
        };
        keys.iter().map(fetched).collect()
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        // As it is: what comes from another tier was not made here, and is not signed here.
        self.parts.writer.put(key, &artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.parts.search.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let Parts {
            writer, compiler, ..
        } = &*self.parts;
        writer.require_runtime(StoreOperation::Remove)?;
        let block = writer.block(key).await;
        let removed = writer.remove(key).await;
        // A later call must not join one that found the artifact before it was removed.
        compiler.detach(key);
        drop(block);
        removed
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
        if report.is_clean() {
            return Ok(());
        }
        Err(report.errors.into_iter().next().unwrap_or_else(timed_out))
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        Some(self)
    }

    /// Those of the first tier that keeps some.
    fn write_intents(&self) -> Option<&dyn WriteIntents> {
        self.parts.tiers.iter().find_map(Tier::write_intents)
    }

    /// In all tiers.
    fn forget_miss(&self, key: &PipelineFingerprint) {
        let tiers = self.parts.tiers.iter();
        tiers.for_each(|tier| tier.forget_miss(key));
    }

    /// Those of all tiers, in their order.
    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        let tiers = self.parts.tiers.iter();
        tiers.flat_map(Tier::alias_stores).collect()
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        let whole = self.layered_metrics();
        let (lookups, writes) = (&self.parts.search.counters, &self.parts.writer.counters);
        PipelineCacheMetrics {
            lookups: whole.lookups,
            hits: whole.hits,
            misses: whole.misses,
            corrupt: lookups.corrupt.get(),
            errors: whole.degraded_misses,
            puts: whole.puts,
            put_errors: whole.put_errors,
            removes: writes.removes.get(),
            flushes: writes.flushes.get(),
            flush_errors: writes.flush_errors.get(),
            ..Default::default()
        }
    }

    /// Network if every tier is: only then does every call cross a network.
    fn locality(&self) -> Locality {
        let mut tiers = self.parts.tiers.iter();
        if tiers.all(|tier| tier.locality == Locality::Network) {
            Locality::Network
        } else {
            Locality::Local
        }
    }

    fn is_writable(&self) -> bool {
        self.parts.tiers.iter().any(Tier::is_writable)
    }

    /// Only if every tier is, because a hit may come from any of them.
    fn is_trusted_source(&self) -> bool {
        let mut tiers = self.parts.tiers.iter();
        tiers.all(Tier::is_trusted_source)
    }

    fn max_artifact_bytes(&self) -> u64 {
        let largest = self.parts.tiers.iter().map(Tier::max_artifact_bytes);
        largest.max().unwrap_or(0)
    }

    /// If one of the tiers does: a hit may come from any of them.
    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        let mut tiers = self.parts.tiers.iter();
        tiers.any(|tier| tier.accepts_maker(artifact))
    }
}

#[async_trait]
impl CompileLeases for LayeredPipelineCache {
    /// The leases of all tiers that grant one, within the `max_compile_wait` and the `network_budget` of
    /// this store. A tier that fails costs the others nothing: it is an error only where no other grants
    /// one.
    ///
    /// A put of the key holds them as well: that of a network tier until its background write to that
    /// tier has ended, that of a local tier until those to all local tiers have.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        let Parts {
            writer,
            compiler,
            tiers,
            ..
        } = &*self.parts;
        writer.require_runtime(StoreOperation::CompileLease)?;
        let leases = lease::acquire(tiers, key, compiler.lease_limits()).await;
        if leases.is_stored {
            return Ok(Some(CompileLease::stored()));
        }
        if leases.held.is_empty() {
            return leases.failed.map_or(Ok(None), Err);
        }
        if leases.failed.is_some() {
            compiler.counters.unshared_compiles.increment();
        }
        let held = leases.held.into_iter();
        let held: Vec<_> = held.map(|lease| writer.pass_on(*key, lease)).collect();
        Ok(Some(CompileLease::new(held)))
    }
}
