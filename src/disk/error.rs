//! Failures: of opening a disk tier, and of its operations.

use std::io;
use std::path::{Path, PathBuf};

use crate::artifact::FrameError;
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreErrorKind, StoreOperation};

/// Why a [`DiskCache`](crate::DiskCache) could not be opened.
///
/// ```
/// use pipeline_cache::{DiskCache, DiskCacheError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let file = tempfile::NamedTempFile::new()?;
/// let error = DiskCache::new(file.path()).await.unwrap_err();
/// assert!(matches!(error, DiskCacheError::NotAFolder { .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskCacheError {
    /// The environment does not say where the user's caches are.
    #[error(
        "the user's cache folder is unknown: {CACHE_DIR_VARIABLES} to an absolute path, or call DiskCacheBuilder::root"
    )]
    CacheDirUnknown,
    /// The root exists and is not a folder.
    #[error("cannot open the disk cache: {path} is not a folder; choose another root")]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The cache was opened outside of a tokio runtime.
    #[error("cannot open the disk cache outside of a tokio runtime")]
    NoRuntime,
    /// A system call failed.
    #[error("disk cache: cannot {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What the user can do about [`DiskCacheError::CacheDirUnknown`].
const CACHE_DIR_VARIABLES: &str = if cfg!(windows) {
    "set LOCALAPPDATA"
} else if cfg!(target_vendor = "apple") {
    "set HOME"
} else {
    "set XDG_CACHE_HOME or HOME"
};

/// Why an operation on the folder failed. Becomes a [`StoreError`] once the operation is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0} is not a regular file; remove it")]
    NotAFile(PathBuf),
    #[error(
        "{path} is kept for other readers: {why}; it can be replaced once it has not been used for a day"
    )]
    Foreign { path: PathBuf, why: FrameError },
}

impl Fault {
    /// Whether a network file system lost track of the file, because it was replaced or removed.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle)
    }

    pub(super) fn into_store_error(self, tier: String, operation: StoreOperation) -> StoreError {
        match self {
            Self::Io(error) => StoreError::io(tier, operation, error),
            foreign @ Self::Foreign { .. } => {
                StoreError::new(StoreErrorKind::Foreign, tier, operation).with_source(foreign)
            }
            unsafe_entry @ Self::NotAFile(_) => {
                StoreError::new(StoreErrorKind::UnsafeEntry, tier, operation)
                    .with_source(unsafe_entry)
            }
        }
    }
}

/// The failures of a pass over many entries, which goes on after each.
#[derive(Debug, Default)]
pub(super) struct Failures {
    first: Option<(PipelineFingerprint, Fault)>,
    more: u64,
}

impl Failures {
    pub(super) fn note(&mut self, key: &PipelineFingerprint, fault: Fault) {
        if self.first.is_none() {
            self.first = Some((*key, fault));
        } else {
            // One disk fails for one reason. A thousand warnings would say no more.
            tracing::debug!(%key, %fault, "entry failed; only the first failure of this pass is reported");
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first failure, which says how many came after it.
    pub(super) fn into_first(self) -> Option<(PipelineFingerprint, Fault)> {
        let (key, fault) = self.first?;
        Some(match (fault, self.more) {
            (Fault::Io(error), more @ 1..) => {
                let all = format!("{error}; and {more} more failed");
                (key, Fault::Io(io::Error::new(error.kind(), all)))
            }
            (fault, _) => (key, fault),
        })
    }
}

/// Adds what was attempted, and on what, to an error of the operating system.
pub(super) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| {
        io::Error::new(
            error.kind(),
            format!("cannot {action} {}: {error}", path.display()),
        )
    }
}
