//! Puts and removals: which tiers they reach, and what they mean for searches under way.

use futures::future::join_all;
use tokio::time::timeout;

use super::Inner;
use super::background::{Cause, Route};
use super::builder::WritePolicy;
use super::lookup::TierSelection;
use super::tier::Tier;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, StoreError, StoreErrorKind, StoreOperation};

impl Inner {
    /// Writes to the tiers that the policy names; what failed, in the order of the tiers.
    pub(super) async fn write(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Vec<StoreError> {
        let mut targets = self.targets(artifact);
        let errors = match (self.write_policy, targets.is_empty()) {
            (_, true) => vec![self.takes_nothing(artifact)],
            (WritePolicy::First | WritePolicy::Through, false) => {
                self.write_to(&targets, key, artifact).await
            }
            (WritePolicy::Behind, false) => {
                let lower = targets.split_off(1);
                let mut errors = self.write_to(&targets, key, artifact).await;
                let leads = self.held_leases.of(key).into_iter().collect();
                errors.extend(self.write_behind(lower, key, artifact, leads).await);
                errors
            }
        };
        // A search that began before this put may miss it: who asks from now on must not join it.
        self.detach_searches(key);
        if errors.is_empty() {
            self.counters.puts.increment();
        } else {
            self.counters.put_errors.increment();
        }
        errors
    }

    /// Writes what was compiled, in the background: whoever waits for it waits no longer, and it
    /// is not lost when they leave. Where the background is full they wait for the write, as
    /// those who put do, for what waits must stay bounded. Until it is written it is served from
    /// there, and the leads to make it are held.
    pub(super) async fn write_compiled(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        leads: Vec<CompileLease>,
    ) {
        let targets = self.targets(artifact);
        let errors = if targets.is_empty() {
            vec![self.takes_nothing(artifact)]
        } else {
            self.write_behind(targets, key, artifact, leads).await
        };
        self.detach_searches(key);
        if errors.is_empty() {
            self.counters.puts.increment();
        } else {
            self.counters.put_errors.increment();
        }
        for error in errors {
            tracing::warn!(%key, %error, "compiled and not stored");
        }
    }

    /// The tiers that the policy names, of those that take the artifact.
    fn targets(&self, artifact: &Artifact) -> Vec<usize> {
        let mut takers: Vec<_> = (0..self.tiers.len())
            .filter(|&tier| self.tiers[tier].takes(artifact))
            .collect();
        if self.write_policy == WritePolicy::First {
            takers.truncate(1);
        }
        takers
    }

    fn takes_nothing(&self, artifact: &Artifact) -> StoreError {
        let kind = if self.tiers.iter().any(Tier::is_writable) {
            tracing::debug!(bytes = artifact.len(), "too large for every tier");
            StoreErrorKind::TooLarge
        } else {
            StoreErrorKind::ReadOnly
        };
        StoreError::new(kind, self.to_string(), StoreOperation::Put)
    }

    /// Writes to these tiers at once, each under its deadline.
    async fn write_to(
        &self,
        tiers: &[usize],
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Vec<StoreError> {
        let writes = tiers.iter().map(|&tier| {
            let tier = &self.tiers[tier];
            async move {
                timeout(self.write_timeout, tier.put(key, artifact.clone()))
                    .await
                    .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Put)))
            }
        });
        let written = join_all(writes).await;
        written.into_iter().filter_map(Result::err).collect()
    }

    /// Leaves these tiers to the background, or waits for them where that is full.
    async fn write_behind(
        &self,
        tiers: Vec<usize>,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        leads: Vec<CompileLease>,
    ) -> Vec<StoreError> {
        let route = Route {
            cause: Cause::Behind,
            generation: None,
            targets: tiers.iter().map(|&tier| (tier, true)).collect(),
            leads: leads.clone(),
        };
        if tiers.is_empty() || self.background.start(key, artifact, route) {
            return Vec::new();
        }
        let failed = self.write_to(&tiers, key, artifact).await;
        drop(leads);
        failed
    }

    pub(super) fn detach_searches(&self, key: &PipelineFingerprint) {
        for selection in [TierSelection::All, TierSelection::Local] {
            self.searches.detach(&(*key, selection));
        }
    }

    /// Removes from every tier that takes writes. Nothing that was found before brings the
    /// artifact back.
    pub(super) async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let block = self.background.block(key).await;
        let removals = self.tiers.iter().map(|tier| async move {
            timeout(self.write_timeout, self.remove_from(tier, key))
                .await
                .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Remove)))
        });
        let results = join_all(removals).await;
        // Whoever asks from now on must not be told what was found while it was still there.
        self.detach_searches(key);
        self.compiles.detach(key);
        drop(block);
        let mut removed = false;
        for result in results {
            removed |= result?;
        }
        if removed {
            self.counters.removes.increment();
        }
        Ok(removed)
    }

    /// A tier that takes no writes keeps what it has, and that is said.
    async fn remove_from(
        &self,
        tier: &Tier,
        key: &PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        if tier.is_writable() {
            return tier.remove(key).await;
        }
        match tier.contains(key).await? {
            false => Ok(false),
            true => Err(tier.error(StoreErrorKind::ReadOnly, StoreOperation::Remove)),
        }
    }
}
