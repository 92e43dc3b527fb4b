//! `/artifacts/<64 hex digits>.bin` and `/artifacts/aliases/<64 hex digits>.bin`: frames, as a
//! `RemoteCache` requests them. Many in one answer: see `batches`.

use axum::body::Body;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use pipeline_cache::{DiskCache, PipelineCacheStore as _, PipelineFingerprint};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use tokio::sync::Semaphore;

use crate::batches;
use crate::files::{Etag, Found, check_if_match};
use crate::http_error::{HttpError, failed};
use crate::metrics::Metrics;
use crate::uploads::Uploads;

/// Where a client keeps source aliases. They are frames as well, and stand in a folder of their own.
const ALIASES: &str = "aliases/";

/// The name under which many keys are asked for.
const BATCH: &str = "batch";

/// How many frames are verified at once. A compressed one is unpacked for it, so that this bounds
/// the memory for what comes out as the budget of uploads bounds that for what comes in.
const VERIFIED_AT_ONCE: usize = 4;

/// The most that a frame adds to a payload: a header of 144 bytes and 64 KiB of metadata.
const FRAME_OVERHEAD: u64 = 144 + 64 * 1024;

/// Where a frame has its flags, and the one that says that its payload is compressed.
const FLAGS_OFFSET: u64 = 10;
const FLAG_ZSTD: u16 = 2;

/// A key names one artifact for ever. Nothing on the way may compress it or change it otherwise.
const CACHED_BY_ALL: &str = "public, max-age=31536000, immutable, no-transform";
/// The same where reads need a token: a shared cache must not serve it to others.
const CACHED_BY_CLIENT: &str = "private, max-age=31536000, immutable, no-transform";
/// A source alias may be corrected: whoever keeps one asks whether it still holds.
const ASKED_FOR_AGAIN: &str = "no-cache, no-transform";

#[derive(Debug)]
pub(crate) struct Artifacts {
    pub(crate) disk: DiskCache,
    cache_control: &'static str,
    verifying: Semaphore,
}

impl Artifacts {
    /// `public` where anybody may read without a token.
    pub(crate) const fn new(disk: DiskCache, public: bool) -> Self {
        Self {
            disk,
            cache_control: if public {
                CACHED_BY_ALL
            } else {
                CACHED_BY_CLIENT
            },
            verifying: Semaphore::const_new(VERIFIED_AT_ONCE),
        }
    }

    pub(crate) async fn answer(
        &self,
        method: &Method,
        name: &str,
        headers: &HeaderMap,
        body: Body,
        uploads: &Uploads,
        metrics: &Metrics,
    ) -> Result<Response, HttpError> {
        let (disk, name) = match name.strip_prefix(ALIASES) {
            Some(name) => (self.disk.aliases().ok_or(HttpError::NotFound)?, name),
            None => (&self.disk, name),
        };
        if name == BATCH {
            return match method.as_str() {
                "POST" => Ok(batches::answer(
                    disk,
                    batches::asked(headers, body, uploads).await?,
                )),
                _ => Err(HttpError::MethodNotAllowed("POST")),
            };
        }
        let key = key(name)?;
        if !matches!(method.as_str(), "GET" | "HEAD") && headers.contains_key(IF_MATCH) {
            let there = self.find(disk, &key).await?;
            check_if_match(headers, there.as_ref().map(|found| found.etag.as_ref()))?;
        }
        match method.as_str() {
            "GET" | "HEAD" => self.read(disk, method, &key, headers).await,
            "PUT" => {
                let most = disk.max_artifact_bytes() + FRAME_OVERHEAD;
                let received = uploads.receive(headers, body, most).await?;
                self.write(disk, &key, received.bytes.clone(), metrics)
                    .await
            }
            "DELETE" => match disk.remove(&key).await {
                Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
                Ok(false) => Err(HttpError::NotFound),
                Err(error) => Err(failed(&error)),
            },
            _ => Err(HttpError::MethodNotAllowed("GET, HEAD, PUT, DELETE")),
        }
    }

    async fn read(
        &self,
        disk: &DiskCache,
        method: &Method,
        key: &PipelineFingerprint,
        headers: &HeaderMap,
    ) -> Result<Response, HttpError> {
        let found = self.find(disk, key).await?.ok_or(HttpError::NotFound)?;
        found.answer(method, headers).await
    }

    async fn find(
        &self,
        disk: &DiskCache,
        key: &PipelineFingerprint,
    ) -> Result<Option<Found>, HttpError> {
        let opened = disk.open_frame(key).await;
        let Some(frame) = opened.map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        let tag = &frame.tag()[..16];
        let tag = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        let (len, mut file) = (frame.len(), frame.into_file());
        let weak = is_compressed(&mut file).map_err(|error| HttpError::disk("read", &error))?;
        let etag = Some(Etag { tag, weak });
        let cache_control = match std::ptr::eq(disk, &raw const self.disk) {
            true => self.cache_control,
            false => ASKED_FOR_AGAIN,
        };
        Ok(Some(Found {
            file,
            len,
            etag,
            cache_control: Some(cache_control),
        }))
    }

    async fn write(
        &self,
        disk: &DiskCache,
        key: &PipelineFingerprint,
        frame: bytes::Bytes,
        metrics: &Metrics,
    ) -> Result<Response, HttpError> {
        let turn = self.verifying.acquire().await;
        let stored = disk.put_frame(key, frame).await;
        drop(turn);
        match stored {
            Ok(()) => Ok(StatusCode::CREATED.into_response()),
            Err(error) => {
                let error = failed(&error);
                if matches!(error, HttpError::Unverified(_)) {
                    metrics.rejected_frames.increment();
                }
                Err(error)
            }
        }
    }
}

/// Whether a frame's payload is compressed. Then it may be stored anew, for the same artifact and
/// with the same tag, as other bytes. What is read here was read just now, and comes from memory.
fn is_compressed(frame: &mut File) -> io::Result<bool> {
    let mut flags = [0; 2];
    frame.seek(SeekFrom::Start(FLAGS_OFFSET))?;
    frame.read_exact(&mut flags)?;
    Ok(u16::from_le_bytes(flags) & FLAG_ZSTD != 0)
}

/// Whether a name below `/artifacts/` is that of a request for many keys, which only reads.
pub(crate) fn names_batch(name: &str) -> bool {
    name.strip_prefix(ALIASES).unwrap_or(name) == BATCH
}

/// Whether a path ends in the name of an artifact.
pub(crate) fn names_artifact(path: &str) -> bool {
    path.rsplit('/')
        .next()
        .is_some_and(|name| key(name).is_ok())
}

/// The key in a name. Only its one spelling is taken.
fn key(name: &str) -> Result<PipelineFingerprint, HttpError> {
    if name.contains('/') && names_artifact(name) {
        return Err(HttpError::WrongBase);
    }
    let hex = name.strip_suffix(".bin").ok_or(HttpError::BadPath)?;
    let key: PipelineFingerprint = hex.parse().map_err(|_| HttpError::BadPath)?;
    if key.to_hex() == hex {
        Ok(key)
    } else {
        Err(HttpError::BadPath)
    }
}
