//! An upload on its way: how much of it was handed over, and how long its response may take.

use bytes::Bytes;
use futures::stream::{self, Stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, RequestBuilder};
use std::convert::Infallible;
use std::iter;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::network::Upload;

/// The most bytes of an upload that are handed to the connection at a time: small enough that a
/// slow connection is told from a dead one.
const CHUNK_BYTES: usize = 64 * 1024;

/// How much of an upload the system may hold for a slow network: its send buffer grows with what
/// the network takes.
const SYSTEM_BUFFER_BYTES: usize = 512 * 1024;

/// The slowest uplink, in bytes per second, that is not taken for a dead connection.
const SLOWEST_UPLINK: usize = 64 * 1024;

/// Sends a request with a body. Each part that the connection takes starts the time limit anew.
///
/// Once the response has come, no more of the body is sent, and none of it is kept: a server that
/// answers early and reads slowly, or never, must not hold the payload in memory. Where it neither
/// reads nor resets an HTTP/2 stream, the stream stays open with its connection: only the
/// connection could end it.
pub(super) async fn send(
    builder: RequestBuilder,
    upload: &Upload,
    inactivity_timeout: Duration,
) -> Result<reqwest::Result<reqwest::Response>, Elapsed> {
    let sending = Arc::new(Sending::new(upload));
    let _discard = DiscardOnDrop(&sending);
    let mut response = pin!(
        builder
            .header(CONTENT_TYPE, "application/octet-stream")
            // Many servers take no chunked upload.
            .header(CONTENT_LENGTH, sending.length)
            .body(Body::wrap_stream(parts(Arc::clone(&sending))))
            .send()
    );
    loop {
        let step = async {
            tokio::select! {
                biased;
                response = &mut response => Some(response),
                () = sending.progress.notified() => None,
            }
        };
        let limit = time_limit(inactivity_timeout, sending.handed_over());
        if let Some(response) = timeout(limit, step).await? {
            return Ok(response);
        }
    }
}

/// How long nothing may happen once so many bytes were handed over. What the system has taken and
/// not yet sent is on its way, and cannot be seen.
fn time_limit(inactivity_timeout: Duration, handed_over: usize) -> Duration {
    let held = handed_over.min(SYSTEM_BUFFER_BYTES);
    inactivity_timeout.saturating_add(Duration::from_secs_f64(held as f64 / SLOWEST_UPLINK as f64))
}

/// The head and the payload of a frame, part by part.
fn parts(sending: Arc<Sending>) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    stream::iter(iter::from_fn(move || sending.next_part().map(Ok)))
}

#[derive(Debug)]
struct Sending {
    length: usize,
    rest: Mutex<Upload>,
    /// Notified whenever the connection asks for a part.
    progress: Notify,
}

impl Sending {
    fn new(upload: &Upload) -> Self {
        Self {
            length: upload.head.len() + upload.payload.len(),
            rest: Mutex::new(upload.clone()),
            progress: Notify::new(),
        }
    }

    fn rest(&self) -> MutexGuard<'_, Upload> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_part(&self) -> Option<Bytes> {
        self.progress.notify_one();
        let mut rest = self.rest();
        let rest = if rest.head.is_empty() {
            &mut rest.payload
        } else {
            &mut rest.head
        };
        let part = rest.split_to(rest.len().min(CHUNK_BYTES));
        // A copy: a stream of HTTP/2 that waits for its server keeps this part for as long as the
        // connection lives, and must not keep the whole payload with it.
        (!part.is_empty()).then(|| Bytes::copy_from_slice(&part))
    }

    fn handed_over(&self) -> usize {
        let rest = self.rest();
        self.length - rest.head.len() - rest.payload.len()
    }
}

/// The connection may hold the body for as long as it lives: it is left without bytes.
struct DiscardOnDrop<'a>(&'a Sending);

impl Drop for DiscardOnDrop<'_> {
    fn drop(&mut self) {
        *self.0.rest() = Upload {
            head: Bytes::new(),
            payload: Bytes::new(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_uplink_has_time_for_what_the_system_holds() {
        let limit = |handed_over| time_limit(Duration::from_secs(5), handed_over).as_secs();
        assert_eq!(limit(0), 5);
        assert_eq!(limit(64 << 10), 5 + 1);
        assert_eq!(limit(512 << 10), 5 + 8);
        assert_eq!(limit(64 << 20), 5 + 8);
        assert_eq!(time_limit(Duration::MAX, 64 << 20), Duration::MAX);
    }

    #[test]
    fn an_upload_is_sent_part_by_part_and_none_of_it_is_left_behind() {
        let upload = Upload {
            head: Bytes::from_static(b"head"),
            payload: Bytes::from(vec![7; CHUNK_BYTES + 1]),
        };
        let sending = Sending::new(&upload);
        assert_eq!(sending.next_part().unwrap(), "head");
        assert_eq!(sending.next_part().unwrap().len(), CHUNK_BYTES);
        assert_eq!(sending.handed_over(), 4 + CHUNK_BYTES);
        drop(DiscardOnDrop(&sending));
        assert_eq!(sending.next_part(), None);
        drop(upload.head);
        assert!(upload.payload.try_into_mut().is_ok(), "nobody shares it");
    }
}
