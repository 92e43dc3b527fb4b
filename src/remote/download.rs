//! Bodies on their way in: those that are wanted, and what is left of others.

use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

use super::answer::Answer;
use crate::network::{Body, Failure};

/// The most that is read of a body nobody wants, and for how long, to keep its connection.
const DRAINED_BYTES: usize = 64 * 1024;
const DRAINING: Duration = Duration::from_millis(50);

/// The whole body, or `None` as soon as it is known to be larger than `limit`. A pause of more
/// than `inactivity` between two parts of it is a failure.
pub(super) async fn read(
    mut answer: Answer,
    limit: u64,
    inactivity: Duration,
) -> Result<Option<Bytes>, Failure> {
    let Some(mut body) = Body::new(answer.content_length(), limit) else {
        return Ok(None);
    };
    loop {
        let part = timeout(inactivity, answer.chunk())
            .await
            .map_err(|_| Failure::timed_out("no part of the body came", inactivity))??;
        let Some(part) = part else { break };
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
