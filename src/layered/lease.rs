//! The leave to compile, of the tiers that are shared with other processes.

use tokio::time::{Instant, timeout};

use super::Inner;
use super::compile::Found;
use super::lookup::{LookupOptions, TierSelection};
use super::tier::Tier;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, StoreOperation};

/// What the tiers say to a compile.
pub(super) enum LeaseOutcome {
    /// Nobody else compiles this as long as these are held.
    Given(Vec<CompileLease>),
    /// Somebody else has compiled it meanwhile.
    Needless(Found),
}

impl Inner {
    /// Waits until nobody else who shares a tier compiles this key, or for as long as is allowed.
    ///
    /// A tier that fails to answer is one more compile, and no reason to fail. Where nothing is to
    /// be waited for, none is asked.
    pub(super) async fn acquire_lease(&self, key: &PipelineFingerprint) -> LeaseOutcome {
        let start = Instant::now();
        let mut leads = Vec::new();
        let mut failed = false;
        if self.compile_wait.is_zero() {
            return LeaseOutcome::Given(leads);
        }
        for tier in self.tiers_in_order() {
            let left = self.compile_wait.saturating_sub(start.elapsed());
            let lease = timeout(left, tier.compile_lease(key)).await;
            match lease.unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::CompileLease))) {
                Ok(lead) => leads.extend(lead),
                Err(error) => {
                    tracing::warn!(%key, %error, "another process may compile the same");
                    failed = true;
                }
            }
        }
        if failed || !leads.is_empty() {
            if let Some(found) = self.look_again(key).await {
                self.counters.followed.increment();
                return LeaseOutcome::Needless(found);
            }
        }
        if failed {
            self.counters.unshared_compiles.increment();
        }
        LeaseOutcome::Given(leads)
    }

    /// The tiers, in an order that does not depend on how they are layered: who takes leads in the
    /// same order never waits for one who waits for them.
    pub(super) fn tiers_in_order(&self) -> Vec<&Tier> {
        let mut tiers: Vec<_> = self.tiers.iter().collect();
        tiers.sort_by_key(|tier| tier.name());
        tiers
    }

    /// What was stored between the search and the leave, in the tiers that processes of this
    /// machine share.
    async fn look_again(&self, key: &PipelineFingerprint) -> Option<Found> {
        // Not together with those who began to look before.
        self.detach_searches(key);
        let options = LookupOptions::new().tiers(TierSelection::Local);
        self.search(key, &options).await.found
    }
}
