//! Bodies on their way in: under a cap, whatever the server says of their length.
//!
//! `Content-Length` is believed only as far as it costs nothing: it refuses a body that is too
//! large before a byte is read, and it sizes the buffer up to 1 MiB. Beyond that the buffer grows
//! with what has really come, and never past the length that was announced.

use bytes::Bytes;
use std::time::Duration;
use tokio::time::timeout;

use super::answer::Answer;
use crate::network::Failure;
use crate::off_worker;

/// The most that is reserved on a server's word.
const TRUSTED_BYTES: usize = 1024 * 1024;

/// The first buffer for a body of unknown length.
const UNKNOWN_BYTES: usize = 16 * 1024;

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
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let announced = match answer.content_length().map(usize::try_from) {
        None => None,
        Some(Ok(length)) if length <= limit => Some(length),
        Some(_) => return Ok(None),
    };
    let most = announced.unwrap_or(limit);
    let mut body = Vec::with_capacity(most.min(announced.map_or(UNKNOWN_BYTES, |_| TRUSTED_BYTES)));
    loop {
        let chunk = timeout(inactivity, answer.chunk())
            .await
            .map_err(|_| Failure::timed_out("no part of the body came", inactivity))??;
        let Some(chunk) = chunk else { break };
        let needed = body.len().saturating_add(chunk.len());
        if needed > limit {
            return Ok(None);
        }
        if needed > body.capacity() {
            let capacity = grown(body.capacity(), needed, most);
            body = resized(body, capacity).await;
        }
        body.extend_from_slice(&chunk);
    }
    // The artifact keeps this buffer for as long as it lives: nothing is left over in it.
    let length = body.len();
    if body.capacity() > length {
        body = resized(body, length).await;
    }
    Ok(Some(Bytes::from(body)))
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

/// The capacity after `capacity`: twice as much, no more than `most`, and enough.
fn grown(capacity: usize, needed: usize, most: usize) -> usize {
    capacity.saturating_mul(2).min(most).max(needed)
}

/// The same bytes in a buffer of this capacity. Moving them is work for the blocking pool.
async fn resized(mut body: Vec<u8>, capacity: usize) -> Vec<u8> {
    off_worker::run(body.len(), move || {
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
