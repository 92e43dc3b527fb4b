//! How one kind of server is used: a single request each, without retries or deadlines.

use bytes::Bytes;
use std::future::Future;
use tokio::time::Instant;

use super::batch::Batch;
use super::caller::AnswerProgress;
#[cfg(any(feature = "remote-cache", feature = "object-store"))]
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

/// What became of the connections of a tier.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ConnectionCounts {
    /// Requests made again because their connection was lost.
    pub(crate) repeated: u64,
    /// Times that all kept connections were given up.
    pub(crate) replaced: u64,
}

/// Makes the requests of a tier.
pub(crate) trait Backend: Send + Sync + 'static {
    /// What authenticates the requests of one attempt.
    type Credentials: Clone + Send + Sync;

    /// The credentials as they are now. Called once for each attempt.
    fn credentials(&self) -> Result<Self::Credentials, RequestError>;

    /// A number that grows whenever the credentials change. `None` where there are none, or where
    /// that cannot be told.
    fn version(&self, credentials: &Self::Credentials) -> Option<u64>;

    /// The verified artifact under a key, or why there is none. Signals when the body begins.
    fn download(
        &self,
        key: &PipelineFingerprint,
        credentials: Self::Credentials,
        answer: &AnswerProgress,
    ) -> impl Future<Output = Result<Fetched, RequestError>> + Send;

    /// The most keys that one request may ask for. Fewer than two where the server answers one at a time,
    /// as far as that is known.
    fn max_batch_keys(&self) -> usize {
        1
    }

    /// Asks for the entries of a batch in one request, and answers those of its keys that the server
    /// answers. Signals as [`download`](Self::download) does. May stop once `stop_at` is over and a key
    /// is answered: the rest is then asked for again.
    ///
    /// Without an error, keys that have no answer are not sent in this way now. If none has, the
    /// server may have no such request, and [`max_batch_keys`](Self::max_batch_keys) says so.
    fn download_many(
        &self,
        batch: &Batch,
        credentials: Self::Credentials,
        answer: &AnswerProgress,
        stop_at: Instant,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        let _ = (batch, credentials, answer, stop_at);
        async { Ok(()) }
    }

    fn upload(
        &self,
        key: &PipelineFingerprint,
        upload: &Upload,
        credentials: Self::Credentials,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// Whether there was an entry.
    fn delete(
        &self,
        key: &PipelineFingerprint,
        credentials: Self::Credentials,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// Whether there is an entry that may well be a frame.
    fn probe(
        &self,
        key: &PipelineFingerprint,
        credentials: Self::Credentials,
    ) -> impl Future<Output = Result<bool, RequestError>> + Send;

    /// Whether the server answers, as it does to a lookup. Of an entry no more is read than a
    /// frame's header.
    fn check_health(
        &self,
        key: &PipelineFingerprint,
        credentials: Self::Credentials,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;

    /// The result of an upload over HTTP that was answered with `status`. "Exists already" is as good as
    /// stored, if it is true. If it is not, the upload is to be made again. That the probe for it
    /// fails says nothing about writes.
    #[cfg(any(feature = "remote-cache", feature = "object-store"))]
    fn rejected_upload(
        &self,
        key: &PipelineFingerprint,
        status: HttpStatusError,
        credentials: Self::Credentials,
    ) -> impl Future<Output = Result<(), RequestError>> + Send {
        async move {
            if !status.may_exist_already() {
                return Err(status.of_a_write());
            }
            match self.probe(key, credentials).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(status.of_a_passing_conflict()),
                Err(_) => Err(status.of_a_write()),
            }
        }
    }

    /// The same server, for the entries in this folder below its base. Its connections are counted
    /// here alone.
    fn in_folder(&self, folder: &str) -> Self
    where
        Self: Sized;

    fn format(&self) -> &FrameFormat;

    fn connection_counts(&self) -> ConnectionCounts {
        ConnectionCounts::default()
    }
}
