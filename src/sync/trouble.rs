//! When to log that something goes wrong again and again: where it begins and where it ends.
//!
//! The trouble is over at the first success that no failure came shortly before. So a server that
//! fails every other request is logged once, and not at each change. A trouble that comes and goes
//! more slowly, as that of one corrupt entry, is logged once a minute at most.
//!
//! What passes by itself and what somebody has to mend are told apart: a server that is back and rejects
//! the credentials now is logged, although it was logged as unreachable before.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// From the beginning of one trouble that is logged to that of the next.
const BETWEEN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Trouble {
    /// How long before a success there must be no failure for the trouble to end.
    quiet: Duration,
    state: Mutex<State>,
}

/// What it takes to end a trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cure {
    /// Time, as for a server that is down, or one entry that is refused.
    Time,
    /// Somebody, as for credentials that are rejected.
    #[cfg_attr(
        not(any(feature = "remote-cache", feature = "object-store", feature = "redis")),
        expect(dead_code, reason = "only the network says so")
    )]
    Somebody,
}

#[derive(Debug)]
struct State {
    episode: Option<Episode>,
    /// When the last trouble was logged, by its cure.
    logged: [Option<Instant>; 2],
    /// How many calls failed since in troubles that are over and were not logged.
    unlogged: u64,
}

#[derive(Debug, Clone, Copy)]
struct Episode {
    began: Instant,
    last_failure: Instant,
    failed: u64,
    /// By its cure.
    is_logged: [bool; 2],
}

/// A trouble that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How many calls failed in it, and in those before it that were not logged.
    pub(crate) failed: u64,
    pub(crate) lasted: Duration,
}

impl Trouble {
    pub(crate) const fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            state: Mutex::new(State {
                episode: None,
                logged: [None; 2],
                unlogged: 0,
            }),
        }
    }

    /// Counts a call with a failure that passes by itself; whether the trouble is to be logged now.
    pub(crate) fn failed(&self) -> bool {
        self.failed_with(Cure::Time)
    }

    /// The same, for what has this cure.
    pub(crate) fn failed_with(&self, cure: Cure) -> bool {
        let cure = cure as usize;
        let now = Instant::now();
        self.with(|state| {
            let episode = state.episode.get_or_insert(Episode {
                began: now,
                last_failure: now,
                failed: 0,
                is_logged: [false; 2],
            });
            episode.failed += 1;
            episode.last_failure = now;
            let is_soon = state.logged[cure].is_some_and(|at| now - at < BETWEEN);
            if episode.is_logged[cure] || is_soon {
                return false;
            }
            episode.is_logged[cure] = true;
            state.logged[cure] = Some(now);
            true
        })
    }

    /// Counts a call that was refused because of the trouble. It says nothing new.
    #[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
    pub(crate) fn refused(&self) {
        self.with(|state| {
            if let Some(episode) = &mut state.episode {
                episode.failed += 1;
            }
        });
    }

    /// Nobody's call failed, and still the trouble goes on.
    #[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
    pub(crate) fn goes_on(&self) {
        self.with(|state| {
            if let Some(episode) = &mut state.episode {
                episode.last_failure = Instant::now();
            }
        });
    }

    /// Something went well. Returns the trouble that this ends, if its beginning was logged.
    pub(crate) fn succeeded(&self) -> Option<Ended> {
        self.with(|state| {
            let over = |episode: &mut Episode| episode.last_failure.elapsed() >= self.quiet;
            let episode = state.episode.take_if(over)?;
            let failed = state.unlogged + episode.failed;
            if episode.is_logged == [false; 2] {
                state.unlogged = failed;
                return None;
            }
            state.unlogged = 0;
            Some(Ended {
                failed,
                lasted: episode.last_failure - episode.began,
            })
        })
    }

    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(all(
    test,
    any(feature = "remote-cache", feature = "object-store", feature = "redis")
))]
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
        advance(BETWEEN).await;
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

    /// As of one corrupt entry among whole ones, looked up now and then.
    #[tokio::test(start_paused = true)]
    async fn what_comes_and_goes_is_told_once_a_minute_at_most() {
        let trouble = Trouble::new(QUIET);
        let (mut begun, mut ended, mut failed) = (0, 0, 0);
        for _ in 0..360 {
            begun += u32::from(trouble.failed());
            advance(QUIET).await;
            if let Some(end) = trouble.succeeded() {
                ended += 1;
                failed += end.failed;
            }
            advance(Duration::from_secs(8)).await;
        }
        assert_eq!((begun, ended), (60, 60), "an hour");
        assert_eq!(failed, 360 - 5, "the untold ones are counted");
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_has_to_mend_is_told_beside_what_passes() {
        let trouble = Trouble::new(QUIET);
        assert!(trouble.failed());
        assert!(trouble.failed_with(Cure::Somebody));
        for cure in [Cure::Time, Cure::Somebody] {
            assert!(!trouble.failed_with(cure));
        }
        advance(QUIET).await;
        assert_eq!(trouble.succeeded().unwrap().failed, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trouble_soon_after_another_is_told_when_it_lasts() {
        let trouble = Trouble::new(QUIET);
        assert!(trouble.failed());
        advance(QUIET).await;
        assert!(trouble.succeeded().is_some());
        assert!(!trouble.failed());
        advance(Duration::from_secs(60)).await;
        assert!(trouble.failed());
        advance(QUIET).await;
        assert_eq!(trouble.succeeded().unwrap().failed, 2);
    }
}
