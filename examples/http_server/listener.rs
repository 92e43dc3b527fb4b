//! Accepts connections within a bound, with TLS if there is a certificate, serves them as HTTP/1.1 or HTTP/2 for as long as requests
//! come, and drains them at the end.

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConnection;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use super::connections::{Connections, OpenConnection};
use super::console::say;

/// How long a connection that is being closed may take for its last response.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const STREAMS_PER_CONNECTION: u32 = 128;

/// The most that is read ahead or waits to be sent, for each connection and for each stream of
/// HTTP/2. The defaults of hyper come to megabytes.
const BUFFER_BYTES: usize = 32 * 1024;

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// What new connections are encrypted with; none for plain HTTP.
    pub(crate) tls: Option<watch::Receiver<TlsAcceptor>>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) drain: Duration,
    /// What requests have begun, which goes on where their clients have left.
    pub(crate) work: TaskTracker,
}

impl Listener {
    /// Serves until told to stop, and then for as long as requests are under way, within the
    /// limit. How much of it is left if all of them ended.
    pub(crate) async fn serve(
        self,
        site: Router,
        stop: impl Future<Output = ()>,
    ) -> Option<Duration> {
        let stopping = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            // Those that have ended.
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // As when there are no file descriptors left: an idle connection has one.
                    say(format_args!("cannot accept a connection: {error}"));
                    self.connections.close_longest_idle();
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Where all connections are busy, the next ones wait in the queue of the system.
            let open = tokio::select! {
                open = self.connections.open() => open,
                () = &mut stop => break,
            };
            let tls = self.tls.as_ref().map(|tls| tls.borrow().clone());
            connections.spawn(serve(
                stream,
                tls,
                peer,
                site.clone(),
                open,
                stopping.clone(),
            ));
        }
        drop(self.socket);
        stopping.cancel();
        let began = Instant::now();
        let drained = timeout(self.drain, async {
            while connections.join_next().await.is_some() {}
            self.work.close();
            self.work.wait().await;
        });
        let drained = drained.await.is_ok();
        connections.shutdown().await;
        drained.then(|| self.drain.saturating_sub(began.elapsed()))
    }
}

/// Serves one connection to its end.
async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    peer: SocketAddr,
    site: Router,
    open: OpenConnection,
    stopping: CancellationToken,
) {
    // The head and the body of an answer leave in two writes: the second is not to wait until the
    // first is acknowledged.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return serve_http(stream, peer, site, open, stopping).await;
    };
    match secure(stream, tls, &open, &stopping).await {
        Some(stream) => serve_http(stream, peer, site, open, stopping).await,
        None => open.handshake_failed(),
    }
}

/// The handshake of TLS. None if it fails, takes longer than the head of a request may, or the
/// connection has to go before it is over.
async fn secure(
    stream: TcpStream,
    tls: TlsAcceptor,
    open: &OpenConnection,
    stopping: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    let limit = |connection: &mut ServerConnection| {
        connection.set_buffer_limit(Some(BUFFER_BYTES));
    };
    let stream = tokio::select! {
        stream = tls.accept_with(stream, limit) => stream.ok()?,
        () = open.state.is_aborted() => return None,
        () = open.state.is_idle() => return None,
        () = stopping.cancelled() => return None,
    };
    open.state.is_secured();
    Some(stream)
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    site: Router,
    open: OpenConnection,
    stopping: CancellationToken,
) {
    let state = Arc::clone(&open.state);
    let known = Arc::clone(&state);
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(peer));
        extensions.insert(Arc::clone(&known));
        site.clone().call(request)
    });
    let server = server();
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // A connection that ends badly is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = state.is_aborted() => return,
        () = state.is_ended() => {}
        () = state.is_idle() => {}
        () = stopping.cancelled() => {}
    }
    // It takes no more requests. Those that came before the client knows are still served.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = state.is_aborted() => {}
        () = state.is_idle_for(|_| CLOSE_GRACE) => {}
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().max_buf_size(BUFFER_BYTES);
    let window = 2 * BUFFER_BYTES as u32;
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(window)
        .initial_connection_window_size(2 * window)
        .max_send_buf_size(BUFFER_BYTES);
    server
}
