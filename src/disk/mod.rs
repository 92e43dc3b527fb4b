//! The disk tier: one file per key in one folder, `<root>/<hex>.bin`, each a frame.
//!
//! - [`builder`]: the settings, and opening
//! - [`directory`]: the system calls that read, remove and sync entries
//! - [`page_cache`]: entries that can be read without waiting
//! - [`frames`]: entries in their stored form, in and out
//! - [`staging`]: temporary files on their way into the folder
//! - [`writer`]: put and remove, which outlive their callers
//! - [`durability`]: what has been put and is not yet durable, and how it becomes so
//! - [`compile_locks`]: one compile of a key at a time, among processes
//! - [`lock`]: advisory locks on files
//! - [`admin`]: entries, verify and clear, for operators
//! - [`gc`]: the folder kept within its bounds
//! - [`user_dir`]: where the user's caches are
//!
//! A writer stages and renames, a reader verifies every byte, so neither needs the other's leave:
//! not in one process, nor between processes on one folder.

mod admin;
mod builder;
mod compile_locks;
mod directory;
mod durability;
mod error;
mod frames;
mod gc;
mod lock;
#[cfg(target_os = "linux")]
mod page_cache;
mod staging;
mod user_dir;
mod writer;

pub use admin::{DiskCacheEntry, DiskCacheHealth, DiskCacheVerification};
pub use builder::DiskCacheBuilder;
pub use durability::ledger::DiskCacheDurabilityReport;
pub use error::DiskCacheError;
pub use frames::DiskCacheFrame;
pub use gc::trim::DiskCacheTrimReport;

use async_trait::async_trait;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use self::directory::{Directory, Found};
use self::durability::flush::FlushBackoff;
use self::durability::ledger::Ledger;
use self::error::Fault;
use self::gc::bounds::Bounds;
use self::gc::evict::EvictionCandidates;
use self::gc::usage::Usage;
use self::staging::Staging;
use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::metrics::StoreCounters;
use crate::store::{
    CompileLease, CompileLeases, Fetched, PipelineCacheMetrics, PipelineCacheStore, StoreError,
    StoreErrorKind, StoreOperation,
};
use crate::sync::blocking;
use crate::sync::keyed_mutex::KeyedMutex;

/// The name under which the cache's users have known [`DiskCache`].
pub type PersistentPipelineCacheStore = DiskCache;

/// A tier on disk: one file per key in one folder, which any number of caches and processes may
/// share.
///
/// A clone is another handle of the same cache.
///
/// - **Whole or nothing.** An entry is written to a temporary file in the subfolder `.staging` and
///   renamed into place. Every read is verified in full. What does not verify is a miss, counted in
///   [`corrupt`](PipelineCacheMetrics::corrupt) and renamed to `<hex>.corrupt`, of which there is
///   at most one per key; the next put writes the entry anew.
/// - **Durable after a flush.** A put reaches the operating system, and survives the process. It
///   survives a power loss once [`flush`](PipelineCacheStore::flush) has returned; see
///   [`durability_report`](Self::durability_report). An entry that a power loss took or tore is a
///   miss.
/// - **Safe in a folder that others write.** Only regular files are read. A symbolic link, FIFO,
///   device or folder under a key's name is never followed, waited for or removed: reads and
///   removals fail with [`StoreErrorKind::UnsafeEntry`]. A put replaces it, except for a folder,
///   where it fails likewise.
/// - **No waiting on a worker.** System calls run on the runtime's blocking pool. On Linux, an entry
///   of up to 1 MiB that is in the page cache of a file system of this machine is read on the
///   worker, by calls that fail where they would have to wait, and in turns of about 0.1 ms.
/// - **Gone is gone.** Where the folder is removed meanwhile, lookups miss and the next put
///   creates it again.
///
/// A put of a key that the folder holds already verifies the entry and leaves it there: a key names
/// one artifact. The folder grows without bound, unless the builder sets
/// [`max_bytes`](DiskCacheBuilder::max_bytes), [`max_entries`](DiskCacheBuilder::max_entries) or
/// [`max_age`](DiskCacheBuilder::max_age): then puts start a trim in the background when it is due,
/// in one process of those on the folder at a time. [`trim`](Self::trim) does so on demand.
///
/// ```
/// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::new(folder.path()).await?;
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let artifact = Artifact::new("code");
///
/// cache.put(&key, artifact.clone()).await?;
/// assert_eq!(cache.get(&key).await?, Some(artifact));
/// assert!(cache.root().join(format!("{key}.bin")).exists());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct DiskCache {
    inner: Arc<Inner>,
}

struct Inner {
    folder: Directory,
    staging: Staging,
    ledger: Ledger,
    bounds: Bounds,
    compile_locks: bool,
    held_leases: HeldLeases,
    usage: Usage,
    candidates: EvictionCandidates,
    /// Told of each step of an eviction.
    room: Notify,
    max_pending: usize,
    counters: StoreCounters,
    permits: Arc<Semaphore>,
    /// Whether the folder's file system lets files be read on the workers.
    #[cfg(target_os = "linux")]
    page_cache: bool,
    /// Of what is read on the workers in slices.
    #[cfg(target_os = "linux")]
    slicing: Semaphore,
    /// One writer per key at a time.
    key_locks: KeyedMutex,
    /// One flush at a time.
    flushing: Arc<tokio::sync::Mutex<()>>,
    /// What keeps puts from flushing for a while.
    flush_backoff: FlushBackoff,
    /// The writes that are in progress, and the flushes in the background.
    tasks: TaskTracker,
    closed: AtomicBool,
}

impl DiskCache {
    /// The cache in this folder, with the defaults of [`DiskCacheBuilder`]. Creates the folder,
    /// and its parents, where it is missing.
    ///
    /// # Errors
    ///
    /// As [`DiskCacheBuilder::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`DiskCacheBuilder::open`].
    ///
    /// ```
    /// use pipeline_cache::DiskCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = DiskCache::new(folder.path().join("artifacts")).await?;
    /// assert!(cache.root().is_dir());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn new(root: impl Into<PathBuf>) -> Result<Self, DiskCacheError> {
        Self::builder().root(root).open().await
    }

    /// The cache in the folder `pipeline-cache` of the user's cache folder:
    ///
    /// | platform | folder |
    /// |---|---|
    /// | macOS, iOS | `$HOME/Library/Caches` |
    /// | Windows | `%LOCALAPPDATA%` |
    /// | others | `$XDG_CACHE_HOME`, or else `$HOME/.cache` |
    ///
    /// A variable whose value is not an absolute path counts as not set.
    ///
    /// # Errors
    ///
    /// As [`DiskCacheBuilder::open`]; [`DiskCacheError::CacheDirUnknown`] where the variables are
    /// not set.
    ///
    /// # Cancel safety
    ///
    /// As [`DiskCacheBuilder::open`].
    ///
    /// ```no_run
    /// use pipeline_cache::DiskCache;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = DiskCache::in_user_cache().await?;
    /// println!("{}", cache.root().display());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_user_cache() -> Result<Self, DiskCacheError> {
        Self::builder().open().await
    }

    /// Settings other than the defaults.
    pub fn builder() -> DiskCacheBuilder {
        DiskCacheBuilder::default()
    }

    /// Waits for the folder's file system to say what it is.
    fn open_folder(folder: Directory, settings: &DiskCacheBuilder) -> Self {
        #[cfg(target_os = "linux")]
        let page_cache = page_cache::is_on_this_machine(&folder.root);
        let operations = settings
            .max_concurrent_operations
            .min(Semaphore::MAX_PERMITS);
        Self {
            inner: Arc::new(Inner {
                folder,
                staging: Staging::default(),
                ledger: Ledger::default(),
                bounds: settings.bounds,
                compile_locks: settings.compile_locks,
                held_leases: HeldLeases::default(),
                usage: Usage::default(),
                candidates: EvictionCandidates::default(),
                room: Notify::new(),
                max_pending: settings.max_pending_flushes,
                counters: StoreCounters::default(),
                permits: Arc::new(Semaphore::new(operations)),
                #[cfg(target_os = "linux")]
                page_cache,
                #[cfg(target_os = "linux")]
                slicing: Semaphore::new(operations),
                key_locks: KeyedMutex::default(),
                flushing: Arc::default(),
                flush_backoff: FlushBackoff::default(),
                tasks: TaskTracker::new(),
                closed: AtomicBool::new(false),
            }),
        }
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.inner.folder.root
    }

    /// What a flush would make durable now. Counts the puts of this cache and its clones, not
    /// those of others on the same folder.
    #[must_use]
    pub fn durability_report(&self) -> DiskCacheDurabilityReport {
        self.inner.ledger.report()
    }

    async fn lookup(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        #[cfg(target_os = "linux")]
        let found = self.inner.get_cached(key).await;
        #[cfg(not(target_os = "linux"))]
        let found = self.inner.read_on_pool(*key).await;
        found.map_err(|fault| self.inner.failed(StoreOperation::Get, Some(key), fault))
    }
}

impl Inner {
    /// Runs work that waits, when it is its turn. The permit stays with the work: a caller that
    /// leaves does not let one more in.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> T {
        let permit = self.permit().await;
        self.run_with(permit, work).await
    }

    async fn run_with<T: Send + 'static>(
        self: &Arc<Self>,
        permit: Option<OwnedSemaphorePermit>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> T {
        let inner = Arc::clone(self);
        blocking::blocking(move || {
            let _permit = permit;
            work(&inner)
        })
        .await
    }

    /// Runs work of the cache's own, which does not queue with that of its callers. It comes one
    /// call after the other.
    async fn run_aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> T + Send + 'static,
    ) -> T {
        let inner = Arc::clone(self);
        blocking::blocking(move || work(&inner)).await
    }

    /// `None` never comes, as the semaphore is never closed.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    async fn read_on_pool(self: &Arc<Self>, key: PipelineFingerprint) -> Result<Fetched, Fault> {
        self.run(move |inner| inner.read(&key)).await
    }

    /// Reads and counts. Counted where the work is done, so that a caller who leaves hides nothing.
    fn read(&self, key: &PipelineFingerprint) -> Result<Fetched, Fault> {
        self.count_lookup(key, self.folder.read(key))
    }

    fn count_lookup(
        &self,
        key: &PipelineFingerprint,
        found: Result<Found, Fault>,
    ) -> Result<Fetched, Fault> {
        let counters = &self.counters;
        match found {
            Ok(Found::Whole(artifact)) => {
                counters.hits.increment();
                Ok(Fetched::Hit(artifact))
            }
            Ok(Found::Missing) => {
                counters.misses.increment();
                Ok(Fetched::Miss)
            }
            Ok(Found::Corrupt(file, error)) => {
                counters.corrupt.increment();
                counters.misses.increment();
                self.set_aside(key, &file, error);
                Ok(Fetched::Corrupt(error))
            }
            Err(fault) => {
                counters.errors.increment();
                Err(fault)
            }
        }
    }

    /// Sets a corrupt entry aside, unless somebody writes the key, who replaces it.
    fn set_aside(&self, key: &PipelineFingerprint, file: &std::fs::File, why: FrameError) {
        if let Some(_turn) = self.key_locks.try_lock(key) {
            self.set_aside_locked(key, file, why);
        }
    }

    fn set_aside_locked(&self, key: &PipelineFingerprint, file: &std::fs::File, why: FrameError) {
        let aside = self.folder.set_aside(key, file);
        // Where a flush awaits it, that is to tell of the loss.
        self.ledger.suspect([key]);
        tracing::warn!(tier = %self, %key, %why, aside = ?aside, "a corrupt entry is a miss");
    }

    /// The public form of a failure, which is traced here and nowhere else.
    fn failed(
        &self,
        operation: StoreOperation,
        key: Option<&PipelineFingerprint>,
        fault: Fault,
    ) -> StoreError {
        let error = fault.into_store_error(self.to_string(), operation);
        let key = key.map(tracing::field::display);
        tracing::warn!(key, %error, "the disk tier failed");
        error
    }

    fn refuse(&self, kind: StoreErrorKind, operation: StoreOperation) -> StoreError {
        StoreError::new(kind, self.to_string(), operation)
    }

    fn check_open(&self, operation: StoreOperation) -> Result<(), StoreError> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(self.refuse(StoreErrorKind::Closed, operation));
        }
        Ok(())
    }
}

#[async_trait]
impl PipelineCacheStore for DiskCache {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.lookup(key).await
    }

    /// As the trait has it. A put whose caller leaves while it is being written is finished all
    /// the same.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.inner.put(*key, artifact).await
    }

    /// Goes by the kind and the length of the file, as reading it is what would tell more.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let key = *key;
        let found = self.inner.run(move |inner| inner.folder.contains(&key));
        found.await.map_err(|fault| {
            self.inner
                .failed(StoreOperation::Contains, Some(&key), fault)
        })
    }

    /// As the trait has it. Also removes what was set aside of the entry. A power loss may bring a
    /// removed entry back.
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.remove(*key).await
    }

    /// Makes durable what puts of this cache have stored, whether or not they returned to a caller:
    /// first the data of each entry, then their names in the folder.
    ///
    /// The error is the first of what may be several, and says how many more. What failed stays
    /// pending, and the next flush writes it anew: after a failed sync, a second one proves
    /// nothing. Where nothing whole is left to be written, that flush fails as well, and the entry
    /// is pending no more: it is lost. As long as the medium refuses all, a flush tries 16 of them
    /// and no more.
    async fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush(StoreOperation::Flush).await
    }

    /// Refuses further puts and removals, waits for those in progress, and flushes. Lookups go on.
    /// A [lead](crate::CompileLease) that was given stays its holder's; there are no more, as what is made
    /// could not be stored.
    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        let inner = &self.inner;
        inner.closed.store(true, Ordering::SeqCst);
        inner.tasks.close();
        let closing = async {
            inner.tasks.wait().await;
            let flushed = inner.flush(StoreOperation::Close).await;
            inner.run(|inner| inner.staging.release()).await;
            flushed
        };
        match tokio::time::timeout(deadline, closing).await {
            Ok(flushed) => flushed,
            Err(_) => Err(inner.refuse(StoreErrorKind::TimedOut, StoreOperation::Close)),
        }
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        self.inner.compile_locks.then_some(self)
    }

    /// As the trait has it. `entries` and `cached_bytes` are estimates, and only of a cache with
    /// bounds that has put something or trimmed: what all bounded caches on the folder have
    /// counted. They are 0 otherwise, as to know them would be to list the folder.
    ///
    /// They are of the last time that this cache has reported, which its puts and trims make it do,
    /// and of what it has stored and removed since: what others did after that is not in them. What
    /// comes during a listing may be counted twice; caches without bounds, removals by hand and
    /// crashes are not counted at all. The next listing, at most an hour later where there are
    /// puts, mends all that. Where the common count cannot be written, as in a folder of another
    /// user, removals by others are unknown until then, so that the figures only grow.
    fn metrics(&self) -> PipelineCacheMetrics {
        let held = self.inner.usage.estimate().unwrap_or_default();
        PipelineCacheMetrics {
            entries: held.entries,
            cached_bytes: held.bytes,
            ..self.inner.counters.snapshot()
        }
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.inner.folder.format.max_payload
    }
}

#[async_trait]
impl CompileLeases for DiskCache {
    /// As the trait has it, where the builder's
    /// [`compile_locks`](DiskCacheBuilder::compile_locks) says so. A put of the key
    /// holds the lead, too, from its start until the entry is there.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.inner.compile_lease(*key).await
    }
}

impl fmt::Display for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk({})", self.folder.root.display())
    }
}

impl fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskCache")
            .field("folder", &self.inner.folder)
            .field("durability", &self.durability_report())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    /// What a put is about to bring need not be told from what was read before.
    #[tokio::test]
    async fn nobody_sets_aside_what_is_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::new(folder.path()).await.unwrap();
        let entry = cache.inner.folder.entry(&ONE);
        std::fs::write(&entry, "torn").unwrap();
        let turn = cache.inner.key_locks.lock(&ONE).await;
        assert_eq!(cache.get(&ONE).await.unwrap(), None);
        assert!(entry.exists());
        drop(turn);
        assert_eq!(cache.get(&ONE).await.unwrap(), None);
        assert!(!entry.exists());
        assert_eq!(cache.metrics().corrupt, 2);
    }
}
