//! The compile request: from a source, a program or a key to an artifact, in one call.

use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tracing::{Span, dispatcher};

use super::LayeredPipelineCache;
use super::admission::LookupPriority;
use super::compile_error::CompileError;
use super::compiled::{CompileSource, CompileTimes, Compiled};
use super::compiler::{Compiler, Finished, Job, JobSlot, Order, Stop, next_node};
use super::context::CompileContext;
use super::execution::{CURRENT, Lent, Run};
use super::job::{Work, awaited, on_thread};
use super::lookup::{LookupSource, TierSelection};
use super::origin::{CompileFrom, FromKey, FromProgram, FromSource, Located, Site};
use super::savings::{Account, saved_nanos};
use super::waits::{Node, Wait};
use crate::artifact::Artifact;
use crate::key::{CompileScope, PipelineFingerprint, Program, Unkeyable};

/// A request for an artifact: from the cache, or else compiled, once for all who ask at the same time.
///
/// 1. [`LayeredPipelineCache::compile`] begins it, for a scope.
/// 2. [`source`](Self::source), [`program`](Self::program) or [`key`](Self::key) says what is compiled.
/// 3. Options may stand before or after that. Each has a default.
/// 4. [`run`](CompileRequest::run) compiles with a function that computes,
///    [`run_async`](CompileRequest::run_async) with one that awaits.
///
/// The [`Compiled`] says where the artifact came from, what each tier did, and what each step took.
///
/// # The compile pool
///
/// - Compiles run in a bounded number of places, one less than the cores unless the
///   [builder](crate::LayeredPipelineCacheBuilder::compile_places) says otherwise: interactive before
///   background. A background compile that an interactive caller joins moves up.
/// - The queue for a place is [bounded](crate::LayeredPipelineCacheBuilder::max_queued_compiles), for
///   each priority. A compile that finds it full is answered with [`CompileError::Overloaded`].
/// - The pool has threads of its own, so that file reads never queue behind compiles. Parses and keys
///   run on these threads as well, in as many places again: a hit never waits for a compile.
/// - One compile of a key runs at a time, whether anyone waits for it or not. Whoever asks for the key
///   joins it.
///
/// # What happens to mistakes
///
/// | the compile function | what happens |
/// |---|---|
/// | blocks in `run_async` | It holds a worker of the runtime, as in any future. Use `run`. |
/// | never returns, in `run` | Its callers are told [`CompileError::TimedOut`] after the [limit](crate::LayeredPipelineCacheBuilder::compile_limit), and its place is free. Its thread cannot be stopped: until it ends, requests for its key that no tier can answer are told the same at once. |
/// | never returns, in `run_async` | As above, and it is dropped at the limit. |
/// | panics | All callers are told [`CompileError::Panicked`]. The next request compiles again. |
/// | asks for its own key, or for one that waits for it | That inner request is told [`CompileError::Recursive`] at once. |
/// | asks from a task or thread that it started, by a clone of the cache | The cache cannot know which compile asks. A circle is then not found: it ends at the limit, and the place in the pool is held meanwhile. Ask through a clone of the [`CompileContext`]. |
/// | makes another artifact each time | Whichever is stored first is served: see [`verify_sample`](crate::LayeredPipelineCacheBuilder::verify_sample). |
///
/// | the parse function | what happens |
/// |---|---|
/// | panics | The callers that wait for it are told [`CompileError::Panicked`]. |
/// | never returns | The callers wait up to their deadlines, and the place for keys is held. There is no other limit. |
/// | asks the cache | It holds its place while it waits, so that the pool may come to a standstill. |
///
/// # Cancel safety
///
/// Dropping the future of `run` or `run_async` ends this caller's wait at any await, and holds up
/// nobody else. What then becomes of the compile, [`when_abandoned`](Self::when_abandoned) says.
///
/// ```
/// use pipeline_cache::{
///     Artifact, CompileScope, InMemoryPipelineCache, LayeredPipelineCache, OpaqueProgram, Unkeyable,
/// };
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
/// let scope = CompileScope::new("upper-caser 1.0", "ascii")?;
/// let parse = |text: &bytes::Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("text", text.clone()));
///
/// let compiled = cache
///     .compile(&scope)
///     .source("text-parser 1.0", "hello", parse)
///     .deadline(Duration::from_secs(5))
///     .run(|input, _cx| Ok(Artifact::new(input.into_canonical()?.bytes().to_ascii_uppercase())))
///     .await?;
/// assert_eq!(&compiled.artifact.payload()[..], b"HELLO");
/// println!("{compiled}");
/// # Ok(())
/// # }
/// ```
#[must_use = "a request does nothing until `run` or `run_async`"]
pub struct CompileRequest<'a, S = ()> {
    compiler: &'a Arc<Compiler>,
    scope: &'a CompileScope,
    options: Options,
    /// The compile that asks, if one does.
    parent: Option<Arc<Run>>,
    origin: S,
}

#[derive(Debug, Clone, Copy)]
struct Options {
    deadline: Option<Duration>,
    tiers: TierSelection,
    priority: LookupPriority,
    race: Option<Duration>,
    network_budget: Duration,
    remembers_failures: bool,
    abandoned: Abandoned,
}

/// What becomes of a compile when nobody waits for it any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abandoned {
    /// It goes on, and its artifact is stored. Whoever asks meanwhile joins it.
    #[default]
    FinishAndKeep,
    /// It is dropped, if no caller wanted it to be kept. A function on a thread cannot be stopped once
    /// it has begun: it may ask [`CompileContext::is_wanted`]. If it makes an artifact all the same,
    /// that is stored.
    Cancel,
}

/// The scope of requests that have a key and no scope.
static KEYED: LazyLock<CompileScope> =
    LazyLock::new(|| CompileScope::new("(given keys)", "(given keys)").expect("neither is empty"));

impl LayeredPipelineCache {
    /// Begins a request for what is compiled in this scope: see [`CompileRequest`].
    pub fn compile<'a>(&'a self, scope: &'a CompileScope) -> CompileRequest<'a> {
        let parent = CURRENT.try_with(Arc::clone).ok();
        CompileRequest::new(&self.parts.compiler, scope, parent)
    }

    /// A request for a key that holds its scope already.
    pub(super) fn compile_keyed(&self) -> CompileRequest<'_> {
        self.compile(&KEYED)
    }
}

impl CompileContext {
    /// Begins a request from inside of this compile, which gives its place in the pool back while it
    /// waits.
    ///
    /// A request for a key that waits for this compile, directly or through others, is answered with
    /// [`CompileError::Recursive`] at once.
    pub fn compile<'a>(&'a self, scope: &'a CompileScope) -> CompileRequest<'a> {
        CompileRequest::new(&self.compiler, scope, Some(Arc::clone(&self.run)))
    }
}

impl<'a> CompileRequest<'a> {
    fn new(compiler: &'a Arc<Compiler>, scope: &'a CompileScope, parent: Option<Arc<Run>>) -> Self {
        Self {
            compiler,
            scope,
            options: Options {
                deadline: None,
                tiers: TierSelection::All,
                priority: LookupPriority::Interactive,
                race: None,
                network_budget: compiler.network_budget(),
                remembers_failures: false,
                abandoned: Abandoned::default(),
            },
            parent,
            origin: (),
        }
    }

    fn of<S>(self, origin: S) -> CompileRequest<'a, S> {
        CompileRequest {
            compiler: self.compiler,
            scope: self.scope,
            options: self.options,
            parent: self.parent,
            origin,
        }
    }

    /// Compiles what this source spells.
    ///
    /// A known spelling costs one hash and one lookup. An unknown one is parsed and canonicalized
    /// once, on the threads of the pool, for all who ask at the same time; what was parsed is what is
    /// compiled. See [`SourceAliases`](crate::SourceAliases) for how spellings are known.
    ///
    /// `front_end` must name all that decides what the source means: the parser's build and every
    /// option it reads the source with (includes, defines, the language's version). `parse` must
    /// depend on nothing else. It may be called again for a source that is known or is compiled for
    /// several scopes at once.
    pub fn source<P, F, E>(
        self,
        front_end: impl Into<String>,
        source: impl Into<Bytes>,
        parse: F,
    ) -> CompileRequest<'a, FromSource<P, F>>
    where
        P: Program,
        F: Fn(&Bytes) -> Result<P, E> + Send + Sync + 'static,
    {
        self.of(FromSource::new(front_end.into(), source.into(), parse))
    }

    /// Compiles this program, which is canonicalized on the threads of the pool, unless it [is
    /// small](Program::is_small).
    pub fn program<P: Program>(self, program: P) -> CompileRequest<'a, FromProgram<P>> {
        self.of(FromProgram(program))
    }

    /// Compiles what has this key. It must cover everything that can change the artifact, the scope
    /// included: see [`PipelineFingerprint::scoped`]. The compile function gets no input.
    pub fn key(self, key: PipelineFingerprint) -> CompileRequest<'a, FromKey> {
        self.of(FromKey(key))
    }
}

impl<S> CompileRequest<'_, S> {
    /// Sets how long this caller waits, from the call of `run` on. Default: as long as it takes.
    ///
    /// A deadline that passes is answered with [`CompileError::DeadlineExceeded`]. Other callers are
    /// not affected, and a compile under way goes on.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Sets which tiers are asked before it is compiled. Default: all. What was compiled is written to
    /// all tiers whatever is asked.
    ///
    /// A caller that asks local tiers alone and joins a flight that waits for a network makes it
    /// compile.
    pub const fn tiers(mut self, tiers: TierSelection) -> Self {
        self.options.tiers = tiers;
        self
    }

    /// Sets whether a user waits for the artifact. Default: interactive.
    pub const fn priority(mut self, priority: LookupPriority) -> Self {
        self.options.priority = priority;
        self
    }

    /// Starts the compile after this time even if tiers have not answered yet. The first of the search
    /// and the compile that has the artifact wins. Default: as the [compile
    /// policy](crate::LayeredPipelineCacheBuilder::compile_policy) of the cache says.
    pub const fn race(mut self, after: Duration) -> Self {
        self.options.race = Some(after);
        self
    }

    /// Sets how long the request waits for network tiers until one of them begins to answer, in sum.
    /// After that the compile starts, and the network may still win. Default: that of the
    /// [cache](crate::LayeredPipelineCacheBuilder::network_budget), 250 ms.
    ///
    /// An answer that has begun to arrive has the limits of its tier.
    pub const fn network_budget(mut self, budget: Duration) -> Self {
        self.options.network_budget = budget;
        self
    }

    /// Sets whether a failure is remembered, and a remembered one is an answer. Default: no.
    ///
    /// Only for parse and compile functions whose errors depend on nothing but their input. A failure
    /// is remembered by source, front end and scope, and by key, in the [bounded
    /// table](crate::LayeredPipelineCacheBuilder::remembered_failures) of the cache, with the error
    /// itself. Panics and limits are not remembered.
    pub const fn remember_failures(mut self, remember: bool) -> Self {
        self.options.remembers_failures = remember;
        self
    }

    /// Sets what becomes of the compile when nobody waits for it any more. Default:
    /// [`Abandoned::FinishAndKeep`].
    pub const fn when_abandoned(mut self, abandoned: Abandoned) -> Self {
        self.options.abandoned = abandoned;
        self
    }

    /// Answers from the cache, or runs `compile` on a thread of the compile pool.
    ///
    /// `compile` gets the canonical form, or the program itself where that has no key. It runs inside
    /// of the runtime and of the caller's tracing span.
    ///
    /// The thread is not the runtime's: a test runtime with a paused clock takes itself for idle
    /// meanwhile, and lets deadlines and limits pass. Use `run_async` there.
    ///
    /// # Errors
    ///
    /// [`CompileError`]. A failing tier is not an error: what it cannot serve is compiled.
    ///
    /// # Cancel safety
    ///
    /// See [`CompileRequest`].
    pub async fn run<F, E>(self, compile: F) -> Result<Compiled, CompileError<E>>
    where
        S: CompileFrom<E>,
        F: FnOnce(S::Input, &CompileContext) -> Result<Artifact, E> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let compiler = Arc::clone(self.compiler);
        self.answer(move |work| on_thread(compiler, work, compile))
            .await
    }

    /// Answers from the cache, or awaits `compile`: a compiler on another machine, or a process. It
    /// has a place in the compile pool while it runs, as [`run`](Self::run) has.
    ///
    /// # Errors
    ///
    /// As `run`.
    ///
    /// # Cancel safety
    ///
    /// As `run`.
    pub async fn run_async<F, C, E>(self, compile: F) -> Result<Compiled, CompileError<E>>
    where
        S: CompileFrom<E>,
        F: FnOnce(S::Input, CompileContext) -> C + Send + 'static,
        C: Future<Output = Result<Artifact, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let compiler = Arc::clone(self.compiler);
        self.answer(move |work| awaited(compiler, work, compile))
            .await
    }

    async fn answer<E>(
        self,
        job: impl FnOnce(Work<S, E>) -> Job<E> + Send,
    ) -> Result<Compiled, CompileError<E>>
    where
        S: CompileFrom<E>,
        E: Send + Sync + 'static,
    {
        if Handle::try_current().is_err() {
            return Err(CompileError::NoRuntime);
        }
        let deadline = self.options.deadline;
        let mut lent = None;
        let answer = self.answer_sometime(job, &mut lent);
        let answer = match deadline {
            None => answer.await,
            Some(deadline) => timeout(deadline, answer)
                .await
                .unwrap_or(Err(CompileError::DeadlineExceeded(deadline))),
        };
        if let Some(lent) = lent {
            lent.take_back().await;
        }
        answer
    }

    /// `lent` is set when the request begins to wait.
    async fn answer_sometime<E>(
        self,
        job: impl FnOnce(Work<S, E>) -> Job<E> + Send,
        lent: &mut Option<Lent>,
    ) -> Result<Compiled, CompileError<E>>
    where
        S: CompileFrom<E>,
        E: Send + Sync + 'static,
    {
        let account = self.compiler.savings.account(self.scope);
        let mut desk = Desk {
            compiler: self.compiler,
            scope: self.scope,
            options: self.options,
            parent: self.parent,
            account,
            lent,
        };
        if desk.compiler.savings.passes_by(desk.account.as_ref()) {
            let slot = slot(job(Work::PassedBy(self.origin)));
            let times = CompileTimes::default();
            return desk.bypass(slot, CompileSource::PassedBy, times).await;
        }
        let site = Site {
            compiler: self.compiler,
            scope: self.scope,
            priority: self.options.priority,
            network_budget: self.options.network_budget,
            remembers_failures: self.options.remembers_failures,
        };
        let (located, keyed) = self.origin.locate(site).await?;
        let job = || job(Work::Keyed(keyed));
        match located.key.clone() {
            Ok(key) => desk.find_or_compile(key, located, job).await,
            Err(reason) => desk.bypass_unkeyable(slot(job()), reason, located).await,
        }
    }
}

fn slot<E>(job: Job<E>) -> JobSlot<E> {
    Arc::new(Mutex::new(Some(job)))
}

fn is_full<E>(slot: &JobSlot<E>) -> bool {
    slot.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some()
}

/// What answers one request.
struct Desk<'a, 'b> {
    compiler: &'a Arc<Compiler>,
    scope: &'a CompileScope,
    options: Options,
    parent: Option<Arc<Run>>,
    account: Option<Arc<Account>>,
    lent: &'b mut Option<Lent>,
}

impl Desk<'_, '_> {
    async fn find_or_compile<E: Send + Sync + 'static>(
        &mut self,
        mut key: PipelineFingerprint,
        located: Located,
        job: impl FnOnce() -> Job<E> + Send,
    ) -> Result<Compiled, CompileError<E>> {
        let compiler = self.compiler;
        let start = Instant::now();
        if let Some((artifact, source)) = compiler.search.peek_and_promote(&key) {
            let mut times = located.times;
            times.lookup = start.elapsed();
            if let Some(sample) = compiler.verifier.sample() {
                let order = self.order(Duration::ZERO);
                compiler.verify(sample, key, artifact.clone(), &slot(job()), &order);
            }
            self.count_hit(&artifact, source, &times);
            return Ok(Compiled {
                key: Some(key),
                artifact,
                source: CompileSource::Cache(source),
                times,
                names: compiler.names.clone(),
                asked: None,
            });
        }
        if self.options.remembers_failures {
            if let Some(error) = compiler.failures.get(&key) {
                return Err(CompileError::Failed(error));
            }
        }
        let slot = slot(job());
        let order = self.order(located.network);
        self.lend();
        loop {
            let _wait = self.wait_for(compiler.node(key))?;
            let (is_leader, result) = compiler.find_or_compile(key, &slot, &order).await;
            let stop = match result {
                Ok(finished) => return Ok(self.answer(key, &located, is_leader, finished)),
                Err(stop) => stop,
            };
            return Err(match stop {
                Stop::Failed(error) => match error.downcast() {
                    Ok(error) => {
                        self.remember(&key, &located, &error);
                        CompileError::Failed(error)
                    }
                    // The leader's error has another type, so this caller cannot be told. It
                    // compiles for itself.
                    Err(_) if is_full(&slot) => continue,
                    Err(_) => CompileError::Interrupted,
                },
                Stop::Rekeyed(right) if is_leader => {
                    if let Some(alias) = &located.alias {
                        compiler
                            .aliases
                            .correct(alias, right.as_ref().ok().copied());
                    }
                    match right {
                        Ok(right) => {
                            key = right.scoped(self.scope);
                            continue;
                        }
                        Err(reason) => {
                            return self.bypass_unkeyable(slot, reason, located).await;
                        }
                    }
                }
                // The compile that this caller joined is over, and has made nothing for it.
                Stop::Cancelled | Stop::Rekeyed(_) if is_full(&slot) => continue,
                Stop::Cancelled | Stop::Rekeyed(_) | Stop::Interrupted => CompileError::Interrupted,
                Stop::Panicked(message) => CompileError::Panicked(message),
                Stop::Overloaded => CompileError::Overloaded,
                Stop::TimedOut(limit) => CompileError::TimedOut(limit),
            });
        }
    }

    async fn bypass_unkeyable<E: Send + Sync + 'static>(
        &mut self,
        slot: JobSlot<E>,
        reason: Unkeyable,
        located: Located,
    ) -> Result<Compiled, CompileError<E>> {
        tracing::debug!(%reason, "the program has no key: compiling without the cache");
        let source = CompileSource::Bypassed(reason);
        self.bypass(slot, source, located.times).await
    }

    /// Compiles past the cache.
    async fn bypass<E: Send + Sync + 'static>(
        &mut self,
        slot: JobSlot<E>,
        source: CompileSource,
        times: CompileTimes,
    ) -> Result<Compiled, CompileError<E>> {
        let node = next_node();
        self.lend();
        let _wait = self.wait_for(node)?;
        let order = self.order(Duration::ZERO);
        let finished = self.compiler.bypass(slot, order, node).await;
        let finished = finished.map_err(|stop| match stop {
            Stop::Failed(error) => match error.downcast() {
                Ok(error) => CompileError::Failed(error),
                Err(_) => CompileError::Interrupted,
            },
            Stop::Panicked(message) => CompileError::Panicked(message),
            Stop::Overloaded => CompileError::Overloaded,
            Stop::TimedOut(limit) => CompileError::TimedOut(limit),
            Stop::Cancelled | Stop::Rekeyed(_) | Stop::Interrupted => CompileError::Interrupted,
        })?;
        Ok(self.compiled(None, finished, source, times))
    }

    /// From here on the request waits, and a compile that asks needs no place.
    fn lend(&mut self) {
        if self.lent.is_none() {
            *self.lent = self.parent.as_ref().map(|run| run.place.lend());
        }
    }

    /// Begins the wait of the asking compile for another, if a compile asks.
    fn wait_for<E>(&self, node: Node) -> Result<Option<Wait>, CompileError<E>> {
        let Some(parent) = &self.parent else {
            return Ok(None);
        };
        Wait::begin(parent.node, node)
            .map(Some)
            .map_err(|chain| CompileError::Recursive(chain.iter().filter_map(Node::key).collect()))
    }

    fn order(&self, network: Duration) -> Order {
        Order {
            scope: Arc::new(self.scope.clone()),
            tiers: self.options.tiers,
            priority: self.options.priority,
            race: self.options.race,
            network_budget: self.options.network_budget.saturating_sub(network),
            keep: self.options.abandoned == Abandoned::FinishAndKeep,
            span: Span::current(),
            dispatch: dispatcher::get_default(Clone::clone),
        }
    }

    fn answer(
        &self,
        key: PipelineFingerprint,
        located: &Located,
        is_leader: bool,
        finished: Finished,
    ) -> Compiled {
        let source = match (finished.source, is_leader) {
            (Some(source), _) => CompileSource::Cache(source),
            (None, true) => CompileSource::Compiled,
            (None, false) => CompileSource::Joined,
        };
        let compiled = self.compiled(Some(key), finished, source, located.times);
        match &compiled.source {
            CompileSource::Cache(source) => {
                self.count_hit(&compiled.artifact, *source, &compiled.times);
            }
            CompileSource::Compiled => {
                if let Some(account) = &self.account {
                    account.miss(cost(&compiled.times));
                }
            }
            _ => {}
        }
        compiled
    }

    fn compiled(
        &self,
        key: Option<PipelineFingerprint>,
        finished: Finished,
        source: CompileSource,
        mut times: CompileTimes,
    ) -> Compiled {
        let run = finished.run;
        times.parse += run.parse;
        times.key += run.key;
        times.lookup = finished.lookup;
        times.queue = finished.queue;
        times.compile = run.compile;
        Compiled {
            key,
            artifact: finished.artifact,
            source,
            times,
            names: self.compiler.names.clone(),
            asked: finished.asked,
        }
    }

    /// Counts what a hit saves, where it is known how long its compile took.
    fn count_hit(&self, artifact: &Artifact, source: LookupSource, times: &CompileTimes) {
        if let Some(compile) = artifact.metadata().compile_time() {
            let saved = saved_nanos(compile, cost(times));
            self.compiler.count_saved(source, saved);
            if let Some(account) = &self.account {
                account.hit(saved);
            }
        }
    }

    fn remember<E: Send + Sync + 'static>(
        &self,
        key: &PipelineFingerprint,
        located: &Located,
        error: &Arc<E>,
    ) {
        if self.options.remembers_failures {
            let failures = &self.compiler.failures;
            failures.remember(*key, error);
            if let Some(alias) = &located.alias {
                failures.remember(alias.scoped(self.scope), error);
            }
        }
    }
}

/// What the cache itself costs a request.
fn cost(times: &CompileTimes) -> Duration {
    times.hash + times.key + times.lookup
}

impl<S> fmt::Debug for CompileRequest<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompileRequest")
            .field("scope", &self.scope)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
