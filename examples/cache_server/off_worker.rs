//! What would hold up the requests that a worker serves.

use std::io;
use tokio::task::spawn_blocking;

/// File system calls, on a thread that may wait.
pub(crate) async fn run<T: Send + 'static>(
    calls: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(calls).await.map_err(io::Error::other)?
}
