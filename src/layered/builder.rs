//! The settings of a layered store.

use std::sync::Arc;
use std::time::Duration;

use super::LayeredPipelineCache;
use super::background::BackgroundLimits;
use super::lookup::LookupPolicy;
use super::verify::{VerifyMismatch, VerifySettings};
use crate::store::PipelineCacheStore;

/// Where a put goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WritePolicy {
    /// To the first tier that takes writes.
    #[default]
    First,
    /// To every tier that takes writes, at once; a put returns when all have answered.
    Through,
    /// To the first tier that takes writes, and from there to the others in the background. A put
    /// returns when the first has answered; a flush waits for the others. Where the background is
    /// full, the put waits for the others too, so that none is left out.
    Behind,
}

/// When a compile starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompilePolicy {
    /// When every tier has missed.
    #[default]
    AfterMiss,
    /// When every tier has missed, or `after` has passed without an answer: whichever of the
    /// search and the compile is ready first wins, and the other is dropped.
    Race {
        /// The head start of the search.
        after: Duration,
    },
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
    pub(super) compile_wait: Duration,
    pub(super) searches: usize,
    pub(super) background: BackgroundLimits,
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
            compile_wait: Duration::from_secs(30),
            searches: 1024,
            verify: None,
            background: BackgroundLimits {
                entries: 1024,
                bytes: 256 << 20,
                concurrency: 16,
                write_timeout: Duration::from_secs(30),
            },
        }
    }
}

impl LayeredPipelineCacheBuilder {
    /// Adds a tier below those added before. The first is the fastest.
    #[must_use]
    pub fn tier(self, store: impl PipelineCacheStore + 'static) -> Self {
        self.shared_tier(Arc::new(store))
    }

    /// Adds a tier that is a trait object already.
    #[must_use]
    pub fn shared_tier(mut self, store: Arc<dyn PipelineCacheStore>) -> Self {
        self.tiers.push(store);
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
    /// A tier that has not answered by then is reported as timed out; what the others said counts.
    #[must_use]
    pub const fn lookup_deadline(mut self, deadline: Duration) -> Self {
        self.lookup_deadline = deadline;
        self
    }

    /// Sets where puts go. Default: to the first tier.
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

    /// Sets how long a compile waits for another process that compiles the same. Default: 30 s.
    ///
    /// That a process waits at all is the tiers' to say: see
    /// [`DiskCacheBuilder::compile_locks`](crate::DiskCacheBuilder::compile_locks).
    /// When the other one dies, the wait is over. When it merely does not get on, this one compiles
    /// after so long, and is counted in
    /// [`unshared_compiles`](crate::LayeredMetrics::unshared_compiles). With zero, no compile waits
    /// for others, nor do others learn of it: as if no tier were shared, and nothing is counted.
    ///
    /// A store with several shared tiers takes their leads in the order of their names, that is of
    /// the folders' paths, so that two stores do not wait for each other. Processes that name the
    /// same folders by different paths may do so, until the wait is over.
    #[must_use]
    pub const fn max_compile_wait(mut self, wait: Duration) -> Self {
        self.compile_wait = wait;
        self
    }

    /// Sets how many searches of the tiers may be under way at a time, at least one; others wait.
    /// Those of background priority have half as many places of their own. Default: 1,024, and 512.
    ///
    /// Lookups that find the artifact at hand, or join a search, are not counted.
    #[must_use]
    pub const fn max_searches(mut self, searches: usize) -> Self {
        self.searches = searches;
        self
    }

    /// Compiles a share of the hits of [`get_or_compile`](LayeredPipelineCache::get_or_compile)
    /// again, in the background, and compares. Default: none.
    ///
    /// `rate` is the share, from 0 to 1, to a millionth. At most one compile runs at a time for
    /// this; hits whose turn comes meanwhile are passed over. `on_mismatch` is called, on a runtime
    /// worker, for each artifact that differs; it should return soon.
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
            // Of a number that is none, the cast makes 0.
            ppm: (rate.clamp(0.0, 1.0) * 1e6).round() as u64,
            on_mismatch: Arc::new(on_mismatch),
        });
        self
    }

    /// Sets how many writes may wait or run in the background at a time, and how many payload
    /// bytes they may hold: promotions, and puts written behind. Default: 1,024 and 256 MiB.
    ///
    /// A promotion beyond these bounds is dropped, and counted; a put beyond them waits.
    #[must_use]
    pub const fn background_limits(mut self, entries: usize, bytes: u64) -> Self {
        self.background.entries = entries;
        self.background.bytes = bytes;
        self
    }

    /// Sets how many writes to each tier run in the background at a time; at least one does.
    /// Default: 16.
    #[must_use]
    pub const fn background_concurrency(mut self, writes: usize) -> Self {
        self.background.concurrency = writes;
        self
    }

    /// Sets how long a write to one tier may take, by a put or in the background. Default: 30 s.
    #[must_use]
    pub const fn write_timeout(mut self, timeout: Duration) -> Self {
        self.background.write_timeout = timeout;
        self
    }

    /// The cache.
    #[must_use]
    pub fn build(self) -> LayeredPipelineCache {
        LayeredPipelineCache::from_builder(self)
    }
}
