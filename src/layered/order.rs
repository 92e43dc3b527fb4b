//! What a request hands to the compiler, and what it gets back.

use futures::future::BoxFuture;
use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::{Dispatch, Span, dispatcher};

use super::admission::LookupPriority;
use super::compile_error::CompileError;
use super::execution::{Execution, RunTimes};
use super::lookup::{LookupSource, TierReport, TierSelection};
use crate::artifact::Artifact;
use crate::key::{CompileScope, PipelineFingerprint, Unkeyable};
use crate::sync::lock::lock;

/// What is the same for all steps of a request.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) scope: CompileScope,
    pub(super) tiers: TierSelection,
    pub(super) writes: TierSelection,
    pub(super) priority: LookupPriority,
    pub(super) race: Option<Duration>,
    pub(super) network_budget: Duration,
    /// Whether the compile goes on when nobody waits for it.
    pub(super) keep: bool,
    /// Of the caller.
    pub(super) span: Span,
    pub(super) dispatch: Dispatch,
}

impl Order {
    /// The span of a step, which is made of that of the caller.
    pub(super) fn step(&self, make: impl FnOnce(&Span) -> Span) -> Span {
        dispatcher::with_default(&self.dispatch, || make(&self.span))
    }
}

/// Makes an artifact: parses where that is still to be done, and compiles.
pub(super) type Job<E> =
    Box<dyn FnOnce(Execution) -> BoxFuture<'static, Result<Artifact, JobStop<E>>> + Send>;

/// Where a caller and its flight keep the job. Whoever needs it takes it.
pub(super) type JobSlot<E> = Arc<Mutex<Option<Job<E>>>>;

/// A job that made nothing.
pub(super) enum JobStop<E> {
    Failed(E),
    Panicked(Arc<str>),
    /// Its callers had gone before it began.
    Cancelled,
    /// The source spells another program than the alias said: that of this fingerprint, or one
    /// without a key, such as one whose canonical form does not pass its check. The job goes on from what was parsed.
    Rekeyed(Result<PipelineFingerprint, Unkeyable>, Job<E>),
}

/// Why a flight has no artifact. The error has the type of the leader's compile function; only a
/// waiter that compiles with the same type can read it.
#[derive(Clone)]
pub(super) enum Stop {
    Failed(Arc<dyn Any + Send + Sync>),
    Panicked(Arc<str>),
    Cancelled,
    Rekeyed(Result<PipelineFingerprint, Unkeyable>),
    Overloaded,
    TimedOut(Duration),
    Interrupted,
}

impl Stop {
    /// What its caller is told. An error of another type cannot be told.
    pub(super) fn into_error<E: Send + Sync + 'static>(self) -> CompileError<E> {
        match self {
            Self::Failed(error) => match error.downcast() {
                Ok(error) => CompileError::Failed(error),
                Err(_) => CompileError::Interrupted,
            },
            Self::Panicked(message) => CompileError::Panicked(message),
            Self::Overloaded => CompileError::Overloaded,
            Self::TimedOut(limit) => CompileError::TimedOut(limit),
            Self::Cancelled | Self::Rekeyed(_) | Self::Interrupted => CompileError::Interrupted,
        }
    }
}

/// What came of a flight, or of a compile without one.
#[derive(Clone)]
pub(super) struct Finished {
    pub(super) artifact: Artifact,
    /// `None` for what was compiled.
    pub(super) source: Option<LookupSource>,
    pub(super) asked: Option<Arc<[TierReport]>>,
    pub(super) lookup: Duration,
    pub(super) queue: Duration,
    pub(super) run: RunTimes,
}

pub(super) fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    lock(slot).take()
}

pub(super) fn put_back<T>(slot: &Mutex<Option<T>>, value: T) {
    *lock(slot) = Some(value);
}
