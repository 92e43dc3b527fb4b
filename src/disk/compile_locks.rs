//! One compile of a key at a time, among all processes on a folder.
//!
//! Whoever compiles a key holds the lock of a file of the key's name, and removes the file before it
//! releases the lock. So a file that was just locked may have no name any more, while another file
//! has taken the name: then the lock is tried again. The file of a process that died is locked by
//! the next process that compiles the key, or removed when the folder is next opened.
//!
//! A lock is tried and never waited for, because a wait in the kernel cannot be cancelled.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::directory::Directory;
use super::error::{Fault, at};
use super::lock::{compile_lock_name, is_linked, open_locked, remove_locked};
use super::shared::Shared;
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::{CompileLease, StoreError, StoreOperation, answer_begins};
use crate::sync::blocking;

/// How often a file is locked that turns out to have no name.
const ATTEMPTS: usize = 8;

/// The pause before a lock is tried again: an eighth of the time waited so far, within these bounds.
const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Grants compile leases.
#[derive(Debug)]
pub(super) struct CompileLocks {
    shared: Arc<Shared>,
    held: HeldLeases,
}

impl CompileLocks {
    /// Writers find the leases in `held`.
    pub(super) fn new(shared: &Arc<Shared>, held: &HeldLeases) -> Self {
        Self {
            shared: Arc::clone(shared),
            held: held.clone(),
        }
    }

    /// `None` where the cache is closed: nobody could store what is compiled.
    pub(super) async fn lease(
        &self,
        key: PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        let shared = &self.shared;
        let mut waited = Duration::ZERO;
        while !shared.is_closed() {
            let lock = {
                let shared = Arc::clone(shared);
                move || lock(&shared.directory, &key)
            };
            match shared.operations.run(lock).await {
                Ok(Some(lock)) => return Ok(Some(self.held.give(key, lock))),
                Ok(None) => {}
                Err(error) => {
                    let operation = StoreOperation::CompileLease;
                    return Err(shared.failed(operation, Some(&key), Fault::Io(error)));
                }
            }
            if waited.is_zero() {
                answer_begins();
                shared.counters.awaited_compiles.increment();
                tracing::debug!(tier = %shared, %key, "waiting for the compile lock of another process");
            }
            let pause = (waited / 8).clamp(MIN_PAUSE, MAX_PAUSE);
            tokio::time::sleep(pause).await;
            waited += pause;
        }
        Ok(None)
    }
}

/// The lock of a key. Released on the blocking pool when it is dropped.
#[derive(Debug)]
struct CompileLock(Option<LockedFile>);

impl Drop for CompileLock {
    fn drop(&mut self) {
        blocking::discard(self.0.take());
    }
}

/// A lock file that is removed when it is dropped.
#[derive(Debug)]
struct LockedFile {
    file: Option<File>,
    path: PathBuf,
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // The next open of the folder removes a file that stays.
            let _ = remove_locked(file, &self.path);
        }
    }
}

/// Takes the compile lock of a key. `None` where another holds it.
fn lock(directory: &Directory, key: &PipelineFingerprint) -> io::Result<Option<CompileLock>> {
    let path = directory.staging().join(compile_lock_name(key));
    for _ in 0..ATTEMPTS {
        match open_locked(directory, &path) {
            Ok(file) if is_linked(&file) => {
                let file = Some(file);
                return Ok(Some(CompileLock(Some(LockedFile { file, path }))));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(at("lock", &path)(error)),
        }
    }
    Ok(None)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::artifact::Artifact;
    use crate::disk::DiskCache;
    use crate::store::{CompileLeases as _, PipelineCacheStore as _};
    use futures::poll;
    use std::pin::pin;
    use std::sync::mpsc;

    /// As at the deadline of a write, or when a close gives up on it: the write goes on.
    #[test]
    fn a_put_whose_caller_has_gone_holds_the_compile_lease() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        // One blocking thread, which the test keeps busy: a put gets no further than to begin.
        let runtime = runtime.max_blocking_threads(1).enable_all().build();
        runtime.unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let cache = DiskCache::builder().root(folder.path());
            let cache = cache.compile_locks().open().await.unwrap();
            let key = PipelineFingerprint::from_bytes([1; 32]);
            let lease = cache.compile_lease(&key).await.unwrap();
            let (release, gate) = mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || gate.recv());
            {
                let mut put = pin!(cache.put(&key, Artifact::new("code")));
                assert!(poll!(&mut put).is_pending());
            }
            tokio::task::yield_now().await;
            drop(lease);
            let held = &cache.compile_locks.as_ref().unwrap().held;
            assert!(held.of(&key).is_some(), "the put holds it");
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            cache.shared.tasks.close();
            cache.shared.tasks.wait().await;
            assert!(held.of(&key).is_none());
            assert!(cache.shared.directory.entry(&key).exists());
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_ends_the_wait_for_a_compile_lease() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let cache = DiskCache::builder().root(folder.path());
            cache.compile_locks().open()
        };
        let (first, second) = (open().await.unwrap(), open().await.unwrap());
        let key = PipelineFingerprint::from_bytes([1; 32]);
        let lease = first.compile_lease(&key).await.unwrap();
        assert!(lease.is_some());
        let waiter = tokio::spawn({
            let second = second.clone();
            async move { second.compile_lease(&key).await }
        });
        while second.metrics().awaited_compiles == 0 {
            tokio::task::yield_now().await;
        }
        second.close(Duration::from_secs(60)).await.unwrap();
        let waited = tokio::time::timeout(Duration::from_secs(60), waiter).await;
        let none = waited.expect("a closed cache stores nothing");
        assert!(none.unwrap().unwrap().is_none());
        drop(lease);
    }
}
