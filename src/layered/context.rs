//! What a compile function knows of the request that it works for.

use std::sync::Arc;
use tokio::runtime::Handle;

use super::compiler::Compiler;
use super::execution::Run;
use crate::key::CompileScope;

/// What a compile function knows of the request that it works for.
///
/// The function runs in the tracing span of the caller who started it. A clone is another handle to
/// the same context.
///
/// ```
/// use pipeline_cache::layered::CompileContext;
/// use pipeline_cache::{Artifact, CompileInput, OpaqueProgram};
///
/// /// Gives up between two steps when nobody waits any more.
/// fn compile(
///     input: CompileInput<OpaqueProgram>,
///     cx: &CompileContext,
/// ) -> Result<Artifact, Box<dyn std::error::Error + Send + Sync>> {
///     let program = input.into_canonical()?;
///     let mut code = Vec::new();
///     for line in program.bytes().split(|byte| *byte == b'\n') {
///         if !cx.is_wanted() {
///             return Err("nobody waits".into());
///         }
///         code.extend_from_slice(&line.to_ascii_uppercase());
///         code.extend_from_slice(cx.scope().target().as_bytes());
///     }
///     Ok(Artifact::new(code))
/// }
/// ```
#[derive(Debug, Clone)]
pub struct CompileContext {
    pub(super) compiler: Arc<Compiler>,
    pub(super) run: Arc<Run>,
    pub(super) runtime: Handle,
}

impl CompileContext {
    /// The scope that is compiled for.
    #[must_use]
    pub fn scope(&self) -> &CompileScope {
        &self.run.scope
    }

    /// Whether a caller waits for the artifact. False when each has dropped its future or has passed
    /// its deadline. It may become true again: whoever asks for the key joins this compile.
    ///
    /// What a compile returns when nobody waits is stored all the same. It may return an error
    /// instead, to save the time: whoever came after it was abandoned compiles anew.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.run.interest.is_wanted()
    }

    /// Waits until nobody waits for the artifact: see [`is_wanted`](Self::is_wanted).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn abandoned(&self) {
        self.run.interest.abandoned().await;
    }

    /// Waits for a future, in a compile function that does not await. A [request](Self::compile)
    /// that waits gives the place of this compile in the pool to others.
    ///
    /// # Panics
    ///
    /// In a compile function that awaits, which is to await instead. The compile is then answered
    /// with [`CompileError::Panicked`](crate::CompileError::Panicked).
    ///
    /// ```
    /// use pipeline_cache::layered::CompileContext;
    /// use pipeline_cache::{Artifact, CompileError, CompileInput, OpaqueProgram, Unkeyable};
    ///
    /// /// A program is compiled together with the library that it needs.
    /// fn compile(
    ///     input: CompileInput<OpaqueProgram>,
    ///     cx: &CompileContext,
    /// ) -> Result<Artifact, CompileError<Unkeyable>> {
    ///     let library = OpaqueProgram::new("text", "library");
    ///     let request = cx.compile(cx.scope()).program(library);
    ///     let library = cx.block_on(request.run(|input, _cx| {
    ///         Ok(Artifact::new(input.into_canonical()?.bytes().clone()))
    ///     }))?;
    ///     drop(input);
    ///     Ok(library.artifact)
    /// }
    /// ```
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}
