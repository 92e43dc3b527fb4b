//! How many searches are under way at a time, and who waits for whom.

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

/// Whether someone waits for the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LookupPriority {
    /// Someone does: an editor, a build.
    #[default]
    Interactive,
    /// Nobody does: a prefetch, a warm-up. Lookups of this kind have a lane of their own, half as
    /// wide, so that an interactive one never waits behind them.
    Background,
}

#[derive(Debug)]
pub(super) struct Admission {
    interactive: Semaphore,
    background: Semaphore,
}

/// Someone interactive has joined a search that began in the background.
#[derive(Debug, Default)]
pub(super) struct PriorityBoost(Notify);

impl PriorityBoost {
    pub(super) fn up(&self) {
        self.0.notify_one();
    }
}

impl Admission {
    pub(super) fn new(searches: usize) -> Self {
        let searches = searches.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            interactive: Semaphore::new(searches),
            background: Semaphore::new(searches.div_ceil(2)),
        }
    }

    /// Waits for room; the search may go on while the pass is held. `None` if a lane were closed,
    /// which nobody does.
    pub(super) async fn enter(
        &self,
        priority: LookupPriority,
        boost: &PriorityBoost,
    ) -> Option<SemaphorePermit<'_>> {
        if priority == LookupPriority::Background {
            tokio::select! {
                biased;
                pass = self.background.acquire() => return pass.ok(),
                () = boost.0.notified() => {}
            }
        }
        self.interactive.acquire().await.ok()
    }
}
