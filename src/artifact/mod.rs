//! What is stored: an immutable payload, its digest, and a little about where it came from.

mod builder;
#[cfg(feature = "zstd")]
pub(crate) mod compression;
pub(crate) mod digest;
pub(crate) mod frame;
mod frame_error;
pub(crate) mod header;
mod metadata;
mod parts;
mod signature;
#[cfg(feature = "signatures")]
mod signers;
#[cfg(feature = "signatures")]
mod signing_key;
mod stored_form;
mod trust;
#[cfg(feature = "signatures")]
mod verified;

pub use builder::ArtifactBuilder;
pub use frame_error::FrameError;
pub use metadata::ArtifactMetadata;
pub use parts::PartsError;
pub use signature::{ArtifactSignature, PublicKey, PublicKeyError};
#[cfg(feature = "signatures")]
pub use signers::{Signer, SignersError, TrustedSigners};
#[cfg(feature = "signatures")]
pub use signing_key::SigningKey;
#[cfg(any(feature = "remote-cache", feature = "object-store", feature = "redis"))]
pub use trust::Trust;
pub use trust::{SharedSecret, TrustedKeys};

use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::sync::blocking;

/// A compiled artifact: bytes that never change, their BLAKE3 digest, and metadata.
///
/// The simple form is one payload. [`builder`](Self::builder) makes an artifact of named parts: code,
/// warnings, a dependency file.
///
/// A clone is a reference to the same bytes, whatever their number. Two artifacts are equal when
/// their payloads are, or the names and contents of their parts; one with parts never equals one
/// without. Metadata is about an artifact and not part of it. When the last clone is
/// dropped on a tokio runtime, a payload above 1 MiB is freed on the blocking pool, unless 64 MiB
/// wait for that already.
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
    /// The payload is the stored form of parts, and was checked to be.
    has_parts: bool,
    /// As its maker gave it; whoever demands one verifies it.
    signature: Option<Box<ArtifactSignature>>,
}

/// The most bytes that are freed where the last reference to them is dropped. Giving 64 MiB back to
/// the system takes milliseconds, too long for a runtime worker.
pub(crate) const FREED_INLINE: usize = 1024 * 1024;

/// The most bytes, the last payload aside, that wait to be freed on the blocking pool. More are freed
/// inline: where the pool is stuck, unused memory that grows is worse than a blocked worker.
const MOST_WAITING: usize = 64 * 1024 * 1024;

/// Bytes that wait to be freed on the blocking pool.
static WAITING: AtomicUsize = AtomicUsize::new(0);

impl Drop for Inner {
    fn drop(&mut self) {
        let len = self.payload.len();
        if len > FREED_INLINE {
            let before = WAITING.fetch_add(len, Ordering::Relaxed);
            let payload = Waiting(std::mem::take(&mut self.payload));
            if before < MOST_WAITING {
                blocking::discard(payload);
            }
        }
    }
}

/// A payload that is counted until it is freed, also where a runtime is shut down before that.
struct Waiting(Bytes);

impl Drop for Waiting {
    fn drop(&mut self) {
        let len = self.0.len();
        drop(std::mem::take(&mut self.0));
        WAITING.fetch_sub(len, Ordering::Relaxed);
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
        Self::from_verified(payload, digest, metadata, false, None)
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
        blocking::run(size, move || Self::with_metadata(payload, metadata)).await
    }

    /// An artifact whose digest, and index if it has parts, have just been checked or made.
    pub(crate) fn from_verified(
        payload: Bytes,
        digest: [u8; 32],
        metadata: ArtifactMetadata,
        has_parts: bool,
        signature: Option<ArtifactSignature>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                payload,
                digest,
                metadata,
                has_parts,
                signature: signature.map(Box::new),
            }),
        }
    }

    /// The bytes that are stored and hashed: what the compiler made.
    ///
    /// Of an artifact with parts, these are an index and all parts. The index is a stored form of
    /// the crate: read the parts with [`part`](Self::part) and [`parts`](Self::parts). A tier of your
    /// own that stores bytes keeps the parts if it stores [`to_frame`](Self::to_frame); an artifact
    /// made anew of a payload and metadata has no parts.
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

    /// Who made the artifact, if the maker signed it. Not verified: a tier that demands signatures
    /// verifies them before it serves an artifact, and others do not.
    #[must_use]
    pub fn signature(&self) -> Option<&ArtifactSignature> {
        self.inner.signature.as_deref()
    }

    /// Who says to have made it, if anybody does.
    pub(crate) fn signer(&self) -> Option<PublicKey> {
        self.signature().map(ArtifactSignature::signer)
    }

    /// The length of the payload in bytes, with parts and their index.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.payload.len()
    }

    /// Whether the payload is empty. An empty artifact is an artifact. One with parts is never empty,
    /// because it has an index.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.payload.is_empty()
    }
}

impl From<Bytes> for Artifact {
    /// As [`new`](Self::new): hashes the payload on the calling thread.
    fn from(payload: Bytes) -> Self {
        Self::new(payload)
    }
}

impl PartialEq for Artifact {
    fn eq(&self, other: &Self) -> bool {
        self.inner.digest == other.inner.digest && self.inner.has_parts == other.inner.has_parts
    }
}

impl Eq for Artifact {}

impl fmt::Debug for Artifact {
    /// The payload is named by digest and length, never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Artifact");
        debug
            .field("len", &self.len())
            .field("digest", &blake3::Hash::from_bytes(*self.digest()).to_hex())
            .field("metadata", self.metadata());
        if self.has_parts() {
            debug.field("parts", &parts::Lengths(self));
        }
        if let Some(signature) = self.signature() {
            debug.field("signer", &signature.signer());
        }
        debug.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, MutexGuard, PoisonError};
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

    /// What waits to be freed is counted for all together.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A runtime with one thread for what waits, which can be kept busy.
    fn narrow() -> tokio::runtime::Runtime {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.max_blocking_threads(1).build().unwrap()
    }

    #[test]
    fn a_large_payload_is_freed_off_the_worker() {
        let _alone = alone();
        narrow().block_on(a_large_payload());
    }

    async fn a_large_payload() {
        for (len, inline) in [(FREED_INLINE, true), (FREED_INLINE + 1, false)] {
            let (artifact, freed) = artifact(len);
            drop(artifact.clone());
            assert!(freed.try_recv().is_err(), "it is still held");
            drop(artifact);
            let freed = blocking::blocking(move || freed.recv()).await.unwrap();
            assert_eq!(freed == thread::current().id(), inline, "{len} bytes");
        }
    }

    #[test]
    fn what_waits_to_be_freed_is_bounded() {
        const LEN: usize = 2 << 20;
        let _alone = alone();
        narrow().block_on(async {
            let (freed, where_freed) = channel();
            let drop_some = || {
                for _ in 0..100 {
                    let payload = Payload(vec![0; LEN], freed.clone());
                    let payload = Bytes::from_owner(payload);
                    drop(Artifact::from_verified(
                        payload,
                        [0; 32],
                        Default::default(),
                        false,
                        None,
                    ));
                }
                where_freed.try_iter().count()
            };
            // Again as much once there is room, and where a runtime was shut down before it was
            // its turn.
            for _ in 0..2 {
                let (release, gate) = channel::<()>();
                let busy = tokio::task::spawn_blocking(move || gate.recv());
                let waiting = 100 - drop_some();
                assert!((1..=33).contains(&waiting), "{waiting} wait");
                release.send(()).unwrap();
                busy.await.unwrap().unwrap();
                blocking::blocking(|| ()).await;
                assert_eq!(where_freed.try_iter().count(), waiting);
            }
        });
    }

    #[test]
    fn without_a_runtime_it_is_freed_where_it_is_dropped() {
        let (artifact, freed) = artifact(FREED_INLINE + 1);
        drop(artifact);
        assert_eq!(freed.try_recv().unwrap(), thread::current().id());
    }
}
