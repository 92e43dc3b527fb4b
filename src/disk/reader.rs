//! Lookups: an entry is read in full and verified, or it is a miss.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use super::directory::Found;
use super::durability::ledger::Ledger;
use super::error::Fault;
use super::files::renew_use;
#[cfg(target_os = "linux")]
use super::page_cache::{Cached, Opened, PageCache};
use super::report::DiskCacheFrame;
use super::shared::Shared;
use crate::artifact::FrameError;
use crate::artifact::frame::SIGNED_START;
use crate::key::PipelineFingerprint;
use crate::store::{Fetched, StoreError, StoreOperation};
#[cfg(target_os = "linux")]
use crate::sync::blocking;
#[cfg(target_os = "linux")]
use crate::sync::operations::run_with;

/// How often a frame is opened again, where a whole entry has replaced a corrupt one meanwhile.
const OPEN_ATTEMPTS: usize = 4;

/// What stands under a key's name, by the first bytes of its file.
enum Start {
    Missing,
    Frame(DiskCacheFrame),
    /// It does not begin as the frame of this key does.
    Other,
}

/// Reads entries, and sets corrupt ones aside.
#[derive(Debug)]
pub(super) struct Reader {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    #[cfg(target_os = "linux")]
    page_cache: PageCache,
}

impl Reader {
    /// Waits for the file system.
    pub(super) fn new(
        shared: &Arc<Shared>,
        ledger: &Arc<Ledger>,
        max_concurrent_operations: usize,
    ) -> Self {
        #[cfg(not(target_os = "linux"))]
        let _ = max_concurrent_operations;
        Self {
            shared: Arc::clone(shared),
            ledger: Arc::clone(ledger),
            #[cfg(target_os = "linux")]
            page_cache: PageCache::new(Arc::clone(shared), max_concurrent_operations),
        }
    }

    pub(super) async fn fetch(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<Fetched, StoreError> {
        #[cfg(target_os = "linux")]
        let fetched = self.fetch_cached(key).await;
        #[cfg(not(target_os = "linux"))]
        let fetched = self.fetch_on_pool(*key).await;
        self.shared.outcome(StoreOperation::Get, key, fetched)
    }

    /// Reads from the page cache on the worker, and everything else on the blocking pool.
    #[cfg(target_os = "linux")]
    async fn fetch_cached(self: &Arc<Self>, key: &PipelineFingerprint) -> Result<Fetched, Fault> {
        let opened = match self.page_cache.look(key) {
            Cached::Known(found, work) => {
                let fetched = self.count(key, Ok(found));
                blocking::consume_budget(work).await;
                return fetched;
            }
            Cached::Large(entry) => match self.page_cache.read_large(key, entry).await {
                Ok(artifact) => return self.count(key, Ok(Found::Whole(artifact))),
                Err(opened) => Some(opened),
            },
            Cached::Unknown(opened) => opened,
        };
        match opened {
            Some(opened) => self.fetch_opened(*key, opened).await,
            None => self.fetch_on_pool(*key).await,
        }
    }

    /// Reads a file that is open already, unless it would stay open until a permit is free: the
    /// number of callers that wait for one has no bound.
    #[cfg(target_os = "linux")]
    async fn fetch_opened(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        opened: Opened,
    ) -> Result<Fetched, Fault> {
        let Some(permit) = self.shared.operations.try_permit() else {
            drop(opened);
            return self.fetch_on_pool(key).await;
        };
        let reader = Arc::clone(self);
        run_with(Some(permit), move || {
            let directory = &reader.shared.directory;
            let found = match opened.into_file() {
                Some(file) => directory.read_opened(&key, file),
                None => directory.read(&key),
            };
            reader.count(&key, found)
        })
        .await
    }

    /// In one closure: to open, inspect, read and verify an entry takes less time together than one
    /// more hop to the blocking pool.
    async fn fetch_on_pool(self: &Arc<Self>, key: PipelineFingerprint) -> Result<Fetched, Fault> {
        let reader = Arc::clone(self);
        let fetch = move || reader.count(&key, reader.shared.directory.read(&key));
        self.shared.operations.run(fetch).await
    }

    /// Counts a lookup. Called where the lookup is done, so that one whose caller has gone is
    /// counted as well.
    fn count(
        &self,
        key: &PipelineFingerprint,
        found: Result<Found, Fault>,
    ) -> Result<Fetched, Fault> {
        let counters = &self.shared.counters;
        match found {
            Ok(Found::Whole(artifact)) => {
                counters.hits.increment();
                Ok(Fetched::Hit(artifact))
            }
            Ok(Found::Missing) => {
                counters.misses.increment();
                Ok(Fetched::Miss)
            }
            Ok(Found::Corrupt(file, error)) => {
                counters.corrupt.increment();
                counters.misses.increment();
                self.set_aside(key, &file, error);
                Ok(Fetched::Corrupt(error))
            }
            Ok(Found::Foreign(_, why)) => {
                counters.refused.increment();
                counters.misses.increment();
                self.shared.log_foreign(key, why);
                Ok(Fetched::Refused)
            }
            Err(fault) => {
                counters.errors.increment();
                Err(fault)
            }
        }
    }

    /// Sets a corrupt entry aside, unless the key is being written: then the write replaces it.
    pub(super) fn set_aside(&self, key: &PipelineFingerprint, file: &File, why: FrameError) {
        if let Some(_key_lock) = self.shared.key_locks.try_lock(key) {
            self.set_aside_locked(key, file, why);
        }
    }

    /// [`set_aside`](Self::set_aside) for a caller that holds the lock of the key.
    pub(super) fn set_aside_locked(&self, key: &PipelineFingerprint, file: &File, why: FrameError) {
        let shared = &self.shared;
        let renamed = shared.directory.set_aside(key, file);
        // If the entry awaits a flush, that flush reports the loss.
        self.ledger.suspect([key]);
        let error = renamed.err().map(tracing::field::display);
        tracing::warn!(tier = %shared, %key, reason = %why, error, "corrupt entry set aside");
    }

    /// Opens the stored form of an entry. `None` where there is no whole one.
    pub(super) async fn open_frame(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<Option<DiskCacheFrame>, StoreError> {
        for _ in 0..OPEN_ATTEMPTS {
            match self.open_start(*key).await? {
                Start::Missing => return Ok(None),
                Start::Frame(frame) => return Ok(Some(frame)),
                Start::Other if self.is_whole(*key).await => {}
                Start::Other => break,
            }
        }
        // A full read counts what is wrong with the entry, and sets it aside if it is damaged.
        self.fetch(key).await.map(|_| None)
    }

    async fn open_start(self: &Arc<Self>, key: PipelineFingerprint) -> Result<Start, StoreError> {
        let reader = Arc::clone(self);
        let opened = self.shared.operations.run(move || reader.read_start(&key));
        let opened = opened.await;
        if opened.is_err() {
            self.shared.counters.errors.increment();
        }
        self.shared.outcome(StoreOperation::Get, &key, opened)
    }

    fn read_start(&self, key: &PipelineFingerprint) -> Result<Start, Fault> {
        let counters = &self.shared.counters;
        let Some((file, metadata)) = self.shared.directory.open(key)? else {
            counters.misses.increment();
            return Ok(Start::Missing);
        };
        let len = metadata.len();
        let mut start = Vec::with_capacity(SIGNED_START);
        let read = (&file).take(SIGNED_START as u64).read_to_end(&mut start);
        let format = &self.shared.directory.format;
        let stored = read.ok().and_then(|_| format.stored_tag(key, &start, len));
        let Some(stored) = stored else {
            return Ok(Start::Other);
        };
        // To pass on what its owner may not want any more would keep it for ever.
        if !stored.is_foreign {
            renew_use(&file, metadata.modified().ok());
        }
        counters.hits.increment();
        let tag = stored.tag;
        Ok(Start::Frame(DiskCacheFrame { file, len, tag }))
    }

    /// Whether the entry is whole now. The lookup that follows reports a failure.
    async fn is_whole(&self, key: PipelineFingerprint) -> bool {
        let shared = Arc::clone(&self.shared);
        let examine = move || {
            let found = shared.directory.examine(&key, |_, _| ());
            matches!(found, Ok(Found::Whole(_)))
        };
        self.shared.operations.run(examine).await
    }

    /// Whether a file could be the entry of a key, by its kind and length. One call, but in a
    /// closure that holds the permit: `tokio::fs` would leave it with the caller.
    pub(super) async fn contains(&self, key: PipelineFingerprint) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let contains = move || shared.directory.contains(&key);
        let found = self.shared.operations.run(contains).await;
        self.shared.outcome(StoreOperation::Contains, &key, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::DiskCache;
    use crate::store::PipelineCacheStore as _;

    const ONE: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    /// The put replaces what was read before.
    #[tokio::test]
    async fn a_key_that_is_being_written_is_not_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::new(folder.path()).await.unwrap();
        let entry = cache.shared.directory.entry(&ONE);
        std::fs::write(&entry, "torn").unwrap();
        let key_lock = cache.shared.key_locks.lock(&ONE).await;
        assert_eq!(cache.get(&ONE).await.unwrap(), None);
        assert!(entry.exists());
        drop(key_lock);
        assert_eq!(cache.get(&ONE).await.unwrap(), None);
        assert!(!entry.exists());
        assert_eq!(cache.metrics().corrupt, 2);
    }
}
