//! From a disk cache to a bundle, and back.

use bytes::Bytes;
use futures::stream;
use futures::{StreamExt as _, TryStreamExt as _};
use std::path::Path;

use super::cache::BundleCache;
use super::error::BundleError;
use super::index::{MAX_ENTRIES, Section};
use super::writer::{BundleSummary, BundleWriter};
use crate::artifact::FrameError;
use crate::disk::DiskCache;
use crate::key::PipelineFingerprint;
use crate::store::{PipelineCacheStore as _, StoreError, StoreErrorKind};

/// How many entries are read or stored at once, each of them in memory.
const CONCURRENT: usize = 4;

/// What [`pack`] puts into a bundle. The default is all of it.
///
/// ```
/// use pipeline_cache::PipelineFingerprint;
/// use pipeline_cache::bundle::PackOptions;
///
/// let one = PackOptions::default().keys([PipelineFingerprint::from_bytes([1; 32])]);
/// let bare = one.clone().without_aliases();
/// # let _ = bare;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PackOptions {
    keys: Option<Vec<PipelineFingerprint>>,
    leave_aliases: bool,
}

impl PackOptions {
    /// Packs the artifacts of these keys, in whatever order, and no others. Default: all artifacts.
    pub fn keys(mut self, keys: impl IntoIterator<Item = PipelineFingerprint>) -> Self {
        self.keys = Some(keys.into_iter().collect());
        self
    }

    /// Leaves out the source aliases. Default: all of the cache are packed.
    pub fn without_aliases(mut self) -> Self {
        self.leave_aliases = true;
        self
    }
}

/// How far a [`pack`] or an [`unpack`] is.
///
/// See the [module](crate::bundle) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BundleProgress {
    /// How many entries were looked at, aliases included.
    pub done: u64,
    /// How many there are to look at.
    pub of: u64,
}

/// What [`pack`] did.
///
/// See the [module](crate::bundle) for an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct PackReport {
    /// What is in the bundle.
    pub written: BundleSummary,
    /// Entries that the cache did not have, or no longer.
    pub missing: u64,
    /// Entries that are damaged, and left out.
    pub damaged: u64,
    /// Entries that the settings of the cache keep it from judging, and left out: they are made with
    /// another secret, too large, or of another version.
    pub not_judged: u64,
}

/// What [`unpack`] did. Aliases are counted with the artifacts.
///
/// See [`unpack`] for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct UnpackReport {
    /// Entries that were stored.
    pub stored: u64,
    /// Entries that the cache had, and kept.
    pub kept: u64,
    /// Entries that are damaged, and left out.
    pub damaged: u64,
    /// Entries that the settings of the cache refuse, and left out.
    pub not_judged: u64,
}

/// What became of the entries of a cache.
#[derive(Debug, Default)]
struct Tally {
    missing: u64,
    damaged: u64,
    not_judged: u64,
}

/// Writes entries of a disk cache to a bundle at `path`, with the source aliases that the cache keeps.
///
/// Each entry is verified by the settings of the cache. One that is damaged or cannot be judged is left
/// out, and counted. Nothing counts as a use of an entry. The keys are in memory, 32 bytes each, and at
/// most 4 entries at a time.
///
/// An interrupted call leaves `<path>.partial`, and the next call continues it: all entries are read again
/// and compared, and only what is missing is written. See [`BundleWriter`].
///
/// `progress` is called after each entry.
///
/// # Errors
///
/// As [`BundleWriter`] has them; [`BundleError::Source`] where the cache cannot be listed or read.
///
/// # Cancel safety
///
/// A dropped call leaves the staged file, to be continued.
///
/// See the [module](super) for an example.
pub async fn pack(
    cache: &DiskCache,
    path: impl AsRef<Path> + Send,
    options: &PackOptions,
    mut progress: impl FnMut(BundleProgress) + Send,
) -> Result<PackReport, BundleError> {
    let keys = match &options.keys {
        Some(keys) => sorted(keys.clone()),
        None => sorted(listed(cache, 0).await?),
    };
    let aliases = cache.aliases().filter(|_| !options.leave_aliases);
    let alias_keys = match aliases {
        Some(aliases) => sorted(listed(aliases, keys.len()).await?),
        None => Vec::new(),
    };
    let mut at = BundleProgress {
        done: 0,
        of: (keys.len() + alias_keys.len()) as u64,
    };
    if at.of > MAX_ENTRIES {
        return Err(BundleError::TooManyEntries { entries: at.of });
    }
    let mut writer = BundleWriter::create(path.as_ref()).await?;
    let mut tally = Tally::default();
    let sections = [
        (Section::Artifacts, Some(cache), keys),
        (Section::Aliases, aliases, alias_keys),
    ];
    for (section, cache, keys) in sections {
        let Some(cache) = cache else { continue };
        let read = |key| async move { (key, cache.verified_frame(&key).await) };
        let mut frames = stream::iter(keys).map(read).buffered(CONCURRENT);
        while let Some((key, read)) = frames.next().await {
            if let Some(frame) = tally.add(read)? {
                match section {
                    Section::Artifacts => writer.add(&key, frame).await?,
                    Section::Aliases => writer.add_alias(&key, frame).await?,
                }
            }
            at.done += 1;
            progress(at);
        }
    }
    Ok(PackReport {
        written: writer.finish().await?,
        missing: tally.missing,
        damaged: tally.damaged,
        not_judged: tally.not_judged,
    })
}

impl Tally {
    /// The frame, if it goes into the bundle.
    fn add(
        &mut self,
        read: Result<Option<Result<Bytes, FrameError>>, StoreError>,
    ) -> Result<Option<Bytes>, StoreError> {
        match read {
            Ok(Some(Ok(frame))) => return Ok(Some(frame)),
            Ok(None) => self.missing += 1,
            Ok(Some(Err(why))) if why.is_foreign() => self.not_judged += 1,
            Ok(Some(Err(_))) => self.damaged += 1,
            Err(error) if error.kind() == StoreErrorKind::UnsafeEntry => self.damaged += 1,
            Err(error) => return Err(error),
        }
        Ok(None)
    }
}

/// The keys of a cache, as many as a bundle takes beside `others`, and one more where there are more.
async fn listed(cache: &DiskCache, others: usize) -> Result<Vec<PipelineFingerprint>, StoreError> {
    let room = (MAX_ENTRIES as usize).saturating_sub(others) + 1;
    cache.keys().take(room).try_collect().await
}

fn sorted(mut keys: Vec<PipelineFingerprint>) -> Vec<PipelineFingerprint> {
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Stores the entries of a bundle in a disk cache, and its source aliases beside them, and makes them
/// durable.
///
/// Each entry is verified by the settings of the cache, and stored as it is, with its tag and its
/// signature. One that the cache has is kept. One that is damaged or that the cache refuses is left out,
/// and counted. At most 4 entries are in memory. `progress` is called after each entry.
///
/// # Errors
///
/// When the bundle cannot be read, or the cache cannot store.
///
/// # Cancel safety
///
/// A dropped call has stored some of the entries. The next call goes on.
///
/// ```
/// use pipeline_cache::bundle::{self, PackOptions};
/// use pipeline_cache::{Artifact, BundleCache, DiskCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let theirs = DiskCache::new(folder.path().join("theirs")).await?;
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// theirs.put(&key, Artifact::new("code")).await?;
/// let path = folder.path().join("shaders.bundle");
/// bundle::pack(&theirs, &path, &PackOptions::default(), |_| {}).await?;
///
/// let ours = DiskCache::new(folder.path().join("ours")).await?;
/// let report = bundle::unpack(&BundleCache::open(&path).await?, &ours, |_| {}).await?;
/// assert_eq!((report.stored, report.kept), (1, 0));
/// assert_eq!(ours.get(&key).await?, Some(Artifact::new("code")));
/// # Ok(())
/// # }
/// ```
pub async fn unpack(
    bundle: &BundleCache,
    cache: &DiskCache,
    mut progress: impl FnMut(BundleProgress) + Send,
) -> Result<UnpackReport, StoreError> {
    let mut sections = vec![(bundle, cache)];
    sections.extend(bundle.aliases().zip(cache.aliases()));
    let held = sections.iter().map(|(bundle, _)| bundle.metrics().entries);
    let mut at = BundleProgress {
        done: 0,
        of: held.sum(),
    };
    let mut report = UnpackReport::default();
    for (bundle, cache) in sections {
        let keys = bundle.entries().map(|entry| entry.key);
        let store = |key| async move { store(bundle, cache, &key).await };
        let mut stored = stream::iter(keys).map(store).buffer_unordered(CONCURRENT);
        while let Some(stored) = stored.next().await {
            *match stored? {
                Stored::Now => &mut report.stored,
                Stored::Before => &mut report.kept,
                Stored::Damaged => &mut report.damaged,
                Stored::Refused => &mut report.not_judged,
            } += 1;
            at.done += 1;
            progress(at);
        }
        cache.flush().await?;
    }
    Ok(report)
}

enum Stored {
    Now,
    Before,
    Damaged,
    Refused,
}

async fn store(
    bundle: &BundleCache,
    cache: &DiskCache,
    key: &PipelineFingerprint,
) -> Result<Stored, StoreError> {
    let frame = match bundle.frame(key).await {
        Ok(Some(frame)) => frame,
        Ok(None) => return Ok(Stored::Damaged),
        Err(error) if error.kind() == StoreErrorKind::TooLarge => return Ok(Stored::Refused),
        Err(error) => return Err(error),
    };
    let was_there = cache.contains(key).await?;
    let Err(error) = cache.put_frame(key, frame).await else {
        return Ok(match was_there {
            true => Stored::Before,
            false => Stored::Now,
        });
    };
    let why = std::error::Error::source(&error);
    let why = why.and_then(|why| why.downcast_ref::<FrameError>());
    match (error.kind(), why) {
        (StoreErrorKind::Foreign, _) => Ok(Stored::Before),
        (_, Some(why)) if why.is_foreign() => Ok(Stored::Refused),
        (_, Some(_)) => Ok(Stored::Damaged),
        _ => Err(error),
    }
}
