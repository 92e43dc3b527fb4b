//! What the builders of all tiers across a network have in common: the settings, and the methods
//! that set them.

use std::time::Duration;

use super::call_policy::Limits;
use super::uploads::UploadPolicy;
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
    pub(crate) uploads: Option<UploadPolicy>,
    /// For how long a miss is remembered, and how many of them.
    pub(crate) negative: Option<(Duration, usize)>,
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
            uploads: None,
            negative: None,
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
        let (keys, promotable) = self.trust.clone().into_keys();
        #[cfg_attr(not(feature = "zstd"), expect(unused_mut, reason = "set below"))]
        let mut format = FrameFormat::new(keys, self.max_artifact_bytes);
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
        /// How long a call may take as a whole: the wait for a free request slot, every retry and
        /// the wait for it, the body and its verification. Default: 30 seconds.
        #[must_use]
        pub const fn request_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.limits.call_timeout = timeout;
            self
        }

        /// How long one attempt of a call may take, within its
        /// [whole time](Self::request_timeout). Default: 10 seconds.
        #[must_use]
        pub const fn attempt_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.limits.attempt_timeout = timeout;
            self
        }

        /// How long a connection may take to open: name lookup, TCP and TLS. Default: 2 seconds.
        #[must_use]
        pub const fn connect_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.connect_timeout = timeout;
            self
        }

        /// How long a request may stand still, while it connects, waits for the answer, or reads or
        /// sends a body. Default: 5 seconds.
        #[must_use]
        pub const fn inactivity_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.network.inactivity_timeout = timeout;
            self
        }

        /// How requests that failed for a passing reason are made again. Default:
        /// [`RetryPolicy::default`](crate::RetryPolicy::default), three attempts.
        #[must_use]
        pub const fn retry(mut self, policy: $crate::RetryPolicy) -> Self {
            self.network.limits.retry = policy;
            self
        }

        /// When a server that fails is left alone. Default:
        /// [`BreakerPolicy::default`](crate::BreakerPolicy::default).
        #[must_use]
        pub const fn breaker(mut self, policy: $crate::BreakerPolicy) -> Self {
            self.network.limits.breaker = policy;
            self
        }

        /// A key that missed is not asked for again within this time, unless it is put through
        /// this tier: what others put stays unseen for as long. No more than `keys` are
        /// remembered. Default: none is.
        #[must_use]
        pub const fn negative_answers(mut self, time: std::time::Duration, keys: usize) -> Self {
            self.network.negative = Some((time, keys));
            self
        }

        /// Whether artifacts are written to the server and removed from it. Default: no, the tier
        /// is read-through only.
        #[must_use]
        pub const fn writes(mut self, writes: bool) -> Self {
            self.network.writes = writes;
            self
        }

        /// Uploads in the background: a put returns at once, and
        /// [`flush`](crate::PipelineCacheStore::flush) waits for it. What the server is known to
        /// have is not uploaded again. Needs [`writes`](Self::writes). Default: a put waits for
        /// its upload.
        #[must_use]
        pub const fn background_uploads(mut self, policy: $crate::UploadPolicy) -> Self {
            self.network.uploads = Some(policy);
            self
        }

        /// The largest payload that is read or written, in bytes. No more than this and 64 KiB of
        /// metadata is ever read of an answer. Default: 64 MiB.
        #[must_use]
        pub const fn max_artifact_bytes(mut self, bytes: u64) -> Self {
            self.network.max_artifact_bytes = bytes;
            self
        }

        /// How many requests may be under way at once, at least 1; further calls wait, within
        /// their timeout. With the largest artifact it bounds the memory that answers take before
        /// they are verified. Default: 64.
        #[must_use]
        pub const fn max_concurrent_requests(mut self, requests: usize) -> Self {
            self.network.limits.concurrent_requests = requests;
            self
        }

        /// Signs what is written and refuses, as corrupt, whatever was not signed with the same
        /// secret. Without one, whoever can write to the server can make an artifact. Default:
        /// none.
        #[must_use]
        pub fn shared_secret(mut self, secret: $crate::SharedSecret) -> Self {
            self.network.trust = $crate::Trust::Authenticated(secret.into());
            self
        }

        /// Whom the tier believes: [`shared_secret`](Self::shared_secret) with more to choose
        /// from. Default: [`Trust::Server`](crate::Trust::Server).
        #[must_use]
        pub fn trust(mut self, trust: $crate::Trust) -> Self {
            self.network.trust = trust;
            self
        }

        /// Writes payloads of at least `min_bytes` compressed with zstd at this level, 1 to 19,
        /// where that makes them shorter. Whoever reads them needs the feature `zstd` as well: to
        /// others they are corrupt. Compressed entries are read in any case. Default: none is
        /// written.
        #[cfg(feature = "zstd")]
        #[must_use]
        pub fn zstd(mut self, level: i32, min_bytes: u64) -> Self {
            let compression = $crate::artifact::compression::Compression::new(level, min_bytes);
            self.network.compression = Some(compression);
            self
        }
    };
}

pub(crate) use network_settings;
