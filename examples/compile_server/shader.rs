//! A shader: from its source to a module, and what is wrong with it.

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use naga::SourceLocation;
use naga::front::wgsl::parse_str;
use naga::valid::Capabilities;
use pipeline_cache::Unkeyable;
use pipeline_cache::key::naga::{InvalidModule, ValidatedModule};
use serde::Serialize;

use crate::wgsl_nesting::{self, TooDeep};

/// Why a shader cannot be compiled.
#[derive(Debug)]
pub(crate) struct ShaderError {
    /// One line.
    pub(crate) message: String,
    pub(crate) span: Option<Span>,
    /// The message with the lines that it is about, as naga prints it.
    pub(crate) report: Option<String>,
}

/// A part of a source. Columns, offsets and lengths are in bytes; lines and columns begin with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    line: u32,
    column: u32,
    offset: u32,
    length: u32,
}

impl From<SourceLocation> for Span {
    fn from(location: SourceLocation) -> Self {
        Self {
            line: location.line_number,
            column: location.line_position,
            offset: location.offset,
            length: location.length,
        }
    }
}

impl ShaderError {
    pub(crate) const fn new(message: String) -> Self {
        Self {
            message,
            span: None,
            report: None,
        }
    }
}

impl From<Unkeyable> for ShaderError {
    fn from(reason: Unkeyable) -> Self {
        Self::new(reason.to_string())
    }
}

impl fmt::Display for ShaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ShaderError {}

/// The most bytes of a message or a report. It repeats lines of the source, and is remembered with the
/// failure.
const MAX_TEXT: usize = 8 << 10;

/// A text, cut short where it is too long.
fn bounded(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text.shrink_to_fit();
    text
}

/// Parses and validates a source. It is validated here, because a canonical form has no spans.
pub(crate) fn parse(
    source: &Bytes,
    capabilities: Capabilities,
) -> Result<ValidatedModule, ShaderError> {
    let text = std::str::from_utf8(source).map_err(|error| not_utf8(source, &error))?;
    wgsl_nesting::check(text).map_err(|error| too_deep(text, error))?;
    let module = parse_str(text).map_err(|error| ShaderError {
        message: bounded(error.message().to_owned()),
        span: error.location(text).map(Span::from),
        report: Some(bounded(error.emit_to_string(text))),
    })?;
    ValidatedModule::new(module, capabilities).map_err(|error| match error {
        InvalidModule::Invalid { error } => ShaderError {
            message: bounded(chain(error.as_inner())),
            span: error.location(text).map(Span::from),
            report: Some(bounded(error.emit_to_string(text))),
        },
        other => ShaderError::new(other.to_string()),
    })
}

/// An error and all its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // A string takes all that is written to it.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

fn too_deep(source: &str, TooDeep { message, at }: TooDeep) -> ShaderError {
    ShaderError {
        message,
        span: Some(span(source.as_bytes(), at)),
        report: None,
    }
}

fn not_utf8(source: &[u8], error: &std::str::Utf8Error) -> ShaderError {
    let start = error.valid_up_to();
    let end = error
        .error_len()
        .map_or(source.len(), |length| start + length);
    ShaderError {
        message: "the source is not UTF-8".to_owned(),
        span: Some(span(source, start..end)),
        report: None,
    }
}

fn span(source: &[u8], at: Range<usize>) -> Span {
    let before = &source[..at.start];
    let line_start = before.iter().rposition(|byte| *byte == b'\n');
    let line_start = line_start.map_or(0, |newline| newline + 1);
    // A source is much shorter than 4 GiB.
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let newlines = before.iter().filter(|byte| **byte == b'\n').count();
    Span {
        line: number(newlines + 1),
        column: number(at.start - line_start + 1),
        offset: number(at.start),
        length: number(at.len()),
    }
}
