//! The compile request: from a source, a program or a key to an artifact, in one call.

use bytes::Bytes;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::LayeredPipelineCache;
use super::admission::LookupPriority;
use super::compile_error::CompileError;
use super::compiled::{CompileSource, CompileTimes, Compiled};
use super::compiler::Compiler;
use super::context::CompileContext;
use super::desk::{Abandoned, Desk, Options, slot};
use super::execution::{CURRENT, Lent, Run};
use super::job::{Work, awaited, on_thread};
use super::lookup::TierSelection;
use super::order::Job;
use super::origin::{CompileFrom, FromKey, FromProgram, FromSource, Site};
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
///   run on these threads as well, in places of their own, one more than there are for compiles: a hit
///   never waits for a compile.
/// - A hit by a known spelling waits for no place at all. A new spelling of a program that the cache has
///   is parsed first, behind the parses that came before it. [`CompileTimes`] tells the two apart.
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
                writes: TierSelection::All,
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

    /// Sets which tiers, and which stores of [source aliases](crate::SourceAliases), are asked before it
    /// is compiled. Default: all. [`writes`](Self::writes) says where what was compiled is written.
    ///
    /// A caller that asks local tiers alone and joins a flight that waits for a network makes it
    /// compile.
    pub const fn tiers(mut self, tiers: TierSelection) -> Self {
        self.options.tiers = tiers;
        self
    }

    /// Sets to which tiers what was compiled is written. Default: to all that take writes.
    ///
    /// With [`TierSelection::Local`] what is made of a draft, which the next keystroke replaces, stays on
    /// this machine. Where several callers wait for one compile, it is written wherever one of them
    /// wants it. What is in a tier already is not written to others: see
    /// [`put`](LayeredPipelineCache::put). Source aliases are written to all their stores.
    ///
    /// ```
    /// # use pipeline_cache::*;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// # let scope = CompileScope::new("upper-caser 1.0", "ascii")?;
    /// let checked = cache
    ///     .compile(&scope)
    ///     .program(OpaqueProgram::new("text", "hell"))
    ///     .tiers(TierSelection::Local)
    ///     .writes(TierSelection::Local)
    ///     .run(|input, _cx| Ok::<_, Unkeyable>(Artifact::new(input.into_canonical()?.bytes().clone())))
    ///     .await?;
    /// # let _ = checked;
    /// # Ok(())
    /// # }
    /// ```
    pub const fn writes(mut self, tiers: TierSelection) -> Self {
        self.options.writes = tiers;
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
    ///
    /// ```
    /// # use pipeline_cache::{CompileScope, InMemoryPipelineCache, LayeredPipelineCache};
    /// use std::time::Duration;
    ///
    /// # let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// # let scope = CompileScope::new("compiler 1.0", "any")?;
    /// // It compiles in 10 ms: no slow tier is waited for.
    /// let quick = cache.compile(&scope).race(Duration::from_millis(10));
    ///
    /// // It compiles for a minute: a far server is worth a wait.
    /// let slow = cache.compile(&scope).network_budget(Duration::from_secs(5));
    /// # let _ = (quick, slow);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn race(mut self, after: Duration) -> Self {
        self.options.race = Some(after);
        self
    }

    /// Sets how long the request waits for network tiers until one of them begins to answer: from when
    /// it first waits for nothing else. After that the compile starts, and the network may still win.
    /// Default: that of the
    /// [cache](crate::LayeredPipelineCacheBuilder::network_budget), 250 ms.
    ///
    /// An answer that has begun to arrive has the limits of its tier. What the lookup left of the budget
    /// is for the servers that grant compile leases, all together, to say who has the lease; once
    /// nothing is left, no further server is asked. The wait for another process is not part of it.
    /// After such a wait, in which the server has answered, the search for the artifact has the whole
    /// budget again.
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
    ///
    /// ```
    /// use pipeline_cache::layered::Abandoned;
    /// # use pipeline_cache::{Artifact, CompileScope, InMemoryPipelineCache, LayeredPipelineCache};
    /// # use pipeline_cache::OpaqueProgram;
    /// use std::error::Error;
    ///
    /// # async fn on_worker(program: OpaqueProgram) -> Result<Artifact, std::io::Error> {
    /// #     Ok(Artifact::new(program.bytes().clone()))
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    /// # let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// # let scope = CompileScope::new("compiler 1.0", "any")?;
    /// let compiled = cache
    ///     .compile(&scope)
    ///     .program(OpaqueProgram::new("text", "hello"))
    ///     .when_abandoned(Abandoned::Cancel)
    ///     .run_async(|input, cx| async move {
    ///         tokio::select! {
    ///             artifact = on_worker(input.into_canonical()?) => Ok(artifact?),
    ///             // Ends the request to the worker, which stops its compile.
    ///             () = cx.abandoned() => Err::<_, Box<dyn Error + Send + Sync>>("nobody waits".into()),
    ///         }
    ///     })
    ///     .await;
    /// # assert!(compiled.is_ok());
    /// # Ok(())
    /// # }
    /// ```
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

    /// The key that the artifact has, or why it has none. Looks into no tier for it, and compiles
    /// nothing. To see where the artifact is, [look it up](LayeredPipelineCache::lookup).
    ///
    /// A known spelling costs what it costs in [`run`](Self::run); a new one is parsed, and is known from
    /// then on. Of the options the deadline, the tiers, the priority, the network budget and the
    /// remembered failures count.
    ///
    /// # Errors
    ///
    /// As `run`, but for what a compile function fails with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends this caller's wait. A parse that has begun runs to its end.
    ///
    /// ```
    /// # use pipeline_cache::*;
    /// # use bytes::Bytes;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new()).build();
    /// # let scope = CompileScope::new("upper-caser 1.0", "ascii")?;
    /// # let parse = |text: &Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("text", text.clone()));
    /// let request = cache.compile(&scope).source("text-parser 1.0", "hello", parse);
    /// let key = request.find_key().await??;
    /// println!("{key}: {:?}", cache.lookup(&key, &LookupOptions::new()).await.source());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn find_key<E>(
        self,
    ) -> Result<Result<PipelineFingerprint, Unkeyable>, CompileError<E>>
    where
        S: CompileFrom<E>,
        E: Send + Sync + 'static,
    {
        if Handle::try_current().is_err() {
            return Err(CompileError::NoRuntime);
        }
        let located = self
            .origin
            .locate(site(self.compiler, self.scope, &self.options));
        let (located, _keyed) = match self.options.deadline {
            None => located.await?,
            Some(deadline) => timeout(deadline, located)
                .await
                .unwrap_or(Err(CompileError::DeadlineExceeded(deadline)))?,
        };
        Ok(located.key)
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
        let site = site(self.compiler, self.scope, &self.options);
        let (located, keyed) = self.origin.locate(site).await?;
        let job = || job(Work::Keyed(keyed));
        match located.key.clone() {
            Ok(key) => desk.find_or_compile(key, located, job).await,
            Err(reason) => desk.bypass_unkeyable(slot(job()), reason, located).await,
        }
    }
}

fn site<'a>(compiler: &'a Arc<Compiler>, scope: &'a CompileScope, options: &Options) -> Site<'a> {
    Site {
        compiler,
        scope,
        priority: options.priority,
        tiers: options.tiers,
        network_budget: options.network_budget,
        remembers_failures: options.remembers_failures,
    }
}

impl<S> fmt::Debug for CompileRequest<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompileRequest")
            .field("scope", &self.scope)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
