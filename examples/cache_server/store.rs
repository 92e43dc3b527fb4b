//! An object store below the folder, which several servers may share.
//!
//! What the folder does not have is asked of the store, once for all clients that want it at the
//! time, and kept in the folder. What is uploaded is in the folder when its client is answered, and
//! goes to the store in the background. What the store could not take is offered again, also after a
//! restart: the folder remembers it. A store that is down costs a request a bounded time, and nothing
//! once its circuit breaker is open.

use bytes::Bytes;
use pipeline_cache::layered::{CloseReport, LayeredMetrics, TierOutcome};
use pipeline_cache::{
    Artifact, DiskCache, LayeredPipelineCache, LookupOptions, PipelineCacheStore,
    PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation, TrustedKeys,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::blocking;
use crate::folder::Folder;
use crate::http_server::console::say;

/// How long a lookup goes on for the sake of later clients.
const LOOKUP: Duration = Duration::from_secs(30);

/// How long a write to the store may take.
const WRITE: Duration = Duration::from_secs(60);

/// How long an upload waits for its place among the writes in the background. After that the folder
/// remembers that the store lacks it.
const UPLOAD_WAIT: Duration = Duration::from_secs(1);

/// How long a removal waits for the store.
const REMOVE_WAIT: Duration = Duration::from_secs(10);

/// What may wait for the store in memory, or one artifact of the largest size. More is read from the
/// folder when its turn comes.
const BEHIND_ENTRIES: usize = 1024;
const BEHIND_BYTES: u64 = 64 << 20;

/// A clone is another handle to the same store.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    folder: Folder,
    cache: LayeredPipelineCache,
    name: Arc<str>,
    limits: Arc<StoreLimits>,
    /// Of lookups, which take turns. One that waits for a request of the store while its time runs
    /// would give up although the store is well.
    turns: Arc<Semaphore>,
}

/// What the store says of a key that the folder lacks.
pub(crate) enum Answer {
    Found(Artifact),
    /// It has no such entry, or is left alone for a while because it fails.
    Missing,
    /// It did not answer in time, or its turn did not come.
    Unknown,
}

#[derive(Debug, Clone)]
pub(crate) struct StoreLimits {
    /// How long a client waits for the store.
    pub(crate) wait: Duration,
    pub(crate) max_artifact: u64,
    /// How many lookups are under way at once.
    pub(crate) lookups: usize,
    pub(crate) keys: Option<TrustedKeys>,
}

impl Store {
    /// The store below this folder. It begins to offer what earlier processes left.
    pub(crate) fn new(
        folder: DiskCache,
        store: Arc<dyn PipelineCacheStore>,
        limits: StoreLimits,
    ) -> Self {
        let (folder, name) = (Folder::new(folder), store.to_string());
        let cache = LayeredPipelineCache::builder()
            .tier(folder.clone())
            .shared_tier(store)
            .lookup_deadline(LOOKUP)
            .write_timeout(WRITE)
            .background_limits(BEHIND_ENTRIES, BEHIND_BYTES.max(limits.max_artifact))
            .build();
        Self {
            folder,
            cache,
            name: name.into(),
            turns: Arc::new(Semaphore::new(limits.lookups)),
            limits: Arc::new(limits),
        }
    }

    /// What the store has and the folder lacks. It waits at most twice: for its turn, and for the
    /// answer.
    pub(crate) async fn fetch(&self, key: &PipelineFingerprint) -> Answer {
        let Ok(Ok(_turn)) = timeout(self.limits.wait, self.turns.acquire()).await else {
            return Answer::Unknown;
        };
        let options = LookupOptions::new().deadline(self.limits.wait);
        let lookup = self.cache.lookup(key, &options).await;
        let is_unknown = lookup.tiers().any(|tier| {
            matches!(
                tier.outcome,
                TierOutcome::Failed(_) | TierOutcome::TimedOut | TierOutcome::Cancelled
            )
        });
        match lookup.into_artifact() {
            Some(artifact) => Answer::Found(artifact),
            None if is_unknown => Answer::Unknown,
            None => Answer::Missing,
        }
    }

    /// Whether the store says that it has an entry. One that fails is taken not to have it.
    pub(crate) async fn contains(&self, key: &PipelineFingerprint) -> bool {
        let asked = timeout(self.limits.wait, self.cache.contains(key)).await;
        matches!(asked, Ok(Ok(true)))
    }

    /// Keeps in the folder what the store had. The promotion in the background does so as well; this
    /// one is waited for.
    pub(crate) async fn keep(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<(), StoreError> {
        self.folder.put(key, artifact.clone()).await
    }

    /// The stored form of an artifact, as the folder would have it.
    pub(crate) fn frame(&self, key: &PipelineFingerprint, artifact: &Artifact) -> Option<Bytes> {
        artifact.to_frame(key, self.limits.keys.as_ref()).ok()
    }

    /// The artifact in a frame that was just stored in the folder, and so was verified.
    pub(crate) async fn decode(&self, key: PipelineFingerprint, frame: Bytes) -> Option<Artifact> {
        let limits = Arc::clone(&self.limits);
        let decode = move || {
            let (keys, most) = (limits.keys.as_ref(), limits.max_artifact);
            Artifact::from_frame(&key, &frame, keys, most).map_err(std::io::Error::other)
        };
        blocking::run(decode).await.ok()
    }

    /// Offers the store what is in the folder: in the background, unless too much waits there already.
    pub(crate) async fn offer(&self, key: &PipelineFingerprint, artifact: Artifact) {
        // A put that is given up is remembered by the folder. One that fails is left to its caller.
        if let Ok(Err(_)) = timeout(UPLOAD_WAIT, self.cache.put(key, artifact)).await {
            self.remember(key).await;
        }
    }

    /// Lets the folder remember that the store lacks an entry.
    async fn remember(&self, key: &PipelineFingerprint) {
        let Some(intents) = self.folder.write_intents() else {
            return;
        };
        if let Err(error) = intents.add(&self.name, &[*key]).await {
            say(format_args!("an entry may stay out of the store: {error}"));
        }
    }

    /// Removes an entry from the folder and from the store; whether one of them had it. Other servers
    /// on the store keep what is in their folders.
    pub(crate) async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let removed = timeout(REMOVE_WAIT, PipelineCacheStore::remove(&self.cache, key)).await;
        removed.unwrap_or_else(|_| {
            let (kind, operation) = (StoreErrorKind::TimedOut, StoreOperation::Remove);
            Err(StoreError::new(kind, self.name.to_string(), operation))
        })
    }

    /// Whether an error is that of the store, and not of the folder.
    pub(crate) fn failed(&self, error: &StoreError) -> bool {
        error.tier() == &*self.name
    }

    pub(crate) fn metrics(&self) -> LayeredMetrics {
        self.cache.layered_metrics()
    }

    /// Closes the folder as well.
    pub(crate) async fn close(&self, deadline: Duration) -> CloseReport {
        self.cache.close(deadline).await
    }
}
