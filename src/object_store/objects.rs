//! The requests about one object, and what each response means.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    Attribute, Error, GetOptions, GetResult, ObjectStore, ObjectStoreExt as _, PutPayload,
};
use std::error::Error as StdError;
use std::iter::successors;
use std::sync::Arc;
use std::time::Duration;

use crate::artifact::FrameError;
use crate::artifact::frame::{FrameFormat, HEADER_LEN};
use crate::key::PipelineFingerprint;
use crate::network::{
    AnswerProgress, Backend, HttpStatusError, RequestError, Upload, content_encoding, read_capped,
    read_start,
};
use crate::store::{Fetched, StoreErrorKind};

/// Makes the requests.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
    pub(super) format: FrameFormat,
    /// The statuses of a lookup that mean that there is no such object.
    pub(super) absent_statuses: Vec<u16>,
    /// The longest time between two parts of a body.
    pub(super) inactivity: Duration,
}

impl Objects {
    fn path(&self, key: &PipelineFingerprint) -> Path {
        self.prefix.clone().join(format!("{key}.bin"))
    }

    fn is_absent(&self, error: &Error) -> bool {
        status(error).is_some_and(|status| self.absent_statuses.contains(&status.status))
    }

    /// The whole object, or `None` as soon as it is longer than any frame.
    async fn read(
        &self,
        object: GetResult,
        answer: &AnswerProgress,
    ) -> Result<Option<Bytes>, RequestError> {
        let (size, limit) = (object.meta.size, self.format.max_frame());
        let parts = object.into_stream().map_err(of_a_read);
        let parts = parts.inspect(|_| answer.signal());
        read_capped(parts, Some(size), limit, self.inactivity).await
    }
}

impl Backend for Objects {
    /// The store has its own, and does not say when they change.
    type Credentials = ();

    fn credentials(&self) -> Result<(), RequestError> {
        Ok(())
    }

    fn version(&self, (): &()) -> Option<u64> {
        None
    }

    fn in_folder(&self, folder: &str) -> Self {
        Self {
            prefix: self.prefix.clone().join(folder),
            ..self.clone()
        }
    }

    async fn download(
        &self,
        key: &PipelineFingerprint,
        (): (),
        answer: &AnswerProgress,
    ) -> Result<Fetched, RequestError> {
        let object = match self.store.get(&self.path(key)).await {
            Ok(object) => object,
            Err(error) if self.is_absent(&error) => return Ok(Fetched::Miss),
            Err(error) => return Err(of_a_read(error)),
        };
        answer.signal();
        if let Some(encoding) = encoding(&object) {
            return Ok(Fetched::Corrupt(FrameError::ContentEncoded(encoding)));
        }
        let Some(frame) = self.read(object, answer).await? else {
            return Ok(Fetched::Corrupt(FrameError::TooLarge));
        };
        Ok(match self.format.decode_blocking(key, frame).await {
            Ok(artifact) => Fetched::Hit(artifact),
            Err(reason) => Fetched::Corrupt(reason),
        })
    }

    async fn upload(
        &self,
        key: &PipelineFingerprint,
        upload: &Upload,
        (): (),
    ) -> Result<(), RequestError> {
        let payload = PutPayload::from_iter([upload.head.clone(), upload.payload.clone()]);
        // Not only where there is none: a put is what heals a corrupt entry.
        let Err(error) = self.store.put(&self.path(key), payload).await else {
            return Ok(());
        };
        match status(&error) {
            Some(status) => self.rejected_upload(key, status, ()).await,
            None => Err(request_error(&error)),
        }
    }

    async fn delete(&self, key: &PipelineFingerprint, (): ()) -> Result<bool, RequestError> {
        let path = self.path(key);
        // Most stores do not say whether there was an object to delete.
        match self.store.head(&path).await {
            Ok(_) => {}
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(of_a_write(error)),
        }
        match self.store.delete(&path).await {
            Ok(()) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(of_a_write(error)),
        }
    }

    async fn probe(&self, key: &PipelineFingerprint, (): ()) -> Result<bool, RequestError> {
        let head = GetOptions::new().with_head(true);
        match self.store.get_opts(&self.path(key), head).await {
            Ok(object) => {
                Ok(encoding(&object).is_none() && self.format.may_be_frame(object.meta.size))
            }
            Err(error) if self.is_absent(&error) => Ok(false),
            Err(error) => Err(of_a_read(error)),
        }
    }

    async fn check_health(&self, key: &PipelineFingerprint, (): ()) -> Result<(), RequestError> {
        match self.store.get(&self.path(key)).await {
            Ok(object) => {
                let parts = object.into_stream().map_err(of_a_read);
                read_start(parts, HEADER_LEN, self.inactivity).await
            }
            Err(error) if self.is_absent(&error) => Ok(()),
            Err(error) => Err(of_a_read(error)),
        }
    }

    fn format(&self) -> &FrameFormat {
        &self.format
    }
}

/// The transformation of the object that nobody asked for, if there is one.
fn encoding(object: &GetResult) -> Option<&'static str> {
    let encoding = object.attributes.get(&Attribute::ContentEncoding)?;
    content_encoding(encoding)
}

/// The status of the response, where there is a server and it sent one.
pub(super) fn status(error: &Error) -> Option<HttpStatusError> {
    let known = match error {
        Error::Unauthenticated { .. } => 401,
        Error::PermissionDenied { .. } => 403,
        Error::NotFound { .. } => 404,
        Error::AlreadyExists { .. } => 409,
        Error::Precondition { .. } => 412,
        _ => return causes(error).find_map(|cause| cause.downcast_ref().copied()),
    };
    Some(HttpStatusError::new(known, None))
}

/// The error of a request that would have changed nothing.
pub(super) fn of_a_read(error: Error) -> RequestError {
    status(&error).map_or_else(|| request_error(&error), HttpStatusError::of_a_read)
}

/// The error of a request that would have changed the store.
pub(super) fn of_a_write(error: Error) -> RequestError {
    status(&error).map_or_else(|| request_error(&error), HttpStatusError::of_a_write)
}

/// The text of the error is not repeated: it may quote the request.
fn request_error(error: &Error) -> RequestError {
    let mut http = causes(error).filter_map(|cause| cause.downcast_ref::<HttpError>());
    let (kind, reason) = match error {
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            (StoreErrorKind::Protocol, "not supported by the store")
        }
        Error::InvalidPath { .. } | Error::UnknownConfigurationKey { .. } => (
            StoreErrorKind::Protocol,
            "the settings of the store are wrong",
        ),
        _ => match http.next().map(HttpError::kind) {
            Some(HttpErrorKind::Timeout) => (StoreErrorKind::TimedOut, "no response in time"),
            Some(HttpErrorKind::Connect) => (StoreErrorKind::Unreachable, "no connection"),
            _ => (
                StoreErrorKind::Unavailable,
                "the request to the store failed",
            ),
        },
    };
    RequestError::new(kind, reason)
}

/// The causes of an error, outermost first.
fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    successors(error.source(), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{Stream, stream};
    use object_store::memory::InMemory;
    use object_store::{Attributes, GetResultPayload, ObjectMeta};
    use tokio::time::Instant;

    /// What is kept of an object of this size that comes as this stream.
    async fn read<S>(size: u64, parts: S) -> Result<Bytes, RequestError>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        let objects = Objects {
            store: Arc::new(InMemory::new()),
            prefix: Path::default(),
            format: FrameFormat::new(None, 64 << 20),
            absent_statuses: vec![404],
            inactivity: Duration::from_secs(5),
        };
        let object = GetResult {
            payload: GetResultPayload::Stream(parts.map(Ok).boxed()),
            meta: ObjectMeta {
                location: Path::default(),
                last_modified: std::time::UNIX_EPOCH.into(),
                size,
                e_tag: None,
                version: None,
            },
            range: 0..size,
            attributes: Attributes::default(),
            extensions: Default::default(),
        };
        Ok(objects
            .read(object, &AnswerProgress::default())
            .await?
            .unwrap())
    }

    /// The artifact keeps it for as long as it lives.
    #[tokio::test]
    async fn of_an_object_no_more_is_kept_than_its_bytes() {
        let large = vec![Bytes::from(vec![7; 64 << 10]); 33 << 4];
        // A part of what the client has read in one go.
        let small = vec![Bytes::from(vec![7; 400 << 10]).slice(100..1100)];
        for (chunks, length) in [(large, 33 << 20), (small, 1000)] {
            let frame = read(length as u64, stream::iter(chunks)).await.unwrap();
            assert_eq!(frame.len(), length);
            let buffer = frame.try_into_mut().expect("nobody shares it");
            assert_eq!(buffer.capacity(), length);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_stands_still_midway_is_given_up() {
        let began = Instant::now();
        let part = stream::iter([Bytes::from("a part")]);
        let failure = read(1000, part.chain(stream::pending())).await.unwrap_err();
        assert_eq!(failure.kind, StoreErrorKind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(6));
    }
}
