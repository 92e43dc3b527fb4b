//! A tier on an object store: S3, Google Cloud Storage, Azure, a folder, or any other that the
//! `object_store` crate knows. Needs the feature `object-store`.
//!
//! The frames and their names are those on disk and over HTTP.

// `network` makes the calls. This folder holds only how one request is made.

mod builder;
mod client;
mod connector;
mod leases;
mod listing;
mod objects;

pub use builder::{ObjectStoreCacheBuilder, ObjectStoreCacheError};

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;

use crate::key::PipelineFingerprint;
use crate::network::{NetworkTier, delegate_to_network_tier};
use crate::store::{CompileLease, CompileLeases, PipelineCacheStore as _, StoreError};
use objects::Objects;

/// An object store as a tier: `<prefix>/<64 hex digits>.bin`, one frame each. Needs the feature
/// `object-store`.
///
/// The tier only reads, unless [`writes`](ObjectStoreCacheBuilder::writes) is set. A response is
/// verified before it is served. Failures are typed and retried, and open a circuit breaker, as
/// those of a `RemoteCache` are. Object stores have no request for many entries: many keys are many
/// requests, 16 at a time. Clones share one tier. Use it on one tokio runtime.
///
/// # Cancel safety
///
/// Each call runs as a task. A future that is no longer polled holds neither a request permit nor a
/// connection. A future that is dropped gives its permit back; its request runs on for a short while,
/// so that the breaker learns how the store does, see
/// [`max_abandoned_requests`](ObjectStoreCacheBuilder::max_abandoned_requests). A dropped put may
/// still have stored the whole artifact.
///
/// ```
/// use pipeline_cache::{Artifact, ObjectStoreCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Or `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
/// let cache = ObjectStoreCache::builder().writes().build("memory:///artifacts")?;
///
/// let key = PipelineFingerprint::from_bytes([7; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
/// assert_eq!(cache.get(&key).await?, Some(Artifact::new("code")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ObjectStoreCache {
    tier: Arc<NetworkTier<Objects>>,
}

impl ObjectStoreCache {
    /// The tier at a URL, read-only, with the defaults of [`ObjectStoreCacheBuilder`].
    ///
    /// # Errors
    ///
    /// As [`ObjectStoreCacheBuilder::build`].
    ///
    /// ```
    /// use pipeline_cache::ObjectStoreCache;
    ///
    /// let cache = ObjectStoreCache::new("memory:///artifacts")?;
    /// assert_eq!(cache.to_string(), "objects(InMemory/artifacts)");
    /// # Ok::<(), pipeline_cache::ObjectStoreCacheError>(())
    /// ```
    pub fn new(url: impl AsRef<str>) -> Result<Self, ObjectStoreCacheError> {
        Self::builder().build(url)
    }

    /// Settings, each with a documented default.
    #[must_use]
    pub fn builder() -> ObjectStoreCacheBuilder {
        ObjectStoreCacheBuilder::default()
    }
}

delegate_to_network_tier!(ObjectStoreCache);

#[async_trait]
impl CompileLeases for ObjectStoreCache {
    /// `None` without [`compile_leases`](ObjectStoreCacheBuilder::compile_leases), from a store that
    /// does not honour conditional puts, and after a close. Fails at once while the circuit breaker of
    /// the reads is open. The wait for another process has no limit of its own.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.tier.compile_lease(key).await
    }
}

impl fmt::Debug for ObjectStoreCache {
    /// Without the store itself, whose settings hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreCache")
            .field("name", &self.tier.name)
            .field("writes", &self.tier.writes)
            .field("format", &self.tier.backend.format)
            .field("required", &self.tier.required)
            .field("breaker", &self.breaker_state())
            .field("write_breaker", &self.write_breaker_state())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
