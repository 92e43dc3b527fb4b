//! The compile leases of the tiers that are shared with other processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::lookup::TierSelection;
use super::tier::Tier;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, Locality, StoreError, StoreErrorKind, StoreOperation, answer};

/// A lease and the tier that granted it, where others look for the artifact.
#[derive(Debug, Clone)]
pub(super) struct TierLease {
    pub(super) tier: usize,
    pub(super) lease: CompileLease,
}

/// What the tiers granted for one key.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// While these are held, no other process that shares their tiers compiles the key.
    pub(super) held: Vec<TierLease>,
    /// The tiers in which another process held the lease, and may have stored the artifact.
    pub(super) followed: Vec<usize>,
    /// Whether a tier failed to answer, so that another process may compile the key as well.
    pub(super) any_failed: bool,
}

/// Who is asked for a lease, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseLimits {
    pub(super) tiers: TierSelection,
    /// For all tiers together. With zero, no tier is asked.
    pub(super) max_wait: Duration,
    /// Until a network tier begins to answer: what is left of the request's. With zero, none is asked.
    pub(super) network_budget: Duration,
}

/// Acquires the compile lease of `key` in each tier that grants leases, or waits for as long as the
/// limits allow.
///
/// A tier that fails to answer costs a second compile at worst, so it is no error.
pub(super) async fn acquire(
    tiers: &[Tier],
    key: &PipelineFingerprint,
    limits: LeaseLimits,
) -> Leases {
    let mut leases = Leases::default();
    if limits.max_wait.is_zero() {
        return leases;
    }
    let start = Instant::now();
    let allowed = in_acquiring_order(tiers).into_iter();
    let allowed = allowed.filter(|(_, tier)| limits.tiers.allows(tier.locality));
    for (index, tier) in allowed.filter(|(_, tier)| tier.grants_leases()) {
        let left = limits.max_wait.saturating_sub(start.elapsed());
        let waits = Waits::default();
        let lease = match tier.locality {
            Locality::Local => acquire_in(tier, key, &waits, left).await,
            Locality::Network => {
                let answer = acquire_in(tier, key, &waits, left);
                tokio::select! {
                    biased;
                    lease = answer => lease,
                    () = waits.not_begun_within(limits.network_budget) => Err(timed_out(tier)),
                }
            }
        };
        match lease {
            Ok(None) => {}
            Ok(Some(lease)) => {
                if waits.have_begun() || lease.is_stored() {
                    leases.followed.push(index);
                }
                if !lease.is_stored() {
                    tier.counters.leases_granted.increment();
                    leases.held.push(TierLease { tier: index, lease });
                }
            }
            Err(error) => {
                if error.kind() == StoreErrorKind::TimedOut {
                    tier.counters.leases_timed_out.increment();
                }
                tracing::warn!(%key, error = %format_args!("{error:#}"), "no compile lease: another process may compile the same key");
                leases.any_failed = true;
            }
        }
    }
    leases
}

async fn acquire_in(
    tier: &Tier,
    key: &PipelineFingerprint,
    waits: &Waits,
    limit: Duration,
) -> Result<Option<CompileLease>, StoreError> {
    let lease = answer::observed(waits.on_answer(), tier.compile_lease(key));
    let late = |_| Err(timed_out(tier));
    timeout(limit, lease).await.unwrap_or_else(late)
}

fn timed_out(tier: &Tier) -> StoreError {
    tier.timed_out(StoreOperation::CompileLease)
}

/// Whether a tier has said that another process holds the lease: it works, and the wait has begun.
#[derive(Debug, Default)]
struct Waits(Arc<(AtomicBool, Notify)>);

impl Waits {
    fn on_answer(&self) -> answer::OnAnswer {
        let waits = Arc::clone(&self.0);
        Arc::new(move || {
            waits.0.store(true, Ordering::Release);
            waits.1.notify_one();
        })
    }

    fn have_begun(&self) -> bool {
        self.0.0.load(Ordering::Acquire)
    }

    async fn not_begun_within(&self, budget: Duration) {
        tokio::select! {
            biased;
            () = self.0.1.notified() => std::future::pending().await,
            () = sleep(budget) => {}
        }
    }
}

/// The tiers by name. Two stores that acquire leases in the same order never wait for each other,
/// however they layer their tiers.
pub(super) fn in_acquiring_order(tiers: &[Tier]) -> Vec<(usize, &Tier)> {
    let mut tiers: Vec<_> = tiers.iter().enumerate().collect();
    tiers.sort_by_key(|(_, tier)| tier.name());
    tiers
}
