//! How many searches are under way at a time, and who waits for whom.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whether a person waits for the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LookupPriority {
    /// Someone waits: an editor, a build.
    #[default]
    Interactive,
    /// Nobody does: a prefetch, a warm-up. At most half of the searches under way are of this
    /// kind, so that an interactive one always finds room.
    Background,
}

#[derive(Debug)]
pub(super) struct Lanes {
    all: Arc<Semaphore>,
    background: Arc<Semaphore>,
}

/// The right to one search; held for as long as it is under way.
pub(super) struct Pass {
    _any: Option<OwnedSemaphorePermit>,
    _background: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    pub(super) fn new(searches: usize) -> Self {
        let searches = searches.clamp(2, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(searches)),
            background: Arc::new(Semaphore::new(searches / 2)),
        }
    }

    pub(super) async fn enter(&self, priority: LookupPriority) -> Pass {
        let background = match priority {
            LookupPriority::Interactive => None,
            // First the narrower lane: who waits here takes up no room in the other.
            LookupPriority::Background => Some(pass(&self.background).await),
        };
        Pass {
            _any: pass(&self.all).await,
            _background: background.flatten(),
        }
    }
}

/// `None` if the semaphore were closed, which nobody does.
async fn pass(lane: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(lane).acquire_owned().await.ok()
}
