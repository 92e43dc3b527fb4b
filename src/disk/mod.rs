//! The disk tier: one file per key in one folder, `<root>/<hex>.bin`, each a frame.
//!
//! [`DiskCache`] opens a folder. What it reports to an operator is here as well: its entries, their
//! health, trims, and durability.
//!
//! A writer stages a file and renames it, and a reader verifies every byte. So neither waits for the
//! other, in one process or between processes on one folder.

// - builder: the settings, and opening
// - shared: what every part uses
// - directory, files: the system calls that read, remove and sync entries
// - store: the tier, as the layered cache sees it
// - reader, page_cache: lookups
// - writer, staging: put and remove
// - leftovers: what crashed processes have left
// - durability: what has been put and is not yet durable, and how it becomes so
// - gc: the folder kept within its bounds
// - intents: which entries a network tier is still to be given
// - compile_locks, lock: one compile of a key at a time among processes; locks on files
// - admin, frames, report: for operators and servers
// - user_dir: the user's cache folder
mod admin;
mod builder;
mod compile_locks;
mod directory;
mod durability;
mod error;
mod failure_log;
pub(crate) mod files;
mod frames;
mod gc;
mod intents;
mod leftovers;
mod lock;
#[cfg(target_os = "linux")]
pub(crate) mod page_cache;
mod reader;
mod report;
mod shared;
mod staging;
mod store;
mod user_dir;
mod writer;

pub use builder::DiskCacheBuilder;
pub use error::DiskCacheError;
pub use gc::order::EvictionOrder;
pub use report::{
    DiskCacheDurabilityReport, DiskCacheEntry, DiskCacheFrame, DiskCacheHealth, DiskCacheIntents,
    DiskCacheTrimReport, DiskCacheVerification,
};

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::compile_locks::CompileLocks;
use self::directory::Directory;
use self::durability::flush::Durability;
use self::durability::ledger::Ledger;
use self::gc::bounds::Bounds;
use self::gc::collector::Collector;
use self::intents::{IntentBounds, Intents};
use self::reader::Reader;
use self::shared::Shared;
use self::staging::Staging;
use self::writer::Writer;
use crate::store::ALIAS_FOLDER;
use crate::store::compile_lease::HeldLeases;

/// Former name of [`DiskCache`].
pub type PersistentPipelineCacheStore = DiskCache;

/// A tier on disk: one file per key in one folder, which any number of caches and processes may
/// share.
///
/// A clone is another handle of the same cache.
///
/// - **Whole or nothing.** A put writes a temporary file in the subfolder `.staging` and renames it
///   into place. Every read is verified in full. An entry that does not verify is a miss, counted in
///   [`corrupt`](crate::PipelineCacheMetrics::corrupt), and renamed to `<hex>.corrupt`, of which there is at
///   most one per key. The next put writes the entry again.
/// - **Other readers' entries stay.** An entry that this cache's settings keep it from reading is a miss,
///   counted in [`refused`](crate::PipelineCacheMetrics::refused), and stays: it is of another version,
///   larger than the limit, or made with another secret. A put replaces it only where its readers can
///   read the new one, or where it has not been used for a day. Otherwise the put fails with
///   [`StoreErrorKind::Foreign`](crate::StoreErrorKind::Foreign).
/// - **Aliases apart.** [Source aliases](crate::SourceAliases) that are kept in this cache stand in the
///   subfolder `aliases`, and are neither counted nor evicted with its entries.
/// - **Intents beside.** Which entries a network tier could not be given stands in the subfolder
///   `intents`, an empty file for each, over restarts: see
///   [`max_write_intents`](DiskCacheBuilder::max_write_intents). An intent protects no entry from
///   eviction.
/// - **Durable after a flush.** A put reaches the operating system, and survives the process. It
///   survives a power loss once [`flush`](crate::PipelineCacheStore::flush) has returned; see
///   [`durability_report`](Self::durability_report). An entry that a power loss removed or tore is a
///   miss.
/// - **Safe in a folder that others write.** Only regular files are read. A symbolic link, FIFO,
///   device or folder under a key's name is never followed, waited for or removed: reads and
///   removals fail with [`StoreErrorKind::UnsafeEntry`](crate::StoreErrorKind::UnsafeEntry). A put replaces it, except for a folder,
///   where it fails in the same way.
/// - **No waiting on a worker.** System calls run on the runtime's blocking pool; puts write and
///   rename through `tokio::fs`. On Linux, an entry of up to 1 MiB that is in the page cache of a
///   local file system is read on the worker, by calls that fail where they would wait, in slices of
///   about 0.1 ms.
/// - **A missing folder is an empty cache.** If the folder is removed meanwhile, lookups miss and the
///   next put creates it again. Cleaners of temporary files and empty folders may work on it: a put
///   whose temporary file is removed writes it again, up to 8 times.
/// - **On a runtime.** Every call is to be awaited on a tokio runtime, with its timer enabled where the
///   cache has bounds or compile locks. Outside of one it fails with
///   [`StoreErrorKind::NoRuntime`](crate::StoreErrorKind::NoRuntime). A put and a removal run as tasks
///   of the runtime that polls them first, in several steps: they get on only while that runtime is
///   driven. A `current_thread` runtime is driven only inside of `block_on`. When the runtime is shut
///   down in the middle of a put, there is the whole entry or none. The cache may be used on another
///   runtime after that.
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
    intents: Option<Arc<Intents>>,
    /// The cache of source aliases, in a folder of its own.
    aliases: Option<Arc<Self>>,
}

/// The settings of the parts.
struct Parts {
    max_concurrent_operations: usize,
    max_pending_flushes: usize,
    bounds: Bounds,
    eviction_order: EvictionOrder,
    compile_locks: bool,
    intents: Option<IntentBounds>,
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
        let collector = Arc::new(Collector::new(
            &shared,
            &ledger,
            settings.bounds,
            settings.eviction_order,
        ));
        let writer = Arc::new(Writer::new(
            &shared,
            &ledger,
            &staging,
            &durability,
            &collector,
            &held_leases,
        ));
        let locks = settings.compile_locks;
        let intents = settings.intents;
        Self {
            intents: intents.map(|bounds| Arc::new(Intents::new(&shared, bounds))),
            compile_locks: locks.then(|| Arc::new(CompileLocks::new(&shared, &held_leases))),
            aliases: None,
            shared,
            ledger,
            staging,
            reader,
            writer,
            durability,
            collector,
        }
    }

    /// Adds the cache of source aliases. Waits for the file system, and creates nothing.
    fn with_aliases(mut self, settings: &Parts) -> Self {
        let directory = &self.shared.directory;
        let directory = Directory {
            root: directory.root.join(ALIAS_FOLDER),
            format: directory.format.clone(),
            private: directory.private,
        };
        let root = &directory.root;
        match root.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                tracing::warn!(path = %root.display(), "no source alias is kept: there is no folder under this name, and no cache made it");
            }
            // What is there cannot be inspected. A put reports it.
            _ => {
                // As far as possible: what is left costs space and nothing else.
                let _ = leftovers::sweep(&directory.staging());
                let settings = Parts {
                    bounds: settings.bounds.of_aliases(),
                    // An alias says nothing of a compile.
                    eviction_order: EvictionOrder::default(),
                    compile_locks: false,
                    intents: None,
                    ..*settings
                };
                self.aliases = Some(Arc::new(Self::assemble(directory, &settings)));
            }
        }
        self
    }

    /// The folder, as an absolute path.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.shared.directory.root
    }

    /// The cache of the [source aliases](crate::SourceAliases) that are kept beside the entries, for
    /// operators and servers. `None` where there is something else than a folder under its name.
    #[must_use]
    pub fn aliases(&self) -> Option<&Self> {
        self.aliases.as_deref()
    }

    /// What a flush would make durable now. Counts the puts of this cache and its clones, not those
    /// of other caches on the folder.
    #[must_use]
    pub fn durability_report(&self) -> DiskCacheDurabilityReport {
        self.ledger.report()
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
