//! `POST /artifacts/batch` and `POST /artifacts/aliases/batch`: many frames in one answer.
//!
//! The body is the keys, 32 bytes each, at most 1,024. The answer begins with eight bytes,
//! `89 70 63 62 0d 0a 1a 0a`. For each key, in the order of the request, follow four bytes, an integer
//! in little-endian order, and what it says:
//!
//! | the integer | meaning |
//! |---|---|
//! | 0 | there is no such entry |
//! | `0xffff_ffff` | not in this answer, which has 64 MiB of frames, or whose disk or object store gave none: ask for it alone |
//! | any other | the length of the entry's frame, which follows |
//!
//! It is sent while it is read. An entry that turns out to be shorter than it was ends the connection: a
//! client would take what follows for its rest.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use pipeline_cache::{DiskCache, PipelineFingerprint};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::blocking;
use crate::http_error::{HttpError, failed};
use crate::store::{Answer, Store};
use crate::uploads::Uploads;

const KEY_BYTES: usize = 32;
const MAX_KEYS: usize = 1024;

/// The most bytes of frames in one answer.
const MAX_BYTES: u64 = 64 << 20;

/// How an answer begins.
const MAGIC: &[u8] = b"\x89pcb\r\n\x1a\n";

const NO_ENTRY: u32 = 0;
const NOT_SENT: u32 = u32::MAX;

/// How many entries of one answer are opened before they are sent.
const OPENED_AHEAD: usize = 8;

/// A frame that is no longer is read as a whole, where it is opened. Of a longer one, this much is in
/// memory at a time.
const CHUNK_BYTES: u64 = 64 * 1024;

/// The keys that a request asks for.
pub(crate) async fn asked(
    headers: &HeaderMap,
    body: Body,
    uploads: &Uploads,
) -> Result<Vec<PipelineFingerprint>, HttpError> {
    let most = (MAX_KEYS * KEY_BYTES) as u64;
    let received = match uploads.receive(headers, body, most).await {
        Err(HttpError::TooLarge) => return Err(HttpError::BadBatch),
        received => received?,
    };
    let keys = received.bytes.chunks_exact(KEY_BYTES);
    if received.bytes.is_empty() || !keys.remainder().is_empty() {
        return Err(HttpError::BadBatch);
    }
    let keys = keys.filter_map(|key| key.try_into().ok());
    Ok(keys.map(PipelineFingerprint::from_bytes).collect())
}

/// The answer for these keys.
pub(crate) fn answer(
    disk: &DiskCache,
    store: Option<&Store>,
    keys: Vec<PipelineFingerprint>,
) -> Response {
    let head = [
        (CONTENT_TYPE, "application/octet-stream"),
        (CACHE_CONTROL, "no-store, no-transform"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let (disk, store) = (disk.clone(), store.cloned());
    let opened = stream::iter(keys).map(move |key| find(disk.clone(), store.clone(), key));
    let mut left = MAX_BYTES;
    let entries = opened.buffered(OPENED_AHEAD).flat_map(move |entry| {
        let entry = match left.checked_sub(entry.len()) {
            Some(rest) => {
                left = rest;
                entry
            }
            None => Entry::NotSent,
        };
        entry.send()
    });
    let magic = stream::iter([Ok(Bytes::from_static(MAGIC))]);
    (head, Body::from_stream(magic.chain(entries))).into_response()
}

/// What is answered for one key.
enum Entry {
    None,
    NotSent,
    /// The length and the frame.
    Small(Bytes),
    Large(File, u32),
}

/// The entry in the folder, or else that of the store, which is kept in the folder for it.
async fn find(disk: DiskCache, store: Option<Store>, key: PipelineFingerprint) -> Entry {
    let entry = open(disk.clone(), key).await;
    let (Entry::None, Some(store)) = (&entry, store) else {
        return entry;
    };
    let artifact = match store.fetch(&key).await {
        Answer::Found(artifact) => artifact,
        Answer::Missing => return Entry::None,
        Answer::Unknown => return Entry::NotSent,
    };
    if store.keep(&key, &artifact).await.is_err() {
        // The request for it alone tells why.
        return Entry::NotSent;
    }
    drop(artifact);
    match open(disk, key).await {
        Entry::None => Entry::NotSent,
        entry => entry,
    }
}

async fn open(disk: DiskCache, key: PipelineFingerprint) -> Entry {
    let opened = disk.open_frame(&key).await.map_err(|error| failed(&error));
    let Ok(opened) = opened else {
        return Entry::NotSent;
    };
    let Some(frame) = opened else {
        return Entry::None;
    };
    let length = frame.len();
    let Ok(short) = u32::try_from(length) else {
        return Entry::NotSent;
    };
    let file = frame.into_file();
    if length > CHUNK_BYTES {
        return Entry::Large(file, short);
    }
    match blocking::run(move || read_small(file, short)).await {
        Ok(entry) => Entry::Small(entry),
        Err(error) => {
            // It is told; the client asks again, and is told as well if that goes on.
            let _ = HttpError::disk("read an entry", &error);
            Entry::NotSent
        }
    }
}

/// The length of a frame, and the frame.
fn read_small(mut file: File, length: u32) -> io::Result<Bytes> {
    let head = length.to_le_bytes();
    let mut entry = vec![0; head.len() + length as usize];
    entry[..head.len()].copy_from_slice(&head);
    file.rewind()?;
    file.read_exact(&mut entry[head.len()..])?;
    Ok(entry.into())
}

impl Entry {
    /// The bytes of its frame.
    fn len(&self) -> u64 {
        match self {
            Self::None | Self::NotSent => 0,
            Self::Small(entry) => entry.len() as u64 - 4,
            Self::Large(_, length) => u64::from(*length),
        }
    }

    fn send(self) -> BoxStream<'static, io::Result<Bytes>> {
        let number = |number: u32| Bytes::copy_from_slice(&number.to_le_bytes());
        let entry = match self {
            Self::None => number(NO_ENTRY),
            Self::NotSent => number(NOT_SENT),
            Self::Small(entry) => entry,
            Self::Large(file, length) => {
                let length_first = stream::iter([Ok(number(length))]);
                return length_first.chain(chunks(file, length.into())).boxed();
            }
        };
        stream::iter([Ok(entry)]).boxed()
    }
}

/// So many bytes of a file, and an error where it has fewer.
fn chunks(file: File, length: u64) -> BoxStream<'static, io::Result<Bytes>> {
    let state = (tokio::fs::File::from_std(file), length);
    let chunks = stream::try_unfold(state, move |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        if left == length {
            // Its head was read.
            file.rewind().await?;
        }
        let mut chunk = BytesMut::with_capacity(left.min(CHUNK_BYTES) as usize);
        let read = (&mut file).take(left).read_buf(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((chunk.freeze(), (file, left - read as u64))))
    });
    chunks.boxed()
}
