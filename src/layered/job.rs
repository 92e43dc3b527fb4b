//! The job of a request: what runs in the pool when no tier has the artifact.

use futures::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tracing::{Span, dispatcher};

use super::compiler::Compiler;
use super::context::CompileContext;
use super::execution::{CURRENT, Execution, Run};
use super::order::{Job, JobStop};
use super::origin::{CompileFrom, InputStop, IntoInput, Prepared};
use crate::artifact::Artifact;
use crate::sync::single_flight::panic_message;

/// What a job makes its input from.
pub(super) enum Work<S: CompileFrom<E>, E: Send + Sync + 'static> {
    Keyed(S::Keyed),
    /// The request does without a key.
    PassedBy(S),
}

impl<S: CompileFrom<E>, E: Send + Sync + 'static> Work<S, E> {
    fn into_ready(self) -> Result<S::Input, Self> {
        match self {
            Self::Keyed(keyed) => keyed.into_ready().map_err(Self::Keyed),
            Self::PassedBy(_) => Err(self),
        }
    }

    fn into_input(self) -> Result<Prepared<S::Input>, InputStop<S::Keyed, E>> {
        match self {
            Self::Keyed(keyed) => keyed.into_input(),
            Self::PassedBy(origin) => origin.into_passed_by().map_err(InputStop::Failed),
        }
    }

    /// The input. Keeps in the run how long it took.
    fn prepare(self, run: &Run) -> Result<S::Input, InputStop<S::Keyed, E>> {
        let work = match self.into_ready() {
            Ok(input) => return Ok(input),
            Err(work) => work,
        };
        let prepared = work.into_input()?;
        run.set_times(|times| {
            times.parse = prepared.parse;
            times.key = prepared.key;
        });
        Ok(prepared.input)
    }
}

/// Runs a compile function that does not await, on a thread of the pool. Once it has begun there, it
/// runs to its end.
pub(super) fn on_thread<S, F, E>(compiler: Arc<Compiler>, work: Work<S, E>, compile: F) -> Job<E>
where
    S: CompileFrom<E>,
    F: FnOnce(S::Input, &CompileContext) -> Result<Artifact, E> + Send + 'static,
    E: Send + Sync + 'static,
{
    Box::new(move |execution| {
        Box::pin(async move {
            let (span, dispatch) = (Span::current(), dispatcher::get_default(Clone::clone));
            let cx = context(&compiler, &execution);
            let pool = Arc::clone(&compiler);
            let body = move || {
                let run = &execution.run;
                if !run.interest.keep() {
                    return Err(JobStop::Cancelled);
                }
                let _runtime = cx.runtime.enter();
                let _span = span.enter();
                let input = match work.prepare(run) {
                    Ok(input) => input,
                    Err(InputStop::Failed(error)) => return Err(JobStop::Failed(error)),
                    Err(InputStop::Rekeyed(right, keyed)) => {
                        let again = on_thread(compiler, Work::<S, E>::Keyed(keyed), compile);
                        return Err(JobStop::Rekeyed(right, again));
                    }
                };
                let start = Instant::now();
                let made = CURRENT.sync_scope(Arc::clone(run), || compile(input, &cx));
                run.set_times(|times| times.compile = start.elapsed());
                made.map_err(JobStop::Failed)
            };
            let body = move || dispatcher::with_default(&dispatch, body);
            let ran = pool.pool.run(body).await;
            ran.unwrap_or_else(|message| Err(JobStop::Panicked(message)))
        })
    })
}

/// Runs a compile function that awaits, as a part of its flight. What is still to be parsed is parsed
/// on a thread of the pool.
pub(super) fn awaited<S, F, C, E>(compiler: Arc<Compiler>, work: Work<S, E>, compile: F) -> Job<E>
where
    S: CompileFrom<E>,
    F: FnOnce(S::Input, CompileContext) -> C + Send + 'static,
    C: Future<Output = Result<Artifact, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    Box::new(move |execution| {
        Box::pin(async move {
            let run = Arc::clone(&execution.run);
            let prepared = match work.into_ready() {
                Ok(input) => Ok(input),
                Err(work) => {
                    let run = Arc::clone(&run);
                    let prepared = compiler.pool.run(move || work.prepare(&run)).await;
                    prepared.map_err(JobStop::Panicked)?
                }
            };
            let input = match prepared {
                Ok(input) => input,
                Err(InputStop::Failed(error)) => return Err(JobStop::Failed(error)),
                Err(InputStop::Rekeyed(right, keyed)) => {
                    let again = awaited(compiler, Work::<S, E>::Keyed(keyed), compile);
                    return Err(JobStop::Rekeyed(right, again));
                }
            };
            let cx = context(&compiler, &execution);
            // A flight is first polled where it is started. The compile function begins in a task: a
            // chain of compiles that ask for one another must not be one stack, nor may what is computed
            // here hold up the caller.
            tokio::task::yield_now().await;
            let start = Instant::now();
            let compile = CURRENT.scope(Arc::clone(&run), async { compile(input, cx).await });
            let made = AssertUnwindSafe(compile).catch_unwind().await;
            run.set_times(|times| times.compile = start.elapsed());
            match made {
                Ok(made) => made.map_err(JobStop::Failed),
                Err(panic) => Err(JobStop::Panicked(panic_message(&*panic))),
            }
        })
    })
}

fn context(compiler: &Arc<Compiler>, execution: &Execution) -> CompileContext {
    CompileContext {
        compiler: Arc::clone(compiler),
        run: Arc::clone(&execution.run),
        runtime: Handle::current(),
    }
}
