//! Entries in their stored form, for servers that pass them on without decoding them.
//!
//! A frame that comes in is verified and then stored byte for byte, so that it stays as compressed and
//! as signed as its maker wrote it. A frame that goes out is not verified in full: its receiver does
//! that in any case.

use bytes::Bytes;

use std::sync::Arc;

use super::DiskCache;
use super::report::DiskCacheFrame;
use crate::artifact::FrameError;
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreOperation};

impl DiskCache {
    /// The stored form of an entry, or `None`. Counts as a lookup. Counts as a use of the entry, unless
    /// the header names a secret that this cache does not have.
    ///
    /// Only the key and the lengths in the header are checked. A file that does not begin with a frame
    /// header of this key is set aside as corrupt; an entry of another version stays. The receiver of the
    /// bytes verifies the rest, for example with [`Artifact::from_frame`](crate::Artifact::from_frame).
    ///
    /// # Errors
    ///
    /// As [`get`](crate::PipelineCacheStore::get).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing in the tier.
    ///
    /// ```
    /// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
    /// use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = DiskCache::new(folder.path()).await?;
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// cache.put(&key, Artifact::new("code")).await?;
    /// let frame = cache.open_frame(&key).await?.expect("it was just put");
    /// assert_eq!(frame.len(), 144 + 4);
    ///
    /// // A server sends it: its tag is the `ETag`.
    /// let mut file = tokio::fs::File::from_std(frame.into_file());
    /// let mut body = Vec::new();
    /// file.rewind().await?;
    /// file.read_to_end(&mut body).await?;
    /// assert!(Artifact::from_frame(&key, &body.into(), None, 1 << 20).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open_frame(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<DiskCacheFrame>, StoreError> {
        self.shared.require_runtime(StoreOperation::Get)?;
        self.reader.open_frame(key).await
    }

    /// Stores a frame byte for byte, after it was verified in full: it is the frame of this key, whole,
    /// within the limits, and made with an accepted secret where the cache has
    /// [any](crate::DiskCacheBuilder::trusted_keys). Otherwise as
    /// [`put`](crate::PipelineCacheStore::put).
    ///
    /// # Errors
    ///
    /// As `put`; [`StoreErrorKind::InvalidArtifact`](crate::StoreErrorKind::InvalidArtifact), with a
    /// [`FrameError`] as its source, where
    /// the bytes do not verify.
    ///
    /// # Cancel safety
    ///
    /// As `put`.
    ///
    /// ```
    /// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let ours = DiskCache::new(folder.path().join("ours")).await?;
    /// let theirs = DiskCache::new(folder.path().join("theirs")).await?;
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// theirs.put(&key, Artifact::new("code")).await?;
    ///
    /// let frame = std::fs::read(theirs.root().join(format!("{key}.bin")))?;
    /// ours.put_frame(&key, frame.into()).await?;
    /// assert_eq!(ours.get(&key).await?, Some(Artifact::new("code")));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn put_frame(
        &self,
        key: &PipelineFingerprint,
        frame: Bytes,
    ) -> Result<(), StoreError> {
        self.shared.require_runtime(StoreOperation::Put)?;
        self.writer.put_frame(*key, frame).await
    }

    /// The stored form of an entry, verified in full, or what is wrong with it. `None` where there is no
    /// entry. Counts neither as a lookup nor as a use, and leaves a damaged entry where it is.
    pub(crate) async fn verified_frame(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<Result<Bytes, FrameError>>, StoreError> {
        let operation = StoreOperation::Verify;
        self.shared.require_runtime(operation)?;
        let (key, shared) = (*key, Arc::clone(&self.shared));
        let read = move || shared.directory.verified_frame(&key);
        let read = self.shared.operations.run(read).await;
        read.map_err(|fault| self.shared.failed(operation, Some(&key), fault))
    }
}
