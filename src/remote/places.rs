//! How many connections to one server there may still be.
//!
//! The HTTP client tells when it opens a connection and never when one is closed. It need not: it
//! opens another only when none is idle. So all there are then are those that requests hold, those
//! being opened, and those whose request has ended a moment ago.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// How long a connection may take to come back once its answer was read. Only a process that gets
/// no time takes this long, or a server that closes its connections without a word.
const COMING_BACK: Duration = Duration::from_millis(250);

/// How long the client's task may take to close a connection that nobody wants any more.
const CLOSING: Duration = Duration::from_millis(20);

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    counts: Mutex<Counts>,
    /// A place is free, or will be sooner than those who wait know.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Held by a request, or being opened.
    taken: usize,
    /// When they were done with, oldest first. Which one comes back first nobody can tell, so the
    /// oldest is taken to: then none is given up too soon.
    coming_back: VecDeque<Instant>,
    /// When they were given up, oldest first.
    closing: VecDeque<Instant>,
}

/// What a request leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A connection for the next one.
    Returns,
    /// A connection that is good for nothing more.
    Closes,
    /// None that was its own.
    Shared,
}

impl Places {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            counts: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// What counts by now.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.forget_old();
        counts
    }

    /// Whether there is no connection that counts.
    pub(super) fn are_free(&self) -> bool {
        self.counts().all() == 0
    }

    /// A request has got a connection that was idle or came back.
    pub(super) fn reuse(&self) {
        let mut counts = self.counts();
        counts.coming_back.pop_front();
        counts.taken += 1;
    }

    /// A request has ended that held a connection.
    pub(super) fn end(&self, end: End) {
        let mut counts = self.counts();
        counts.taken -= 1;
        match end {
            // Whoever waits gets it from the client.
            End::Returns => return counts.coming_back.push_back(Instant::now()),
            End::Closes => counts.closing.push_back(Instant::now()),
            End::Shared => {}
        }
        drop(counts);
        self.freed.notify_waiters();
    }

    /// Waits for the place of one more.
    pub(super) async fn one_more(self: Arc<Self>) -> Place {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // From here on none is missed.
            freed.as_mut().enable();
            let next = self.counts().take(self.most);
            let Err(next) = next else { break };
            tokio::select! {
                () = freed => {}
                () = sleep_until(next) => {}
            }
        }
        Place(Some(self))
    }
}

impl Counts {
    fn all(&self) -> usize {
        self.taken + self.coming_back.len() + self.closing.len()
    }

    fn forget_old(&mut self) {
        let forget = |since: &mut VecDeque<Instant>, time| {
            while since.front().is_some_and(|at| at.elapsed() >= time) {
                since.pop_front();
            }
        };
        forget(&mut self.coming_back, COMING_BACK);
        forget(&mut self.closing, CLOSING);
    }

    /// Takes a place, or says when one may be free. That all are taken ends with a notice.
    fn take(&mut self, most: usize) -> Result<(), Instant> {
        if self.all() < most {
            self.taken += 1;
            return Ok(());
        }
        let back = self.coming_back.front().map(|at| *at + COMING_BACK);
        let closed = self.closing.front().map(|at| *at + CLOSING);
        let next = back.into_iter().chain(closed).min();
        Err(next.unwrap_or_else(|| Instant::now() + COMING_BACK))
    }
}

/// The place of a connection that is being opened. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<Places>>);

impl Place {
    /// The connection is open, and a request's.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }

    /// The connection is open, and nobody's.
    pub(super) fn leave(mut self) {
        if let Some(places) = self.0.take() {
            places.end(End::Returns);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.0.take() {
            places.end(End::Shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use tokio::time::advance;

    const MS: Duration = Duration::from_millis(1);

    fn places(most: usize) -> Arc<Places> {
        Arc::new(Places::new(most))
    }

    /// One more, and how long it took.
    async fn one_more(places: &Arc<Places>) -> (Place, Duration) {
        let began = Instant::now();
        let place = Arc::clone(places).one_more().await;
        (place, began.elapsed())
    }

    /// So many connections of requests.
    async fn held(places: &Arc<Places>, connections: usize) {
        for _ in 0..connections {
            let (place, waited) = one_more(places).await;
            assert_eq!(waited, Duration::ZERO);
            place.keep();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_opened_than_there_may_be() {
        let places = places(2);
        held(&places, 1).await;
        let (opening, _) = one_more(&places).await;
        let mut third = Box::pin(Arc::clone(&places).one_more());
        assert!((&mut third).now_or_never().is_none());
        advance(10 * COMING_BACK).await;
        assert!((&mut third).now_or_never().is_none());
        // One that cannot be opened is none.
        drop(opening);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_wants_stands_in_the_way_for_a_moment() {
        let places = places(2);
        held(&places, 2).await;
        places.end(End::Closes);
        advance(5 * MS).await;
        places.end(End::Closes);
        let (place, waited) = one_more(&places).await;
        assert!((15 * MS..18 * MS).contains(&waited), "{waited:?}");
        place.keep();
        let (_place, waited) = one_more(&places).await;
        assert!((4 * MS..8 * MS).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_said_to_come_back_is_waited_for_but_not_for_ever() {
        let places = places(1);
        held(&places, 1).await;
        places.end(End::Returns);
        advance(100 * MS).await;
        let (_place, waited) = one_more(&places).await;
        let left = COMING_BACK - 100 * MS;
        assert!((left..left + 5 * MS).contains(&waited), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_one_to_come_back_is_told_of_one_that_is_given_up() {
        let places = places(2);
        held(&places, 2).await;
        places.end(End::Returns);
        let mut third = Box::pin(one_more(&places));
        assert!((&mut third).now_or_never().is_none());
        places.end(End::Closes);
        let (_place, waited) = third.await;
        assert!((20 * MS..25 * MS).contains(&waited), "{waited:?}");
    }

    /// A busy client always has some that are on their way back.
    #[tokio::test(start_paused = true)]
    async fn those_that_come_back_are_never_taken_for_gone() {
        let places = places(3);
        held(&places, 3).await;
        places.end(End::Returns);
        places.end(End::Returns);
        let mut other = Box::pin(Arc::clone(&places).one_more());
        for _ in 0..100 {
            places.reuse();
            advance(COMING_BACK / 4).await;
            assert!((&mut other).now_or_never().is_none());
            places.end(End::Returns);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_for_long_does_not_count() {
        let places = places(1);
        held(&places, 1).await;
        places.end(End::Returns);
        assert!(!places.are_free());
        advance(COMING_BACK).await;
        assert!(places.are_free());
        // A request that gets it all the same holds it.
        places.reuse();
        let mut other = Box::pin(Arc::clone(&places).one_more());
        assert!((&mut other).now_or_never().is_none());
        places.end(End::Shared);
        assert!(other.now_or_never().is_some());
    }
}
