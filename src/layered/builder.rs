//! The settings of a layered store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::LayeredPipelineCache;
use super::lookup::LookupPolicy;
use super::verify::{VerifyMismatch, VerifySettings};
#[cfg(feature = "signatures")]
use crate::artifact::SigningKey;
use crate::source_alias::SourceAliases;
use crate::store::PipelineCacheStore;
use crate::sync::write_queue::WriteLimits;

/// Where a put goes. What was compiled goes to every tier that takes writes, whatever the policy.
///
/// See [`LayeredPipelineCacheBuilder`] for an example.
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
///
/// ```
/// use pipeline_cache::LayeredPipelineCache;
/// use pipeline_cache::layered::CompilePolicy;
/// use std::time::Duration;
///
/// // Compiles take a few milliseconds, and the network may take longer.
/// let after = Duration::from_millis(5);
/// let builder = LayeredPipelineCache::builder().compile_policy(CompilePolicy::Race { after });
/// # let _ = builder;
/// ```
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

/// Compilers recurse over what they compile. The 2 MiB of an ordinary thread end in a few hundred
/// levels. A 32-bit process has no room for several stacks of the default of others.
const DEFAULT_STACK_SIZE: usize = if usize::BITS >= 64 { 64 << 20 } else { 8 << 20 };

/// Builds a [`LayeredPipelineCache`].
///
/// | setting | default |
/// |---|---|
/// | [`lookup_policy`](Self::lookup_policy) | hedged by 2 ms |
/// | [`lookup_deadline`](Self::lookup_deadline) | 10 s |
/// | [`max_searches`](Self::max_searches) | 1,024, and 512 in the background |
/// | [`write_policy`](Self::write_policy) | behind |
/// | [`write_timeout`](Self::write_timeout) | 30 s |
/// | [`background_limits`](Self::background_limits) | 1,024 artifacts, 256 MiB |
/// | [`background_concurrency`](Self::background_concurrency) | 16 writes to each tier |
/// | [`write_retry_interval`](Self::write_retry_interval) | 5 s |
/// | [`compile_policy`](Self::compile_policy) | after a miss |
/// | [`compile_places`](Self::compile_places) | one less than the cores, at least one |
/// | [`compile_stack_size`](Self::compile_stack_size) | 64 MiB |
/// | [`max_queued_compiles`](Self::max_queued_compiles) | 4,096 of each priority |
/// | [`compile_limit`](Self::compile_limit) | 10 minutes |
/// | [`max_compile_wait`](Self::max_compile_wait) | 30 s for another process |
/// | [`network_budget`](Self::network_budget) | 250 ms |
/// | [`source_aliases`](Self::source_aliases) | 16,384 sources in memory |
/// | [`keep_aliases`](Self::keep_aliases) | no |
/// | [`remembered_failures`](Self::remembered_failures) | 1,024, for 60 s, for requests that ask |
/// | [`pass_by_losing_scopes`](Self::pass_by_losing_scopes) | no |
/// | [`verify_sample`](Self::verify_sample) | none |
/// | [`record_run`](Self::record_run) | no |
/// | [`max_recorded_keys`](Self::max_recorded_keys) | 100,000 |
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
///
/// A service that compiles what strangers send, on a machine that does nothing else:
///
/// ```
/// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
/// use std::time::Duration;
///
/// let cache = LayeredPipelineCache::builder()
///     .tier(InMemoryPipelineCache::new())
///     // One compile uses eight threads of its own: two fill 16 cores.
///     .compile_places(2)
///     // The deepest source that the parser accepts takes 100 MiB of stack.
///     .compile_stack_size(256 << 20)
///     // No compile takes so long, unless it hangs.
///     .compile_limit(Duration::from_secs(30))
///     // Whoever comes later would wait for too long, and is told at once.
///     .max_queued_compiles(100)
///     .max_searches(256)
///     // Clients send the same bad source again. Requests ask for this with `remember_failures`.
///     .remembered_failures(10_000, Duration::from_secs(3600))
///     // For some targets, a compile is faster than a key.
///     .pass_by_losing_scopes(true)
///     .build();
/// # let _ = cache;
/// ```
///
/// A build machine behind a slow line. It has time to wait, and uploads all that it compiles:
///
/// ```
/// use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// # let remote = InMemoryPipelineCache::new();
/// let memory = Arc::new(InMemoryPipelineCache::new());
/// let cache = LayeredPipelineCache::builder()
///     .shared_tier(memory.clone()) // a handle stays, to look at its metrics
///     .tier(remote) // a `RemoteCache`
///     // A compile takes a minute, the line a second.
///     .network_budget(Duration::from_secs(3))
///     // Few uploads at once, with time for each, and room for all of a build.
///     .background_concurrency(4)
///     .background_limits(10_000, 1 << 30)
///     .write_timeout(Duration::from_secs(120))
///     .write_retry_interval(Duration::from_secs(30))
///     .max_write_refusals(3)
///     .record_run()
///     .max_recorded_keys(20_000)
///     .build();
/// # let _ = cache;
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
    pub(super) compile_places: Option<usize>,
    pub(super) compile_stack_size: usize,
    pub(super) max_queued_compiles: usize,
    pub(super) compile_limit: Duration,
    pub(super) network_budget: Duration,
    pub(super) source_aliases: Option<Arc<SourceAliases>>,
    pub(super) keeps_aliases: bool,
    pub(super) max_failures: u64,
    pub(super) failure_time_to_live: Duration,
    pub(super) pass_by_losing_scopes: bool,
    pub(super) records_run: bool,
    pub(super) max_recorded_keys: usize,
    #[cfg(feature = "signatures")]
    pub(super) signing_key: Option<SigningKey>,
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
            compile_places: None,
            compile_stack_size: DEFAULT_STACK_SIZE,
            max_queued_compiles: 4096,
            compile_limit: Duration::from_secs(600),
            network_budget: Duration::from_millis(250),
            source_aliases: None,
            keeps_aliases: false,
            max_failures: 1024,
            failure_time_to_live: Duration::from_secs(60),
            pass_by_losing_scopes: false,
            records_run: false,
            max_recorded_keys: 100_000,
            #[cfg(feature = "signatures")]
            signing_key: None,
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

    /// Sets how many compiles run at a time, at least one. Default: one less than the cores, and at
    /// least one. As many parses and keys, and one more, run beside them.
    #[must_use]
    pub const fn compile_places(mut self, places: usize) -> Self {
        self.compile_places = Some(places);
        self
    }

    /// Sets the bytes of stack of each thread of the pool, on which parses, keys and compiles run.
    /// Default: 64 MiB, and 8 MiB in a 32-bit process.
    ///
    /// Parsers and compilers recurse over what they are given, and a stack that overflows ends the
    /// process: nothing can catch it. Whoever compiles what strangers send measures how much stack
    /// their compiler takes for each level, sets this, and refuses what nests deeper than that
    /// allows.
    ///
    /// The system reserves addresses for a stack and takes memory for the part of it that was used,
    /// until the thread ends, 5 s after its last work. A parse or compile for which no thread with
    /// such a stack can be had fails with [`CompileError::Panicked`](crate::CompileError::Panicked).
    /// The future of [`run_async`](crate::layered::CompileRequest::run_async) does not run on these
    /// threads.
    #[must_use]
    pub const fn compile_stack_size(mut self, bytes: usize) -> Self {
        self.compile_stack_size = bytes;
        self
    }

    /// Sets how many compiles of each priority wait for a place in the pool. Default: 4,096. More are
    /// answered with [`CompileError::Overloaded`](crate::CompileError::Overloaded).
    #[must_use]
    pub const fn max_queued_compiles(mut self, compiles: usize) -> Self {
        self.max_queued_compiles = compiles;
        self
    }

    /// Sets how long a compile may run, without the wait for its place. Default: 10 minutes.
    ///
    /// After that its callers are told [`CompileError::TimedOut`](crate::CompileError::TimedOut), and
    /// its place is free. A thread cannot be stopped: it runs on, and what it makes is dropped.
    #[must_use]
    pub const fn compile_limit(mut self, limit: Duration) -> Self {
        self.compile_limit = limit;
        self
    }

    /// Sets how long a compile request waits for network tiers until one begins to answer. Default:
    /// 250 ms. See [`CompileRequest::network_budget`](crate::layered::CompileRequest::network_budget).
    #[must_use]
    pub const fn network_budget(mut self, budget: Duration) -> Self {
        self.network_budget = budget;
        self
    }

    /// Sets the table of known spellings. Default: one in memory, for
    /// [`SourceAliases::DEFAULT_CAPACITY`] sources. Several caches may share one.
    #[must_use]
    pub fn source_aliases(mut self, aliases: impl Into<Arc<SourceAliases>>) -> Self {
        self.source_aliases = Some(aliases.into());
        self
    }

    /// Keeps known spellings in the tiers as well, so that the next process, and the next machine where
    /// a tier is shared, need not parse them. Default: no.
    ///
    /// An alias that a tier could not take, as in an outage, is not offered to it again: the next process
    /// that finds it in no other tier parses the source.
    ///
    /// Aliases stand apart from artifacts, in the [`alias_stores`](PipelineCacheStore::alias_stores) of
    /// each tier that offers some, as all tiers of this crate do: a disk in its subfolder `aliases`, a
    /// server below `aliases/`. They are counted apart too: see
    /// [`TierMetrics::aliases`](crate::layered::TierMetrics::aliases). See
    /// [`SourceAliases::kept_in`] for who may write to such a tier. A cache with
    /// [`source_aliases`](Self::source_aliases) of its own keeps them where those say, and nowhere else.
    ///
    /// ```
    /// use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(InMemoryPipelineCache::new())
    ///     .tier(DiskCache::new(folder.path()).await?)
    ///     .keep_aliases()
    ///     .build();
    /// # let _ = cache;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub const fn keep_aliases(mut self) -> Self {
        self.keeps_aliases = true;
        self
    }

    /// Signs what this cache compiles, what is [put](LayeredPipelineCache::put) to it without a signature,
    /// and the aliases that it [keeps](Self::keep_aliases). Default: nothing is signed.
    ///
    /// An artifact that comes from a tier keeps the signature it has, or has none: to copy somebody's
    /// artifact to another tier never makes it one's own. A signature takes 20 to 30
    /// microseconds, whatever the size of the artifact.
    ///
    /// ```
    /// use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
    /// use pipeline_cache::{
    ///     Artifact, DiskCache, LayeredPipelineCache, PipelineCacheStore, PipelineFingerprint,
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// let maker = SigningKey::from_seed([7; 32]); // of the secret store of a build
    /// let signers = [Signer::new("ci", "main", maker.public_key())];
    /// let disk = DiskCache::builder().trusted_signers(TrustedSigners::new(signers));
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(disk.root(folder.path()).open().await?)
    ///     .signing_key(maker)
    ///     .build();
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// cache.put(&key, Artifact::new("code")).await?;
    /// assert!(cache.get(&key).await.is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "signatures")]
    #[must_use]
    pub fn signing_key(mut self, signing_key: SigningKey) -> Self {
        self.signing_key = Some(signing_key);
        self
    }

    /// Sets how many failures are remembered for requests that [ask for
    /// it](crate::layered::CompileRequest::remember_failures), and for how long each. Default: 1,024,
    /// for 60 s.
    #[must_use]
    pub const fn remembered_failures(mut self, failures: u64, time_to_live: Duration) -> Self {
        self.max_failures = failures;
        self.failure_time_to_live = time_to_live;
        self
    }

    /// Sets whether compile requests pass the cache by while it costs their scope more than it saves.
    /// Default: no. Such a scope is warned of once either way.
    ///
    /// A hit saves the time of its compile, less its own hash, key and lookup; a miss costs these. A
    /// scope is judged by its last thousand requests. While it loses, the next thousand compile
    /// without key, lookup and write, each caller for itself; then it is judged anew. Requests by
    /// [`get_or_insert_with`](LayeredPipelineCache::get_or_insert_with) count as one scope.
    #[must_use]
    pub const fn pass_by_losing_scopes(mut self, pass_by: bool) -> Self {
        self.pass_by_losing_scopes = pass_by;
        self
    }

    /// Sets how long a compile waits for another process that compiles the same key. Default: 30 s.
    ///
    /// - A compile waits only if a tier grants compile leases: see
    ///   [`DiskCacheBuilder::compile_locks`](crate::DiskCacheBuilder::compile_locks), for the processes
    ///   of a machine, and `compile_leases` of the builders of the network tiers, for a fleet.
    /// - The wait ends when the other process dies: at once on a folder, and on a server when the lease
    ///   has expired.
    /// - A server that does not answer within the
    ///   [network budget](crate::layered::CompileRequest::network_budget) is not waited for.
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

    /// Records which keys the cache is asked for, what each costs and how often it was used: the
    /// [recorded run](LayeredPipelineCache::recorded_run). Default: no.
    ///
    /// A request counts when it is answered, also with a miss: lookups, compile requests, and where
    /// aliases are [kept](Self::keep_aliases) in a store, sources as well. It costs one short lock in
    /// one of 64 shards, which makes a hit in memory of 55 ns one of 110 ns, and an allocation now and then
    /// for keys that are new.
    #[must_use]
    pub const fn record_run(mut self) -> Self {
        self.records_run = true;
        self
    }

    /// Sets how many keys a [recorded run](Self::record_run) keeps: the first ones. Requests for others
    /// are [counted](crate::layered::RecordedRun::not_kept). Default: 100,000, which take about 12 MB;
    /// at most [`RecordedRun::MAX_KEYS`](crate::layered::RecordedRun::MAX_KEYS).
    #[must_use]
    pub const fn max_recorded_keys(mut self, keys: usize) -> Self {
        self.max_recorded_keys = keys;
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
    /// once it took that. Their number in memory is bounded by
    /// [`background_limits`](Self::background_limits), the oldest being given up first. One that is
    /// refused while the tier takes others is given up too, see
    /// [`max_write_refusals`](Self::max_write_refusals). A put that waited for its tier and failed is
    /// not kept: its caller has the error.
    ///
    /// Where the first local tier that keeps [intents](crate::store::WriteIntents), as a
    /// [`DiskCache`](crate::DiskCache) does, has the artifact, what network tiers are owed survives the
    /// process, and the bound in memory too.
    ///
    /// - What is not written half a second after it was put or compiled is recorded there. A process
    ///   that is killed loses no more than that.
    /// - What is recorded is offered from there, oldest first, by one process at a time, and
    ///   [`background_concurrency`](Self::background_concurrency) at once. A cache starts that when it is
    ///   built on a tokio runtime, or else at its first put, compile or flush on one. It delays no
    ///   lookup.
    /// - While the tier takes nothing, it is offered at most three of them at this interval, which grows
    ///   to four times its length. What it did not take comes last the next time, so that no artifact
    ///   that is refused for ever keeps others from the tier. While none is known, the folder is looked at every 30 s.
    /// - The bounds are those of [`max_write_intents`](crate::DiskCacheBuilder::max_write_intents). The
    ///   numbers are in [`WriteBehindReport`](crate::layered::WriteBehindReport).
    /// - The tier is known by the name that it prints, such as `remote(https://cache.example.com)`: a
    ///   cache over another one leaves its intents alone.
    /// - Source aliases are not recorded: a machine that lacks one parses the source once.
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
    /// artifacts are kept. The same holds for what is offered from an
    /// [intent](crate::store::WriteIntents), which is dropped and counted, and fails no flush.
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
