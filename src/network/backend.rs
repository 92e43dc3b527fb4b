//! How one kind of server is asked: a single request each, without retries or deadlines.

use async_trait::async_trait;
use bytes::Bytes;

use super::{HttpStatusError, RequestError};
use crate::artifact::frame::FrameFormat;
use crate::key::PipelineFingerprint;
use crate::store::Fetched;

/// A frame to send, as often as it takes.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

/// Makes the requests of a tier.
#[async_trait]
pub(crate) trait Backend: Send + Sync + 'static {
    /// The verified artifact under a key, or why there is none.
    async fn download(&self, key: &PipelineFingerprint) -> Result<Fetched, RequestError>;

    async fn upload(&self, key: &PipelineFingerprint, upload: &Upload) -> Result<(), RequestError>;

    /// Whether there was an entry.
    async fn delete(&self, key: &PipelineFingerprint) -> Result<bool, RequestError>;

    /// Whether there is an entry that may well be a frame.
    async fn probe(&self, key: &PipelineFingerprint) -> Result<bool, RequestError>;

    /// What an upload came to that was answered with `refusal`. "Is there already" is as good as
    /// stored, if it is true. Whether it is may be refused as well, which says nothing of writes.
    async fn refused(
        &self,
        key: &PipelineFingerprint,
        refusal: HttpStatusError,
    ) -> Result<(), RequestError> {
        if refusal.may_be_there() && matches!(self.probe(key).await, Ok(true)) {
            return Ok(());
        }
        Err(refusal.of_a_write())
    }

    fn format(&self) -> &FrameFormat;

    /// A number that changes whenever the credentials do. `None` where nobody can tell.
    fn credentials_version(&self) -> Result<Option<u64>, RequestError>;
}
