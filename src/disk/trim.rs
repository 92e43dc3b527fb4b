//! Trim: the folder brought back within its bounds, the least recently used entries first.
//!
//! An entry's time of use is its file's modification time, which a hit renews when it is an hour
//! old: far cheaper than keeping an index, and shared by all processes on the folder. A trim looks
//! at names and lengths in one pass, then removes entry by entry, so that it never holds up the
//! others and can be dropped at any time.

use std::cmp::Reverse;
use std::fs::{self, File};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::error::{Fault, at};
use super::folder::{Folder, look};
use super::{DiskCache, Inner};
use crate::{PipelineFingerprint, StoreError, StoreOperation};

/// How old a time of use gets before a hit renews it.
const USE_GRANULARITY: Duration = Duration::from_secs(60 * 60);

/// The bounds that a trim brings a folder back within. `None` is no bound.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bounds {
    pub(super) max_bytes: Option<u64>,
    pub(super) max_entries: Option<u64>,
    pub(super) max_age: Option<Duration>,
}

/// What a trim did.
///
/// ```
/// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::builder()
///     .root(folder.path())
///     .max_entries(2)
///     .open()
///     .await?;
/// for number in 0..5 {
///     let key = PipelineFingerprint::from_bytes([number; 32]);
///     cache.put(&key, Artifact::new("code")).await?;
/// }
/// let report = cache.trim().await?;
/// assert_eq!((report.scanned, report.removed), (5, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCacheTrimReport {
    /// Entries that were found.
    pub scanned: u64,
    /// Bytes of their files.
    pub scanned_bytes: u64,
    /// Entries that were removed.
    pub removed: u64,
    /// Bytes of their files.
    pub removed_bytes: u64,
    /// When the least recently used of the entries that stay was used, to within an hour.
    pub oldest_kept: Option<SystemTime>,
    /// How long it took.
    pub elapsed: Duration,
}

/// An entry as a trim sees it.
#[derive(Debug, Clone, Copy)]
struct Scanned {
    used: SystemTime,
    bytes: u64,
    key: PipelineFingerprint,
}

impl DiskCache {
    /// Removes the least recently used entries until the folder is within the builder's
    /// [`max_bytes`](super::DiskCacheBuilder::max_bytes),
    /// [`max_entries`](super::DiskCacheBuilder::max_entries) and
    /// [`max_age`](super::DiskCacheBuilder::max_age), and all corrupt entries that were set aside.
    ///
    /// Looks at every name in the folder, with about 64 bytes of memory for each entry. Others may
    /// go on: what they store or use meanwhile stays. What is no entry is left alone.
    ///
    /// # Errors
    ///
    /// When the folder cannot be listed, and when an entry cannot be removed, after the others
    /// have been.
    ///
    /// # Cancel safety
    ///
    /// A dropped trim has removed some of what it was to remove.
    pub async fn trim(&self) -> Result<DiskCacheTrimReport, StoreError> {
        self.inner.trim().await
    }
}

impl Inner {
    async fn trim(self: &Arc<Self>) -> Result<DiskCacheTrimReport, StoreError> {
        let operation = StoreOperation::Trim;
        let _token = self.tasks.token();
        self.check_open(operation)?;
        let start = Instant::now();
        let scanned = self.run(|inner| scan(&inner.folder)).await;
        let scanned = scanned.map_err(|fault| self.failed(operation, None, fault))?;
        let mut report = DiskCacheTrimReport {
            scanned: scanned.len() as u64,
            scanned_bytes: scanned.iter().map(|entry| entry.bytes).sum(),
            removed: 0,
            removed_bytes: 0,
            oldest_kept: None,
            elapsed: Duration::ZERO,
        };
        let bounds = self.bounds;
        let (evicted, oldest_kept) = self.run(move |_| bounds.evict(scanned)).await;
        report.oldest_kept = oldest_kept;

        let mut failure = None;
        for entry in evicted {
            // As a removal does, so that it does not remove what a put has just stored.
            let turn = self.turns.of(&entry.key).await;
            let removed = self.run(move |inner| {
                let _turn = turn;
                inner.evict(&entry)
            });
            match removed.await {
                Ok(true) => {
                    report.removed += 1;
                    report.removed_bytes += entry.bytes;
                }
                Ok(false) => {}
                Err(fault) => {
                    failure = Some(self.failed(operation, Some(&entry.key), fault));
                }
            }
        }
        report.elapsed = start.elapsed();
        tracing::debug!(tier = %self, ?report, "trimmed");
        failure.map_or(Ok(report), Err)
    }

    /// Removes an entry unless it was used or stored anew since it was scanned.
    fn evict(&self, entry: &Scanned) -> Result<bool, Fault> {
        let path = self.folder.entry(&entry.key);
        let now = look(&path)?.and_then(|metadata| metadata.modified().ok());
        if now != Some(entry.used) {
            return Ok(false);
        }
        let removed = self.folder.remove(&entry.key)?;
        self.ledger.forget(&entry.key);
        if removed {
            self.counters.evictions.increment();
            self.counters.evicted_bytes.add(entry.bytes);
        }
        Ok(removed)
    }
}

impl Bounds {
    /// What must go, the least recently used first, and when the first that stays was used.
    fn evict(&self, mut entries: Vec<Scanned>) -> (Vec<Scanned>, Option<SystemTime>) {
        let expired = self
            .max_age
            .and_then(|age| SystemTime::now().checked_sub(age));
        // The most recently used first, as long as they fit.
        entries.sort_unstable_by_key(|entry| Reverse((entry.used, entry.key)));
        let (mut kept, mut bytes) = (0, 0_u64);
        for entry in &entries {
            bytes = bytes.saturating_add(entry.bytes);
            let fits = self.max_entries.is_none_or(|max| kept < max)
                && self.max_bytes.is_none_or(|max| bytes <= max)
                && expired.is_none_or(|expired| entry.used >= expired);
            if !fits {
                break;
            }
            kept += 1;
        }
        // No more are kept than there are.
        let mut evicted = entries.split_off(kept as usize);
        evicted.reverse();
        (evicted, entries.last().map(|entry| entry.used))
    }
}

/// All entries of a folder. Removes what was set aside.
fn scan(folder: &Folder) -> Result<Vec<Scanned>, Fault> {
    let mut entries = Vec::new();
    let files = match fs::read_dir(&folder.root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(entries),
        files => files.map_err(at("list", &folder.root))?,
    };
    for file in files {
        let file = file.map_err(at("list", &folder.root))?;
        let name = file.file_name();
        let Some((key, ending)) = name.to_str().and_then(|name| name.split_once('.')) else {
            continue;
        };
        let Ok(key) = key.parse() else { continue };
        let path = file.path();
        match (ending, look(&path)) {
            ("bin", Ok(Some(metadata))) => entries.push(Scanned {
                used: metadata.modified().map_err(at("inspect", &path))?,
                bytes: metadata.len(),
                key,
            }),
            ("corrupt", Ok(Some(_))) => fs::remove_file(&path).map_err(at("remove", &path))?,
            // Gone meanwhile, or nothing that a cache made.
            _ => {}
        }
    }
    Ok(entries)
}

/// Renews an entry's time of use. Where that is not permitted, the entry is the next to go.
pub(super) fn renew_use(file: &File, used: Option<SystemTime>) {
    let now = SystemTime::now();
    let age = used.and_then(|used| now.duration_since(used).ok());
    if age.is_some_and(|age| age >= USE_GRANULARITY) {
        let _ = file.set_modified(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Artifact, PipelineCacheStore as _};

    #[tokio::test]
    async fn what_was_used_since_the_scan_stays() {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::new(folder.path()).await.unwrap();
        let key = PipelineFingerprint::from_bytes([1; 32]);
        cache.put(&key, Artifact::new("code")).await.unwrap();
        let seen = scan(&cache.inner.folder).unwrap()[0];
        let before = Scanned {
            used: seen.used - USE_GRANULARITY,
            ..seen
        };
        assert!(!cache.inner.evict(&before).unwrap());
        assert!(cache.inner.evict(&seen).unwrap());
        assert!(!cache.inner.evict(&seen).unwrap());
        assert_eq!(cache.metrics().evictions, 1);
    }
}
