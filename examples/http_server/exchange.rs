//! A request and its answer from the outside: what it came to, how much was sent and how long it
//! took. It is over when the last byte of the answer is, or its client left.

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::connection::{UnderWay, Watch};
use super::console::say;

/// What a server keeps of an exchange until it is over, and writes down then.
pub(crate) trait Record: Send + Unpin + 'static {
    fn over(&mut self, end: &End);
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// `None` if the client left before there was an answer.
    pub(crate) status: Option<StatusCode>,
    /// Whether the client left before it had all of the answer.
    pub(crate) left: bool,
    /// The bytes of the body that were sent.
    pub(crate) sent: u64,
    pub(crate) elapsed: Duration,
}

/// Ends with its drop.
#[derive(Debug)]
pub(crate) struct Exchange<R: Record> {
    pub(crate) record: R,
    method: Method,
    connection: UnderWay,
    status: Option<StatusCode>,
    began: Instant,
    sent: u64,
    whole: bool,
}

impl<R: Record> Exchange<R> {
    pub(crate) fn begin(method: Method, connection: UnderWay, record: R) -> Self {
        Self {
            record,
            method,
            connection,
            status: None,
            began: Instant::now(),
            sent: 0,
            whole: false,
        }
    }

    /// The answer, watched to its end.
    pub(crate) fn watch(mut self, answer: Response) -> Response {
        self.status = Some(answer.status());
        let length = announced(answer.headers());
        answer.map(|body| {
            // A body without bytes is never asked for any.
            self.whole = self.method == Method::HEAD || body.is_end_stream();
            let watch = (!self.whole).then(|| self.connection.watch());
            Body::new(Watched {
                body,
                length,
                watch,
                exchange: self,
            })
        })
    }
}

impl<R: Record> Drop for Exchange<R> {
    fn drop(&mut self) {
        let end = End {
            status: self.status,
            left: !self.whole || self.status.is_none(),
            sent: self.sent,
            elapsed: self.began.elapsed(),
        };
        self.record.over(&end);
    }
}

/// The length of a body, where it is announced.
pub(crate) fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

struct Watched<R: Record> {
    body: Body,
    /// Whoever is told the length stops asking once it is reached.
    length: Option<u64>,
    /// Ends the connection where the answer stands still.
    watch: Option<Watch>,
    exchange: Exchange<R>,
}

impl<R: Record> HttpBody for Watched<R> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(watch) = &self.watch {
            watch.moved();
        }
        match &frame {
            Some(Ok(frame)) => {
                self.exchange.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                let reached = self.length == Some(self.exchange.sent);
                self.exchange.whole = reached || self.body.is_end_stream();
            }
            Some(Err(error)) => say(format_args!("an answer broke off: {error}")),
            None => self.exchange.whole = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.whole
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
