//! A tier on a Redis or Valkey server: `<prefix><64 hex digits>`, one frame each, as a string. Needs
//! the feature `redis`.
//!
//! The client is the `redis` crate, for three reasons. It is the one that is kept up: eight releases
//! since 1.0, most with fixes for clusters and failovers. Its multiplexed connection is safe to
//! cancel: commands and replies are matched in a task of its own, which discards the reply to a
//! future that was dropped. And it has no policy that cannot be switched off: the retries and time
//! limits of the tier are the ones that count. `fred`, the other client with all three topologies,
//! needs no newer Rust than 1.75, where this one needs 1.88; but it repeats commands and reconnects
//! on its own, beneath the breaker.

// `network` makes the calls. This folder holds only how one request is made: `entries` knows the
// commands, `link` the connection that they share, `connector` how that is opened, `reply` what an
// error means. `leases` are compile leases, and `announcements` wake those who wait for one.

mod address;
mod announcements;
mod builder;
mod connector;
mod entries;
mod error;
mod leases;
mod link;
mod reply;
mod tls;

pub use builder::RedisCacheBuilder;
pub use error::RedisCacheError;

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;

use crate::key::PipelineFingerprint;
use crate::network::{NetworkTier, delegate_to_network_tier};
use crate::store::{CompileLease, CompileLeases, PipelineCacheStore as _, StoreError};
use entries::Entries;

/// A Redis or Valkey server as a tier, for small artifacts that a fleet shares. Needs the feature
/// `redis`.
///
/// | URL | servers |
/// |---|---|
/// | `redis://[user:password@]host[:6379][/database]` | one server |
/// | `redis-cluster://[user:password@]host[:6379],host…` | a cluster, of which some nodes are named |
/// | `redis-sentinel://[user:password@]host[:26379],host…/master[/database]` | the master that the Sentinels name |
///
/// With `rediss` instead of `redis` the connections use TLS. `valkey` and `valkeys` mean the same.
/// Without a user, the password is that of the default user. Write what is not a letter or a digit in
/// a user or a password as `%` and two hex digits. Neither is ever printed.
///
/// The tier only reads, unless [`writes`](RedisCacheBuilder::writes) is set. This is all that it asks of
/// a server, as the rules of an ACL, here of a user that writes and takes leases:
///
/// ```text
/// ACL SETUSER builds on >hunter2 resetkeys ~pipeline-cache:* resetchannels &pipeline-cache:* -@all +getrange +strlen +set +del +eval +exists +get +pexpire +publish +subscribe +unsubscribe
/// ```
///
/// | for | commands |
/// |---|---|
/// | lookups | `+getrange +strlen` |
/// | [`writes`](RedisCacheBuilder::writes) | `+set +del` |
/// | [compile leases](RedisCacheBuilder::compile_leases) | those of writes and `+eval +exists +get +pexpire +publish +subscribe +unsubscribe` |
/// | a database other than 0 | `+select` |
/// | a master behind Sentinels | `+role`; of the Sentinels themselves `+role +sentinel` |
/// | a cluster | `+ping +cluster +asking` |
///
/// An artifact above [`max_artifact_bytes`](RedisCacheBuilder::max_artifact_bytes), by default 1 MiB,
/// is passed over: a put of it is [`TooLarge`](crate::StoreErrorKind::TooLarge), and a
/// [`LayeredPipelineCache`](crate::LayeredPipelineCache) does not put it here. One connection serves
/// all requests, so a large entry holds up those behind it. What the server evicted, or let expire, is a
/// miss.
///
/// A value is verified before it is served. One that is not a frame, a key that holds another type, or
/// the frame of another key is [`Fetched::Corrupt`](crate::Fetched::Corrupt) and a miss; the next put
/// replaces it. What only this tier's settings reject, such as an entry above the limit or of another
/// secret, is [`Fetched::Refused`](crate::Fetched::Refused) and a miss. Everything else is a
/// [`StoreError`] whose [`kind`](StoreError::kind) says what helps:
///
/// | the server | kind |
/// |---|---|
/// | cannot be reached, or closes the connection | `Unreachable` |
/// | does not answer in time | `TimedOut` |
/// | `LOADING`, `BUSY`, `CLUSTERDOWN`, `MASTERDOWN`, `TRYAGAIN`, `NOREPLICAS`, `MISCONF`, too many clients | `Unavailable` |
/// | `NOAUTH`, `WRONGPASS`, `NOPERM` | `PermissionDenied` |
/// | `OOM` | `StorageFull` |
/// | `READONLY` | `ReadOnly`; behind Sentinels `Unavailable` |
/// | any other error, such as `MOVED` from a cluster that is not used as one; invalid TLS | `Protocol` |
/// | gets no request, because the circuit breaker is open | `BreakerOpen` |
///
/// The first three are transient, and their requests are repeated, see
/// [`retry`](RedisCacheBuilder::retry). Failures open the circuit breaker of the reads or that of the
/// writes, as those of a `RemoteCache` do: a server that takes no writes is still read. A server that
/// rejects the user is not asked again for a minute, unless it took the user within the last minute.
///
/// A connection that was closed while it was idle costs no lookup: the request is made again at once.
/// One whose server stopped answering is given up after the
/// [`inactivity_timeout`](RedisCacheBuilder::inactivity_timeout).
///
/// Entries are trusted as far as the server is, unless a
/// [`shared_secret`](RedisCacheBuilder::shared_secret) is set. The tier does not know what the server
/// holds: `entries` and `cached_bytes` of its metrics stay 0. Clones share one tier. Use it on one
/// tokio runtime. Many keys are many requests, 16 at a time, which share the connections.
///
/// # Cancel safety
///
/// Each call runs as a task. A future that is no longer polled holds no request permit. A future that
/// is dropped gives its permit back; its request runs on for a short while, so that the breaker learns
/// how the server does, see [`max_abandoned_requests`](RedisCacheBuilder::max_abandoned_requests). A
/// reply that comes after that is discarded. A dropped put may still have stored the whole artifact.
///
/// ```no_run
/// use pipeline_cache::{Artifact, PipelineCacheStore as _, PipelineFingerprint, RedisCache};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = RedisCache::builder().writes().build("redis://localhost")?;
///
/// let key = PipelineFingerprint::from_bytes([7; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
/// assert_eq!(cache.get(&key).await?, Some(Artifact::new("code")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisCache {
    tier: Arc<NetworkTier<Entries>>,
}

impl RedisCache {
    /// The tier on the servers of a URL, with the defaults of [`RedisCacheBuilder`]: it only reads.
    ///
    /// Connects to nothing.
    ///
    /// # Errors
    ///
    /// As [`RedisCacheBuilder::build`].
    ///
    /// ```
    /// use pipeline_cache::RedisCache;
    ///
    /// let cache = RedisCache::new("redis-cluster://10.0.0.1,10.0.0.2:7001")?;
    /// assert_eq!(cache.to_string(), "redis(redis-cluster://10.0.0.1:6379,10.0.0.2:7001/0)");
    /// # Ok::<(), pipeline_cache::RedisCacheError>(())
    /// ```
    pub fn new(url: impl AsRef<str>) -> Result<Self, RedisCacheError> {
        Self::builder().build(url)
    }

    /// Settings, each with a documented default.
    #[must_use]
    pub fn builder() -> RedisCacheBuilder {
        RedisCacheBuilder::default()
    }
}

delegate_to_network_tier!(RedisCache);

#[async_trait]
impl CompileLeases for RedisCache {
    /// `None` without [`compile_leases`](RedisCacheBuilder::compile_leases), and after a close. Fails
    /// at once while the circuit breaker of the reads is open. The wait for another process has no
    /// limit of its own.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.tier.compile_lease(key).await
    }
}

impl fmt::Debug for RedisCache {
    /// Everything but the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = &self.tier.backend;
        f.debug_struct("RedisCache")
            .field("name", &self.tier.name)
            .field("writes", &self.tier.writes)
            .field("format", &entries.format)
            .field("time_to_live", &entries.time_to_live)
            .field("required", &self.tier.required)
            .field("has_credentials", &entries.has_credentials)
            .field("breaker", &self.breaker_state())
            .field("write_breaker", &self.write_breaker_state())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
