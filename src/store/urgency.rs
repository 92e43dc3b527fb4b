//! Whether a user waits for the call of a tier. Calls that no user waits for leave room to the others.

use std::future::Future;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    /// Cancelled when a user waits for the call after all.
    static BACKGROUND: CancellationToken;
}

/// Runs the call of a tier that no user waits for, until `urgent` is cancelled.
pub(crate) async fn in_background<T>(
    urgent: CancellationToken,
    call: impl Future<Output = T>,
) -> T {
    BACKGROUND.scope(urgent, call).await
}

/// What is cancelled when a user waits for the call of the current task; `None` if one does already.
pub(crate) fn background() -> Option<CancellationToken> {
    let urgent = BACKGROUND.try_with(CancellationToken::clone).ok()?;
    (!urgent.is_cancelled()).then_some(urgent)
}

/// Runs a call with the urgency of the current task, also when it is spawned as a task of its own.
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
pub(crate) fn inherited<T>(call: impl Future<Output = T> + Send) -> impl Future<Output = T> + Send {
    let urgent = background();
    async move {
        match urgent {
            Some(urgent) => in_background(urgent, call).await,
            None => call.await,
        }
    }
}
