//! How one kind of server is used: a single request each, without retries or deadlines.

use bytes::Bytes;
use std::future::Future;

use super::caller::AnswerBegan;
use super::http_status::HttpStatusError;
use super::request_error::RequestError;
use crate::artifact::frame::FrameFormat;
use crate::key::PipelineFingerprint;
use crate::store::Fetched;

/// A frame to send, as often as it takes.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

/// Tells one state of the credentials from the next.
pub(crate) trait CredentialsVersion: Sync {
    /// A number that grows whenever the credentials change. `None` where there are none, or where
    /// that cannot be told.
    fn version(&self) -> Result<Option<u64>, RequestError>;
}

/// Makes the requests of a tier.
pub(crate) trait Backend: CredentialsVersion + Send + 'static {
    /// The verified artifact under a key, or why there is none. Signals when the body begins.
    fn download(
        &self,
        key: &PipelineFingerprint,
        answer: &AnswerBegan,
    ) -> impl Future<Output = Result<Fetched, RequestError>> + Send;

    fn upload(
        &self,
        key: &PipelineFingerprint,
        upload: &Upload,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// Whether there was an entry.
    fn delete(
        &self,
        key: &PipelineFingerprint,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// Whether there is an entry that may well be a frame.
    fn probe(
        &self,
        key: &PipelineFingerprint,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// The result of an upload that was answered with `status`. "Exists already" is as good as
    /// stored, if it is true. If it is not, the upload is to be made again. That the probe for it
    /// fails says nothing about writes.
    fn rejected_upload(
        &self,
        key: &PipelineFingerprint,
        status: HttpStatusError,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        async move {
            if !status.may_exist_already() {
                return Err(status.of_a_write());
            }
            match self.probe(key).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(status.of_a_passing_conflict()),
                Err(_) => Err(status.of_a_write()),
            }
        }
    }

    fn format(&self) -> &FrameFormat;
}
