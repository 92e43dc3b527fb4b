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

/// The body of one request, which reports to `progress` whenever a part of it is taken.
pub(super) fn body(upload: &Upload, progress: &Arc<Notify>) -> reqwest::Body {
    reqwest::Body::wrap(UploadBody {
        head: upload.head.clone(),
        payload: upload.payload.clone(),
        progress: Arc::clone(progress),
    })
}

struct UploadBody {
    head: Bytes,
    payload: Bytes,
    progress: Arc<Notify>,
}

impl UploadBody {
    fn remaining(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

impl Body for UploadBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        this.progress.notify_one();
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
