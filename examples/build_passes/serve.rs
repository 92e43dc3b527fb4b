//! A folder behind a static web server: all that a remote tier needs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower_http::services::ServeDir;

/// How long requests under way may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server of the files in one folder, for this machine only, on a port that was free.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("cannot open a port on 127.0.0.1")?;
        let address = listener.local_addr()?;
        // Head and body of an answer leave in two writes. Without this the second waits for the
        // client to acknowledge the first, which takes it 40 ms.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let app = Router::new().fallback_service(ServeDir::new(folder));
        let (stop, stopped) = oneshot::channel::<()>();
        let server = axum::serve(listener, app).with_graceful_shutdown(async {
            // A sender that was dropped means the same: nobody needs the server any more.
            let _ = stopped.await;
        });
        Ok(Self {
            address,
            stop,
            task: tokio::spawn(server.into_future()),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no more connections, and waits for the requests under way.
    pub(crate) async fn shut_down(self) -> Result<()> {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .context("the server did not stop in time")???;
        Ok(())
    }
}
