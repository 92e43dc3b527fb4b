//! The settings of a [`RemoteCache`], each with its default, and what can be wrong with them.

use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use reqwest::{Client, Url};
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::Semaphore;

use super::RemoteCache;
use super::base_url::BaseUrl;
use super::entries::Entries;
use super::failure::Failure;
use super::requirement::Requirement;
use super::transport::{ClientSettings, Transport};
use crate::SharedSecret;
use crate::artifact::frame::FrameFormat;
use crate::metrics::StoreCounters;

/// Settings for a [`RemoteCache`].
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
///     .writes(true)
///     .build("https://cache.example.com/artifacts")?;
/// assert_eq!(remote.to_string(), "remote(https://cache.example.com/artifacts)");
/// assert!(remote.is_writable());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RemoteCacheBuilder {
    connect_timeout: Duration,
    inactivity_timeout: Duration,
    request_timeout: Duration,
    max_artifact_bytes: u64,
    max_concurrent_requests: usize,
    max_redirects: usize,
    writes: bool,
    proxy_from_environment: bool,
    shared_secret: Option<SharedSecret>,
    authorization: Option<Authorization>,
    headers: Vec<(String, String)>,
}

/// What stands in the `Authorization` header.
#[derive(Clone)]
enum Authorization {
    Bearer(String),
    Basic { user: String, password: String },
}

impl Default for RemoteCacheBuilder {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            inactivity_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            max_artifact_bytes: 64 * 1024 * 1024,
            max_concurrent_requests: 64,
            max_redirects: 5,
            writes: false,
            proxy_from_environment: true,
            shared_secret: None,
            authorization: None,
            headers: Vec::new(),
        }
    }
}

impl RemoteCacheBuilder {
    /// How long a connection may take to open: name lookup, TCP and TLS. Default: 2 seconds.
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request may stand still, while it connects, waits for the answer, or reads or
    /// sends a body. Default: 5 seconds.
    #[must_use]
    pub const fn inactivity_timeout(mut self, timeout: Duration) -> Self {
        self.inactivity_timeout = timeout;
        self
    }

    /// How long a call may take as a whole: the wait for a free request slot, every redirect, the
    /// body and its verification. Default: 30 seconds.
    #[must_use]
    pub const fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The largest payload that is read or written, in bytes. No more than this and 64 KiB of
    /// metadata is ever read of an answer. Default: 64 MiB.
    #[must_use]
    pub const fn max_artifact_bytes(mut self, bytes: u64) -> Self {
        self.max_artifact_bytes = bytes;
        self
    }

    /// How many requests may be under way at once, at least 1; further calls wait, within their
    /// timeout. With the largest artifact it bounds the memory that answers take before they are
    /// verified. Default: 64.
    #[must_use]
    pub const fn max_concurrent_requests(mut self, requests: usize) -> Self {
        self.max_concurrent_requests = requests;
        self
    }

    /// How many redirects one request follows; 0 for none. Never from https to http, and never
    /// with credentials to another scheme, host or port. Default: 5.
    #[must_use]
    pub const fn max_redirects(mut self, redirects: usize) -> Self {
        self.max_redirects = redirects;
        self
    }

    /// Whether artifacts are written to the server (`PUT`) and removed from it (`DELETE`).
    /// Default: no, the tier is read-through only.
    #[must_use]
    pub const fn writes(mut self, writes: bool) -> Self {
        self.writes = writes;
        self
    }

    /// Whether the proxies named by `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are
    /// used, as most tools of a build do. A server on this machine is then best named in
    /// `NO_PROXY`. Default: yes.
    #[must_use]
    pub const fn proxy_from_environment(mut self, proxy: bool) -> Self {
        self.proxy_from_environment = proxy;
        self
    }

    /// Signs what is written and refuses, as corrupt, whatever was not signed with the same
    /// secret. Without one, whoever can write to the server can make an artifact. Default: none.
    #[must_use]
    pub fn shared_secret(mut self, secret: SharedSecret) -> Self {
        self.shared_secret = Some(secret);
        self
    }

    /// Authenticates with a bearer token. Replaces [`basic_auth`](Self::basic_auth). Never
    /// printed, never sent to another server. Default: none.
    #[must_use]
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.authorization = Some(Authorization::Bearer(token.into()));
        self
    }

    /// Authenticates with a user name and a password. Replaces
    /// [`bearer_token`](Self::bearer_token). Never printed, never sent to another server.
    /// Default: none.
    #[must_use]
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.authorization = Some(Authorization::Basic {
            user: user.into(),
            password: password.into(),
        });
        self
    }

    /// Adds a header to every request, such as `X-Api-Key`. Its value is taken for a secret:
    /// never printed, never sent to another server. Default: none.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The tier on the entries below a base URL, `<base>/<64 hex digits>.bin`. Nothing is
    /// connected yet.
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
        let requests = self
            .max_concurrent_requests
            .clamp(1, Semaphore::MAX_PERMITS);
        let settings = ClientSettings {
            connect_timeout: self.connect_timeout,
            max_connections: requests,
            proxy_from_environment: self.proxy_from_environment,
        };
        let client = settings.build(&base).map_err(client_error)?;
        let credentials = self.credentials(&client)?;
        let transport = Transport {
            client,
            base,
            credentials,
            inactivity_timeout: self.inactivity_timeout,
            max_redirects: self.max_redirects,
        };
        let format = FrameFormat {
            secret: self.shared_secret,
            max_payload: self.max_artifact_bytes,
        };
        Ok(RemoteCache {
            entries: Entries {
                transport,
                format,
                required: Requirement::default(),
            },
            slots: Semaphore::new(requests),
            request_timeout: self.request_timeout,
            writes: self.writes,
            closed: AtomicBool::new(false),
            counters: StoreCounters::default(),
        })
    }

    /// All that is sent to the base's own server only.
    fn credentials(&self, client: &Client) -> Result<HeaderMap, RemoteCacheError> {
        let mut credentials = HeaderMap::new();
        for (name, value) in &self.headers {
            let invalid = || RemoteCacheError::InvalidHeader { name: name.clone() };
            let header = HeaderName::try_from(name).map_err(|_| invalid())?;
            // Set by the body and the connection; another value would desynchronise them.
            if [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&header) {
                return Err(invalid());
            }
            let value = HeaderValue::try_from(value).map_err(|_| invalid())?;
            credentials.append(header, value);
        }
        if let Some(authorization) = &self.authorization {
            credentials.insert(AUTHORIZATION, authorization.header(client)?);
        }
        for value in credentials.values_mut() {
            value.set_sensitive(true);
        }
        Ok(credentials)
    }
}

impl Authorization {
    /// The client encodes it, in a request that is never sent.
    fn header(&self, client: &Client) -> Result<HeaderValue, RemoteCacheError> {
        let invalid = || RemoteCacheError::InvalidHeader {
            name: AUTHORIZATION.to_string(),
        };
        let nowhere = Url::parse("http://localhost/").map_err(|_| invalid())?;
        let request = client.get(nowhere);
        let request = match self {
            Self::Bearer(token) => request.bearer_auth(token),
            Self::Basic { user, password } => request.basic_auth(user, Some(password)),
        };
        let mut request = request.build().map_err(|_| invalid())?;
        request
            .headers_mut()
            .remove(AUTHORIZATION)
            .ok_or_else(invalid)
    }
}

fn client_error(error: reqwest::Error) -> RemoteCacheError {
    RemoteCacheError::Client {
        reason: Failure::from(error).to_string(),
    }
}

impl fmt::Debug for RemoteCacheBuilder {
    /// Everything but the secrets, of which it says only that they are there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("RemoteCacheBuilder")
            .field("connect_timeout", &self.connect_timeout)
            .field("inactivity_timeout", &self.inactivity_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("max_artifact_bytes", &self.max_artifact_bytes)
            .field("max_concurrent_requests", &self.max_concurrent_requests)
            .field("max_redirects", &self.max_redirects)
            .field("writes", &self.writes)
            .field("proxy_from_environment", &self.proxy_from_environment)
            .field("shared_secret", &self.shared_secret)
            .field("authorization", &self.authorization.is_some())
            .field("headers", &names)
            .finish()
    }
}

/// Why there is no [`RemoteCache`] on a URL. The URL itself is never repeated: it may hold a
/// secret.
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
    #[error("the base URL's scheme is neither http nor https")]
    UnsupportedScheme,
    /// The base URL carries a user name or a password. It is printed in traces, so they do not
    /// belong there.
    #[error("the base URL holds credentials: give them to RemoteCacheBuilder::basic_auth")]
    CredentialsInUrl,
    /// The base URL has a query or a fragment, where a key cannot follow.
    #[error("the base URL has a query or a fragment")]
    QueryOrFragmentInUrl,
    /// A header's name or value has characters that headers cannot have, or the header belongs
    /// to the connection.
    #[error("the header {name:?} cannot be sent: its name or value is not valid")]
    InvalidHeader {
        /// The header's name.
        name: String,
    },
    /// The HTTP client cannot be set up on this machine.
    #[error("the HTTP client cannot be set up: {reason}")]
    Client {
        /// What is missing or wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// HTTP/2 keeps headers in a table that both ends share, unless they are marked.
    #[test]
    fn every_credential_is_marked_as_sensitive() {
        let builder = RemoteCacheBuilder::default()
            .header("X-Api-Key", "hunter2")
            .header("X-Api-Key", "hunter3")
            .basic_auth("user", "hunter2");
        let credentials = builder.credentials(&Client::new()).unwrap();
        assert_eq!(credentials.len(), 3);
        assert!(credentials.values().all(HeaderValue::is_sensitive));
    }
}
