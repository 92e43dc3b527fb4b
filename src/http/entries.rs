//! The requests about one entry on the server, and what each response means.

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode};

use super::response::Response;
use super::transport::Transport;
use crate::artifact::FrameError;
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::key::PipelineFingerprint;
use crate::network::{Backend, HttpStatusError, RequestError, Upload};
use crate::store::Fetched;

pub(super) struct Entries {
    pub(super) transport: Transport,
    pub(super) format: FrameFormat,
}

impl Backend for Entries {
    async fn download(&self, key: &PipelineFingerprint) -> Result<Fetched, RequestError> {
        let response = self.transport.request(Method::GET, key, None).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let error = response.status_error();
            response.drain().await;
            return if is_absent(status) {
                Ok(Fetched::Miss)
            } else {
                Err(error.of_a_read())
            };
        }
        let limit = self.format.max_frame();
        let Some(frame) = response.read(limit).await? else {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        };
        Ok(match self.format.decode_blocking(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    async fn upload(&self, key: &PipelineFingerprint, upload: &Upload) -> Result<(), RequestError> {
        let (status, error) = self.change(Method::PUT, key, Some(upload)).await?;
        if status.is_success() {
            return Ok(());
        }
        self.rejected_upload(key, error).await
    }

    async fn delete(&self, key: &PipelineFingerprint) -> Result<bool, RequestError> {
        match self.change(Method::DELETE, key, None).await? {
            (status, _) if status.is_success() => Ok(true),
            (status, _) if is_absent(status) => Ok(false),
            (_, error) => Err(error.of_a_write()),
        }
    }

    async fn probe(&self, key: &PipelineFingerprint) -> Result<bool, RequestError> {
        let mut response = self.transport.request(Method::HEAD, key, None).await?;
        if matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            response.drain().await;
            // The head of the full response says the same. Of its body no more is read than keeps
            // the connection.
            response = self.transport.request(Method::GET, key, None).await?;
        }
        let found = match response.status() {
            StatusCode::OK => Ok(self.may_be_frame(&response)),
            status if is_absent(status) => Ok(false),
            _ => Err(response.status_error().of_a_read()),
        };
        response.drain().await;
        found
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }

    fn credentials_version(&self) -> Result<Option<u64>, RequestError> {
        self.transport.credentials.version().map(Some)
    }
}

impl Entries {
    /// The status of the response to a request that changes the entry, and the error where that is
    /// not a success. The body is of no use.
    async fn change(
        &self,
        method: Method,
        key: &PipelineFingerprint,
        upload: Option<&Upload>,
    ) -> Result<(StatusCode, HttpStatusError), RequestError> {
        let response = self.transport.request(method, key, upload).await?;
        let answer = (response.status(), response.status_error());
        response.drain().await;
        Ok(answer)
    }

    /// Whether the announced length, if there is one, is that of a frame.
    fn may_be_frame(&self, response: &Response) -> bool {
        let length = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        length.is_none_or(|length| (HEADER_LEN as u64..=self.format.max_frame()).contains(&length))
    }
}

/// Whether a status says that there is no such entry.
fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}
