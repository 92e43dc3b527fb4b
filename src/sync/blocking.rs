//! Keeps heavy work off the runtime workers.
//!
//! Hashing 64 KiB takes about ten microseconds; a hop to the blocking pool takes twice that. Below
//! [`INLINE_BYTES`] the hop costs more than it saves.

use tokio::runtime::Handle;
use tokio::task::JoinError;

/// The most bytes that are hashed, compared or copied on a runtime worker, unless
/// [`consume_budget`] is called for them first.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;

/// Runs work that takes time in proportion to `bytes`: inline up to [`INLINE_BYTES`], and on the
/// blocking pool above. A panic in `work` resumes in the caller.
pub(crate) async fn run<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if bytes <= INLINE_BYTES {
        work()
    } else {
        blocking(work).await
    }
}

/// Runs work that blocks or takes long on the blocking pool. A panic in `work` resumes in the
/// caller.
///
/// The runtime refuses blocking work only while it shuts down. This future then stays pending, and
/// is dropped with the runtime. Outside of a runtime there is no pool, and no worker to block: the
/// work is done inline.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match Handle::try_current() {
        Ok(runtime) => join(runtime.spawn_blocking(work)).await,
        Err(_) => work(),
    }
}

/// Waits for a task that is never aborted. Its panic resumes in the caller. If the runtime shuts
/// down meanwhile, this future stays pending, as in [`blocking`].
pub(crate) async fn join<T>(task: impl Future<Output = Result<T, JoinError>>) -> T {
    match task.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_shutdown) => std::future::pending().await,
        },
    }
}

/// Drops a value whose drop may block, for instance a file, on the blocking pool. Drops it inline
/// outside of a runtime.
pub(crate) fn discard<T: Send + 'static>(value: T) {
    detach(move || drop(value));
}

/// Runs work on the blocking pool without waiting for it. Drops the work outside of a runtime.
pub(crate) fn detach(work: impl FnOnce() + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn_blocking(work);
    }
}

/// Consumes the task's cooperative budget for work on `bytes` that is done inline, so that a task
/// with much such work yields to others.
pub(crate) async fn consume_budget(bytes: usize) {
    /// About as much work as other operations that consume one unit of the budget.
    const BYTES_PER_UNIT: usize = 4096;
    for _ in 0..=bytes / BYTES_PER_UNIT {
        tokio::task::coop::consume_budget().await;
    }
}
