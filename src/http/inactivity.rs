//! How long a request may stand still.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::network::{RequestError, after};

/// One timer for all the pauses of a request: it is set anew only when it fires, since most
/// requests have ended by then.
#[derive(Debug)]
pub(super) struct Inactivity {
    limit: Duration,
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Inactivity {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            moved: Instant::now(),
            timer: Box::pin(sleep_until(after(limit))),
        }
    }

    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Something happens: the pause begins anew.
    pub(super) fn moves(&mut self) {
        self.moved = Instant::now();
    }

    /// What comes of a step, if it comes before the pause is too long.
    pub(super) async fn limits<T>(
        &mut self,
        what: &str,
        step: impl Future<Output = T> + Send,
    ) -> Result<T, RequestError> {
        tokio::select! {
            // A runtime that was held up finds everything ready at once: what came counts before
            // the time it took.
            biased;
            ended = step => Ok(ended),
            () = self.is_too_long() => Err(RequestError::timed_out(what, self.limit)),
        }
    }

    async fn is_too_long(&mut self) {
        loop {
            self.timer.as_mut().await;
            let left = self.limit.saturating_sub(self.moved.elapsed());
            if left.is_zero() {
                return;
            }
            self.timer.as_mut().reset(after(left));
        }
    }
}
