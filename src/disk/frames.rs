//! Entries in their stored form, for servers that pass them on: neither taken apart nor built anew.
//!
//! A frame that comes in is verified like any other, and stored byte for byte, so that it stays as
//! compressed and as signed as its maker had it. One that goes out is not verified in full: that
//! would be to read it twice, and whoever receives it verifies it in any case.

use bytes::{Buf as _, Bytes};
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use super::directory::{Found, renew_use};
use super::{DiskCache, Inner};
use crate::artifact::FrameError;
use crate::artifact::frame::{HEADER_LEN, stored_tag};
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreErrorKind, StoreOperation};

/// How often an entry is opened anew that was replaced by a whole one just after it was opened.
const ATTEMPTS: usize = 4;

/// The stored form of an entry, to be read from its start.
#[derive(Debug)]
pub struct DiskCacheFrame {
    file: File,
    len: u64,
    tag: [u8; 32],
}

impl DiskCacheFrame {
    /// The length of the frame in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The frame's tag. Two frames of one key have the same only if they hold the same artifact
    /// with the same metadata, stored in the same manner.
    #[must_use]
    pub fn tag(&self) -> &[u8; 32] {
        &self.tag
    }

    /// The file, open for reading at some position. It stays whole even when the entry is removed
    /// meanwhile.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

impl DiskCache {
    /// The stored form of an entry, or `None`. Counts as a lookup and as a use.
    ///
    /// Only its header is looked at: what does not begin as the entry's frame is no entry, and is
    /// set aside as any corrupt one. Whoever gets the bytes verifies the rest.
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
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = DiskCache::new(folder.path()).await?;
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// cache.put(&key, Artifact::new("code")).await?;
    /// let frame = cache.open_frame(&key).await?.expect("it was just put");
    /// assert_eq!(frame.len(), 128 + 4);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open_frame(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<DiskCacheFrame>, StoreError> {
        for _ in 0..ATTEMPTS {
            if let Some(found) = self.inner.open_frame(*key).await? {
                return Ok(found);
            }
            if !self.inner.is_replaced(*key).await {
                break;
            }
        }
        // A full read says what is wrong with it, counts it and sets it aside.
        self.lookup(key).await.map(|_| None)
    }

    /// Stores an entry that is in the stored form already, byte for byte, once it was verified in
    /// full: that it is the frame of this key, whole, within the limits, and signed where the cache
    /// has a [secret](crate::DiskCacheBuilder::shared_secret). Otherwise as
    /// [`put`](crate::PipelineCacheStore::put).
    ///
    /// # Errors
    ///
    /// As `put`; [`StoreErrorKind::InvalidArtifact`], with a [`FrameError`] as its source, where
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
        let (sought, bytes) = (*key, frame.clone());
        // What comes out of a compressed frame may be as large as an artifact can be: it takes its
        // turn among the operations.
        let verify =
            move |inner: &Arc<Inner>| inner.folder.format.decode(&sought, &bytes).map(drop);
        let verified = self.inner.run(verify).await;
        verified.map_err(|reason| {
            self.inner.counters.rejected_puts.increment();
            let kind = match reason {
                FrameError::TooLarge => StoreErrorKind::TooLarge,
                _ => StoreErrorKind::InvalidArtifact,
            };
            let error = self.inner.refuse(kind, StoreOperation::Put);
            error.with_source(reason)
        })?;
        self.inner.put_frame(*key, frame.chain(Bytes::new())).await
    }
}

impl Inner {
    /// `None` where what is there does not begin as the entry's frame.
    async fn open_frame(
        self: &Arc<Self>,
        key: PipelineFingerprint,
    ) -> Result<Option<Option<DiskCacheFrame>>, StoreError> {
        let opened = self.run(move |inner| {
            let Some((mut file, metadata)) = inner.folder.open(&key)? else {
                inner.counters.misses.increment();
                return Ok(Some(None));
            };
            let mut head = [0; HEADER_LEN];
            let read = file.read_exact(&mut head).ok();
            let tag = read.and_then(|()| stored_tag(&key, &head, metadata.len()));
            Ok(tag.map(|tag| {
                renew_use(&file, metadata.modified().ok());
                inner.counters.hits.increment();
                let len = metadata.len();
                Some(DiskCacheFrame { file, len, tag })
            }))
        });
        opened.await.map_err(|fault| {
            self.counters.errors.increment();
            self.failed(StoreOperation::Get, Some(&key), fault)
        })
    }

    /// Whether a whole entry has come into the place of one that was not.
    async fn is_replaced(self: &Arc<Self>, key: PipelineFingerprint) -> bool {
        let found = self.run(move |inner| {
            let found = inner.folder.examine(&key, |_, _| ());
            matches!(found, Ok(Found::Whole(_)))
        });
        // The lookup that comes next tells of a failure.
        found.await
    }
}
