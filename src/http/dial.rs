//! Opens connections: names, proxies, TLS, and what is to be spoken on them.
//!
//! The HTTP client can do all of that, and would keep the connections and run the requests as well,
//! for more than the request itself costs, and without a word of how many there are. Here it only
//! opens them: a layer around its connector takes what was opened out of its hands, and the request
//! that it was opened for ends there.

use hyper::rt::{Read, Write};
use hyper_util::client::legacy::connect::Connection as Connected;
use reqwest::{Certificate, Client, ClientBuilder, Identity, Url, redirect};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tower_layer::Layer;
use tower_service::Service;

use crate::network::RequestError;
use crate::store::StoreErrorKind;

/// Who asks.
pub(super) const AGENT: &str = concat!("pipeline-cache/", env!("CARGO_PKG_VERSION"));

/// What a client is built from.
pub(super) struct ClientSettings {
    pub(super) is_plain_http: bool,
    pub(super) proxy_from_environment: bool,
    pub(super) http2_prior_knowledge: bool,
    pub(super) extra_roots: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
}

impl ClientSettings {
    /// Builds the client. It reads the platform's root certificates.
    ///
    /// A machine without any can still ask a plain HTTP server.
    pub(super) fn build(&self) -> Result<Client, reqwest::Error> {
        match self.prepare().build() {
            Err(_) if self.is_plain_http => self.prepare().tls_certs_only([]).build(),
            built => built,
        }
    }

    fn prepare(&self) -> ClientBuilder {
        let client = Client::builder()
            // Seen by proxies on the way to a server.
            .user_agent(AGENT)
            .redirect(redirect::Policy::none())
            .connector_layer(Taking)
            // Nothing comes back to it.
            .pool_max_idle_per_host(0)
            .tcp_nodelay(true)
            .tls_certs_merge(self.extra_roots.iter().cloned());
        let client = match &self.identity {
            Some(identity) => client.identity(identity.clone()),
            None => client,
        };
        let client = if self.http2_prior_knowledge {
            client.http2_prior_knowledge()
        } else {
            client
        };
        if self.proxy_from_environment {
            client
        } else {
            client.no_proxy()
        }
    }
}

/// Opens connections to whatever server.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) client: Client,
    pub(super) http2_prior_knowledge: bool,
    pub(super) connect_timeout: Duration,
}

/// An open connection on which nothing was said yet.
pub(super) struct Line {
    pub(super) stream: Box<dyn Stream>,
    pub(super) speaks_http2: bool,
    /// Whether it leads to a proxy that is told the whole URL.
    pub(super) is_proxied: bool,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("speaks_http2", &self.speaks_http2)
            .field("is_proxied", &self.is_proxied)
            .finish_non_exhaustive()
    }
}

pub(super) trait Stream: Read + Write + Send + Unpin {}

impl<S: Read + Write + Send + Unpin> Stream for S {}

impl Dialer {
    /// A connection to the server of a URL.
    pub(super) async fn dial(&self, url: &Url) -> Result<Line, RequestError> {
        let taken = Arc::new(Mutex::new(None));
        let request = self.client.get(url.clone()).send();
        let opening = TAKEN.scope(Arc::clone(&taken), request);
        let ended = timeout(self.connect_timeout, opening).await;
        let line = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut line) = line {
            line.speaks_http2 |= self.http2_prior_knowledge;
            return Ok(line);
        }
        Err(match ended {
            Ok(Err(error)) => error.into(),
            Ok(Ok(_)) => RequestError::new(StoreErrorKind::Other, "the connection went astray"),
            Err(_) => RequestError::timed_out("no connection was opened", self.connect_timeout),
        })
    }
}

tokio::task_local! {
    /// Where the connection goes that is opened in this task.
    static TAKEN: Arc<Mutex<Option<Line>>>;
}

/// The layer around a connector that takes what it opens.
#[derive(Clone)]
struct Taking;

impl<S> Layer<S> for Taking {
    type Service = Taker<S>;

    fn layer(&self, connector: S) -> Taker<S> {
        Taker(connector)
    }
}

#[derive(Clone)]
struct Taker<S>(S);

type BoxError = Box<dyn Error + Send + Sync>;

impl<S, R> Service<R> for Taker<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: Stream + Connected + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let opening = self.0.call(target);
        Box::pin(async move {
            let stream = opening.await?;
            let connected = stream.connected();
            let line = Line {
                speaks_http2: connected.is_negotiated_h2(),
                is_proxied: connected.is_proxied(),
                stream: Box::new(stream),
            };
            let taken = TAKEN.try_with(|taken| {
                *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
            });
            Err(match taken {
                Ok(()) => "the connection was taken".into(),
                Err(error) => error.into(),
            })
        })
    }
}
