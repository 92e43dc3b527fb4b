//! One response: its head, and its body under a cap and a limit on inactivity.

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::Duration;
use tokio::time::timeout;

use crate::network::{Body, HttpStatusError, RequestError};

/// The most that is read of an unwanted body, and for how long, so that its connection can be used
/// again.
const DRAINED_BYTES: u64 = 64 * 1024;
const DRAINING: Duration = Duration::from_millis(50);

/// Read to its end, it leaves its connection to the next request. Dropped before that, it closes an
/// HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Response {
    response: reqwest::Response,
    inactivity_timeout: Duration,
    /// Whether it is from the base's own origin, which was sent the credentials.
    is_home: bool,
}

impl Response {
    pub(super) const fn new(
        response: reqwest::Response,
        inactivity_timeout: Duration,
        is_home: bool,
    ) -> Self {
        Self {
            response,
            inactivity_timeout,
            is_home,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// What its status says, where that does not answer the request.
    pub(super) fn status_error(&self) -> HttpStatusError {
        let retry_after = self.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        let error = HttpStatusError::new(self.status().as_u16(), retry_after);
        if self.is_home {
            error
        } else {
            error.by_another()
        }
    }

    /// The next part of the body; `None` at its end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, RequestError> {
        match timeout(self.inactivity_timeout, self.response.chunk()).await {
            Ok(chunk) => Ok(chunk?),
            Err(_) => {
                let limit = self.inactivity_timeout;
                Err(RequestError::timed_out("no part of the body", limit))
            }
        }
    }

    /// The whole body, or `None` as soon as it is known to be larger than `limit`.
    pub(super) async fn read(mut self, limit: u64) -> Result<Option<Bytes>, RequestError> {
        let Some(mut body) = Body::new(self.response.content_length(), limit) else {
            return Ok(None);
        };
        while let Some(chunk) = self.chunk().await? {
            match body.with(chunk).await {
                Some(longer) => body = longer,
                None => return Ok(None),
            }
        }
        Ok(Some(body.finish().await))
    }

    /// Reads the rest of a short unwanted body: an HTTP/1.1 connection is only used again once its
    /// response was read.
    pub(super) async fn drain(mut self) {
        let mut left = DRAINED_BYTES;
        let announced = self.response.content_length();
        if announced.is_some_and(|length| length > left) {
            return;
        }
        let reading = async {
            while let Ok(Some(chunk)) = self.response.chunk().await {
                match left.checked_sub(chunk.len() as u64) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        };
        // A body that is too slow or too long costs the connection and nothing else.
        let _ = timeout(DRAINING, reading).await;
    }
}
