//! Get or compile: the flight of a lookup, extended over the compile that a miss asks for.

use futures::FutureExt as _;
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::builder::CompilePolicy;
use super::lease::LeaseOutcome;
use super::lookup::{LookupOptions, LookupSource};
use super::{Inner, LayeredPipelineCache};
use crate::artifact::Artifact;
use crate::key::ToWire as _;
use crate::key::{CompileScope, PipelineFingerprint, Program, Unkeyable};
use crate::store::CompileLease;
use crate::sync::single_flight::{Outcome, panic_message};

/// What a compile function is given.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompileInput<P: Program> {
    /// The canonical form: what the key was made of, and nothing else. The artifact is stored.
    Canonical(P::Canonical),
    /// The program as it is, because it has no key. The artifact is not stored.
    Unkeyable(P, Unkeyable),
}

impl<P: Program> CompileInput<P> {
    /// The canonical form, for compilers that take nothing else.
    ///
    /// # Errors
    ///
    /// Why the program has none.
    pub fn into_canonical(self) -> Result<P::Canonical, Unkeyable> {
        match self {
            Self::Canonical(canonical) => Ok(canonical),
            Self::Unkeyable(_, reason) => Err(reason),
        }
    }
}

/// An artifact, and how it was come by.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Compiled {
    /// The key it is stored under; `None` for a program that has no key.
    pub key: Option<PipelineFingerprint>,
    /// The artifact.
    pub artifact: Artifact,
    /// Where it came from.
    pub source: CompileSource,
}

/// Where the artifact of a [`get_or_compile`](LayeredPipelineCache::get_or_compile) came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileSource {
    /// The cache had it.
    Cache(LookupSource),
    /// This call compiled it.
    Compiled,
    /// Another call was compiling it already, and this one waited for that.
    Joined,
    /// This call compiled it past the cache, because the program has no key.
    Bypassed(Unkeyable),
}

/// A compile that gave no artifact.
///
/// All who waited for it are told. Nothing is kept of it: the next call compiles again.
pub enum CompileError<E> {
    /// The compile function returned this error.
    Failed(Arc<E>),
    /// The compile function panicked, with this message.
    Panicked(Arc<str>),
    /// The runtime that the compile ran on was shut down.
    Interrupted,
}

impl<E> CompileError<E> {
    /// The compile function's own error.
    #[must_use]
    pub fn failed(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Panicked(_) | Self::Interrupted => None,
        }
    }
}

// Derived impls would ask `E: Clone` of an error that is shared.
impl<E> Clone for CompileError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::Interrupted => Self::Interrupted,
        }
    }
}

impl<E: PartialEq> PartialEq for CompileError<E> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(one), Self::Failed(two)) => one == two,
            (Self::Panicked(one), Self::Panicked(two)) => one == two,
            (Self::Interrupted, Self::Interrupted) => true,
            (Self::Failed(_) | Self::Panicked(_) | Self::Interrupted, _) => false,
        }
    }
}

impl<E: Eq> Eq for CompileError<E> {}

impl<E: fmt::Debug> fmt::Debug for CompileError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
            Self::Panicked(message) => f.debug_tuple("Panicked").field(message).finish(),
            Self::Interrupted => f.write_str("Interrupted"),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CompileError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "the compile failed: {error}"),
            Self::Panicked(message) => write!(f, "the compile panicked: {message}"),
            Self::Interrupted => f.write_str("the compile was interrupted by a runtime shutdown"),
        }
    }
}

impl<E: Error + 'static> Error for CompileError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(&**error),
            Self::Panicked(_) | Self::Interrupted => None,
        }
    }
}

/// The result of a flight. The error is the leader's own type, known again by every waiter that
/// compiles with the same type.
pub(super) type CompileResult = Result<Compiled, SharedError>;

type SharedError = Arc<dyn Any + Send + Sync>;

impl LayeredPipelineCache {
    /// The artifact of a program in a scope: from the cache, or compiled once however many ask.
    ///
    /// `compile` is given the canonical form and the scope, and is run as a task of its own, so
    /// that it goes on when this caller is dropped and others wait. It is cancelled when the last
    /// of them is dropped. Use `tokio::task::spawn_blocking` inside it for work that does not
    /// await. It must not ask this cache for its own key: it would wait for itself.
    ///
    /// The artifact is handed to all who wait and then written, in the background, to the tiers
    /// that the [`WritePolicy`](crate::WritePolicy) names; where the bounds of the background are
    /// reached they wait for the write, each tier under its deadline. A tier that fails to store it is counted
    /// in the [`WriteBehindReport`](crate::WriteBehindReport), traced, and returned as an error by
    /// the next [`flush`](Self::flush).
    ///
    /// Processes that share a [`DiskCache`](crate::DiskCache) compile once as well, where it is
    /// opened with
    /// [`compile_locks`](crate::DiskCacheBuilder::compile_locks).
    ///
    /// A program without a key is compiled past the cache, by each caller for itself.
    ///
    /// The program is canonicalized and hashed on the calling task. For programs of more than a
    /// few hundred kilobytes do that on the blocking pool and use
    /// [`get_or_insert_with`](Self::get_or_insert_with).
    ///
    /// # Errors
    ///
    /// [`CompileError`], the same for all who waited. A failing tier is no error: what it does
    /// not have is compiled.
    ///
    /// # Panics
    ///
    /// When called outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up this caller's place. The others are not held up.
    ///
    /// ```
    /// use pipeline_cache::{
    ///     Artifact, CompileScope, CompileSource, InMemoryPipelineCache, LayeredPipelineCache,
    ///     OpaqueProgram, Unkeyable,
    /// };
    /// use std::sync::Arc;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    /// let program = OpaqueProgram::new("text", "hello");
    /// let scope = CompileScope::new("upper-caser 1.0", "ascii")?;
    ///
    /// for expected in ["compiled", "cached"] {
    ///     let compiled = cache
    ///         .get_or_compile(&program, &scope, |input, _scope| async move {
    ///             let program = input.into_canonical()?;
    ///             Ok::<_, Unkeyable>(Artifact::new(program.bytes().to_ascii_uppercase()))
    ///         })
    ///         .await?;
    ///     assert_eq!(&compiled.artifact.payload()[..], b"HELLO");
    ///     assert_eq!(compiled.source == CompileSource::Compiled, expected == "compiled");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_compile<P, F, C, E>(
        &self,
        program: &P,
        scope: &CompileScope,
        compile: F,
    ) -> Result<Compiled, CompileError<E>>
    where
        P: Program + Clone + Send + Sync + 'static,
        P::Canonical: Send + 'static,
        F: FnOnce(CompileInput<P>, CompileScope) -> C + Send + 'static,
        C: Future<Output = Result<Artifact, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let scope = scope.clone();
        match program.canonicalize() {
            Ok(canonical) => {
                let key = canonical.fingerprint().scoped(&scope);
                let compile = move || compile(CompileInput::Canonical(canonical), scope);
                self.get_or_insert_with(key, compile).await
            }
            Err(reason) => {
                tracing::debug!(%reason, "compiling past the cache");
                let input = CompileInput::Unkeyable(program.clone(), reason.clone());
                self.inner
                    .bypass(async move { compile(input, scope).await }, reason)
                    .await
            }
        }
    }

    /// Like [`get_or_compile`](Self::get_or_compile), for callers who made the key themselves.
    ///
    /// The key must stand for everything that can change the artifact: take
    /// [`PipelineFingerprint::scoped`].
    ///
    /// # Errors
    ///
    /// [`CompileError`], the same for all who waited.
    ///
    /// # Panics
    ///
    /// When called outside of a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up this caller's place. The others are not held up.
    ///
    /// ```
    /// # use pipeline_cache::*;
    /// # use std::{convert::Infallible, sync::Arc};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// let compiled = cache
    ///     .get_or_insert_with(key, || async { Ok::<_, Infallible>(Artifact::new("code")) })
    ///     .await?;
    /// assert_eq!(cache.get(&key).await, Some(compiled.artifact));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_insert_with<F, C, E>(
        &self,
        key: PipelineFingerprint,
        compile: F,
    ) -> Result<Compiled, CompileError<E>>
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<Artifact, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let inner = &self.inner;
        if let Some(found) = inner.take_at_hand(&key) {
            inner.counters.hits.increment();
            inner.verifier.maybe_verify(key, &found.0, compile);
            return Ok(Compiled::cached(key, found));
        }
        let mut compile = Some(compile);
        loop {
            let waiter = inner.compiles.join(key, || {
                let compile = compile.take().expect("a flight is started once at most");
                ((), Arc::clone(inner).find_or_compile(key, compile))
            });
            let leads = waiter.is_leader;
            if !leads {
                inner.counters.joins.increment();
            }
            match waiter.await {
                Outcome::Done(Ok(compiled)) => return Ok(compiled.seen_by(leads)),
                Outcome::Done(Err(error)) => match error.downcast() {
                    Ok(error) => return Err(CompileError::Failed(error)),
                    // The leader compiles with another type of error, which this caller cannot be
                    // told. Failures are not kept anyway: it tries for itself.
                    Err(_) if compile.is_some() => {}
                    Err(_) => return Err(CompileError::Interrupted),
                },
                Outcome::Panicked(message) => return Err(CompileError::Panicked(message)),
                // The leader's runtime went away, and this caller's did not.
                Outcome::Aborted if compile.is_some() => {}
                Outcome::Aborted => return Err(CompileError::Interrupted),
            }
        }
    }
}

impl Inner {
    /// The work of a flight: look everywhere, else compile, and store.
    async fn find_or_compile<F, C, E>(
        self: Arc<Self>,
        key: PipelineFingerprint,
        compile: F,
    ) -> CompileResult
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<Artifact, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let mut search = Box::pin(self.search_and_count(&key));
        let head_start = match self.compile_policy {
            CompilePolicy::AfterMiss => Duration::MAX,
            CompilePolicy::Race { after } => after,
        };
        let made = match timeout(head_start, &mut search).await {
            Ok(Some(found)) => {
                self.verifier.maybe_verify(key, &found.0, compile);
                return Ok(Compiled::cached(key, found));
            }
            Ok(None) => self.make(&key, compile).await?,
            Err(_) => self.race(search, &key, compile).await?,
        };
        match made {
            Made::Found(found) => Ok(Compiled::cached(key, found)),
            Made::Compiled(artifact, leads) => {
                self.write_compiled(&key, &artifact, leads).await;
                Ok(Compiled {
                    key: Some(key),
                    artifact,
                    source: CompileSource::Compiled,
                })
            }
        }
    }

    async fn search_and_count(&self, key: &PipelineFingerprint) -> Option<Found> {
        let lookup = self.search(key, &LookupOptions::new()).await;
        self.count(&lookup);
        lookup.found
    }

    /// Compiles while the search goes on. The one that is ready first wins, unless it is the
    /// search and it missed; the other is dropped.
    async fn race<F, C, E>(
        &self,
        mut search: Pin<Box<impl Future<Output = Option<Found>>>>,
        key: &PipelineFingerprint,
        compile: F,
    ) -> Result<Made, SharedError>
    where
        F: FnOnce() -> C,
        C: Future<Output = Result<Artifact, E>>,
        E: Send + Sync + 'static,
    {
        let mut made = pin!(self.make(key, compile));
        tokio::select! {
            biased;
            found = &mut search => if let Some(found) = found {
                return Ok(Made::Found(found));
            },
            made = &mut made => return made,
        }
        drop(search);
        made.await
    }

    /// Compiles, unless somebody who shares a tier is quicker.
    async fn make<F, C, E>(
        &self,
        key: &PipelineFingerprint,
        compile: F,
    ) -> Result<Made, SharedError>
    where
        F: FnOnce() -> C,
        C: Future<Output = Result<Artifact, E>>,
        E: Send + Sync + 'static,
    {
        let leads = match self.acquire_lease(key).await {
            LeaseOutcome::Given(leads) => leads,
            LeaseOutcome::Needless(found) => return Ok(Made::Found(found)),
        };
        let artifact = self.run(compile).await?;
        Ok(Made::Compiled(artifact, leads))
    }

    /// Compiles, and counts it.
    async fn run<F, C, E>(&self, compile: F) -> Result<Artifact, SharedError>
    where
        F: FnOnce() -> C,
        C: Future<Output = Result<Artifact, E>>,
        E: Send + Sync + 'static,
    {
        self.counters.compiles.increment();
        let compiled = AssertUnwindSafe(async { compile().await }).catch_unwind();
        match compiled.await {
            Ok(Ok(artifact)) => Ok(artifact),
            Ok(Err(error)) => {
                self.counters.compile_errors.increment();
                Err(Arc::new(error))
            }
            Err(panic) => {
                self.counters.compile_errors.increment();
                resume_unwind(panic)
            }
        }
    }
}

/// What a search found, and where.
pub(super) type Found = (Artifact, LookupSource);

/// What came of a miss.
enum Made {
    /// Somebody had or stored it after all.
    Found(Found),
    /// With the leads to compile it.
    Compiled(Artifact, Vec<CompileLease>),
}

impl Compiled {
    fn cached(key: PipelineFingerprint, (artifact, source): Found) -> Self {
        Self {
            key: Some(key),
            artifact,
            source: CompileSource::Cache(source),
        }
    }

    /// The same, as the caller sees it who did or did not start the flight.
    fn seen_by(mut self, leader: bool) -> Self {
        if !leader && self.source == CompileSource::Compiled {
            self.source = CompileSource::Joined;
        }
        self
    }
}

impl Inner {
    /// Compiles for one caller alone, in a task of its own.
    async fn bypass<E: Send + Sync + 'static>(
        &self,
        compile: impl Future<Output = Result<Artifact, E>> + Send + 'static,
        reason: Unkeyable,
    ) -> Result<Compiled, CompileError<E>> {
        self.counters.compiles.increment();
        let compiled = AbortOnDropHandle::new(tokio::spawn(compile)).await;
        if !matches!(compiled, Ok(Ok(_))) {
            self.counters.compile_errors.increment();
        }
        match compiled {
            Ok(Ok(artifact)) => Ok(Compiled {
                key: None,
                artifact,
                source: CompileSource::Bypassed(reason),
            }),
            Ok(Err(error)) => Err(CompileError::Failed(Arc::new(error))),
            Err(error) => Err(match error.try_into_panic() {
                Ok(panic) => CompileError::Panicked(panic_message(&*panic)),
                Err(_shutdown) => CompileError::Interrupted,
            }),
        }
    }
}
