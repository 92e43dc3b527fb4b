//! The settings that the builders of all tiers across a network share, and the methods that set
//! them.

use std::time::Duration;

use super::call_policy::Limits;
use super::requirement::Requirement;
use crate::artifact::Trust;
#[cfg(feature = "zstd")]
use crate::artifact::compression::Compression;
use crate::artifact::frame::FrameFormat;

#[derive(Debug, Clone)]
pub(crate) struct NetworkSettings {
    pub(crate) limits: Limits,
    pub(crate) connect_timeout: Duration,
    pub(crate) inactivity_timeout: Duration,
    pub(crate) writes: bool,
    #[cfg(any(feature = "remote-cache", feature = "object-store"))]
    pub(crate) absent_statuses: Vec<u16>,
    pub(crate) remember_misses: Option<Duration>,
    pub(crate) max_remembered_misses: usize,
    pub(crate) heal_interval: Duration,
    pub(crate) required: Requirement,
    pub(crate) max_artifact_bytes: u64,
    pub(crate) trust: Trust,
    #[cfg(feature = "zstd")]
    pub(crate) compression: Option<Compression>,
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            connect_timeout: Duration::from_secs(2),
            inactivity_timeout: Duration::from_secs(5),
            writes: false,
            #[cfg(any(feature = "remote-cache", feature = "object-store"))]
            absent_statuses: vec![404, 410],
            remember_misses: None,
            max_remembered_misses: 16 * 1024,
            heal_interval: Duration::from_secs(60),
            required: Requirement::default(),
            max_artifact_bytes: 64 << 20,
            trust: Trust::Server,
            #[cfg(feature = "zstd")]
            compression: None,
        }
    }
}

impl NetworkSettings {
    /// How frames are written and which are accepted, and whether they may be promoted.
    pub(crate) fn format(&self) -> (FrameFormat, bool) {
        let trust = self.trust.clone();
        let promotable = trust.allows_promotion();
        #[cfg_attr(not(feature = "zstd"), expect(unused_mut, reason = "set below"))]
        let mut format = trust.into_format(self.max_artifact_bytes);
        #[cfg(feature = "zstd")]
        {
            format.compression = self.compression;
        }
        (format, promotable)
    }
}

/// The methods of a builder whose field `network` holds the [`NetworkSettings`].
macro_rules! network_settings {
    () => {
        /// The time limit of a whole call: the wait for a request permit, every retry and the delay
        /// before it, the body and its verification. Default: 30 seconds.
        #[must_use]
        pub const fn request_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.limits.call_timeout = timeout;
            self
        }

        /// The time limit of one attempt of a call, within
        /// [`request_timeout`](Self::request_timeout). Default: 10 seconds.
        #[must_use]
        pub const fn attempt_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.limits.attempt_timeout = timeout;
            self
        }

        /// The time limit for opening a connection: name lookup, TCP and TLS. Default: 2 seconds.
        #[must_use]
        pub const fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.connect_timeout = timeout;
            self
        }

        /// The longest time in which nothing is sent or received while a request connects, waits
        /// for the response, or moves a body. A reply of Redis must be there as a whole within it. An
        /// upload over HTTP gets up to 8 seconds more: one for
        /// each 64 KiB that was handed to the system, which may still hold them. Default: 5 seconds.
        #[must_use]
        pub const fn inactivity_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.inactivity_timeout = timeout;
            self
        }

        /// How requests are repeated that failed for a transient reason. Default:
        /// [`RetryPolicy::default`](crate::network::RetryPolicy::default), three attempts.
        #[must_use]
        pub const fn retry(mut self, policy: $crate::network::RetryPolicy) -> Self {
            self.network.limits.retry = policy;
            self
        }

        /// When a circuit breaker opens, so that no requests are sent to a failing server. Reads and
        /// writes have one each.
        /// Default: [`BreakerPolicy::default`](crate::network::BreakerPolicy::default).
        #[must_use]
        pub const fn breaker(mut self, policy: $crate::network::BreakerPolicy) -> Self {
            self.network.limits.breaker = policy;
            self
        }

        /// Caches each miss for `time`. A put through this tier clears it; writes by other clients
        /// become visible after `time`. Default: no miss is remembered.
        #[must_use]
        pub const fn remember_misses_for(mut self, time: std::time::Duration) -> Self {
            self.network.remember_misses = Some(time);
            self
        }

        /// The most misses that are remembered. Matters only with
        /// [`remember_misses_for`](Self::remember_misses_for). Default: 16,384.
        #[must_use]
        pub const fn max_remembered_misses(mut self, keys: usize) -> Self {
            self.network.max_remembered_misses = keys;
            self
        }

        /// How long a corrupt or refused entry that an upload did not change is not uploaded again:
        /// an edge may transform every response. A put of it fails meanwhile, with
        /// [`StoreErrorKind::Protocol`](crate::StoreErrorKind::Protocol), and `contains` says
        /// `false`. At most 4,096 such entries are remembered. Zero: every put is sent. Default: 60
        /// seconds.
        #[must_use]
        pub const fn heal_interval(mut self, time: std::time::Duration) -> Self {
            self.network.heal_interval = time;
            self
        }

        /// Writes artifacts to the server, and removes them from it. A put does not replace an entry
        /// that a lookup of the last hour has found to be of a later release: it fails with
        /// [`StoreErrorKind::Foreign`](crate::StoreErrorKind::Foreign). Default: the tier only reads.
        #[must_use]
        pub const fn writes(mut self) -> Self {
            self.network.writes = true;
            self
        }

        /// The largest payload that is read or written, in bytes. At most this and 64 KiB of
        /// metadata is read of a response. Default: 64 MiB; 1 MiB for a `RedisCache`.
        #[must_use]
        pub const fn max_artifact_bytes(mut self, bytes: u64) -> Self {
            self.network.max_artifact_bytes = bytes;
            self
        }

        /// The most requests under way at once, at least 1. Further calls wait, within their
        /// timeout. Writes take at most half of them, rounded up. With the largest artifact it bounds
        /// the memory that responses take before they are verified. Default: 64.
        #[must_use]
        pub const fn max_concurrent_requests(mut self, requests: usize) -> Self {
            self.network.limits.concurrent_requests = requests;
            self
        }

        /// The most reads that run on after their callers have left, until their answers begin or go
        /// on, and the most writes that do.
        /// So the circuit breakers learn from callers with short deadlines too. They are not among
        /// those of [`max_concurrent_requests`](Self::max_concurrent_requests); a further request
        /// ends when its caller leaves. See
        /// [`abandoned_after`](crate::network::BreakerPolicy::abandoned_after). Default: 16.
        #[must_use]
        pub const fn max_abandoned_requests(mut self, requests: usize) -> Self {
            self.network.limits.abandoned_requests = requests;
            self
        }

        /// Serves only artifacts whose metadata names exactly this provenance. Any other artifact
        /// is [`Fetched::Refused`](crate::Fetched::Refused): a miss, counted as `refused`. Puts
        /// are not checked, and `contains` does not look at metadata.
        ///
        /// Metadata is only as true as the server, unless a [`shared_secret`](Self::shared_secret)
        /// is set. Source aliases have no provenance, and are served whatever is set here. Default: any
        /// provenance, or none.
        #[must_use]
        pub fn require_provenance(mut self, provenance: impl Into<String>) -> Self {
            self.network.required.provenance = Some(provenance.into());
            self
        }

        /// Serves only artifacts whose metadata names exactly this device, as
        /// [`require_provenance`](Self::require_provenance) does. Default: any device, or none.
        #[must_use]
        pub fn require_device(mut self, device: impl Into<String>) -> Self {
            self.network.required.device = Some(device.into());
            self
        }

        /// Writes with this secret, and serves only what was made with it. Anything else is
        /// [`Fetched::Refused`](crate::Fetched::Refused).
        /// Without a secret, any writer of the server can make an artifact. Default: none.
        #[must_use]
        pub fn shared_secret(mut self, secret: $crate::artifact::SharedSecret) -> Self {
            self.network.trust = $crate::artifact::Trust::Authenticated(secret.into());
            self
        }

        /// Which signatures the tier accepts. [`shared_secret`](Self::shared_secret) is the common
        /// case.
        /// Default: [`Trust::Server`](crate::Trust::Server).
        #[must_use]
        pub fn trust(mut self, trust: $crate::artifact::Trust) -> Self {
            self.network.trust = trust;
            self
        }

        /// Writes payloads of at least `min_bytes` compressed with zstd at this level, 1 to 19,
        /// where that makes them shorter. Readers need the feature `zstd` as well: without it,
        /// compressed entries are refused. With it, they are read whether or not this is set.
        /// Default: nothing is compressed.
        #[cfg(feature = "zstd")]
        #[must_use]
        pub fn zstd(mut self, level: i32, min_bytes: u64) -> Self {
            let compression = $crate::artifact::compression::Compression::new(level, min_bytes);
            self.network.compression = Some(compression);
            self
        }
    };
}

/// The settings of those that speak HTTP.
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
macro_rules! http_settings {
    () => {
        /// The HTTP statuses of a lookup that mean that the server does not have the entry. They
        /// replace the default. Add 403 for an S3 bucket whose credentials may not list it, and 401
        /// for a server that says so of what it does not have. A success is never a miss. A removal
        /// is answered with `false` at 404 and 410 only. Default: 404 and 410.
        #[must_use]
        pub fn absent_statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
            self.network.absent_statuses = statuses.into_iter().collect();
            self
        }
    };
}

#[cfg(any(feature = "remote-cache", feature = "object-store"))]
pub(crate) use http_settings;
pub(crate) use network_settings;
