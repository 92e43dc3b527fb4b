//! The compile leases of the tiers that are shared with other processes.

use std::time::Duration;
use tokio::time::{Instant, timeout};

use super::tier::Tier;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, StoreOperation};

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
    /// Whether a tier failed to answer, so that another process may compile the key as well.
    pub(super) any_failed: bool,
}

/// Acquires the compile lease of `key` in each tier that grants leases, or waits for as long as
/// `max_wait`. With zero, no tier is asked.
///
/// A tier that fails to answer costs a second compile at worst, so it is no error.
pub(super) async fn acquire(
    tiers: &[Tier],
    key: &PipelineFingerprint,
    max_wait: Duration,
) -> Leases {
    let mut leases = Leases::default();
    if max_wait.is_zero() {
        return leases;
    }
    let start = Instant::now();
    for (index, tier) in in_acquiring_order(tiers) {
        let left = max_wait.saturating_sub(start.elapsed());
        let lease = timeout(left, tier.compile_lease(key)).await;
        match lease.unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::CompileLease))) {
            Ok(lease) => leases
                .held
                .extend(lease.map(|lease| TierLease { tier: index, lease })),
            Err(error) => {
                tracing::warn!(%key, error = %format_args!("{error:#}"), "no compile lease: another process may compile the same key");
                leases.any_failed = true;
            }
        }
    }
    leases
}

/// The tiers by name. Two stores that acquire leases in the same order never wait for each other,
/// however they layer their tiers.
pub(super) fn in_acquiring_order(tiers: &[Tier]) -> Vec<(usize, &Tier)> {
    let mut tiers: Vec<_> = tiers.iter().enumerate().collect();
    tiers.sort_by_key(|(_, tier)| tier.name());
    tiers
}
