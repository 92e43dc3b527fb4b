//! One compile of a key at a time, among all processes on a folder.
//!
//! Whoever compiles holds the lock of a file of the key's name, and removes the file while it still
//! has the lock. So the file that one has just locked may be gone already, and another of that name
//! in its place: then it is tried again. The file of a process that died is the next one's to lock,
//! or is removed when the folder is next opened.
//!
//! A lock is tried and never waited for, since what waits in the kernel cannot be called off.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Inner;
use super::directory::Directory;
use super::error::{Fault, at};
use super::lock::{compile_lock_name, is_linked, open_locked, remove_locked};
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, StoreError, StoreOperation};
use crate::sync::blocking;

/// How often a file is locked that turns out to be gone, before others are let through.
const ATTEMPTS: usize = 8;

/// A lock that another has is tried again after an eighth of the time waited so far, but:
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The right to compile a key, which one process has at a time.
#[derive(Debug)]
struct Flight(Option<LockFile>);

impl Drop for Flight {
    fn drop(&mut self) {
        blocking::discard(self.0.take());
    }
}

#[derive(Debug)]
struct LockFile {
    file: Option<File>,
    path: PathBuf,
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // A file that stays is removed by the next open of the folder.
            let _ = remove_locked(file, &self.path);
        }
    }
}

impl Inner {
    /// `None` where the cache is closed.
    pub(super) async fn compile_lease(
        self: &Arc<Self>,
        key: PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        let mut waited = Duration::ZERO;
        // What is made after a close could not be stored.
        while !self.closed.load(Ordering::SeqCst) {
            match self.run(move |inner| take(&inner.folder, &key)).await {
                Ok(Some(flight)) => return Ok(Some(self.held_leases.give(key, flight))),
                Ok(None) => {}
                Err(error) => {
                    let fault = Fault::Io(error);
                    return Err(self.failed(StoreOperation::CompileLease, Some(&key), fault));
                }
            }
            if waited.is_zero() {
                self.counters.awaited_compiles.increment();
                tracing::debug!(tier = %self, %key, "another process compiles this");
            }
            let pause = (waited / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            tokio::time::sleep(pause).await;
            waited += pause;
        }
        Ok(None)
    }
}

/// Takes the flight of a key; `None` where another has it.
fn take(folder: &Directory, key: &PipelineFingerprint) -> io::Result<Option<Flight>> {
    let name = compile_lock_name(key);
    let path = folder.staging().join(&name);
    for _ in 0..ATTEMPTS {
        match open_locked(folder, &name) {
            Ok(file) if is_linked(&file) => {
                let file = Some(file);
                return Ok(Some(Flight(Some(LockFile { file, path }))));
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
    fn a_put_that_nobody_waits_for_holds_the_lead() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        // One that can be kept busy, so that a put gets no further than to be started.
        let runtime = runtime.max_blocking_threads(1).enable_all().build();
        runtime.unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let cache = DiskCache::builder().root(folder.path());
            let cache = cache.compile_locks(true).open().await.unwrap();
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
            assert!(cache.inner.held_leases.of(&key).is_some(), "the put has it");
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            cache.inner.tasks.close();
            cache.inner.tasks.wait().await;
            assert!(cache.inner.held_leases.of(&key).is_none());
            assert!(cache.inner.folder.entry(&key).exists());
        });
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_lead_is_told_of_a_close() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let cache = DiskCache::builder().root(folder.path());
            cache.compile_locks(true).open()
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
