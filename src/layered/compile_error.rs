//! A compile request that was answered without an artifact.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::key::PipelineFingerprint;

/// A compile request that was answered without an artifact.
///
/// Every caller that waited for the same compile gets the same error, but for
/// [`DeadlineExceeded`](Self::DeadlineExceeded) and [`Recursive`](Self::Recursive), which are of one
/// caller. It is not kept, unless the request [remembers
/// failures](crate::layered::CompileRequest::remember_failures): the next call compiles again.
/// `Display` leaves out the function's own error, which is the [`source`](Error::source).
///
/// ```
/// use pipeline_cache::CompileError;
///
/// /// The status of an HTTP answer.
/// fn status<E>(error: &CompileError<E>) -> u16 {
///     match error {
///         CompileError::Failed(_) => 422,
///         CompileError::Overloaded => 503,
///         CompileError::DeadlineExceeded(_) | CompileError::TimedOut(_) => 504,
///         _ => 500,
///     }
/// }
/// assert_eq!(status(&CompileError::<String>::Overloaded), 503);
///
/// /// Its text: the compiler's own, where that failed.
/// fn text<E: ToString>(error: &CompileError<E>) -> String {
///     error.failed().map_or_else(|| error.to_string(), E::to_string)
/// }
/// let error = CompileError::Failed("line 1: an operand is missing".into());
/// assert_eq!(text::<&str>(&error), "line 1: an operand is missing");
/// ```
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileError<E> {
    /// The parse function or the compile function returned this error.
    Failed(Arc<E>),
    /// The parse function, the canonical form or the compile function panicked, with this message.
    Panicked(Arc<str>),
    /// The deadline of the request has passed. A compile under way goes on and is kept, unless the
    /// request says otherwise.
    DeadlineExceeded(Duration),
    /// The compile ran for longer than the cache allows, and was given up.
    TimedOut(Duration),
    /// Too many compiles wait for a place in the pool.
    Overloaded,
    /// The request was made inside of a compile, and that compile would wait for itself: the key of
    /// the asking compile, those that it waits for in turn, and the key of the asking compile again.
    /// Compiles without a key are left out.
    Recursive(Arc<[PipelineFingerprint]>),
    /// The runtime that the compile ran on was shut down.
    Interrupted,
    /// The call was made outside of a tokio runtime.
    NoRuntime,
}

impl<E> CompileError<E> {
    /// The error of the parse or compile function.
    #[must_use]
    pub fn failed(&self) -> Option<&E> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

// A derived impl would require `E: Clone`, although the error is shared.
impl<E> Clone for CompileError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::DeadlineExceeded(deadline) => Self::DeadlineExceeded(*deadline),
            Self::TimedOut(limit) => Self::TimedOut(*limit),
            Self::Overloaded => Self::Overloaded,
            Self::Recursive(chain) => Self::Recursive(Arc::clone(chain)),
            Self::Interrupted => Self::Interrupted,
            Self::NoRuntime => Self::NoRuntime,
        }
    }
}

impl<E> fmt::Display for CompileError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("the parse or compile function failed"),
            Self::Panicked(message) => {
                write!(f, "the parse or compile function panicked: {message}")
            }
            Self::DeadlineExceeded(deadline) => write!(
                f,
                "no artifact within the deadline of the request, {deadline:?}"
            ),
            Self::TimedOut(limit) => write!(
                f,
                "the compile did not end within its limit, {limit:?}, and was given up"
            ),
            Self::Overloaded => f.write_str("too many compiles wait; try again later"),
            Self::Recursive(chain) => {
                f.write_str("the compile asks for a key that waits for it:")?;
                for (number, key) in chain.iter().enumerate() {
                    let arrow = if number == 0 { "" } else { " ->" };
                    write!(f, "{arrow} {key}")?;
                }
                Ok(())
            }
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
            _ => None,
        }
    }
}
