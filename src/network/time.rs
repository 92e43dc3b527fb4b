//! Deadlines that any setting can be turned into.

use std::time::Duration;
use tokio::time::Instant;

/// The moment in so long from now, or in some thirty years if that is sooner.
pub(super) fn after(time: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(1_000_000_000);
    Instant::now() + time.min(FAR)
}
