//! What an operator does to a folder: list it, verify it, trim it, empty it. Lists are streams of
//! small steps that run beside the cache's users and hold no more than one step in memory.

use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use std::fs::DirEntry;
use std::sync::Arc;
use std::time::SystemTime;

use super::DiskCache;
use super::directory::Found;
use super::error::{Fault, at};
use super::files::{look, not_in_future};
use super::gc::survey::{Listing, Named, inspect};
use super::reader::Reader;
use super::report::{DiskCacheEntry, DiskCacheHealth, DiskCacheTrimReport, DiskCacheVerification};
use super::shared::Shared;
use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreOperation};
use crate::sync::blocking;

/// How many entries are verified at once.
const CONCURRENT_VERIFICATIONS: usize = 4;

impl DiskCache {
    /// All entries, in no order. An entry that is stored or removed meanwhile may be among them or
    /// not.
    ///
    /// This counts neither as a lookup nor as a use of an entry.
    ///
    /// # Errors
    ///
    /// The stream ends with an error when the folder cannot be listed. An entry that cannot be
    /// inspected is an error, too, and the stream goes on after it.
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
    /// // One of them:
    /// assert!(cache.entry(&key).await?.is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn entries(&self) -> BoxStream<'static, Result<DiskCacheEntry, StoreError>> {
        steps(
            &self.shared,
            StoreOperation::List,
            |shared, key, named, file| {
                if named == Named::Aside {
                    return Ok(None);
                }
                let seen = inspect(key, file)?;
                Ok(seen.map(|seen| entry(shared, key, seen.bytes, seen.used)))
            },
        )
    }

    /// The keys of all entries, in no order. Looks at no file.
    pub(crate) fn keys(&self) -> BoxStream<'static, Result<PipelineFingerprint, StoreError>> {
        keys(&self.shared, StoreOperation::List)
    }

    /// One entry, as [`entries`](Self::entries) lists it. `None` where there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be inspected, or is no regular file.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn entry(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<DiskCacheEntry>, StoreError> {
        self.shared.require_runtime(StoreOperation::List)?;
        let (key, shared) = (*key, Arc::clone(&self.shared));
        let found = self.shared.operations.run(move || {
            let path = shared.directory.entry(&key);
            let Some(metadata) = look(&path)? else {
                return Ok(None);
            };
            let used = metadata.modified().map_err(at("inspect", &path))?;
            Ok(Some(entry(
                &shared,
                key,
                metadata.len(),
                not_in_future(used),
            )))
        });
        let failed = |fault| self.shared.failed(StoreOperation::List, Some(&key), fault);
        found.await.map_err(failed)
    }

    /// Reads and verifies every entry, and sets corrupt ones aside. What this cache's settings keep it
    /// from judging is [`DiskCacheHealth::Foreign`], and stays. For an operator or a cron job: every
    /// lookup verifies what it reads anyway.
    ///
    /// Entries come in no order. This counts neither as a lookup nor as a use of an entry.
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
    /// use pipeline_cache::disk::DiskCacheHealth;
    /// use pipeline_cache::{DiskCache, PipelineFingerprint};
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
        let reader = Arc::clone(&self.reader);
        let shared = Arc::clone(&self.shared);
        let counted = async move {
            let mut of = 0_u64;
            let mut names = keys(&shared, StoreOperation::Verify);
            while let Some(name) = names.next().await {
                match name {
                    Ok(_) => of += 1,
                    Err(error) => return stream::iter([Err(error)]).boxed(),
                }
            }
            verify(reader, shared, of)
        };
        stream::once(counted).flatten().boxed()
    }

    /// Removes entries, in the [order of eviction](super::DiskCacheBuilder::eviction_order), until the
    /// folder is within the builder's
    /// [`max_bytes`](super::DiskCacheBuilder::max_bytes),
    /// [`max_entries`](super::DiskCacheBuilder::max_entries) and
    /// [`max_age`](super::DiskCacheBuilder::max_age). Also removes all corrupt entries that were set
    /// aside.
    ///
    /// Looks at every name in the folder, once for each 65,536 entries that it removes, with at most
    /// 8 MiB of memory. Other caches on the folder may go on, and trim too: what they store or use
    /// meanwhile stays. Files that are no entries stay.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed. When entries cannot be inspected or removed, after the
    /// others have been: the first of these errors, and how many more there are. Of kind
    /// [`StoreErrorKind::Closed`](crate::StoreErrorKind::Closed) when the cache is closed meanwhile.
    ///
    /// # Cancel safety
    ///
    /// A dropped trim has removed some of the entries.
    pub async fn trim(&self) -> Result<DiskCacheTrimReport, StoreError> {
        self.shared.require_runtime(StoreOperation::Trim)?;
        self.collector.trim().await
    }

    /// Removes every entry, and what was set aside, and every source alias that is kept here. Returns how
    /// many entries there were, without aliases. Files that
    /// are no entries stay, and entries that others put meanwhile may stay.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed. When an entry cannot be inspected or removed, after the
    /// others have been. Of kind [`StoreErrorKind::Closed`](crate::StoreErrorKind::Closed) where the
    /// cache is closed.
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
        let shared = &self.shared;
        shared.require_runtime(operation)?;
        shared.check_open(operation)?;
        // A key with nothing but a file that was set aside is removed as well: a flush has nothing
        // more to report of it.
        let mut entries = steps(shared, operation, |_, key, _, file| {
            Ok(inspect(key, file)?.map(|_| key))
        });
        let (mut removed, mut failure) = (0, None);
        while let Some(key) = entries.next().await {
            let key = match key {
                Ok(key) => key,
                Err(error) => {
                    failure.get_or_insert(error);
                    continue;
                }
            };
            match self.writer.remove_entry(key, operation).await? {
                Ok(gone) => removed += u64::from(gone),
                // Another process has put something else under the name.
                Err(Fault::NotAFile(_)) => {}
                Err(fault) if failure.is_none() => {
                    failure = Some(shared.failed(operation, Some(&key), fault));
                }
                Err(fault) => {
                    tracing::debug!(%key, %fault, "clear: cannot remove entry; only the first failure is reported")
                }
            }
        }
        if let Some(aliases) = &self.aliases {
            let cleared = Box::pin(aliases.clear()).await;
            failure = failure.or(cleared.err());
        }
        failure.map_or(Ok(removed), Err)
    }
}

fn entry(
    shared: &Shared,
    key: PipelineFingerprint,
    bytes: u64,
    last_used: SystemTime,
) -> DiskCacheEntry {
    let (metadata, foreign) = match shared.directory.metadata(&key) {
        Some(Ok(metadata)) => (Some(metadata), None),
        Some(Err(why)) => (None, Some(why).filter(|why| why.is_foreign())),
        None => (None, None),
    };
    DiskCacheEntry {
        key,
        bytes,
        last_used,
        metadata,
        foreign,
    }
}

/// What `each` makes of the names in the folder, step by step on the blocking pool. Takes no permits:
/// the reader of a stream may start an operation, and read on only when that is over.
fn steps<T, F>(
    shared: &Arc<Shared>,
    operation: StoreOperation,
    each: F,
) -> BoxStream<'static, Result<T, StoreError>>
where
    T: Send + 'static,
    F: Fn(&Shared, PipelineFingerprint, Named, &DirEntry) -> Result<Option<T>, Fault>
        + Copy
        + Send
        + 'static,
{
    let shared = Arc::clone(shared);
    let steps = stream::try_unfold(Next::Open, move |next| {
        let shared = Arc::clone(&shared);
        async move {
            shared.require_runtime(operation)?;
            let step = shared.run_in_background(move |shared| {
                let mut listing = match next {
                    Next::Open => Listing::open(&shared.directory)?,
                    Next::More(listing) => listing,
                    Next::End => return Ok(None),
                };
                let mut found = Vec::new();
                let more = listing.step(&shared.directory, |key, named, file| {
                    let found_one = each(shared, key, named, file);
                    let failed = |fault| shared.failed(operation, Some(&key), fault);
                    found.extend(found_one.map_err(failed).transpose());
                })?;
                let next = if more { Next::More(listing) } else { Next::End };
                Ok(Some((stream::iter(found), next)))
            });
            let step = step.await;
            step.map_err(|fault| shared.failed(operation, None, fault))
        }
    });
    steps.try_flatten().boxed()
}

/// Where a pass over the folder goes on.
enum Next {
    Open,
    More(Listing),
    End,
}

/// The keys under which there is a file.
fn keys(
    shared: &Arc<Shared>,
    operation: StoreOperation,
) -> BoxStream<'static, Result<PipelineFingerprint, StoreError>> {
    steps(shared, operation, |_, key, named, _| {
        Ok((named == Named::Entry).then_some(key))
    })
}

fn verify(
    reader: Arc<Reader>,
    shared: Arc<Shared>,
    of: u64,
) -> BoxStream<'static, Result<DiskCacheVerification, StoreError>> {
    let checks = keys(&shared, StoreOperation::Verify).map_ok(move |key| {
        let (reader, shared) = (Arc::clone(&reader), Arc::clone(&shared));
        async move { Ok(blocking::blocking(move || check(&reader, &shared, key)).await) }
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

/// Verifies one entry. `None` where it is gone.
fn check(
    reader: &Reader,
    shared: &Shared,
    key: PipelineFingerprint,
) -> Option<(PipelineFingerprint, u64, DiskCacheHealth)> {
    let path = shared.directory.entry(&key);
    let bytes = std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    let health = match shared.directory.examine(&key, |_, _| ()) {
        Ok(Found::Whole(_)) => DiskCacheHealth::Whole,
        Ok(Found::Missing) => return None,
        Ok(Found::Corrupt(file, error)) => {
            reader.set_aside(&key, &file, error);
            DiskCacheHealth::Corrupt(error)
        }
        Ok(Found::Foreign(_, why)) => DiskCacheHealth::Foreign(why),
        Err(Fault::NotAFile(_)) => DiskCacheHealth::Unsafe,
        Err(fault) => {
            let error = shared.failed(StoreOperation::Verify, Some(&key), fault);
            DiskCacheHealth::Unreadable(error)
        }
    };
    Some((key, bytes, health))
}
