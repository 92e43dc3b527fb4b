//! A tier on an HTTP server: `GET <base>/<64 hex digits>.bin`, one frame each.
//!
//! Any server of static files will do, and none of them is trusted: a body becomes an artifact
//! only once its whole frame has been verified.
//!
//! A call goes through the `NetworkTier`, which decides whether and how often a request is made.
//! Inside it `entries` knows what to request and what a response means, `transport` follows
//! redirects and attaches credentials, and `client` sends single requests through `reqwest`.

mod base_url;
mod builder;
mod client;
mod credentials;
mod entries;
mod request_error;
mod requirement;
mod response;
mod transport;

pub use builder::{RemoteCacheBuilder, RemoteCacheError};
pub use credentials::Credentials;

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::network::{BreakerState, NetworkTier, UploadReport};
use crate::store::{Fetched, Locality, PipelineCacheMetrics, PipelineCacheStore, StoreError};
use entries::Entries;
use requirement::Requirement;

/// An HTTP or HTTPS server as a tier.
///
/// An artifact is `GET <base>/<64 hex digits>.bin`, in the same form as on disk: the folder of a
/// disk tier behind any static web server is a remote. The tier reads only, unless
/// [`writes`](RemoteCacheBuilder::writes) are switched on.
///
/// What the server answers is verified before it is served: an empty body, an error page with
/// status 200, another key's frame or a truncated one is [`Fetched::Corrupt`] and a miss. 404 and
/// 410 are misses. Everything else is a [`StoreError`] whose
/// [`kind`](StoreError::kind) says what helps:
///
/// | the server | kind |
/// |---|---|
/// | cannot be reached, or breaks off | `Unreachable` |
/// | does not answer in time | `TimedOut` |
/// | 408, 425, 429, 5xx | `Unavailable` |
/// | 401, 403, 407 | `PermissionDenied` |
/// | 413; 507 | `TooLarge`; `StorageFull` |
/// | 405, 501 to a write | `ReadOnly` |
/// | any other status, a redirect that is not followed, no HTTP, bad TLS | `Protocol` |
/// | was not asked, for most recent calls failed | `CircuitOpen` |
///
/// The first three are passing, and their requests are made again, see
/// [`retry`](RemoteCacheBuilder::retry). A server that keeps failing is left alone, so that it
/// costs a lookup nothing, until a probe in the background finds it well again, see
/// [`breaker`](RemoteCacheBuilder::breaker). `PermissionDenied` stays, for reads or for writes,
/// until the credentials change, unless a proxy or another server said so.
///
/// Entries are trusted as far as the server is, unless a
/// [`shared_secret`](RemoteCacheBuilder::shared_secret) is set: the frame of an artifact proves
/// that it is whole and belongs to its key, not who made it.
///
/// The tier does not know what the server holds: `entries` and `cached_bytes` of its metrics stay
/// 0. Use one tier on one tokio runtime.
///
/// ```
/// use pipeline_cache::{PipelineCacheStore as _, PipelineFingerprint, RemoteCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # // A server that has nothing.
/// # let server = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let url = format!("http://{}/artifacts", server.local_addr()?);
/// # tokio::spawn(async move {
/// #     use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
/// #     let (mut connection, _) = server.accept().await.unwrap();
/// #     let _ = connection.read(&mut [0; 4096]).await;
/// #     let _ = connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
/// # });
/// let remote = RemoteCache::builder().proxy_from_environment(false).build(&url)?;
///
/// let key = PipelineFingerprint::from_bytes([7; 32]);
/// assert_eq!(remote.get(&key).await?, None);
/// assert_eq!(remote.metrics().misses, 1);
/// # Ok(())
/// # }
/// ```
pub struct RemoteCache {
    tier: Arc<NetworkTier<Entries>>,
    required: Requirement,
    promotable: bool,
}

impl RemoteCache {
    /// The tier on the entries below a base URL, with the defaults of [`RemoteCacheBuilder`]:
    /// read-through only, no credentials.
    ///
    /// Connects to nothing. Reads the platform's root certificates, see
    /// [`build`](RemoteCacheBuilder::build).
    ///
    /// # Errors
    ///
    /// [`RemoteCacheError`] where the URL is not one of an HTTP server, or holds credentials, a
    /// query or a fragment.
    ///
    /// ```
    /// use pipeline_cache::RemoteCache;
    ///
    /// let remote = RemoteCache::new("http://cache.example.com:8080/artifacts/")?;
    /// assert_eq!(remote.to_string(), "remote(http://cache.example.com:8080/artifacts)");
    /// # Ok::<(), pipeline_cache::RemoteCacheError>(())
    /// ```
    pub fn new(base_url: impl AsRef<str>) -> Result<Self, RemoteCacheError> {
        Self::builder().build(base_url)
    }

    /// Settings, each with a documented default.
    #[must_use]
    pub fn builder() -> RemoteCacheBuilder {
        RemoteCacheBuilder::default()
    }

    /// Serves only artifacts whose metadata names this provenance and this device. `None` leaves
    /// that part open; a part that is set must be there and equal.
    ///
    /// Any other artifact is [`Fetched::Refused`]: a miss, counted as `refused`. What is put is
    /// not checked, and [`contains`](PipelineCacheStore::contains) does not look.
    ///
    /// Metadata is only as true as the server, unless a
    /// [`shared_secret`](RemoteCacheBuilder::shared_secret) is set.
    ///
    /// ```
    /// use pipeline_cache::RemoteCache;
    ///
    /// let remote = RemoteCache::new("https://cache.example.com")?
    ///     .with_required_metadata(Some("ci.example.com/main"), None);
    /// # Ok::<(), pipeline_cache::RemoteCacheError>(())
    /// ```
    #[must_use]
    pub fn with_required_metadata(
        mut self,
        provenance: Option<&str>,
        device: Option<&str>,
    ) -> Self {
        self.required = Requirement {
            provenance: provenance.map(str::to_owned),
            device: device.map(str::to_owned),
        };
        self
    }

    /// Whether the server is asked, as it stands now.
    #[must_use]
    pub fn breaker_state(&self) -> BreakerState {
        self.tier.breaker_state()
    }

    /// Whether the server is asked, as it changes: for a status line.
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
impl PipelineCacheStore for RemoteCache {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let accepts = |metadata: &_| self.required.is_met_by(metadata);
        self.tier.fetch(key, accepts).await
    }

    /// Waits for the upload, unless it is to go on in the background.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.tier.put(key, artifact).await
    }

    /// Asks with `HEAD`, or with `GET` where the server has no `HEAD`.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.tier.contains(key).await
    }

    /// A server that does not say whether there was an entry is taken to have had one.
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.tier.remove(key).await
    }

    /// Waits for the uploads in the background. One that failed is told by the first flush after
    /// it and is not made again.
    async fn flush(&self) -> Result<(), StoreError> {
        self.tier.flush().await
    }

    /// Refuses writes from now on; lookups go on. Uploads that have not ended by the deadline are
    /// given up.
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

impl fmt::Display for RemoteCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tier.name)
    }
}

impl fmt::Debug for RemoteCache {
    /// Everything but the secrets, of which it says only that they are there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = &self.tier.backend;
        f.debug_struct("RemoteCache")
            .field("base_url", &entries.transport.base)
            .field("writes", &self.tier.writes)
            .field("format", &entries.format)
            .field("required", &self.required)
            .field("credentials", &entries.transport.credentials)
            .field("breaker", &self.breaker_state())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
