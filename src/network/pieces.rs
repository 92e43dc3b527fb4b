//! A body of many pieces, whose lengths the body itself tells: read piece by piece, each in a buffer of
//! its own.

use bytes::Bytes;
use futures::stream::BoxStream;
use std::time::Duration;

use super::body::{Buffer, drain, next_part};
use super::request_error::RequestError;

pub(crate) struct Pieces {
    parts: BoxStream<'static, Result<Bytes, RequestError>>,
    /// What was received and is not taken.
    received: Bytes,
    inactivity_timeout: Duration,
}

impl Pieces {
    /// Each part must come within the inactivity timeout.
    pub(crate) fn new(
        parts: BoxStream<'static, Result<Bytes, RequestError>>,
        inactivity_timeout: Duration,
    ) -> Self {
        Self {
            parts,
            received: Bytes::new(),
            inactivity_timeout,
        }
    }

    /// The next bytes, so many. `None` where the body ends before them.
    pub(crate) async fn take(&mut self, length: u32) -> Result<Option<Bytes>, RequestError> {
        let mut left = length as usize;
        let mut buffer = Buffer::new(Some(u64::from(length)), left);
        while left > 0 {
            let Some(part) = self.next(left).await? else {
                return Ok(None);
            };
            left -= part.len();
            buffer = buffer.with(part).await;
        }
        Ok(Some(buffer.finish().await))
    }

    /// Passes over the next bytes. `None` where the body ends before them.
    pub(crate) async fn skip(&mut self, length: u32) -> Result<Option<()>, RequestError> {
        let mut left = length as usize;
        while left > 0 {
            let Some(part) = self.next(left).await? else {
                return Ok(None);
            };
            left -= part.len();
        }
        Ok(Some(()))
    }

    /// The body should be over: reads to its end, so that the connection can be used again.
    pub(crate) async fn finish(self) {
        drain(self.parts, None).await;
    }

    /// At most so many bytes.
    async fn next(&mut self, most: usize) -> Result<Option<Bytes>, RequestError> {
        while self.received.is_empty() {
            let Some(part) = next_part(&mut self.parts, self.inactivity_timeout).await? else {
                return Ok(None);
            };
            self.received = part;
        }
        let most = most.min(self.received.len());
        Ok(Some(self.received.split_to(most)))
    }
}
