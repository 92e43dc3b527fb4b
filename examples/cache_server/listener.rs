//! Connections: taken within a bound, served as HTTP/1.1 or HTTP/2, and drained at the end.

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;

use crate::console::say;
use crate::metrics::Metrics;

/// How long a connection may take to say what it wants, or say nothing at all. Longer than clients
/// keep one open to use it again: the side that closes first should be theirs.
const QUIET: Duration = Duration::from_secs(90);

const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const STREAMS_PER_CONNECTION: u32 = 128;

pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) max_connections: usize,
    pub(crate) drain: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

impl Listener {
    /// Serves until told to stop, and then for as long as requests are under way, within the
    /// limit. Whether all of them ended.
    pub(crate) async fn serve(self, site: Router, stop: impl Future<Output = ()>) -> bool {
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(self.max_connections.max(1)));
        let server = server();
        tokio::pin!(stop);
        loop {
            let next = async {
                // Nobody closes the semaphore. Who finds no room waits in the system's queue.
                let room = Arc::clone(&room).acquire_owned().await;
                (room, self.socket.accept().await)
            };
            let (room, accepted) = tokio::select! {
                next = next => next,
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
            // The head and the body of an answer leave in two writes: the second is not to wait
            // until the first is acknowledged.
            let _ = stream.set_nodelay(true);
            let site = site.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(ConnectInfo(peer));
                site.clone().call(request)
            });
            let connection = server.serve_connection(TokioIo::new(stream), service);
            let connection = graceful.watch(connection.into_owned());
            let metrics = Arc::clone(&self.metrics);
            tokio::spawn(async move {
                metrics.connections.enter();
                // A connection that ends badly is its client's affair.
                let _ = connection.await;
                metrics.connections.leave();
                drop(room);
            });
        }
        drop(self.socket);
        timeout(self.drain, graceful.shutdown()).await.is_ok()
    }
}

type Server = auto::Builder<TokioExecutor>;

fn server() -> Server {
    let mut server = Server::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(QUIET);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    server
}
