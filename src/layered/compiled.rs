//! What a compile is given and what it answers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::lookup::{Found, LookupSource};
use crate::artifact::Artifact;
use crate::key::{PipelineFingerprint, Program, Unkeyable};

/// The input of a compile function.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompileInput<P: Program> {
    /// The canonical form: exactly what the key was made from. The artifact is stored.
    Canonical(P::Canonical),
    /// The program itself, because it has no key. The artifact is not stored.
    Unkeyable(P, Unkeyable),
}

impl<P: Program> CompileInput<P> {
    /// The canonical form, for compilers that accept nothing else.
    ///
    /// # Errors
    ///
    /// The reason why the program has no canonical form.
    pub fn into_canonical(self) -> Result<P::Canonical, Unkeyable> {
        match self {
            Self::Canonical(canonical) => Ok(canonical),
            Self::Unkeyable(_, reason) => Err(reason),
        }
    }
}

/// Why a compile function that was given a canonical form made no artifact of it.
pub(super) enum Attempt<E> {
    /// It failed.
    Failed(Arc<E>),
    /// The canonical form did not pass its check, and the function was not called.
    Unfit(Unkeyable),
}

/// An artifact, and where it came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Compiled {
    /// The key of the artifact; `None` for a program that has no key.
    pub key: Option<PipelineFingerprint>,
    /// The artifact.
    pub artifact: Artifact,
    /// Where it came from.
    pub source: CompileSource,
}

/// Where the artifact of a [`get_or_compile`](crate::LayeredPipelineCache::get_or_compile) came from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileSource {
    /// The cache had the artifact.
    Cache(LookupSource),
    /// This call compiled it.
    Compiled,
    /// Another call was compiling it already, and this call waited for that one.
    Joined,
    /// This call compiled it and did not store it, because the program has no key.
    Bypassed(Unkeyable),
}

impl fmt::Display for CompileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cache(source) => write!(f, "cache: {source}"),
            Self::Compiled => f.write_str("compiled"),
            Self::Joined => f.write_str("joined a running compile"),
            Self::Bypassed(reason) => write!(f, "compiled without the cache: {reason}"),
        }
    }
}

/// A compile that produced no artifact.
///
/// Every caller that waited for it gets the same error. It is not cached: the next call compiles
/// again. `Display` leaves out the compile function's own error, which is the
/// [`source`](Error::source).
#[non_exhaustive]
pub enum CompileError<E> {
    /// The compile function returned this error.
    Failed(Arc<E>),
    /// The compile function panicked, with this message.
    Panicked(Arc<str>),
    /// The runtime that the compile ran on was shut down.
    Interrupted,
    /// The call was made outside of a tokio runtime.
    NoRuntime,
}

impl<E> CompileError<Attempt<E>> {
    /// What the caller of a compile function is told: why its program is not fit to be compiled
    /// in its canonical form, or else its own error.
    pub(super) fn unfit(self) -> Result<Unkeyable, CompileError<E>> {
        Err(match self {
            Self::Failed(attempt) => match &*attempt {
                Attempt::Unfit(reason) => return Ok(reason.clone()),
                Attempt::Failed(error) => CompileError::Failed(Arc::clone(error)),
            },
            Self::Panicked(message) => CompileError::Panicked(message),
            Self::Interrupted => CompileError::Interrupted,
            Self::NoRuntime => CompileError::NoRuntime,
        })
    }
}

impl<E> CompileError<E> {
    /// The compile function's own error.
    #[must_use]
    pub fn failed(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            Self::Panicked(_) | Self::Interrupted | Self::NoRuntime => None,
        }
    }
}

// A derived impl would require `E: Clone`, although the error is shared.
impl<E> Clone for CompileError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::Interrupted => Self::Interrupted,
            Self::NoRuntime => Self::NoRuntime,
        }
    }
}

impl<E: PartialEq> PartialEq for CompileError<E> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed(one), Self::Failed(two)) => one == two,
            (Self::Panicked(one), Self::Panicked(two)) => one == two,
            (Self::Interrupted, Self::Interrupted) | (Self::NoRuntime, Self::NoRuntime) => true,
            (Self::Failed(_) | Self::Panicked(_) | Self::Interrupted | Self::NoRuntime, _) => false,
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
            Self::NoRuntime => f.write_str("NoRuntime"),
        }
    }
}

impl<E> fmt::Display for CompileError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("the compile function failed"),
            Self::Panicked(message) => write!(f, "the compile function panicked: {message}"),
            Self::Interrupted => f.write_str(
                "the compile was interrupted: the tokio runtime it ran on was shut down",
            ),
            Self::NoRuntime => f.write_str("nothing was compiled: not called on a tokio runtime"),
        }
    }
}

impl<E: Error + 'static> Error for CompileError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(error) => Some(&**error),
            Self::Panicked(_) | Self::Interrupted | Self::NoRuntime => None,
        }
    }
}

impl Compiled {
    pub(super) fn cached(key: PipelineFingerprint, (artifact, source): Found) -> Self {
        Self {
            key: Some(key),
            artifact,
            source: CompileSource::Cache(source),
        }
    }

    /// The same, for a caller that did not start the flight.
    pub(super) fn joined(mut self) -> Self {
        if self.source == CompileSource::Compiled {
            self.source = CompileSource::Joined;
        }
        self
    }
}
