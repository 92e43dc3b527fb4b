//! An HTTP client for stores that keeps the status and the `Retry-After` of an error response.
//!
//! The `object_store` crate drops most of that.

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use std::time::Duration;
use tokio::time::timeout;

use super::client;
use crate::network::{HttpStatusError, drain};

#[derive(Debug)]
pub(super) struct Connector {
    inactivity: Duration,
}

impl Connector {
    /// A response to a request without a body must begin within this time.
    pub(super) const fn new(inactivity: Duration) -> Self {
        Self { inactivity }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = HttpClient::new(client::client(options)?);
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
    /// The head of the response.
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let has_body = !request.body().is_empty();
        let response = self.client.execute(request);
        if has_body {
            // How much of the body was sent cannot be seen here.
            return response.await;
        }
        let late = |late| HttpError::new(HttpErrorKind::Timeout, late);
        timeout(self.inactivity, response).await.map_err(late)?
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.execute(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        let start = drain(body.bytes_stream(), None).await;
        let status = match status.as_u16() {
            400 if is_request_timeout(&start) => 408,
            status => status,
        };
        match status {
            // The crate handles these itself.
            401 | 403 | 404 | 409 | 412 => Ok(HttpResponse::from_parts(head, Bytes::new().into())),
            _ => {
                let retry_after = head.headers.get("retry-after");
                let retry_after = retry_after.and_then(|value| value.to_str().ok());
                let status = HttpStatusError::new(status, retry_after);
                Err(HttpError::new(HttpErrorKind::Unknown, status))
            }
        }
    }
}

/// Whether S3 says in its own way that the request came too slowly, which passes.
fn is_request_timeout(body: &[u8]) -> bool {
    const CODE: &[u8] = b"<Code>RequestTimeout</Code>";
    body.windows(CODE.len()).any(|part| part == CODE)
}
