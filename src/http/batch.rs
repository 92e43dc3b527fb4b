//! The request for many entries, and its answer, as [`RemoteCache`](super::RemoteCache#many-keys-in-one-request)
//! describes them.
//!
//! Nothing of the answer is trusted. What is in memory at a time is one frame besides those that were
//! verified, and grows with what has really come.

use bytes::Bytes;
use tokio::time::Instant;

use crate::artifact::FrameError;
use crate::artifact::frame::FrameFormat;
use crate::key::PipelineFingerprint;
use crate::network::{Batch, BatchAnswer, Pieces, RequestError};
use crate::store::{Fetched, StoreErrorKind};
use crate::sync::blocking;

/// The most keys of one request.
pub(super) const MAX_KEYS: usize = 1024;

/// The most bytes of frames in one answer.
const MAX_BYTES: u64 = 64 << 20;

/// How an answer begins, so that the page of a server that accepts every POST is none.
const MAGIC: [u8; 8] = *b"\x89pcb\r\n\x1a\n";

const NO_ENTRY: u32 = 0;
const NOT_SENT: u32 = u32::MAX;

/// The body of a request for these keys.
pub(super) fn body(keys: &[(usize, PipelineFingerprint)]) -> Bytes {
    let keys = keys.iter().flat_map(|(_, key)| *key.as_bytes());
    keys.collect()
}

/// Whether a body begins as an answer does.
pub(super) async fn begins(body: &mut Pieces) -> Result<bool, RequestError> {
    let magic = body.take(MAGIC.len() as u32).await?;
    Ok(magic.is_some_and(|magic| magic[..] == MAGIC))
}

/// Reads the answers to these keys, of which each is at its place in the batch. Whether it read the
/// answer to its end: once `stop_at` is over, it stops behind an entry.
pub(super) async fn receive(
    body: &mut Pieces,
    batch: &Batch,
    keys: Vec<(usize, PipelineFingerprint)>,
    format: &FrameFormat,
    stop_at: Instant,
) -> Result<bool, RequestError> {
    let mut left = MAX_BYTES;
    let last = keys.len();
    for (read, (place, key)) in (1..).zip(keys) {
        let length = body.take(4).await?.ok_or_else(too_short)?;
        let length = length
            .iter()
            .rfold(0, |sum, &byte| sum << 8 | u32::from(byte));
        match length {
            NOT_SENT => continue,
            NO_ENTRY => batch.answer(place, BatchAnswer::Fetched(Fetched::Miss)),
            length => {
                left = left.checked_sub(length.into()).ok_or_else(too_long)?;
                let answer = frame(body, length, &key, format).await?;
                batch.answer(place, answer);
            }
        }
        if read < last && Instant::now() >= stop_at {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The frame that is next, so long.
async fn frame(
    body: &mut Pieces,
    length: u32,
    key: &PipelineFingerprint,
    format: &FrameFormat,
) -> Result<BatchAnswer, RequestError> {
    let fetched = if u64::from(length) > format.max_frame() {
        body.skip(length).await?.ok_or_else(too_short)?;
        Fetched::Corrupt(FrameError::TooLarge)
    } else {
        let frame = body.take(length).await?.ok_or_else(too_short)?;
        blocking::consume_budget(frame.len()).await;
        match format.decode_blocking(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            // Either the entry is wrong, or the answer or its connection is that of another request.
            Err(FrameError::OtherFingerprint) => return Ok(BatchAnswer::AskAlone),
            Err(reason) => Fetched::Corrupt(reason),
        }
    };
    Ok(BatchAnswer::Fetched(fetched))
}

fn too_short() -> RequestError {
    RequestError::new(
        StoreErrorKind::Protocol,
        "the answer to a batch ends before its last entry",
    )
}

fn too_long() -> RequestError {
    RequestError::new(
        StoreErrorKind::Protocol,
        format!("the answer to a batch announces more than {MAX_BYTES} bytes"),
    )
}

#[cfg(test)]
mod tests;
