//! What a disk tier reports to its operator.

#[cfg(feature = "serde")]
use serde::{Serialize, Serializer};
use std::fs::File;
use std::time::{Duration, SystemTime};

use crate::artifact::{ArtifactMetadata, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::StoreError;

/// An entry of a [`DiskCache`](crate::DiskCache), as
/// [`DiskCache::entries`](crate::DiskCache::entries) lists it.
///
/// See [`DiskCache::entries`](crate::DiskCache::entries) for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct DiskCacheEntry {
    /// The entry's key.
    pub key: PipelineFingerprint,
    /// The size of its file in bytes.
    pub bytes: u64,
    /// When it was last used, to within an hour. A time in the future counts as now.
    pub last_used: SystemTime,
    /// The metadata of the artifact. `None` where the file does not begin with a frame header of
    /// this key that this cache accepts. The payload is not verified.
    pub metadata: Option<ArtifactMetadata>,
    /// Why this cache's settings keep it from judging the entry, if they do: see
    /// [`FrameError::is_foreign`]. It may be another reader's good entry.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text_if_any"))]
    pub foreign: Option<FrameError>,
}

/// What [`DiskCache::verify`](crate::DiskCache::verify) found of one entry.
///
/// See [`DiskCache::verify`](crate::DiskCache::verify) for an example.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct DiskCacheVerification {
    /// The entry's key.
    pub key: PipelineFingerprint,
    /// The size of its file in bytes.
    pub bytes: u64,
    /// Whether it is whole.
    pub health: DiskCacheHealth,
    /// How many entries have been verified so far, this one included.
    pub verified: u64,
    /// How many entries there were at the start. Other processes may add and remove some meanwhile.
    pub of: u64,
}

/// The health of an entry.
///
/// See [`DiskCache::verify`](crate::DiskCache::verify) for an example.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub enum DiskCacheHealth {
    /// Every byte is as it was put.
    Whole,
    /// The file is not a frame of this key. It has been set aside, as a lookup would have done.
    Corrupt(#[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))] FrameError),
    /// This cache's settings keep it from judging the file: see [`FrameError::is_foreign`]. It may be
    /// another reader's good entry, and stays where it is.
    Foreign(#[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))] FrameError),
    /// It is no regular file. It stays where it is. A put replaces it, unless it is a folder.
    Unsafe,
    /// It cannot be read.
    Unreadable(#[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))] StoreError),
}

#[cfg(feature = "serde")]
fn as_text_if_any<S: Serializer>(error: &Option<FrameError>, to: S) -> Result<S::Ok, S::Error> {
    match error {
        Some(error) => as_text(error, to),
        None => to.serialize_none(),
    }
}

#[cfg(feature = "serde")]
fn as_text<S: Serializer>(error: &impl std::fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(error)
}

/// The intents that a [`DiskCache`](crate::DiskCache) keeps for one tier, as
/// [`DiskCache::intents`](crate::DiskCache::intents) lists them.
///
/// ```
/// use pipeline_cache::DiskCache;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::new(folder.path()).await?;
/// for waiting in cache.intents().await? {
///     println!("{} artifacts wait for {:?}", waiting.intents, waiting.tier);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct DiskCacheIntents {
    /// The name of the tier. `None` where the folder does not tell it.
    pub tier: Option<String>,
    /// How many there are.
    pub intents: u64,
    /// When the oldest was added. A time in the future counts as now.
    pub oldest: SystemTime,
}

/// What a trim did.
///
/// ```
/// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::new(folder.path()).await?;
/// for number in 0..5 {
///     let key = PipelineFingerprint::from_bytes([number; 32]);
///     cache.put(&key, Artifact::new("code")).await?;
/// }
/// let bounded = DiskCache::builder()
///     .root(folder.path())
///     .max_entries(2)
///     .open()
///     .await?;
/// let report = bounded.trim().await?;
/// assert_eq!((report.scanned, report.removed), (5, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct DiskCacheTrimReport {
    /// Entries that were found.
    pub scanned: u64,
    /// The bytes of their files.
    pub scanned_bytes: u64,
    /// Entries that were removed.
    pub removed: u64,
    /// The bytes of their files.
    pub removed_bytes: u64,
    /// When the least recently used of the remaining entries was used, to within an hour. In another
    /// [order of eviction](super::EvictionOrder): of the 65,536 entries that would go next.
    pub oldest_kept: Option<SystemTime>,
    /// How long the trim took.
    pub elapsed: Duration,
}

/// What a crash of the machine could still take back.
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
/// assert_eq!(cache.durability_report().pending_flushes, 1);
///
/// cache.flush().await?;
/// assert!(cache.durability_report().durable);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize))]
#[non_exhaustive]
pub struct DiskCacheDurabilityReport {
    /// Entries stored by this cache that a power loss could still remove.
    pub pending_flushes: u64,
    /// Whether `pending_flushes` is 0.
    pub durable: bool,
}

/// The stored form of an entry, to be read from its start.
///
/// [`DiskCache::open_frame`](crate::DiskCache::open_frame) opens it.
///
/// See [`DiskCache::put_frame`](crate::DiskCache::put_frame) for an example.
#[derive(Debug)]
pub struct DiskCacheFrame {
    pub(super) file: File,
    pub(super) len: u64,
    pub(super) tag: [u8; 32],
}

impl DiskCacheFrame {
    /// The length of the frame in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The frame's tag. Two frames of one key have the same tag only if they hold the same artifact
    /// with the same metadata, stored in the same way.
    #[must_use]
    pub fn tag(&self) -> &[u8; 32] {
        &self.tag
    }

    /// The file, open for reading; seek to its start first. It stays whole even when the entry is
    /// removed.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}
