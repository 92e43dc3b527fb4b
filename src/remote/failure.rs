//! Why a request failed, in words that hold no secret.
//!
//! Nothing of an answer is repeated but its status code, and no URL but the base: a server may
//! echo there what a person is not to read in a log.

use reqwest::StatusCode;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::iter::successors;
use std::time::Duration;

use crate::StoreErrorKind;

/// A failed request: what kind it is, and the cause in one line.
#[derive(Debug)]
pub(super) struct Failure {
    kind: StoreErrorKind,
    reason: Cow<'static, str>,
}

impl Failure {
    pub(super) fn new(kind: StoreErrorKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }

    /// A limit on time that was passed.
    pub(super) fn timed_out(what: &str, limit: Duration) -> Self {
        Self::new(StoreErrorKind::TimedOut, format!("{what} in {limit:?}"))
    }

    /// A status that is no answer to the question.
    pub(super) fn status(status: StatusCode) -> Self {
        let kind = match status.as_u16() {
            401 | 403 | 407 => StoreErrorKind::PermissionDenied,
            413 => StoreErrorKind::TooLarge,
            507 => StoreErrorKind::StorageFull,
            408 | 425 | 429 | 500..=599 => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Protocol,
        };
        Self::new(kind, format!("the server answered {status}"))
    }

    /// [`status`](Self::status) of a request that would have changed the server.
    pub(super) fn write_status(status: StatusCode) -> Self {
        let mut failure = Self::status(status);
        if matches!(status.as_u16(), 405 | 501) {
            failure.kind = StoreErrorKind::ReadOnly;
        }
        failure
    }

    pub(super) const fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let kind = if error.is_timeout() {
            StoreErrorKind::TimedOut
        } else if error.is_builder() || error.is_redirect() || chain(&error).any(is_nonsense) {
            StoreErrorKind::Protocol
        } else {
            StoreErrorKind::Unreachable
        };
        let reason = chain(&error).map(ToString::to_string).collect::<Vec<_>>();
        Self::new(kind, reason.join(": "))
    }
}

/// An error and its causes, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Whether it says that the peer speaks no HTTP, no TLS, or shows a certificate that does not
/// hold. A connection that broke off is not among them.
fn is_nonsense(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_parse();
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
            // What an I/O error wraps is not its source; that of TLS is wrapped twice.
            || error.get_ref().is_some_and(|inner| is_nonsense(inner))
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for Failure {}
