//! A file as a response: streamed, in whole or in part, unless the client has it already.

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use std::fs::File;
use std::io::SeekFrom;
use std::ops::Range;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::http_error::HttpError;
use crate::http_server::etags::lists;

/// How much of a file is in memory for each answer.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes that do not change.
pub(crate) struct Found {
    pub(crate) content: Content,
    pub(crate) len: u64,
    /// Where there is one: equal for two files only if their bytes are.
    pub(crate) etag: Option<Etag>,
    /// How long caches on the way may keep it, if it says anything about that.
    pub(crate) cache_control: Option<&'static str>,
}

pub(crate) enum Content {
    /// A file that is open.
    File(File),
    /// What could not be kept in the folder.
    Memory(Bytes),
}

/// What tells the files of one path apart.
pub(crate) struct Etag {
    /// Letters and digits.
    pub(crate) tag: String,
    /// Equal also for files whose bytes are not, but stand for the same.
    pub(crate) weak: bool,
}

impl Etag {
    fn quoted(&self) -> String {
        let mark = if self.weak { "W/" } else { "" };
        format!("{mark}\"{}\"", self.tag)
    }
}

impl Found {
    /// The answer to a GET or HEAD with these headers.
    pub(crate) async fn answer(
        self,
        method: &Method,
        asked: &HeaderMap,
    ) -> Result<Response, HttpError> {
        check_if_match(asked, Some(self.etag.as_ref()))?;
        let etag = self.etag.as_ref().map(Etag::quoted);
        let mut head = HeaderMap::new();
        let mut set = |name, value: &str| {
            // All of these are digits and letters; one that is not is left out.
            head.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        };
        if let Some(etag) = &etag {
            set(ETAG, etag);
        }
        if let Some(cache_control) = self.cache_control {
            set(CACHE_CONTROL, cache_control);
        }
        set(ACCEPT_RANGES, "bytes");
        set(CONTENT_TYPE, "application/octet-stream");
        set(X_CONTENT_TYPE_OPTIONS, "nosniff");
        if lists(asked, etag.as_deref()) {
            return Ok((StatusCode::NOT_MODIFIED, head).into_response());
        }
        // A part is only asked for by GET: the head of the whole says how much there is.
        let part = match *method == Method::GET {
            true => part(asked, etag.as_deref(), self.len),
            false => Part::Whole,
        };
        let (status, part) = match part {
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
            self.content.body(part).await?
        };
        Ok((status, head, body).into_response())
    }
}

impl Content {
    async fn body(self, part: Range<u64>) -> Result<Body, HttpError> {
        match self {
            Self::File(file) => stream(file, part).await,
            // The part is within the length, which fits.
            Self::Memory(bytes) => Ok(bytes.slice(part.start as usize..part.end as usize).into()),
        }
    }
}

async fn stream(file: File, part: Range<u64>) -> Result<Body, HttpError> {
    let mut file = tokio::fs::File::from_std(file);
    file.seek(SeekFrom::Start(part.start))
        .await
        .map_err(|error| HttpError::disk("seek in an entry", &error))?;
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
fn part(asked: &HeaderMap, etag: Option<&str>, len: u64) -> Part {
    // Parts of two files whose bytes differ would be none of either.
    let strong = etag.filter(|etag| !etag.starts_with("W/"));
    let of_this = asked
        .get(IF_RANGE)
        .is_none_or(|tag| strong.is_some_and(|strong| tag == strong));
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

/// Fails unless `If-Match`, where the client sends it, lists the entry that is there: `None` for
/// none. Tags are compared strongly, so that a weak one matches nothing.
pub(crate) fn check_if_match(
    asked: &HeaderMap,
    entry: Option<Option<&Etag>>,
) -> Result<(), HttpError> {
    if !asked.contains_key(IF_MATCH) {
        return Ok(());
    }
    let strong = entry.flatten().filter(|etag| !etag.weak).map(Etag::quoted);
    let matches = asked
        .get_all(IF_MATCH)
        .iter()
        .filter_map(|tags| tags.to_str().ok())
        .flat_map(|tags| tags.split(',').map(str::trim))
        .any(|tag| match tag {
            "*" => entry.is_some(),
            tag => strong.as_deref() == Some(tag),
        });
    matches.then_some(()).ok_or(HttpError::PreconditionFailed)
}
