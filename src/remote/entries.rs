//! What can be asked of an entry on the server, and what each answer means.

use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, Response, StatusCode};

use super::download;
use super::failure::Failure;
use super::requirement::Requirement;
use super::transport::Transport;
use super::upload::Upload;
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::{Artifact, Fetched, FrameError, PipelineFingerprint};

pub(super) struct Entries {
    pub(super) transport: Transport,
    pub(super) format: FrameFormat,
    pub(super) required: Requirement,
}

impl Entries {
    pub(super) async fn download(&self, key: &PipelineFingerprint) -> Result<Fetched, Failure> {
        let response = self.transport.ask(Method::GET, key, None).await?;
        let status = response.status();
        if status != StatusCode::OK {
            download::drain(response).await;
            return if is_absent(status) {
                Ok(Fetched::Miss)
            } else {
                Err(Failure::status(status))
            };
        }
        let limit = self.format.max_frame();
        let inactivity = self.transport.inactivity_timeout;
        let Some(frame) = download::read(response, limit, inactivity).await? else {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        };
        Ok(match self.format.decode_off_worker(key, frame).await {
            Ok(artifact) if self.required.is_met_by(artifact.metadata()) => Fetched::Hit(artifact),
            Ok(_) => Fetched::Refused,
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    pub(super) async fn upload(
        &self,
        key: &PipelineFingerprint,
        upload: &Upload,
    ) -> Result<(), Failure> {
        let status = self.change(Method::PUT, key, Some(upload)).await?;
        if status.is_success() {
            return Ok(());
        }
        // "Is there already", says a server that writes each entry once, and it is welcome to. But
        // to WebDAV a conflict is a folder that is missing, and then nothing was stored.
        let exists = matches!(
            status,
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED
        );
        if exists && self.probe(key).await? {
            return Ok(());
        }
        Err(Failure::write_status(status))
    }

    pub(super) async fn delete(&self, key: &PipelineFingerprint) -> Result<bool, Failure> {
        let status = self.change(Method::DELETE, key, None).await?;
        match status {
            _ if status.is_success() => Ok(true),
            _ if is_absent(status) => Ok(false),
            _ => Err(Failure::write_status(status)),
        }
    }

    /// The status of a request whose answer has no body worth reading.
    async fn change(
        &self,
        method: Method,
        key: &PipelineFingerprint,
        upload: Option<&Upload>,
    ) -> Result<StatusCode, Failure> {
        let response = self.transport.ask(method, key, upload).await?;
        let status = response.status();
        download::drain(response).await;
        Ok(status)
    }

    /// Whether the server has an entry that may well be a frame.
    pub(super) async fn probe(&self, key: &PipelineFingerprint) -> Result<bool, Failure> {
        let mut response = self.transport.ask(Method::HEAD, key, None).await?;
        if matches!(
            response.status(),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        ) {
            // The head of the full answer says the same; its body is dropped unread.
            response = self.transport.ask(Method::GET, key, None).await?;
        }
        match response.status() {
            StatusCode::OK => Ok(self.may_be_frame(&response)),
            status if is_absent(status) => Ok(false),
            status => Err(Failure::status(status)),
        }
    }

    /// Whether the announced length, if there is one, is that of a frame.
    fn may_be_frame(&self, response: &Response) -> bool {
        let length = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        length.is_none_or(|length| (HEADER_LEN as u64..=self.format.max_frame()).contains(&length))
    }

    /// The head of the artifact's frame, and its payload as it is.
    pub(super) fn frame(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<Upload, FrameError> {
        Ok(Upload {
            head: self.format.encode_head(key, artifact)?,
            payload: artifact.payload().clone(),
        })
    }
}

/// Whether a status says that there is no such entry.
fn is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}
