//! What can be asked of an object, and what each answer means.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt as _, PutPayload};
use std::sync::Arc;

use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::network::{Backend, Failure, Upload};
use crate::{Fetched, FrameError, PipelineFingerprint, StoreErrorKind};

/// Makes the requests.
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
    pub(super) format: FrameFormat,
}

impl Objects {
    fn path(&self, key: &PipelineFingerprint) -> Path {
        self.prefix.clone().join(format!("{key}.bin"))
    }

    fn may_be_frame(&self, size: u64) -> bool {
        (HEADER_LEN as u64..=self.format.max_frame()).contains(&size)
    }

    /// The whole object, or `None` as soon as it is longer than any frame.
    async fn read(&self, object: GetResult) -> Result<Option<Bytes>, Failure> {
        let size = object.meta.size;
        if size > self.format.max_frame() {
            return Ok(None);
        }
        let mut chunks = object.into_stream();
        let mut frame = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(failure)?;
            if frame.is_empty() && chunk.len() as u64 == size {
                return Ok(Some(chunk));
            }
            // The size is the store's word; what is kept is bounded whatever it says.
            if (frame.len() + chunk.len()) as u64 > self.format.max_frame() {
                return Ok(None);
            }
            frame.extend_from_slice(&chunk);
        }
        Ok(Some(frame.freeze()))
    }
}

#[async_trait]
impl Backend for Objects {
    async fn download(&self, key: &PipelineFingerprint) -> Result<Fetched, Failure> {
        let object = match self.store.get(&self.path(key)).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => return Ok(Fetched::Miss),
            Err(error) => return Err(failure(error)),
        };
        let Some(frame) = self.read(object).await? else {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        };
        Ok(match self.format.decode_off_worker(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    async fn upload(&self, key: &PipelineFingerprint, upload: &Upload) -> Result<(), Failure> {
        let payload = PutPayload::from_iter([upload.head.clone(), upload.payload.clone()]);
        // Not only where there is none: a put is what heals a corrupt entry.
        use object_store::Error;
        match self.store.put(&self.path(key), payload).await {
            Ok(_) => Ok(()),
            // "Is there already", says a bucket whose objects are written once.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. })
                if self.probe(key).await? =>
            {
                Ok(())
            }
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                Err(refused("the store does not write over what it has"))
            }
            Err(Error::NotFound { .. }) => Err(refused("there is no such bucket or container")),
            Err(error) => Err(failure(error)),
        }
    }

    async fn delete(&self, key: &PipelineFingerprint) -> Result<bool, Failure> {
        let path = self.path(key);
        // Most stores do not say whether there was an object to delete.
        match self.store.head(&path).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failure(error)),
        }
        match self.store.delete(&path).await {
            Ok(()) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    async fn probe(&self, key: &PipelineFingerprint) -> Result<bool, Failure> {
        match self.store.head(&self.path(key)).await {
            Ok(object) => Ok(self.may_be_frame(object.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(failure(error)),
        }
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }

    fn credentials_version(&self) -> Result<Option<u64>, Failure> {
        Ok(None)
    }
}

/// A write that the store does not take, though it is well.
fn refused(reason: &'static str) -> Failure {
    Failure::new(StoreErrorKind::Protocol, reason).into_refusal()
}

/// What kind of failure it is. The text of the error is not passed on: it may quote the request.
fn failure(error: object_store::Error) -> Failure {
    use object_store::Error;
    let (kind, reason) = match error {
        Error::PermissionDenied { .. } => (StoreErrorKind::PermissionDenied, "no permission"),
        Error::Unauthenticated { .. } => (StoreErrorKind::PermissionDenied, "not authenticated"),
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            (StoreErrorKind::Protocol, "not supported by the store")
        }
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => {
            (StoreErrorKind::Protocol, "the store is set up wrongly")
        }
        // Broken connections, time-outs and answers of 5xx, which the store has given up on.
        _ => (StoreErrorKind::Unavailable, "the store failed"),
    };
    Failure::new(kind, reason)
}
