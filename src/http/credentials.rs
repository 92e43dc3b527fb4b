//! What authenticates a request. Never printed.

use reqwest::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use reqwest::{Client, Url};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::RemoteCacheError;
use crate::network::RequestError;
use crate::store::StoreErrorKind;

/// The headers that authenticate each request. They are sent to the server of the base URL and to
/// no other, and their values are never printed. Needs the feature `remote-cache`.
///
/// ```
/// use pipeline_cache::Credentials;
///
/// let credentials = Credentials::bearer("hunter2").with_header("X-Team", "shaders");
/// assert!(!format!("{credentials:?}").contains("hunter2"));
///
/// /// For [`credentials_from`](pipeline_cache::RemoteCacheBuilder::credentials_from).
/// fn current(token: Option<&str>, password: Option<&str>) -> Credentials {
///     match (token, password) {
///         (Some(token), _) => Credentials::bearer(token),
///         (None, Some(password)) => Credentials::basic("builds", password),
///         (None, None) => Credentials::none(), // anybody may read
///     }
/// }
/// # assert_eq!(current(None, None), Credentials::default());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    authorization: Option<Authorization>,
    headers: Vec<(String, String)>,
}

/// What stands in the `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
enum Authorization {
    Bearer(String),
    Basic { user: String, password: String },
}

impl Credentials {
    /// No credentials.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A bearer token.
    #[must_use]
    pub fn bearer(token: impl Into<String>) -> Self {
        Self {
            authorization: Some(Authorization::Bearer(token.into())),
            ..Self::default()
        }
    }

    /// A user name and a password.
    #[must_use]
    pub fn basic(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            authorization: Some(Authorization::Basic {
                user: user.into(),
                password: password.into(),
            }),
            ..Self::default()
        }
    }

    /// Adds a header, such as `X-Api-Key`.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// These, with the authorization of `other`.
    pub(super) fn authorized_as(mut self, other: Self) -> Self {
        self.authorization = other.authorization;
        self
    }

    /// As headers.
    fn encode(&self, client: &Client) -> Result<HeaderMap, RemoteCacheError> {
        let mut encoded = HeaderMap::new();
        for (name, value) in &self.headers {
            let invalid = || RemoteCacheError::InvalidHeader { name: name.clone() };
            let header = HeaderName::try_from(name).map_err(|_| invalid())?;
            // The body and the connection set these; another value would desynchronise them.
            if [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&header) {
                return Err(invalid());
            }
            let value = HeaderValue::try_from(value).map_err(|_| invalid())?;
            encoded.append(header, value);
        }
        if let Some(authorization) = &self.authorization {
            encoded.insert(AUTHORIZATION, authorization.header(client)?);
        }
        for value in encoded.values_mut() {
            value.set_sensitive(true);
        }
        Ok(encoded)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Credentials")
            .field("authorization", &self.authorization.is_some())
            .field("headers", &names)
            .finish()
    }
}

impl Authorization {
    /// Encoded by the client, in a request that is never sent.
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

/// Where a tier's credentials come from.
#[derive(Clone)]
pub(super) enum CredentialSource {
    Fixed(Credentials),
    Rotating(Arc<dyn Fn() -> Credentials + Send + Sync>),
}

impl CredentialSource {
    /// With other fixed credentials. A callback stays: it replaces all of them.
    pub(super) fn map_fixed(self, change: impl FnOnce(Credentials) -> Credentials) -> Self {
        match self {
            Self::Fixed(credentials) => Self::Fixed(change(credentials)),
            Self::Rotating(callback) => Self::Rotating(callback),
        }
    }

    fn credentials(&self) -> Result<Credentials, RemoteCacheError> {
        match self {
            Self::Fixed(credentials) => Ok(credentials.clone()),
            Self::Rotating(callback) => catch_unwind(AssertUnwindSafe(&**callback))
                // What it says may hold a secret.
                .map_err(|_| RemoteCacheError::CredentialsPanicked),
        }
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(credentials) => credentials.fmt(f),
            Self::Rotating(_) => f.write_str("Credentials(from a callback)"),
        }
    }
}

/// The current credentials, encoded again whenever they change.
pub(super) struct CredentialHeaders {
    source: CredentialSource,
    client: Client,
    current: Mutex<Current>,
}

struct Current {
    credentials: Credentials,
    sent: SentCredentials,
}

/// What one attempt sends.
#[derive(Clone)]
pub(super) struct SentCredentials {
    pub(super) headers: HeaderMap,
    /// Changes with the headers.
    pub(super) version: u64,
}

impl CredentialHeaders {
    pub(super) fn new(source: CredentialSource, client: Client) -> Result<Self, RemoteCacheError> {
        let credentials = source.credentials()?;
        let headers = credentials.encode(&client)?;
        let current = Current {
            credentials,
            sent: SentCredentials {
                headers,
                version: 0,
            },
        };
        Ok(Self {
            source,
            client,
            current: Mutex::new(current),
        })
    }

    /// The headers to send now. Calls the callback.
    pub(super) fn current(&self) -> Result<SentCredentials, RequestError> {
        let denied = |reason| RequestError::new(StoreErrorKind::PermissionDenied, reason);
        let credentials = match &self.source {
            CredentialSource::Fixed(_) => None,
            // Not under the lock: the callback is foreign code.
            CredentialSource::Rotating(_) => {
                let credentials = self.source.credentials();
                Some(credentials.map_err(|error| denied(error.to_string()))?)
            }
        };
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(credentials) = credentials.filter(|new| *new != current.credentials) {
            let headers = credentials.encode(&self.client);
            let headers = headers.map_err(|error| denied(error.to_string()))?;
            let version = current.sent.version + 1;
            *current = Current {
                credentials,
                sent: SentCredentials { headers, version },
            };
        }
        Ok(current.sent.clone())
    }
}

impl fmt::Debug for CredentialHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// HTTP/2 keeps headers in a table that both ends share, unless they are marked.
    #[test]
    fn every_credential_is_marked_as_sensitive() {
        let credentials = Credentials::basic("user", "hunter2")
            .with_header("X-Api-Key", "hunter2")
            .with_header("X-Api-Key", "hunter3");
        let headers = credentials.encode(&Client::new()).unwrap();
        assert_eq!(headers.len(), 3);
        assert!(headers.values().all(HeaderValue::is_sensitive));
    }

    #[test]
    fn a_callback_replaces_fixed_credentials_set_before_and_after_it() {
        let callback = CredentialSource::Rotating(Arc::new(|| Credentials::bearer("rotating")));
        let fixed = Credentials::basic("user", "fixed");
        let source = callback.map_fixed(|_| fixed);
        let headers = CredentialHeaders::new(source, Client::new()).unwrap();
        let sent = headers.current().unwrap().headers;
        assert_eq!(sent[AUTHORIZATION], "Bearer rotating");
    }

    #[test]
    fn rotated_credentials_have_another_version_and_invalid_ones_are_not_repeated() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let source = CredentialSource::Rotating(Arc::new(move || {
            match counted.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Credentials::bearer("first"),
                2 | 3 => Credentials::bearer("second"),
                4 => panic!("hunter2"),
                _ => Credentials::bearer("hunter2\n"),
            }
        }));
        let headers = CredentialHeaders::new(source, Client::new()).unwrap();
        assert_eq!(headers.current().unwrap().version, 0);
        for _ in 0..2 {
            let second = headers.current().unwrap();
            assert_eq!(second.headers[AUTHORIZATION], "Bearer second");
            assert_eq!(second.version, 1);
        }
        for what in ["panicked", "cannot be sent"] {
            let error = headers.current().err().unwrap();
            assert_eq!(error.kind, StoreErrorKind::PermissionDenied);
            assert!(error.to_string().contains(what), "{error}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
