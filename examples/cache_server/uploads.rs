//! Bodies on their way in, at whatever pace their clients have.
//!
//! What a client sends is written to a file as it comes. Memory, of which there is a budget, is only
//! taken for a body that is all there, for as long as the server itself needs: no client can hold
//! it by sending slowly, or by not saying how much is to come.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::blobs::in_folder;
use crate::blocking;
use crate::http_error::HttpError;
use crate::http_server::exchange::announced;

/// The budget is counted in units of this, to fit the semaphore.
const UNIT: u64 = 1024;

/// How much of a body is in memory before it is written. One that is no longer is not written.
const BUFFER_BYTES: usize = 32 * 1024;

/// By how much a body has to move on in the time that it may stand still.
const STRIDE: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Uploads {
    folder: PathBuf,
    memory: Arc<Semaphore>,
    units: u32,
    inactivity: Duration,
}

/// A body in memory, which counts until it is dropped.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Uploads {
    /// Opens the folder for bodies on their way in. Nothing in it has a name: what a crash leaves
    /// half-written is gone with the process.
    pub(crate) fn open(folder: PathBuf, memory: u64, inactivity: Duration) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let units = u32::try_from(memory / UNIT).unwrap_or(u32::MAX).max(1);
        let most = Semaphore::MAX_PERMITS.min(units as usize);
        Ok(Self {
            folder,
            memory: Arc::new(Semaphore::new(most)),
            units: most as u32,
            inactivity,
        })
    }

    /// The whole body, of at most this many bytes.
    pub(crate) async fn receive(
        &self,
        headers: &HeaderMap,
        body: Body,
        most: u64,
    ) -> Result<Received, HttpError> {
        let mut body = self.body(headers, body, most)?;
        let start = body.start().await?;
        if start.len() <= BUFFER_BYTES {
            return Ok(Received {
                _memory: self.memory(start.len() as u64).await?,
                bytes: start,
            });
        }
        let failed = |error| HttpError::disk("receive an upload", &error);
        let folder = self.folder.clone();
        let create = move || in_folder(&folder, || tempfile::tempfile_in(&folder));
        let file = blocking::run(create).await;
        let (mut file, length) = body.write_to(file.map_err(failed)?, start).await?;
        let memory = self.memory(length).await?;
        // Not on that thread: there may be many, and an allocator that keeps what each has freed.
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let read = blocking::run(move || {
            file.rewind()?;
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        Ok(Received {
            bytes: read.await.map_err(failed)?.into(),
            _memory: memory,
        })
    }

    /// Bytes that are in memory already, counted from now on until the last reference is dropped.
    pub(crate) async fn count(&self, bytes: Bytes) -> Result<Bytes, HttpError> {
        let _memory = self.memory(bytes.len() as u64).await?;
        Ok(Bytes::from_owner(Received { bytes, _memory }))
    }

    /// A part of the budget, once it is free.
    async fn memory(&self, bytes: u64) -> Result<OwnedSemaphorePermit, HttpError> {
        // One body is let in however small the budget is, once it is alone.
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let waiting = Arc::clone(&self.memory).acquire_many_owned(units.min(self.units));
        let memory = timeout(self.inactivity, waiting).await;
        memory.ok().and_then(Result::ok).ok_or(HttpError::Busy)
    }

    /// A body of at most this many bytes.
    pub(crate) fn body(
        &self,
        headers: &HeaderMap,
        body: Body,
        most: u64,
    ) -> Result<Upload, HttpError> {
        if announced(headers).is_some_and(|length| length > most) {
            return Err(HttpError::TooLarge);
        }
        Ok(Upload {
            body,
            left: most,
            inactivity: self.inactivity,
            waited: Duration::ZERO,
            stride: 0,
        })
    }
}

/// A body that comes in, within its limits of size and time.
pub(crate) struct Upload {
    body: Body,
    left: u64,
    inactivity: Duration,
    /// How long the server has waited for the client since the last stride.
    waited: Duration,
    /// What has come since then.
    stride: usize,
}

impl Upload {
    async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let began = Instant::now();
            let left = self.inactivity.saturating_sub(self.waited);
            let frame = timeout(left, self.body.frame())
                .await
                .map_err(|_| HttpError::TooSlow)?;
            self.waited += began.elapsed();
            let Some(frame) = frame else { return Ok(None) };
            // Trailers are nothing that anybody asked for.
            let Ok(part) = frame.map_err(|_| HttpError::BrokenOff)?.into_data() else {
                continue;
            };
            self.left = self
                .left
                .checked_sub(part.len() as u64)
                .ok_or(HttpError::TooLarge)?;
            self.stride += part.len();
            if self.stride >= STRIDE {
                self.stride = 0;
                self.waited = Duration::ZERO;
            }
            return Ok(Some(part));
        }
    }

    /// All of it, or its first part if it is larger than a buffer.
    async fn start(&mut self) -> Result<Bytes, HttpError> {
        let mut start = BytesMut::new();
        while start.len() <= BUFFER_BYTES {
            let Some(part) = self.next().await? else {
                break;
            };
            start.extend_from_slice(&part);
        }
        Ok(start.freeze())
    }

    /// Writes what is taken already and the rest to a file; it, and its length.
    pub(crate) async fn write_to(
        mut self,
        file: File,
        start: Bytes,
    ) -> Result<(File, u64), HttpError> {
        let failed = |error| HttpError::disk("write an upload", &error);
        let mut file = tokio::fs::File::from_std(file);
        file.set_max_buf_size(BUFFER_BYTES);
        let mut length = 0;
        let mut next = Some(start);
        while let Some(part) = next {
            length += part.len() as u64;
            file.write_all(&part).await.map_err(failed)?;
            // Not held while the client is slow.
            drop(part);
            next = self.next().await?;
        }
        // Says whether the last write failed, too.
        file.flush().await.map_err(failed)?;
        Ok((file.into_std().await, length))
    }
}
