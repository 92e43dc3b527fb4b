//! Get or compile: the methods of the cache that compile what no tier has.

use super::LayeredPipelineCache;
use super::compile_error::CompileError;
use super::compiled::{CompileInput, Compiled};
use crate::artifact::Artifact;
use crate::key::{CompileScope, PipelineFingerprint, Program};

impl LayeredPipelineCache {
    /// The artifact of a program in a scope: from the cache, or else compiled, once for all callers
    /// that ask at the same time.
    ///
    /// The short form of [`compile`](Self::compile), with its defaults, for compile functions that
    /// await. `compile` receives the canonical form and the scope. It has a place in the compile pool
    /// while it runs. It goes on when this future is dropped, and its artifact is kept. For work that
    /// does not await, use [`CompileRequest::run`](crate::layered::CompileRequest::run).
    ///
    /// The artifact goes to every caller that waits. It is then written in the background to every
    /// tier that takes it, whatever the [`WritePolicy`](crate::WritePolicy) says of puts. Where the
    /// bounds of the background are reached, the callers wait for the writes, each at most for the
    /// write timeout. A write that fails is counted in the
    /// [`WriteBehindReport`](crate::layered::WriteBehindReport), traced, and returned as an error by the next
    /// [`flush`](Self::flush).
    ///
    /// Processes that share a [`DiskCache`](crate::DiskCache) compile a key once as well, if it was
    /// opened with [`compile_locks`](crate::DiskCacheBuilder::compile_locks).
    ///
    /// A program without a key is compiled by each caller for itself, and not stored. So is one
    /// whose canonical form does not pass its [`check`](crate::ToWire::check), which is made on
    /// the compile pool, on a miss alone.
    ///
    /// A clone of the program is canonicalized and hashed on the threads of the pool, unless it [is
    /// small](Program::is_small).
    ///
    /// # Errors
    ///
    /// [`CompileError`], the same for all callers that waited. A failing tier is not an error: what
    /// it cannot serve is compiled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops this caller's wait. Other callers are not held up.
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
        let of_scope = scope.clone();
        self.compile(scope)
            .program(program.clone())
            .run_async(|input, _cx| compile(input, of_scope))
            .await
    }

    /// Like [`get_or_compile`](Self::get_or_compile), for callers that have made the key already.
    ///
    /// The key must cover everything that can change the artifact: see
    /// [`PipelineFingerprint::scoped`].
    ///
    /// # Errors
    ///
    /// [`CompileError`], the same for all callers that waited.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops this caller's wait. Other callers are not held up.
    ///
    /// ```
    /// # use pipeline_cache::*;
    /// # use std::{convert::Infallible, sync::Arc};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    /// let key = PipelineFingerprint::from_bytes([1; 32]);
    /// let compiled = cache
    ///     .get_or_insert_with(&key, || async { Ok::<_, Infallible>(Artifact::new("code")) })
    ///     .await?;
    /// assert_eq!(cache.get(&key).await, Some(compiled.artifact));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_or_insert_with<F, C, E>(
        &self,
        key: &PipelineFingerprint,
        compile: F,
    ) -> Result<Compiled, CompileError<E>>
    where
        F: FnOnce() -> C + Send + 'static,
        C: Future<Output = Result<Artifact, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        self.compile_keyed()
            .key(*key)
            .run_async(|(), _cx| compile())
            .await
    }
}
