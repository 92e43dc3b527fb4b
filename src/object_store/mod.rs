//! A tier on an object store: S3, Google Cloud Storage, Azure, a folder, or any other that the
//! `object_store` crate knows.
//!
//! The same frames under the same names as on disk and over HTTP, and the same manners across a
//! network: what is here is only how one request is made.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt as _, PutPayload, parse_url_opts};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::network::{Backend, Failure, NetworkSettings, NetworkTier, Upload};
use crate::{
    Artifact, BreakerPolicy, BreakerState, Fetched, FrameError, Locality, PipelineCacheMetrics,
    PipelineCacheStore, PipelineFingerprint, RetryPolicy, StoreError, StoreErrorKind, Trust,
    UploadPolicy, UploadReport,
};

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

/// Builds an [`ObjectStoreCache`].
#[derive(Debug, Clone)]
pub struct ObjectStoreCacheBuilder {
    network: NetworkSettings,
    max_artifact_bytes: u64,
    trust: Trust,
}

impl Default for ObjectStoreCacheBuilder {
    fn default() -> Self {
        Self {
            network: NetworkSettings::default(),
            max_artifact_bytes: 64 << 20,
            trust: Trust::default(),
        }
    }
}

impl ObjectStoreCacheBuilder {
    /// Sets whether artifacts are written to the store. Default: no.
    #[must_use]
    pub const fn writes(mut self, writes: bool) -> Self {
        self.network.writes = writes;
        self
    }

    /// Sets the largest payload that is read or written, in bytes. Default: 64 MiB.
    #[must_use]
    pub const fn max_artifact_bytes(mut self, bytes: u64) -> Self {
        self.max_artifact_bytes = bytes;
        self
    }

    /// Sets how long a call may take with all its requests and waits. Default: 30 s.
    #[must_use]
    pub const fn call_timeout(mut self, timeout: Duration) -> Self {
        self.network.limits.call_timeout = timeout;
        self
    }

    /// Sets how long one request may take. Default: 10 s.
    #[must_use]
    pub const fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.network.limits.attempt_timeout = timeout;
        self
    }

    /// Sets how many requests are under way at a time. Default: 64.
    #[must_use]
    pub const fn max_concurrent_requests(mut self, requests: usize) -> Self {
        self.network.limits.concurrent_requests = requests;
        self
    }

    /// Sets which failures are tried again, and how often. Default: [`RetryPolicy::default`].
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.network.limits.retry = policy;
        self
    }

    /// Sets when the store is left alone. Default: [`BreakerPolicy::default`].
    #[must_use]
    pub fn breaker(mut self, policy: BreakerPolicy) -> Self {
        self.network.limits.breaker = policy;
        self
    }

    /// Lets uploads go on in the background, within these bounds. Default: a put waits.
    #[must_use]
    pub fn background_uploads(mut self, policy: UploadPolicy) -> Self {
        self.network.uploads = Some(policy);
        self
    }

    /// Sets who is trusted to have made what the store serves. Default: all who can write to it.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The tier at a URL: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
    /// `file:///folder` or `memory:///prefix`.
    ///
    /// Credentials, regions and endpoints are taken from the environment, under the names that
    /// the `object_store` crate gives them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT` and so on. They
    /// are never printed. Connects to nothing.
    ///
    /// # Errors
    ///
    /// [`ObjectStoreCacheError`] where the URL is of no known store, or a setting is missing.
    pub fn open(self, url: impl AsRef<str>) -> Result<ObjectStoreCache, ObjectStoreCacheError> {
        const OF_STORES: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];
        let url = reqwest::Url::parse(url.as_ref())
            .map_err(|error| ObjectStoreCacheError::InvalidUrl(error.to_string()))?;
        let settings = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| OF_STORES.iter().any(|prefix| name.starts_with(prefix)))
            .map(|(name, value)| (name.to_ascii_lowercase(), value));
        let (store, prefix) =
            parse_url_opts(&url, settings).map_err(|_| ObjectStoreCacheError::UnknownStore {
                scheme: url.scheme().to_owned(),
            })?;
        let scheme = match url.scheme() {
            "memory" => "InMemory".to_owned(),
            scheme => match url.host_str() {
                Some(host) => format!("{scheme}://{host}"),
                None => format!("{scheme}://"),
            },
        };
        let name = format!("objects({scheme}/{prefix})");
        Ok(self.build(name, store.into(), prefix))
    }

    /// The tier on a store that is set up already, below a prefix; empty for the whole store.
    ///
    /// Let the store itself make few retries or none: this tier makes its own, within a budget.
    ///
    /// ```
    /// use pipeline_cache::ObjectStoreCache;
    /// use std::sync::Arc;
    ///
    /// let store = Arc::new(object_store::memory::InMemory::new());
    /// let cache = ObjectStoreCache::builder().on(store, "artifacts");
    /// assert_eq!(cache.to_string(), "objects(InMemory/artifacts)");
    /// ```
    #[must_use]
    pub fn on(self, store: Arc<dyn ObjectStore>, prefix: &str) -> ObjectStoreCache {
        let prefix = Path::from(prefix);
        let name = format!("objects({store}/{prefix})");
        self.build(name, store, prefix)
    }

    fn build(self, name: String, store: Arc<dyn ObjectStore>, prefix: Path) -> ObjectStoreCache {
        let (keys, promotable) = self.trust.into_keys();
        let objects = Objects {
            store,
            prefix,
            format: FrameFormat::new(keys, self.max_artifact_bytes),
        };
        ObjectStoreCache {
            tier: NetworkTier::new(name, objects, &self.network),
            promotable,
        }
    }
}

/// Why there is no [`ObjectStoreCache`] at a URL. The URL is not repeated: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectStoreCacheError {
    /// It is no URL.
    #[error("the URL of the object store is not valid: {0}")]
    InvalidUrl(String),
    /// It is of no store that is known, or a setting of the store is missing or wrong.
    #[error("no object store can be set up for the scheme {scheme:?} with what is set")]
    UnknownStore {
        /// The scheme of the URL.
        scheme: String,
    },
}

/// Makes the requests.
struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    format: FrameFormat,
}

impl Objects {
    fn path(&self, key: &PipelineFingerprint) -> Path {
        self.prefix.clone().join(format!("{key}.bin"))
    }

    fn may_be_frame(&self, size: u64) -> bool {
        (HEADER_LEN as u64..=self.format.max_frame()).contains(&size)
    }

    /// The whole object, or `None` as soon as it is longer than any frame.
    async fn read(&self, object: GetResult) -> Result<Option<Bytes>, Failure> {
        let size = object.meta.size;
        if size > self.format.max_frame() {
            return Ok(None);
        }
        let mut chunks = object.into_stream();
        let mut frame = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(failure)?;
            if frame.is_empty() && chunk.len() as u64 == size {
                return Ok(Some(chunk));
            }
            // The size is the store's word; what is kept is bounded whatever it says.
            if (frame.len() + chunk.len()) as u64 > self.format.max_frame() {
                return Ok(None);
            }
            frame.extend_from_slice(&chunk);
        }
        Ok(Some(frame.freeze()))
    }
}

#[async_trait]
impl Backend for Objects {
    async fn download(&self, key: &PipelineFingerprint) -> Result<Fetched, Failure> {
        let object = match self.store.get(&self.path(key)).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => return Ok(Fetched::Miss),
            Err(error) => return Err(failure(error)),
        };
        let Some(frame) = self.read(object).await? else {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        };
        Ok(match self.format.decode_off_worker(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    async fn upload(&self, key: &PipelineFingerprint, upload: &Upload) -> Result<(), Failure> {
        let payload = PutPayload::from_iter([upload.head.clone(), upload.payload.clone()]);
        // Not only where there is none: a put is what heals a corrupt entry.
        match self.store.put(&self.path(key), payload).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(error)),
        }
    }

    async fn delete(&self, key: &PipelineFingerprint) -> Result<bool, Failure> {
        let path = self.path(key);
        // Most stores do not say whether there was an object to delete.
        match self.store.head(&path).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failure(error)),
        }
        match self.store.delete(&path).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    async fn probe(&self, key: &PipelineFingerprint) -> Result<bool, Failure> {
        match self.store.head(&self.path(key)).await {
            Ok(object) => Ok(self.may_be_frame(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }

    fn credentials_version(&self) -> Result<Option<u64>, Failure> {
        Ok(None)
    }
}

/// What kind of failure it is. The text of the error is not passed on: it may quote the request.
fn failure(error: object_store::Error) -> Failure {
    use object_store::Error;
    let (kind, reason) = match error {
        Error::PermissionDenied { .. } => (StoreErrorKind::PermissionDenied, "no permission"),
        Error::Unauthenticated { .. } => (StoreErrorKind::PermissionDenied, "not authenticated"),
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            (StoreErrorKind::Protocol, "not supported by the store")
        }
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            (StoreErrorKind::Protocol, "the store is set up wrongly")
        }
        // Broken connections, time-outs and answers of 5xx, which the store has given up on.
        _ => (StoreErrorKind::Unavailable, "the store failed"),
    };
    Failure::new(kind, reason)
}

#[async_trait]
impl PipelineCacheStore for ObjectStoreCache {
    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        self.fetch(key).await.map(Fetched::into_artifact)
    }

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
