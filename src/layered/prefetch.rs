//! Warm starts: what a recorded run used is fetched before it is asked for.

use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;

use super::LayeredPipelineCache;
use super::prefetch_report::{PrefetchReport, Tally};
use super::prefetch_task::{Bounds, PrefetchTask};
use super::recorded_run::RecordedRun;
use super::tier::stack_name;
use crate::store::runtime::require_runtime;
use crate::store::{StoreError, StoreOperation};

/// More would be of no use to a network, and take the requests of others.
const MAX_CONCURRENCY: usize = 64;

/// A prefetch with its bounds, before it starts: see [`LayeredPipelineCache::prefetch`].
///
/// | setting | default |
/// |---|---|
/// | [`max_bytes`](Self::max_bytes) | 1 GiB |
/// | [`bytes_per_second`](Self::bytes_per_second) | no bound |
/// | [`concurrency`](Self::concurrency) | 4 keys |
/// | [`give_way`](Self::give_way) | 1 s |
/// | [`max_outage`](Self::max_outage) | 60 s |
///
/// [`LayeredPipelineCache::prefetch`] has an example with the defaults. Here, users share a slow line
/// with it:
///
/// ```
/// # use pipeline_cache::layered::RecordedRun;
/// # use pipeline_cache::{InMemoryPipelineCache, LayeredPipelineCache};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
/// # let run = RecordedRun::default();
/// # let all_users_are_gone = async {};
/// let prefetch = cache
///     .prefetch(&run)
///     .bytes_per_second(1 << 20) // half of the line
///     .concurrency(1)
///     .give_way(Duration::from_secs(5))
///     .max_outage(Duration::from_secs(600)) // a night is long
///     .start()?;
/// all_users_are_gone.await;
/// prefetch.cancel(); // nobody needs the rest
/// println!("{}", prefetch.finish().await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a prefetch does nothing until `start`"]
pub struct Prefetch {
    cache: LayeredPipelineCache,
    run: RecordedRun,
    bounds: Bounds,
}

impl LayeredPipelineCache {
    /// Fetches what a [recorded run](RecordedRun) used from the network tiers into the local ones, in
    /// the background: a warm start.
    ///
    /// - What is worth most comes first: see
    ///   [`most_valuable_first`](RecordedRun::most_valuable_first).
    /// - An artifact goes to the last local tier that takes it, which is the one that keeps most: to the
    ///   disk, where there is one. Memory keeps what users ask for; the first lookup promotes to it as
    ///   ever. An alias goes to the last local store of aliases.
    /// - What some local tier says that it has is not fetched. Nothing is read or verified for that.
    /// - Users come first. No key is asked for while an interactive search runs
    ///   ([`give_way`](Prefetch::give_way)); searches are of [background
    ///   priority](crate::LookupPriority::Background), and have permits of their own, in this cache and
    ///   in each network tier; a key that a user asks for meanwhile is the user's from then on.
    /// - What has begun shares the network, the disk and the processors with everybody. On two busy
    ///   processors, with the server on the same machine, the slowest hundredth of lookups on disk took
    ///   0.5 ms beside a prefetch with the defaults, and 0.2 ms without one. Where that matters, set
    ///   [`concurrency`](Prefetch::concurrency) to one, or
    ///   [`bytes_per_second`](Prefetch::bytes_per_second).
    /// - No key is asked for twice at a time, by whomever. A key that fails costs no other key. While
    ///   the circuit breaker of the network is open, no key is asked for, except one now and then that
    ///   no request is sent for.
    ///
    /// What it does is no lookup of the cache in [`layered_metrics`](Self::layered_metrics), and in no
    /// recorded run; the tiers count it.
    ///
    /// ```
    /// use pipeline_cache::layered::RecordedRun;
    /// use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("build.run");
    /// # RecordedRun::default().save(&path).await?;
    /// let cache = LayeredPipelineCache::builder()
    ///     .tier(InMemoryPipelineCache::new())
    ///     .tier(DiskCache::new(folder.path().join("cache")).await?)
    ///     // and a `RemoteCache`
    ///     .keep_aliases()
    ///     .build();
    /// let run = RecordedRun::load(&path).await?;
    /// let prefetch = cache.prefetch(&run).max_bytes(256 << 20).start()?;
    /// // Serve meanwhile.
    /// println!("{}", prefetch.finish().await);
    /// # Ok(())
    /// # }
    /// ```
    pub fn prefetch(&self, run: &RecordedRun) -> Prefetch {
        Prefetch {
            cache: self.clone(),
            run: run.clone(),
            bounds: Bounds {
                max_bytes: 1 << 30,
                bytes_per_second: None,
                concurrency: 4,
                give_way: Duration::from_secs(1),
                max_outage: Duration::from_secs(60),
            },
        }
    }
}

impl Prefetch {
    /// Sets how many payload bytes are fetched at most. Default: 1 GiB.
    ///
    /// A key whose recorded size no longer fits is skipped, and a smaller one may still fit. Sizes that
    /// were not recorded, or have changed, are known when the payload is there: as many artifacts as are
    /// fetched at a time may be too many.
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.max_bytes = bytes;
        self
    }

    /// Sets how many payload bytes a second are fetched on average, at least one. Default: no bound.
    ///
    /// The next key waits until those before it are paid for. A single artifact arrives as fast as the
    /// network is.
    pub const fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bounds.bytes_per_second = Some(bytes);
        self
    }

    /// Sets how many keys are fetched at a time, from 1 to 64. Default: 4. A key counts until its
    /// artifact is written.
    pub const fn concurrency(mut self, keys: usize) -> Self {
        self.bounds.concurrency = keys;
        self
    }

    /// Sets how long a key waits for interactive searches to end: before the local tiers are asked for
    /// it, and once more before the others are. Default: 1 s.
    ///
    /// So a cache that is never without such a search still fetches: `concurrency` keys in twice this time.
    pub const fn give_way(mut self, longest: Duration) -> Self {
        self.bounds.give_way = longest;
        self
    }

    /// Sets how long an open circuit breaker is waited for before the prefetch ends. Default: 60 s.
    pub const fn max_outage(mut self, longest: Duration) -> Self {
        self.bounds.max_outage = longest;
        self
    }

    /// Starts the prefetch, as a task: it goes on whether it is polled or not, until it is dropped.
    ///
    /// # Errors
    ///
    /// Of kind [`StoreErrorKind::NoRuntime`](crate::StoreErrorKind::NoRuntime) outside of a tokio
    /// runtime.
    pub fn start(mut self) -> Result<RunningPrefetch, StoreError> {
        let parts = &self.cache.parts;
        require_runtime(|| stack_name(&parts.tiers), StoreOperation::Get)?;
        self.bounds.concurrency = self.bounds.concurrency.clamp(1, MAX_CONCURRENCY);
        let tally = Arc::new(Tally::new(self.run.keys().len()));
        let task = PrefetchTask::new(
            Arc::clone(&parts.tiers),
            Arc::clone(&parts.search),
            Arc::clone(&parts.background),
            Arc::clone(&parts.compiler.aliases),
            self.bounds,
            Arc::clone(&tally),
        );
        let task = AbortOnDropHandle::new(tokio::spawn(task.run(self.run)));
        Ok(RunningPrefetch { tally, task })
    }
}

/// A prefetch under way. Its drop ends it: no further key is asked for, and what is being fetched is
/// given up, unless others wait for it. What was fetched stays.
///
/// See [`LayeredPipelineCache::prefetch`] for an example.
#[derive(Debug)]
#[must_use = "dropping a prefetch ends it"]
pub struct RunningPrefetch {
    tally: Arc<Tally>,
    task: AbortOnDropHandle<()>,
}

impl RunningPrefetch {
    /// What came of it so far.
    #[must_use]
    pub fn progress(&self) -> PrefetchReport {
        self.tally.report()
    }

    /// Ends it, as its drop does. [`finish`](Self::finish) then tells what came of it.
    pub fn cancel(&self) {
        self.tally.cancel();
    }

    /// Waits until it has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the prefetch.
    pub async fn finish(mut self) -> PrefetchReport {
        // It fails only where its runtime is shut down, or where it panics, which is a bug in it.
        if let Err(error) = (&mut self.task).await {
            self.tally.cancel();
            tracing::debug!(%error, "prefetch ended early");
        }
        self.tally.report()
    }
}
