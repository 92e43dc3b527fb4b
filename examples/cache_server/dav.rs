//! As much of WebDAV as other caches ask of a remote before they use it.
//!
//! Folders are not kept. Every one is there, empty, as soon as somebody asks.

use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::http_error::HttpError;

pub(crate) const METHODS: &str = "GET, HEAD, PUT, DELETE, OPTIONS, PROPFIND, MKCOL";

/// The answer to PROPFIND, whatever properties were asked for and however deep.
pub(crate) async fn properties(path: &str, file: &Path) -> Result<Response, HttpError> {
    let (changed, kind) = if is_folder(path) {
        let kind = "<D:resourcetype><D:collection/></D:resourcetype>".to_owned();
        (SystemTime::now(), kind)
    } else {
        let metadata = match tokio::fs::metadata(file).await {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HttpError::NotFound);
            }
            Err(error) => return Err(HttpError::disk("look at a blob", &error)),
        };
        let mut kind = "<D:resourcetype/>".to_owned();
        let length = metadata.len();
        // A string takes all that is written to it.
        let _ = write!(kind, "<D:getcontentlength>{length}</D:getcontentlength>");
        (metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), kind)
    };
    let changed = httpdate::fmt_http_date(changed);
    // Paths are checked to hold nothing that XML would take for its own.
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>/{path}</D:href>\
         <D:propstat><D:prop>{kind}<D:getlastmodified>{changed}</D:getlastmodified></D:prop>\
         <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>\n"
    );
    let head = [(CONTENT_TYPE, "application/xml; charset=utf-8")];
    Ok((StatusCode::MULTI_STATUS, head, text).into_response())
}

/// Whether a path names no blob. Folders are not kept.
pub(crate) fn is_folder(path: &str) -> bool {
    path.is_empty() || path.ends_with('/')
}

/// The answer to OPTIONS.
pub(crate) fn options() -> Response {
    let head = [(ALLOW, METHODS), (HeaderName::from_static("dav"), "1")];
    (StatusCode::OK, head).into_response()
}
