//! The layered store: several tiers that look like one cache.
//!
//! A lookup peeks at the tiers that answer at once, then at promotions on their way up, and only
//! then boards the flight for its key, which searches all remaining tiers.

mod admission;
mod background;
mod batch;
mod builder;
mod compile;
#[cfg(feature = "metrics")]
mod export;
mod find;
mod latency;
mod lease;
mod lookup;
mod metrics;
mod report;
mod search;
mod store;
mod tier;
mod verify;
mod write;

pub use admission::LookupPriority;
pub use builder::{CompilePolicy, LayeredPipelineCacheBuilder, WritePolicy};
pub use compile::{CompileError, CompileInput, CompileSource, Compiled};
#[cfg(feature = "metrics")]
pub use export::MetricsExporter;
pub use latency::{LATENCY_BUCKETS, LatencySummary};
pub use lookup::{
    Lookup, LookupOptions, LookupPolicy, LookupSource, TierOutcome, TierReport, TierSelection,
};
pub use metrics::{LayeredMetrics, TierMetrics};
pub use report::{LayeredPromotionReport, WriteBehindReport};
pub use verify::VerifyMismatch;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, field};

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::compile_lease::HeldLeases;
use crate::store::{PipelineCacheMetrics, PipelineCacheStore, StoreError, StoreOperation};
use crate::sync::single_flight::SingleFlight;
use admission::Admission;
use background::Background;
use metrics::Counters;
use search::SearchState;
use tier::Tier;
use verify::Verifier;

/// Several tiers, the fastest first, as one cache.
///
/// A lookup asks the tiers concurrently and takes the first verified hit. What was found in a
/// slow tier is promoted to the faster ones in the background. Whoever asks for a key that is
/// being looked up or compiled already joins that flight. A tier that fails, hangs or panics
/// costs its own answer and nothing more.
///
/// One key is searched for once at a time, and once more at the most by those who ask the local
/// tiers alone. Methods that look up or compile must be called on a tokio runtime with its timer.
///
/// A clone is another handle to the same cache.
///
/// ```
/// use pipeline_cache::{Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint};
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pipeline_cache::StoreError> {
/// let small = InMemoryPipelineCache::with_limits(100, 1 << 20);
/// let large = InMemoryPipelineCache::with_limits(10_000, 1 << 30);
/// let cache = LayeredPipelineCache::new([Arc::new(small) as _, Arc::new(large) as _]);
///
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// assert_eq!(cache.get(&key).await, None);
/// cache.put(&key, Artifact::new("code")).await?;
/// assert_eq!(cache.get(&key).await, Some(Artifact::new("code")));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LayeredPipelineCache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tiers: Arc<[Tier]>,
    lookup_policy: LookupPolicy,
    lookup_deadline: Duration,
    write_policy: WritePolicy,
    write_timeout: Duration,
    background: Arc<Background>,
    searches: SingleFlight<(PipelineFingerprint, TierSelection), Arc<SearchState>, Lookup>,
    compiles: SingleFlight<PipelineFingerprint, (), compile::CompileResult>,
    admission: Arc<Admission>,
    compile_policy: CompilePolicy,
    compile_wait: Duration,
    /// Given to a layered store above.
    held_leases: HeldLeases,
    verifier: Arc<Verifier>,
    counters: Arc<Counters>,
}

/// What a [`close`](LayeredPipelineCache::close) could not finish.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CloseReport {
    /// Writes in the background that were given up.
    pub unfinished_writes: u64,
    /// Tiers that failed to close, or not in time, and the first write behind that failed since the
    /// last flush.
    pub errors: Vec<StoreError>,
}

impl CloseReport {
    /// Whether nothing was left undone.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unfinished_writes == 0 && self.errors.is_empty()
    }
}

impl LayeredPipelineCache {
    /// A cache over these tiers, the fastest first. Puts go to the first; for other settings see
    /// [`builder`](Self::builder).
    #[must_use]
    pub fn new(layers: impl IntoIterator<Item = Arc<dyn PipelineCacheStore>>) -> Self {
        layers
            .into_iter()
            .fold(Self::builder(), LayeredPipelineCacheBuilder::shared_tier)
            .build()
    }

    /// A builder without tiers.
    #[must_use]
    pub fn builder() -> LayeredPipelineCacheBuilder {
        LayeredPipelineCacheBuilder::default()
    }

    fn from_builder(builder: LayeredPipelineCacheBuilder) -> Self {
        let tiers: Arc<[Tier]> = builder.tiers.into_iter().map(Tier::new).collect();
        Self {
            inner: Arc::new(Inner {
                background: Arc::new(Background::new(Arc::clone(&tiers), builder.background)),
                tiers,
                lookup_policy: builder.lookup_policy,
                lookup_deadline: builder.lookup_deadline,
                write_policy: builder.write_policy,
                write_timeout: builder.background.write_timeout,
                searches: SingleFlight::new(),
                compiles: SingleFlight::new(),
                admission: Arc::new(Admission::new(builder.searches)),
                compile_policy: builder.compile_policy,
                compile_wait: builder.compile_wait,
                held_leases: HeldLeases::default(),
                verifier: Arc::new(Verifier::new(builder.verify)),
                counters: Arc::new(Counters::new()),
            }),
        }
    }

    /// The artifact under this key, from whichever tier has it first.
    ///
    /// The short form of [`lookup`](Self::lookup): a tier's failure is not told apart from a miss
    /// here. It is counted and traced.
    ///
    /// # Panics
    ///
    /// When called outside of a tokio runtime, unless the artifact is at hand.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up this caller's place; others who wait for the key go on.
    pub async fn get(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        self.lookup(key, &LookupOptions::new())
            .await
            .into_artifact()
    }

    /// The artifact under this key, if any, and what each tier did.
    ///
    /// Never fails: what went wrong is in the answer. Takes no longer than the shorter of the
    /// deadlines of the options and of the cache. A hit in a tier that answers at once allocates
    /// nothing and starts no task.
    ///
    /// A search that nobody else waits for is driven by this future: while that is not polled, the
    /// search stands still and keeps its place among those under way. Spawn what may not be polled
    /// for long, or use [`get_many`](Self::get_many), whose searches are tasks.
    ///
    /// # Panics
    ///
    /// When called outside of a tokio runtime, unless the artifact is at hand.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up this caller's place; others who wait for the key go on.
    pub async fn lookup(&self, key: &PipelineFingerprint, options: &LookupOptions) -> Lookup {
        let span = tracing::debug_span!("lookup", %key, hit = field::Empty, tier = field::Empty);
        let lookup = self
            .inner
            .lookup(key, options)
            .instrument(span.clone())
            .await;
        if !span.is_disabled() {
            span.record("hit", lookup.found.is_some());
            if let Some(LookupSource::Tier(tier)) = lookup.source() {
                span.record("tier", self.inner.tiers[tier].name());
            }
        }
        lookup
    }

    /// Stores an artifact, where the [`WritePolicy`] says.
    ///
    /// # Errors
    ///
    /// The first error, in the order of the tiers, of those that the call waited for: the first
    /// tier under [`WritePolicy::First`] and [`WritePolicy::Behind`], all under
    /// [`WritePolicy::Through`]. A tier that the artifact is too large for is passed over. [`StoreErrorKind::ReadOnly`](crate::StoreErrorKind::ReadOnly) where no tier takes writes.
    ///
    /// # Cancel safety
    ///
    /// A dropped put has stored the whole artifact in a tier, or nothing, for each tier.
    pub async fn put(
        &self,
        key: &PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let errors = self.inner.write(key, &artifact).await;
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// What became of the promotions so far. Exact once [`flush`](Self::flush) has returned.
    ///
    /// ```
    /// use pipeline_cache::{
    ///     Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
    ///     PipelineFingerprint,
    /// };
    /// use std::sync::Arc;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let folder = tempfile::tempdir()?;
    /// let (memory, disk) = (InMemoryPipelineCache::new(), DiskCache::new(folder.path()).await?);
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// disk.put(&key, Artifact::new("code")).await?;
    ///
    /// let cache = LayeredPipelineCache::new([Arc::new(memory.clone()) as _, Arc::new(disk) as _]);
    /// cache.get(&key).await;
    /// cache.flush().await?;
    ///
    /// assert_eq!(memory.peek(&key), Some(Artifact::new("code")));
    /// let report = cache.promotion_report();
    /// assert_eq!((report.promoted_layers, report.promoted_bytes), (1, 4));
    /// assert_eq!(report.last_source_layer, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn promotion_report(&self) -> LayeredPromotionReport {
        self.inner.background.promotion_report()
    }

    /// What became of the puts so far that were written behind. Exact once [`flush`](Self::flush)
    /// has returned.
    #[must_use]
    pub fn write_behind_report(&self) -> WriteBehindReport {
        self.inner.background.behind_report()
    }

    /// What the cache and each of its tiers have done so far.
    #[must_use]
    pub fn layered_metrics(&self) -> LayeredMetrics {
        self.inner.layered_metrics()
    }

    /// Waits until the background writes started before the call have ended, then flushes every
    /// tier. Takes as long as the slowest tier does.
    ///
    /// # Errors
    ///
    /// The first tier's error, in the order of the tiers, or else that of the first write behind
    /// that failed since the last flush. The other tiers have been flushed.
    ///
    /// # Cancel safety
    ///
    /// A dropped flush may be called again; nothing is lost.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush().await
    }

    /// Takes no more writes in the background, waits for those under way, and closes every tier.
    /// Writes under way have half the deadline, so that a tier that hangs does not cost the others
    /// their flush, and the tiers have the rest of it. What is left then is given up, and reported.
    ///
    /// Lookups go on working; puts fail as the tiers say.
    ///
    /// # Cancel safety
    ///
    /// A dropped close may be called again.
    ///
    /// ```
    /// # use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
    /// # use std::{sync::Arc, time::Duration};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    /// let report = cache.close(Duration::from_secs(5)).await;
    /// assert!(report.is_clean(), "{report:?}");
    /// # }
    /// ```
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        self.inner.close(deadline).await
    }
}

impl Inner {
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        if self.background.peek(key).is_some() {
            return Ok(true);
        }
        let answers = self.tiers.iter().map(|tier| async move {
            timeout(self.lookup_deadline, tier.contains(key))
                .await
                .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Contains)))
        });
        let mut answers: FuturesUnordered<_> = answers.collect();
        let mut failed = None;
        // One that has it is enough: nobody waits for a slower tier to agree.
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(false), Err)
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.background.drain().await;
        let flushed = join_all(self.tiers.iter().map(Tier::flush)).await;
        let failed = flushed.into_iter().find_map(Result::err);
        // Taken only to be returned: not before the wait, in which this flush may be dropped.
        let failed = failed.or_else(|| self.background.take_behind_error());
        match failed {
            None => {
                self.counters.flushes.increment();
                Ok(())
            }
            Some(error) => {
                self.counters.flush_errors.increment();
                tracing::warn!(%error, "flush failed");
                Err(error)
            }
        }
    }

    async fn close(&self, deadline: Duration) -> CloseReport {
        let start = Instant::now();
        self.background.close();
        // The other half is for the tiers: one that hangs must not cost the others their flush.
        let unfinished_writes = match timeout(deadline / 2, self.background.drain()).await {
            Ok(()) => 0,
            Err(_) => self.background.abort(),
        };
        let left = deadline.saturating_sub(start.elapsed());
        let closed = join_all(self.tiers.iter().map(|tier| tier.close(left))).await;
        let behind = self.background.take_behind_error();
        CloseReport {
            unfinished_writes,
            errors: closed
                .into_iter()
                .filter_map(Result::err)
                .chain(behind)
                .collect(),
        }
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        let counters = &self.counters;
        let whole = self.layered_metrics();
        PipelineCacheMetrics {
            lookups: whole.lookups,
            hits: whole.hits,
            misses: whole.misses,
            corrupt: counters.corrupt.get(),
            errors: whole.degraded_misses,
            puts: whole.puts,
            put_errors: whole.put_errors,
            removes: counters.removes.get(),
            flushes: counters.flushes.get(),
            flush_errors: counters.flush_errors.get(),
            ..Default::default()
        }
    }

    fn layered_metrics(&self) -> LayeredMetrics {
        let counters = &self.counters;
        let hits = counters.hits.get();
        let misses = counters.misses.get();
        let degraded_misses = counters.degraded_misses.get();
        LayeredMetrics {
            lookups: hits.saturating_add(misses).saturating_add(degraded_misses),
            hits,
            misses,
            degraded_misses,
            joins: counters.joins.get(),
            compiles: counters.compiles.get(),
            compile_errors: counters.compile_errors.get(),
            followed: counters.followed.get(),
            unshared_compiles: counters.unshared_compiles.get(),
            verified: self.verifier.verified.get(),
            verify_mismatches: self.verifier.mismatches.get(),
            puts: counters.puts.get(),
            put_errors: counters.put_errors.get(),
            latency: counters.latency.summary(),
            promotions: self.background.promotion_report(),
            write_behind: self.background.behind_report(),
            tiers: self.tiers.iter().map(Tier::metrics).collect(),
        }
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("layered(")?;
        for (index, tier) in self.tiers.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", tier.name())?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for LayeredPipelineCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
