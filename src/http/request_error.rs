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
        let mut reason = reason(&error);
        if reason.contains(NO_TLS) {
            reason += "; the server does not speak TLS here: does its URL begin with http://?";
        }
        Self::new(kind, reason)
    }
}

/// How rustls calls what is no record of TLS.
const NO_TLS: &str = "InvalidContentType";

/// Whether the connection was there and was lost, so that a new one may do better. A stream of
/// HTTP/2 that the server gave up counts as well.
pub(super) fn is_lost_connection(error: &reqwest::Error) -> bool {
    let is_other = error.is_connect() || error.is_builder() || error.is_timeout();
    !is_other && !chain(error).any(is_not_http)
}

/// Whether the connection was gone before the request went out, without a reason.
pub(super) fn is_unsaid(error: &(dyn Error + 'static)) -> bool {
    let mut causes = chain(error).filter_map(|cause| cause.downcast_ref::<hyper::Error>());
    causes.any(|cause| {
        let has_reason = cause.source().is_some_and(|next| next.is::<hyper::Error>());
        cause.is_canceled() && !has_reason
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;
    use tokio::io::duplex;

    #[tokio::test]
    async fn a_request_that_meets_a_driver_that_has_left_is_not_told_why() {
        let (near, far) = duplex(64);
        let (mut sender, driver) = handshake(TokioIo::new(near)).await.unwrap();
        drop(driver);
        let error = sender.send_request(Request::new(String::new())).await;
        assert!(is_unsaid(&error.unwrap_err()));

        let (near, _) = duplex(64);
        let (mut sender, driver) = handshake(TokioIo::new(near)).await.unwrap();
        let sent = sender.send_request(Request::new(String::new()));
        let (answer, _) = tokio::join!(sent, driver);
        assert!(!is_unsaid(&answer.unwrap_err()));
        drop(far);
    }
}
