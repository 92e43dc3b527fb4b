//! The layered store: several tiers that look like one cache, and what it reports.

// `LayeredPipelineCache` is a façade over three parts: `Search` finds artifacts, `Compiler` compiles
// those that no tier has, and `Writer` stores them. `BackgroundWrites` is the one queue of background
// writes; artifacts in it are served from it.
//
// The path of a lookup: `get` calls `search`, which peeks, then joins or starts the flight for the
// key, and fetches from each `tier`. Lookups of many keys are a `group`, which asks a network tier for
// all of them in one call.

mod admission;
mod background;
mod builder;
mod compile;
mod compile_error;
mod compiled;
mod compiler;
mod context;
mod desk;
mod execution;
#[cfg(feature = "metrics")]
mod export;
mod failures;
mod get;
mod group;
mod intent_offers;
mod intents;
mod interest;
mod job;
mod latency;
mod lease;
mod lookup;
mod metrics;
mod order;
mod origin;
mod pace;
mod permits;
mod pool;
mod prefetch;
mod prefetch_report;
mod prefetch_task;
mod progress;
mod put;
mod recorded_run;
mod report;
mod request;
mod run_file;
mod run_recorder;
mod running;
mod savings;
mod search;
mod shim;
mod store;
mod tier;
mod unwritten;
mod verify;
mod waits;
mod write_events;

pub use admission::LookupPriority;
pub use builder::{CompilePolicy, LayeredPipelineCacheBuilder, WritePolicy};
pub use compile_error::CompileError;
pub use compiled::{CompileInput, CompileSource, CompileTimes, Compiled, TierAnswer};
pub use context::CompileContext;
pub use desk::Abandoned;
#[cfg(feature = "metrics")]
pub use export::MetricsExporter;
pub use latency::{LATENCY_BUCKETS, LatencySummary};
pub use lookup::{
    Lookup, LookupOptions, LookupPolicy, LookupSource, TierOutcome, TierReport, TierSelection,
};
pub use metrics::{LayeredMetrics, TierMetrics};
pub use origin::{CompileFrom, FromKey, FromProgram, FromSource};
pub use prefetch::{Prefetch, RunningPrefetch};
pub use prefetch_report::{PrefetchReport, PrefetchState};
pub use recorded_run::{RecordedKey, RecordedKind, RecordedRun};
pub use report::{CloseReport, LayeredPromotionReport, WriteBehindReport};
pub use request::CompileRequest;
pub use run_file::RecordedRunError;
pub use savings::ScopeMetrics;
pub use verify::VerifyMismatch;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::source_alias::SourceAliases;
use crate::store::{PipelineCacheStore, StoreError, StoreOperation};
use crate::sync::blocking;
use background::BackgroundWrites;
use compiler::{Compiler, CompilerSettings};
use failures::RememberedFailures;
use intent_offers::IntentOffers;
use pool::CompilePool;
use put::Writer;
use run_recorder::RunRecorder;
use savings::Savings;
use search::Search;
use tier::{Tier, stack_name};
use verify::Verifier;

/// Several tiers, the fastest first, as one cache.
///
/// A lookup asks the tiers concurrently and takes the first verified hit. An artifact found in a
/// slow tier is promoted to the faster ones in the background. A caller that asks for a key that
/// is already being looked up or compiled joins that flight. A tier that fails, hangs or panics
/// costs its own answer and nothing more.
///
/// One search for a key runs at a time, and beside it at most one that asks the local tiers alone.
///
/// Methods are to be awaited on a tokio runtime with its timer enabled; without the timer they panic.
/// Outside of a runtime, a lookup that no tier answers at once reports
/// [`StoreErrorKind::NoRuntime`](crate::StoreErrorKind::NoRuntime) for each tier, a compile fails with
/// [`CompileError::NoRuntime`], and all others fail with that kind. A cache may be used on several
/// runtimes, and goes on when one is shut down. What was still on its way in the background of that
/// one is lost: the next [`flush`](Self::flush) or [`close`](Self::close) says how much. Flush before
/// a shutdown.
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
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    tiers: Arc<[Tier]>,
    background: Arc<BackgroundWrites>,
    search: Arc<Search>,
    writer: Arc<Writer>,
    compiler: Arc<Compiler>,
}

impl LayeredPipelineCache {
    /// A cache over these tiers, the fastest first, that puts to the first tier
    /// ([`WritePolicy::First`]). For other settings see [`builder`](Self::builder).
    #[must_use]
    pub fn new(layers: impl IntoIterator<Item = Arc<dyn PipelineCacheStore>>) -> Self {
        Self::builder()
            .tiers(layers)
            .write_policy(WritePolicy::First)
            .build()
    }

    /// A builder without tiers. Its caches write behind, unless it is told otherwise.
    #[must_use]
    pub fn builder() -> LayeredPipelineCacheBuilder {
        LayeredPipelineCacheBuilder::default()
    }

    fn from_builder(builder: LayeredPipelineCacheBuilder) -> Self {
        let tiers: Arc<[Tier]> = builder.tiers.into_iter().map(Tier::new).collect();
        let aliases = match (builder.source_aliases, builder.keeps_aliases) {
            (Some(given), _) => given,
            (None, false) => Arc::default(),
            (None, true) => {
                let stores = tiers.iter().flat_map(Tier::alias_stores);
                let aliases = SourceAliases::new().kept_in_all(stores);
                #[cfg(feature = "signatures")]
                let aliases = match &builder.signing_key {
                    Some(signing_key) => aliases.signed_by(signing_key.clone()),
                    None => aliases,
                };
                Arc::new(aliases)
            }
        };
        let background = BackgroundWrites::new(
            Arc::clone(&tiers),
            builder.background,
            builder.write_timeout,
            builder.write_retry_interval,
            builder.max_write_refusals,
        );
        let search = Arc::new(Search::new(
            Arc::clone(&tiers),
            Arc::clone(&background),
            builder.lookup_policy,
            builder.lookup_deadline,
            builder.max_searches,
            builder
                .records_run
                .then(|| RunRecorder::new(builder.max_recorded_keys)),
        ));
        let writer = Writer::new(
            Arc::clone(&tiers),
            Arc::clone(&background),
            IntentOffers::new(
                &tiers,
                &background,
                builder.write_timeout,
                builder.write_retry_interval,
                builder.background.concurrency,
                builder.max_write_refusals,
            ),
            Arc::clone(&search),
            builder.write_policy,
            builder.write_timeout,
        );
        #[cfg(feature = "signatures")]
        let writer = writer.signing_with(builder.signing_key);
        let writer = Arc::new(writer);
        writer.start_offers();
        let compiler = Arc::new(Compiler::new(
            Arc::clone(&tiers),
            Arc::clone(&search),
            Arc::clone(&writer),
            CompilerSettings {
                policy: builder.compile_policy,
                max_lease_wait: builder.max_compile_wait,
                limit: builder.compile_limit,
                network_budget: builder.network_budget,
            },
            CompilePool::new(
                builder.compile_places,
                builder.max_queued_compiles,
                builder.compile_stack_size,
            ),
            aliases,
            RememberedFailures::new(builder.max_failures, builder.failure_time_to_live),
            Savings::new(builder.pass_by_losing_scopes),
            Verifier::new(builder.verify),
        ));
        Self {
            parts: Arc::new(Parts {
                tiers,
                background,
                search,
                writer,
                compiler,
            }),
        }
    }

    /// Stores an artifact where the [`WritePolicy`] says.
    ///
    /// # Errors
    ///
    /// The first error, in the order of the tiers, of those that the call waited for: the first
    /// tier under [`WritePolicy::First`] and [`WritePolicy::Behind`], all tiers under
    /// [`WritePolicy::Through`]. A tier that the artifact is too large for is passed over.
    /// [`StoreErrorKind::ReadOnly`](crate::StoreErrorKind::ReadOnly) if no tier takes writes,
    /// [`StoreErrorKind::TooLarge`](crate::StoreErrorKind::TooLarge) if none takes so large an
    /// artifact.
    ///
    /// # Cancel safety
    ///
    /// In each tier, a dropped put has stored the whole artifact or nothing.
    pub async fn put(
        &self,
        key: &PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let artifact = self.parts.writer.signed(key, &artifact);
        self.parts.writer.put(key, &artifact).await
    }

    /// The names of the tiers, in the order in which a [`LookupSource`] counts them.
    ///
    /// ```
    /// # use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
    /// let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// assert_eq!(cache.tier_names().collect::<Vec<_>>(), ["memory"]);
    /// ```
    pub fn tier_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.parts.tiers.iter().map(Tier::name)
    }

    /// What each tier is called in headers and labels, such as
    /// [`source_label`](Compiled::source_label): its kind, numbered where one comes again. No folder and
    /// no URL is told.
    ///
    /// ```
    /// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
    ///
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(InMemoryPipelineCache::new())
    ///     .tier(InMemoryPipelineCache::new())
    ///     .build();
    /// assert!(cache.tier_labels().eq(["memory", "memory_2"]));
    /// ```
    pub fn tier_labels(&self) -> impl ExactSizeIterator<Item = &str> {
        let names = &self.parts.compiler.names;
        (0..names.len()).map(|tier| names.label(tier))
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
        self.parts.background.promotion_report()
    }

    /// What became of the writes behind so far: of puts, and of what was compiled. Exact once
    /// [`flush`](Self::flush) has returned.
    #[must_use]
    pub fn write_behind_report(&self) -> WriteBehindReport {
        self.parts.background.behind_report()
    }

    /// What the cache and each of its tiers have done so far.
    #[must_use]
    pub fn layered_metrics(&self) -> LayeredMetrics {
        let parts = &self.parts;
        let (lookups, compiles) = (&parts.search.counters, &parts.compiler.counters);
        let (writes, verifier) = (&parts.writer.counters, &parts.compiler.verifier);
        let (running, queued) = parts.compiler.pool.compiles.taken_and_waiting();
        let hits = lookups.hits.get();
        let misses = lookups.misses.get();
        let degraded_misses = lookups.degraded_misses.get();
        LayeredMetrics {
            lookups: hits.saturating_add(misses).saturating_add(degraded_misses),
            hits,
            misses,
            degraded_misses,
            joins: lookups.joins.get().saturating_add(compiles.joins.get()),
            compiles: compiles.compiles.get(),
            compile_errors: compiles.compile_errors.get(),
            followed: compiles.followed.get(),
            unshared_compiles: compiles.unshared_compiles.get(),
            running_compiles: running as u64,
            queued_compiles: queued as u64,
            abandoned_compiles: compiles.abandoned.get().unsigned_abs(),
            finished_after_abandonment: compiles.finished_after_abandonment.get(),
            overloaded: compiles.overloaded.get(),
            timed_out_compiles: compiles.timed_out.get(),
            remembered_failures: parts.compiler.failures.served.get(),
            queue_time: compiles.queue_time.summary(),
            compile_time: compiles.compile_time.summary(),
            scopes: parts.compiler.savings.metrics(),
            aliases: parts.compiler.aliases.metrics(),
            verified: verifier.verified.get(),
            verify_mismatches: verifier.mismatches.get(),
            puts: writes.puts.get(),
            put_errors: writes.put_errors.get(),
            latency: lookups.latency.summary(),
            promotions: parts.background.promotion_report(),
            write_behind: parts.background.behind_report(),
            tiers: parts.tiers.iter().map(Tier::metrics).collect(),
        }
    }

    /// What the cache was asked for so far; `None` unless it
    /// [records](LayeredPipelineCacheBuilder::record_run) that.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing. The cache goes on recording.
    pub async fn recorded_run(&self) -> Option<RecordedRun> {
        self.parts.search.recorder.as_ref()?;
        let search = Arc::clone(&self.parts.search);
        blocking::blocking(move || Some(search.recorder.as_ref()?.run())).await
    }

    /// Waits until the background writes that were started before the call have ended, offers each
    /// tier what it could not take, then flushes every tier. Takes as long as the slowest tier does.
    ///
    /// On success, every tier has what this cache wrote. During an outage of a network tier a flush
    /// fails, also where a local tier keeps [intents](crate::store::WriteIntents): when it returns these
    /// are recorded and durable, and nothing is lost. It does not wait for what earlier processes left,
    /// and does not fail for it. The same holds for what no longer fitted in the memory of this one, of
    /// which one flush has told.
    ///
    /// # Errors
    ///
    /// Of kind [`StoreErrorKind::Lost`](crate::StoreErrorKind::Lost), once, if writes behind were lost
    /// since the last flush because their runtime was shut down: the error says of how many puts. Else
    /// the first tier's error, in the order of the tiers, or else that of a write behind that is not
    /// done: one that is still kept to be [offered
    /// again](LayeredPipelineCacheBuilder::write_retry_interval), or the first that was given up since
    /// the last flush. The other tiers have been flushed.
    ///
    /// # Cancel safety
    ///
    /// A dropped flush may be called again; nothing is lost.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let (flushed, aliases) = tokio::join!(
            self.parts.writer.flush(),
            self.parts.compiler.aliases.flush()
        );
        flushed.and(aliases)
    }

    /// Waits until no request searches or compiles, also where its caller has gone, then takes no more
    /// background writes, waits for those under way and for the source aliases that are being written,
    /// and closes every tier. The requests have half the deadline, the writes half of what is left then,
    /// and the tiers the rest of it. What is not done by then is reported. Of the writes, which are given
    /// up, a local tier that keeps [intents](crate::store::WriteIntents) remembers what network tiers are
    /// owed, see [`CloseReport::kept_intents`]: the next cache over both offers it. A compile that goes
    /// on finds its tiers closed and is not stored.
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
    /// assert_eq!(report.to_string(), "closed: nothing is left to write");
    /// assert!(report.is_clean());
    /// # }
    /// ```
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        let Parts {
            compiler, writer, ..
        } = &*self.parts;
        if let Err(error) = writer.require_runtime(StoreOperation::Close) {
            return CloseReport {
                errors: vec![error],
                ..CloseReport::default()
            };
        }
        let start = Instant::now();
        compiler.drain(deadline / 2).await;
        let left = deadline.saturating_sub(start.elapsed());
        let (mut report, aliases) = tokio::join!(
            writer.close(left, compiler.aliases.written()),
            compiler.aliases.flush_within(left)
        );
        report.unfinished_compiles = compiler.under_way();
        report.errors.extend(aliases.err());
        report
    }
}

impl fmt::Display for LayeredPipelineCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&stack_name(&self.parts.tiers))
    }
}
