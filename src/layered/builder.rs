//! The settings of a layered store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::LayeredPipelineCache;
use super::lookup::LookupPolicy;
use super::verify::{VerifyMismatch, VerifySettings};
use crate::store::PipelineCacheStore;
use crate::sync::write_queue::WriteLimits;

/// Where a put goes. What was compiled goes to every tier that takes writes, whatever the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WritePolicy {
    /// To the first tier that takes writes.
    First,
    /// To every tier that takes writes, at once. A put returns when all have answered.
    Through,
    /// To the first tier that takes writes, and then to the others in the background. A put returns
    /// when the first has answered; a flush waits for the others. If the background is full, the put
    /// waits for the others too, so that none is left out.
    #[default]
    Behind,
}

impl fmt::Display for WritePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first tier",
            Self::Through => "write through",
            Self::Behind => "write behind",
        })
    }
}

/// When a compile starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompilePolicy {
    /// When every tier has missed.
    #[default]
    AfterMiss,
    /// When every tier has missed, or when `after` has passed without an answer. The first of the
    /// search and the compile that has the artifact wins, and the other is dropped.
    Race {
        /// The head start of the search.
        after: Duration,
    },
}

impl fmt::Display for CompilePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfterMiss => f.write_str("after a miss"),
            Self::Race { after } => write!(f, "race after {after:?}"),
        }
    }
}

/// Builds a [`LayeredPipelineCache`].
///
/// ```
/// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache, LookupPolicy, WritePolicy};
/// use std::time::Duration;
///
/// let cache = LayeredPipelineCache::builder()
///     .tier(InMemoryPipelineCache::new())
///     .lookup_policy(LookupPolicy::Concurrent)
///     .lookup_deadline(Duration::from_secs(2))
///     .write_policy(WritePolicy::Through)
///     .build();
/// assert_eq!(cache.to_string(), "layered(memory)");
/// ```
#[derive(Debug, Clone)]
pub struct LayeredPipelineCacheBuilder {
    pub(super) tiers: Vec<Arc<dyn PipelineCacheStore>>,
    pub(super) lookup_policy: LookupPolicy,
    pub(super) lookup_deadline: Duration,
    pub(super) write_policy: WritePolicy,
    pub(super) compile_policy: CompilePolicy,
    pub(super) max_compile_wait: Duration,
    pub(super) max_searches: usize,
    pub(super) background: WriteLimits,
    pub(super) write_timeout: Duration,
    pub(super) write_retry_interval: Duration,
    pub(super) max_write_refusals: u32,
    pub(super) verify: Option<VerifySettings>,
}

impl Default for LayeredPipelineCacheBuilder {
    fn default() -> Self {
        Self {
            tiers: Vec::new(),
            lookup_policy: LookupPolicy::default(),
            lookup_deadline: Duration::from_secs(10),
            write_policy: WritePolicy::default(),
            compile_policy: CompilePolicy::default(),
            max_compile_wait: Duration::from_secs(30),
            max_searches: 1024,
            background: WriteLimits {
                entries: 1024,
                bytes: 256 << 20,
                concurrency: 16,
            },
            write_timeout: Duration::from_secs(30),
            write_retry_interval: Duration::from_secs(5),
            max_write_refusals: 10,
            verify: None,
        }
    }
}

impl LayeredPipelineCacheBuilder {
    /// Adds a tier below those added before. The first is the fastest.
    #[must_use]
    pub fn tier(self, store: impl PipelineCacheStore + 'static) -> Self {
        self.shared_tier(Arc::new(store))
    }

    /// Adds a tier that is already a trait object.
    #[must_use]
    pub fn shared_tier(mut self, store: Arc<dyn PipelineCacheStore>) -> Self {
        self.tiers.push(store);
        self
    }

    /// Adds tiers below those added before, in their order.
    ///
    /// ```
    /// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
    /// use std::sync::Arc;
    ///
    /// let (small, large) = (InMemoryPipelineCache::new(), InMemoryPipelineCache::new());
    /// let cache = LayeredPipelineCache::builder()
    ///     .tiers([Arc::new(small) as _, Arc::new(large) as _])
    ///     .build();
    /// assert_eq!(cache.to_string(), "layered(memory, memory)");
    /// ```
    #[must_use]
    pub fn tiers(mut self, stores: impl IntoIterator<Item = Arc<dyn PipelineCacheStore>>) -> Self {
        self.tiers.extend(stores);
        self
    }

    /// Sets in which order the tiers are asked. Default: hedged by 2 ms.
    #[must_use]
    pub const fn lookup_policy(mut self, policy: LookupPolicy) -> Self {
        self.lookup_policy = policy;
        self
    }

    /// Sets how long a lookup waits for its tiers. Default: 10 s.
    ///
    /// A tier that has not answered by then is reported as timed out; the answers of the others count.
    #[must_use]
    pub const fn lookup_deadline(mut self, deadline: Duration) -> Self {
        self.lookup_deadline = deadline;
        self
    }

    /// Sets where puts go. Default: [`WritePolicy::Behind`].
    #[must_use]
    pub const fn write_policy(mut self, policy: WritePolicy) -> Self {
        self.write_policy = policy;
        self
    }

    /// Sets when [`get_or_compile`](LayeredPipelineCache::get_or_compile) starts to compile.
    /// Default: after a miss.
    #[must_use]
    pub const fn compile_policy(mut self, policy: CompilePolicy) -> Self {
        self.compile_policy = policy;
        self
    }

    /// Sets how long a compile waits for another process that compiles the same key. Default: 30 s.
    ///
    /// - A compile waits only if a tier grants compile leases: see
    ///   [`DiskCacheBuilder::compile_locks`](crate::DiskCacheBuilder::compile_locks).
    /// - The wait ends when the other process dies.
    /// - After the timeout this process compiles too, which
    ///   [`unshared_compiles`](crate::layered::LayeredMetrics::unshared_compiles) counts.
    /// - With zero, no lease is acquired: no compile waits for another process, and none waits for
    ///   this one.
    ///
    /// A store with several such tiers acquires their leases in the order of their names, which hold
    /// the paths of the folders. Processes that use different paths for the same folders may wait for
    /// each other until the timeout.
    #[must_use]
    pub const fn max_compile_wait(mut self, wait: Duration) -> Self {
        self.max_compile_wait = wait;
        self
    }

    /// Sets how many searches of the tiers run at a time, at least one; others wait. Searches of
    /// background priority have a bound of their own, half as large. Default: 1,024, and 512.
    ///
    /// A lookup that needs no search, or joins one, is not counted.
    #[must_use]
    pub const fn max_searches(mut self, searches: usize) -> Self {
        self.max_searches = searches;
        self
    }

    /// Recompiles a sample of the hits of
    /// [`get_or_compile`](LayeredPipelineCache::get_or_compile) in the background, and compares.
    /// Default: none.
    ///
    /// `rate` is the share of the hits, from 0 to 1, in steps of a millionth. One recompile runs at
    /// a time; a hit that is sampled meanwhile is not recompiled. `on_mismatch` is called on a
    /// runtime worker for each artifact that differs; it should return soon.
    ///
    /// ```
    /// use pipeline_cache::LayeredPipelineCache;
    ///
    /// let builder = LayeredPipelineCache::builder()
    ///     .verify_sample(0.001, |mismatch| eprintln!("{} is not reproducible", mismatch.key));
    /// ```
    #[must_use]
    pub fn verify_sample(
        mut self,
        rate: f64,
        on_mismatch: impl Fn(&VerifyMismatch) + Send + Sync + 'static,
    ) -> Self {
        self.verify = Some(VerifySettings {
            // NaN becomes 0.
            ppm: (rate.clamp(0.0, 1.0) * 1e6).round() as u64,
            on_mismatch: Arc::new(on_mismatch),
        });
        self
    }

    /// Sets how many artifacts may be on their way in the background at a time, and how many payload
    /// bytes they may hold: promotions, puts written behind, and what was compiled. An artifact is
    /// counted once, whatever the number of its tiers. Default: 1,024 and 256 MiB.
    ///
    /// A promotion beyond these bounds is dropped, and counted; a put or a compile beyond them waits
    /// for its writes. What tiers could not take is kept within the same bounds, besides.
    #[must_use]
    pub const fn background_limits(mut self, entries: usize, bytes: u64) -> Self {
        self.background.entries = entries;
        self.background.bytes = bytes;
        self
    }

    /// Sets how many background writes to each tier run at a time, at least one. Default: 16.
    #[must_use]
    pub const fn background_concurrency(mut self, writes: usize) -> Self {
        self.background.concurrency = writes;
        self
    }

    /// Sets how long a put, a removal or a background write may take in one tier. Default: 30 s.
    #[must_use]
    pub const fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how often a tier is offered again what it could not take. Default: 5 s.
    ///
    /// A write behind is kept that fails for a reason that may pass: an outage, a full disk, a
    /// rejected token. Each time one of those that are kept is offered to the tier, and all others
    /// once it took that. They are lost with the process, see
    /// [`WriteBehindReport`](crate::layered::WriteBehindReport), and their number is bounded by
    /// [`background_limits`](Self::background_limits), the oldest being given up first. One that is
    /// refused while the tier takes others is given up too, see
    /// [`max_write_refusals`](Self::max_write_refusals). A put that waited for its tier and failed is
    /// not kept: its caller has the error.
    #[must_use]
    pub const fn write_retry_interval(mut self, interval: Duration) -> Self {
        self.write_retry_interval = interval;
        self
    }

    /// Sets how many times a tier may refuse an artifact that it is offered again, while it takes
    /// others in between; at least once. Then the artifact is given up for this tier: the next flush
    /// fails with the last error, and those after it do not. Default: 10.
    ///
    /// While a tier takes nothing at all, or its circuit breaker is open, no refusal is counted: the
    /// artifacts are kept.
    #[must_use]
    pub const fn max_write_refusals(mut self, refusals: u32) -> Self {
        self.max_write_refusals = refusals;
        self
    }

    /// Builds the cache.
    #[must_use]
    pub fn build(self) -> LayeredPipelineCache {
        LayeredPipelineCache::from_builder(self)
    }
}
