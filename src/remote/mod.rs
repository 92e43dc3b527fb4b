//! A tier on an HTTP server: `GET <base>/<64 hex digits>.bin`, one frame each.
//!
//! Any server of static files will do, and none of them is trusted: a body becomes an artifact
//! only once its whole frame has been verified.
//!
//! A call goes through `RemoteCache::limited`, which starts the clock and takes a request slot.
//! Inside it `entries` knows what to ask and what an answer means, `transport` asks, and
//! `download` and `upload` move bodies. Whatever fails is a `Failure` until `limited` adds the
//! tier's name to it.

mod base_url;
mod builder;
mod download;
mod entries;
mod failure;
mod requirement;
mod transport;
mod upload;

pub use builder::{RemoteCacheBuilder, RemoteCacheError};

use async_trait::async_trait;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics::StoreCounters;
use crate::{
    Artifact, Fetched, FrameError, Locality, PipelineCacheMetrics, PipelineCacheStore,
    PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation,
};
use entries::Entries;
use failure::Failure;
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
    entries: Entries,
    /// One permit for each request under way.
    slots: Semaphore,
    request_timeout: Duration,
    writes: bool,
    closed: AtomicBool,
    counters: StoreCounters,
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
        self.entries.required = Requirement {
            provenance: provenance.map(str::to_owned),
            device: device.map(str::to_owned),
        };
        self
    }

    /// Runs one call of the tier: with a request slot of its own, against the clock, and with the
    /// tier's name on what goes wrong. The clock runs while it waits for the slot.
    async fn limited<T>(
        &self,
        operation: StoreOperation,
        key: &PipelineFingerprint,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, StoreError> {
        let call = async {
            let _slot = self.slots.acquire().await.map_err(|_| {
                Failure::new(StoreErrorKind::Closed, "the request slots are closed")
            })?;
            call.await
        };
        let result = match timeout(self.request_timeout, call).await {
            Ok(result) => result,
            Err(_) => Err(Failure::timed_out("not done", self.request_timeout)),
        };
        result.map_err(|failure| {
            let kind = failure.kind();
            tracing::warn!(tier = %self, %key, %operation, %kind, reason = %failure, "request failed");
            StoreError::new(kind, self.to_string(), operation).with_source(failure)
        })
    }

    /// Refuses a write where the tier takes none.
    fn check_writable(&self, operation: StoreOperation) -> Result<(), StoreError> {
        let kind = if self.closed.load(Ordering::Acquire) {
            StoreErrorKind::Closed
        } else if self.writes {
            return Ok(());
        } else {
            StoreErrorKind::ReadOnly
        };
        Err(StoreError::new(kind, self.to_string(), operation))
    }

    async fn store(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.check_writable(StoreOperation::Put)?;
        let upload = self.entries.frame(key, &artifact).map_err(|reason| {
            let kind = match reason {
                FrameError::TooLarge => StoreErrorKind::TooLarge,
                _ => StoreErrorKind::InvalidArtifact,
            };
            StoreError::new(kind, self.to_string(), StoreOperation::Put).with_source(reason)
        })?;
        let uploading = self.entries.upload(key, &upload);
        self.limited(StoreOperation::Put, key, uploading).await
    }
}

#[async_trait]
impl PipelineCacheStore for RemoteCache {
    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        self.fetch(key).await.map(Fetched::into_artifact)
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let counters = &self.counters;
        let fetched = self
            .limited(StoreOperation::Get, key, self.entries.download(key))
            .await
            .inspect_err(|_| counters.errors.increment())?;
        match &fetched {
            Fetched::Hit(_) => counters.hits.increment(),
            Fetched::Miss => counters.misses.increment(),
            Fetched::Corrupt(reason) => {
                counters.misses.increment();
                counters.corrupt.increment();
                tracing::warn!(tier = %self, %key, %reason, "corrupt entry not served");
            }
            Fetched::Refused => {
                counters.misses.increment();
                counters.refused.increment();
                tracing::debug!(tier = %self, %key, "artifact of other metadata not served");
            }
        }
        Ok(fetched)
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        let result = self.store(key, artifact).await;
        let counter = match &result {
            Ok(()) => &self.counters.puts,
            Err(error) if error.kind() == StoreErrorKind::TooLarge => &self.counters.rejected_puts,
            Err(_) => &self.counters.put_errors,
        };
        counter.increment();
        result
    }

    /// Asks with `HEAD`, or with `GET` where the server has no `HEAD`.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.limited(StoreOperation::Contains, key, self.entries.probe(key))
            .await
    }

    /// A server that does not say whether there was an entry is taken to have had one.
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.check_writable(StoreOperation::Remove)?;
        let removed = self
            .limited(StoreOperation::Remove, key, self.entries.delete(key))
            .await?;
        if removed {
            self.counters.removes.increment();
        }
        Ok(removed)
    }

    /// Every put waits for its answer, so nothing is ever pending.
    async fn flush(&self) -> Result<(), StoreError> {
        self.counters.flushes.increment();
        Ok(())
    }

    /// Refuses writes from now on; lookups go on.
    async fn close(&self, _: Duration) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.counters.snapshot()
    }

    fn locality(&self) -> Locality {
        Locality::Network
    }

    fn is_writable(&self) -> bool {
        self.writes && !self.closed.load(Ordering::Acquire)
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.entries.format.max_payload
    }
}

impl fmt::Display for RemoteCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote({})", self.entries.transport.base)
    }
}

impl fmt::Debug for RemoteCache {
    /// Everything but the secrets, of which it says only that they are there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteCache")
            .field("base_url", &self.entries.transport.base)
            .field("writes", &self.writes)
            .field("request_timeout", &self.request_timeout)
            .field("format", &self.entries.format)
            .field("required", &self.entries.required)
            .field("credentials", &self.entries.transport.credentials.len())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
