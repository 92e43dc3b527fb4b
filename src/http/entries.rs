//! What can be asked of an entry on the server, and what each answer means.

use async_trait::async_trait;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, StatusCode};

use super::answer::Answer;
use super::download;
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

#[async_trait]
impl Backend for Entries {
    async fn download(&self, key: &PipelineFingerprint) -> Result<Fetched, RequestError> {
        let answer = self.transport.ask(Method::GET, key, None).await?;
        let status = answer.status();
        if status != StatusCode::OK {
            let refusal = answer.refusal();
            download::drain(answer).await;
            return if is_absent(status) {
                Ok(Fetched::Miss)
            } else {
                Err(refusal.of_a_read())
            };
        }
        let limit = self.format.max_frame();
        let Some(frame) = download::read(answer, limit).await? else {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        };
        Ok(match self.format.decode_off_worker(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    async fn upload(&self, key: &PipelineFingerprint, upload: &Upload) -> Result<(), RequestError> {
        let refusal = self.change(Method::PUT, key, Some(upload)).await?;
        if refusal.status.is_success() {
            return Ok(());
        }
        self.refused(key, refusal).await
    }

    async fn delete(&self, key: &PipelineFingerprint) -> Result<bool, RequestError> {
        let refusal = self.change(Method::DELETE, key, None).await?;
        match refusal.status {
            status if status.is_success() => Ok(true),
            status if is_absent(status) => Ok(false),
            _ => Err(refusal.of_a_write()),
        }
    }

    async fn probe(&self, key: &PipelineFingerprint) -> Result<bool, RequestError> {
        let mut answer = self.transport.ask(Method::HEAD, key, None).await?;
        if matches!(
            answer.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            download::drain(answer).await;
            // The head of the full answer says the same, and of its body no more is read than
            // keeps the connection.
            answer = self.transport.ask(Method::GET, key, None).await?;
        }
        let found = match answer.status() {
            StatusCode::OK => Ok(self.may_be_frame(&answer)),
            status if is_absent(status) => Ok(false),
            _ => Err(answer.refusal().of_a_read()),
        };
        download::drain(answer).await;
        found
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }

    fn credentials_version(&self) -> Result<Option<u64>, RequestError> {
        let (_, version) = self.transport.credentials.current()?;
        Ok(Some(version))
    }
}

impl Entries {
    /// The head of the answer to a request, whose body is not worth reading.
    async fn change(
        &self,
        method: Method,
        key: &PipelineFingerprint,
        upload: Option<&Upload>,
    ) -> Result<HttpStatusError, RequestError> {
        let answer = self.transport.ask(method, key, upload).await?;
        let refusal = answer.refusal();
        download::drain(answer).await;
        Ok(refusal)
    }

    /// Whether the announced length, if there is one, is that of a frame.
    fn may_be_frame(&self, answer: &Answer) -> bool {
        let length = answer
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
