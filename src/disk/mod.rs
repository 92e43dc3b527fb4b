//! The disk tier: one file per key in one folder, `<root>/<hex>.bin`, each a frame.
//!
//! [`DiskCache`] opens a folder. What it reports to an operator is here as well: its entries, their
//! health, trims, and durability.
//!
//! A writer stages a file and renames it, and a reader verifies every byte. So neither waits for the
//! other, in one process or between processes on one folder.

// - builder: the settings, and opening
// - shared: what every part uses
// - operations: the limit on operations at once
// - directory: the system calls that read, remove and sync entries
// - reader, page_cache: lookups
// - writer, staging: put and remove
// - durability: what has been put and is not yet durable, and how it becomes so
// - gc: the folder kept within its bounds
// - compile_locks, lock: one compile of a key at a time among processes; locks on files
// - admin, frames, report: for operators and servers
// - user_dir: the user's cache folder
mod admin;
mod builder;
mod compile_locks;
mod directory;
mod durability;
mod error;
mod frames;
mod gc;
mod lock;
mod operations;
#[cfg(target_os = "linux")]
mod page_cache;
mod reader;
mod report;
mod shared;
mod staging;
mod user_dir;
mod writer;

pub use builder::DiskCacheBuilder;
pub use error::DiskCacheError;
pub use report::{
    DiskCacheDurabilityReport, DiskCacheEntry, DiskCacheFrame, DiskCacheHealth,
    DiskCacheTrimReport, DiskCacheVerification,
};

use async_trait::async_trait;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::compile_locks::CompileLocks;
use self::directory::Directory;
use self::durability::flush::Durability;
use self::durability::ledger::Ledger;
use self::gc::bounds::Bounds;
use self::gc::collector::Collector;
use self::reader::Reader;
use self::shared::Shared;
use self::staging::Staging;
use self::writer::Writer;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::{
    CompileLease, CompileLeases, Fetched, PipelineCacheMetrics, PipelineCacheStore, StoreError,
    StoreErrorKind, StoreOperation,
};
use crate::sync::blocking;

/// The first name of [`DiskCache`], which its users know.
pub type PersistentPipelineCacheStore = DiskCache;

/// A tier on disk: one file per key in one folder, which any number of caches and processes may
/// share.
///
/// A clone is another handle of the same cache.
///
/// - **Whole or nothing.** A put writes a temporary file in the subfolder `.staging` and renames it
///   into place. Every read is verified in full. An entry that does not verify is a miss, counted in
///   [`corrupt`](PipelineCacheMetrics::corrupt), and renamed to `<hex>.corrupt`, of which there is at
///   most one per key. The next put writes the entry again.
/// - **Durable after a flush.** A put reaches the operating system, and survives the process. It
///   survives a power loss once [`flush`](PipelineCacheStore::flush) has returned; see
///   [`durability_report`](Self::durability_report). An entry that a power loss removed or tore is a
///   miss.
/// - **Safe in a folder that others write.** Only regular files are read. A symbolic link, FIFO,
///   device or folder under a key's name is never followed, waited for or removed: reads and
///   removals fail with [`StoreErrorKind::UnsafeEntry`]. A put replaces it, except for a folder,
///   where it fails in the same way.
/// - **No waiting on a worker.** System calls run on the runtime's blocking pool; puts write and
///   rename through `tokio::fs`. On Linux, an entry of up to 1 MiB that is in the page cache of a
///   local file system is read on the worker, by calls that fail where they would wait, in slices of
///   about 0.1 ms.
/// - **A removed folder is an empty one.** If the folder is removed meanwhile, lookups miss and the
///   next put creates it again.
///
/// A put of a key that the folder holds already verifies the entry and leaves it: a key names one
/// artifact. The folder grows without bound, unless the builder sets
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
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    staging: Arc<Staging>,
    reader: Arc<Reader>,
    writer: Arc<Writer>,
    durability: Arc<Durability>,
    collector: Arc<Collector>,
    compile_locks: Option<Arc<CompileLocks>>,
}

/// The settings of the parts.
struct Parts {
    max_concurrent_operations: usize,
    max_pending_flushes: usize,
    bounds: Bounds,
    compile_locks: bool,
}

impl DiskCache {
    /// Opens the cache in this folder, with the defaults of [`DiskCacheBuilder`]. Creates the folder
    /// and its parents where they are missing.
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

    /// Opens the cache in the folder `pipeline-cache` of the user's cache folder:
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

    /// Waits for the folder's file system.
    fn assemble(directory: Directory, settings: &Parts) -> Self {
        let operations = settings.max_concurrent_operations;
        let shared = Arc::new(Shared::new(directory, operations));
        let ledger = Arc::<Ledger>::default();
        let staging = Arc::<Staging>::default();
        let held_leases = HeldLeases::default();
        let reader = Arc::new(Reader::new(&shared, &ledger, operations));
        let durability = Arc::new(Durability::new(
            &shared,
            &ledger,
            &reader,
            &staging,
            settings.max_pending_flushes,
        ));
        let collector = Arc::new(Collector::new(&shared, &ledger, settings.bounds));
        let writer = Arc::new(Writer::new(
            &shared,
            &ledger,
            &staging,
            &durability,
            &collector,
            &held_leases,
        ));
        let locks = settings.compile_locks;
        Self {
            compile_locks: locks.then(|| Arc::new(CompileLocks::new(&shared, &held_leases))),
            shared,
            ledger,
            staging,
            reader,
            writer,
            durability,
            collector,
        }
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.shared.directory.root
    }

    /// What a flush would make durable now. Counts the puts of this cache and its clones, not those
    /// of other caches on the folder.
    #[must_use]
    pub fn durability_report(&self) -> DiskCacheDurabilityReport {
        self.ledger.report()
    }
}

#[async_trait]
impl PipelineCacheStore for DiskCache {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.reader.fetch(key).await
    }

    /// As the trait has it. A put whose future is dropped while it waits for its turn is cancelled;
    /// once it writes, it is finished.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.writer.put(*key, artifact).await
    }

    /// Looks at the kind and the length of the file, and does not read it.
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.reader.contains(*key).await
    }

    /// As the trait has it. Also removes what was set aside of the entry. A power loss may bring a
    /// removed entry back.
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.writer.remove(*key).await
    }

    /// Makes durable what puts of this cache have stored, also where their callers have gone: first the
    /// data of each entry, then the names in the folder.
    ///
    /// The error is the first of several, and says how many more there are. An entry that failed stays
    /// pending, and the next flush writes it again: after a failed sync, a second one proves nothing.
    /// If nothing whole is left to write, that flush fails as well, and the entry is lost: it is
    /// pending no more. As long as the medium refuses every entry, a flush tries 16 of them.
    async fn flush(&self) -> Result<(), StoreError> {
        self.durability.flush(StoreOperation::Flush).await
    }

    /// Refuses further puts and removals, waits for those in progress, and flushes. Lookups go on. A
    /// [`CompileLease`] that was granted stays with its holder. No more are granted, because nobody
    /// could store what is compiled.
    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.shared.close();
        let closing = async {
            self.shared.tasks.wait().await;
            let flushed = self.durability.flush(StoreOperation::Close).await;
            let staging = Arc::clone(&self.staging);
            blocking::blocking(move || staging.release()).await;
            flushed
        };
        match tokio::time::timeout(deadline, closing).await {
            Ok(flushed) => flushed,
            Err(_) => Err(self
                .shared
                .error(StoreErrorKind::TimedOut, StoreOperation::Close)),
        }
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        self.compile_locks.is_some().then_some(self)
    }

    /// As the trait has it. `entries` and `cached_bytes` are estimates: the count that all bounded
    /// caches on the folder share. They are 0 for a cache without bounds, and before its first put or
    /// trim, because an exact count would list the folder.
    ///
    /// The estimate is the shared count as of the last report of this cache, plus what this cache has
    /// stored and removed since. Puts and trims report. An entry that is stored during a scan may be
    /// counted twice. Unbounded caches, removals by hand and crashes are not counted. The next scan,
    /// at most an hour later where there are puts, corrects all that. Where the shared count cannot be
    /// written, as in a folder of another user, removals by others are unknown until then, so the
    /// estimate only grows.
    fn metrics(&self) -> PipelineCacheMetrics {
        let held = self.collector.estimate();
        PipelineCacheMetrics {
            entries: held.entries,
            cached_bytes: held.bytes,
            ..self.shared.counters.snapshot()
        }
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.shared.directory.format.max_payload
    }
}

#[async_trait]
impl CompileLeases for DiskCache {
    /// As the trait has it, where the builder was told to use
    /// [`compile_locks`](DiskCacheBuilder::compile_locks). A put of the key holds the lease, too, from
    /// its start until the entry is stored.
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        match &self.compile_locks {
            Some(locks) => locks.lease(*key).await,
            None => Ok(None),
        }
    }
}

impl fmt::Display for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskCache")
            .field("folder", &self.shared.directory)
            .field("durability", &self.durability_report())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    /// The put replaces what was read before.
    #[tokio::test]
    async fn a_key_that_is_being_written_is_not_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::new(folder.path()).await.unwrap();
        let entry = cache.shared.directory.entry(&ONE);
        std::fs::write(&entry, "torn").unwrap();
        let key_lock = cache.shared.key_locks.lock(&ONE).await;
        assert_eq!(cache.get(&ONE).await.unwrap(), None);
        assert!(entry.exists());
        drop(key_lock);
        assert_eq!(cache.get(&ONE).await.unwrap(), None);
        assert!(!entry.exists());
        assert_eq!(cache.metrics().corrupt, 2);
    }
}
