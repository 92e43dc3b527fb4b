//! A request and its answer from the outside: who asked for what, what it came to, how much was
//! sent and how long it took. It is over when the last byte of the answer is, or its client left.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::OwnedSemaphorePermit;

use crate::access_log::AccessLog;
use crate::connection::{UnderWay, Watch};
use crate::console::say;
use crate::metrics::{Area, Counted, Metrics};
use crate::uploads::announced;

/// Ends with its drop, which counts it and writes its line.
pub(crate) struct Exchange {
    pub(crate) area: Area,
    pub(crate) method: Method,
    /// Without its query, which may hold what belongs in no log.
    pub(crate) path: String,
    pub(crate) peer: SocketAddr,
    pub(crate) client: String,
    pub(crate) status: Option<StatusCode>,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connection: UnderWay,
    pub(crate) began: Instant,
    pub(crate) sent: u64,
    pub(crate) whole: bool,
    pub(crate) _under_way: Counted,
    /// Counts it among the requests that are served at once.
    pub(crate) _permit: Option<OwnedSemaphorePermit>,
}

impl Exchange {
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

impl Drop for Exchange {
    fn drop(&mut self) {
        self.metrics.bytes_sent.add(self.sent);
        let status = self.status;
        if let Some(status) = status {
            self.metrics.count(self.area, self.method.as_str(), status);
        }
        let left = !self.whole || status.is_none();
        if left {
            self.metrics.broken_off.increment();
        }
        self.log.line(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            format!(
                "{:.3} {} {} {} {} {}{} {} {:.1}ms",
                now.unwrap_or_default().as_secs_f64(),
                self.peer,
                self.client,
                self.method,
                self.path.escape_default(),
                status.map_or(0, |status| status.as_u16()),
                if left { "-left" } else { "" },
                self.sent,
                self.began.elapsed().as_secs_f64() * 1e3,
            )
        });
    }
}

struct Watched {
    body: Body,
    /// Whoever is told the length stops asking once it is reached.
    length: Option<u64>,
    /// Ends the connection where the answer stands still.
    watch: Option<Watch>,
    exchange: Exchange,
}

impl HttpBody for Watched {
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
