//! Bodies on their way in, within a budget of memory and a limit on standing still.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::refusal::Refusal;

/// The budget is counted in units of this, to fit the semaphore.
const UNIT: u64 = 1024;

/// The most that is reserved in memory on a client's word.
const TRUSTED_BYTES: u64 = 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Uploads {
    memory: Arc<Semaphore>,
    units: u32,
    inactivity: Duration,
}

/// A body in memory, which counts until it is dropped.
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl Uploads {
    pub(crate) fn new(memory: u64, inactivity: Duration) -> Self {
        let units = u32::try_from(memory / UNIT).unwrap_or(u32::MAX).max(1);
        let most = Semaphore::MAX_PERMITS.min(units as usize);
        Self {
            memory: Arc::new(Semaphore::new(most)),
            units: most as u32,
            inactivity,
        }
    }

    /// The whole body, of at most this many bytes.
    pub(crate) async fn receive(
        &self,
        headers: &HeaderMap,
        body: Body,
        most: u64,
    ) -> Result<Received, Refusal> {
        let announced = announced(headers);
        let needed = announced.unwrap_or(most);
        if needed > most {
            return Err(Refusal::TooLarge);
        }
        // One artifact is let in however small the budget is, once it is alone.
        let units = u32::try_from(needed.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let waiting = Arc::clone(&self.memory).acquire_many_owned(units.min(self.units));
        let memory = match timeout(self.inactivity, waiting).await {
            Ok(Ok(memory)) => memory,
            _ => return Err(Refusal::Busy),
        };
        let mut bytes = BytesMut::with_capacity(needed.min(TRUSTED_BYTES) as usize);
        let mut parts = self.parts(body, most);
        while let Some(part) = parts.next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(Received {
            bytes: bytes.freeze(),
            _memory: memory,
        })
    }

    /// The body in parts, of at most this many bytes together.
    pub(crate) const fn parts(&self, body: Body, most: u64) -> Parts {
        Parts {
            body,
            left: most,
            inactivity: self.inactivity,
        }
    }
}

/// The length that a client announces.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(crate) struct Parts {
    body: Body,
    left: u64,
    inactivity: Duration,
}

impl Parts {
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let frame = timeout(self.inactivity, self.body.frame())
                .await
                .map_err(|_| Refusal::TooSlow)?;
            let Some(frame) = frame else { return Ok(None) };
            // Trailers are nothing that anybody asked for.
            let Ok(part) = frame.map_err(|_| Refusal::BrokenOff)?.into_data() else {
                continue;
            };
            self.left = self
                .left
                .checked_sub(part.len() as u64)
                .ok_or(Refusal::TooLarge)?;
            return Ok(Some(part));
        }
    }
}
