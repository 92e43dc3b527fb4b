//! `/artifacts/<64 hex digits>.bin` and `/artifacts/aliases/<64 hex digits>.bin`: frames, as a
//! `RemoteCache` requests them. Many in one answer: see `batches`.

use axum::body::Body;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use pipeline_cache::layered::CloseReport;
use pipeline_cache::{DiskCache, PipelineCacheStore, PipelineFingerprint};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::batches;
use crate::files::{Content, Etag, Found, check_if_match};
use crate::http_error::{HttpError, failed};
use crate::metrics::Metrics;
use crate::store::{Answer, Store, StoreLimits};
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

/// Where a frame has the part of its tag that tells it from others.
const TAG: Range<usize> = 112..128;

/// A key names one artifact for ever. Nothing on the way may compress it or change it otherwise.
const CACHED_BY_ALL: &str = "public, max-age=31536000, immutable, no-transform";
/// The same where reads need a token: a shared cache must not serve it to others.
const CACHED_BY_CLIENT: &str = "private, max-age=31536000, immutable, no-transform";
/// A source alias may be corrected: whoever keeps one asks whether it still holds.
const ASKED_FOR_AGAIN: &str = "no-cache, no-transform";

#[derive(Debug)]
pub(crate) struct Artifacts {
    pub(crate) disk: DiskCache,
    /// Below the folder of artifacts, where there is one.
    pub(crate) store: Option<Store>,
    /// Below that of source aliases.
    alias_store: Option<Store>,
    cache_control: &'static str,
    verifying: Semaphore,
}

/// Where the entries of one kind are.
#[derive(Clone, Copy)]
struct Place<'a> {
    disk: &'a DiskCache,
    store: Option<&'a Store>,
    cache_control: &'static str,
}

impl Artifacts {
    /// `public` where anybody may read without a token.
    pub(crate) const fn new(disk: DiskCache, public: bool) -> Self {
        Self {
            disk,
            store: None,
            alias_store: None,
            cache_control: if public {
                CACHED_BY_ALL
            } else {
                CACHED_BY_CLIENT
            },
            verifying: Semaphore::const_new(VERIFIED_AT_ONCE),
        }
    }

    /// Puts a store below the folder. Source aliases stand beside the artifacts there as well.
    pub(crate) fn over(mut self, store: Arc<dyn PipelineCacheStore>, limits: StoreLimits) -> Self {
        let alias_store = store.alias_stores().into_iter().next();
        self.alias_store = self.disk.aliases().zip(alias_store).map(|(folder, store)| {
            let aliases = StoreLimits {
                max_artifact: folder.max_artifact_bytes(),
                ..limits.clone()
            };
            Store::new(folder.clone(), store, aliases)
        });
        self.store = Some(Store::new(self.disk.clone(), store, limits));
        self
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
        let (place, name) = self.place(name)?;
        if name == BATCH {
            return match method.as_str() {
                "POST" => Ok(batches::answer(
                    place.disk,
                    place.store,
                    batches::asked(headers, body, uploads).await?,
                )),
                _ => Err(HttpError::MethodNotAllowed("POST")),
            };
        }
        let key = key(name)?;
        if !matches!(method.as_str(), "GET" | "HEAD") && headers.contains_key(IF_MATCH) {
            let there = place.find(&key).await?;
            check_if_match(headers, there.as_ref().map(|found| found.etag.as_ref()))?;
        }
        match method.as_str() {
            "GET" | "HEAD" => {
                if let Some(found) = place.find(&key).await? {
                    return found.answer(method, headers).await;
                }
                let store = place.store.ok_or(HttpError::NotFound)?;
                if *method == Method::HEAD {
                    return store_has(store, &key).await;
                }
                let found = place.find_in_store(store, &key, uploads).await?;
                found.answer(method, headers).await
            }
            "PUT" => {
                let most = place.disk.max_artifact_bytes() + FRAME_OVERHEAD;
                let received = uploads.receive(headers, body, most).await?;
                self.write(place, &key, received.bytes.clone(), metrics)
                    .await
            }
            "DELETE" => place.remove(&key).await,
            _ => Err(HttpError::MethodNotAllowed("GET, HEAD, PUT, DELETE")),
        }
    }

    /// Where the entry of this name is, and the rest of the name.
    fn place<'a>(&'a self, name: &'a str) -> Result<(Place<'a>, &'a str), HttpError> {
        let place = match name.strip_prefix(ALIASES) {
            Some(alias) => {
                let place = Place {
                    disk: self.disk.aliases().ok_or(HttpError::NotFound)?,
                    store: self.alias_store.as_ref(),
                    cache_control: ASKED_FOR_AGAIN,
                };
                (place, alias)
            }
            None => {
                let place = Place {
                    disk: &self.disk,
                    store: self.store.as_ref(),
                    cache_control: self.cache_control,
                };
                (place, name)
            }
        };
        Ok(place)
    }

    async fn write(
        &self,
        place: Place<'_>,
        key: &PipelineFingerprint,
        frame: Bytes,
        metrics: &Metrics,
    ) -> Result<Response, HttpError> {
        let turn = self.verifying.acquire().await;
        let stored = place.disk.put_frame(key, frame.clone()).await;
        let for_store = match (&stored, place.store) {
            (Ok(()), Some(store)) => store.decode(*key, frame).await.map(|it| (store, it)),
            _ => None,
        };
        drop(turn);
        match stored {
            Ok(()) => {
                if let Some((store, artifact)) = for_store {
                    store.offer(key, artifact).await;
                }
                Ok(StatusCode::CREATED.into_response())
            }
            Err(error) => {
                let error = failed(&error);
                if matches!(error, HttpError::Unverified(_)) {
                    metrics.rejected_frames.increment();
                }
                Err(error)
            }
        }
    }

    /// Gives the store this long to take what is on its way to it. The folder is closed as well.
    pub(crate) async fn close_store(&self, deadline: Duration) -> Option<CloseReport> {
        let store = self.store.as_ref()?;
        // A source alias that the store lacks costs its next user one parse.
        let aliases = async {
            if let Some(store) = &self.alias_store {
                store.close(deadline).await;
            }
        };
        let (report, ()) = tokio::join!(store.close(deadline), aliases);
        Some(report)
    }
}

impl Place<'_> {
    /// The entry in the folder.
    async fn find(self, key: &PipelineFingerprint) -> Result<Option<Found>, HttpError> {
        let opened = self.disk.open_frame(key).await;
        let Some(frame) = opened.map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        let tag = hex(&frame.tag()[..16]);
        let (len, mut file) = (frame.len(), frame.into_file());
        let weak = is_compressed(&mut file).map_err(|error| HttpError::disk("read", &error))?;
        Ok(Some(Found {
            content: Content::File(file),
            len,
            etag: Some(Etag { tag, weak }),
            cache_control: Some(self.cache_control),
        }))
    }

    /// The entry in the store, kept in the folder. It is answered from memory where the folder does not
    /// take it.
    async fn find_in_store(
        self,
        store: &Store,
        key: &PipelineFingerprint,
        uploads: &Uploads,
    ) -> Result<Found, HttpError> {
        // Without an answer it is a miss as well: 503 would keep clients from what the folder has.
        let Answer::Found(artifact) = store.fetch(key).await else {
            return Err(HttpError::NotFound);
        };
        // A failure is told here. Its client gets the artifact all the same.
        let kept = store.keep(key, &artifact).await;
        let kept = kept.map_err(|error| failed(&error)).is_ok();
        if let (true, Some(found)) = (kept, self.find(key).await?) {
            return Ok(found);
        }
        let frame = store.frame(key, &artifact).ok_or(HttpError::NotFound)?;
        drop(artifact);
        let etag = frame.get(TAG).map(|tag| Etag {
            tag: hex(tag),
            weak: false,
        });
        Ok(Found {
            len: frame.len() as u64,
            content: Content::Memory(uploads.count(frame).await?),
            etag,
            cache_control: Some(self.cache_control),
        })
    }

    async fn remove(self, key: &PipelineFingerprint) -> Result<Response, HttpError> {
        let removed = match self.store {
            Some(store) => store.remove(key).await,
            None => self.disk.remove(key).await,
        };
        match removed {
            Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
            Ok(false) => Err(HttpError::NotFound),
            Err(error) if self.store.is_some_and(|store| store.failed(&error)) => {
                Err(HttpError::StoreKeeps)
            }
            Err(error) => Err(failed(&error)),
        }
    }
}

/// The answer to a HEAD of what the folder lacks. Its length is not known before it is fetched.
async fn store_has(store: &Store, key: &PipelineFingerprint) -> Result<Response, HttpError> {
    match store.contains(key).await {
        // An empty body would be announced with a length, of 0.
        true => Ok(Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()).into_response()),
        false => Err(HttpError::NotFound),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
