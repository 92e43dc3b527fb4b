//! Get or compile: the methods of the cache that compile what no tier has.

use std::sync::{Arc, Mutex, PoisonError};

use super::LayeredPipelineCache;
use super::compiled::{Attempt, CompileError, CompileInput, Compiled};
use crate::artifact::Artifact;
use crate::key::{CompileScope, PipelineFingerprint, Program, ToWire as _, Unkeyable};
use crate::sync::blocking;

impl LayeredPipelineCache {
    /// The artifact of a program in a scope: from the cache, or else compiled, once for all callers
    /// that ask at the same time.
    ///
    /// `compile` receives the canonical form and the scope. It runs as a task of its own, so it goes
    /// on when this future is dropped while others wait for it, and is cancelled when the last of
    /// them is dropped. For work that does not await, use `tokio::task::spawn_blocking` inside it.
    /// It must not ask this cache for its own key: it would wait for itself.
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
    /// the blocking pool, on a miss alone.
    ///
    /// The program is canonicalized and hashed on the calling task. For programs of more than a
    /// few hundred kilobytes, do that on the blocking pool and use
    /// [`get_or_insert_with`](Self::get_or_insert_with).
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
        // Whoever calls it takes it out: the flight of the key, or else this call by itself.
        let compile = Arc::new(Mutex::new(Some(compile)));
        let reason = match program.canonicalize() {
            Ok(canonical) => {
                let key = canonical.fingerprint().scoped(scope);
                let (compile, scope) = (Arc::clone(&compile), scope.clone());
                let attempt = move || async move {
                    let input = check::<P>(canonical).await.map_err(Attempt::Unfit)?;
                    let compile = take(&compile).expect("a flight is all that takes it first");
                    let compiled = compile(input, scope).await;
                    compiled.map_err(|error| Attempt::Failed(Arc::new(error)))
                };
                match self.get_or_insert_with(&key, attempt).await {
                    Ok(compiled) => return Ok(compiled),
                    Err(error) => error.unfit()?,
                }
            }
            Err(reason) => reason,
        };
        tracing::debug!(%reason, "the program has no key: compiling without the cache");
        let compile = take(&compile).expect("what is unfit has not been compiled");
        let input = CompileInput::Unkeyable(program.clone(), reason.clone());
        let scope = scope.clone();
        let compile = async move { compile(input, scope).await };
        self.parts.compiler.bypass(compile, reason).await
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
        self.parts.compiler.get_or_compile(*key, compile).await
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Checks a canonical form. That may take long, so it is no work for a runtime worker.
async fn check<P>(canonical: P::Canonical) -> Result<CompileInput<P>, Unkeyable>
where
    P: Program + Send + 'static,
    P::Canonical: Send + 'static,
{
    let check = move || {
        canonical.check()?;
        Ok(CompileInput::Canonical(canonical))
    };
    blocking::blocking(check).await
}
