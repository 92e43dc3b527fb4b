//! A tier on an HTTP server: `GET <base>/<64 hex digits>.bin`, one frame each. Needs the feature
//! `remote-cache`.
//!
//! Any server of static files will do, and none is trusted: a body becomes an artifact only after
//! its whole frame was verified.

// A call goes through the `NetworkTier`, which decides whether and how often a request is made.
// Inside it `entries` knows what to request and what a response means; `server` attaches credentials
// and follows redirects. `client` sends single requests through `reqwest`, over the connections that
// `connections` keeps or gives up; `upload` is a body on its way. `batch` is the answer about many
// entries. `leases` are compile leases.

mod base_url;
mod batch;
mod builder;
mod client;
mod client_settings;
mod connections;
mod credentials;
mod entries;
mod leases;
mod request_error;
mod server;
mod upload;

pub use builder::{RemoteCacheBuilder, RemoteCacheError};
pub use credentials::Credentials;

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;

use crate::key::PipelineFingerprint;
use crate::network::{NetworkTier, delegate_to_network_tier};
use crate::store::{CompileLease, CompileLeases, PipelineCacheStore as _, StoreError};
use entries::Entries;

/// An HTTP or HTTPS server as a tier. Needs the feature `remote-cache`.
///
/// The tier reads `GET <base>/<64 hex digits>.bin`. You can serve a `DiskCache` folder with any
/// static web server. The tier only reads, unless [`writes`](RemoteCacheBuilder::writes) is set.
///
/// A response is verified before it is served: an empty body, an error page with status 200,
/// another key's frame, a truncated one or one with a `Content-Encoding` is
/// [`Fetched::Corrupt`](crate::Fetched::Corrupt) and a miss. What only this tier's settings reject,
/// such as an entry above the limit or of another secret, is
/// [`Fetched::Refused`](crate::Fetched::Refused) and a miss. 404 and 410 are misses, see
/// [`absent_statuses`](RemoteCacheBuilder::absent_statuses). Everything else is a
/// [`StoreError`] whose
/// [`kind`](crate::StoreError::kind) says what helps:
///
/// | the server | kind |
/// |---|---|
/// | cannot be reached, or closes the connection | `Unreachable` |
/// | does not answer in time | `TimedOut` |
/// | 408, 425, 429, 5xx | `Unavailable` |
/// | 409, 412 to a write, and has no such entry | `Unavailable` |
/// | 401, 403, 407 | `PermissionDenied` |
/// | 413; 507 | `TooLarge`; `StorageFull` |
/// | 405, 501 to a write | `ReadOnly` |
/// | any other status, a redirect that is not followed, no HTTP, invalid TLS | `Protocol` |
/// | gets no request, because the circuit breaker is open | `BreakerOpen` |
///
/// The first four are transient, and their requests are repeated, see
/// [`retry`](RemoteCacheBuilder::retry). A server that keeps failing opens the circuit breaker:
/// lookups then cost nothing, and probes in the background close the breaker when the server works
/// again, see [`breaker`](RemoteCacheBuilder::breaker). Writes have a breaker of their own, which also
/// opens for as long as a `Retry-After` on a write says: a server that takes no writes is still read.
///
/// 401 and 403 are errors of one key, unless the tier has credentials that had no success within the
/// last minute. Then no such request is sent with them for a minute, and no longer than until the
/// credentials change. Reads and writes are blocked apart; a write that succeeds lets reads through.
///
/// Trouble is logged once where it begins and once where it ends, with the number of calls that failed
/// in between; those are logged at debug level. A trouble that comes and goes is logged once a minute
/// at most.
///
/// Two faults of kept connections cost no lookup. A request whose connection is closed before the
/// response begins is made again at once over a new one, outside the budget for retries, at most
/// once for each answered request. A frame of another key that came over a kept connection is asked
/// for again over a new one; where that helps, all kept connections are given up and none is kept
/// for a second, see
/// [`connections_replaced`](crate::PipelineCacheMetrics::connections_replaced).
///
/// # Many keys in one request
///
/// [`fetch_many`](crate::PipelineCacheStore::fetch_many) asks a server that knows this request, such as
/// `cache_server` among the examples, for up to 1,024 keys with `POST <base>/batch`; of more keys, four
/// such requests are under way at a time. An answer holds at most 64 MiB of frames. What does not fit in
/// it is asked for in the next request, and alone where that brings nothing.
///
/// The body of the request is the keys, 32 bytes each. The answer, of status 200, begins with the bytes
/// `89 70 63 62 0d 0a 1a 0a`. For each key, in the order of the request, follow four bytes, an integer
/// in little-endian order, and what it says:
///
/// | the integer | meaning |
/// |---|---|
/// | 0 | there is no such entry |
/// | `0xffff_ffff` | not in this answer: ask for it alone, or again |
/// | any other | the length of the entry's frame, which follows |
///
/// Each frame is verified as that of a single lookup. An answer that breaks off or does not keep to the
/// format is an error of the keys that it does not answer, whose request is repeated as that of a single
/// lookup is; a frame of another key is asked for again, alone. A batch takes one request permit and is
/// one call to the circuit breaker. One that takes more than half of
/// [`attempt_timeout`](RemoteCacheBuilder::attempt_timeout) is ended, and the rest asked for anew.
///
/// A server that does not know the request, such as nginx, answers it with 404, 405 or the like, or with
/// a page. That is logged once, many keys are then asked for with 16 requests at a time, and the server
/// is tried again after five minutes. 401 and 403 are taken for such an answer as well: whether the
/// credentials are rejected is learnt from single lookups.
///
/// # Trust
///
/// Entries are trusted as far as the server is, unless a
/// [`shared_secret`](RemoteCacheBuilder::shared_secret) is set: the frame of an artifact proves
/// that it is whole and belongs to its key, not who made it.
///
/// The tier does not know what the server holds: `entries` and `cached_bytes` of its metrics stay
/// 0. Clones share one tier. Use it on one tokio runtime.
///
/// # Cancel safety
///
/// Each call runs as a task. A future that is no longer polled holds neither a request permit nor a
/// connection. A future that is dropped gives its permit back; its request runs on for a short while,
/// so that the breaker learns how the server does, see
/// [`max_abandoned_requests`](RemoteCacheBuilder::max_abandoned_requests). A dropped put may still
/// have stored the whole artifact.
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
/// let remote = RemoteCache::builder().no_proxy().build(&url)?;
///
/// let key = PipelineFingerprint::from_bytes([7; 32]);
/// assert_eq!(remote.get(&key).await?, None);
/// assert_eq!(remote.metrics().misses, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RemoteCache {
    tier: Arc<NetworkTier<Entries>>,
}

impl RemoteCache {
    /// The tier on the entries below a base URL, with the defaults of [`RemoteCacheBuilder`]: it
    /// only reads, without credentials.
    ///
    /// Connects to nothing. Reads the platform's root certificates, see
    /// [`build`](RemoteCacheBuilder::build).
    ///
    /// # Errors
    ///
    /// [`RemoteCacheError`] where the URL is not `http` or `https`, or holds credentials, a query or
    /// a fragment.
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
}

delegate_to_network_tier!(RemoteCache);

#[async_trait]
impl CompileLeases for RemoteCache {
    /// `None` without [`compile_leases`](RemoteCacheBuilder::compile_leases), from a server that grants
    /// none, and after a close. Fails at once while the circuit breaker of the reads is open. The wait
    /// for another process has no limit of its own.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.tier.compile_lease(key).await
    }
}

impl fmt::Debug for RemoteCache {
    /// Everything but the secrets, of which only the presence is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = &self.tier.backend;
        f.debug_struct("RemoteCache")
            .field("base_url", &entries.server.base)
            .field("writes", &self.tier.writes)
            .field("format", &entries.format)
            .field("required", &self.tier.required)
            .field("credentials", &entries.server.credentials)
            .field("breaker", &self.breaker_state())
            .field("write_breaker", &self.write_breaker_state())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
