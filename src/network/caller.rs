//! The caller of a request, who may leave before the request ends.
//!
//! A call runs as a task from its start, so it makes progress whether or not its caller polls. The
//! task of a caller that leaves is not aborted: it is told, and decides whether to learn how its
//! request ends.

use futures::task::AtomicWaker;
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::store::answer::{self, answer_begins};
use crate::store::urgency;
use crate::sync::blocking;
use crate::sync::lock::lock;

/// A clone is the same caller. One task at a time waits with it.
#[derive(Debug, Clone, Default)]
pub(super) struct Caller(Arc<Presence>);

#[derive(Debug, Default)]
struct Presence {
    has_left: AtomicBool,
    /// Of the task that is to learn of it.
    waker: AtomicWaker,
}

impl Caller {
    /// Waits while the caller does. `None` once the caller has left, whether or not `work` is done.
    pub(super) async fn waits_for<T: Send>(
        &self,
        work: impl Future<Output = T> + Send,
    ) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.0.waker.register(cx.waker());
            match self.0.has_left.load(Ordering::Acquire) {
                true => Poll::Ready(None),
                false => work.as_mut().poll(cx).map(Some),
            }
        })
        .await
    }

    pub(super) fn leave(&self) {
        self.0.has_left.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

/// Its drop is the caller's.
struct LeavesOnDrop(Caller);

impl Drop for LeavesOnDrop {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Runs a call as a task. The call returns `None` only where its caller has left.
pub(super) async fn as_task<T, F>(call: impl FnOnce(Caller) -> F + Send) -> T
where
    T: Send + 'static,
    F: Future<Output = Option<T>> + Send + 'static,
{
    let caller = Caller::default();
    let _leaves = LeavesOnDrop(caller.clone());
    // In a box: a task is moved several times on its way, with all that it holds.
    let call = answer::inherited(call(caller).in_current_span());
    let call = Box::pin(urgency::inherited(call));
    let task = tokio::spawn(call);
    match blocking::join(task).await {
        Some(result) => result,
        None => pending().await,
    }
}

/// Told when the body of an answer begins, and of each part of it: the server works, however long
/// the body takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerProgress(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    last: Mutex<Option<Instant>>,
    next: Notify,
}

impl AnswerProgress {
    pub(crate) fn signal(&self) {
        let is_first = lock(&self.0.last).replace(Instant::now()).is_none();
        self.0.next.notify_waiters();
        if is_first {
            answer_begins();
        }
    }

    /// When it was last told.
    pub(super) fn last(&self) -> Option<Instant> {
        *lock(&self.0.last)
    }

    /// Waits until it is told again, from this call on.
    pub(super) fn next(&self) -> Notified<'_> {
        self.0.next.notified()
    }
}
