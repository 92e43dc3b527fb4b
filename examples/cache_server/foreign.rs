//! `/ccache/…` and `/sccache/…`: blobs of other caches, kept as they come.
//!
//! They are no frames, so nothing here can verify them: whoever may write there can put anything
//! there, and only those tools read it. They never stand beside artifacts.

use axum::body::Body;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::NamedTempFile;

use crate::blobs::{self, Blobs};
use crate::blocking;
use crate::dav::{self, is_folder};
use crate::files::{Content, Found, check_if_match};
use crate::http_error::HttpError;
use crate::sweep;
use crate::uploads::{Upload, Uploads};

const MAX_PATH_LEN: usize = 1024;

/// The blobs of one tool.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) blobs: Arc<Blobs>,
    max_blob: u64,
}

impl Foreign {
    pub(crate) fn open(root: PathBuf, max_bytes: u64, max_blob: u64) -> io::Result<Self> {
        let blobs = Arc::new(Blobs::open(root, max_bytes)?);
        Ok(Self { blobs, max_blob })
    }

    pub(crate) async fn answer(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
        uploads: &Uploads,
    ) -> Result<Response, HttpError> {
        // A base URL that ends in a slash makes clients send two of them.
        let path = path.trim_start_matches('/');
        check(path)?;
        let file = self.blobs.file_of(path);
        if matches!(method.as_str(), "PUT" | "DELETE") && headers.contains_key(IF_MATCH) {
            let there = tokio::fs::try_exists(&file).await;
            let there = there.map_err(|error| failed("look for", &error))?;
            check_if_match(headers, there.then_some(None))?;
        }
        match method.as_str() {
            "GET" | "HEAD" => {
                let opened = blocking::run(move || blobs::open(&file)).await;
                let (file, len) = opened.map_err(|error| failed("open", &error))?;
                // Nothing tells two blobs of one path apart but their bytes.
                let found = Found {
                    content: Content::File(file),
                    len,
                    etag: None,
                    cache_control: None,
                };
                found.answer(method, headers).await
            }
            "PUT" if is_folder(path) => Err(HttpError::BadPath),
            "PUT" => {
                let body = uploads.body(headers, body, self.max_blob)?;
                self.store(file, body).await
            }
            "DELETE" => {
                let blobs = Arc::clone(&self.blobs);
                let removed = blocking::run(move || blobs.remove(&file)).await;
                removed.map_err(|error| failed("remove", &error))?;
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            "PROPFIND" => dav::properties(path, &file).await,
            "MKCOL" => Ok(StatusCode::CREATED.into_response()),
            "OPTIONS" => Ok(dav::options()),
            _ => Err(HttpError::MethodNotAllowed(dav::METHODS)),
        }
    }

    /// Stages the body and renames it into place. A body that breaks off leaves nothing.
    async fn store(&self, file: PathBuf, body: Upload) -> Result<Response, HttpError> {
        let blobs = Arc::clone(&self.blobs);
        let staged = blocking::run(move || blobs.stage()).await;
        let staged = staged.map_err(|error| HttpError::disk("stage a blob", &error))?;
        let (staged, path) = staged.into_parts();
        let (staged, _) = body.write_to(staged, Bytes::new()).await?;
        let staged = NamedTempFile::from_parts(staged, path);
        let blobs = Arc::clone(&self.blobs);
        let stored = blocking::run(move || {
            blobs.store(staged, &file)?;
            sweep::start_if_full(&blobs);
            Ok(())
        });
        let stored = stored.await;
        stored.map_err(|error| HttpError::disk("store a blob", &error))?;
        Ok(StatusCode::CREATED.into_response())
    }
}

fn failed(what: &str, error: &io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::NotFound => HttpError::NotFound,
        _ => HttpError::disk(&format!("{what} a blob"), error),
    }
}

/// Takes names that such tools use, and nothing that another part of a network may understand
/// otherwise than this server: no escapes, no `..`, no empty names.
fn check(path: &str) -> Result<(), HttpError> {
    let names = path.strip_suffix('/').unwrap_or(path);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = path.len() <= MAX_PATH_LEN
        && (names.is_empty()
            || names
                .split('/')
                .all(|name| !matches!(name, "" | "." | "..") && name.bytes().all(plain)));
    if fits {
        Ok(())
    } else {
        Err(HttpError::BadPath)
    }
}
