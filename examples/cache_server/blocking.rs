//! File system calls that would block the worker thread of other requests.

use std::io;
use tokio::task::spawn_blocking;

/// Runs file system calls on the blocking pool.
pub(crate) async fn run<T: Send + 'static>(
    calls: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(calls).await.map_err(io::Error::other)?
}
