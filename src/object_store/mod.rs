//! A tier on an object store: S3, Google Cloud Storage, Azure, a folder, or any other that the
//! `object_store` crate knows.
//!
//! The same frames under the same names as on disk and over HTTP, and the same manners across a
//! network: what is here is only how one request is made.

mod builder;
mod connector;
mod objects;

pub use builder::{ObjectStoreCacheBuilder, ObjectStoreCacheError};

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::network::NetworkTier;
use crate::store::{Fetched, Locality, PipelineCacheMetrics, PipelineCacheStore, StoreError};
use crate::{BreakerState, UploadReport};
use objects::Objects;

/// An object store as a tier: `<prefix>/<64 hex digits>.bin`, one frame each.
///
/// Reads only, unless [`writes`](ObjectStoreCacheBuilder::writes) are switched on. What the store
/// answers is verified before it is served, and failures are typed, retried and kept off the path
/// of lookups as those of a [`RemoteCache`](crate::RemoteCache) are.
///
/// ```
/// use pipeline_cache::{Artifact, ObjectStoreCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Or `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
/// let cache = ObjectStoreCache::builder().writes(true).open("memory:///artifacts")?;
///
/// let key = PipelineFingerprint::from_bytes([7; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
/// assert_eq!(cache.get(&key).await?, Some(Artifact::new("code")));
/// # Ok(())
/// # }
/// ```
pub struct ObjectStoreCache {
    tier: Arc<NetworkTier<Objects>>,
    promotable: bool,
}

impl ObjectStoreCache {
    /// The tier at a URL, read-only, with the defaults of [`ObjectStoreCacheBuilder`].
    ///
    /// # Errors
    ///
    /// As [`ObjectStoreCacheBuilder::open`].
    ///
    /// ```
    /// use pipeline_cache::ObjectStoreCache;
    ///
    /// let cache = ObjectStoreCache::new("memory:///artifacts")?;
    /// assert_eq!(cache.to_string(), "objects(InMemory/artifacts)");
    /// # Ok::<(), pipeline_cache::ObjectStoreCacheError>(())
    /// ```
    pub fn new(url: impl AsRef<str>) -> Result<Self, ObjectStoreCacheError> {
        Self::builder().open(url)
    }

    /// Settings, each with a documented default.
    #[must_use]
    pub fn builder() -> ObjectStoreCacheBuilder {
        ObjectStoreCacheBuilder::default()
    }

    /// Whether the store is asked, as it stands now.
    #[must_use]
    pub fn breaker_state(&self) -> BreakerState {
        self.tier.breaker_state()
    }

    /// Whether the store is asked, as it changes: for a status line.
    #[must_use]
    pub fn watch_breaker(&self) -> watch::Receiver<BreakerState> {
        self.tier.watch_breaker()
    }

    /// What became of the uploads in the background.
    #[must_use]
    pub fn upload_report(&self) -> UploadReport {
        self.tier.upload_report()
    }
}

#[async_trait]
impl PipelineCacheStore for ObjectStoreCache {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.tier.fetch(key, |_| true).await
    }

    /// Waits for the upload, unless it is to go on in the background.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.tier.put(key, artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.tier.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.tier.remove(key).await
    }

    /// Waits for the uploads in the background.
    async fn flush(&self) -> Result<(), StoreError> {
        self.tier.flush().await
    }

    /// Refuses writes from now on; lookups go on.
    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.tier.close(deadline).await
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.tier.metrics()
    }

    fn locality(&self) -> Locality {
        Locality::Network
    }

    fn is_writable(&self) -> bool {
        self.tier.is_writable()
    }

    fn is_trusted_source(&self) -> bool {
        self.promotable
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.tier.backend.format.max_payload
    }
}

impl fmt::Display for ObjectStoreCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tier.name)
    }
}

impl fmt::Debug for ObjectStoreCache {
    /// Without the store itself, whose settings hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreCache")
            .field("name", &self.tier.name)
            .field("writes", &self.tier.writes)
            .field("format", &self.tier.backend.format)
            .field("breaker", &self.breaker_state())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
