//! Why a request failed, in words without secrets.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::store::StoreErrorKind;

/// A failed request: its kind, the cause in one line, and when to try again.
#[derive(Debug, Clone)]
pub(crate) struct RequestError {
    pub(crate) kind: StoreErrorKind,
    reason: Cow<'static, str>,
    /// The delay that the server asks for before the next request.
    pub(crate) retry_after: Option<Duration>,
    /// Whether a server that works rejects this one request.
    is_rejection: bool,
    /// Whether the server rejects the credentials of the request.
    pub(super) blocks_credentials: bool,
    /// What helps besides other credentials, as a sentence after a space.
    pub(super) hint: &'static str,
    /// Whether it was made because the call would fail, without a request.
    pub(super) is_unsent: bool,
}

impl RequestError {
    pub(crate) fn new(kind: StoreErrorKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            retry_after: None,
            is_rejection: false,
            blocks_credentials: false,
            hint: "",
            is_unsent: false,
        }
    }

    /// As the answer of a server to the credentials of the request.
    pub(crate) const fn blocking_credentials(mut self) -> Self {
        self.blocks_credentials = true;
        self
    }

    /// Says what helps besides other credentials: a sentence after a space.
    pub(crate) const fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    /// As the error of a call that sent no request.
    pub(super) const fn unsent(mut self) -> Self {
        self.is_unsent = true;
        self
    }

    /// As the answer of a server that works and rejects this one request.
    pub(crate) const fn into_rejection(mut self) -> Self {
        self.is_rejection = true;
        self
    }

    pub(crate) fn timed_out(what: &str, limit: Duration) -> Self {
        Self::new(StoreErrorKind::TimedOut, format!("{what} within {limit:?}"))
    }

    /// Whether the same request may succeed if it is made again at once.
    pub(super) const fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Unreachable | StoreErrorKind::TimedOut | StoreErrorKind::Unavailable
        )
    }

    /// Whether the breaker counts it: the server failed, and did not just reject this one request.
    pub(super) const fn is_server_failure(&self) -> bool {
        let failed = self.is_retryable()
            || matches!(
                self.kind,
                StoreErrorKind::Protocol
                    | StoreErrorKind::StorageFull
                    | StoreErrorKind::Io
                    | StoreErrorKind::Other
            );
        failed && !self.is_rejection
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for RequestError {}
