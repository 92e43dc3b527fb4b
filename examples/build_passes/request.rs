//! One program from its source to its artifact: with the cache, and without any.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use pipeline_cache::{Artifact, CompileInput, CompileSource};

use super::compiler::Compiler;
use super::programs::Checked;
use super::tiers::Tiers;
use super::times::Times;

/// What one request gave.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) payload: Bytes,
    pub(crate) source: CompileSource,
    pub(crate) times: Times,
}

/// What a compiler without a cache does.
pub(crate) fn without_cache<C: Compiler>(compiler: &C, program: &Checked<C>) -> Result<Done> {
    let mut times = Times::default();
    let start = Instant::now();
    let parsed = C::parse(&program.source)?;
    times.parse = start.elapsed();
    let code = compiler.compile_program(&parsed)?;
    // As every other pass does within its time.
    drop(parsed);
    times.compile = start.elapsed() - times.parse;
    Ok(Done {
        payload: code.into(),
        source: CompileSource::Compiled,
        times,
    })
}

/// What the cache is for: a known spelling is looked up by the hash of its source, another one is
/// parsed, and what no tier has is compiled.
pub(crate) async fn with_cache<C: Compiler>(
    tiers: &Tiers,
    compiler: &Arc<C>,
    program: &Checked<C>,
) -> Result<Done> {
    let pool = Arc::clone(compiler);
    let start = Instant::now();
    let compiled = tiers
        .cache
        .compile(compiler.scope())
        .source(compiler.front_end(), program.source.clone(), C::parse)
        .run(move |input, _cx| compile(&*pool, input))
        .await
        .map_err(|error| match error.failed() {
            Some(reason) => anyhow::anyhow!("{reason:#}"),
            None => anyhow::anyhow!("{error}"),
        })?;
    let all = start.elapsed();
    let mut times = Times {
        hash: compiled.times.hash,
        parse: compiled.times.parse,
        key: compiled.times.key,
        compile: compiled.times.compile,
        lookup: Duration::ZERO,
    };
    // What is neither of the others was spent on asking tiers, and on waiting for them.
    times.lookup = all.saturating_sub(times.sum());
    Ok(Done {
        payload: compiled.artifact.payload().clone(),
        source: compiled.source,
        times,
    })
}

fn compile<C: Compiler>(compiler: &C, input: CompileInput<C::Program>) -> Result<Artifact> {
    let start = Instant::now();
    let code = match input {
        CompileInput::Canonical(canonical) => compiler.compile_canonical(&canonical)?,
        CompileInput::Unkeyable(program, _) | CompileInput::PassedBy(program) => {
            compiler.compile_program(&program)?
        }
    };
    let metadata = compiler.metadata(start.elapsed());
    Ok(Artifact::with_metadata(code, metadata))
}
