//! `/ccache/…` and `/sccache/…`: blobs of other caches, kept as they come.
//!
//! They are no frames, so nothing here can verify them: whoever may write there can put anything
//! there, and only those tools read it. They never stand beside artifacts. A blob's file is named
//! by the hash of its path, which leaves a client no say in what the file system sees: no path
//! leads out of the folder, is too long, differs in case alone, or is a folder to another.

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use crate::console::say;
use crate::dav;
use crate::files::Found;
use crate::refusal::Refusal;
use crate::sweep;
use crate::uploads::{Upload, Uploads};

const MAX_PATH_LEN: usize = 1024;

/// The time of use is renewed no more often than this.
const USE_GRANULARITY: Duration = Duration::from_secs(3600);

/// The blobs of one tool.
#[derive(Debug)]
pub(crate) struct Foreign {
    root: PathBuf,
    max_bytes: u64,
    max_blob: u64,
    /// What is there, as counted at the last sweep and since.
    held: AtomicU64,
    sweeping: AtomicBool,
}

impl Foreign {
    /// Opens the folder, drops what a crash has left half-written, and counts what is there.
    pub(crate) fn open(root: PathBuf, max_bytes: u64, max_blob: u64) -> io::Result<Self> {
        let staging = root.join("staging");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(&staging)?;
        for shard in 0..=u8::MAX {
            fs::create_dir_all(root.join(format!("{shard:02x}")))?;
        }
        let held = sweep::held(&root)?;
        Ok(Self {
            root,
            max_bytes,
            max_blob,
            held: AtomicU64::new(held),
            sweeping: AtomicBool::new(false),
        })
    }

    /// The bytes of all blobs.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) async fn answer(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
        uploads: &Uploads,
    ) -> Result<Response, Refusal> {
        // A base URL that ends in a slash makes clients send two of them.
        let path = path.trim_start_matches('/');
        check(path)?;
        let file = self.file_of(path);
        match method.as_str() {
            "GET" | "HEAD" => {
                let found = spawn_blocking(move || open(&file)).await;
                let found = found.map_err(|_| Refusal::Disk)??;
                found.answer(method, headers).await
            }
            "PUT" if is_folder(path) => Err(Refusal::BadPath),
            "PUT" => {
                let body = uploads.body(headers, body, self.max_blob)?;
                self.store(file, body).await
            }
            "DELETE" => self.remove(file).await,
            "PROPFIND" => dav::properties(path, &file).await,
            "MKCOL" => Ok(StatusCode::CREATED.into_response()),
            "OPTIONS" => Ok(dav::options()),
            _ => Err(Refusal::MethodNotAllowed(dav::METHODS)),
        }
    }

    fn file_of(&self, path: &str) -> PathBuf {
        let name = blake3::hash(path.as_bytes()).to_hex();
        self.root.join(&name[..2]).join(name.as_str())
    }

    /// Stages the body and renames it into place. A body that breaks off leaves nothing.
    async fn store(self: &Arc<Self>, file: PathBuf, body: Upload) -> Result<Response, Refusal> {
        let staging = self.root.join("staging");
        let staged = spawn_blocking(move || NamedTempFile::new_in(staging)).await;
        let staged = staged
            .map_err(|_| Refusal::Disk)?
            .map_err(|error| Refusal::disk("stage a blob", &error))?;
        let (staged, path) = staged.into_parts();
        let (staged, length) = body.write_to(staged, Bytes::new()).await?;
        let staged = NamedTempFile::from_parts(staged, path);
        let published = spawn_blocking(move || {
            let replaced = fs::metadata(&file).map_or(0, |metadata| metadata.len());
            // A power loss leaves the whole blob or none.
            staged.as_file().sync_data()?;
            staged.persist(&file).map_err(|error| error.error)?;
            Ok(replaced)
        });
        let replaced = published
            .await
            .map_err(|_| Refusal::Disk)?
            .map_err(|error: io::Error| Refusal::disk("store a blob", &error))?;
        self.held.fetch_add(length, Ordering::Relaxed);
        self.forget(replaced);
        self.sweep_if_full();
        Ok(StatusCode::CREATED.into_response())
    }

    async fn remove(&self, file: PathBuf) -> Result<Response, Refusal> {
        let removed = spawn_blocking(move || {
            let length = fs::metadata(&file)?.len();
            fs::remove_file(&file).map(|()| length)
        });
        match removed.await.map_err(|_| Refusal::Disk)? {
            Ok(length) => {
                self.forget(length);
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Refusal::NotFound),
            Err(error) => Err(Refusal::disk("remove a blob", &error)),
        }
    }

    fn forget(&self, bytes: u64) {
        let _ = self
            .held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                Some(held.saturating_sub(bytes))
            });
    }

    /// Starts a sweep in the background where one is due and none is under way.
    fn sweep_if_full(self: &Arc<Self>) {
        if self.held() <= self.max_bytes || self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = Arc::clone(self);
        spawn_blocking(move || {
            // Below the limit by an eighth, so that not every blob brings the next sweep.
            let goal = this.max_bytes - this.max_bytes / 8;
            let before = this.held();
            let swept = sweep::down_to(&this.root, goal);
            match &swept {
                // What was stored meanwhile may have been seen or not: it is taken for not seen.
                Ok(left) => {
                    let _ = this
                        .held
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                            Some(left.saturating_add(held.saturating_sub(before)))
                        });
                }
                Err(error) => say(format_args!("cannot make room for blobs: {error}")),
            }
            this.sweeping.store(false, Ordering::Release);
            if swept.is_ok() {
                // Whoever came during this sweep has started none.
                this.sweep_if_full();
            }
        });
    }
}

/// Whether a path names no blob. Folders are not kept.
pub(crate) fn is_folder(path: &str) -> bool {
    path.is_empty() || path.ends_with('/')
}

/// Takes names that such tools use, and nothing that another part of a network may understand
/// otherwise than this server: no escapes, no `..`, no empty names.
fn check(path: &str) -> Result<(), Refusal> {
    let names = path.strip_suffix('/').unwrap_or(path);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = path.len() <= MAX_PATH_LEN
        && (names.is_empty()
            || names
                .split('/')
                .all(|name| !matches!(name, "" | "." | "..") && name.bytes().all(plain)));
    if fits { Ok(()) } else { Err(Refusal::BadPath) }
}

fn open(path: &Path) -> Result<Found, Refusal> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (metadata, file) = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Refusal::NotFound),
        Err(error) => return Err(Refusal::disk("open a blob", &error)),
    };
    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let age = used.elapsed().unwrap_or_default();
    if age >= USE_GRANULARITY {
        // Where it fails, the blob goes sooner than it should: no reason to fail the read.
        let _ = File::options()
            .append(true)
            .open(path)
            .and_then(|file| file.set_modified(SystemTime::now()));
    }
    Ok(Found {
        file,
        len: metadata.len(),
        // Nothing tells two blobs of one path apart but their bytes.
        etag: None,
    })
}
