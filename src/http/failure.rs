//! Why a request failed, in words that hold no secret.
//!
//! No URL is repeated but the base, and nothing that the server said: it may echo there what a
//! person is not to read in a log.

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
        } else {
            kind(&error)
        };
        Self::new(kind, reason(&error))
    }
}

impl From<hyper::Error> for RequestError {
    fn from(error: hyper::Error) -> Self {
        Self::new(kind(&error), reason(&error))
    }
}

fn kind(error: &(dyn Error + 'static)) -> StoreErrorKind {
    if chain(error).any(is_late) {
        StoreErrorKind::TimedOut
    } else if chain(error).any(is_nonsense) {
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
        let is_ours =
            |next: &(dyn Error + 'static)| next.is::<io::Error>() || next.is::<hyper::Error>();
        if cause.is::<hyper::Error>() && !next.is_some_and(is_ours) {
            break;
        }
    }
    reasons.join(": ")
}

/// An error and its causes, outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Whether it is a limit on time that was passed: HTTP's own, or the system's.
fn is_late(error: &(dyn Error + 'static)) -> bool {
    let http = error.downcast_ref::<hyper::Error>();
    let system = error.downcast_ref::<io::Error>();
    http.is_some_and(hyper::Error::is_timeout)
        || system.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Whether it says that the server has not begun with a request, by closing the connection in good
/// order or by taking no further one on it: it may be made again. Of a request that waits for one
/// of the streams that a server allows nobody tells that.
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let said = error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>());
    said.is_some_and(|said| {
        let closes = said.is_go_away() && said.reason() == Some(h2::Reason::NO_ERROR);
        let refuses = said.is_reset() && said.reason() == Some(h2::Reason::REFUSED_STREAM);
        said.is_remote() && (closes || refuses)
    })
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
