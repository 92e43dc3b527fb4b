//! The compile leases of the tiers that are shared with other processes.

use std::sync::{Arc, OnceLock};
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
    /// Whether a tier says that the artifact is there.
    pub(super) is_stored: bool,
    /// The first tier that failed to answer, or was not asked for want of time: another process may
    /// compile the key as well.
    pub(super) failed: Option<StoreError>,
}

impl Leases {
    /// Whether the artifact may have been stored since the lookup that missed.
    pub(super) fn may_be_stored(&self) -> bool {
        self.failed.is_some() || !self.held.is_empty() || !self.followed.is_empty()
    }
}

/// Who is asked for a lease, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct LeaseLimits {
    pub(super) tiers: TierSelection,
    /// For all tiers together. With zero, no tier is asked.
    pub(super) max_wait: Duration,
    /// Until network tiers begin to answer, for all of them together: what is left of the request's.
    /// Once nothing is left, no further one is asked.
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
    let mut network_budget = limits.network_budget;
    let allowed = in_acquiring_order(tiers).into_iter();
    let allowed = allowed.filter(|(_, tier)| limits.tiers.allows(tier.locality));
    for (index, tier) in allowed.filter(|(_, tier)| tier.grants_leases()) {
        let left = limits.max_wait.saturating_sub(start.elapsed());
        let waits = Waits::default();
        let lease = match tier.locality {
            Locality::Local => acquire_in(tier, key, &waits, left).await,
            Locality::Network if network_budget.is_zero() => Err(timed_out(tier)),
            Locality::Network => {
                let asked = Instant::now();
                let answer = acquire_in(tier, key, &waits, left);
                let lease = tokio::select! {
                    biased;
                    lease = answer => lease,
                    () = waits.not_begun_within(network_budget) => Err(timed_out(tier)),
                };
                network_budget = network_budget.saturating_sub(waits.begun_after(asked));
                lease
            }
        };
        match lease {
            Ok(None) => {}
            Ok(Some(lease)) => {
                tier.log_lease_success();
                if waits.have_begun() || lease.is_stored() {
                    leases.followed.push(index);
                }
                if lease.is_stored() {
                    leases.is_stored = true;
                } else {
                    tier.counters.leases_granted.increment();
                    leases.held.push(TierLease { tier: index, lease });
                }
            }
            Err(error) => {
                if error.kind() == StoreErrorKind::TimedOut {
                    tier.counters.leases_timed_out.increment();
                }
                tier.log_lease_failure(key, &error);
                leases.failed.get_or_insert(error);
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

/// When a tier has said that another process holds the lease: it works, and the wait has begun.
#[derive(Debug, Default)]
struct Waits(Arc<(OnceLock<Instant>, Notify)>);

impl Waits {
    /// Tells the store above this one as well, if it acquires the lease.
    fn on_answer(&self) -> answer::OnAnswer {
        let (waits, above) = (Arc::clone(&self.0), answer::current());
        Arc::new(move || {
            waits.0.get_or_init(Instant::now);
            waits.1.notify_one();
            if let Some(on_answer) = &above {
                on_answer();
            }
        })
    }

    fn have_begun(&self) -> bool {
        self.0.0.get().is_some()
    }

    /// How long the tier took to begin to answer, or to answer.
    fn begun_after(&self, asked: Instant) -> Duration {
        match self.0.0.get() {
            Some(begun) => begun.saturating_duration_since(asked),
            None => asked.elapsed(),
        }
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
