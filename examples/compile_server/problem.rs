//! The error responses: problem details, as RFC 9457 has them.

use axum::extract::rejection::QueryRejection;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use pipeline_cache::CompileError;
use serde::Serialize;
use std::time::Duration;

use crate::shader::{ShaderError, Span};
use crate::targets::BadChoice;

const TARGETS: &str = if cfg!(feature = "wasmtime") {
    "the targets are spirv, msl, hlsl, glsl and native"
} else {
    "the targets are spirv, msl, hlsl and glsl"
};

#[derive(Debug)]
pub(crate) enum Problem {
    NotFound,
    UnknownTarget,
    NotAKey,
    MethodNotAllowed,
    /// What the query, or a header, asks for.
    BadRequest(String),
    /// The source is larger than the limit.
    TooLarge(u64),
    /// The source did not come in time.
    TooSlow,
    /// The source broke off.
    BrokenOff,
    /// The shader cannot be compiled.
    Shader(ShaderFault),
    /// The WebAssembly module cannot be compiled.
    Module(String),
    DeadlineExceeded(Duration),
    /// The compile was given up.
    TimedOut(Duration),
    /// Too many compiles wait.
    QueueFull,
    /// Too many requests are served.
    Busy,
    /// A tier that may have the artifact did not answer.
    Degraded,
    Stopping,
    /// The compiler panicked; told in the log, and to the client as no more than that.
    Failed,
}

/// What is told of a shader.
#[derive(Debug)]
pub(crate) struct ShaderFault {
    message: String,
    span: Option<Span>,
    report: Option<String>,
}

/// The members of a problem that are sent.
#[derive(Serialize)]
struct Details<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'a str>,
}

impl Problem {
    const fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::UnknownTarget | Self::NotAKey => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BadRequest(_) | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Shader(_) | Self::Module(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::DeadlineExceeded(_) | Self::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::QueueFull | Self::Busy | Self::Degraded | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What tells it from others of the same status, and its title.
    const fn kind(&self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::UnknownTarget => ("unknown-target", "Unknown target"),
            Self::NotAKey => ("not-a-key", "Not a key"),
            Self::BadRequest(_) => ("bad-option", "Bad option"),
            Self::Shader(_) => ("invalid-shader", "Invalid shader"),
            Self::Module(_) => ("invalid-module", "Invalid module"),
            Self::DeadlineExceeded(_) => ("deadline-exceeded", "Deadline exceeded"),
            Self::TimedOut(_) => ("compile-timed-out", "Compile timed out"),
            Self::QueueFull => ("queue-full", "Queue full"),
            Self::Busy => ("too-many-requests-at-once", "Too many requests at once"),
            Self::Degraded => ("tier-unavailable", "Tier unavailable"),
            Self::Stopping => ("stopping", "Stopping"),
            _ => return None,
        })
    }

    fn detail(&self) -> Option<String> {
        Some(match self {
            Self::NotFound => return None,
            Self::MethodNotAllowed => "the header Allow lists the methods of this path".to_owned(),
            Self::UnknownTarget => TARGETS.to_owned(),
            Self::NotAKey => "a key is 64 hex digits in lower case".to_owned(),
            Self::BadRequest(reason) | Self::Module(reason) => reason.clone(),
            Self::TooLarge(most) => format!("a source has at most {most} bytes"),
            Self::TooSlow => "the source arrived too slowly".to_owned(),
            Self::BrokenOff => "the source ended before its announced length".to_owned(),
            Self::Shader(fault) => fault.message.clone(),
            Self::DeadlineExceeded(deadline) => format!(
                "no artifact within {} ms; what was begun is finished and kept",
                deadline.as_millis()
            ),
            Self::TimedOut(limit) => {
                format!("the compile was given up after {} s", limit.as_secs_f64())
            }
            Self::QueueFull => "too many compiles wait: try again later".to_owned(),
            Self::Busy => "too many requests are served: try again later".to_owned(),
            Self::Degraded => {
                "a tier that may have the artifact did not answer: try again later".to_owned()
            }
            Self::Stopping => "the server was told to stop".to_owned(),
            Self::Failed => "the server failed".to_owned(),
        })
    }

    /// What helps the client besides the body.
    const fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, value) = match self {
            Self::QueueFull | Self::Busy | Self::Degraded | Self::Stopping => (RETRY_AFTER, "1"),
            // What is left of the body is not waited for.
            Self::TooLarge(_) | Self::TooSlow => (CONNECTION, "close"),
            _ => return None,
        };
        Some((name, HeaderValue::from_static(value)))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        // A problem that is no more than its status has no type of its own.
        let (kind, title) = match self.kind() {
            Some((kind, title)) => (format!("urn:problem-type:{kind}"), title),
            None => (
                "about:blank".to_owned(),
                status.canonical_reason().unwrap_or_default(),
            ),
        };
        let fault = match &self {
            Self::Shader(fault) => Some(fault),
            _ => None,
        };
        let details = Details {
            kind,
            title,
            status: status.as_u16(),
            detail: self.detail(),
            span: fault.and_then(|fault| fault.span),
            report: fault.and_then(|fault| fault.report.as_deref()),
        };
        // Strings and numbers alone, which JSON has.
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.extend(self.header());
        response
    }
}

impl From<BadChoice> for Problem {
    fn from(choice: BadChoice) -> Self {
        Self::BadRequest(choice.0)
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::BadRequest(rejection.body_text())
    }
}

impl From<CompileError<ShaderError>> for Problem {
    fn from(error: CompileError<ShaderError>) -> Self {
        match error {
            CompileError::Failed(error) => Self::Shader(ShaderFault {
                message: error.message.clone(),
                span: error.span,
                report: error.report.clone(),
            }),
            CompileError::DeadlineExceeded(deadline) => Self::DeadlineExceeded(deadline),
            CompileError::TimedOut(limit) => Self::TimedOut(limit),
            CompileError::Overloaded => Self::QueueFull,
            CompileError::Interrupted => Self::Stopping,
            error => {
                tracing::error!(%error, "a compile failed");
                Self::Failed
            }
        }
    }
}
