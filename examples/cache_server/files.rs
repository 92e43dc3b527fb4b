//! A file as an answer: streamed, in whole or in part, and not at all to who has it already.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use std::fs::File;
use std::io::SeekFrom;
use std::ops::Range;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::refusal::Refusal;

/// How much of a file is in memory for each answer.
const CHUNK_BYTES: usize = 64 * 1024;

/// A file that is open, and does not change.
pub(crate) struct Found {
    pub(crate) file: File,
    pub(crate) len: u64,
    /// Equal for two files only if their bytes are.
    pub(crate) etag: String,
}

impl Found {
    /// The answer to a GET or HEAD with these headers.
    pub(crate) async fn answer(
        self,
        method: &Method,
        asked: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let etag = format!("\"{}\"", self.etag);
        let mut head = HeaderMap::new();
        let mut set = |name, value: &str| {
            // All of these are digits and letters; one that is not is left out.
            head.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        };
        set(ETAG, &etag);
        set(ACCEPT_RANGES, "bytes");
        set(CONTENT_TYPE, "application/octet-stream");
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        if lists(asked.get(IF_NONE_MATCH), &etag) {
            return Ok((StatusCode::NOT_MODIFIED, head).into_response());
        }
        let (status, part) = match part(asked, &etag, self.len) {
            Part::Whole => (StatusCode::OK, 0..self.len),
            Part::Some(range) => {
                let said = format!("bytes {}-{}/{}", range.start, range.end - 1, self.len);
                set(CONTENT_RANGE, &said);
                (StatusCode::PARTIAL_CONTENT, range)
            }
            Part::Beyond => {
                set(CONTENT_RANGE, &format!("bytes */{}", self.len));
                return Ok((StatusCode::RANGE_NOT_SATISFIABLE, head).into_response());
            }
        };
        set(CONTENT_LENGTH, &(part.end - part.start).to_string());
        let body = if *method == Method::HEAD {
            Body::empty()
        } else {
            stream(self.file, part).await?
        };
        Ok((status, head, body).into_response())
    }
}

async fn stream(file: File, part: Range<u64>) -> Result<Body, Refusal> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(part.start))
        .await
        .map_err(|error| Refusal::disk("seek in an entry", &error))?;
    let length = part.end - part.start;
    let chunk = usize::try_from(length).map_or(CHUNK_BYTES, |length| length.min(CHUNK_BYTES));
    let part = ReaderStream::with_capacity(file.take(length), chunk.max(1));
    Ok(Body::from_stream(part))
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Some(Range<u64>),
    /// What was asked for begins after the end.
    Beyond,
}

/// The part that is asked for. Several at once, and what is no range of bytes, get the whole.
fn part(asked: &HeaderMap, etag: &str, len: u64) -> Part {
    let of_this = asked.get(IF_RANGE).is_none_or(|tag| tag == etag);
    let range = asked
        .get(RANGE)
        .filter(|_| of_this)
        .and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Part::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(len),
        (Ok(first), Err(_)) if last.is_empty() => first..len,
        (Err(_), Ok(last)) if first.is_empty() => len.saturating_sub(last)..len,
        _ => return Part::Whole,
    };
    if range.is_empty() {
        Part::Beyond
    } else {
        Part::Some(range)
    }
}

fn lists(tags: Option<&HeaderValue>, etag: &str) -> bool {
    let tags = tags.and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    tags.split(',')
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || tag == etag)
}
