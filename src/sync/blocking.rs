//! Where heavy work runs: not on a runtime worker.
//!
//! Hashing 64 KiB takes about ten microseconds, a hop to the blocking pool twice that. Below the
//! threshold the hop costs more than it saves.

use tokio::runtime::Handle;
use tokio::task::{self, JoinError};

/// The most bytes that are hashed, compared or copied on a runtime worker, unless they are
/// [paid for](consume_budget) first.
pub(crate) const INLINE_BYTES: usize = 64 * 1024;

/// Runs work in proportion to `bytes`, inline where it is little and on the blocking pool where
/// it is much. A panic in `work` resumes in the caller.
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

/// Runs work that waits, or takes long, on the blocking pool. A panic in `work` resumes in the
/// caller.
///
/// The runtime only refuses blocking work while it shuts down. This future is then never
/// finished and soon dropped, as every other on that runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    join(task::spawn_blocking(work)).await
}

/// What a task that nobody aborts returns. Its panic resumes in the caller; when the runtime shuts
/// down under it, this future is never finished, as in [`blocking`].
pub(crate) async fn join<T>(task: impl Future<Output = Result<T, JoinError>>) -> T {
    match task.await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_shutdown) => std::future::pending().await,
        },
    }
}

/// Drops a value whose drop waits, as that of a file may, on the blocking pool. Inline where there
/// is no runtime any more.
pub(crate) fn discard<T: Send + 'static>(value: T) {
    detach(move || drop(value));
}

/// Runs work on the blocking pool for which nobody waits. Drops it where there is no runtime.
pub(crate) fn detach(work: impl FnOnce() + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn_blocking(work);
    }
}

/// Takes its share of a task's turn on the worker for work that was done inline, so that a task
/// with much such work lets others run.
pub(crate) async fn consume_budget(bytes: usize) {
    /// About as much work as other operations that take one unit of the budget.
    const BYTES_PER_UNIT: usize = 4096;
    for _ in 0..=bytes / BYTES_PER_UNIT {
        tokio::task::coop::consume_budget().await;
    }
}
