//! Why a request failed, in words that hold no secret.
//!
//! Nothing of an answer is repeated but its status code, and no URL but the base: a server may
//! echo there what a person is not to read in a log.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::error::Error;
use std::io;
use std::iter::successors;
use std::time::{Duration, SystemTime};

use crate::StoreErrorKind;
use crate::network::Failure;

/// An answer that is none to the question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        let retry_after = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| retry_after(value.trim(), SystemTime::now()));
        Self {
            status,
            retry_after,
        }
    }

    /// To a request that would have changed nothing.
    pub(super) fn of_a_read(self) -> Failure {
        let kind = match self.status.as_u16() {
            401 | 403 | 407 => StoreErrorKind::PermissionDenied,
            413 => StoreErrorKind::TooLarge,
            507 => StoreErrorKind::StorageFull,
            408 | 425 | 429 | 500..=599 => StoreErrorKind::Unavailable,
            _ => StoreErrorKind::Protocol,
        };
        let mut failure = Failure::new(kind, format!("the server answered {}", self.status));
        failure.retry_after = self.retry_after;
        failure
    }

    /// To a request that would have changed the server.
    pub(super) fn of_a_write(self) -> Failure {
        let mut failure = self.of_a_read();
        if matches!(self.status.as_u16(), 405 | 501) {
            failure.kind = StoreErrorKind::ReadOnly;
        }
        match self.status.as_u16() {
            // What is too early or too much for it now says of the server how it is. All else is
            // about the entry, or about writes: a server that can say so still serves reads.
            408 | 425 | 429 => failure,
            400..=499 => failure.into_refusal(),
            _ => failure,
        }
    }
}

/// The time to wait: a number of seconds, or until a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let parsed = |value| retry_after(value, now).map(|time| time.as_secs());
        assert_eq!(parsed("0"), Some(0));
        assert_eq!(parsed("120"), Some(120));
        assert_eq!(parsed("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:07 GMT"), Some(0));
        for nonsense in [
            "",
            "-1",
            "+1",
            "1.5",
            "soon",
            "Sun, 99 Nov 1994 08:49:07 GMT",
        ] {
            assert_eq!(parsed(nonsense), None, "{nonsense}");
        }
    }
}
