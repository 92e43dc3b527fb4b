//! The compiler of a cache: one compile of a key at a time, after or beside the search for it.

use futures::FutureExt as _;
use std::any::Any;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::builder::CompilePolicy;
use super::compiled::{CompileError, CompileSource, Compiled};
use super::lease::{self, TierLease};
use super::lookup::{Found, LookupOptions};
use super::metrics::CompileCounters;
use super::put::Writer;
use super::search::Search;
use super::tier::Tier;
use super::verify::Verifier;
use crate::artifact::Artifact;
use crate::key::{PipelineFingerprint, Unkeyable};
use crate::sync::single_flight::{Outcome, SingleFlight, panic_message};

/// How a cache compiles.
#[derive(Debug)]
pub(super) struct Compiler {
    tiers: Arc<[Tier]>,
    policy: CompilePolicy,
    /// How long a compile waits for the leases of the tiers.
    max_wait: Duration,
    search: Arc<Search>,
    writer: Arc<Writer>,
    flights: SingleFlight<PipelineFingerprint, (), CompileResult>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) counters: CompileCounters,
}

/// The result of a compile flight. The error has the type of the leader's compile function; only a
/// waiter that compiles with the same type can read it.
type CompileResult = Result<Compiled, SharedError>;

type SharedError = Arc<dyn Any + Send + Sync>;

/// What came of a miss.
enum Made {
    /// Another process, or a slower tier, had it after all.
    Found(Found),
    /// It was compiled under these leases.
    Compiled(Artifact, Vec<TierLease>),
}

impl Compiler {
    pub(super) fn new(
        tiers: Arc<[Tier]>,
        search: Arc<Search>,
        writer: Arc<Writer>,
        policy: CompilePolicy,
        max_wait: Duration,
        verifier: Verifier,
    ) -> Self {
        Self {
            tiers,
            policy,
            max_wait,
            search,
            writer,
            flights: SingleFlight::new(),
            verifier: Arc::new(verifier),
            counters: CompileCounters::default(),
        }
    }

    /// Makes later calls for a key start a flight of their own.
    pub(super) fn detach(&self, key: &PipelineFingerprint) {
        self.flights.detach(key);
    }

    /// The artifact from the cache, or compiled once for all who ask at the same time.
    pub(super) async fn get_or_compile<F, C, E>(
        self: &Arc<Self>,
        key: PipelineFingerprint,
        compile: F,
    ) -> Result<Compiled, CompileError<E>>
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<Artifact, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        if let Some(found) = self.search.peek_and_promote(&key) {
            self.verifier.maybe_verify(key, &found.0, compile);
            return Ok(Compiled::cached(key, found));
        }
        if Handle::try_current().is_err() {
            return Err(CompileError::NoRuntime);
        }
        let mut compile = Some(compile);
        loop {
            let waiter = self.flights.join(key, || {
                let compile = compile.take().expect("a caller starts one flight at most");
                ((), Arc::clone(self).find_or_compile(key, compile))
            });
            let is_leader = waiter.is_leader;
            if !is_leader {
                self.counters.joins.increment();
            }
            match waiter.await {
                Outcome::Done(Ok(compiled)) if is_leader => return Ok(compiled),
                Outcome::Done(Ok(compiled)) => return Ok(compiled.joined()),
                Outcome::Done(Err(error)) => match error.downcast() {
                    Ok(error) => return Err(CompileError::Failed(error)),
                    // The leader's error has another type, so this caller cannot be told. It
                    // compiles for itself: failures are not kept anyway.
                    Err(_) if compile.is_some() => {}
                    Err(_) => return Err(CompileError::Interrupted),
                },
                Outcome::Panicked(message) => return Err(CompileError::Panicked(message)),
                // The runtime of the leader was shut down, and that of this caller was not.
                Outcome::Aborted if compile.is_some() => {}
                Outcome::Aborted => return Err(CompileError::Interrupted),
            }
        }
    }

    /// The work of a flight: search the tiers, or else compile and store.
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
        let mut search = Box::pin(async {
            let options = LookupOptions::new();
            self.search.search_and_count(&key, &options).await.found
        });
        let head_start = match self.policy {
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
            Made::Compiled(artifact, leases) => {
                self.writer.put_compiled(&key, &artifact, leases).await;
                Ok(Compiled {
                    key: Some(key),
                    artifact,
                    source: CompileSource::Compiled,
                })
            }
        }
    }

    /// Compiles while the search goes on. The first of the two that has the artifact wins; the
    /// other is dropped.
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

    /// Compiles, unless another process that shares a tier was faster.
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
        let leases = lease::acquire(&self.tiers, key, self.max_wait).await;
        if leases.any_failed || !leases.held.is_empty() {
            // Another process may have stored it while this one waited for the lease.
            if let Some(found) = self.search.search_local_anew(key).await {
                self.counters.followed.increment();
                return Ok(Made::Found(found));
            }
        }
        if leases.any_failed {
            self.counters.unshared_compiles.increment();
        }
        let artifact = self.run(compile).await?;
        Ok(Made::Compiled(artifact, leases.held))
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

    /// Compiles what has no key, for one caller alone, in a task of its own.
    pub(super) async fn bypass<E: Send + Sync + 'static>(
        &self,
        compile: impl Future<Output = Result<Artifact, E>> + Send + 'static,
        reason: Unkeyable,
    ) -> Result<Compiled, CompileError<E>> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(CompileError::NoRuntime);
        };
        self.counters.compiles.increment();
        let compiled = AbortOnDropHandle::new(runtime.spawn(compile)).await;
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
