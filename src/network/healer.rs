//! The task that probes a tier whose breaker is open, until it closes.
//!
//! No caller pays for a probe, and there is one such task per tier at most.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep_until;

use super::breaker::{Breaker, Generation};
use super::breaker_policy::BreakerState;
use super::time::after;
use crate::key::PipelineFingerprint;

/// Between two probes of which the first took longer than the interval.
const PAUSE_BETWEEN_PROBES: Duration = Duration::from_millis(1);

/// What is probed.
pub(super) trait Probed: Send + Sync + 'static {
    fn name(&self) -> &str;

    /// The breaker of the reads.
    fn breaker(&self) -> &Breaker;

    /// One request past the breaker; whether the server works again.
    fn probe(&self, key: &PipelineFingerprint) -> impl Future<Output = bool> + Send;
}

/// Starts the task, where the breaker is open and there is none yet.
pub(super) fn start<T: Probed>(tier: &Arc<T>) {
    let breaker = tier.breaker();
    if breaker.state() == BreakerState::Closed {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let Some(generation) = breaker.start_healing() else {
        return;
    };
    let interval = breaker.probe_interval();
    tracing::debug!(tier = tier.name(), reason = %breaker.error(), ?interval, "circuit breaker of reads opened: no reads until a probe succeeds");
    let healer = Healer {
        tier: Arc::downgrade(tier),
        generation,
    };
    runtime.spawn(healer.run(interval));
}

/// When it ends early, as with its runtime, another may take over.
struct Healer<T: Probed> {
    /// Not held while nothing happens: dropping the tier ends the task.
    tier: Weak<T>,
    generation: Generation,
}

impl<T: Probed> Healer<T> {
    async fn run(self, interval: Duration) {
        let mut next = after(interval);
        loop {
            sleep_until(next).await;
            let Some(tier) = self.tier.upgrade() else {
                return;
            };
            // From the start of one probe to that of the next: a server that comes back while a
            // probe still hangs is found by the next one, and that must not be long after.
            next = after(interval);
            if self.probe(&*tier).await {
                return;
            }
            next = next.max(after(PAUSE_BETWEEN_PROBES));
            tier.breaker().set_next_probe(next);
        }
    }

    /// Whether the breaker is closed now.
    async fn probe(&self, tier: &T) -> bool {
        let breaker = tier.breaker();
        let Some(key) = breaker.half_open(self.generation) else {
            return true;
        };
        let success = tier.probe(&key).await;
        if success {
            tracing::debug!(
                tier = tier.name(),
                "circuit breaker of reads closed: a probe succeeded"
            );
        } else {
            tracing::debug!(
                tier = tier.name(),
                "circuit breaker of reads stays open: a probe failed"
            );
        }
        breaker.probed(self.generation, success);
        success
    }
}

impl<T: Probed> Drop for Healer<T> {
    fn drop(&mut self) {
        if let Some(tier) = self.tier.upgrade() {
            tier.breaker().stop_healing(self.generation);
        }
    }
}
