//! Flush: what was put, made durable, and the number of entries that await it kept within its
//! bound.
//!
//! A medium that refuses to sync is likely to go on doing so. Then a flush writes few of the
//! refused entries anew, and puts leave it alone for a while that grows.

use bytes::Buf as _;
use futures::stream::{self, StreamExt as _};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use super::ledger::Due;
use crate::disk::Inner;
use crate::disk::directory::{Found, SyncError};
use crate::disk::error::{Failures, Fault};
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreOperation};

/// How many entries a flush syncs at once. File systems put concurrent syncs into one commit.
const CONCURRENT_SYNCS: usize = 16;

/// For how long puts start no flush after one that made nothing durable; twice as long after each
/// further one.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The last flush, where it made nothing durable.
#[derive(Debug, Default)]
pub(in crate::disk) struct FlushBackoff(Mutex<Option<Failed>>);

#[derive(Debug)]
struct Failed {
    error: StoreError,
    pause: Duration,
    until: Option<Instant>,
}

impl FlushBackoff {
    fn note(&self, error: Option<&StoreError>) {
        let mut last = self.lock();
        let pause = last
            .take()
            .map_or(SHORTEST_PAUSE, |failed| failed.pause * 2);
        *last = error.map(|error| {
            let pause = pause.min(LONGEST_PAUSE);
            Failed {
                error: error.clone(),
                pause,
                until: Instant::now().checked_add(pause),
            }
        });
    }

    /// Why no put is to start a flush now.
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

/// A place for one more entry to await a flush. Given back when the put is over, by when the entry
/// is counted itself.
pub(in crate::disk) struct Reservation(Arc<Inner>);

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.ledger.release();
    }
}

impl Inner {
    fn place(self: &Arc<Self>) -> Option<Reservation> {
        let reserved = self.ledger.reserve(self.max_pending);
        reserved.then(|| Reservation(Arc::clone(self)))
    }

    /// Keeps the number of entries that await a flush within its bound.
    pub(in crate::disk) async fn make_room(self: &Arc<Self>) -> Result<Reservation, StoreError> {
        loop {
            let mut released = pin!(self.ledger.released.notified());
            // Registered before the look, so that no release falls between the two.
            released.as_mut().enable();
            if let Some(place) = self.place() {
                self.flush_ahead();
                return Ok(place);
            }
            let turn = self.flushing.lock().await;
            // Whoever had it may have made room for many.
            if let Some(place) = self.place() {
                return Ok(place);
            }
            let (pending, reason) = (self.ledger.len(), self.flush_backoff.reason());
            if let Some(reason) = reason.as_ref().filter(|_| pending >= self.max_pending) {
                let refused = StoreError::new(reason.kind(), self.to_string(), StoreOperation::Put);
                return Err(refused.with_source(reason.clone()));
            }
            if pending == 0 || reason.is_some() {
                // The places that are left are those of puts under way.
                drop(turn);
                released.await;
                continue;
            }
            let flushed = self.flush_in_turn(StoreOperation::Put).await;
            // Another entry's failure is its own, as long as there is room now.
            if let Some(place) = self.place() {
                return Ok(place);
            }
            flushed?;
        }
    }

    /// Flushes in the background where half of the places are taken.
    fn flush_ahead(self: &Arc<Self>) {
        if self.ledger.len() * 2 < self.max_pending || self.flush_backoff.reason().is_some() {
            return;
        }
        // Whoever holds the lock is flushing already.
        let Ok(turn) = Arc::clone(&self.flushing).try_lock_owned() else {
            return;
        };
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            // Traced and counted; what failed is still pending.
            let _ = inner.flush_in_turn(StoreOperation::Flush).await;
            drop(turn);
        });
    }

    pub(in crate::disk) async fn flush(
        self: &Arc<Self>,
        operation: StoreOperation,
    ) -> Result<(), StoreError> {
        // Whoever flushes now may have looked at the ledger before the caller's last put.
        let _turn = self.flushing.lock().await;
        self.flush_in_turn(operation).await
    }

    async fn flush_in_turn(self: &Arc<Self>, operation: StoreOperation) -> Result<(), StoreError> {
        let flushed = self.sync_all(operation).await;
        match flushed {
            Ok(()) => self.counters.flushes.increment(),
            Err(_) => self.counters.flush_errors.increment(),
        }
        flushed
    }

    /// Makes all that is pending durable, as far as that can be had.
    async fn sync_all(self: &Arc<Self>, operation: StoreOperation) -> Result<(), StoreError> {
        let mut due = self.ledger.due();
        let count = due.len();
        let fresh = due.partition_point(|due| due.refused == 0);
        // Few of the refused first: a medium that cannot sync their names makes no other durable,
        // and none is written anew for nothing.
        let rest = due.split_off(due.len().min(fresh + CONCURRENT_SYNCS));
        let (mut failures, refusals) = (Failures::default(), AtomicUsize::new(0));
        let mut settled = 0;
        for some in [due, rest] {
            match self.sync_some(some, &refusals, &mut failures).await {
                Some(more) => settled += more,
                None => break,
            }
        }
        let failed = failures
            .into_first()
            .map(|(key, fault)| self.failed(operation, Some(&key), fault));
        match &failed {
            // The medium is well: what failed has a failure of its own.
            Some(_) if settled > 0 => self.flush_backoff.note(None),
            // And one entry alone tells nothing of the medium.
            Some(_) if count == 1 => {}
            failed => self.flush_backoff.note(failed.as_ref()),
        }
        failed.map_or(Ok(()), Err)
    }

    /// Makes these durable but for the failures; how many are, or `None` where their names cannot
    /// be.
    async fn sync_some(
        self: &Arc<Self>,
        due: Vec<Due>,
        refusals: &AtomicUsize,
        failures: &mut Failures,
    ) -> Option<usize> {
        let mut synced = Vec::new();
        let syncs = due
            .into_iter()
            .map(|due| async move { (due, self.make_durable(due, refusals).await) });
        let mut syncs = stream::iter(syncs).buffer_unordered(CONCURRENT_SYNCS);
        while let Some((due, outcome)) = syncs.next().await {
            match outcome {
                Ok(true) => synced.push(due),
                Ok(false) => {}
                Err(fault) => failures.note(&due.key, fault),
            }
        }
        let Some(first) = synced.first().copied() else {
            return Some(0);
        };
        let count = synced.len();
        match self.run(move |inner| inner.settle(&synced)).await {
            Ok(()) => Some(count),
            Err(fault) => {
                failures.note(&first.key, fault);
                None
            }
        }
    }

    /// Makes the data of an entry durable, if there still is one; whether that was tried. One that
    /// was refused before is not where as many as are tried at once were refused again.
    async fn make_durable(
        self: &Arc<Self>,
        due: Due,
        refusals: &AtomicUsize,
    ) -> Result<bool, Fault> {
        if due.refused == 0 {
            return self.run(move |inner| inner.sync_entry(&due)).await;
        }
        if refusals.load(Ordering::Relaxed) >= CONCURRENT_SYNCS {
            return Ok(false);
        }
        // A rewrite takes its turn, so that it cannot bring back what is being removed.
        let turn = self.key_locks.lock(&due.key).await;
        let rewritten = self.run(move |inner| {
            let _turn = turn;
            inner.rewrite(&due.key)
        });
        match rewritten.await {
            Ok(()) => {
                refusals.store(0, Ordering::Relaxed);
                Ok(true)
            }
            Err(fault) => {
                refusals.fetch_add(1, Ordering::Relaxed);
                self.ledger.suspect([&due.key]);
                Err(fault)
            }
        }
    }

    fn sync_entry(&self, due: &Due) -> Result<bool, Fault> {
        match self.folder.sync_entry(&due.key) {
            Ok(_) => Ok(true),
            Err(SyncError::Open(error)) => Err(error.into()),
            Err(SyncError::Sync(error)) => {
                self.ledger.suspect([&due.key]);
                Err(error.into())
            }
        }
    }

    /// Writes an entry anew, durably, from what can be read of it. The caller has its turn.
    fn rewrite(&self, key: &PipelineFingerprint) -> Result<(), Fault> {
        let artifact = match self.folder.read(key) {
            Ok(Found::Whole(artifact)) => artifact,
            Ok(Found::Missing) | Err(Fault::NotAFile(_)) => return self.tell_if_lost(key),
            Ok(Found::Corrupt(file, error)) => {
                self.set_aside_locked(key, &file, error);
                return self.tell_if_lost(key);
            }
            Err(fault) => return Err(fault),
        };
        let head = self.folder.format.encode_head(key, &artifact);
        let head = head.map_err(io::Error::other)?;
        let staged = self.staging.stage(&self.folder, &self.tasks)?;
        let entry = self.folder.entry(key);
        let frame = head.chain(artifact.payload().clone());
        Ok(staged.publish_durably(frame, &entry)?)
    }

    /// An error where an entry that is not there was accepted and never removed. It awaits nothing
    /// from now on, so that its loss is told once.
    fn tell_if_lost(&self, key: &PipelineFingerprint) -> Result<(), Fault> {
        if !self.ledger.forget(key) {
            return Ok(());
        }
        let entry = self.folder.entry(key);
        let lost = format!("{} was lost before it was durable", entry.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, lost).into())
    }

    /// Makes the names in the folder durable, and with them the entries whose data is.
    fn settle(&self, synced: &[Due]) -> Result<(), Fault> {
        match self.folder.sync() {
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

    /// As when the kernel fails to write an entry, lets go of its pages, and finds what the medium
    /// has.
    #[tokio::test]
    async fn a_loss_is_told_exactly_once() {
        // Nobody looks at the entry between, somebody does, or did so before any flush.
        for (doubted, seen) in [(true, false), (true, true), (false, true)] {
            let folder = tempfile::tempdir().unwrap();
            let cache = cache(folder.path()).await;
            let ledger = &cache.inner.ledger;
            if doubted {
                ledger.suspect([&KEY]);
            }
            std::fs::write(cache.inner.folder.entry(&KEY), "torn").unwrap();
            if seen {
                assert_eq!(cache.get(&KEY).await.unwrap(), None);
            }
            let error = cache.flush().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Io);
            assert!(format!("{error:#}").contains("was lost"), "{error}");
            cache.flush().await.unwrap();
            assert!(cache.durability_report().durable);
        }
    }

    #[tokio::test]
    async fn what_was_removed_is_no_loss() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path()).await;
        let ledger = &cache.inner.ledger;
        ledger.suspect([&KEY]);
        cache.remove(&KEY).await.unwrap();
        // As a flush does that has looked at the ledger before.
        assert!(cache.inner.rewrite(&KEY).is_ok());
        cache.flush().await.unwrap();
    }
}
