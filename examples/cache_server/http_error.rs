//! The answers that are not what was asked for. Each is a status and a line of text.

use axum::http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::io;

use crate::console::say;

#[derive(Debug)]
pub(crate) enum HttpError {
    /// The path names nothing that could be here.
    BadPath,
    /// No such entry.
    NotFound,
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
    /// Too many others.
    Busy,
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
            Self::BadPath | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Unverified(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed | Self::Disk => StatusCode::INTERNAL_SERVER_ERROR,
            Self::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    fn text(&self) -> String {
        let text = match self {
            Self::BadPath => "no such place",
            Self::NotFound => "not here",
            Self::MethodNotAllowed(_) => "this cannot be done here",
            Self::Unauthorized => "a token is needed",
            Self::Forbidden => "the token does not allow this",
            Self::TooLarge => "too large",
            Self::TooSlow => "the body did not come in time",
            Self::BrokenOff => "the body broke off",
            Self::Unverified(reason) => return format!("not taken: {reason}\n"),
            Self::Busy => "too many others at once",
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
            Self::Busy => (RETRY_AFTER, "1"),
            // What is left of the body is not waited for.
            Self::TooLarge | Self::TooSlow => (CONNECTION, "close"),
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
