//! The limit on operations that run at the same time, and tasks that do not depend on their caller.
//!
//! A caller may drop its future, or keep it and never poll it again. A permit that such a future
//! holds, or has been assigned in a queue, would be lost to all others. So no caller's future waits
//! in a queue or holds a permit: work on the blocking pool holds it, or a task does.

use futures::FutureExt as _;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::sync::blocking;

/// The right to run one operation.
pub(crate) type Permit = OwnedSemaphorePermit;

/// The limit on operations of one tier.
#[derive(Debug)]
pub(crate) struct Operations {
    permits: Arc<Semaphore>,
}

impl Operations {
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self {
            permits: Arc::new(Semaphore::new(limit)),
        }
    }

    /// Runs `work` on the blocking pool with a permit, which `work` holds until it returns. If all
    /// permits are taken, a task waits for one, and is aborted when this future is dropped.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        match self.try_permit() {
            Some(permit) => run_with(Some(permit), work).await,
            None => {
                let permits = Arc::clone(&self.permits);
                in_task(async move { run_with(permits.acquire_owned().await.ok(), work).await })
                    .await
            }
        }
    }

    /// A permit, if one is free.
    pub(crate) fn try_permit(&self) -> Option<Permit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// A permit, for a task to hold. `None` never comes, because the semaphore is never closed.
    pub(crate) async fn permit(&self) -> Option<Permit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

/// Runs `work` on the blocking pool, and releases the permit when it returns.
pub(crate) async fn run_with<T: Send + 'static>(
    permit: Option<Permit>,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    blocking::blocking(move || {
        let _permit = permit;
        work()
    })
    .await
}

/// Runs a future in a task of its own, so that it gets on whether or not this one is polled. When
/// this one is dropped, the task is aborted.
pub(crate) async fn in_task<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    blocking::join(AbortOnDropHandle::new(tokio::spawn(future))).await
}

/// Runs `admission`, and then `work` on what it returns, in a task of its own. When this future is
/// dropped before the admission, both are cancelled. Work that has begun is finished.
///
/// An admission that need not wait is taken at the first poll of this future, before any later call
/// can be admitted. An admission that waits is not taken once this future is dropped: otherwise a
/// call that was given up could still take effect after a later one has returned.
pub(crate) async fn once_admitted<A, T, W>(
    admission: impl Future<Output = A> + Send + 'static,
    work: impl FnOnce(A) -> W + Send + 'static,
) -> T
where
    A: Send + 'static,
    T: Send + 'static,
    W: Future<Output = T> + Send + 'static,
{
    let mut admission = Box::pin(admission);
    if let Some(admitted) = admission.as_mut().now_or_never() {
        return blocking::join(tokio::spawn(work(admitted))).await;
    }
    let given_up = CancellationToken::new();
    let _caller = given_up.clone().drop_guard();
    let task = tokio::spawn(async move {
        let admitted = tokio::select! {
            biased;
            () = given_up.cancelled() => return None,
            admitted = admission => admitted,
        };
        Some(work(admitted).await)
    });
    match blocking::join(task).await {
        Some(done) => done,
        // Given up, so this future is being dropped.
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::pin::pin;
    use std::sync::mpsc;

    /// One of a thousand futures is given a permit that it never comes to use.
    #[tokio::test]
    async fn a_caller_that_is_never_polled_again_keeps_no_permit() {
        let operations = Operations::new(1);
        let (release, gate) = mpsc::channel::<()>();
        let mut first = pin!(operations.run(move || gate.recv().is_ok()));
        assert!(poll!(&mut first).is_pending());
        let mut left_alone = pin!(operations.run(|| ()));
        assert!(poll!(&mut left_alone).is_pending());
        release.send(()).unwrap();
        for number in 0..1000 {
            assert_eq!(operations.run(move || number).await, number);
        }
        assert!(first.await);
        left_alone.await;
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_waits_in_no_queue() {
        let operations = Operations::new(1);
        let permit = operations.try_permit();
        {
            let mut waits = pin!(operations.run(|| panic!("its caller has given up")));
            assert!(poll!(&mut waits).is_pending());
            tokio::task::yield_now().await;
        }
        drop(permit);
        for _ in 0..10 {
            operations.run(|| ()).await;
        }
    }

    #[tokio::test]
    async fn work_that_was_admitted_is_finished_and_other_work_is_not_begun() {
        for waits in [false, true] {
            let (done, finished) = tokio::sync::oneshot::channel();
            {
                let admission = async move {
                    if waits {
                        pending::<()>().await;
                    }
                };
                let work = move |()| async move { done.send(()) };
                let mut call = pin!(once_admitted(admission, work));
                assert!(poll!(&mut call).is_pending());
            }
            assert_eq!(finished.await.is_ok(), !waits);
        }
    }

    #[tokio::test]
    async fn an_abandoned_call_does_no_work_once_it_is_admitted_later() {
        let (admit, admission) = tokio::sync::oneshot::channel::<()>();
        let (done, finished) = tokio::sync::oneshot::channel();
        {
            let work = move |_| async move { done.send(()) };
            let mut call = pin!(once_admitted(admission, work));
            assert!(poll!(&mut call).is_pending());
        }
        // The task finds both when it is polled: that it is admitted, and that its caller has gone.
        admit.send(()).unwrap();
        assert!(finished.await.is_err());
    }

    #[tokio::test]
    async fn an_admission_that_need_not_wait_is_taken_at_the_first_poll() {
        let (taken, admissions) = mpsc::channel();
        let admission = async move { taken.send(()).unwrap() };
        let mut call = pin!(once_admitted(admission, |()| async {}));
        assert!(poll!(&mut call).is_pending());
        assert!(admissions.try_recv().is_ok(), "a later call may come first");
        call.await;
    }
}
