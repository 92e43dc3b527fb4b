//! The disk tier as a [`PipelineCacheStore`].

use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

use super::DiskCache;
use crate::artifact::Artifact;
use crate::artifact::frame::HEADER_LEN;
use crate::key::PipelineFingerprint;
use crate::store::{
    CompileLease, CompileLeases, Fetched, PipelineCacheMetrics, PipelineCacheStore, StoreError,
    StoreErrorKind, StoreOperation, WriteIntents,
};
use crate::sync::blocking;

#[async_trait]
impl PipelineCacheStore for DiskCache {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.shared.require_runtime(StoreOperation::Get)?;
        self.reader.fetch(key).await
    }

    /// A put whose future is dropped while it waits is cancelled. Once it writes, it is finished.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.shared.require_runtime(StoreOperation::Put)?;
        self.writer.put(*key, artifact).await
    }

    /// Looks at the kind and the length of the file, and does not read it.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.shared.require_runtime(StoreOperation::Contains)?;
        self.reader.contains(*key).await
    }

    /// Also removes the corrupt file that was set aside for the key. A power loss may bring a
    /// removed entry back.
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.shared.require_runtime(StoreOperation::Remove)?;
        self.writer.remove(*key).await
    }

    /// Syncs the data of the entries that this cache has stored, then the names in the folder, and
    /// those of the intents that were added.
    ///
    /// The error names the first failed entry and the number of others. A failed entry stays pending,
    /// and the next flush writes it again: after a failed fsync, the kernel may report success for lost
    /// data. If the entry can no longer be read, that flush reports it once as lost. While the medium
    /// refuses every entry, a flush tries 16 of them.
    async fn flush(&self) -> Result<(), StoreError> {
        self.shared.require_runtime(StoreOperation::Flush)?;
        let flushed = self.durability.flush(StoreOperation::Flush).await;
        flushed.and(self.sync_intents(StoreOperation::Flush).await)
    }

    /// Refuses further puts and removals, waits for those in progress, and flushes. Lookups go on. A
    /// [`CompileLease`] that was granted stays with its holder. No more are granted, because the
    /// artifact could not be stored.
    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.shared.require_runtime(StoreOperation::Close)?;
        self.shared.close();
        let entries = async {
            self.shared.tasks.wait().await;
            let flushed = self.durability.flush(StoreOperation::Close).await;
            let flushed = flushed.and(self.sync_intents(StoreOperation::Close).await);
            let staging = Arc::clone(&self.staging);
            blocking::blocking(move || staging.release()).await;
            flushed
        };
        let aliases = async {
            match &self.aliases {
                Some(aliases) => aliases.close(deadline).await,
                None => Ok(()),
            }
        };
        // At once: aliases that are slow cost no entry its flush.
        let closing = async {
            let (entries, aliases) = tokio::join!(entries, aliases);
            entries.and(aliases)
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

    /// See [`max_write_intents`](super::DiskCacheBuilder::max_write_intents).
    fn write_intents(&self) -> Option<&dyn WriteIntents> {
        self.intents.is_some().then_some(self)
    }

    /// One in the subfolder `aliases`, which the first alias creates. Where that is no folder but a
    /// link or a file, there is none.
    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        let aliases = self.aliases.iter().map(Arc::clone);
        aliases.map(|aliases| aliases as _).collect()
    }

    /// `entries` and `cached_bytes` are estimates: the count that all bounded
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
        let largest_frame = self.collector.max_entry_bytes();
        let format = &self.shared.directory.format;
        format
            .max_payload
            .min(largest_frame.saturating_sub(HEADER_LEN as u64))
    }

    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.shared.directory.format.accepts_maker(artifact)
    }
}

impl DiskCache {
    async fn sync_intents(&self, operation: StoreOperation) -> Result<(), StoreError> {
        match &self.intents {
            Some(intents) => intents.sync(operation).await,
            None => Ok(()),
        }
    }
}

#[async_trait]
impl CompileLeases for DiskCache {
    /// Granted where the builder was told to use
    /// [`compile_locks`](super::DiskCacheBuilder::compile_locks). A put of the key holds the lease, too, from
    /// its start until the entry is stored.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.shared.require_runtime(StoreOperation::CompileLease)?;
        match &self.compile_locks {
            Some(locks) => locks.lease(*key).await,
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[tokio::test]
    async fn aliases_that_are_slow_to_close_keep_no_artifact_from_becoming_durable() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::new(folder.path()).await.unwrap();
        let key = PipelineFingerprint::from_bytes([1; 32]);
        cache.put(&key, Artifact::new("code")).await.unwrap();
        assert_eq!(cache.durability_report().pending_flushes, 1);

        let write_under_way = cache.aliases().unwrap().shared.tasks.token();
        let mut close = pin!(cache.close(Duration::from_secs(3_600)));
        let flushed = async {
            while cache.durability_report().pending_flushes > 0 {
                assert!(futures::poll!(&mut close).is_pending());
                tokio::task::yield_now().await;
            }
        };
        let flushed = tokio::time::timeout(Duration::from_secs(20), flushed).await;
        flushed.expect("it waits for the aliases");
        drop(write_under_way);
        close.await.unwrap();
    }
}
