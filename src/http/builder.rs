//! The settings of a [`RemoteCache`], each with its default, and what can be wrong with them.

use reqwest::{Certificate, Identity};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::RemoteCache;
use super::base_url::BaseUrl;
use super::client::HttpClient;
use super::client_settings::ClientSettings;
use super::credentials::{CredentialHeaders, CredentialSource, Credentials};
use super::entries::Entries;
use super::leases::{HttpLeases, MAX_TIME};
use super::server::Server;
use crate::network::{
    NetworkLeases, NetworkSettings, NetworkTier, RequestError, ServerSupport, TierLeases,
    http_settings, network_settings,
};

/// Settings for a [`RemoteCache`]. Needs the feature `remote-cache`.
///
/// Connections are kept and reused by `reqwest`. Their number is not counted exactly: at most
/// [`max_concurrent_requests`](Self::max_concurrent_requests) idle HTTP/1.1 connections are kept to
/// an origin, for 50 seconds, and a burst may open about as many more for a moment. Requests whose
/// callers have left have connections besides, see
/// [`max_abandoned_requests`](Self::max_abandoned_requests).
///
/// ```
/// use pipeline_cache::{PipelineCacheStore as _, RemoteCache, SharedSecret};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), pipeline_cache::RemoteCacheError> {
/// let remote = RemoteCache::builder()
///     .bearer_token("3f9c…".replace('…', "a1"))
///     .shared_secret(SharedSecret::new("correct horse battery staple"))
///     .request_timeout(Duration::from_secs(10))
///     .writes()
///     .build("https://cache.example.com/artifacts")?;
/// assert_eq!(remote.to_string(), "remote(https://cache.example.com/artifacts)");
/// assert!(remote.is_writable());
/// # Ok(())
/// # }
/// ```
///
/// A slow line to a server far away. The builders of the other network tiers have the same settings:
///
/// ```
/// use pipeline_cache::RemoteCache;
/// use pipeline_cache::network::{BreakerPolicy, RetryPolicy};
/// use std::time::Duration;
///
/// let settings = RemoteCache::builder()
///     // Large artifacts take long, but something moves all the time.
///     .connect_timeout(Duration::from_secs(5))
///     .inactivity_timeout(Duration::from_secs(15))
///     .attempt_timeout(Duration::from_secs(60))
///     .request_timeout(Duration::from_secs(120))
///     .retry(RetryPolicy::default().attempts(2))
///     .breaker(BreakerPolicy::default().window(Duration::from_secs(300)))
///     // Many requests at once only slow each other down.
///     .max_concurrent_requests(8)
///     .max_abandoned_requests(4)
///     // A miss costs a whole round trip. What others store meanwhile is found a minute later.
///     .remember_misses_for(Duration::from_secs(60))
///     .max_remembered_misses(100_000)
///     // An edge on the way keeps a damaged response for ten minutes: uploads sooner are of no use.
///     .heal_interval(Duration::from_secs(600))
///     .writes();
/// # #[cfg(feature = "zstd")]
/// let settings = settings.zstd(9, 16 << 10); // with the feature `zstd`
/// let remote = settings.build("https://cache.example.com")?;
/// # Ok::<(), pipeline_cache::RemoteCacheError>(())
/// ```
///
/// A gateway with its own certificate authority, which asks its clients for a certificate and an API
/// key; and a sidecar that speaks HTTP/2 without TLS:
///
/// ```
/// use pipeline_cache::{RemoteCache, RemoteCacheError};
///
/// fn at_gateway(
///     roots: &str,
///     certificate_and_key: &str,
///     api_key: &str,
/// ) -> Result<RemoteCache, RemoteCacheError> {
///     RemoteCache::builder()
///         .extra_root_certificates(roots)
///         .client_certificate(certificate_and_key)
///         .header("X-Api-Key", api_key)
///         .max_redirects(0) // a redirect would be a mistake in its configuration
///         .build("https://cache.example.com")
/// }
///
/// fn at_sidecar(password: &str) -> Result<RemoteCache, RemoteCacheError> {
///     RemoteCache::builder()
///         .basic_auth("builds", password)
///         .http2_prior_knowledge()
///         .no_proxy() // it is on this machine
///         .build("http://127.0.0.1:8420")
/// }
/// # at_sidecar("hunter2")?;
/// # assert!(matches!(at_gateway("", "", ""), Err(RemoteCacheError::InvalidRootCertificate)));
/// # Ok::<(), RemoteCacheError>(())
/// ```
#[derive(Clone)]
pub struct RemoteCacheBuilder {
    max_redirects: usize,
    proxy_from_environment: bool,
    http2_prior_knowledge: bool,
    credentials: CredentialSource,
    extra_roots: Vec<Vec<u8>>,
    identity: Option<Vec<u8>>,
    network: NetworkSettings,
    /// `None`: none are granted.
    lease_time: Option<Duration>,
}

impl Default for RemoteCacheBuilder {
    fn default() -> Self {
        Self {
            max_redirects: 5,
            proxy_from_environment: true,
            http2_prior_knowledge: false,
            credentials: CredentialSource::Fixed(Credentials::none()),
            extra_roots: Vec::new(),
            identity: None,
            network: NetworkSettings::default(),
            lease_time: None,
        }
    }
}

impl RemoteCacheBuilder {
    network_settings!();
    http_settings!();

    /// Trusts the certificates in this PEM text as roots, besides those of the platform. May be
    /// called several times. Default: none.
    #[must_use]
    pub fn extra_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_roots.push(pem.into());
        self
    }

    /// Authenticates with this certificate: a PEM text of the chain and its private key. Never
    /// printed. The certificate, not the key, is also shown to a proxy with an `https` URL that asks
    /// for one: where that must not be, use [`no_proxy`](Self::no_proxy) or a proxy with an `http`
    /// URL. No other server sees it. Default: none.
    #[must_use]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.identity = Some(pem.into());
        self
    }

    /// The most redirects that one request follows; 0 follows none. Redirects from https to http
    /// are never followed. Credentials are not sent to another scheme, host or port; with a client
    /// certificate, redirects there are not followed at all. Idle connections are kept to at most
    /// 8 other origins at a time. Default: 5.
    #[must_use]
    pub const fn max_redirects(mut self, redirects: usize) -> Self {
        self.max_redirects = redirects;
        self
    }

    /// Connects without a proxy. Default: the proxies that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`
    /// and `NO_PROXY` name are used; name a server on this machine in `NO_PROXY`.
    #[must_use]
    pub const fn no_proxy(mut self) -> Self {
        self.proxy_from_environment = false;
        self
    }

    /// Uses HTTP/2 without negotiation. Needed for HTTP/2 over plain `http`. Over `https`, client
    /// and server negotiate it anyway. Default: HTTP/1.1 over `http`.
    #[must_use]
    pub const fn http2_prior_knowledge(mut self) -> Self {
        self.http2_prior_knowledge = true;
        self
    }

    /// Authenticates with a bearer token. Replaces [`basic_auth`](Self::basic_auth). Never
    /// printed, never sent to another server. Default: none.
    #[must_use]
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        let bearer = Credentials::bearer(token);
        self.credentials = self
            .credentials
            .map_fixed(|fixed| fixed.authorized_as(bearer));
        self
    }

    /// Authenticates with a user name and a password. Replaces
    /// [`bearer_token`](Self::bearer_token). Never printed, never sent to another server.
    /// Default: none.
    #[must_use]
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let basic = Credentials::basic(user, password);
        self.credentials = self
            .credentials
            .map_fixed(|fixed| fixed.authorized_as(basic));
        self
    }

    /// Adds a header to every request, such as `X-Api-Key`. Its value is treated as a secret: never
    /// printed, never sent to another server. Default: none.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.credentials = self
            .credentials
            .map_fixed(|fixed| fixed.with_header(name, value));
        self
    }

    /// Takes all credentials from a callback, so that they can rotate, instead of those set here.
    /// It is called once for every attempt of a call, twice where that asks for a compile lease, on a
    /// runtime worker, and must not block: let another task keep the credentials fresh. Where it panics, the call fails as
    /// `PermissionDenied` and nothing is sent. After the server rejected the credentials, no more
    /// requests are made until the callback returns others, or a minute has passed.
    ///
    /// ```
    /// use pipeline_cache::{Credentials, RemoteCache};
    /// use std::sync::{Arc, RwLock};
    ///
    /// let token = Arc::new(RwLock::new("first".to_owned()));
    /// let current = Arc::clone(&token);
    /// let remote = RemoteCache::builder()
    ///     .credentials_from(move || Credentials::bearer(current.read().unwrap().as_str()))
    ///     .build("https://cache.example.com")?;
    /// *token.write().unwrap() = "second".to_owned();
    /// # Ok::<(), pipeline_cache::RemoteCacheError>(())
    /// ```
    #[must_use]
    pub fn credentials_from(
        mut self,
        callback: impl Fn() -> Credentials + Send + Sync + 'static,
    ) -> Self {
        self.credentials = CredentialSource::Rotating(Arc::new(callback));
        self
    }

    /// Grants compile leases, where the server does, as `cache_server` among the examples: while a
    /// process of the fleet compiles a key, the others that share this server wait for its artifact,
    /// for as long as [`max_compile_wait`](crate::LayeredPipelineCacheBuilder::max_compile_wait) says.
    /// Needs [`writes`](Self::writes). Default: none are granted.
    ///
    /// A lease lives for this long, at least 100 ms and at most ten minutes, and its holder renews it
    /// in the background. A holder that dies, is stopped, or is cut off loses it after this time, by
    /// the server's clock; [`expired_leases`](crate::PipelineCacheMetrics::expired_leases) counts those
    /// that notice. Then two may compile the same key, and store the same artifact. A server that is
    /// started again has forgotten all leases: their holders acquire them anew, or others do, with the
    /// same result. 10 seconds suit most: a lease is renewed each third of its time.
    ///
    /// A server without leases, such as nginx, answers the first `POST <base>/leases/<key>` with 404,
    /// 405 or the like. That is logged once, compiles go on without leases, and it is asked again
    /// after five minutes.
    ///
    /// A server that does not say within the
    /// [network budget](crate::LayeredPipelineCacheBuilder::network_budget) who has the lease, lookup
    /// included, is not waited for.
    ///
    /// Those who wait have a request each that the server answers when the artifact is stored or the
    /// holder has given up, or after half the [`inactivity_timeout`](Self::inactivity_timeout). At most
    /// 32 such requests are under way, which take no request permit. Who waits besides asks now and
    /// then, after 20 ms at first and up to once a second. A server that stops answering while it is
    /// waited for costs those who wait the [`inactivity_timeout`](Self::inactivity_timeout), and at most
    /// 2 seconds more.
    ///
    /// ```
    /// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache, RemoteCache};
    /// use std::time::Duration;
    ///
    /// let remote = RemoteCache::builder()
    ///     .writes()
    ///     .compile_leases(Duration::from_secs(10))
    ///     .build("http://cache.example.com:8420/artifacts")?;
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(InMemoryPipelineCache::new())
    ///     .tier(remote)
    ///     .max_compile_wait(Duration::from_secs(60))
    ///     .build();
    /// # Ok::<(), pipeline_cache::RemoteCacheError>(())
    /// ```
    #[must_use]
    pub const fn compile_leases(mut self, time: Duration) -> Self {
        self.lease_time = Some(time);
        self
    }

    /// Builds the tier on the entries below a base URL, `<base>/<64 hex digits>.bin`. Connects to
    /// nothing.
    ///
    /// Reads the platform's root certificates on the calling thread, which may take some tens of
    /// milliseconds: build the tier where the program starts. Where there are none, an `http` URL
    /// still works.
    ///
    /// # Errors
    ///
    /// [`RemoteCacheError`] names what is wrong with the URL or a setting. It never repeats the
    /// URL, which may hold a secret.
    pub fn build(self, base_url: impl AsRef<str>) -> Result<RemoteCache, RemoteCacheError> {
        let base = BaseUrl::parse(base_url.as_ref())?;
        let settings = ClientSettings {
            is_plain_http: base.is_plain_http(),
            proxy_from_environment: self.proxy_from_environment,
            http2_prior_knowledge: self.http2_prior_knowledge,
            extra_roots: certificates(&self.extra_roots)?,
            identity: identity(self.identity.as_deref())?,
            connect_timeout: self.network.connect_timeout,
            inactivity_timeout: self.network.inactivity_timeout,
            max_idle: self.network.limits.concurrent_requests.max(1),
        };
        let client = HttpClient::new(settings).map_err(client_error)?;
        let credentials = CredentialHeaders::new(self.credentials, client.encoder().clone())?;
        let name = format!("remote({base})");
        let (format, promotable) = self.network.format();
        let server = Server {
            client: Arc::new(client),
            base,
            credentials: Arc::new(credentials),
            has_certificate: self.identity.is_some(),
            max_redirects: self.max_redirects,
        };
        let lease_time = self.lease_time.filter(|_| self.network.writes);
        let leases = lease_time.map(|time| {
            let inactivity_timeout = self.network.inactivity_timeout;
            let backend = HttpLeases::new(name.clone(), server.clone(), inactivity_timeout);
            let (time, limits) = (time.min(MAX_TIME), self.network.limits);
            let leases = NetworkLeases::new(name.clone(), backend, time, limits);
            Box::new(leases) as Box<dyn TierLeases>
        });
        let entries = Entries {
            server,
            shares_client: false,
            batches: ServerSupport::default(),
            format,
            absent_statuses: self.network.absent_statuses.clone(),
        };
        Ok(RemoteCache {
            tier: NetworkTier::new(name, entries, promotable, self.network, leases),
        })
    }
}

fn certificates(bundles: &[Vec<u8>]) -> Result<Vec<Certificate>, RemoteCacheError> {
    let mut certificates = Vec::new();
    for pem in bundles {
        let bundle = Certificate::from_pem_bundle(pem).unwrap_or_default();
        if bundle.is_empty() {
            return Err(RemoteCacheError::InvalidRootCertificate);
        }
        certificates.extend(bundle);
    }
    Ok(certificates)
}

fn identity(pem: Option<&[u8]>) -> Result<Option<Identity>, RemoteCacheError> {
    // The parser's error is not repeated: its input is a private key.
    pem.map(|pem| Identity::from_pem(pem).map_err(|_| RemoteCacheError::InvalidClientCertificate))
        .transpose()
}

fn client_error(error: reqwest::Error) -> RemoteCacheError {
    RemoteCacheError::Client {
        reason: RequestError::from(error).to_string(),
    }
}

impl fmt::Debug for RemoteCacheBuilder {
    /// Everything but the secrets, of which only the presence is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteCacheBuilder")
            .field("max_redirects", &self.max_redirects)
            .field("proxy_from_environment", &self.proxy_from_environment)
            .field("http2_prior_knowledge", &self.http2_prior_knowledge)
            .field("credentials", &self.credentials)
            .field("extra_roots", &self.extra_roots.len())
            .field("client_certificate", &self.identity.is_some())
            .field("network", &self.network)
            .field("lease_time", &self.lease_time)
            .finish()
    }
}

/// Why a [`RemoteCache`] cannot be built. The URL itself is never repeated: it may hold a secret.
///
/// ```
/// use pipeline_cache::{RemoteCache, RemoteCacheError};
///
/// let error = RemoteCache::new("https://user:hunter2@cache.example.com").unwrap_err();
/// assert!(matches!(error, RemoteCacheError::CredentialsInUrl));
/// assert!(!error.to_string().contains("hunter2"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteCacheError {
    /// The base URL is not a URL.
    #[error("the base URL is not valid: {reason}")]
    InvalidUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The base URL is not of an HTTP server.
    #[error("the base URL's scheme is neither http nor https; use http:// or https://")]
    UnsupportedScheme,
    /// The base URL carries a user name or a password. It is printed in traces, so they do not
    /// belong there.
    #[error("the base URL holds credentials: give them to RemoteCacheBuilder::basic_auth")]
    CredentialsInUrl,
    /// The base URL has a query or a fragment, where a key cannot follow.
    #[error("the base URL has a query or a fragment: remove it")]
    QueryOrFragmentInUrl,
    /// A header's name or value has characters that headers cannot have, or the header belongs
    /// to the connection.
    #[error(
        "the header {name:?} cannot be sent: its name or value has what a header cannot have, such as a line break"
    )]
    InvalidHeader {
        /// The header's name.
        name: String,
    },
    /// The callback of [`credentials_from`](RemoteCacheBuilder::credentials_from) panicked.
    #[error("credentials_from: the callback panicked")]
    CredentialsPanicked,
    /// The PEM text of [`extra_root_certificates`](RemoteCacheBuilder::extra_root_certificates)
    /// contains no valid certificate.
    #[error("extra_root_certificates: the PEM text contains no valid certificate")]
    InvalidRootCertificate,
    /// The PEM text of [`client_certificate`](RemoteCacheBuilder::client_certificate) contains no
    /// valid certificate or key.
    #[error("client_certificate: the PEM text contains no valid certificate or key")]
    InvalidClientCertificate,
    /// The HTTP client cannot be set up on this machine.
    #[error("the HTTP client cannot be set up: {reason}")]
    Client {
        /// What is missing or wrong.
        reason: String,
    },
}
