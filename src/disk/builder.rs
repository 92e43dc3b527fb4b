//! The settings of a disk tier, and how it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Handle;

use super::directory::Directory;
use super::error::DiskCacheError;
use super::gc::bounds::Bounds;
use super::gc::order::EvictionOrder;
use super::intents::IntentBounds;
use super::user_dir::user_cache_dir;
use super::{DiskCache, Parts, leftovers};
#[cfg(feature = "signatures")]
use crate::artifact::TrustedSigners;
use crate::artifact::frame::FrameFormat;
use crate::artifact::{SharedSecret, TrustedKeys};
use crate::sync::blocking;

const DEFAULT_MAX_ARTIFACT_BYTES: u64 = 64 << 20;
const DEFAULT_MAX_CONCURRENT_OPERATIONS: usize = 64;
const DEFAULT_MAX_PENDING_FLUSHES: usize = 4096;

/// Settings of a [`DiskCache`].
///
/// ```
/// use pipeline_cache::{DiskCache, PipelineCacheStore, SharedSecret};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::builder()
///     .root(folder.path().join("artifacts"))
///     .max_artifact_bytes(8 << 20)
///     .shared_secret(SharedSecret::new("at least 16 random bytes"))
///     .open()
///     .await?;
/// assert_eq!(cache.max_artifact_bytes(), 8 << 20);
/// # Ok(())
/// # }
/// ```
///
/// The users of a build machine share a folder on a slow disk:
///
/// ```
/// use pipeline_cache::{DiskCache, SharedSecret};
/// use std::time::Duration;
///
/// const DAY: Duration = Duration::from_secs(24 * 3600);
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::builder()
///     .root(folder.path().join("artifacts"))
///     .allow_other_users()
///     // Else whoever may write to the folder decides what all others run.
///     .shared_secret(SharedSecret::new("at least 16 random bytes"))
///     .max_bytes(50 << 30)
///     .max_age(30 * DAY)
///     // More at once make a slow disk slower.
///     .max_concurrent_operations(8)
///     // A power loss takes back at most so many entries.
///     .max_pending_flushes(512)
///     // An outage of the server takes two days at most, in which so many artifacts are compiled.
///     .max_write_intent_age(2 * DAY)
///     .max_write_intents(50_000)
///     .open()
///     .await?;
/// # let _ = cache;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct DiskCacheBuilder {
    root: Option<PathBuf>,
    max_artifact_bytes: u64,
    trusted_keys: Option<TrustedKeys>,
    #[cfg(feature = "signatures")]
    trusted_signers: Option<TrustedSigners>,
    max_concurrent_operations: usize,
    max_pending_flushes: usize,
    private: bool,
    bounds: Bounds,
    eviction_order: EvictionOrder,
    compile_locks: bool,
    intents: IntentBounds,
}

impl Default for DiskCacheBuilder {
    fn default() -> Self {
        Self {
            root: None,
            max_artifact_bytes: DEFAULT_MAX_ARTIFACT_BYTES,
            trusted_keys: None,
            #[cfg(feature = "signatures")]
            trusted_signers: None,
            max_concurrent_operations: DEFAULT_MAX_CONCURRENT_OPERATIONS,
            max_pending_flushes: DEFAULT_MAX_PENDING_FLUSHES,
            private: true,
            bounds: Bounds::default(),
            eviction_order: EvictionOrder::default(),
            compile_locks: false,
            intents: IntentBounds::default(),
        }
    }
}

impl DiskCacheBuilder {
    /// The folder. Created, with its parents, where it is missing. Default: as
    /// [`DiskCache::in_user_cache`] has it.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// The largest payload that is stored or read, in bytes. A larger entry is
    /// [`Fetched::Refused`](crate::Fetched::Refused), and stays until a put replaces it. A bound on the
    /// folder's bytes lowers it for puts: see [`max_bytes`](Self::max_bytes). Default: 64 MiB.
    pub fn max_artifact_bytes(mut self, bytes: u64) -> Self {
        self.max_artifact_bytes = bytes;
        self
    }

    /// Writes entries with this secret, and accepts only entries made with it. The same as
    /// [`trusted_keys`](Self::trusted_keys) with one secret. Default: none, every whole entry is
    /// accepted.
    pub fn shared_secret(self, secret: SharedSecret) -> Self {
        self.trusted_keys(secret.into())
    }

    /// Writes entries with one secret, and accepts entries made with any of these secrets, so that a
    /// secret can be replaced while entries of the old one are in use. Default: none, every whole
    /// entry is accepted.
    ///
    /// An entry that was made with no accepted secret is [`Fetched::Refused`](crate::Fetched::Refused), and
    /// stays for whoever accepts it. A put of its key fails with
    /// [`StoreErrorKind::Foreign`](crate::StoreErrorKind::Foreign) until it has not been used for a day.
    /// So caches with different secrets are better off in different folders, and after a change of
    /// secrets without an overlap the keys in use are cached again a day later, or after a
    /// [`clear`](DiskCache::clear).
    ///
    /// ```
    /// use pipeline_cache::{DiskCache, SharedSecret, TrustedKeys};
    ///
    /// let keys = TrustedKeys::new(SharedSecret::new("this year's 16 random bytes"))
    ///     .also_accepting(SharedSecret::new("last year's 16 random bytes"));
    /// let settings = DiskCache::builder().trusted_keys(keys);
    /// # let _ = settings;
    /// ```
    pub fn trusted_keys(mut self, keys: TrustedKeys) -> Self {
        self.trusted_keys = Some(keys);
        self
    }

    /// Serves and takes only artifacts that one of these signers has signed. Default: signatures are
    /// kept, and not demanded.
    ///
    /// An entry that is not signed, or signed by somebody else, is
    /// [`Fetched::Refused`](crate::Fetched::Refused). One that somebody else signed stays, and a put of its
    /// key fails with [`StoreErrorKind::Foreign`](crate::StoreErrorKind::Foreign) until it has not been
    /// used for a day; one that is not signed is replaced
    /// by a put, and not by a promotion. A put of an artifact that this cache would not
    /// serve fails with [`StoreErrorKind::InvalidArtifact`](crate::StoreErrorKind::InvalidArtifact): a
    /// machine that compiles for itself and has no signing key leaves its own folder without this.
    ///
    /// ```
    /// use pipeline_cache::DiskCache;
    /// use pipeline_cache::signatures::{Signer, TrustedSigners};
    ///
    /// # let text = "ci main d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    /// let signers = TrustedSigners::reading(["main"], Signer::parse_list(text)?);
    /// let settings = DiskCache::builder().trusted_signers(signers);
    /// # let _ = settings;
    /// # Ok::<(), pipeline_cache::signatures::SignersError>(())
    /// ```
    #[cfg(feature = "signatures")]
    pub fn trusted_signers(mut self, signers: TrustedSigners) -> Self {
        self.trusted_signers = Some(signers);
        self
    }

    /// The most operations that run at once. Default: 64. At least 1.
    ///
    /// Each uses one thread of the runtime's blocking pool and holds at most one artifact in memory.
    /// Others wait. On Linux, the same number of large entries may be read on workers as well.
    pub fn max_concurrent_operations(mut self, operations: usize) -> Self {
        self.max_concurrent_operations = operations.max(1);
        self
    }

    /// The most entries that may await a flush, those of running puts included. Default: 4096. At least
    /// 1.
    ///
    /// - Each takes about 64 bytes of memory.
    /// - At half the number, a flush starts in the background.
    /// - At the full number, a put waits for a flush.
    ///
    /// After a failed flush, puts start no other for a second, and after each further failure for twice
    /// as long, up to a minute. Meanwhile puts succeed while there is room; then they fail at once, with
    /// the reason. A [`flush`](crate::PipelineCacheStore::flush) on demand always tries.
    pub fn max_pending_flushes(mut self, entries: usize) -> Self {
        self.max_pending_flushes = entries.max(1);
        self
    }

    /// Lets other users of the machine use the folder: on Unix, files are created with mode 0666 and
    /// folders with mode 0777, less the process's umask. Default: modes 0600 and 0700, which keep
    /// other users out. A folder that exists keeps its mode.
    ///
    /// Any user with write access can add entries. Set a [`shared_secret`](Self::shared_secret) to reject
    /// them.
    pub fn allow_other_users(mut self) -> Self {
        self.private = false;
        self
    }

    /// The most bytes of files that the folder holds. Default: no bound.
    ///
    /// - Puts start a trim in the background when the folder is 15/16 full. It stops at 7/8.
    /// - Puts do not wait for it, unless the folder and the puts under way exceed the bound. Then a
    ///   put waits for room: for at most 1 s for each percent above the bound, at least 0.1 s and at
    ///   most 10 s. Where nothing can be evicted, it waits for 0.1 s. See
    ///   [`throttled_puts`](crate::PipelineCacheMetrics::throttled_puts).
    /// - So as long as entries can be evicted, the folder holds at most the bound, the puts under way
    ///   and 10 percent.
    /// - A put whose file would take more than half of the bound fails with
    ///   [`StoreErrorKind::TooLarge`](crate::StoreErrorKind::TooLarge): it would evict most of what
    ///   others use. An entry that others stored and that exceeds 7/8 of the bound is evicted first.
    /// - All bounded caches on the folder share one count. An hourly scan finds what unbounded ones
    ///   stored.
    /// - The subfolder of [source aliases](crate::SourceAliases) has a bound of its own, a sixteenth of
    ///   this, at least 64 KiB, in addition. Its bounds on entries and on age are those of the cache.
    /// - The next candidates are remembered, in at most 4 MiB, so that one scan serves many trims.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.max_bytes = Some(bytes);
        self
    }

    /// The most entries that the folder holds, kept as [`max_bytes`](Self::max_bytes) is.
    /// Default: no bound.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.bounds.max_entries = Some(entries);
        self
    }

    /// How long an unused entry stays, to within an hour and an eighth of the age. A put starts a trim
    /// in the background when the last one is an eighth of the age ago. Default: no bound.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.bounds.max_age = Some(age);
        self
    }

    /// Which entries go first where the folder exceeds [`max_bytes`](Self::max_bytes) or
    /// [`max_entries`](Self::max_entries). Default: [`EvictionOrder::LeastRecentlyUsed`].
    ///
    /// Entries that exceed [`max_age`](Self::max_age) go before all others. Source aliases always go in the
    /// order of last use. Each process on the folder evicts in its own order, so all should have the same.
    /// With [`EvictionOrder::LeastTimeSaved`] each trim scans the folder and reads the start of each file, in
    /// the background.
    pub fn eviction_order(mut self, order: EvictionOrder) -> Self {
        self.eviction_order = order;
        self
    }

    /// The most intents of writes that the folder keeps for each network tier. Default: 10,000. With 0,
    /// none is kept.
    ///
    /// A [`LayeredPipelineCache`](crate::LayeredPipelineCache) over this tier and a network tier keeps
    /// an intent here for each artifact that the network tier did not take within half a second, such
    /// as during an outage, and removes it when the tier has the artifact. What is left after a
    /// restart is offered to the tier in the background.
    ///
    /// - An intent is an empty file in the subfolder `intents`, in a folder for the name of the network
    ///   tier. A cache over another network tier leaves it alone.
    /// - Of more than the bound, the oldest are dropped. Each process on the folder may exceed the
    ///   bound by a sixteenth.
    /// - An intent protects its entry from no eviction. In the order of last use, what was just compiled
    ///   is evicted last. An
    ///   intent whose entry is gone is dropped when it is offered.
    /// - Removing an entry, or all, removes their intents.
    /// - A folder with [`allow_other_users`](Self::allow_other_users) keeps none, unless a
    ///   [`shared_secret`](Self::shared_secret) says whose entries are good: this process would upload
    ///   with its credentials what somebody else put there.
    pub fn max_write_intents(mut self, intents: usize) -> Self {
        self.intents.max = intents;
        self
    }

    /// How long an intent of a write is kept: see [`max_write_intents`](Self::max_write_intents).
    /// Default: 7 days.
    pub fn max_write_intent_age(mut self, age: Duration) -> Self {
        self.intents.max_age = age;
        self
    }

    /// Lets processes on this folder that miss the same key compile it once. A
    /// [`LayeredPipelineCache`](crate::LayeredPipelineCache) over this tier then compiles only while
    /// it holds the lock of a file of the key's name, and looks for the artifact once more when it
    /// has the lock. Default: every process compiles for itself.
    ///
    /// All processes must set this, and the artifact must reach this tier: by a
    /// [`WritePolicy`](crate::WritePolicy) other than `First` where there are tiers above. The lock
    /// is released when its process dies. Otherwise it is held until the artifact is stored or its
    /// put has failed, even where the caller of the put has given up. A compile that fails or is
    /// cancelled releases it. How long a process waits for one that holds the lock is
    /// set by [`max_compile_wait`](crate::LayeredPipelineCacheBuilder::max_compile_wait).
    ///
    /// Where no lock can be had, as in a folder that cannot be written, compiles go on without it.
    /// That is counted and traced. They also go on without it after this tier is closed.
    ///
    /// A compile without contention costs the creation, lock and removal of a file, in two hops to
    /// the blocking pool, and one more search of the local tiers. A process that waits learns of the
    /// end within an eighth of its wait, or a tenth of a second. On Windows the locks are those of
    /// `LockFileEx`; they have not been tested there.
    ///
    /// ```
    /// use pipeline_cache::{
    ///     Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint,
    ///     WritePolicy,
    /// };
    /// use std::convert::Infallible;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let disk = DiskCache::builder()
    ///     .root(folder.path())
    ///     .compile_locks()
    ///     .open()
    ///     .await?;
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(InMemoryPipelineCache::new())
    ///     .tier(disk)
    ///     .write_policy(WritePolicy::Behind)
    ///     .build();
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// cache
    ///     .get_or_insert_with(&key, || async { Ok::<_, Infallible>(Artifact::new("code")) })
    ///     .await?;
    /// assert_eq!(cache.layered_metrics().unshared_compiles, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn compile_locks(mut self) -> Self {
        self.compile_locks = true;
        self
    }

    /// Opens the cache, in a time that does not depend on how many entries there are. Removes
    /// temporary files that crashed processes have left in the folder.
    ///
    /// # Errors
    ///
    /// [`DiskCacheError::CacheDirUnknown`] where no root was set and the environment names no cache
    /// folder. [`DiskCacheError::NotAFolder`] and [`DiskCacheError::Io`] where the folder cannot be
    /// created or read. A folder that cannot be written opens: its entries are read, and puts fail.
    /// [`DiskCacheError::NoRuntime`] outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// A dropped open may have created the folder.
    pub async fn open(self) -> Result<DiskCache, DiskCacheError> {
        if Handle::try_current().is_err() {
            return Err(DiskCacheError::NoRuntime);
        }
        blocking::blocking(move || self.open_blocking()).await
    }

    fn format(&self) -> FrameFormat {
        let format = FrameFormat::new(self.trusted_keys.clone(), self.max_artifact_bytes);
        #[cfg(feature = "signatures")]
        let format = FrameFormat {
            signers: self.trusted_signers.clone(),
            ..format
        };
        format
    }

    fn open_blocking(self) -> Result<DiskCache, DiskCacheError> {
        let root = match &self.root {
            Some(root) => root.clone(),
            None => user_cache_dir()?,
        };
        // A change of the working directory must not move the cache.
        let root = std::path::absolute(&root).map_err(failed("resolve", &root))?;
        let directory = Directory {
            root,
            format: self.format(),
            private: self.private,
        };
        let root = &directory.root;
        match root.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(DiskCacheError::NotAFolder { path: root.clone() });
            }
            Ok(_) => {}
            Err(_) => directory.create().map_err(failed("create", root))?,
        }
        let staging = directory.staging();
        match leftovers::sweep(&staging) {
            // The folder of another user, whose processes sweep it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            swept => swept.map_err(failed("list", &staging))?,
        }
        let is_known_whose = self.private || self.trusted_keys.is_some();
        let parts = Parts {
            max_concurrent_operations: self.max_concurrent_operations,
            max_pending_flushes: self.max_pending_flushes,
            bounds: self.bounds,
            eviction_order: self.eviction_order,
            compile_locks: self.compile_locks,
            intents: (is_known_whose && self.intents.max > 0).then_some(self.intents),
        };
        let cache = DiskCache::assemble(directory, &parts);
        if let Some(intents) = &cache.intents {
            intents.sweep();
        }
        Ok(cache.with_aliases(&parts))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> DiskCacheError {
    let path = path.to_owned();
    move |source| DiskCacheError::Io {
        action,
        path,
        source,
    }
}
