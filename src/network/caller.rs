//! The caller of a request, who may leave before the request ends.
//!
//! A call runs as a task from its start, so it makes progress whether or not its caller polls. The
//! task of a caller that leaves is not aborted: it is told, and decides whether to learn how its
//! request ends.

use std::future::{Future, pending};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::store::answer::{self, answer_begins};
use crate::sync::blocking;

#[derive(Debug, Clone, Default)]
pub(super) struct Caller {
    left: CancellationToken,
}

impl Caller {
    /// Waits while the caller does. `None` once the caller has left, whether or not `work` is done.
    pub(super) async fn waits_for<T: Send>(
        &self,
        work: impl Future<Output = T> + Send,
    ) -> Option<T> {
        tokio::select! {
            biased;
            () = self.left.cancelled() => None,
            done = work => Some(done),
        }
    }

    #[cfg(test)]
    pub(super) fn leave(&self) {
        self.left.cancel();
    }
}

/// Runs a call as a task. The call returns `None` only where its caller has left.
pub(super) async fn as_task<T, F>(call: impl FnOnce(Caller) -> F + Send) -> T
where
    T: Send + 'static,
    F: Future<Output = Option<T>> + Send + 'static,
{
    let caller = Caller::default();
    let _left = caller.left.clone().drop_guard();
    // In a box: a task is moved several times on its way, with all that it holds.
    let call = Box::pin(answer::inherited(call(caller).in_current_span()));
    let task = tokio::spawn(call);
    match blocking::join(task).await {
        Some(result) => result,
        None => pending().await,
    }
}

/// Told when the body of an answer begins, and of each part of it: the server works, however long
/// the body takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerProgress(Arc<watch::Sender<Option<Instant>>>);

impl AnswerProgress {
    pub(crate) fn signal(&self) {
        let is_first = self.0.send_replace(Some(Instant::now())).is_none();
        if is_first {
            answer_begins();
        }
    }

    /// When it was last told.
    pub(super) fn last(&self) -> Option<Instant> {
        *self.0.borrow()
    }

    /// Waits until it is told again, from this call on.
    pub(super) fn next(&self) -> impl Future<Output = ()> + Send + use<> {
        let (mut parts, sender) = (self.0.subscribe(), Arc::clone(&self.0));
        async move {
            // Never an error: the sender is kept.
            let _ = parts.changed().await;
            drop(sender);
        }
    }
}
