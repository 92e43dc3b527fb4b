//! Why a request failed, in words that hold no secret.
//!
//! No URL is repeated but the base, and nothing that the server said: it may echo there what a
//! person is not to read in a log.

use std::error::Error;
use std::io;
use std::iter::successors;

use crate::StoreErrorKind;
use crate::network::Failure;

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let kind = if error.is_timeout() {
            StoreErrorKind::TimedOut
        } else if error.is_builder() || error.is_redirect() {
            StoreErrorKind::Protocol
        } else {
            kind(&error)
        };
        Self::new(kind, reason(&error))
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let kind = if error.is_timeout() {
            StoreErrorKind::TimedOut
        } else {
            kind(&error)
        };
        Self::new(kind, reason(&error))
    }
}

fn kind(error: &(dyn Error + 'static)) -> StoreErrorKind {
    if chain(error).any(is_nonsense) {
        StoreErrorKind::Protocol
    } else {
        StoreErrorKind::Unreachable
    }
}

/// An error and its causes in one line, as far as they are words of this side. What HTTP speaks of
/// below its own error may quote the peer, who says why it closes as it likes.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut reasons = Vec::new();
    for cause in chain(error) {
        reasons.push(cause.to_string());
        let next = cause.source();
        if cause.is::<hyper::Error>() && !next.is_some_and(|next| next.is::<io::Error>()) {
            break;
        }
    }
    reasons.join(": ")
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
