//! A bundle as a read-only tier.

use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
#[cfg(target_os = "linux")]
use tokio::sync::Semaphore;

use super::error::BundleError;
use super::file::{open, read_at};
use super::index::{BundleDamage, HEADER_LEN, Index, Section, TRAILER_LEN, Trailer, check_header};
use crate::artifact::frame::{FrameFormat, MAX_OVERHEAD};
use crate::artifact::{Artifact, FrameError};
#[cfg(target_os = "linux")]
use crate::disk::page_cache::{self, MAX_SLICED, MAX_WHOLE};
use crate::key::PipelineFingerprint;
use crate::store::metrics::StoreCounters;
use crate::store::runtime::require_runtime;
use crate::store::{
    Fetched, PipelineCacheMetrics, PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation,
};
use crate::sync::blocking;
use crate::sync::operations::Operations;

/// A read-only tier: the artifacts of a bundle, which is one file.
///
/// A clone is another handle of the same cache.
///
/// - **Opens quickly.** Opening reads the index, which stays in memory with 40 bytes for each entry. A
///   lookup of a key that the bundle does not have reads nothing.
/// - **Whole or nothing.** Every read is verified in full. A damaged entry is a miss, counted in
///   [`corrupt`](crate::PipelineCacheMetrics::corrupt), at each lookup: nothing can be set aside in a file
///   that is only read. An entry that these settings do not accept is a miss, counted in
///   [`refused`](crate::PipelineCacheMetrics::refused). A bundle that is not complete, or whose index is
///   damaged, does not open.
/// - **Takes no writes.** Puts and removals fail with
///   [`StoreErrorKind::ReadOnly`](crate::StoreErrorKind::ReadOnly), and
///   [`is_writable`](crate::PipelineCacheStore::is_writable) says so: a layered cache writes past it.
/// - **Stays open.** The file is opened once. A bundle that another replaces, as
///   [`BundleWriter`](super::BundleWriter) does, or that is removed, is served as it was until this cache
///   is dropped: open the new one for its entries. A file that is changed in place serves nothing wrong,
///   and misses.
/// - **Aliases.** The [source aliases](crate::SourceAliases) of the bundle are a store of their own, which
///   a cache that [keeps aliases](crate::LayeredPipelineCacheBuilder::keep_aliases) in its tiers asks.
/// - **No waiting on a worker.** Reads run on the runtime's blocking pool. On Linux, an entry of up to
///   1 MiB that is in the page cache of a local file system is read on the worker, by calls that fail
///   where they would wait. Lookups outside of a runtime fail with
///   [`StoreErrorKind::NoRuntime`](crate::StoreErrorKind::NoRuntime).
///
/// In a layered cache, put it before the disk tier: hits are copied to the tiers before it, so behind a
/// disk tier each would be stored there once more. See the [module](super) for an example.
#[derive(Clone)]
pub struct BundleCache {
    bundle: Arc<Bundle>,
    section: Section,
    served: Arc<Served>,
    /// The source aliases beside the artifacts.
    aliases: Option<Arc<Self>>,
}

/// An open bundle.
struct Bundle {
    path: PathBuf,
    /// `None` once it is being closed.
    file: Option<File>,
    index: Index,
    format: FrameFormat,
    /// The limit on reads on the blocking pool.
    operations: Operations,
    /// Whether the file's file system lets it be read on a worker.
    #[cfg(target_os = "linux")]
    is_cached_here: bool,
    /// The reads in slices: a caller that is not polled keeps its read.
    #[cfg(target_os = "linux")]
    slicing: Semaphore,
}

/// What was served of a section.
#[derive(Debug, Default)]
struct Served {
    counters: StoreCounters,
    /// Whether an entry that is not served was found and logged.
    met_bad: AtomicBool,
}

/// An entry of a bundle, as [`BundleCache::entries`] lists it.
///
/// ```
/// use pipeline_cache::{Artifact, BundleCache, BundleWriter, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("shaders.bundle");
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let mut writer = BundleWriter::create(&path).await?;
/// writer.add(&key, Artifact::new("code").to_frame(&key, None)?).await?;
/// writer.finish().await?;
///
/// let bundle = BundleCache::open(&path).await?;
/// let keys: Vec<_> = bundle.entries().map(|entry| entry.key).collect();
/// assert_eq!(keys, [key]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BundleEntry {
    /// The key.
    pub key: PipelineFingerprint,
    /// The bytes of its stored form.
    pub bytes: u64,
}

impl BundleCache {
    /// Waits for the file system.
    pub(super) fn open_blocking(
        path: PathBuf,
        format: FrameFormat,
        max_concurrent_operations: usize,
    ) -> Result<Self, BundleError> {
        let path = std::path::absolute(&path).map_err(BundleError::io("resolve", &path))?;
        let (file, len) = open(&path)?;
        let index = match read_index(&file, len).map_err(BundleError::io("read", &path))? {
            Ok(index) => index,
            Err(damage) => return Err(BundleError::Damaged { path, damage }),
        };
        let bundle = Arc::new(Bundle {
            #[cfg(target_os = "linux")]
            is_cached_here: page_cache::is_on_this_machine(&path),
            #[cfg(target_os = "linux")]
            slicing: Semaphore::new(max_concurrent_operations.min(Semaphore::MAX_PERMITS)),
            path,
            file: Some(file),
            index,
            format,
            operations: Operations::new(max_concurrent_operations),
        });
        let aliases = Self {
            bundle: Arc::clone(&bundle),
            section: Section::Aliases,
            served: Arc::default(),
            aliases: None,
        };
        Ok(Self {
            bundle,
            section: Section::Artifacts,
            served: Arc::default(),
            aliases: Some(Arc::new(aliases)),
        })
    }

    /// The file, as an absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.bundle.path
    }

    /// The store of the [source aliases](crate::SourceAliases) in the bundle, for operators. `None` of that
    /// store itself.
    #[must_use]
    pub fn aliases(&self) -> Option<&Self> {
        self.aliases.as_deref()
    }

    /// All entries by ascending key, from memory: nothing is read or verified.
    pub fn entries(&self) -> impl Iterator<Item = BundleEntry> + Send {
        let entries = self.bundle.index.iter(self.section);
        entries.map(|(key, place)| BundleEntry {
            key,
            bytes: place.end - place.start,
        })
    }

    /// The stored form of an entry, as it is in the bundle: not verified, not counted as a lookup. `None`
    /// where there is none. The receiver verifies it, as
    /// [`DiskCache::put_frame`](crate::DiskCache::put_frame) does.
    ///
    /// # Errors
    ///
    /// Of kind [`StoreErrorKind::TooLarge`](crate::StoreErrorKind::TooLarge) where it is too large for
    /// [`max_artifact_bytes`](super::BundleCacheBuilder::max_artifact_bytes). When the file cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn frame(&self, key: &PipelineFingerprint) -> Result<Option<Bytes>, StoreError> {
        let operation = StoreOperation::Get;
        self.require_runtime(operation)?;
        let Some(place) = self.bundle.index.find(self.section, key) else {
            return Ok(None);
        };
        let len = place.end - place.start;
        if len > self.bundle.format.max_frame() {
            return Err(self.error(StoreErrorKind::TooLarge, operation));
        }
        let bundle = Arc::clone(&self.bundle);
        let read = move || bundle.read(place.start, len);
        let read = self.bundle.operations.run(read).await;
        read.map(Some)
            .map_err(|error| self.failed(operation, key, error))
    }

    /// The artifact, if it can be had without waiting.
    #[cfg(target_os = "linux")]
    async fn read_cached(&self, key: &PipelineFingerprint, place: &Range<u64>) -> Option<Artifact> {
        let bundle = &*self.bundle;
        let file = bundle.file.as_ref().filter(|_| bundle.is_cached_here)?;
        let len = usize::try_from(place.end - place.start).ok()?;
        let (start, format) = (place.start, &bundle.format);
        if len > MAX_SLICED || len as u64 > format.max_frame() {
            return None;
        }
        if len > MAX_WHOLE {
            let _permit = bundle.slicing.try_acquire().ok()?;
            return page_cache::read_sliced(file, start, len, format, key).await;
        }
        let artifact = page_cache::read_whole(file, start, len, format, key)?;
        blocking::consume_budget(len).await;
        Some(artifact)
    }

    /// Counts a lookup. Called where the lookup is done, so that one whose caller has gone is counted as
    /// well.
    fn count(
        &self,
        key: &PipelineFingerprint,
        read: io::Result<Result<Artifact, FrameError>>,
    ) -> Result<Fetched, StoreError> {
        let counters = &self.served.counters;
        let found = read.map_err(|error| {
            counters.errors.increment();
            self.failed(StoreOperation::Get, key, error)
        })?;
        let why = match found {
            Ok(artifact) => {
                counters.hits.increment();
                return Ok(Fetched::Hit(artifact));
            }
            Err(why) => why,
        };
        counters.misses.increment();
        self.log_bad(key, why);
        Ok(if why.is_foreign() {
            counters.refused.increment();
            Fetched::Refused
        } else {
            counters.corrupt.increment();
            Fetched::Corrupt(why)
        })
    }

    /// Logs an entry that is not served. It stays in the bundle and is found again, so only the first is a
    /// warning.
    fn log_bad(&self, key: &PipelineFingerprint, why: FrameError) {
        let what = match why.is_foreign() {
            true => "entry of a bundle refused",
            false => "entry of a bundle is corrupt",
        };
        if self.served.met_bad.swap(true, Ordering::Relaxed) {
            tracing::debug!(tier = %self, %key, reason = %why, "{what}");
        } else {
            tracing::warn!(tier = %self, %key, reason = %why, "{what}; further ones are logged at debug level");
        }
    }

    /// The public form of a failed read, which is traced here and nowhere else.
    fn failed(
        &self,
        operation: StoreOperation,
        key: &PipelineFingerprint,
        error: io::Error,
    ) -> StoreError {
        let error = StoreError::io(self.to_string(), operation, error);
        tracing::warn!(%key, error = %format_args!("{error:#}"), "bundle cannot be read");
        error
    }

    fn error(&self, kind: StoreErrorKind, operation: StoreOperation) -> StoreError {
        StoreError::new(kind, self.to_string(), operation)
    }

    fn require_runtime(&self, operation: StoreOperation) -> Result<(), StoreError> {
        require_runtime(|| self.to_string(), operation)
    }
}

impl Bundle {
    /// Waits for the disk.
    fn read(&self, start: u64, len: u64) -> io::Result<Bytes> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        read_at(file, start, len).map(Bytes::from)
    }

    /// Reads and verifies an entry. Waits for the disk.
    fn fetch(
        &self,
        key: &PipelineFingerprint,
        place: &Range<u64>,
    ) -> io::Result<Result<Artifact, FrameError>> {
        let len = place.end - place.start;
        if len > self.format.max_frame() {
            let start = self.read(place.start, len.min(MAX_OVERHEAD as u64))?;
            return Ok(Err(self.format.judge_oversized(key, &start, len)));
        }
        let frame = self.read(place.start, len)?;
        Ok(self.format.decode(key, &frame))
    }
}

impl Drop for Bundle {
    /// A close may wait.
    fn drop(&mut self) {
        blocking::discard(self.file.take());
    }
}

/// Reads the header, the trailer and the index of a file of this length.
fn read_index(file: &File, len: u64) -> io::Result<Result<Index, BundleDamage>> {
    let header = read_at(file, 0, HEADER_LEN)?;
    if let Err(damage) = check_header(&header) {
        return Ok(Err(damage));
    }
    let start = len.saturating_sub(TRAILER_LEN as u64);
    let trailer = read_at(file, start, TRAILER_LEN)?;
    let Ok(trailer) = trailer[..].try_into() else {
        return Ok(Err(BundleDamage::Torn));
    };
    let trailer = match Trailer::parse(trailer, len) {
        Ok(trailer) => trailer,
        Err(damage) => return Ok(Err(damage)),
    };
    // At most 40 bytes for each of MAX_ENTRIES, and no more than the file has.
    let index_len = (trailer.index.end - trailer.index.start) as usize;
    let index = read_at(file, trailer.index.start, index_len)?;
    Ok(Index::parse(&index, &trailer))
}

#[async_trait]
impl PipelineCacheStore for BundleCache {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.require_runtime(StoreOperation::Get)?;
        let Some(place) = self.bundle.index.find(self.section, key) else {
            self.served.counters.misses.increment();
            return Ok(Fetched::Miss);
        };
        #[cfg(target_os = "linux")]
        if let Some(artifact) = self.read_cached(key, &place).await {
            return self.count(key, Ok(Ok(artifact)));
        }
        let (cache, key) = (self.clone(), *key);
        let fetch = move || cache.count(&key, cache.bundle.fetch(&key, &place));
        self.bundle.operations.run(fetch).await
    }

    /// Fails: a bundle is read-only.
    async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        self.served.counters.put_errors.increment();
        Err(self.error(StoreErrorKind::ReadOnly, StoreOperation::Put))
    }

    /// Looks into the index, and reads nothing.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let place = self.bundle.index.find(self.section, key);
        let format = &self.bundle.format;
        Ok(place.is_some_and(|place| format.may_be_frame(place.end - place.start)))
    }

    /// Fails: a bundle is read-only.
    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Err(self.error(StoreErrorKind::ReadOnly, StoreOperation::Remove))
    }

    /// Does nothing: there are no writes. Lookups go on.
    async fn close(&self, _: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    /// One, with the aliases of the bundle. It is there also where the bundle has none, so that aliases
    /// are not looked for among the artifacts.
    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        let aliases = self.aliases.iter().map(Arc::clone);
        aliases.map(|aliases| aliases as _).collect()
    }

    /// `entries` and `cached_bytes` are those of the index.
    fn metrics(&self) -> PipelineCacheMetrics {
        let (entries, cached_bytes) = self.bundle.index.held(self.section);
        PipelineCacheMetrics {
            entries,
            cached_bytes,
            ..self.served.counters.snapshot()
        }
    }

    fn is_writable(&self) -> bool {
        false
    }

    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.bundle.format.accepts_maker(artifact)
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.bundle.format.max_payload
    }
}

impl fmt::Display for BundleCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.bundle.path.display();
        match self.section {
            Section::Artifacts => write!(f, "bundle({path})"),
            Section::Aliases => write!(f, "bundle({path}, aliases)"),
        }
    }
}

impl fmt::Debug for BundleCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, bytes) = self.bundle.index.held(self.section);
        f.debug_struct("BundleCache")
            .field("path", &self.bundle.path)
            .field("section", &self.section)
            .field("format", &self.bundle.format)
            .field("entries", &entries)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}
