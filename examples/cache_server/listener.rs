//! Connections: taken within a bound, served as HTTP/1.1 or HTTP/2 for as long as something is asked
//! on them, and drained at the end.

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::connection::Connection;
use crate::console::say;
use crate::metrics::Metrics;

/// How long a connection that is being closed may take for its last response.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const STREAMS_PER_CONNECTION: u32 = 128;

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) max_connections: usize,
    pub(crate) timeouts: Timeouts,
    pub(crate) drain: Duration,
    /// What requests have begun, which goes on where their clients have left.
    pub(crate) work: TaskTracker,
    pub(crate) metrics: Arc<Metrics>,
}

/// How long a connection stays open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Without a request: from its first byte on, and between two of them.
    pub(crate) idle: Duration,
    /// While an answer stands still.
    pub(crate) inactivity: Duration,
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
        let room = Arc::new(Semaphore::new(self.max_connections));
        let mut stop = pin!(stop);
        loop {
            let next = async {
                // Nobody closes the semaphore. Who finds no room waits in the system's queue.
                let room = Arc::clone(&room).acquire_owned().await;
                (room, self.socket.accept().await)
            };
            let (room, accepted) = tokio::select! {
                next = next => next,
                Some(_) = connections.join_next() => continue,
                () = &mut stop => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // As when there are no file descriptors left: it may pass.
                    say(format_args!("cannot accept a connection: {error}"));
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let serving = serve(stream, peer, site.clone(), self.timeouts, stopping.clone());
            let open = self.metrics.connections.enter();
            connections.spawn(async move {
                serving.await;
                drop((open, room));
            });
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
    peer: SocketAddr,
    site: Router,
    timeouts: Timeouts,
    stopping: CancellationToken,
) {
    // The head and the body of an answer leave in two writes: the second is not to wait until the
    // first is acknowledged.
    let _ = stream.set_nodelay(true);
    let state = Arc::new(Connection::new(timeouts.inactivity));
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
        () = state.is_stuck() => return,
        () = state.is_over() => {}
        () = state.is_idle(timeouts.idle) => {}
        () = stopping.cancelled() => {}
    }
    // It takes no more requests. Those that came before the client knows are still served.
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        _ = connection => {}
        () = state.is_stuck() => {}
        () = state.is_idle(CLOSE_GRACE.min(timeouts.idle)) => {}
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    server
}
