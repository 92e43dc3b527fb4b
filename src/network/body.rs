//! A body as it is received: under a cap, whatever length the server announces.
//!
//! An announced length sizes the buffer up to 1 MiB and no further. Beyond that the buffer grows
//! with what has really come, and never past the length that was announced.

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use std::pin::pin;
use std::time::Duration;
use tokio::time::timeout;

use super::request_error::RequestError;
use crate::sync::blocking;

/// The most that is reserved because a server announced it.
const TRUSTED_BYTES: usize = 1024 * 1024;

/// The first buffer for a body of unknown length.
const UNKNOWN_BYTES: usize = 16 * 1024;

/// The most that is read of an unwanted body, and for how long, so that its connection can be used
/// again.
const DRAINED_BYTES: u64 = 64 * 1024;
const START_BYTES: usize = 1024;
const DRAINING: Duration = Duration::from_millis(50);

/// The whole body, in a buffer of exactly its length, or `None` as soon as it is known to be longer
/// than `limit`. Each part must come within the inactivity timeout.
pub(crate) async fn read_capped<E: Into<RequestError>>(
    parts: impl Stream<Item = Result<Bytes, E>> + Send,
    announced: Option<u64>,
    limit: u64,
    inactivity_timeout: Duration,
) -> Result<Option<Bytes>, RequestError> {
    if announced.is_some_and(|length| length > limit) {
        return Ok(None);
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut buffer = Buffer::new(announced, limit);
    let mut parts = pin!(parts);
    loop {
        let Some(part) = next_part(&mut parts, inactivity_timeout).await? else {
            return Ok(Some(buffer.finish().await));
        };
        if part.len() > limit - buffer.bytes.len() {
            return Ok(None);
        }
        buffer = buffer.with(part).await;
    }
}

/// Reads at least so many bytes, or all there are, and no further part. Each part must come within
/// the inactivity timeout.
pub(crate) async fn read_start<E: Into<RequestError>>(
    parts: impl Stream<Item = Result<Bytes, E>> + Send,
    wanted: usize,
    inactivity_timeout: Duration,
) -> Result<(), RequestError> {
    let mut parts = pin!(parts);
    let mut received = 0;
    while received < wanted {
        match next_part(&mut parts, inactivity_timeout).await? {
            Some(part) => received += part.len(),
            None => break,
        }
    }
    Ok(())
}

pub(super) async fn next_part<E: Into<RequestError>>(
    parts: &mut (impl Stream<Item = Result<Bytes, E>> + Send + Unpin),
    inactivity_timeout: Duration,
) -> Result<Option<Bytes>, RequestError> {
    let next = timeout(inactivity_timeout, parts.next()).await;
    let late = |_| RequestError::timed_out("no part of the body", inactivity_timeout);
    next.map_err(late)?.transpose().map_err(Into::into)
}

/// Reads the rest of a short unwanted body: an HTTP/1.1 connection is only used again once its
/// response was read. Returns how it begins, which may name an error.
pub(crate) async fn drain<E>(
    parts: impl Stream<Item = Result<Bytes, E>> + Send,
    announced: Option<u64>,
) -> Vec<u8> {
    let (mut start, mut left) = (Vec::new(), DRAINED_BYTES);
    if announced.is_some_and(|length| length > left) {
        return start;
    }
    let mut parts = pin!(parts);
    let reading = async {
        while let Some(Ok(part)) = parts.next().await {
            let room = START_BYTES.saturating_sub(start.len());
            start.extend_from_slice(&part[..part.len().min(room)]);
            match left.checked_sub(part.len() as u64) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // A body that is too slow or too long costs the connection and nothing else.
    let _ = timeout(DRAINING, reading).await;
    start
}

pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// No more than this is expected.
    most: usize,
}

impl Buffer {
    pub(super) fn new(announced: Option<u64>, limit: usize) -> Self {
        let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let first = announced.map_or(UNKNOWN_BYTES, |length| length.min(TRUSTED_BYTES));
        Self {
            bytes: Vec::with_capacity(first.min(limit)),
            most: announced.unwrap_or(limit),
        }
    }

    pub(super) async fn with(mut self, part: Bytes) -> Self {
        let needed = self.bytes.len().saturating_add(part.len());
        if needed > self.bytes.capacity() {
            let capacity = grown(self.bytes.capacity(), needed, self.most);
            self.bytes = resized(self.bytes, capacity).await;
        }
        // More than a connection hands out at a time: a store in memory hands out the whole.
        if part.len() > TRUSTED_BYTES {
            return blocking::blocking(move || self.and(&part)).await;
        }
        self.and(&part)
    }

    fn and(mut self, part: &[u8]) -> Self {
        self.bytes.extend_from_slice(part);
        self
    }

    pub(super) async fn finish(self) -> Bytes {
        let length = self.bytes.len();
        let bytes = if self.bytes.capacity() > length {
            resized(self.bytes, length).await
        } else {
            self.bytes
        };
        Bytes::from(bytes)
    }
}

/// The capacity after `capacity`: twice as much, no more than `most`, and enough.
fn grown(capacity: usize, needed: usize, most: usize) -> usize {
    capacity.saturating_mul(2).min(most).max(needed)
}

/// The same bytes in a buffer of this capacity. Moving them is work for the blocking pool.
async fn resized(mut body: Vec<u8>, capacity: usize) -> Vec<u8> {
    blocking::run(body.len(), move || {
        if capacity > body.capacity() {
            body.reserve_exact(capacity - body.len());
        } else {
            body.shrink_to(capacity);
        }
        body
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_doubles_and_never_passes_what_was_announced() {
        assert_eq!(grown(16, 17, 1000), 32);
        assert_eq!(grown(16, 100, 1000), 100);
        assert_eq!(grown(600, 601, 1000), 1000);
        assert_eq!(grown(0, 1, 1000), 1);
        // A server that sends more than it announced.
        assert_eq!(grown(10, 20, 10), 20);
        assert_eq!(grown(usize::MAX, usize::MAX, usize::MAX), usize::MAX);
    }

    #[tokio::test]
    async fn a_buffer_keeps_its_bytes_when_it_is_resized() {
        let body = vec![7; 100];
        let body = resized(body, 200).await;
        assert_eq!((body.len(), body.capacity()), (100, 200));
        let body = resized(body, 100).await;
        assert_eq!(body, vec![7; 100]);
        assert_eq!(body.capacity(), 100);
    }
}
