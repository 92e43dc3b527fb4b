//! Admission: how many searches run at a time, by priority.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Whether a user waits for the answer.
///
/// ```
/// use pipeline_cache::{LookupOptions, LookupPriority};
///
/// // A job at night, which gives way to users.
/// let options = LookupOptions::new().priority(LookupPriority::Background);
/// # let _ = options;
/// ```
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
    users: Users,
}

/// The interactive searches that run, or wait for their permit.
#[derive(Debug, Default)]
struct Users {
    searches: AtomicUsize,
    /// Notified when the last of them has ended.
    none: Notify,
}

/// A permit to search.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    permit: Option<SemaphorePermit<'a>>,
    _user: Option<User<'a>>,
}

impl Admitted<'_> {
    /// Lets another search run in place of this one, which goes on to wait.
    pub(super) fn release(&mut self) {
        self.permit = None;
    }
}

/// One interactive search. Its drop is the end of it.
#[derive(Debug)]
struct User<'a>(&'a Users);

impl<'a> User<'a> {
    fn new(users: &'a Users) -> Self {
        users.searches.fetch_add(1, Ordering::AcqRel);
        Self(users)
    }
}

impl Drop for User<'_> {
    fn drop(&mut self) {
        if self.0.searches.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
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
            users: Users::default(),
        }
    }

    /// Waits for a permit to search. The semaphores are never closed.
    pub(super) async fn acquire(
        &self,
        priority: LookupPriority,
        boost: &PriorityBoost,
    ) -> Admitted<'_> {
        if priority == LookupPriority::Background {
            tokio::select! {
                biased;
                permit = self.background.acquire() => return Admitted {
                    permit: permit.ok(),
                    _user: None,
                },
                () = boost.boosted() => {}
            }
        }
        let user = User::new(&self.users);
        Admitted {
            permit: self.interactive.acquire().await.ok(),
            _user: Some(user),
        }
    }

    /// Waits until no interactive search runs.
    pub(super) async fn no_user_waits(&self) {
        loop {
            let none = self.users.none.notified();
            let mut none = std::pin::pin!(none);
            none.as_mut().enable();
            if self.users.searches.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}
