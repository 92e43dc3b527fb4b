//! One connection to a server, and the requests on it.

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::dial::{Line, Stream};
use super::failure::is_unprocessed;
use super::upload::RequestBody;
use crate::network::RequestError;

/// HTTP/2 connections are probed, idle or not: nothing else tells a dead one from a quiet one.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Closed when it is dropped, unless others share it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    pub(super) is_proxied: bool,
    /// Whether it was open before its request came: the server may have closed it since.
    pub(super) is_used: bool,
}

enum Sender {
    /// For one request at a time. What drives it ends with it, and takes the connection along.
    Http1 {
        sender: http1::SendRequest<RequestBody>,
        driver: AbortOnDropHandle<hyper::Result<()>>,
    },
    /// For many at once, from any clone; open as long as there is one, or an answer under way.
    Http2 {
        sender: http2::SendRequest<RequestBody>,
        driver: Shared<BoxFuture<'static, Option<RequestError>>>,
    },
}

/// Why there is no answer to a request.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) failure: RequestError,
    /// Whether nothing of it was sent: the connection had been closed.
    pub(super) is_unsent: bool,
    /// Whether the server did nothing with it though it took others on the same connection.
    pub(super) is_unprocessed: bool,
}

/// How long to wait for the word of what drove a connection that was closed. It has ended, or is
/// about to.
const LAST_WORD: Duration = Duration::from_millis(250);

impl Connection {
    /// Starts to speak on an open connection. `place` is dropped when that is closed.
    pub(super) async fn start(
        line: Line,
        place: impl Send + Unpin + 'static,
    ) -> Result<Self, RequestError> {
        let stream = Placed {
            stream: line.stream,
            _place: place,
        };
        let sender = if line.speaks_http2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(stream)
                .await?;
            let driver = tokio::spawn(driver);
            let driver = async move { driver.await.ok()?.err().map(RequestError::from) };
            let driver = driver.boxed().shared();
            Sender::Http2 { sender, driver }
        } else {
            let (sender, driver) = http1::handshake(stream).await?;
            let driver = AbortOnDropHandle::new(tokio::spawn(driver));
            Sender::Http1 { sender, driver }
        };
        let mut connection = Self {
            sender,
            is_proxied: line.is_proxied,
            is_used: false,
        };
        match connection.until_ready().await {
            Ok(()) => Ok(connection),
            Err(error) => Err(connection.why_closed(error).await),
        }
    }

    /// The same connection for one more request, where it takes several at once.
    pub(super) fn share(&self) -> Option<Self> {
        match &self.sender {
            Sender::Http1 { .. } => None,
            Sender::Http2 { sender, driver } => Some(Self {
                sender: Sender::Http2 {
                    sender: sender.clone(),
                    driver: driver.clone(),
                },
                ..*self
            }),
        }
    }

    pub(super) const fn is_shared(&self) -> bool {
        matches!(self.sender, Sender::Http2 { .. })
    }

    /// Whether it takes a request now.
    pub(super) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1 { sender, .. } => sender.is_ready(),
            Sender::Http2 { sender, .. } => sender.is_ready(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1 { sender, .. } => sender.is_closed(),
            Sender::Http2 { sender, .. } => sender.is_closed(),
        }
    }

    /// Waits until it takes the next request. Whether it will.
    pub(super) async fn ready(&mut self) -> bool {
        self.until_ready().await.is_ok()
    }

    async fn until_ready(&mut self) -> hyper::Result<()> {
        match &mut self.sender {
            Sender::Http1 { sender, .. } => sender.ready().await,
            Sender::Http2 { sender, .. } => sender.ready().await,
        }
    }

    /// The answer to a request, up to its head.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let answer = match &mut self.sender {
            Sender::Http1 { sender, .. } => sender.try_send_request(request).await,
            Sender::Http2 { sender, .. } => sender.try_send_request(request).await,
        };
        let mut error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let is_unsent = error.take_message().is_some();
        let error = error.into_error();
        Err(Unanswered {
            is_unsent,
            is_unprocessed: is_unprocessed(&error) || is_unsent && self.is_shared(),
            failure: match is_unsent {
                true => self.why_closed(error).await,
                false => error.into(),
            },
        })
    }

    /// Why it was closed before the server was asked anything: what drove it knows, and whoever
    /// asks is told no more than that it is closed.
    async fn why_closed(&mut self, told: hyper::Error) -> RequestError {
        let last_word = async {
            match &mut self.sender {
                Sender::Http1 { driver, .. } => driver.await.ok()?.err().map(RequestError::from),
                Sender::Http2 { driver, .. } => driver.clone().await,
            }
        };
        let last_word = timeout(LAST_WORD, last_word).await;
        last_word.ok().flatten().unwrap_or_else(|| told.into())
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 { .. } => "Http1",
            Self::Http2 { .. } => "Http2",
        })
    }
}

/// A stream that holds a place as long as it is open.
struct Placed<P> {
    stream: Box<dyn Stream>,
    _place: P,
}

impl<P: Unpin> Read for Placed<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<P: Unpin> Write for Placed<P> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
}
