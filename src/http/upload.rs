//! Bodies on their way out: a frame's head and its payload, neither of them copied.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::Notify;

use crate::network::Upload;

/// The most bytes handed to the connection at a time: small enough that a slow line is told from
/// a dead one.
const PART_BYTES: usize = 64 * 1024;

/// The body of one request: of an upload, or none.
#[derive(Debug, Default)]
pub(super) struct RequestBody {
    head: Bytes,
    payload: Bytes,
    /// Told whenever a part of it is taken.
    progress: Option<Arc<Notify>>,
}

impl RequestBody {
    pub(super) fn of((upload, progress): &(&Upload, Arc<Notify>)) -> Self {
        Self {
            head: upload.head.clone(),
            payload: upload.payload.clone(),
            progress: Some(Arc::clone(progress)),
        }
    }

    fn remaining(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(progress) = &this.progress {
            progress.notify_one();
        }
        let source = if this.head.is_empty() {
            &mut this.payload
        } else {
            &mut this.head
        };
        let part = source.split_to(source.len().min(PART_BYTES));
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining() == 0
    }

    /// Exact, so that the request carries a `Content-Length`: many servers take no other.
    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining() as u64)
    }
}
