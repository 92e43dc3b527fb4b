//! The disk tier as a [`PipelineCacheStore`].

use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

use super::DiskCache;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{
    CompileLease, CompileLeases, Fetched, PipelineCacheMetrics, PipelineCacheStore, StoreError,
    StoreErrorKind, StoreOperation,
};
use crate::sync::blocking;

#[async_trait]
impl PipelineCacheStore for DiskCache {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.reader.fetch(key).await
    }

    /// As the trait has it. A put whose future is dropped while it waits for its turn is cancelled;
    /// once it writes, it is finished.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.writer.put(*key, artifact).await
    }

    /// Looks at the kind and the length of the file, and does not read it.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.reader.contains(*key).await
    }

    /// As the trait has it. Also removes what was set aside of the entry. A power loss may bring a
    /// removed entry back.
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.writer.remove(*key).await
    }

    /// Makes durable what puts of this cache have stored, also where their callers have gone: first the
    /// data of each entry, then the names in the folder.
    ///
    /// The error is the first of several, and says how many more there are. An entry that failed stays
    /// pending, and the next flush writes it again: after a failed sync, a second one proves nothing.
    /// If nothing whole is left to write, that flush fails as well, and the entry is lost: it is
    /// pending no more. As long as the medium refuses every entry, a flush tries 16 of them.
    async fn flush(&self) -> Result<(), StoreError> {
        self.durability.flush(StoreOperation::Flush).await
    }

    /// Refuses further puts and removals, waits for those in progress, and flushes. Lookups go on. A
    /// [`CompileLease`] that was granted stays with its holder. No more are granted, because nobody
    /// could store what is compiled.
    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.shared.close();
        let closing = async {
            self.shared.tasks.wait().await;
            let flushed = self.durability.flush(StoreOperation::Close).await;
            let staging = Arc::clone(&self.staging);
            blocking::blocking(move || staging.release()).await;
            flushed
        };
        match tokio::time::timeout(deadline, closing).await {
            Ok(flushed) => flushed,
            Err(_) => Err(self
                .shared
                .error(StoreErrorKind::TimedOut, StoreOperation::Close)),
        }
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        self.compile_locks.is_some().then_some(self)
    }

    /// As the trait has it. `entries` and `cached_bytes` are estimates: the count that all bounded
    /// caches on the folder share. They are 0 for a cache without bounds, and before its first put or
    /// trim, because an exact count would list the folder.
    ///
    /// The estimate is the shared count as of the last report of this cache, plus what this cache has
    /// stored and removed since. Puts and trims report. An entry that is stored during a scan may be
    /// counted twice. Unbounded caches, removals by hand and crashes are not counted. The next scan,
    /// at most an hour later where there are puts, corrects all that. Where the shared count cannot be
    /// written, as in a folder of another user, removals by others are unknown until then, so the
    /// estimate only grows.
    fn metrics(&self) -> PipelineCacheMetrics {
        let held = self.collector.estimate();
        PipelineCacheMetrics {
            entries: held.entries,
            cached_bytes: held.bytes,
            ..self.shared.counters.snapshot()
        }
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.shared.directory.format.max_payload
    }
}

#[async_trait]
impl CompileLeases for DiskCache {
    /// As the trait has it, where the builder was told to use
    /// [`compile_locks`](super::DiskCacheBuilder::compile_locks). A put of the key holds the lease, too, from
    /// its start until the entry is stored.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        match &self.compile_locks {
            Some(locks) => locks.lease(*key).await,
            None => Ok(None),
        }
    }
}
