//! Where the input of a compile comes from: a source, a program, or nothing but its key.

use bytes::Bytes;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{Dispatch, Span, dispatcher};

use super::admission::{LookupPriority, PriorityBoost};
use super::compile_error::CompileError;
use super::compiled::{CompileInput, CompileTimes};
use super::compiler::Compiler;
use super::lookup::TierSelection;
use super::order::take;
use crate::key::{CompileScope, PipelineFingerprint, Program, ToWire as _, Unkeyable};
use crate::source_alias::{
    FlightState, NetworkWait, Parsed, SourceTimes, Unresolved, alias_key_async,
};
use crate::sync::single_flight::panic_message;

/// What a compile request can be made from: [`FromSource`], [`FromProgram`] or [`FromKey`], as set by
/// [`source`](super::CompileRequest::source), [`program`](super::CompileRequest::program) and
/// [`key`](super::CompileRequest::key). `E` is the error of the compile function.
///
/// Not for other types: its methods are private to this crate.
///
/// See [`CompileRequest`](super::CompileRequest) for an example.
pub trait CompileFrom<E: Send + Sync + 'static>: Send + Sized + 'static {
    /// What the compile function is given.
    type Input: Send + 'static;

    /// What has its key.
    #[doc(hidden)]
    type Keyed: IntoInput<E, Input = Self::Input>;

    /// Finds the key.
    #[doc(hidden)]
    fn locate(
        self,
        site: Site<'_>,
    ) -> impl Future<Output = Result<(Located, Self::Keyed), CompileError<E>>> + Send;

    /// The input without a key. May take long.
    #[doc(hidden)]
    fn into_passed_by(self) -> Result<Prepared<Self::Input>, E>;
}

/// What has its key, and becomes the input of a compile.
pub trait IntoInput<E>: Send + Sized + 'static {
    /// The input.
    type Input: Send + 'static;

    /// The input, if it is there already.
    fn into_ready(self) -> Result<Self::Input, Self>;

    /// The input. May take long.
    fn into_input(self) -> Result<Prepared<Self::Input>, InputStop<Self, E>>;
}

/// What an origin needs of the request to find its key.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    pub(super) compiler: &'a Arc<Compiler>,
    pub(super) scope: &'a CompileScope,
    pub(super) priority: LookupPriority,
    pub(super) tiers: TierSelection,
    pub(super) network_budget: Duration,
    /// Whether a failure that is remembered is the answer.
    pub(super) remembers_failures: bool,
}

/// A key, and what it took to find it.
#[derive(Debug)]
pub struct Located {
    pub(super) key: Result<PipelineFingerprint, Unkeyable>,
    /// The key of the alias, for a source.
    pub(super) alias: Option<PipelineFingerprint>,
    /// Time spent to wait for a store of aliases across a network.
    pub(super) network: Duration,
    pub(super) times: CompileTimes,
}

/// An input, and what it took to make it.
#[derive(Debug)]
pub struct Prepared<I> {
    pub(super) input: I,
    pub(super) parse: Duration,
    pub(super) key: Duration,
}

/// An input that was not made.
#[derive(Debug)]
pub enum InputStop<S, E> {
    /// The parse function failed.
    Failed(E),
    /// The source spells another program than its alias said, or one without a key: its canonical
    /// form may not pass its check.
    Rekeyed(Result<PipelineFingerprint, Unkeyable>, S),
}

impl<I> Prepared<I> {
    const fn ready(input: I) -> Self {
        Self {
            input,
            parse: Duration::ZERO,
            key: Duration::ZERO,
        }
    }
}

impl Located {
    const fn at(key: Result<PipelineFingerprint, Unkeyable>, times: CompileTimes) -> Self {
        Self {
            key,
            alias: None,
            network: Duration::ZERO,
            times,
        }
    }
}

/// A program whose canonical form is made, and checked only where it is to be compiled.
pub struct Unchecked<P: Program> {
    program: P,
    canonical: Result<P::Canonical, Unkeyable>,
}

impl<P: Program> Unchecked<P> {
    /// What is compiled, if it needs no check that may take long.
    fn into_ready(self) -> Result<CompileInput<P>, Self> {
        match self.canonical {
            Err(reason) => Ok(CompileInput::Unkeyable(self.program, reason)),
            Ok(canonical) if self.program.is_small() && canonical.check().is_ok() => {
                Ok(CompileInput::Canonical(canonical))
            }
            Ok(_) => Err(self),
        }
    }

    /// What is compiled, or why the canonical form is not fit for it. May take long.
    fn into_checked(self) -> Result<CompileInput<P>, (Unkeyable, Self)> {
        let Self { program, canonical } = self;
        let checked = canonical.and_then(|canonical| canonical.check().map(|()| canonical));
        match checked {
            Ok(canonical) => Ok(CompileInput::Canonical(canonical)),
            Err(reason) => {
                let canonical = Err(reason.clone());
                Err((reason, Self { program, canonical }))
            }
        }
    }
}

/// The key of a program, and what is compiled under it.
fn key_of<P: Program>(program: P) -> (Result<PipelineFingerprint, Unkeyable>, Unchecked<P>) {
    let canonical = program.canonicalize();
    let key = match &canonical {
        Ok(canonical) => Ok(canonical.fingerprint()),
        Err(reason) => Err(reason.clone()),
    };
    (key, Unchecked { program, canonical })
}

/// A source, and the front end that reads it.
///
/// See [`CompileRequest`](super::CompileRequest) for an example.
pub struct FromSource<P: Program, F> {
    front_end: String,
    source: Bytes,
    parse: Arc<F>,
    /// What the parse for the key has made, for the first who takes it.
    made: Option<Made<P>>,
    /// The fingerprint that the source has, or that its alias says it has.
    fingerprint: Option<PipelineFingerprint>,
}

type Made<P> = Arc<Mutex<Option<Unchecked<P>>>>;

fn made<P: Program>(unchecked: Unchecked<P>) -> Made<P> {
    Arc::new(Mutex::new(Some(unchecked)))
}

impl<P: Program, F> FromSource<P, F> {
    pub(super) fn new(front_end: String, source: Bytes, parse: F) -> Self {
        Self {
            front_end,
            source,
            parse: Arc::new(parse),
            made: None,
            fingerprint: None,
        }
    }
}

impl<P, F, E> CompileFrom<E> for FromSource<P, F>
where
    P: Program + Send + 'static,
    P::Canonical: Send + 'static,
    F: Fn(&Bytes) -> Result<P, E> + Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    type Input = CompileInput<P>;
    type Keyed = Self;

    async fn locate(mut self, site: Site<'_>) -> Result<(Located, Self), CompileError<E>> {
        let start = Instant::now();
        let alias = alias_key_async::<P>(&self.front_end, &self.source).await;
        let mut times = CompileTimes {
            hash: start.elapsed(),
            ..CompileTimes::default()
        };
        let Site {
            compiler, priority, ..
        } = site;
        if site.remembers_failures {
            let failure = compiler.failures.get(&alias.scoped(site.scope));
            if let Some(error) = failure {
                return Err(CompileError::Failed(error));
            }
        }
        let start = Instant::now();
        let caller = Caller::current();
        let parse = |state: &FlightState| {
            let boost = PriorityBoost::from(state.urgent.clone());
            let (parse, source) = (Arc::clone(&self.parse), self.source.clone());
            let caller = caller.clone();
            let parse = move |queue| caller.trace_parse(|| parse_and_key(&source, &*parse, queue));
            Arc::clone(compiler).run_key(priority, boost, parse)
        };
        let wait = match site.tiers {
            TierSelection::Local => NetworkWait::Never,
            _ => NetworkWait::Within(site.network_budget),
        };
        let is_urgent = priority == LookupPriority::Interactive;
        let aliases = &compiler.aliases;
        let resolved = aliases.resolve(alias, wait, is_urgent, parse).await;
        let resolved = resolved.map_err(|unresolved| match unresolved {
            Unresolved::Failed(error) => {
                if site.remembers_failures {
                    let key = alias.scoped(site.scope);
                    compiler.failures.remember(key, &error);
                }
                CompileError::Failed(error)
            }
            Unresolved::Panicked(message) => CompileError::Panicked(message),
            Unresolved::Interrupted => CompileError::Interrupted,
        })?;
        let SourceTimes {
            search,
            queue,
            parse,
            key,
        } = resolved.times;
        // Of a search that this caller joined, no more than what it waited for it.
        let waited = start.elapsed().saturating_sub(queue + parse + key);
        times.alias = search.min(waited);
        (times.queue, times.parse, times.key) = (queue, parse, key);
        let asks_network = wait != NetworkWait::Never && aliases.are_kept_in_network();
        let network = match asks_network {
            true => times.alias,
            false => Duration::ZERO,
        };
        self.made = resolved.made;
        let fingerprint = resolved.fingerprint;
        // What no store keeps cannot be fetched by the next run.
        if fingerprint.is_ok() && aliases.are_kept() {
            compiler.search.record_alias(&alias, parse + key);
        }
        self.fingerprint = fingerprint.as_ref().ok().copied();
        let located = Located {
            key: fingerprint.map(|fingerprint| fingerprint.scoped(site.scope)),
            alias: Some(alias),
            network,
            times,
        };
        Ok((located, self))
    }

    fn into_passed_by(self) -> Result<Prepared<CompileInput<P>>, E> {
        let start = Instant::now();
        let program = (self.parse)(&self.source)?;
        Ok(Prepared {
            input: CompileInput::PassedBy(program),
            parse: start.elapsed(),
            key: Duration::ZERO,
        })
    }
}

impl<P, F, E> IntoInput<E> for FromSource<P, F>
where
    P: Program + Send + 'static,
    P::Canonical: Send + 'static,
    F: Fn(&Bytes) -> Result<P, E> + Send + Sync + 'static,
{
    type Input = CompileInput<P>;

    fn into_ready(mut self) -> Result<CompileInput<P>, Self> {
        match self.made.take().as_deref().and_then(take) {
            None => Err(self),
            Some(unchecked) => unchecked.into_ready().map_err(|unchecked| {
                self.made = Some(made(unchecked));
                self
            }),
        }
    }

    /// Parses again where another request has taken what was parsed. An alias may come from a store
    /// that others write to, so it is checked before anything is compiled under it.
    fn into_input(mut self) -> Result<Prepared<CompileInput<P>>, InputStop<Self, E>> {
        let (unchecked, times) = match self.made.take().as_deref().and_then(take) {
            Some(unchecked) => (unchecked, SourceTimes::default()),
            None => {
                let parsed = parse_and_key(&self.source, &*self.parse, Duration::ZERO)
                    .map_err(InputStop::Failed)?;
                if parsed.fingerprint.as_ref().ok() != self.fingerprint.as_ref() {
                    return Err(self.rekeyed(parsed.fingerprint, parsed.made));
                }
                (parsed.made, parsed.times)
            }
        };
        match unchecked.into_checked() {
            Ok(input) => Ok(Prepared {
                input,
                parse: times.parse,
                key: times.key,
            }),
            Err((reason, unchecked)) => Err(self.rekeyed(Err(reason), unchecked)),
        }
    }
}

impl<P: Program, F> FromSource<P, F> {
    fn rekeyed<E>(
        mut self,
        right: Result<PipelineFingerprint, Unkeyable>,
        unchecked: Unchecked<P>,
    ) -> InputStop<Self, E> {
        self.fingerprint = right.as_ref().ok().copied();
        self.made = Some(made(unchecked));
        InputStop::Rekeyed(right, self)
    }
}

/// The span and the subscriber of whoever asks, for the thread that works.
#[derive(Clone)]
struct Caller(Span, Dispatch);

impl Caller {
    fn current() -> Self {
        Self(Span::current(), dispatcher::get_default(Clone::clone))
    }

    fn trace_parse<T>(&self, parse: impl FnOnce() -> T) -> T {
        let Self(caller, dispatch) = self;
        dispatcher::with_default(dispatch, || {
            let step = tracing::debug_span!(parent: caller, "parse");
            caller.in_scope(|| step.in_scope(parse))
        })
    }
}

fn parse_and_key<P: Program, E>(
    source: &Bytes,
    parse: &impl Fn(&Bytes) -> Result<P, E>,
    queue: Duration,
) -> Result<Parsed<Unchecked<P>>, E> {
    let start = Instant::now();
    let program = parse(source)?;
    let parse = start.elapsed();
    let (fingerprint, made) = key_of(program);
    let key = start.elapsed().saturating_sub(parse);
    Ok(Parsed {
        fingerprint,
        made,
        times: SourceTimes {
            search: Duration::ZERO,
            queue,
            parse,
            key,
        },
    })
}

/// A program.
///
/// See [`CompileRequest`](super::CompileRequest) for an example.
pub struct FromProgram<P>(pub(super) P);

impl<P, E> CompileFrom<E> for FromProgram<P>
where
    P: Program + Send + 'static,
    P::Canonical: Send + 'static,
    E: Send + Sync + 'static,
{
    type Input = CompileInput<P>;
    type Keyed = Unchecked<P>;

    async fn locate(self, site: Site<'_>) -> Result<(Located, Unchecked<P>), CompileError<E>> {
        let Self(program) = self;
        let is_small = program.is_small();
        let work = move |queue| {
            let start = Instant::now();
            (key_of(program), queue, start.elapsed())
        };
        let keyed = match is_small {
            true => catch_unwind(AssertUnwindSafe(|| work(Duration::ZERO)))
                .map_err(|panic| panic_message(&*panic)),
            false => {
                let boost = PriorityBoost::default();
                Arc::clone(site.compiler)
                    .run_key(site.priority, boost, work)
                    .await
            }
        };
        let ((fingerprint, input), queue, key) = keyed.map_err(CompileError::Panicked)?;
        let times = CompileTimes {
            key,
            queue,
            ..CompileTimes::default()
        };
        let key = fingerprint.map(|fingerprint| fingerprint.scoped(site.scope));
        Ok((Located::at(key, times), input))
    }

    fn into_passed_by(self) -> Result<Prepared<CompileInput<P>>, E> {
        Ok(Prepared::ready(CompileInput::PassedBy(self.0)))
    }
}

impl<P, E> IntoInput<E> for Unchecked<P>
where
    P: Program + Send + 'static,
    P::Canonical: Send + 'static,
{
    type Input = CompileInput<P>;

    fn into_ready(self) -> Result<CompileInput<P>, Self> {
        self.into_ready()
    }

    fn into_input(self) -> Result<Prepared<CompileInput<P>>, InputStop<Self, E>> {
        match self.into_checked() {
            Ok(input) => Ok(Prepared::ready(input)),
            Err((reason, unchecked)) => Err(InputStop::Rekeyed(Err(reason), unchecked)),
        }
    }
}

/// A key that the caller has made.
///
/// See [`CompileRequest`](super::CompileRequest) for an example.
#[derive(Debug, Clone, Copy)]
pub struct FromKey(pub(super) PipelineFingerprint);

impl<E: Send + Sync + 'static> CompileFrom<E> for FromKey {
    type Input = ();
    type Keyed = ();

    async fn locate(self, _: Site<'_>) -> Result<(Located, ()), CompileError<E>> {
        Ok((Located::at(Ok(self.0), CompileTimes::default()), ()))
    }

    fn into_passed_by(self) -> Result<Prepared<()>, E> {
        Ok(Prepared::ready(()))
    }
}

impl<E> IntoInput<E> for () {
    type Input = ();

    fn into_ready(self) -> Result<(), ()> {
        Ok(())
    }

    fn into_input(self) -> Result<Prepared<()>, InputStop<Self, E>> {
        Ok(Prepared::ready(()))
    }
}

impl<P: Program, F> fmt::Debug for FromSource<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromSource")
            .field("front_end", &self.front_end)
            .field("bytes", &self.source.len())
            .finish_non_exhaustive()
    }
}

impl<P> fmt::Debug for FromProgram<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromProgram").finish_non_exhaustive()
    }
}

impl<P: Program> fmt::Debug for Unchecked<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unchecked").finish_non_exhaustive()
    }
}
