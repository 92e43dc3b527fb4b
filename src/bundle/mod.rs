//! Bundles: many artifacts in one file, to ship with a program, to put into an image, or to carry to a
//! machine without a network.
//!
//! - [`pack`] writes what a [`DiskCache`](crate::DiskCache) holds to a bundle. [`BundleWriter`] writes
//!   frames of any origin.
//! - [`BundleCache`] serves a bundle as a read-only tier. It opens in milliseconds, however large the
//!   bundle is.
//! - [`unpack`] stores what a bundle holds in a disk cache.
//!
//! A bundle holds entries in their stored form, so that the tag of a [secret](crate::SharedSecret) and the
//! signature of a maker go with them, and are verified where they are read. The same entries make the same
//! bytes, on every machine and on every day: a bundle can be compared, signed and cached by its digest.
//!
//! It also holds the [source aliases](crate::SourceAliases) that a disk cache keeps in its folder
//! `aliases`: without them the reader would have to parse each source to learn its key. An alias names
//! no artifact of one scope, so all of them go with any choice of artifacts. Each takes about 240 bytes.
//!
//! ```
//! use pipeline_cache::bundle::{self, PackOptions};
//! use pipeline_cache::{
//!     Artifact, BundleCache, DiskCache, InMemoryPipelineCache, LayeredPipelineCache,
//!     PipelineCacheStore, PipelineFingerprint,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let build = DiskCache::new(folder.path().join("build")).await?;
//! let key = PipelineFingerprint::from_bytes([1; 32]);
//! build.put(&key, Artifact::new("code")).await?;
//! let path = folder.path().join("shaders.bundle");
//! let report = bundle::pack(&build, &path, &PackOptions::default(), |_progress| {}).await?;
//! assert_eq!(report.written.entries, 1);
//!
//! // On another machine. Before the disk tier, so that hits are not copied to the disk.
//! let cache = LayeredPipelineCache::builder()
//!     .tier(InMemoryPipelineCache::new())
//!     .tier(BundleCache::open(&path).await?)
//!     .tier(DiskCache::new(folder.path().join("own")).await?)
//!     .build();
//! assert_eq!(cache.get(&key).await, Some(Artifact::new("code")));
//! # Ok(())
//! # }
//! ```

// - index: the form of a bundle, byte by byte
// - error: why a bundle is not written or read
// - file: the system calls
// - writer: frames to a staged file, which is renamed or continued
// - builder, cache: the tier
// - transfer: from a disk cache and to one
mod builder;
mod cache;
mod error;
mod file;
mod index;
mod transfer;
mod writer;

pub use builder::BundleCacheBuilder;
pub use cache::{BundleCache, BundleEntry};
pub use error::BundleError;
pub use index::{BundleDamage, MAX_ENTRIES};
pub use transfer::{BundleProgress, PackOptions, PackReport, UnpackReport, pack, unpack};
pub use writer::{BundleSummary, BundleWriter};
