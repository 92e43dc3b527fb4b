//! Why a request failed, in words that hold no secret.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::store::StoreErrorKind;

/// A failed request: what kind it is, the cause in one line, and when to come back.
#[derive(Debug, Clone)]
pub(crate) struct RequestError {
    pub(crate) kind: StoreErrorKind,
    reason: Cow<'static, str>,
    /// How long the server wants to be left alone.
    pub(crate) retry_after: Option<Duration>,
    is_refusal: bool,
    /// Whether the server refuses the credentials themselves, and will until they change.
    pub(crate) is_denial: bool,
}

impl RequestError {
    pub(crate) fn new(kind: StoreErrorKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            retry_after: None,
            is_refusal: false,
            is_denial: false,
        }
    }

    /// As the answer of a server to the credentials that it was shown.
    pub(crate) const fn blocking_credentials(mut self) -> Self {
        self.is_denial = true;
        self
    }

    /// As the answer of a server that is well and does not want what it was sent.
    pub(crate) fn into_refusal(mut self) -> Self {
        self.is_refusal = true;
        self
    }

    /// A limit on time that was passed.
    pub(crate) fn timed_out(what: &str, limit: Duration) -> Self {
        Self::new(StoreErrorKind::TimedOut, format!("{what} in {limit:?}"))
    }

    pub(crate) fn circuit_open() -> Self {
        Self::new(
            StoreErrorKind::CircuitOpen,
            "not asked: most recent calls failed",
        )
    }

    /// Whether the same request may succeed if it is made again at once.
    pub(crate) const fn is_worth_a_retry(&self) -> bool {
        matches!(
            self.kind,
            StoreErrorKind::Unreachable | StoreErrorKind::TimedOut | StoreErrorKind::Unavailable
        )
    }

    /// Whether it says that the server is ill, and not that it refuses this one request.
    pub(crate) const fn is_an_illness(&self) -> bool {
        let ill = self.is_worth_a_retry()
            || matches!(
                self.kind,
                StoreErrorKind::Protocol | StoreErrorKind::Io | StoreErrorKind::Other
            );
        ill && !self.is_refusal
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for RequestError {}
