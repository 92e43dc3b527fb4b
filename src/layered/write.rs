//! Puts and removals: which tiers they reach, and what they mean for searches under way.

use futures::future::join_all;
use std::sync::Arc;
use tokio::time::timeout;

use super::Inner;
use super::background::{Cause, Route};
use super::builder::WritePolicy;
use super::lookup::TierSelection;
use super::search::SearchState;
use crate::{Artifact, PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation};

impl Inner {
    /// Writes to the tiers that the policy names; what failed, in the order of the tiers.
    pub(super) async fn write(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Vec<StoreError> {
        let mut writable =
            (0..self.tiers.len()).filter(|&tier| self.tiers[tier].store.is_writable());
        let errors = match (self.write_policy, writable.next()) {
            (_, None) => vec![StoreError::new(
                StoreErrorKind::ReadOnly,
                self.to_string(),
                StoreOperation::Put,
            )],
            (WritePolicy::First, Some(first)) => self.write_to([first], key, artifact).await,
            (WritePolicy::Through, Some(first)) => {
                let all = std::iter::once(first).chain(writable);
                self.write_to(all, key, artifact).await
            }
            (WritePolicy::Behind, Some(first)) => {
                let mut errors = self.write_to([first], key, artifact).await;
                errors.extend(self.write_behind(writable, key, artifact).await);
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

    /// Writes to these tiers at once, each under its deadline.
    async fn write_to(
        &self,
        tiers: impl IntoIterator<Item = usize>,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Vec<StoreError> {
        let writes = tiers.into_iter().map(|tier| {
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
        tiers: impl Iterator<Item = usize>,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Vec<StoreError> {
        let tiers: Vec<_> = tiers
            .filter(|&tier| self.tiers[tier].takes(artifact))
            .collect();
        let route = Route {
            cause: Cause::Behind,
            targets: tiers.iter().map(|&tier| (tier, true)).collect(),
        };
        if tiers.is_empty() || self.background.start(key, artifact, route) {
            return Vec::new();
        }
        self.write_to(tiers, key, artifact).await
    }

    fn detach_searches(&self, key: &PipelineFingerprint) -> Vec<Arc<SearchState>> {
        [TierSelection::All, TierSelection::Local]
            .into_iter()
            .filter_map(|selection| self.searches.detach(&(*key, selection)))
            .collect()
    }

    /// Removes from every tier. Nothing that was found before brings the artifact back.
    pub(super) async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let _block = self.background.block(key).await;
        let writable = self.tiers.iter().filter(|tier| tier.store.is_writable());
        let results = join_all(writable.map(|tier| tier.remove(key))).await;
        // Those that began while the artifact was still there, in the lower tiers, may have it.
        for search in self.detach_searches(key) {
            search.revoke();
        }
        let mut removed = false;
        for result in results {
            removed |= result?;
        }
        if removed {
            self.counters.removes.increment();
        }
        Ok(removed)
    }
}
