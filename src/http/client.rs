//! Single requests through the `reqwest` clients of one tier, and the responses to them.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use reqwest::header::{CONTENT_ENCODING, HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, StatusCode, Url};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

use super::client_settings::ClientSettings;
use super::connections::Connections;
use super::request_error::{is_lost_connection, is_unsaid};
use super::upload;
use crate::http_client::POOL_IDLE_TIMEOUT;
use crate::network::{
    AnswerProgress, HttpStatusError, Pieces, RequestError, Upload, content_encoding, drain,
    read_capped, read_start,
};

/// To how many origins other than the base's idle connections are kept.
const KEPT_ORIGINS: usize = 8;

/// How often a request is made again because its new connection was closed before it went out. The
/// task that drives the connection knows the reason, and tells it only to a request that it has
/// taken up by then.
const MAX_UNSAID: usize = 3;

/// The other origins to which idle connections are kept.
#[derive(Default)]
struct KeptOrigins {
    origins: HashSet<String>,
    /// When the first of them was added.
    since: Option<Instant>,
}

impl KeptOrigins {
    /// Whether connections to an origin are kept. Others get their turn once those to the ones of
    /// before may be closed: a server may redirect to other hosts every day.
    fn keeps(&mut self, origin: String) -> bool {
        if self.origins.contains(&origin) {
            return true;
        }
        let is_old = self
            .since
            .is_none_or(|at| at.elapsed() >= POOL_IDLE_TIMEOUT);
        if self.origins.len() >= KEPT_ORIGINS {
            if !is_old {
                return false;
            }
            self.origins.clear();
        }
        if self.origins.is_empty() {
            self.since = Some(Instant::now());
        }
        self.origins.insert(origin)
    }
}

/// Sends single requests, each under the limit on inactivity.
pub(super) struct HttpClient {
    pub(super) connections: Arc<Connections>,
    kept_origins: Mutex<KeptOrigins>,
    inactivity_timeout: Duration,
}

/// One request as it goes out. Each may be made twice: what it does, it does once.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    pub(super) upload: Option<&'a Upload>,
    /// Whether it is for the origin of the base URL, and not redirected by another.
    pub(super) is_base_origin: bool,
    pub(super) connection: Connection,
}

/// Over which connection a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// Over a kept one, if there is one.
    Kept,
    New,
}

/// Why there is no response.
struct NoResponse {
    error: RequestError,
    connection: Lost,
}

/// Which connection was closed, or failed, before the response began.
enum Lost {
    None,
    /// One that had served other requests.
    Kept,
    /// A new one with TLS, before the request went out, and nobody said why. With TLS 1.3 a server
    /// that wants a client certificate closes it so.
    Unsaid,
}

impl HttpClient {
    pub(super) fn new(settings: ClientSettings) -> Result<Self, reqwest::Error> {
        Ok(Self {
            inactivity_timeout: settings.inactivity_timeout,
            connections: Connections::new(settings)?,
            kept_origins: Mutex::default(),
        })
    }

    /// Encodes credentials, which it never sends.
    pub(super) fn encoder(&self) -> &Client {
        &self.connections.unpooled
    }

    /// The response, whose body is still to be read. Fails once nothing was sent or received for
    /// the inactivity timeout.
    ///
    /// Where a kept connection is lost before the response begins, or a new one before the request
    /// goes out, the request is made again at once, over a new connection.
    pub(super) async fn send(&self, request: Request<'_>) -> Result<Response, RequestError> {
        let unpooled = &self.connections.unpooled;
        // A server could redirect every lookup to another origin, and idle connections to all of
        // them would use up the file descriptors of the process.
        let keeps = request.connection == Connection::Kept
            && (request.is_base_origin || self.keeps_connections_to(request.url));
        let (client, is_kept) = match keeps {
            true => self.connections.pooled(),
            false => (unpooled.clone(), false),
        };
        let mut sent = self.send_with(&client, &request, is_kept).await;
        let mut unsaid = 0;
        while let Err(failure) = &sent {
            let again = match failure.connection {
                Lost::None => false,
                Lost::Kept => self.connections.may_repeat(),
                Lost::Unsaid => {
                    unsaid += 1;
                    unsaid <= MAX_UNSAID
                }
            };
            if !again {
                break;
            }
            let reason = &failure.error;
            tracing::debug!(%reason, "connection lost; request made again over a new one");
            sent = self.send_with(unpooled, &request, false).await;
        }
        if sent.is_ok() {
            self.connections.answered();
        }
        sent.map_err(|failure| failure.error)
    }

    async fn send_with(
        &self,
        client: &Client,
        request: &Request<'_>,
        is_kept: bool,
    ) -> Result<Response, NoResponse> {
        let builder = client
            .request(request.method.clone(), request.url.clone())
            .headers(request.headers.clone());
        let limit = self.inactivity_timeout;
        let sent = match request.upload {
            Some(upload) => upload::send(builder, upload, limit).await,
            None => timeout(limit, builder.send()).await,
        };
        match sent {
            Ok(Ok(response)) => Ok(Response {
                response,
                inactivity_timeout: limit,
                is_base_origin: request.is_base_origin,
                is_kept,
            }),
            Ok(Err(error)) => Err(NoResponse {
                connection: if is_kept && is_lost_connection(&error) {
                    Lost::Kept
                } else if request.url.scheme() == "https" && is_unsaid(&error) {
                    Lost::Unsaid
                } else {
                    Lost::None
                },
                error: error.into(),
            }),
            Err(_) => Err(NoResponse {
                error: RequestError::timed_out("no response", limit),
                connection: Lost::None,
            }),
        }
    }

    fn keeps_connections_to(&self, url: &Url) -> bool {
        let origin = url.origin().ascii_serialization();
        let mut kept = self
            .kept_origins
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.keeps(origin)
    }
}

/// The head of a response. Its body, read to its end, leaves the connection to the next request;
/// dropped before that, it closes an HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Response {
    response: reqwest::Response,
    inactivity_timeout: Duration,
    is_base_origin: bool,
    is_kept: bool,
}

impl Response {
    /// Whether it came over a connection that may have served other requests.
    pub(super) fn is_over_kept_connection(&self) -> bool {
        self.is_kept
    }

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
            .with_base_url_hint()
    }

    /// The whole body, or `None` as soon as it is known to be larger than `limit`.
    pub(super) async fn read(
        self,
        limit: u64,
        answer: &AnswerProgress,
    ) -> Result<Option<Bytes>, RequestError> {
        let announced = self.response.content_length();
        let parts = self.response.bytes_stream();
        let parts = parts.inspect(|_| answer.signal());
        read_capped(parts, announced, limit, self.inactivity_timeout).await
    }

    /// The body, to be read piece by piece.
    pub(super) fn pieces(self, answer: &AnswerProgress) -> Pieces {
        let (limit, answer) = (self.inactivity_timeout, answer.clone());
        let parts = self.response.bytes_stream().map_err(RequestError::from);
        Pieces::new(parts.inspect(move |_| answer.signal()).boxed(), limit)
    }

    /// The whole body, or `None` where it is longer. It is no answer that a caller waits for.
    pub(super) async fn read_short(self, limit: u64) -> Result<Option<Bytes>, RequestError> {
        let announced = self.response.content_length();
        let parts = self.response.bytes_stream();
        read_capped(parts, announced, limit, self.inactivity_timeout).await
    }

    /// Reads at least so many bytes of the body, or all of it, and leaves the rest.
    pub(super) async fn read_start(self, wanted: usize) -> Result<(), RequestError> {
        read_start(
            self.response.bytes_stream(),
            wanted,
            self.inactivity_timeout,
        )
        .await
    }

    /// The transformation of the body that nobody asked for, if there is one.
    pub(super) fn encoding(&self) -> Option<&'static str> {
        let encodings = self.headers().get_all(CONTENT_ENCODING).into_iter();
        let mut encodings = encodings.map(|value| value.to_str().unwrap_or("unknown"));
        encodings.find_map(content_encoding)
    }

    /// Reads a short unwanted body, so that the connection can be used again.
    pub(super) async fn drain(self) {
        let announced = self.response.content_length();
        drain(self.response.bytes_stream(), announced).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn connections_to_few_origins_are_kept_and_not_to_the_same_for_ever() {
        let mut kept = KeptOrigins::default();
        let origin = |number: usize| format!("https://h{number}");
        for number in 0..100 {
            assert_eq!(kept.keeps(origin(number)), number < KEPT_ORIGINS);
            advance(POOL_IDLE_TIMEOUT / 200).await;
        }
        assert!(kept.keeps(origin(0)));
        advance(POOL_IDLE_TIMEOUT).await;
        assert!(kept.keeps(origin(100)));
        assert!(kept.keeps(origin(1)), "there is room");
        assert_eq!(kept.origins.len(), 2);
    }
}
