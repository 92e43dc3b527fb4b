//! Flush: makes durable what was put, and bounds the number of entries that await it.
//!
//! A medium that fails to sync is likely to go on failing. Then a flush writes few of the suspect
//! entries again, and puts start no flush for a while, which grows.

use bytes::Buf as _;
use futures::stream::{self, StreamExt as _};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::ledger::{Due, Ledger};
use crate::disk::directory::{Found, SyncError};
use crate::disk::error::{Failures, Fault};
use crate::disk::reader::Reader;
use crate::disk::shared::Shared;
use crate::disk::staging::{Durable, Frame, Place, Staged, Staging, publish};
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreOperation};
use crate::sync::blocking;
use crate::sync::operations::{in_task, once_admitted};

/// How many entries a flush syncs at once. File systems put concurrent syncs into one commit.
const CONCURRENT_SYNCS: usize = 16;

/// For how long puts start no flush after one that made nothing durable. Doubled after each further
/// one.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Makes entries durable.
#[derive(Debug)]
pub(in crate::disk) struct Durability {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    reader: Arc<Reader>,
    staging: Arc<Staging>,
    max_pending: usize,
    /// One flush at a time.
    flushing: Arc<tokio::sync::Mutex<()>>,
    backoff: FlushBackoff,
}

/// A place for one more entry to await a flush. Given back when the put is over; by then its entry
/// is counted itself.
#[derive(Debug)]
pub(in crate::disk) struct Reservation(Arc<Ledger>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Durability {
    pub(in crate::disk) fn new(
        shared: &Arc<Shared>,
        ledger: &Arc<Ledger>,
        reader: &Arc<Reader>,
        staging: &Arc<Staging>,
        max_pending: usize,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            ledger: Arc::clone(ledger),
            reader: Arc::clone(reader),
            staging: Arc::clone(staging),
            max_pending,
            flushing: Arc::default(),
            backoff: FlushBackoff::default(),
        }
    }

    /// Reserves a place for a put, and flushes where none is free. Called in the task of the put.
    pub(in crate::disk) async fn make_room(self: &Arc<Self>) -> Result<Reservation, StoreError> {
        loop {
            let mut released = pin!(self.ledger.released.notified());
            // Registered before the look, so that no release falls between the two.
            released.as_mut().enable();
            if let Some(place) = self.reserve() {
                self.flush_ahead();
                return Ok(place);
            }
            let flushing = self.flushing.lock().await;
            // The flush that held the lock may have made room for many.
            if let Some(place) = self.reserve() {
                return Ok(place);
            }
            let (pending, reason) = (self.ledger.len(), self.backoff.reason());
            if let Some(reason) = reason.as_ref().filter(|_| pending >= self.max_pending) {
                let refused = self.shared.error(reason.kind(), StoreOperation::Put);
                return Err(refused.with_source(reason.clone()));
            }
            if pending == 0 || reason.is_some() {
                // All places are those of puts that have not finished.
                drop(flushing);
                released.await;
                continue;
            }
            let flushed = self.flush_locked(StoreOperation::Put).await;
            // As long as there is room now, another entry's failure is not this put's.
            if let Some(place) = self.reserve() {
                return Ok(place);
            }
            flushed?;
        }
    }

    fn reserve(&self) -> Option<Reservation> {
        let reserved = self.ledger.reserve(self.max_pending);
        reserved.then(|| Reservation(Arc::clone(&self.ledger)))
    }

    /// Starts a flush in the background where half of the places are taken.
    fn flush_ahead(self: &Arc<Self>) {
        if self.ledger.len() * 2 < self.max_pending || self.backoff.reason().is_some() {
            return;
        }
        // If the lock is taken, a flush is running already.
        let Ok(flushing) = Arc::clone(&self.flushing).try_lock_owned() else {
            return;
        };
        let durability = Arc::clone(self);
        self.shared.tasks.spawn(async move {
            // A failure is traced and counted, and what failed is still pending.
            let _ = durability.flush_locked(StoreOperation::Flush).await;
            drop(flushing);
        });
    }

    /// Flushes in a task, which is aborted when this future is dropped.
    pub(in crate::disk) async fn flush(
        self: &Arc<Self>,
        operation: StoreOperation,
    ) -> Result<(), StoreError> {
        let durability = Arc::clone(self);
        in_task(async move {
            // A flush that runs now may have looked at the ledger before the caller's last put.
            let _flushing = durability.flushing.lock().await;
            durability.flush_locked(operation).await
        })
        .await
    }

    async fn flush_locked(self: &Arc<Self>, operation: StoreOperation) -> Result<(), StoreError> {
        let flushed = self.sync_all(operation).await;
        match flushed {
            Ok(()) => self.shared.counters.flushes.increment(),
            Err(_) => self.shared.counters.flush_errors.increment(),
        }
        flushed
    }

    /// Makes everything durable that is pending, as far as the medium allows.
    async fn sync_all(self: &Arc<Self>, operation: StoreOperation) -> Result<(), StoreError> {
        let mut due = self.ledger.due();
        let count = due.len();
        let fresh = due.partition_point(|due| due.failed_syncs == 0);
        // All that are not suspect, and a few that are, come first. If the medium cannot sync their
        // names, the rest would be written again for nothing.
        let rest = due.split_off(due.len().min(fresh + CONCURRENT_SYNCS));
        let (mut failures, failed_rewrites) = (Failures::default(), AtomicUsize::new(0));
        let mut settled = 0;
        for some in [due, rest] {
            match self.sync_some(some, &failed_rewrites, &mut failures).await {
                Some(more) => settled += more,
                None => break,
            }
        }
        let failed = failures
            .into_first()
            .map(|(key, fault)| self.shared.failed(operation, Some(&key), fault));
        match &failed {
            // The medium works: the failures are those of single entries.
            Some(_) if settled > 0 => self.backoff.note(None),
            // One entry alone tells nothing of the medium.
            Some(_) if count == 1 => {}
            failed => self.backoff.note(failed.as_ref()),
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes these entries durable, except for failures. Returns how many are durable, or `None`
    /// where their names cannot be synced.
    async fn sync_some(
        self: &Arc<Self>,
        due: Vec<Due>,
        failed_rewrites: &AtomicUsize,
        failures: &mut Failures,
    ) -> Option<usize> {
        let mut synced = Vec::new();
        let syncs = due
            .into_iter()
            .map(|due| async move { (due, self.sync_data(due, failed_rewrites).await) });
        let mut syncs = stream::iter(syncs).buffer_unordered(CONCURRENT_SYNCS);
        while let Some((due, outcome)) = syncs.next().await {
            match outcome {
                Ok(true) => synced.push(due),
                Ok(false) => {}
                Err(fault) => failures.note(&due.key, fault),
            }
        }
        let first = synced.first().copied();
        let Some(first) = first else {
            return Some(0);
        };
        let (count, durability) = (synced.len(), Arc::clone(self));
        // The root, the staging folder and the ledger in one closure: one hop for a batch.
        let settle = move || durability.sync_names(&synced);
        match self.shared.operations.run(settle).await {
            Ok(()) => Some(count),
            Err(fault) => {
                failures.note(&first.key, fault);
                None
            }
        }
    }

    /// Makes the data of an entry durable, if there still is one. Returns whether that was tried: a
    /// suspect entry is passed over once as many rewrites have failed as run at once.
    async fn sync_data(
        self: &Arc<Self>,
        due: Due,
        failed_rewrites: &AtomicUsize,
    ) -> Result<bool, Fault> {
        if due.failed_syncs == 0 {
            let durability = Arc::clone(self);
            // Open, inspect and sync in one closure. A flush runs 16 of them at once, and their
            // hops would cost as much as a sync does on a fast disk.
            let sync = move || durability.sync_entry(&due);
            return self.shared.operations.run(sync).await;
        }
        if failed_rewrites.load(Ordering::Relaxed) >= CONCURRENT_SYNCS {
            return Ok(false);
        }
        let (waiting, durability) = (Arc::clone(self), Arc::clone(self));
        let admission = async move {
            let key_lock = waiting.shared.key_locks.lock(&due.key).await;
            let permit = waiting.shared.operations.permit().await;
            (waiting.shared.tasks.token(), key_lock, permit)
        };
        // Once begun, it is finished even when the flush is dropped: until its end it holds the lock
        // of the key, so that it cannot bring back an entry that is being removed. One that still
        // waits ends with its flush, so that no more of them wait than flushes run.
        let rewrite = once_admitted(admission, move |admitted| async move {
            let _admitted = admitted;
            durability.rewrite(due.key).await
        });
        match rewrite.await {
            Ok(()) => {
                failed_rewrites.store(0, Ordering::Relaxed);
                Ok(true)
            }
            Err(fault) => {
                failed_rewrites.fetch_add(1, Ordering::Relaxed);
                self.ledger.suspect([&due.key]);
                Err(fault)
            }
        }
    }

    fn sync_entry(&self, due: &Due) -> Result<bool, Fault> {
        match self.shared.directory.sync_entry(&due.key) {
            Ok(_) => Ok(true),
            Err(SyncError::Open(error)) => Err(error.into()),
            Err(SyncError::Sync(error)) => {
                self.ledger.suspect([&due.key]);
                Err(error.into())
            }
        }
    }

    /// Writes a suspect entry again, durably, from what can be read of it. The caller holds the lock
    /// of the key and a permit.
    async fn rewrite(self: &Arc<Self>, key: PipelineFingerprint) -> Result<(), Fault> {
        let entry = self.shared.directory.entry(&key);
        let begin = |place| {
            let durability = Arc::clone(self);
            blocking::blocking(move || durability.begin_rewrite(&key, place))
        };
        publish(&entry, Durable::Now, begin).await.map(drop)
    }

    /// Reads and verifies the entry, and creates the file that replaces it. `None` where there is
    /// nothing to write.
    fn begin_rewrite(
        &self,
        key: &PipelineFingerprint,
        place: Place,
    ) -> Result<Option<(Frame, Staged)>, Fault> {
        let directory = &self.shared.directory;
        let artifact = match directory.read(key) {
            Ok(Found::Whole(artifact)) => artifact,
            Ok(Found::Missing) | Err(Fault::NotAFile(_)) => {
                return self.report_loss(key).map(|()| None);
            }
            Ok(Found::Corrupt(file, error)) => {
                self.reader.set_aside_locked(key, &file, error);
                return self.report_loss(key).map(|()| None);
            }
            // Another process replaced it.
            Ok(Found::Foreign(..)) => return self.report_loss(key).map(|()| None),
            Err(fault) => return Err(fault),
        };
        let head = directory.format.encode_head(key, &artifact);
        let head = head.map_err(io::Error::other)?;
        let staged = self.staging.stage(directory, &self.shared.tasks, place)?;
        Ok(Some((head.chain(artifact.payload().clone()), staged)))
    }

    /// An error if the entry was accepted and never removed. It is pending no more after that, so
    /// that its loss is reported once.
    fn report_loss(&self, key: &PipelineFingerprint) -> Result<(), Fault> {
        if !self.ledger.forget(key) {
            return Ok(());
        }
        let entry = self.shared.directory.entry(key);
        let lost = format!("{} was lost before it was durable", entry.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, lost).into())
    }

    /// Makes the names in the folder durable, and with them the entries whose data is.
    fn sync_names(&self, synced: &[Due]) -> Result<(), Fault> {
        match self.shared.directory.sync() {
            Ok(()) => {
                self.ledger.settle(synced);
                Ok(())
            }
            Err(error) => {
                self.ledger.suspect(synced.iter().map(|due| &due.key));
                Err(error.into())
            }
        }
    }
}

/// The last flush, if it made nothing durable: for a while, puts start no other.
#[derive(Debug, Default)]
struct FlushBackoff(Mutex<Option<Failed>>);

#[derive(Debug)]
struct Failed {
    error: StoreError,
    pause: Duration,
    until: Option<Instant>,
}

impl FlushBackoff {
    fn note(&self, error: Option<&StoreError>) {
        let mut last = self.lock();
        let pause = last.take().map_or(MIN_PAUSE, |failed| failed.pause * 2);
        *last = error.map(|error| {
            let pause = pause.min(MAX_PAUSE);
            Failed {
                error: error.clone(),
                pause,
                until: Instant::now().checked_add(pause),
            }
        });
    }

    /// Why no put may start a flush now.
    fn reason(&self) -> Option<StoreError> {
        let last = self.lock();
        let failed = last.as_ref()?;
        let over = failed.until.is_some_and(|until| Instant::now() >= until);
        (!over).then(|| failed.error.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Artifact;
    use crate::disk::DiskCache;
    use crate::store::{PipelineCacheStore as _, StoreErrorKind};

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    async fn cache(root: &std::path::Path) -> DiskCache {
        let cache = DiskCache::new(root).await.unwrap();
        cache.put(&KEY, Artifact::new("code")).await.unwrap();
        cache
    }

    /// As when the kernel fails to write an entry, drops its pages, and reads what the medium has.
    #[tokio::test]
    async fn a_loss_is_reported_exactly_once() {
        // The entry is suspect before it is found torn, or afterwards.
        for (suspect, read) in [(true, false), (true, true), (false, true)] {
            let folder = tempfile::tempdir().unwrap();
            let cache = cache(folder.path()).await;
            if suspect {
                cache.durability.ledger.suspect([&KEY]);
            }
            std::fs::write(cache.shared.directory.entry(&KEY), "torn").unwrap();
            if read {
                assert_eq!(cache.get(&KEY).await.unwrap(), None);
            }
            let error = cache.flush().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Io);
            assert!(format!("{error:#}").contains("was lost"), "{error:#}");
            cache.flush().await.unwrap();
            assert!(cache.durability_report().durable);
        }
    }

    /// As when a process with another secret replaced a suspect entry.
    #[tokio::test]
    async fn a_foreign_entry_in_place_of_a_lost_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path()).await;
        cache.durability.ledger.suspect([&KEY]);
        let entry = cache.shared.directory.entry(&KEY);
        let keys = crate::artifact::SharedSecret::new("theirs").into();
        let theirs = Artifact::new("code").to_frame(&KEY, Some(&keys)).unwrap();
        std::fs::write(&entry, &theirs).unwrap();
        cache.flush().await.unwrap_err();
        assert_eq!(std::fs::read(&entry).unwrap(), theirs);
        cache.flush().await.unwrap();
    }

    #[tokio::test]
    async fn a_removed_entry_is_no_loss() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path()).await;
        cache.durability.ledger.suspect([&KEY]);
        cache.remove(&KEY).await.unwrap();
        // As a flush does that looked at the ledger before the removal.
        assert!(cache.durability.rewrite(KEY).await.is_ok());
        cache.flush().await.unwrap();
    }
}
