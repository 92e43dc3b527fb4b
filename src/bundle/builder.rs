//! The settings of a bundle that is read, and how it is opened.

use std::path::PathBuf;
use tokio::runtime::Handle;

use super::cache::BundleCache;
use super::error::BundleError;
#[cfg(feature = "signatures")]
use crate::artifact::TrustedSigners;
use crate::artifact::frame::FrameFormat;
use crate::artifact::{SharedSecret, TrustedKeys};
use crate::sync::blocking;

impl BundleCache {
    /// Opens a bundle with the defaults of [`BundleCacheBuilder`].
    ///
    /// # Errors
    ///
    /// As [`BundleCacheBuilder::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`BundleCacheBuilder::open`].
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, BundleError> {
        Self::builder().open(path).await
    }

    /// Settings other than the defaults.
    pub fn builder() -> BundleCacheBuilder {
        BundleCacheBuilder::default()
    }
}

/// Settings of a [`BundleCache`]. The path of the bundle is given to [`open`](Self::open).
///
/// ```
/// use pipeline_cache::{BundleCache, BundleWriter, SharedSecret};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pipeline_cache::BundleError> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("shaders.bundle");
/// # BundleWriter::create(&path).await?.finish().await?;
/// let bundle = BundleCache::builder()
///     .shared_secret(SharedSecret::new("at least 16 random bytes"))
///     // Each read holds one artifact in memory: at most 16 of 8 MiB at once.
///     .max_artifact_bytes(8 << 20)
///     .max_concurrent_operations(16)
///     .open(&path)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct BundleCacheBuilder {
    max_artifact_bytes: u64,
    trusted_keys: Option<TrustedKeys>,
    #[cfg(feature = "signatures")]
    trusted_signers: Option<TrustedSigners>,
    max_concurrent_operations: usize,
}

impl Default for BundleCacheBuilder {
    fn default() -> Self {
        Self {
            max_artifact_bytes: 64 << 20,
            trusted_keys: None,
            #[cfg(feature = "signatures")]
            trusted_signers: None,
            max_concurrent_operations: 64,
        }
    }
}

impl BundleCacheBuilder {
    /// The largest payload that is served, in bytes. A larger entry is
    /// [`Fetched::Refused`](crate::Fetched::Refused). Default: 64 MiB.
    pub fn max_artifact_bytes(mut self, bytes: u64) -> Self {
        self.max_artifact_bytes = bytes;
        self
    }

    /// Serves only entries made with this secret. The same as [`trusted_keys`](Self::trusted_keys) with
    /// one secret. Default: none, every whole entry is served.
    pub fn shared_secret(self, secret: SharedSecret) -> Self {
        self.trusted_keys(secret.into())
    }

    /// Serves only entries made with one of these secrets. Any other is
    /// [`Fetched::Refused`](crate::Fetched::Refused). Default: none, every whole entry is served, and one
    /// that was made with a secret is refused.
    pub fn trusted_keys(mut self, keys: TrustedKeys) -> Self {
        self.trusted_keys = Some(keys);
        self
    }

    /// Serves only artifacts that one of these signers has signed. Any other is
    /// [`Fetched::Refused`](crate::Fetched::Refused). Default: signatures are not demanded.
    #[cfg(feature = "signatures")]
    pub fn trusted_signers(mut self, signers: TrustedSigners) -> Self {
        self.trusted_signers = Some(signers);
        self
    }

    /// The most reads that run at once on the runtime's blocking pool, each with one artifact in memory.
    /// Others wait. On Linux, the same number of large entries may be read on workers as well. Default:
    /// 64. At least 1.
    pub fn max_concurrent_operations(mut self, operations: usize) -> Self {
        self.max_concurrent_operations = operations.max(1);
        self
    }

    /// Opens a bundle: reads its index, 40 bytes for each entry, and no frame.
    ///
    /// # Errors
    ///
    /// [`BundleError::Damaged`] where it is no bundle, of another version, not complete, or its index is
    /// damaged. [`BundleError::NotAFile`], [`BundleError::Io`] and [`BundleError::NoRuntime`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn open(self, path: impl Into<PathBuf>) -> Result<BundleCache, BundleError> {
        if Handle::try_current().is_err() {
            return Err(BundleError::NoRuntime);
        }
        let path = path.into();
        let (operations, format) = (self.max_concurrent_operations, self.format());
        blocking::blocking(move || BundleCache::open_blocking(path, format, operations)).await
    }

    fn format(self) -> FrameFormat {
        let format = FrameFormat::new(self.trusted_keys, self.max_artifact_bytes);
        #[cfg(feature = "signatures")]
        let format = FrameFormat {
            signers: self.trusted_signers,
            ..format
        };
        format
    }
}
