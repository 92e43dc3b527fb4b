//! Turns errors of `reqwest` into a kind and a reason without secrets.
//!
//! A reason holds no URL, which may carry a token, and no text from the peer, which may echo one.

use std::error::Error;
use std::io;
use std::iter::successors;

use crate::network::RequestError;
use crate::store::StoreErrorKind;

impl From<reqwest::Error> for RequestError {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let kind = if error.is_builder() {
            StoreErrorKind::Protocol
        } else if error.is_timeout() {
            StoreErrorKind::TimedOut
        } else if chain(&error).any(is_not_http) {
            StoreErrorKind::Protocol
        } else {
            StoreErrorKind::Unreachable
        };
        Self::new(kind, reason(&error))
    }
}

/// Whether the connection was there and was lost, so that a new one may do better. A stream of
/// HTTP/2 that the server gave up counts as well.
pub(super) fn is_lost_connection(error: &reqwest::Error) -> bool {
    let is_other = error.is_connect() || error.is_builder() || error.is_timeout();
    !is_other && !chain(error).any(is_not_http)
}

/// An error and its causes in one line. Stops below an error of hyper, unless an I/O error is the
/// cause: an HTTP/2 error may quote the text with which the peer closed the connection.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut reasons = Vec::new();
    for cause in chain(error) {
        reasons.push(cause.to_string());
        let next = cause.source();
        let is_own_text =
            |next: &(dyn Error + 'static)| next.is::<io::Error>() || next.is::<hyper::Error>();
        if cause.is::<hyper::Error>() && !next.is_some_and(is_own_text) {
            break;
        }
    }
    reasons.join(": ")
}

/// An error and its causes, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Whether the peer does not speak HTTP or TLS, or shows an invalid certificate. A connection that
/// was closed is not among them.
fn is_not_http(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_parse();
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
        )
            // The error inside an I/O error is not its source. A TLS error is wrapped twice.
            || error.get_ref().is_some_and(|inner| is_not_http(inner))
    })
}
