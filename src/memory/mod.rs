//! The memory tier: a sharded map for reads, and moka to choose what stays.

mod eviction;
mod index;
mod policy;

pub use eviction::{InMemoryEvictionReason, InMemoryEvictionReport};

use async_trait::async_trait;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

#[cfg(feature = "signatures")]
use crate::artifact::TrustedSigners;
use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::metrics::StoreCounters;
use crate::store::{
    Fetched, PipelineCacheMetrics, PipelineCacheStore, StoreError, StoreErrorKind, StoreOperation,
    alias_bytes,
};
use crate::sync::blocking;
use eviction::Reports;
use index::Index;
use policy::Policy;

/// Artifacts in memory, under a budget of entries and a budget of bytes.
///
/// moka's TinyLFU decides which artifacts stay: frequently requested ones do, and a full cache may
/// not admit an artifact that was never requested before. Both budgets hold at all times, without
/// slack: room is made before an artifact becomes visible. Bytes are
/// those of payloads and of texts in metadata; the cache itself takes about half a kilobyte more
/// for each entry.
///
/// A clone is another handle to the same cache.
///
/// ```
/// use pipeline_cache::{Artifact, InMemoryPipelineCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pipeline_cache::StoreError> {
/// let cache = InMemoryPipelineCache::with_limits(1_000, 64 << 20);
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
///
/// // A hit needs no await.
/// assert_eq!(cache.peek(&key), Some(Artifact::new("code")));
/// assert_eq!((cache.len(), cache.cached_bytes()), (1, 4));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct InMemoryPipelineCache {
    inner: Arc<Inner>,
}

struct Inner {
    index: Arc<Index>,
    policy: Policy,
    max_entries: u64,
    max_bytes: u64,
    /// Held by one put or remove at a time, since making room and using it is one step. Readers
    /// never take it, and writers wait for it without blocking their thread.
    write_lock: Arc<tokio::sync::Mutex<()>>,
    reports: Mutex<Reports>,
    /// Made when it is first asked for.
    aliases: OnceLock<InMemoryPipelineCache>,
    /// One for the cache and its aliases, which close with it.
    closed: Arc<AtomicBool>,
    /// Whose signatures are served. Nobody's are demanded.
    #[cfg(feature = "signatures")]
    signers: Option<TrustedSigners>,
    counters: StoreCounters,
}

const TIER: &str = "memory";

impl InMemoryPipelineCache {
    /// The budget of entries of [`new`](Self::new).
    pub const DEFAULT_MAX_ENTRIES: u64 = 65_536;

    /// The budget of bytes of [`new`](Self::new): 256 MiB.
    pub const DEFAULT_MAX_BYTES: u64 = 256 << 20;

    /// A cache of at most 65,536 entries and 256 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Self::DEFAULT_MAX_ENTRIES, Self::DEFAULT_MAX_BYTES)
    }

    /// A cache of at most `max_entries` artifacts and `max_bytes` bytes.
    ///
    /// An artifact larger than `max_bytes`, or than 4 GiB, is rejected.
    #[must_use]
    pub fn with_limits(max_entries: u64, max_bytes: u64) -> Self {
        Inner::new(max_entries, max_bytes, Arc::default()).into()
    }

    /// An empty cache with the limits of this one that serves no artifact whose signer these signers do
    /// not accept, from the moment on that one is [revoked](TrustedSigners::revoke). Without it, what
    /// another tier accepted once is served from memory until it is evicted.
    ///
    /// Artifacts without a signature are served: no other process can put one here. The same holds for
    /// the [source aliases](PipelineCacheStore::alias_stores) of this tier. A put of an artifact
    /// whose signer is not accepted fails with
    /// [`StoreErrorKind::InvalidArtifact`]. Signatures are not verified: the tier below has done that. A
    /// hit costs nothing more until a signer is revoked or replaced, and then some 40 nanoseconds.
    ///
    /// ```
    /// use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
    /// use pipeline_cache::{Artifact, InMemoryPipelineCache, PipelineCacheStore, PipelineFingerprint};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), pipeline_cache::StoreError> {
    /// let maker = SigningKey::from_seed([7; 32]);
    /// let signers = TrustedSigners::new([Signer::new("ci", "main", maker.public_key())]);
    /// let cache = InMemoryPipelineCache::new().trusting(signers.clone());
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// cache.put(&key, Artifact::new("code").signed(&key, &maker)).await?;
    /// assert!(cache.peek(&key).is_some());
    /// signers.revoke(&maker.public_key());
    /// assert!(cache.peek(&key).is_none());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "signatures")]
    #[must_use]
    pub fn trusting(self, signers: TrustedSigners) -> Self {
        let Inner {
            max_entries,
            max_bytes,
            ..
        } = &*self.inner;
        let inner = Inner::new(*max_entries, *max_bytes, Arc::default());
        Inner {
            signers: Some(signers),
            ..inner
        }
        .into()
    }

    /// The number of artifacts held now.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.inner.index.entries()
    }

    /// Whether no artifact is held now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of all artifacts held now: payloads and texts of metadata.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.inner.index.bytes()
    }

    /// The latest evictions, oldest first: one report for each put that evicted others. At most
    /// 256 are kept; the counters in [`metrics`](PipelineCacheStore::metrics) hold them all.
    ///
    /// ```
    /// # use pipeline_cache::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), StoreError> {
    /// let cache = InMemoryPipelineCache::with_limits(1, 1_000);
    /// for byte in 0..2 {
    ///     let key = PipelineFingerprint::from_bytes([byte; 32]);
    ///     cache.put(&key, Artifact::new("code")).await?;
    /// }
    /// let reports = cache.eviction_reports();
    /// assert_eq!(reports[0].entries, 1);
    /// assert_eq!(reports[0].reason, InMemoryEvictionReason::EntryLimit);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn eviction_reports(&self) -> Vec<InMemoryEvictionReport> {
        self.inner.lock().to_vec()
    }
}

impl From<Inner> for InMemoryPipelineCache {
    fn from(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl Inner {
    fn new(max_entries: u64, max_bytes: u64, closed: Arc<AtomicBool>) -> Self {
        let index = Arc::new(Index::new());
        Self {
            policy: Policy::new(max_entries, max_bytes, &index),
            index,
            max_entries,
            max_bytes,
            write_lock: Arc::default(),
            reports: Mutex::default(),
            aliases: OnceLock::new(),
            closed,
            #[cfg(feature = "signatures")]
            signers: None,
            counters: StoreCounters::default(),
        }
    }

    fn new_aliases(&self) -> InMemoryPipelineCache {
        let closed = Arc::clone(&self.closed);
        let aliases = Self::new(self.max_entries, alias_bytes(self.max_bytes), closed);
        #[cfg(feature = "signatures")]
        let aliases = Self {
            signers: self.signers.clone(),
            ..aliases
        };
        aliases.into()
    }

    /// Whether the signer of an artifact is accepted, if it has one.
    #[cfg(feature = "signatures")]
    fn accepts(&self, artifact: &Artifact) -> bool {
        match (&self.signers, artifact.signature()) {
            (Some(signers), Some(signature)) => signers.accepts(&signature.signer()),
            _ => true,
        }
    }

    #[cfg(not(feature = "signatures"))]
    const fn accepts(&self, _: &Artifact) -> bool {
        true
    }

    /// Whether an artifact that is held may be served. Its signer was accepted when it was put.
    #[cfg(feature = "signatures")]
    fn serves(&self, artifact: &Artifact) -> bool {
        let signers = self.signers.as_ref();
        signers.is_none_or(|signers| !signers.have_changed() || self.accepts(artifact))
    }

    #[cfg(not(feature = "signatures"))]
    const fn serves(&self, _: &Artifact) -> bool {
        true
    }

    fn lock(&self) -> MutexGuard<'_, Reports> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        let found = self.index.get(key, |artifact| self.serves(artifact));
        if found.is_none() {
            self.counters.misses.increment();
        }
        found
    }

    /// Runs on the blocking pool where the artifact is large, since it may evict many others.
    async fn put(
        self: Arc<Self>,
        key: PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let guard = Arc::clone(&self.write_lock).lock_owned().await;
        blocking::run(artifact.len(), move || {
            // The work holds the lock, since it goes on when the caller is dropped.
            let _guard = guard;
            self.put_locked(&key, artifact)
        })
        .await
    }

    fn put_locked(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) {
            self.counters.put_errors.increment();
            return Err(error(StoreErrorKind::Closed));
        }
        if !self.accepts(&artifact) {
            self.counters.rejected_puts.increment();
            return Err(error(StoreErrorKind::InvalidArtifact).with_source(FrameError::OtherSigner));
        }
        let Some(cost) = self.admissible_cost(&artifact) else {
            self.reject(key);
            return Err(error(StoreErrorKind::TooLarge));
        };
        self.counters.puts.increment();
        if self.index.holds(key, &artifact) {
            self.policy.touch(key);
            return Ok(());
        }

        // The old artifact goes first: while both were there, the key would count twice.
        self.index.remove(key);
        self.index.take_notes(|key| self.policy.touch(key));
        let (admitted, tally) = self.policy.admit(key, cost);
        if admitted {
            self.index.insert(key, artifact);
        }
        if let Some(report) = tally.into_report() {
            self.count_evicted(report);
        }
        Ok(())
    }

    /// What the artifact takes of the budget, if it fits an empty cache.
    fn admissible_cost(&self, artifact: &Artifact) -> Option<u32> {
        let cost = index::cost(artifact);
        if cost > self.max_bytes || self.max_entries == 0 {
            return None;
        }
        u32::try_from(cost).ok()
    }

    /// A put that is too large also removes what the key had before: after a put, no caller gets an
    /// older artifact.
    fn reject(&self, key: &PipelineFingerprint) {
        self.counters.rejected_puts.increment();
        self.policy.forget(key);
        if let Some(old) = self.index.remove(key) {
            self.count_evicted(InMemoryEvictionReport {
                entries: 1,
                bytes: old.cost(),
                max_age: old.age(),
                reason: InMemoryEvictionReason::RejectedPut,
            });
        }
    }

    fn count_evicted(&self, report: InMemoryEvictionReport) {
        self.counters.evictions.add(report.entries);
        self.counters.evicted_bytes.add(report.bytes);
        tracing::debug!(
            tier = TIER,
            entries = report.entries,
            bytes = report.bytes,
            reason = ?report.reason,
            "memory tier evicted entries"
        );
        self.lock().push(report);
    }

    async fn remove(&self, key: &PipelineFingerprint) -> bool {
        let _guard = self.write_lock.lock().await;
        self.policy.forget(key);
        let removed = self.index.remove(key).is_some();
        if removed {
            self.counters.removes.increment();
        }
        removed
    }
}

fn error(kind: StoreErrorKind) -> StoreError {
    StoreError::new(kind, TIER, StoreOperation::Put)
}

#[async_trait]
impl PipelineCacheStore for InMemoryPipelineCache {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        let inner = &self.inner;
        inner.index.peek(key, |artifact| inner.serves(artifact))
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        Ok(Fetched::from(self.inner.get(key)))
    }

    /// Artifacts above 64 KiB are put on the blocking pool, since they may evict many others.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::TooLarge`] when the artifact does not fit an empty cache: what the key had
    /// before is then removed. [`StoreErrorKind::Closed`] after a close.
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        Arc::clone(&self.inner).put(*key, artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        let inner = &self.inner;
        Ok(inner.index.contains(key, |artifact| inner.serves(artifact)))
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(self.inner.remove(key).await)
    }

    /// Does nothing: memory is not durable, and nothing is pending.
    async fn flush(&self) -> Result<(), StoreError> {
        self.inner.counters.flushes.increment();
        Ok(())
    }

    async fn close(&self, _deadline: Duration) -> Result<(), StoreError> {
        self.inner.closed.store(true, Ordering::Release);
        Ok(())
    }

    /// One with the same budget of entries, a sixteenth of the bytes, and the same signers.
    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        let aliases = self.inner.aliases.get_or_init(|| self.inner.new_aliases());
        vec![Arc::new(aliases.clone())]
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        let index = &self.inner.index;
        let mut metrics = self.inner.counters.snapshot();
        metrics.hits = index.hits();
        metrics.lookups = metrics.hits.saturating_add(metrics.misses);
        metrics.entries = index.entries();
        metrics.cached_bytes = index.bytes();
        metrics
    }

    /// False if the budget of entries is 0.
    fn is_writable(&self) -> bool {
        self.inner.max_entries > 0
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.inner.max_bytes.min(u64::from(u32::MAX))
    }

    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.inner.accepts(artifact)
    }
}

impl Default for InMemoryPipelineCache {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for InMemoryPipelineCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TIER)
    }
}

impl fmt::Debug for InMemoryPipelineCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryPipelineCache")
            .field("entries", &self.len())
            .field("max_entries", &self.inner.max_entries)
            .field("bytes", &self.cached_bytes())
            .field("max_bytes", &self.inner.max_bytes)
            .finish()
    }
}
