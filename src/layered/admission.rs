//! Admission: how many searches run at a time, by priority.

use std::fmt;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Whether a user waits for the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LookupPriority {
    /// A user waits: an editor, a build.
    #[default]
    Interactive,
    /// No user waits: a prefetch, a warm-up. Background searches have a bound of their own, half as
    /// large, so that an interactive search never waits behind them, and take at most half of the
    /// requests of a network tier.
    Background,
}

impl fmt::Display for LookupPriority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interactive => "interactive",
            Self::Background => "background",
        })
    }
}

/// The permits of the searches of a cache.
#[derive(Debug)]
pub(super) struct Admission {
    interactive: Semaphore,
    background: Semaphore,
}

/// Tells background work that an interactive caller has joined it. A clone tells the same work.
#[derive(Debug, Clone, Default)]
pub(super) struct PriorityBoost(CancellationToken);

impl From<CancellationToken> for PriorityBoost {
    fn from(boosted: CancellationToken) -> Self {
        Self(boosted)
    }
}

impl PriorityBoost {
    pub(super) fn boost(&self) {
        self.0.cancel();
    }

    /// Waits until it is boosted. A boost that came before counts.
    pub(super) async fn boosted(&self) {
        self.0.cancelled().await;
    }

    /// Cancelled when it is boosted.
    pub(super) const fn token(&self) -> &CancellationToken {
        &self.0
    }
}

impl Admission {
    pub(super) fn new(max_searches: usize) -> Self {
        let searches = max_searches.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            interactive: Semaphore::new(searches),
            background: Semaphore::new(searches.div_ceil(2)),
        }
    }

    /// Waits for a permit to search. `None` if the semaphores were closed, which does not happen.
    pub(super) async fn acquire(
        &self,
        priority: LookupPriority,
        boost: &PriorityBoost,
    ) -> Option<SemaphorePermit<'_>> {
        if priority == LookupPriority::Background {
            tokio::select! {
                biased;
                permit = self.background.acquire() => return permit.ok(),
                () = boost.boosted() => {}
            }
        }
        self.interactive.acquire().await.ok()
    }
}
