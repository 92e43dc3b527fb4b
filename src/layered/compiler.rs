//! The compiler of a cache: one compile of a key at a time, after or beside the search for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker, task_tracker::TaskTrackerToken};
use tracing::{Instrument as _, Span, debug_span, instrument::WithSubscriber as _};

use super::admission::{LookupPriority, PriorityBoost};
use super::builder::CompilePolicy;
use super::execution::{Execution, Place, Run, RunTimes};
use super::failures::RememberedFailures;
use super::interest::{Interest, UnderWay};
use super::lease::{self, LeaseLimits, Leases, TierLease};
use super::lookup::{Found, LookupOptions, LookupSource, TierSelection};
use super::metrics::CompileCounters;
use super::order::{Finished, JobSlot, JobStop, Order, Stop, put_back, take};
use super::permits::Urgency;
use super::pool::CompilePool;
use super::put::Writer;
use super::running::{Overdue, RunningKey, RunningKeys};
use super::savings::Savings;
use super::search::{Search, WatchedSearch};
use super::tier::{Tier, TierNames};
use super::verify::{Sample, Verifier};
use super::waits::Node;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::source_alias::SourceAliases;
use crate::store::Locality;
use crate::sync::single_flight::{Outcome, SingleFlight};

/// How a cache compiles.
#[derive(Debug)]
pub(super) struct Compiler {
    /// Tells this cache from the others of the process.
    id: u64,
    tiers: Arc<[Tier]>,
    pub(super) names: TierNames,
    settings: CompilerSettings,
    pub(super) search: Arc<Search>,
    writer: Arc<Writer>,
    flights: SingleFlight<PipelineFingerprint, Arc<FlightState>, FlightResult>,
    running: RunningKeys,
    /// The flights, for which a close waits.
    under_way: TaskTracker,
    pub(super) pool: CompilePool,
    pub(super) aliases: Arc<SourceAliases>,
    pub(super) failures: RememberedFailures,
    pub(super) savings: Savings,
    pub(super) verifier: Arc<Verifier>,
    pub(super) counters: Arc<CompileCounters>,
}

/// What a builder sets of a compiler.
#[derive(Debug, Clone, Copy)]
pub(super) struct CompilerSettings {
    pub(super) policy: CompilePolicy,
    /// How long a compile waits for the leases of the tiers.
    pub(super) max_lease_wait: Duration,
    /// How long a compile may run.
    pub(super) limit: Duration,
    pub(super) network_budget: Duration,
}

/// What those who wait for a flight can tell it.
#[derive(Debug)]
pub(super) struct FlightState {
    interest: Arc<Interest>,
    boost: PriorityBoost,
    /// Cancelled when a caller has joined who does not wait for network tiers.
    skip_network: CancellationToken,
    /// Whether a caller wants the artifact in the network tiers.
    writes_all: AtomicBool,
    search: WatchedSearch,
}

impl FlightState {
    /// Where the artifact is to be written.
    fn writes(&self) -> TierSelection {
        match self.writes_all.load(Ordering::Relaxed) {
            true => TierSelection::All,
            false => TierSelection::Local,
        }
    }
}

type FlightResult = Result<Finished, Stop>;

/// What came of a miss.
enum Made {
    /// Another process, or a slower tier, had it after all.
    Found(Found),
    Compiled(Ran, Vec<TierLease>),
}

/// A job that ran.
struct Ran {
    artifact: Artifact,
    queue: Duration,
    times: RunTimes,
}

impl Compiler {
    #[expect(clippy::too_many_arguments, reason = "the parts of a cache, each once")]
    pub(super) fn new(
        tiers: Arc<[Tier]>,
        search: Arc<Search>,
        writer: Arc<Writer>,
        settings: CompilerSettings,
        pool: CompilePool,
        aliases: Arc<SourceAliases>,
        failures: RememberedFailures,
        savings: Savings,
        verifier: Verifier,
    ) -> Self {
        Self {
            id: next_id(),
            names: TierNames::of(&tiers),
            tiers,
            settings,
            search,
            writer,
            flights: SingleFlight::new(),
            running: RunningKeys::default(),
            under_way: TaskTracker::new(),
            pool,
            aliases,
            failures,
            savings,
            verifier: Arc::new(verifier),
            counters: Arc::default(),
        }
    }

    pub(super) const fn network_budget(&self) -> Duration {
        self.settings.network_budget
    }

    /// Who is asked for a lease on behalf of a store above this one.
    pub(super) const fn lease_limits(&self) -> LeaseLimits {
        LeaseLimits {
            tiers: TierSelection::All,
            max_wait: self.settings.max_lease_wait,
            network_budget: self.settings.network_budget,
        }
    }

    pub(super) const fn node(&self, key: PipelineFingerprint) -> Node {
        Node::Keyed(self.id, key)
    }

    /// Waits until no flight is under way, so long at most.
    pub(super) async fn drain(&self, limit: Duration) {
        self.under_way.close();
        // What is left then is reported.
        let _ = timeout(limit, self.under_way.wait()).await;
    }

    /// How many flights are under way.
    pub(super) fn under_way(&self) -> u64 {
        self.under_way.len() as u64
    }

    /// Makes later calls for a key start a flight of their own.
    pub(super) fn detach(&self, key: &PipelineFingerprint) {
        self.flights.detach(key);
    }

    /// Counts what a hit saves, in its tier.
    pub(super) fn count_saved(&self, source: LookupSource, nanos: i64) {
        if let LookupSource::Tier(tier) | LookupSource::Promotion(tier) = source {
            self.tiers[tier].counters.saved(nanos);
        }
    }

    /// Joins the flight of a key, or starts one with the job in the slot. Whether this caller started
    /// it, and what came of it.
    pub(super) async fn find_or_compile<E: Send + Sync + 'static>(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        slot: &JobSlot<E>,
        order: &Order,
    ) -> (bool, FlightResult) {
        // Before the work begins, which is here: a compile on a thread may ask at once.
        let mut interest = None;
        let waiter = self.flights.join_kept(key, || {
            let options = LookupOptions::new()
                .tiers(order.tiers)
                .priority(order.priority);
            let state = Arc::new(FlightState {
                interest: Interest::new(Arc::clone(&self.counters)),
                boost: PriorityBoost::default(),
                skip_network: CancellationToken::new(),
                writes_all: AtomicBool::new(order.writes == TierSelection::All),
                search: WatchedSearch::new(&self.search, key, options),
            });
            interest = Some(state.interest.join(order.keep));
            let flight = Flight {
                compiler: Arc::clone(self),
                key,
                slot: Arc::clone(slot),
                order: order.clone(),
                under_way: state.interest.under_way(),
                _tracked: self.under_way.token(),
                state: Arc::clone(&state),
            };
            (state, flight.run())
        });
        let state = Arc::clone(waiter.progress());
        let caller = interest.unwrap_or_else(|| state.interest.join(order.keep));
        let is_leader = waiter.is_leader;
        if !is_leader {
            self.counters.joins.increment();
            if order.priority == LookupPriority::Interactive {
                state.boost.boost();
                state.search.boost();
            }
            if order.tiers == TierSelection::Local {
                state.skip_network.cancel();
            }
            if order.writes == TierSelection::All {
                state.writes_all.store(true, Ordering::Relaxed);
            }
        }
        let result = match waiter.await {
            // It may have failed because nobody waited for it.
            Outcome::Done(Err(Stop::Failed(_))) if caller.found_abandoned => Err(Stop::Cancelled),
            // Its signer was revoked, and this caller may have come after that.
            Outcome::Done(Ok(finished)) if !is_leader && !self.may_serve(&finished) => {
                Err(Stop::Cancelled)
            }
            Outcome::Done(result) => result,
            Outcome::Panicked(message) => Err(Stop::Panicked(message)),
            // The runtime of the leader was shut down, and that of a caller who joined was not.
            Outcome::Aborted if is_leader => Err(Stop::Interrupted),
            Outcome::Aborted => Err(Stop::Cancelled),
        };
        (is_leader, result)
    }

    fn may_serve(&self, finished: &Finished) -> bool {
        let source = finished.source;
        source.is_none_or(|source| self.search.may_serve(&finished.artifact, source))
    }

    /// Compiles past the cache, for one caller alone. Once it has begun it runs as a task, so that a
    /// caller that is not polled holds no place in the pool.
    pub(super) async fn bypass<E: Send + Sync + 'static>(
        self: &Arc<Self>,
        slot: JobSlot<E>,
        order: Order,
        node: Node,
    ) -> FlightResult {
        let interest = Interest::new(Arc::clone(&self.counters));
        let _caller = interest.join(order.keep);
        let compiler = Arc::clone(self);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let _under_way = interest.under_way();
            let boost = PriorityBoost::default();
            compiler
                .run_job(&slot, node, None, &order, &interest, &boost)
                .await
        }));
        let ran = match task.await {
            Ok(ran) => ran?,
            // A panic of the job is caught in it, so this is the end of the runtime.
            Err(_) => return Err(Stop::Interrupted),
        };
        Ok(Finished {
            artifact: ran.artifact,
            source: None,
            asked: None,
            lookup: Duration::ZERO,
            queue: ran.queue,
            run: ran.times,
        })
    }

    /// Waits for a place in the pool and runs the job, under the limit. Counts it.
    async fn run_job<E: Send + Sync + 'static>(
        &self,
        slot: &JobSlot<E>,
        node: Node,
        running: Option<RunningKey>,
        order: &Order,
        interest: &Arc<Interest>,
        boost: &PriorityBoost,
    ) -> Result<Ran, Stop> {
        let queued = Instant::now();
        let permit = self.pool.compiles.acquire(order.priority.into(), boost);
        let permit = permit.instrument(order.step(|caller| debug_span!(parent: caller, "queue")));
        let permit = permit.await.map_err(|_| {
            self.counters.overloaded.increment();
            Stop::Overloaded
        })?;
        let queue = queued.elapsed();
        self.counters.queue_time.record(queue);
        if let Some(running) = &running {
            running.begin();
        }
        let place = Place::new(Arc::clone(&self.pool.compiles), permit);
        let run = Run::new(
            node,
            order.scope.clone(),
            Arc::clone(interest),
            Arc::clone(&place),
        );
        let execution = Execution {
            run: Arc::clone(&run),
            running,
        };
        // It is there, unless a caller with the same slot has taken it for a job of its own.
        let job = take(slot).ok_or(Stop::Cancelled)?;
        self.counters.compiles.increment();
        let compile = |caller: &Span| debug_span!(parent: caller, "compile", key = ?node.key());
        let job = job(execution)
            .instrument(order.step(compile))
            // Also where that span is not wanted.
            .instrument(order.span.clone())
            .with_subscriber(order.dispatch.clone());
        let result = timeout(self.settings.limit, job).await;
        let times = run.times();
        let stop = match result {
            Ok(Ok(artifact)) => {
                self.counters.compile_time.record(times.compile);
                return Ok(Ran {
                    artifact: with_compile_time(artifact, times.compile),
                    queue,
                    times,
                });
            }
            Ok(Err(JobStop::Failed(error))) => Stop::Failed(Arc::new(error)),
            Ok(Err(JobStop::Panicked(message))) => {
                tracing::warn!(key = ?node.key(), %message, "compile panicked");
                Stop::Panicked(message)
            }
            Ok(Err(JobStop::Cancelled)) => return Err(Stop::Cancelled),
            Ok(Err(JobStop::Rekeyed(right, job))) => {
                put_back(slot, job);
                return Err(Stop::Rekeyed(right));
            }
            Err(_) => {
                // The thread may run on. Its place is free for others.
                place.end();
                self.counters.timed_out.increment();
                let limit = self.settings.limit;
                tracing::warn!(key = ?node.key(), ?limit, "compile given up: it did not end within its limit");
                Stop::TimedOut(limit)
            }
        };
        self.counters.compile_errors.increment();
        Err(stop)
    }

    /// Compiles a sampled hit again, in the background.
    pub(super) fn verify<E: Send + Sync + 'static>(
        self: &Arc<Self>,
        sample: Sample,
        key: PipelineFingerprint,
        stored: Artifact,
        slot: &JobSlot<E>,
        order: &Order,
    ) {
        let (compiler, slot) = (Arc::clone(self), Arc::clone(slot));
        let mut order = order.clone();
        order.priority = LookupPriority::Background;
        self.verifier.verify(sample, key, stored, async move {
            let interest = Interest::new(Arc::clone(&compiler.counters));
            let _caller = interest.join(true);
            // Declared last, so that it ends first: a compile that has ended is not abandoned.
            let _under_way = interest.under_way();
            let boost = PriorityBoost::default();
            let ran = compiler.run_job(&slot, next_node(), None, &order, &interest, &boost);
            // A failed compile says nothing about the artifact.
            ran.await.ok().map(|ran| ran.artifact)
        });
    }

    /// Runs a parse, or makes a key, on the pool.
    pub(super) async fn run_key<T: Send + 'static>(
        self: Arc<Self>,
        priority: LookupPriority,
        boost: PriorityBoost,
        work: impl FnOnce(Duration) -> T + Send + 'static,
    ) -> Result<T, Arc<str>> {
        let urgency = Urgency::from(priority);
        self.pool.run_key(urgency, &boost, work).await
    }
}

/// One flight: the search for a key, and the compile after or beside it.
struct Flight<E> {
    compiler: Arc<Compiler>,
    key: PipelineFingerprint,
    slot: JobSlot<E>,
    order: Order,
    state: Arc<FlightState>,
    under_way: UnderWay,
    _tracked: TaskTrackerToken,
}

impl<E: Send + Sync + 'static> Flight<E> {
    /// The work of a flight, in the span of whoever started it.
    async fn run(self) -> FlightResult {
        let (span, dispatch) = (self.order.span.clone(), self.order.dispatch.clone());
        let work = self.work().instrument(span);
        work.with_subscriber(dispatch).await
    }

    async fn work(self) -> FlightResult {
        let finished = tokio::select! {
            biased;
            () = self.state.interest.cancelled() => Err(Stop::Cancelled),
            finished = self.search_or_make() => finished,
        };
        drop(self.under_way);
        finished
    }

    /// Searches the tiers, or else compiles and stores.
    async fn search_or_make(&self) -> FlightResult {
        let Self {
            compiler,
            key,
            state,
            ..
        } = self;
        let start = Instant::now();
        let search = &state.search;
        let mut running_search = Box::pin(search.run());
        let lookup = tokio::select! {
            biased;
            lookup = &mut running_search => Some(lookup),
            () = self.head_start_ends() => None,
        };
        let lookup_time = start.elapsed();
        let found = |(artifact, source), asked| Finished {
            artifact,
            source: Some(source),
            asked,
            lookup: lookup_time,
            queue: Duration::ZERO,
            run: RunTimes::default(),
        };
        let made = match lookup {
            Some(lookup) => match lookup.found {
                Some(hit) => {
                    if let Some(sample) = compiler.verifier.sample() {
                        compiler.verify(sample, *key, hit.0.clone(), &self.slot, &self.order);
                    }
                    return Ok(found(hit, lookup.asked));
                }
                None => self.make().await,
            },
            None => {
                let found = async {
                    match running_search.await.found {
                        Some(found) => found,
                        // The compile is what is left.
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    found = found => Ok(Made::Found(found)),
                    made = self.make() => made,
                }
            }
        };
        let asked = search.reports();
        match made? {
            Made::Found(hit) => Ok(found(hit, asked)),
            Made::Compiled(ran, leases) => {
                compiler
                    .writer
                    .put_compiled(key, &ran.artifact, leases, state.writes())
                    .await;
                if !state.interest.is_wanted() {
                    compiler.counters.finished_after_abandonment.increment();
                }
                Ok(Finished {
                    artifact: ran.artifact,
                    source: None,
                    asked,
                    lookup: lookup_time,
                    queue: ran.queue,
                    run: ran.times,
                })
            }
        }
    }

    /// A network tier that was too slow for the lookup is not asked for a lease either.
    fn lease_limits(&self) -> LeaseLimits {
        let (order, state) = (&self.order, &self.state);
        let network_budget = match state.skip_network.is_cancelled() {
            true => Duration::ZERO,
            false => order
                .network_budget
                .saturating_sub(state.search.network_time()),
        };
        LeaseLimits {
            tiers: order.tiers,
            max_wait: self.compiler.settings.max_lease_wait,
            network_budget,
        }
    }

    /// Looks for the artifact that another process may have compiled meanwhile. What it stored across a
    /// network is looked for there only after a wait for it: then the network has answered, and has its
    /// budget again.
    async fn search_what_was_stored(&self, leases: &Leases) -> Option<Found> {
        let Self {
            compiler,
            key,
            order,
            ..
        } = self;
        let tiers = &compiler.tiers;
        let is_remote = |tier: &usize| tiers[*tier].locality == Locality::Network;
        let selection = match leases.followed.iter().any(is_remote) {
            true => order.tiers,
            false => TierSelection::Local,
        };
        if !leases.followed.is_empty() {
            // In whichever tier it is now.
            tiers.iter().for_each(|tier| tier.forget_miss(key));
        }
        let search = &compiler.search;
        search
            .search_anew(key, selection, order.network_budget)
            .await
    }

    /// Waits until the compile is to start beside the search.
    async fn head_start_ends(&self) {
        let (order, state) = (&self.order, &self.state);
        let search = &state.search;
        let race = match (order.race, self.compiler.settings.policy) {
            (Some(after), _) | (None, CompilePolicy::Race { after }) => Some(after),
            (None, CompilePolicy::AfterMiss) => None,
        };
        let race = async {
            match race {
                Some(after) => sleep(after).await,
                None => std::future::pending().await,
            }
        };
        let skip_network = async {
            state.skip_network.cancelled().await;
            search.network_is_late(Duration::ZERO).await;
        };
        tokio::select! {
            () = race => {}
            () = skip_network => {}
            () = search.network_is_late(order.network_budget) => {}
        }
    }

    /// Compiles, unless another process that shares a tier, or another compile of this process, was
    /// faster.
    async fn make(&self) -> Result<Made, Stop> {
        let Self {
            compiler,
            key,
            state,
            ..
        } = self;
        let leases = lease::acquire(&compiler.tiers, key, self.lease_limits()).await;
        if leases.may_be_stored() {
            // Another process may have stored it while this one waited for the lease.
            if let Some(found) = self.search_what_was_stored(&leases).await {
                compiler.counters.followed.increment();
                for tier in leases.followed {
                    compiler.tiers[tier].counters.leases_followed.increment();
                }
                return Ok(Made::Found(found));
            }
        }
        // Nobody holds the lease of what is stored and cannot be had.
        if leases.failed.is_some() || leases.is_stored {
            compiler.counters.unshared_compiles.increment();
        }
        let limit = compiler.settings.limit;
        let running = loop {
            match compiler.running.begin_or_wait(key, limit).await {
                Ok(Some(running)) => break running,
                Ok(None) => {
                    let search = &compiler.search;
                    let found = search.search_anew(key, TierSelection::Local, Duration::ZERO);
                    if let Some(found) = found.await {
                        return Ok(Made::Found(found));
                    }
                }
                Err(Overdue) => return Err(Stop::TimedOut(limit)),
            }
        };
        let node = compiler.node(*key);
        let (interest, boost) = (&state.interest, &state.boost);
        let ran = compiler.run_job(
            &self.slot,
            node,
            Some(running),
            &self.order,
            interest,
            boost,
        );
        let ran = ran.await?;
        Ok(Made::Compiled(ran, leases.held))
    }
}

/// A node for a compile without a key.
pub(super) fn next_node() -> Node {
    Node::Unkeyed(next_id())
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The artifact with the time of its compile in its metadata, unless the compile function has set one.
fn with_compile_time(artifact: Artifact, time: Duration) -> Artifact {
    if artifact.metadata().compile_time().is_some() {
        return artifact;
    }
    let metadata = artifact.metadata().clone().with_compile_time(time);
    Artifact::from_verified(
        artifact.payload().clone(),
        *artifact.digest(),
        metadata,
        artifact.has_parts(),
        // One that it has is not of this metadata.
        None,
    )
}
