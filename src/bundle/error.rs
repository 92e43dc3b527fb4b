//! Why a bundle is not written or read.

use std::io;
use std::path::{Path, PathBuf};

use super::index::{BundleDamage, MAX_ENTRIES};
use crate::key::PipelineFingerprint;
use crate::store::StoreError;

/// Why a bundle could not be opened or written.
///
/// ```
/// use pipeline_cache::{BundleCache, BundleError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let file = tempfile::NamedTempFile::new()?;
/// let error = BundleCache::open(file.path()).await.unwrap_err();
/// assert!(matches!(error, BundleError::Damaged { .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The file is not a bundle that this release reads.
    #[error("cannot open the bundle {path}: {damage}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: BundleDamage,
    },
    /// There is something else than a file under the name.
    #[error("bundle: {path} is no regular file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Another writer is writing the bundle.
    #[error("bundle: {path} is being written by another process, or by another writer of this one")]
    Busy {
        /// The staged file.
        path: PathBuf,
    },
    /// A frame was added whose key does not come after that of the frame before it, or an artifact after
    /// an alias.
    #[error(
        "bundle: the entry {key} is out of order: add artifacts and then aliases, each by ascending key"
    )]
    OutOfOrder {
        /// The key of the frame.
        key: PipelineFingerprint,
    },
    /// What was added is not the frame of its key: see [`Artifact::to_frame`](crate::Artifact::to_frame).
    #[error("bundle: what was added for the entry {key} is not the frame of that key")]
    NotItsFrame {
        /// The key.
        key: PipelineFingerprint,
    },
    /// There are more than [`MAX_ENTRIES`](super::MAX_ENTRIES) entries.
    #[error(
        "bundle: {entries} entries are too many for one bundle, which has at most {MAX_ENTRIES}: make several"
    )]
    TooManyEntries {
        /// How many there are, as far as was counted.
        entries: u64,
    },
    /// The call was made outside of a tokio runtime.
    #[error("a bundle cannot be opened or written outside of a tokio runtime")]
    NoRuntime,
    /// The cache whose entries are bundled failed.
    #[error("bundle: cannot read the entries")]
    Source(#[from] StoreError),
    /// A system call failed.
    #[error("bundle: cannot {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl BundleError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
