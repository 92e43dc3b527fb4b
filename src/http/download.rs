//! Bodies on their way in: those that are wanted, and what is left of others.

use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

use super::answer::Answer;
use crate::network::{Body, RequestError};

/// The most that is read of a body nobody wants, and for how long, to keep its connection.
const DRAINED_BYTES: usize = 64 * 1024;
const DRAINING: Duration = Duration::from_millis(50);

/// The whole body, or `None` as soon as it is known to be larger than `limit`.
pub(super) async fn read(mut answer: Answer, limit: u64) -> Result<Option<Bytes>, RequestError> {
    let Some(mut body) = Body::new(answer.content_length(), limit) else {
        return Ok(None);
    };
    while let Some(part) = answer.chunk().await? {
        match body.with(part).await {
            Some(longer) => body = longer,
            None => return Ok(None),
        }
    }
    Ok(Some(body.finish().await))
}

/// Reads what is left of a short body that nobody wants: an HTTP/1.1 connection is only used
/// again once its answer was read.
pub(super) async fn drain(mut answer: Answer) {
    let mut left = DRAINED_BYTES as u64;
    if answer.content_length().is_some_and(|length| length > left) {
        return;
    }
    let reading = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            match left.checked_sub(chunk.len() as u64) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Too slow or too long costs the connection and nothing else.
    let _ = timeout(DRAINING, reading).await;
}
