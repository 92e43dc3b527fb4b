//! What is stored: an immutable payload, its digest, and a little about where it came from.

#[cfg(feature = "zstd")]
pub(crate) mod compression;
pub(crate) mod digest;
pub(crate) mod frame;
mod metadata;
mod trust;

pub use frame::{FrameError, SharedSecret};
pub use metadata::ArtifactMetadata;
#[cfg(feature = "remote-cache")]
pub use trust::Trust;
pub use trust::TrustedKeys;

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

use crate::off_worker;

/// A compiled artifact: bytes that never change, their BLAKE3 digest, and metadata.
///
/// A clone is a reference to the same bytes, whatever their number. Two artifacts are equal when
/// their payloads are; metadata is about an artifact and not part of it. When the last clone is
/// dropped on a tokio runtime, a payload above 1 MiB is freed on the blocking pool.
///
/// ```
/// use pipeline_cache::{Artifact, ArtifactMetadata};
/// use std::time::Duration;
///
/// let artifact = Artifact::with_metadata(
///     vec![0x7f, b'E', b'L', b'F'],
///     ArtifactMetadata::new()
///         .with_device("sm_90")
///         .with_compile_time(Duration::from_millis(120)),
/// );
/// assert_eq!(artifact.len(), 4);
/// assert_eq!(artifact.digest(), blake3::hash(artifact.payload()).as_bytes());
/// ```
#[derive(Clone)]
pub struct Artifact {
    inner: Arc<Inner>,
}

struct Inner {
    payload: Bytes,
    digest: [u8; 32],
    metadata: ArtifactMetadata,
}

/// The most bytes that are freed where the last reference to them is dropped. To give 64 MiB back to
/// the system takes milliseconds, for which no worker is to stand still.
pub(crate) const FREED_INLINE: usize = 1024 * 1024;

impl Drop for Inner {
    fn drop(&mut self) {
        if self.payload.len() > FREED_INLINE {
            off_worker::discard(std::mem::take(&mut self.payload));
        }
    }
}

impl Artifact {
    /// An artifact without metadata.
    ///
    /// Hashes the payload on the calling thread, at more than 1 GB/s. On a runtime worker use
    /// [`hash`](Self::hash) for payloads above 64 KiB.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self::with_metadata(payload, ArtifactMetadata::default())
    }

    /// An artifact with metadata. Hashes the payload on the calling thread, as [`new`](Self::new)
    /// does.
    #[must_use]
    pub fn with_metadata(payload: impl Into<Bytes>, metadata: ArtifactMetadata) -> Self {
        let payload = payload.into();
        let digest = *blake3::hash(&payload).as_bytes();
        Self::from_verified(payload, digest, metadata)
    }

    /// An artifact with metadata, hashed on the blocking pool when the payload is larger than
    /// 64 KiB and inline when it is not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the payload; nothing else was touched.
    ///
    /// ```
    /// # use pipeline_cache::{Artifact, ArtifactMetadata};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let payload = vec![0u8; 8 << 20];
    /// let artifact = Artifact::hash(payload, ArtifactMetadata::new()).await;
    /// assert_eq!(artifact.len(), 8 << 20);
    /// # }
    /// ```
    pub async fn hash(payload: impl Into<Bytes>, metadata: ArtifactMetadata) -> Self {
        let payload = payload.into();
        let size = payload.len();
        off_worker::run(size, move || Self::with_metadata(payload, metadata)).await
    }

    /// An artifact whose digest has just been checked or computed.
    pub(crate) fn from_verified(
        payload: Bytes,
        digest: [u8; 32],
        metadata: ArtifactMetadata,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                payload,
                digest,
                metadata,
            }),
        }
    }

    /// The bytes the compiler made.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.inner.payload
    }

    /// BLAKE3 of the payload.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.inner.digest
    }

    /// Where the artifact came from and where it runs.
    #[must_use]
    pub fn metadata(&self) -> &ArtifactMetadata {
        &self.inner.metadata
    }

    /// The length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.payload.len()
    }

    /// Whether the payload is empty. An empty artifact is an artifact.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.payload.is_empty()
    }
}

impl PartialEq for Artifact {
    fn eq(&self, other: &Self) -> bool {
        self.inner.digest == other.inner.digest
    }
}

impl Eq for Artifact {}

impl fmt::Debug for Artifact {
    /// The payload is named by digest and length, never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("len", &self.len())
            .field("digest", &blake3::Hash::from_bytes(*self.digest()).to_hex())
            .field("metadata", self.metadata())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::{self, ThreadId};

    /// Tells where it is freed.
    struct Payload(Vec<u8>, Sender<ThreadId>);

    impl AsRef<[u8]> for Payload {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Payload {
        fn drop(&mut self) {
            self.1.send(thread::current().id()).unwrap();
        }
    }

    fn artifact(len: usize) -> (Artifact, Receiver<ThreadId>) {
        let (freed, where_freed) = channel();
        let payload = Bytes::from_owner(Payload(vec![0; len], freed));
        (Artifact::new(payload), where_freed)
    }

    #[tokio::test]
    async fn a_large_payload_is_freed_off_the_worker() {
        for (len, inline) in [(FREED_INLINE, true), (FREED_INLINE + 1, false)] {
            let (artifact, freed) = artifact(len);
            drop(artifact.clone());
            assert!(freed.try_recv().is_err(), "it is still held");
            drop(artifact);
            let freed = off_worker::blocking(move || freed.recv()).await.unwrap();
            assert_eq!(freed == thread::current().id(), inline, "{len} bytes");
        }
    }

    #[test]
    fn without_a_runtime_it_is_freed_where_it_is_dropped() {
        let (artifact, freed) = artifact(FREED_INLINE + 1);
        drop(artifact);
        assert_eq!(freed.try_recv().unwrap(), thread::current().id());
    }
}
