//! What an operator does to a folder: list it, verify it, empty it. Each is a stream of small
//! steps beside the cache's users, and holds no more than a step in memory.

use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use std::fs::DirEntry;
use std::sync::Arc;
use std::time::SystemTime;

use super::directory::{Found, look};
use super::error::{Fault, at};
use super::gc::survey::{Listing, Named, see};
use super::{DiskCache, Inner};
use crate::artifact::{ArtifactMetadata, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreOperation};

/// How many entries are verified at once.
const CONCURRENT_VERIFICATIONS: usize = 4;

/// An entry of a [`DiskCache`], as [`DiskCache::entries`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCacheEntry {
    /// Its key.
    pub key: PipelineFingerprint,
    /// The bytes of its file.
    pub bytes: u64,
    /// When it was last used, to within an hour.
    pub last_used: SystemTime,
    /// The metadata of the artifact; `None` where the file does not begin as the frame of this key
    /// does. The payload is not looked at.
    pub metadata: Option<ArtifactMetadata>,
}

/// What [`DiskCache::verify`] found of one entry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiskCacheVerification {
    /// The entry's key.
    pub key: PipelineFingerprint,
    /// The bytes of its file.
    pub bytes: u64,
    /// What is the matter with it.
    pub health: DiskCacheHealth,
    /// How many entries have been verified, with this one.
    pub verified: u64,
    /// How many there were at the start. Others may add and remove some meanwhile.
    pub of: u64,
}

/// The health of an entry.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DiskCacheHealth {
    /// Every byte is as it was put.
    Whole,
    /// It is not the artifact of its key. It has been set aside, as a lookup would have done.
    Corrupt(FrameError),
    /// It is no regular file, and is left alone. A put replaces it, unless it is a folder.
    Unsafe,
    /// It cannot be read.
    Unreadable(StoreError),
}

impl DiskCache {
    /// All entries, in no order. What is stored or removed meanwhile may be among them or not.
    ///
    /// Neither counts as a lookup nor as a use of the entries.
    ///
    /// # Errors
    ///
    /// The stream ends with an error when the folder cannot be listed. An entry that cannot be
    /// looked at is an error, too, and the stream goes on after it.
    ///
    /// # Cancel safety
    ///
    /// The stream may be dropped at any time.
    ///
    /// ```
    /// use futures::TryStreamExt as _;
    /// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = DiskCache::new(folder.path()).await?;
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// cache.put(&key, Artifact::new("code")).await?;
    ///
    /// let mut entries = cache.entries();
    /// while let Some(entry) = entries.try_next().await? {
    ///     println!("{} has {} bytes", entry.key, entry.bytes);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn entries(&self) -> BoxStream<'static, Result<DiskCacheEntry, StoreError>> {
        self.inner
            .steps(StoreOperation::List, |inner, key, named, file| {
                if named == Named::Aside {
                    return Ok(None);
                }
                Ok(see(key, file)?.map(|seen| DiskCacheEntry {
                    key,
                    bytes: seen.bytes,
                    last_used: seen.used,
                    metadata: inner.folder.metadata(&key),
                }))
            })
    }

    /// One entry, as [`entries`](Self::entries) would list it; `None` where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be looked at, or is no regular file.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn entry(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<DiskCacheEntry>, StoreError> {
        let key = *key;
        let found = self.inner.run(move |inner| {
            let path = inner.folder.entry(&key);
            let Some(metadata) = look(&path)? else {
                return Ok(None);
            };
            Ok(Some(DiskCacheEntry {
                key,
                bytes: metadata.len(),
                last_used: metadata.modified().map_err(at("inspect", &path))?,
                metadata: inner.folder.metadata(&key),
            }))
        });
        let failed = |fault| self.inner.failed(StoreOperation::List, Some(&key), fault);
        found.await.map_err(failed)
    }

    /// Reads and verifies every entry, and sets aside what is corrupt. For an operator, or a cron
    /// job: every lookup verifies what it reads anyway.
    ///
    /// Entries come in no order. Neither counts as a lookup nor as a use of the entries.
    ///
    /// # Errors
    ///
    /// The stream ends with an error when the folder cannot be listed. An entry that cannot be read
    /// is [`DiskCacheHealth::Unreadable`].
    ///
    /// # Cancel safety
    ///
    /// The stream may be dropped at any time.
    ///
    /// ```
    /// use futures::TryStreamExt as _;
    /// use pipeline_cache::{DiskCache, DiskCacheHealth, PipelineFingerprint};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = DiskCache::new(folder.path()).await?;
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// std::fs::write(folder.path().join(format!("{key}.bin")), "torn")?;
    ///
    /// let mut checks = cache.verify();
    /// while let Some(check) = checks.try_next().await? {
    ///     assert!(matches!(check.health, DiskCacheHealth::Corrupt(_)));
    ///     assert_eq!((check.verified, check.of), (1, 1));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn verify(&self) -> BoxStream<'static, Result<DiskCacheVerification, StoreError>> {
        let inner = Arc::clone(&self.inner);
        let counted = async move {
            let mut of = 0_u64;
            let mut names = inner.keys();
            while let Some(name) = names.next().await {
                match name {
                    Ok(_) => of += 1,
                    Err(error) => return stream::iter([Err(error)]).boxed(),
                }
            }
            inner.verify(of)
        };
        stream::once(counted).flatten().boxed()
    }

    /// Removes every entry, and what was set aside; how many entries there were. What is no entry
    /// is left alone, and what others put meanwhile may stay.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed, and when an entry cannot be looked at or removed, after
    /// the others have been; of kind [`StoreErrorKind::Closed`](crate::StoreErrorKind::Closed)
    /// where the cache is closed.
    ///
    /// # Cancel safety
    ///
    /// A dropped clear has removed some of the entries.
    ///
    /// ```
    /// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = DiskCache::new(folder.path()).await?;
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// cache.put(&key, Artifact::new("code")).await?;
    /// assert_eq!(cache.clear().await?, 1);
    /// assert_eq!(cache.get(&key).await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn clear(&self) -> Result<u64, StoreError> {
        let operation = StoreOperation::Clear;
        let inner = &self.inner;
        let _token = inner.tasks.token();
        inner.check_open(operation)?;
        // With an entry goes what was set aside of it; and where there is only that, a flush has
        // nothing more to tell of the key.
        let mut entries = inner.steps(
            operation,
            |_, key, _, file| Ok(see(key, file)?.map(|_| key)),
        );
        let (mut removed, mut failure) = (0, None);
        while let Some(key) = entries.next().await {
            // A close waits for this.
            inner.check_open(operation)?;
            let key = match key {
                Ok(key) => key,
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            };
            let turn = inner.key_locks.lock(&key).await;
            let gone = inner.run(move |inner| {
                let _turn = turn;
                inner.remove_in_turn(&key)
            });
            match gone.await {
                Ok(gone) => removed += u64::from(gone),
                // Nothing that a cache made has come into its place.
                Err(Fault::NotAFile(_)) => {}
                Err(fault) if failure.is_none() => {
                    failure = Some(inner.failed(operation, Some(&key), fault));
                }
                Err(fault) => tracing::debug!(%key, %fault, "and so did this entry"),
            }
        }
        failure.map_or(Ok(removed), Err)
    }
}

impl Inner {
    /// What `each` makes of the names in the folder, step by step on the blocking pool. Aside from
    /// the operations: whoever reads the stream may start one, and read on only when it is over.
    fn steps<T, F>(
        self: &Arc<Self>,
        operation: StoreOperation,
        each: F,
    ) -> BoxStream<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Fn(&Self, PipelineFingerprint, Named, &DirEntry) -> Result<Option<T>, Fault>
            + Copy
            + Send
            + 'static,
    {
        let inner = Arc::clone(self);
        let steps = stream::try_unfold(Next::Open, move |next| {
            let inner = Arc::clone(&inner);
            async move {
                let step = inner.run_aside(move |inner| {
                    let mut listing = match next {
                        Next::Open => Listing::open(&inner.folder)?,
                        Next::More(listing) => listing,
                        Next::End => return Ok(None),
                    };
                    let mut found = Vec::new();
                    let more = listing.step(&inner.folder, |key, named, file| {
                        let found_one = each(inner, key, named, file);
                        let failed = |fault| inner.failed(operation, Some(&key), fault);
                        found.extend(found_one.map_err(failed).transpose());
                    })?;
                    let next = if more { Next::More(listing) } else { Next::End };
                    Ok(Some((stream::iter(found), next)))
                });
                let step = step.await;
                step.map_err(|fault| inner.failed(operation, None, fault))
            }
        });
        steps.try_flatten().boxed()
    }

    /// The keys under which something stands.
    fn keys(self: &Arc<Self>) -> BoxStream<'static, Result<PipelineFingerprint, StoreError>> {
        self.steps(StoreOperation::Verify, |_, key, named, _| {
            Ok((named == Named::Entry).then_some(key))
        })
    }

    fn verify(
        self: &Arc<Self>,
        of: u64,
    ) -> BoxStream<'static, Result<DiskCacheVerification, StoreError>> {
        let inner = Arc::clone(self);
        let checks = self.keys().map_ok(move |key| {
            let inner = Arc::clone(&inner);
            async move { Ok(inner.run_aside(move |inner| inner.check(key)).await) }
        });
        let mut verified = 0;
        let checks = checks.try_buffered(CONCURRENT_VERIFICATIONS);
        let found = checks.try_filter_map(move |check| {
            let check = check.map(|(key, bytes, health)| {
                verified += 1;
                DiskCacheVerification {
                    key,
                    bytes,
                    health,
                    verified,
                    of,
                }
            });
            ready(Ok(check))
        });
        found.boxed()
    }

    /// Verifies one entry; `None` where it is gone.
    fn check(
        &self,
        key: PipelineFingerprint,
    ) -> Option<(PipelineFingerprint, u64, DiskCacheHealth)> {
        let bytes =
            std::fs::symlink_metadata(self.folder.entry(&key)).map_or(0, |metadata| metadata.len());
        let health = match self.folder.examine(&key, |_, _| ()) {
            Ok(Found::Whole(_)) => DiskCacheHealth::Whole,
            Ok(Found::Missing) => return None,
            Ok(Found::Corrupt(file, error)) => {
                self.set_aside(&key, &file, error);
                DiskCacheHealth::Corrupt(error)
            }
            Err(Fault::NotAFile(_)) => DiskCacheHealth::Unsafe,
            Err(fault) => {
                let error = self.failed(StoreOperation::Verify, Some(&key), fault);
                DiskCacheHealth::Unreadable(error)
            }
        };
        Some((key, bytes, health))
    }
}

/// Where a pass over the folder goes on.
enum Next {
    Open,
    More(Listing),
    End,
}
