//! When to log that something goes wrong again and again: where it begins and where it ends.
//!
//! The trouble is over at the first success that no failure came shortly before. So a server that
//! fails every other request is logged once, and not at each change.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Trouble {
    /// How long before a success there must be no failure for the trouble to end.
    quiet: Duration,
    episode: Mutex<Option<Episode>>,
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    began: Instant,
    last_failure: Instant,
    failed: u64,
}

/// A trouble that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// How many calls failed in it.
    pub(super) failed: u64,
    pub(super) lasted: Duration,
}

impl Trouble {
    pub(super) const fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            episode: Mutex::new(None),
        }
    }

    /// Counts a call that failed; whether the trouble begins with it, which is to be logged.
    pub(super) fn failed(&self) -> bool {
        let now = Instant::now();
        self.with(|episode| {
            let begins = episode.is_none();
            let episode = episode.get_or_insert(Episode {
                began: now,
                last_failure: now,
                failed: 0,
            });
            episode.failed += 1;
            episode.last_failure = now;
            begins
        })
    }

    /// Counts a call that was refused because of the trouble. It says nothing new.
    pub(super) fn refused(&self) {
        self.with(|episode| {
            if let Some(episode) = episode {
                episode.failed += 1;
            }
        });
    }

    /// Nobody's call failed, and still the trouble goes on.
    pub(super) fn goes_on(&self) {
        self.with(|episode| {
            if let Some(episode) = episode {
                episode.last_failure = Instant::now();
            }
        });
    }

    /// Something went well. Some where the trouble ends with it, which is to be logged.
    pub(super) fn succeeded(&self) -> Option<Ended> {
        self.with(|episode| {
            let over = |episode: &mut Episode| episode.last_failure.elapsed() >= self.quiet;
            episode.take_if(over).map(|episode| Ended {
                failed: episode.failed,
                lasted: episode.last_failure - episode.began,
            })
        })
    }

    fn with<R>(&self, change: impl FnOnce(&mut Option<Episode>) -> R) -> R {
        change(&mut self.episode.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const QUIET: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn trouble_begins_once_and_ends_once_with_its_count() {
        let trouble = Trouble::new(QUIET);
        trouble.refused();
        assert_eq!(trouble.succeeded(), None);
        assert!(trouble.failed());
        advance(QUIET).await;
        assert!(!trouble.failed());
        trouble.refused();
        advance(QUIET).await;
        let lasted = QUIET;
        assert_eq!(trouble.succeeded(), Some(Ended { failed: 3, lasted }));
        assert_eq!(trouble.succeeded(), None);
        assert!(trouble.failed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_now_and_then_is_one_trouble() {
        let trouble = Trouble::new(QUIET);
        assert!(trouble.failed());
        for _ in 0..1000 {
            advance(QUIET / 2).await;
            assert_eq!(trouble.succeeded(), None);
            assert!(!trouble.failed());
        }
        trouble.goes_on();
        advance(QUIET).await;
        assert_eq!(trouble.succeeded().unwrap().failed, 1001);
    }
}
