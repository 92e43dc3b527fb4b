//! The `reqwest` clients of one tier, the time limits of one exchange, and its response.
//!
//! Redirects are followed by `entries` and not by the client, because credentials of every form,
//! not only the well-known headers, must stay with the origin that they were given for.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER,
};
use reqwest::{
    Body, Certificate, Client, ClientBuilder, Identity, Method, RequestBuilder, StatusCode, Url,
    redirect,
};
use std::collections::HashSet;
use std::convert::Infallible;
use std::iter;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::network::{HttpStatusError, RequestError, Upload, drain, read_capped};

const USER_AGENT: &str = concat!("pipeline-cache/", env!("CARGO_PKG_VERSION"));

/// Below the 60 to 75 seconds after which most servers close an idle connection, so that a request
/// rarely runs into a connection that is just closing.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// HTTP/2 connections are pinged, idle or not: nothing else tells a dead one from a quiet one.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// To how many origins other than the base's idle connections are kept.
const KEPT_ORIGINS: usize = 8;

/// The most bytes of an upload that are handed to the connection at a time: small enough that a
/// slow connection is told from a dead one.
const UPLOAD_CHUNK_BYTES: usize = 64 * 1024;

/// What the clients are built from.
pub(super) struct ClientSettings {
    pub(super) is_plain_http: bool,
    pub(super) proxy_from_environment: bool,
    pub(super) http2_prior_knowledge: bool,
    pub(super) extra_roots: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
    pub(super) connect_timeout: Duration,
    pub(super) inactivity_timeout: Duration,
    /// The most idle connections that are kept to one origin.
    pub(super) max_idle: usize,
}

impl ClientSettings {
    /// Builds the clients. Reads the platform's root certificates.
    pub(super) fn build(&self) -> Result<HttpClient, reqwest::Error> {
        Ok(HttpClient {
            pooled: self.client(self.max_idle)?,
            unpooled: self.client(0)?,
            kept_origins: Mutex::default(),
            inactivity_timeout: self.inactivity_timeout,
        })
    }

    /// A machine without root certificates can still ask a plain HTTP server.
    fn client(&self, max_idle: usize) -> Result<Client, reqwest::Error> {
        match self.prepare(max_idle).build() {
            Err(_) if self.is_plain_http => self.prepare(max_idle).tls_certs_only([]).build(),
            built => built,
        }
    }

    fn prepare(&self, max_idle: usize) -> ClientBuilder {
        // The frame is verified as stored, so it must not be transformed on the way, whatever
        // features of reqwest another crate switches on.
        let identity = HeaderValue::from_static("identity");
        let mut client = Client::builder()
            .user_agent(USER_AGENT)
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, identity)]))
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .redirect(redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(max_idle)
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .tls_certs_merge(self.extra_roots.iter().cloned());
        if let Some(identity) = &self.identity {
            client = client.identity(identity.clone());
        }
        if self.http2_prior_knowledge {
            client = client.http2_prior_knowledge();
        }
        if !self.proxy_from_environment {
            client = client.no_proxy();
        }
        client
    }
}

/// Sends single requests, each under the limit on inactivity.
#[derive(Debug)]
pub(super) struct HttpClient {
    pooled: Client,
    /// Closes each connection after its request. A server could redirect every lookup to another
    /// origin, and idle connections to all of them would use up the file descriptors of the
    /// process.
    unpooled: Client,
    kept_origins: Mutex<HashSet<String>>,
    inactivity_timeout: Duration,
}

/// One request as it goes out.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) upload: Option<&'a Upload>,
    /// Whether it is for the origin of the base URL, and not redirected by another.
    pub(super) is_base_origin: bool,
}

impl HttpClient {
    /// Encodes credentials, which it never sends.
    pub(super) const fn encoder(&self) -> &Client {
        &self.pooled
    }

    /// The response, whose body is still to be read. Fails once nothing was sent or received for
    /// the inactivity timeout.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Response, RequestError> {
        let client = match request.is_base_origin || self.keeps_connections_to(request.url) {
            true => &self.pooled,
            false => &self.unpooled,
        };
        let builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers);
        let limit = self.inactivity_timeout;
        let sent = match request.upload {
            Some(upload) => send_upload(builder, upload, limit).await,
            None => timeout(limit, builder.send()).await,
        };
        let response = sent.map_err(|_| RequestError::timed_out("no response", limit))??;
        Ok(Response {
            response,
            inactivity_timeout: limit,
            is_base_origin: request.is_base_origin,
        })
    }

    fn keeps_connections_to(&self, url: &Url) -> bool {
        let origin = url.origin().ascii_serialization();
        let mut kept = self
            .kept_origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.contains(&origin) || kept.len() < KEPT_ORIGINS && kept.insert(origin)
    }
}

/// Sends a request with a body. Each part that the connection takes starts `limit` anew.
///
/// Once the response has come, no more of the body is sent: a server that answers early and reads
/// slowly must not hold the payload in memory for ever.
async fn send_upload(
    builder: RequestBuilder,
    upload: &Upload,
    limit: Duration,
) -> Result<reqwest::Result<reqwest::Response>, Elapsed> {
    let progress = Arc::new(Notify::new());
    let answered = CancellationToken::new();
    let _answered = answered.clone().drop_guard();
    let body = upload_body(upload, Arc::clone(&progress)).take_until(answered.cancelled_owned());
    let mut sending = pin!(
        builder
            .header(CONTENT_TYPE, "application/octet-stream")
            // Many servers take no chunked upload.
            .header(CONTENT_LENGTH, upload.head.len() + upload.payload.len())
            .body(Body::wrap_stream(body))
            .send()
    );
    loop {
        let step = async {
            tokio::select! {
                biased;
                response = &mut sending => Some(response),
                () = progress.notified() => None,
            }
        };
        if let Some(response) = timeout(limit, step).await? {
            return Ok(response);
        }
    }
}

/// The head and the payload of a frame, neither of them copied. `progress` is notified whenever the
/// connection takes a part.
fn upload_body(
    upload: &Upload,
    progress: Arc<Notify>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    let (mut head, mut payload) = (upload.head.clone(), upload.payload.clone());
    let chunks = iter::from_fn(move || {
        progress.notify_one();
        let rest = if head.is_empty() {
            &mut payload
        } else {
            &mut head
        };
        let chunk: Bytes = rest.split_to(rest.len().min(UPLOAD_CHUNK_BYTES));
        (!chunk.is_empty()).then_some(Ok::<_, Infallible>(chunk))
    });
    stream::iter(chunks)
}

/// The head of a response. Its body, read to its end, leaves the connection to the next request;
/// dropped before that, it closes an HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Response {
    response: reqwest::Response,
    inactivity_timeout: Duration,
    is_base_origin: bool,
}

impl Response {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// What its status says, where that does not answer the request.
    pub(super) fn status_error(&self) -> HttpStatusError {
        let retry_after = self.headers().get(RETRY_AFTER);
        let retry_after = retry_after.and_then(|value| value.to_str().ok());
        HttpStatusError::new(self.status().as_u16(), retry_after)
            .with_base_origin(self.is_base_origin)
    }

    /// The whole body, or `None` as soon as it is known to be larger than `limit`.
    pub(super) async fn read(self, limit: u64) -> Result<Option<Bytes>, RequestError> {
        let announced = self.response.content_length();
        let parts = self.response.bytes_stream();
        read_capped(parts, announced, limit, self.inactivity_timeout).await
    }

    /// Reads a short unwanted body, so that the connection can be used again.
    pub(super) async fn drain(self) {
        let announced = self.response.content_length();
        drain(self.response.bytes_stream(), announced).await;
    }
}
