//! The error responses. Each is a status and a line of text.

use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pipeline_cache::{StoreError, StoreErrorKind};
use std::error::Error as _;
use std::io;

use crate::http_server::console::say;

#[derive(Debug)]
pub(crate) enum HttpError {
    /// The path names nothing that could be here.
    BadPath,
    /// No such entry.
    NotFound,
    /// The path ends in the name of an artifact, and is not where artifacts are.
    WrongBase,
    /// An upload of a part. RFC 9110 has it refused, so that no part is stored as the whole.
    PartialUpload,
    /// What `If-Match` asks for is not the case.
    PreconditionFailed,
    MethodNotAllowed(&'static str),
    /// No token, or an unknown one.
    Unauthorized,
    /// A token that may not do this.
    Forbidden,
    /// The body is larger than what is taken.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The body broke off.
    BrokenOff,
    /// The body is not what the path says.
    Unverified(String),
    /// A header of a request for a compile lease is missing or wrong.
    BadLease,
    /// The body of a request for many keys is not made of keys, or of too many.
    BadBatch,
    /// As many compile leases as there may be.
    TooManyLeases,
    /// Too many others.
    Busy,
    /// The object store could not be asked to remove an entry.
    StoreKeeps,
    /// The server failed; told in the log, and to the client as no more than that.
    Failed,
    /// The disk failed; told in the log, and to the client as no more than that.
    Disk,
    /// The disk is full.
    DiskFull,
}

impl HttpError {
    pub(crate) fn disk(what: &str, error: &io::Error) -> Self {
        say(format_args!("cannot {what}: {error}"));
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Disk,
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::BadPath
            | Self::BrokenOff
            | Self::PartialUpload
            | Self::BadLease
            | Self::BadBatch
            // A cache takes 404 for a miss, and nobody would learn why it never hits.
            | Self::WrongBase => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unverified(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy | Self::StoreKeeps => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed | Self::Disk => StatusCode::INTERNAL_SERVER_ERROR,
            Self::DiskFull | Self::TooManyLeases => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    fn text(&self) -> String {
        let text = match self {
            Self::BadPath => "bad path: see cache_server --help for the paths",
            Self::NotFound => "not found",
            Self::WrongBase => {
                "artifacts are at /artifacts/<key>.bin, \
                 so the base URL of a cache ends in /artifacts"
            }
            Self::PartialUpload => {
                "Content-Range is not accepted: an upload replaces the whole entry"
            }
            Self::PreconditionFailed => "precondition failed: If-Match does not match the entry",
            Self::MethodNotAllowed(_) => "method not allowed",
            Self::Unauthorized => "unauthorized: send a token, as in Authorization: Bearer TOKEN",
            Self::Forbidden => "forbidden: the role of this token does not allow the method",
            Self::TooLarge => "the body is larger than the limit of this server",
            Self::TooSlow => "the body arrived too slowly",
            Self::BrokenOff => "the body ended before its announced length",
            Self::Unverified(reason) => return format!("the artifact was not stored: {reason}\n"),
            Self::BadLease => {
                "a compile lease takes the headers Lease-Token, of 1 to 64 characters, and \
                 Lease-Time-Ms, from 100 to 600000, or Lease-Wait-Ms"
            }
            Self::BadBatch => "a batch takes a body of 1 to 1024 keys, of 32 bytes each",
            Self::TooManyLeases => "the server grants no more compile leases at once",
            Self::Busy => "too many requests at once: try again later",
            Self::StoreKeeps => {
                "removed from this server, but the object store did not remove it: try again later"
            }
            Self::Failed => "the server failed",
            Self::Disk => "the server's disk failed",
            Self::DiskFull => "the server's disk is full",
        };
        format!("{text}\n")
    }

    /// What helps the client besides the status.
    const fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::MethodNotAllowed(allowed) => (ALLOW, *allowed),
            Self::Unauthorized => (WWW_AUTHENTICATE, "Bearer"),
            Self::Busy | Self::StoreKeeps => (RETRY_AFTER, "1"),
            // What is left of the body is not waited for.
            Self::TooLarge | Self::TooSlow | Self::BadBatch => (CONNECTION, "close"),
            _ => return None,
        };
        Some((name, HeaderValue::from_static(value)))
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.text()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        headers.extend(self.header());
        response
    }
}

/// What the failure of a store is to a client.
pub(crate) fn failed(error: &StoreError) -> HttpError {
    match error.kind() {
        StoreErrorKind::InvalidArtifact => {
            let reason = error.source().map(ToString::to_string);
            HttpError::Unverified(reason.unwrap_or_default())
        }
        // The source names a path.
        StoreErrorKind::Foreign => HttpError::Unverified(
            "an entry in use, of another secret or release, is in its place".into(),
        ),
        StoreErrorKind::TooLarge => HttpError::TooLarge,
        StoreErrorKind::StorageFull => HttpError::DiskFull,
        StoreErrorKind::Closed => HttpError::Busy,
        _ => {
            say(error);
            HttpError::Disk
        }
    }
}
