//! How the clients of stores are connected: an answer that is none to the lookup is an error that
//! keeps what the server said, its status and when to come back. Most of that is lost else.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};
use std::time::Duration;
use tokio::time::timeout;

use crate::network::HttpStatusError;

/// The most that is read of what a server says besides, and for how long, to keep its connection.
const DRAINED_BYTES: usize = 64 * 1024;
const DRAINING: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Connector {
    inactivity: Duration,
}

impl Connector {
    /// An answer may take so long to begin.
    pub(super) const fn new(inactivity: Duration) -> Self {
        Self { inactivity }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        let inactivity = self.inactivity;
        Ok(HttpClient::new(Client { client, inactivity }))
    }
}

#[derive(Debug)]
struct Client {
    client: HttpClient,
    inactivity: Duration,
}

impl Client {
    /// The head of the answer.
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let has_body = !request.body().is_empty();
        let answer = self.client.execute(request);
        if has_body {
            // It may well move.
            return answer.await;
        }
        let late = |late| HttpError::new(HttpErrorKind::Timeout, late);
        timeout(self.inactivity, answer).await.map_err(late)?
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.execute(request).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        drain(body).await;
        match status.as_u16() {
            // These the crate knows, and asks on after some of them.
            401 | 403 | 404 | 409 | 412 => Ok(HttpResponse::from_parts(head, Bytes::new().into())),
            _ => {
                let retry_after = head.headers.get("retry-after");
                let retry_after = retry_after.and_then(|value| value.to_str().ok());
                let refusal = HttpStatusError::new(status.as_u16(), retry_after);
                Err(HttpError::new(HttpErrorKind::Unknown, refusal))
            }
        }
    }
}

async fn drain(body: HttpResponseBody) {
    let mut left = DRAINED_BYTES;
    let mut parts = body.bytes_stream();
    let reading = async {
        while let Some(Ok(part)) = parts.next().await {
            match left.checked_sub(part.len()) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    // Too slow or too long costs the connection and nothing else.
    let _ = timeout(DRAINING, reading).await;
}
