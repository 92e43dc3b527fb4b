//! The settings of a [`RedisCache`], each with its default.

use std::fmt;
use std::time::Duration;

use super::RedisCache;
use super::address::Address;
use super::announcements::Announcements;
use super::connector::{ConnectionSettings, Connector, SentinelCredentials};
use super::entries::Entries;
use super::error::RedisCacheError;
use super::leases::RedisLeases;
use super::link::Link;
use super::tls::TlsSettings;
use crate::network::{NetworkLeases, NetworkSettings, NetworkTier, TierLeases, network_settings};

const DEFAULT_PREFIX: &str = "pipeline-cache:";
const DEFAULT_MAX_ARTIFACT: u64 = 1 << 20;

/// A hundred years. Servers reject a time that ends after what they can count to.
const MAX_TIME_TO_LIVE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Settings for a [`RedisCache`]. Needs the feature `redis`.
///
/// All requests share one connection, or one to each node of a cluster.
///
/// ```
/// use pipeline_cache::{PipelineCacheStore as _, RedisCache};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), pipeline_cache::RedisCacheError> {
/// let cache = RedisCache::builder()
///     .time_to_live(Duration::from_secs(7 * 24 * 3600))
///     .writes()
///     .build("redis://builds:hunter2@cache.example.com/1")?;
/// assert_eq!(cache.to_string(), "redis(redis://cache.example.com:6379/1)");
/// assert!(cache.is_writable());
/// # Ok(())
/// # }
/// ```
///
/// A master behind Sentinels with TLS, whose database two teams share:
///
/// ```
/// use pipeline_cache::{RedisCache, RedisCacheError};
///
/// fn shared(
///     roots: &str,
///     certificate_and_key: &str,
///     sentinel_password: &str,
/// ) -> Result<RedisCache, RedisCacheError> {
///     RedisCache::builder()
///         .key_prefix("shader-team:")
///         .extra_root_certificates(roots)
///         .client_certificate(certificate_and_key)
///         .sentinel_credentials("", sentinel_password) // the default user
///         .build("rediss-sentinel://builds:hunter2@a.example.com,b.example.com/main")
/// }
/// # assert!(shared("", "", "hunter2").is_err());
/// ```
#[derive(Clone)]
pub struct RedisCacheBuilder {
    network: NetworkSettings,
    prefix: String,
    time_to_live: Option<Duration>,
    tls: TlsSettings,
    sentinel_credentials: Option<SentinelCredentials>,
    /// `None`: none are granted.
    lease_time: Option<Duration>,
}

impl Default for RedisCacheBuilder {
    fn default() -> Self {
        Self {
            network: NetworkSettings {
                max_artifact_bytes: DEFAULT_MAX_ARTIFACT,
                ..NetworkSettings::default()
            },
            prefix: DEFAULT_PREFIX.to_owned(),
            time_to_live: None,
            tls: TlsSettings::default(),
            sentinel_credentials: None,
            lease_time: None,
        }
    }
}

impl RedisCacheBuilder {
    network_settings!();

    /// How long an entry that this tier writes stays, to the millisecond: at least 1, and at most a
    /// hundred years. A lookup does not prolong it. Afterwards it is a miss. Default: until the server
    /// evicts it.
    #[must_use]
    pub const fn time_to_live(mut self, time: Duration) -> Self {
        self.time_to_live = Some(time);
        self
    }

    /// What the keys of all entries begin with, so that several caches share a database. It must be
    /// the same for all who share artifacts, and hold no braces, which clusters give a meaning.
    /// Default: `pipeline-cache:`.
    #[must_use]
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Trusts the certificates in this PEM text as roots, besides those of the platform. May be
    /// called several times. Matters only with TLS. Default: none.
    #[must_use]
    pub fn extra_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.extra_roots.push(pem.into());
        self
    }

    /// Authenticates with this certificate: a PEM text of the chain and its private key. Never
    /// printed. Matters only with TLS. Default: none.
    #[must_use]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(pem.into());
        self
    }

    /// The user and the password of the Sentinels. Those in the URL are of the servers. An empty user
    /// is the default user. Never printed. Default: none.
    #[must_use]
    pub fn sentinel_credentials(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.sentinel_credentials = Some(SentinelCredentials {
            user: user.into(),
            password: password.into(),
        });
        self
    }

    /// Grants compile leases: while a process of the fleet compiles a key, the others that share this
    /// server wait for its artifact, for as long as
    /// [`max_compile_wait`](crate::LayeredPipelineCacheBuilder::max_compile_wait) says. Needs
    /// [`writes`](Self::writes). Default: none are granted.
    ///
    /// A lease lives for this long, 100 ms to a day, and its holder renews it in the background. A
    /// holder that dies, is stopped, or is cut off loses it after this time, by the server's clock;
    /// [`expired_leases`](crate::PipelineCacheMetrics::expired_leases) counts those that notice. Then
    /// two may compile the same key, and store the same artifact. A failover may lose a lease, with the
    /// same result. 10 seconds suit most: a lease is renewed each third of its time.
    ///
    /// A server that does not say within the
    /// [network budget](crate::LayeredPipelineCacheBuilder::network_budget) who has the lease, lookup
    /// included, is not waited for. Where a compile takes seconds and machines are busy, allow more than
    /// the default of 250 ms.
    ///
    /// Those who wait are woken when the holder has stored the artifact or given up, and ask now and
    /// then, after 20 ms at first and up to once a second, in case that got lost. A server that does not
    /// answer such a request within 2 seconds, or a third of the lease's time, is not waited for any
    /// longer.
    ///
    /// An entry that this tier found and does not serve, because it is corrupt or refused, is compiled
    /// under a lease as well, for the
    /// [`heal_interval`](Self::heal_interval) after the lookup that found it.
    ///
    /// ```
    /// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache, RedisCache};
    /// use std::time::Duration;
    ///
    /// let redis = RedisCache::builder()
    ///     .writes()
    ///     .compile_leases(Duration::from_secs(10))
    ///     .build("redis://cache.example.com")?;
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(InMemoryPipelineCache::new())
    ///     .tier(redis)
    ///     .max_compile_wait(Duration::from_secs(60))
    ///     .build();
    /// # Ok::<(), pipeline_cache::RedisCacheError>(())
    /// ```
    #[must_use]
    pub const fn compile_leases(mut self, time: Duration) -> Self {
        self.lease_time = Some(time);
        self
    }

    /// Builds the tier on the servers of a URL, as [`RedisCache`] describes them. Connects to nothing.
    ///
    /// With TLS it reads the platform's root certificates on the calling thread, which may take some
    /// tens of milliseconds: build the tier where the program starts. Where the process has no default
    /// provider of cryptography for `rustls` yet, it installs that of AWS.
    ///
    /// # Errors
    ///
    /// [`RedisCacheError`] names what is wrong with the URL or a setting. It never repeats the URL,
    /// which may hold a password.
    pub fn build(mut self, url: impl AsRef<str>) -> Result<RedisCache, RedisCacheError> {
        // How much of a reply has come cannot be seen.
        let limits = &mut self.network.limits;
        limits.attempt_timeout = limits.attempt_timeout.min(self.network.inactivity_timeout);
        let address = Address::parse(url.as_ref())?;
        if self.prefix.contains(['{', '}']) {
            return Err(RedisCacheError::BracesInPrefix);
        }
        let name = match self.prefix == DEFAULT_PREFIX {
            true => format!("redis({address})"),
            false => format!("redis({address} {})", self.prefix),
        };
        let settings = ConnectionSettings {
            connect_timeout: self.network.connect_timeout,
            inactivity_timeout: self.network.inactivity_timeout,
            certificates: address.tls.then(|| self.tls.certificates()).transpose()?,
            sentinel_credentials: self.sentinel_credentials,
        };
        let has_credentials = address.has_credentials();
        let link = Link::new(
            Connector::new(address, settings)?,
            self.network.connect_timeout,
            self.network.inactivity_timeout,
        );
        let lease_time = self.lease_time.filter(|_| self.network.writes);
        let leases = lease_time.map(|time| {
            let backend = RedisLeases {
                link: link.clone(),
                prefix: self.prefix.clone(),
                has_credentials,
                announcements: Announcements::new(link.clone()),
            };
            let limits = self.network.limits;
            let leases = NetworkLeases::new(name.clone(), backend, time, limits);
            Box::new(leases) as Box<dyn TierLeases>
        });
        let (format, promotable) = self.network.format();
        let entries = Entries {
            link,
            shares_link: false,
            prefix: self.prefix,
            has_credentials,
            format,
            time_to_live: self.time_to_live.map(|time| time.min(MAX_TIME_TO_LIVE)),
        };
        Ok(RedisCache {
            tier: NetworkTier::new(name, entries, promotable, self.network, leases),
        })
    }
}

impl fmt::Debug for RedisCacheBuilder {
    /// Everything but the secrets, of which only the presence is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCacheBuilder")
            .field("network", &self.network)
            .field("prefix", &self.prefix)
            .field("time_to_live", &self.time_to_live)
            .field("lease_time", &self.lease_time)
            .field("extra_roots", &self.tls.extra_roots.len())
            .field("client_certificate", &self.tls.identity.is_some())
            .field("sentinel_credentials", &self.sentinel_credentials.is_some())
            .finish()
    }
}
