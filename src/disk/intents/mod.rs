//! Intents of writes: which entries another tier is still to be given, kept over restarts.
//!
//! They protect no entry from eviction: the bounds of the folder are a promise too, and what was just
//! compiled is evicted last. An intent whose entry is gone is dropped when it is offered.

mod folder;

use async_trait::async_trait;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::DiskCache;
use super::directory::Directory;
use super::error::Fault;
use super::report::DiskCacheIntents;
use super::shared::Shared;
use crate::key::PipelineFingerprint;
use crate::store::{
    IntentClaim, IntentList, IntentsAdded, StoreError, StoreOperation, WriteIntents,
};
use crate::sync::lock::lock;
use folder::IntentFolder;
pub(super) use folder::forget;

const OPERATION: StoreOperation = StoreOperation::WriteIntent;

/// How many intents are kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct IntentBounds {
    /// For each tier. 0: none is kept.
    pub(super) max: usize,
    pub(super) max_age: Duration,
}

impl Default for IntentBounds {
    fn default() -> Self {
        Self {
            max: 10_000,
            max_age: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

impl IntentBounds {
    /// How many are counted: others may have added more than are kept.
    fn counted(&self) -> usize {
        self.max.saturating_mul(2).saturating_add(1)
    }

    /// How many more may be there before they are counted again, and how many are dropped at a time:
    /// a count looks at all of them.
    fn slack(&self) -> usize {
        self.max / 16
    }
}

#[derive(Debug)]
pub(super) struct Intents {
    shared: Arc<Shared>,
    bounds: IntentBounds,
    /// For each tier that this cache has added intents for.
    counts: Mutex<HashMap<String, Count>>,
    /// Whether a failure is logged already, and no success came since.
    in_trouble: AtomicBool,
}

/// How many intents there are for a tier, as far as this cache knows.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// At the last look.
    counted: Option<usize>,
    /// By this cache, since then.
    added: usize,
    /// Whether the names are to be made durable.
    unsynced: bool,
}

impl Intents {
    pub(super) fn new(shared: &Arc<Shared>, bounds: IntentBounds) -> Self {
        Self {
            shared: Arc::clone(shared),
            bounds,
            counts: Mutex::default(),
            in_trouble: AtomicBool::new(false),
        }
    }

    fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// Runs work on the blocking pool. A close waits for it.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.require_runtime(OPERATION)?;
        let token = self.shared.tasks.token();
        self.shared.check_open(OPERATION)?;
        let intents = Arc::clone(self);
        let done = self.shared.operations.run(move || {
            let _token = token;
            work(&intents)
        });
        done.await.map_err(|error| self.failed(error))
    }

    /// A folder that takes no files fails every time: only the first failure is a warning.
    fn failed(&self, error: io::Error) -> StoreError {
        if !self.in_trouble.swap(true, Ordering::Relaxed) {
            return self.shared.failed(OPERATION, None, Fault::Io(error));
        }
        tracing::debug!(tier = %self.shared, %error, "write intents not kept");
        Fault::Io(error).into_store_error(self.shared.to_string(), OPERATION)
    }

    fn add(&self, tier: &str, keys: &[PipelineFingerprint]) -> io::Result<IntentsAdded> {
        let folder = IntentFolder::of(self.directory(), tier);
        let mut answer = IntentsAdded::default();
        let mut added = 0;
        for key in keys {
            // Only now: where nothing is to be kept, no folder is made.
            if !matches!(self.directory().contains(key), Ok(true)) {
                answer.missing.push(*key);
                continue;
            }
            if added == 0 {
                folder.create(self.directory(), tier)?;
            }
            folder.add(self.directory(), key)?;
            added += 1;
        }
        if added > 0 {
            answer.dropped = self.keep_bound(&folder, tier, added)?;
            self.in_trouble.store(false, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// Counts what was added, and drops the oldest where there are too many; how many those were.
    fn keep_bound(&self, folder: &IntentFolder, tier: &str, added: usize) -> io::Result<u64> {
        let (max, slack) = (self.bounds.max, self.bounds.slack());
        {
            let mut counts = lock(&self.counts);
            let count = counts.entry(tier.to_owned()).or_default();
            (count.added, count.unsynced) = (count.added + added, true);
            let fits = |counted: usize| counted + count.added <= max && count.added <= slack;
            if count.counted.is_some_and(fits) {
                return Ok(0);
            }
        }
        let intents = folder.intents(self.bounds.counted())?;
        let excess = match intents.len() > max {
            true => intents.len() - (max - slack),
            false => 0,
        };
        let mut dropped = 0;
        for intent in &intents[..excess] {
            dropped += u64::from(folder.remove(&intent.key)?);
        }
        let mut counts = lock(&self.counts);
        let count = counts.entry(tier.to_owned()).or_default();
        (count.counted, count.added) = (Some(intents.len() - excess), 0);
        Ok(dropped)
    }

    fn list(&self, tier: &str) -> io::Result<IntentList> {
        let folder = IntentFolder::of(self.directory(), tier);
        let intents = folder.intents(self.bounds.counted())?;
        let old = intents.partition_point(|intent| intent.is_older_than(self.bounds.max_age));
        let mut answer = IntentList::default();
        for intent in &intents[..old] {
            answer.dropped += u64::from(folder.remove(&intent.key)?);
        }
        let keys = intents[old..].iter().map(|intent| intent.key);
        answer.keys = keys.take(self.bounds.max).collect();
        Ok(answer)
    }

    fn claim(&self, tier: &str) -> io::Result<Option<IntentClaim>> {
        match IntentFolder::of(self.directory(), tier).lock(self.directory()) {
            Ok(locked) => Ok(Some(IntentClaim::new(ReleasedOnPool(Some(locked))))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // As in a folder of another user, or on a file system without locks.
            Err(_) => Ok(Some(IntentClaim::new(()))),
        }
    }

    /// Makes the names of the intents durable that were added since the last call.
    pub(super) async fn sync(
        self: &Arc<Self>,
        operation: StoreOperation,
    ) -> Result<(), StoreError> {
        let tiers: Vec<String> = {
            let mut counts = lock(&self.counts);
            let unsynced = counts.iter_mut().filter(|(_, count)| count.unsynced);
            let tiers = unsynced.map(|(tier, count)| {
                count.unsynced = false;
                tier.clone()
            });
            tiers.collect()
        };
        if tiers.is_empty() {
            return Ok(());
        }
        let intents = Arc::clone(self);
        let synced = self.shared.run_in_background(move |shared| {
            let synced = tiers
                .iter()
                .try_for_each(|tier| IntentFolder::of(&shared.directory, tier).sync());
            let synced = synced.and_then(|()| shared.directory.sync_intents());
            if synced.is_err() {
                let mut counts = lock(&intents.counts);
                let failed = tiers
                    .iter()
                    .filter_map(|tier| counts.get_mut(tier).map(|c| c.unsynced = true));
                failed.for_each(drop);
            }
            synced
        });
        let failed = |error| self.shared.failed(operation, None, Fault::Io(error));
        synced.await.map_err(failed)
    }

    /// Removes what is left for tiers that nothing was added for or taken from for so long that all of
    /// it is too old.
    pub(super) fn sweep(&self) {
        for folder in IntentFolder::all(self.directory()).unwrap_or_default() {
            // What stays costs a little space, until the next sweep.
            let _ = folder.remove_if_unused(self.bounds.max_age, self.bounds.counted());
        }
    }
}

/// A file that is closed on the blocking pool.
struct ReleasedOnPool(Option<std::fs::File>);

impl Drop for ReleasedOnPool {
    fn drop(&mut self) {
        crate::sync::blocking::discard(self.0.take());
    }
}

impl DiskCache {
    /// How many intents of writes are kept here for each tier, for operators. See
    /// [`WriteIntents`].
    ///
    /// # Errors
    ///
    /// When they cannot be listed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
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
    /// let intents = cache.write_intents().expect("kept by default");
    /// intents.add("remote(https://cache.example.com)", &[key]).await?;
    ///
    /// for kept in cache.intents().await? {
    ///     println!("{} for {}", kept.intents, kept.tier.as_deref().unwrap_or("?"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn intents(&self) -> Result<Vec<DiskCacheIntents>, StoreError> {
        self.shared.require_runtime(StoreOperation::List)?;
        let at_most = self
            .intents
            .as_ref()
            .map_or(0, |intents| intents.bounds.counted());
        let listed = self.shared.run_in_background(move |shared| {
            let mut all = Vec::new();
            for folder in IntentFolder::all(&shared.directory)? {
                let intents = folder.intents(at_most)?;
                if let Some(oldest) = intents.first() {
                    all.push(DiskCacheIntents {
                        tier: folder.tier(),
                        intents: intents.len() as u64,
                        oldest: oldest.since,
                    });
                }
            }
            all.sort_by(|a, b| a.tier.cmp(&b.tier));
            Ok(all)
        });
        let failed = |error| {
            self.shared
                .failed(StoreOperation::List, None, Fault::Io(error))
        };
        listed.await.map_err(failed)
    }

    fn kept_intents(&self) -> Result<&Arc<Intents>, StoreError> {
        let none = || {
            self.shared
                .error(crate::store::StoreErrorKind::ReadOnly, OPERATION)
        };
        self.intents.as_ref().ok_or_else(none)
    }
}

/// In the subfolder `intents`, for all caches on the folder together.
#[async_trait]
impl WriteIntents for DiskCache {
    async fn add(
        &self,
        tier: &str,
        keys: &[PipelineFingerprint],
    ) -> Result<IntentsAdded, StoreError> {
        let (tier, keys) = (tier.to_owned(), keys.to_vec());
        let intents = self.kept_intents()?;
        intents.run(move |intents| intents.add(&tier, &keys)).await
    }

    async fn remove(&self, tier: &str, keys: &[PipelineFingerprint]) -> Result<(), StoreError> {
        let (tier, keys) = (tier.to_owned(), keys.to_vec());
        let remove = move |intents: &Intents| {
            let folder = IntentFolder::of(intents.directory(), &tier);
            keys.iter().try_for_each(|key| folder.remove(key).map(drop))
        };
        self.kept_intents()?.run(remove).await
    }

    async fn list(&self, tier: &str) -> Result<IntentList, StoreError> {
        let tier = tier.to_owned();
        let intents = self.kept_intents()?;
        intents.run(move |intents| intents.list(&tier)).await
    }

    async fn claim(&self, tier: &str) -> Result<Option<IntentClaim>, StoreError> {
        let tier = tier.to_owned();
        let intents = self.kept_intents()?;
        intents.run(move |intents| intents.claim(&tier)).await
    }
}
