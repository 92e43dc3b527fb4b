//! The settings of a disk tier, and how it is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::directory::Directory;
use super::error::DiskCacheError;
use super::gc::bounds::Bounds;
use super::user_dir::user_cache_dir;
use super::{DiskCache, staging};
use crate::artifact::SharedSecret;
use crate::artifact::frame::FrameFormat;
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
#[derive(Debug, Clone)]
#[must_use]
pub struct DiskCacheBuilder {
    root: Option<PathBuf>,
    max_artifact_bytes: u64,
    shared_secret: Option<SharedSecret>,
    pub(super) max_concurrent_operations: usize,
    pub(super) max_pending_flushes: usize,
    private: bool,
    pub(super) bounds: Bounds,
    pub(super) compile_locks: bool,
}

impl Default for DiskCacheBuilder {
    fn default() -> Self {
        Self {
            root: None,
            max_artifact_bytes: DEFAULT_MAX_ARTIFACT_BYTES,
            shared_secret: None,
            max_concurrent_operations: DEFAULT_MAX_CONCURRENT_OPERATIONS,
            max_pending_flushes: DEFAULT_MAX_PENDING_FLUSHES,
            private: true,
            bounds: Bounds::default(),
            compile_locks: false,
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

    /// The largest payload that is stored or read, in bytes. Default: 64 MiB.
    pub fn max_artifact_bytes(mut self, bytes: u64) -> Self {
        self.max_artifact_bytes = bytes;
        self
    }

    /// Only entries written with this secret are accepted. Default: none, every whole entry is.
    ///
    /// All who use the folder must have the same: an entry of another secret counts as corrupt.
    pub fn shared_secret(mut self, secret: SharedSecret) -> Self {
        self.shared_secret = Some(secret);
        self
    }

    /// How many operations may be in flight, each with one thread of the runtime's blocking pool
    /// and at most one artifact in memory; the rest wait their turn. On Linux, as many entries more
    /// may be in the midst of being read on workers. At least 1. Default: 64.
    pub fn max_concurrent_operations(mut self, operations: usize) -> Self {
        self.max_concurrent_operations = operations.max(1);
        self
    }

    /// How many entries may await a flush, those of puts under way among them, at about 64 bytes of
    /// memory each. At half the number a flush starts in the background, at the whole number a put
    /// waits for one. At least 1. Default: 4096.
    ///
    /// After a flush that failed, puts start none for a second, after each further one for twice as
    /// long, up to a minute. They go on as long as there is room; then they fail at once, with the
    /// reason. A [`flush`](crate::PipelineCacheStore::flush) on demand always tries.
    pub fn max_pending_flushes(mut self, entries: usize) -> Self {
        self.max_pending_flushes = entries.max(1);
        self
    }

    /// Whether other users of the machine are kept out of what the cache creates: on Unix, files
    /// of mode 0600 and folders of mode 0700. Default: `true`.
    ///
    /// With `false` the modes are 0666 and 0777 less the process's umask, for a cache that users
    /// share. Whoever can write the folder can then add entries: set a
    /// [`shared_secret`](Self::shared_secret) that they do not know. A folder that is there
    /// already keeps its mode.
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// The bytes of files that the folder is to hold at most. Default: no bound.
    ///
    /// Puts of this cache start a trim in the background when the folder is 15/16 full; it stops
    /// at 7/8. Puts do not wait for it, unless the bound itself is passed: then, while entries are
    /// going, until there is room, and a tenth of a second at most. Nobody waits while the folder
    /// is listed. All that bound the folder keep one count of it, and those that do not are noticed
    /// once an hour. What is next to go is kept in mind, in at most 4 MiB, so that the folder is
    /// listed once for many trims.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.max_bytes = Some(bytes);
        self
    }

    /// The entries that the folder is to hold at most, kept as [`max_bytes`](Self::max_bytes) is.
    /// Default: no bound.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.bounds.max_entries = Some(entries);
        self
    }

    /// How long an entry stays that is not used, to within an hour and an eighth of the age. A put
    /// starts a trim in the background when the last is so long ago. Default: no bound.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.bounds.max_age = Some(age);
        self
    }

    /// Whether processes on this folder that miss the same key compile it once: a
    /// [`LayeredPipelineCache`](crate::LayeredPipelineCache) over this tier then compiles only
    /// while it holds the lock of a file of the key's name, and looks for the artifact once more
    /// when it has it. Default: `false`.
    ///
    /// It takes all processes to say so, and the artifact to reach this tier: by a
    /// [`WritePolicy`](crate::WritePolicy) other than `First` where there are tiers above. The lock
    /// dies with its process. Else it lasts until the artifact is here or its put has failed, even
    /// where whoever waited for the put has given up; a compile that fails, or that nobody waits
    /// for any more, ends it. For how long to wait for one that lives is set by
    /// [`max_compile_wait`](crate::LayeredPipelineCacheBuilder::max_compile_wait).
    ///
    /// Where there can be no lock, as in a folder that cannot be written, compiles go on without,
    /// and that is counted and traced. After a close of this tier they go on without as well. An
    /// uncontended compile costs that a file is created, locked and removed, in two hops to the
    /// blocking pool, and one more search of the local tiers; one that has to wait learns of the
    /// end within an eighth of its wait, or a tenth of a second. On platforms other than Unix this
    /// does nothing.
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
    ///     .compile_locks(true)
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
    pub fn compile_locks(mut self, flights: bool) -> Self {
        self.compile_locks = flights;
        self
    }

    /// Opens the cache, in a time that does not depend on how many entries there are. Removes
    /// temporary files that crashed processes have left in the folder.
    ///
    /// # Errors
    ///
    /// [`DiskCacheError::CacheDirUnknown`] where no root was set and the user has no known cache
    /// folder; else when the folder cannot be created. A folder that cannot be written
    /// opens: its entries are read, and puts fail.
    ///
    /// # Cancel safety
    ///
    /// A dropped open may have created the folder.
    pub async fn open(self) -> Result<DiskCache, DiskCacheError> {
        blocking::blocking(move || self.open_blocking()).await
    }

    fn open_blocking(self) -> Result<DiskCache, DiskCacheError> {
        let root = match &self.root {
            Some(root) => root.clone(),
            None => user_cache_dir()?,
        };
        // A later change of the working directory must not move the cache.
        let root = std::path::absolute(&root).map_err(failed("resolve", &root))?;
        let folder = Directory {
            root,
            format: FrameFormat::new(
                self.shared_secret.clone().map(Into::into),
                self.max_artifact_bytes,
            ),
            private: self.private,
        };
        let root = &folder.root;
        match root.metadata() {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(DiskCacheError::NotAFolder { path: root.clone() });
            }
            Ok(_) => {}
            Err(_) => folder.create().map_err(failed("create", root))?,
        }
        let staging = folder.staging();
        match staging::sweep(&staging) {
            // Another user's, who sweeps it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            swept => swept.map_err(failed("list", &staging))?,
        }
        Ok(DiskCache::open_folder(folder, &self))
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
