//! The folder as the tier above an object store.
//!
//! The server looks into the folder before it asks the store, and stores an upload in the folder
//! before it offers it to the store. So what the layered store asks of the folder was mostly answered
//! already: it is asked by the cheapest call, which is counted neither as a lookup nor as a put.

use async_trait::async_trait;
use pipeline_cache::store::WriteIntents;
use pipeline_cache::{
    Artifact, CompileLeases, DiskCache, Fetched, Locality, PipelineCacheMetrics,
    PipelineCacheStore, PipelineFingerprint, StoreError,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Puts of this many keys go on at once, or of fewer where two keys share a lock.
const LOCKS: usize = 64;

/// A clone is another handle to the same folder.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    disk: DiskCache,
    /// All who wait for a key put it at once: the first of them does.
    locks: Arc<[Mutex<()>]>,
}

impl Folder {
    pub(crate) fn new(disk: DiskCache) -> Self {
        let locks = (0..LOCKS).map(|_| Mutex::default()).collect();
        Self { disk, locks }
    }

    fn lock(&self, key: &PipelineFingerprint) -> &Mutex<()> {
        let [first, ..] = key.as_bytes();
        &self.locks[usize::from(*first) % LOCKS]
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl PipelineCacheStore for Folder {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        self.disk.peek(key)
    }

    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        self.fetch(key).await.map(Fetched::into_artifact)
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        match self.disk.contains(key).await? {
            true => self.disk.fetch(key).await,
            false => Ok(Fetched::Miss),
        }
    }

    async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
        self.disk.fetch_many(keys).await
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        let _turn = self.lock(key).lock().await;
        match self.disk.contains(key).await? {
            true => Ok(()),
            false => self.disk.put(key, artifact).await,
        }
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.disk.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        PipelineCacheStore::remove(&self.disk, key).await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.disk.flush().await
    }

    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.disk.close(deadline).await
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        self.disk.compile_leases()
    }

    fn write_intents(&self) -> Option<&dyn WriteIntents> {
        self.disk.write_intents()
    }

    fn forget_miss(&self, key: &PipelineFingerprint) {
        self.disk.forget_miss(key);
    }

    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        self.disk.alias_stores()
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.disk.metrics()
    }

    fn locality(&self) -> Locality {
        self.disk.locality()
    }

    fn is_writable(&self) -> bool {
        self.disk.is_writable()
    }

    fn is_trusted_source(&self) -> bool {
        self.disk.is_trusted_source()
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.disk.max_artifact_bytes()
    }

    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.disk.accepts_maker(artifact)
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}
