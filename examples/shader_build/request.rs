//! One program from its source text to its artifact: with the cache, and without any.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use naga::Module;
use pipeline_cache::{Artifact, CompileInput, CompileScope, CompileSource};

use crate::compiler;
use crate::programs::Shader;
use crate::tiers::Tiers;
use crate::times::Times;

/// What one request gave.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) payload: Bytes,
    pub(crate) source: CompileSource,
    pub(crate) times: Times,
}

/// What a compiler without a cache does.
pub(crate) fn without_cache(shader: &Shader) -> Result<Done> {
    let mut times = Times::default();
    let start = Instant::now();
    let module = compiler::parse(&shader.text)?;
    times.parse = start.elapsed();
    let spirv = compiler::compile_module(&module)?;
    // As every other pass does within its time.
    drop(module);
    times.compile = start.elapsed() - times.parse;
    Ok(Done {
        payload: spirv.into(),
        source: CompileSource::Compiled,
        times,
    })
}

/// What the cache is for: a known spelling is looked up by the hash of its text, another one is
/// parsed, and what no tier has is compiled.
pub(crate) async fn with_cache(
    tiers: &Tiers,
    scope: &CompileScope,
    shader: &Shader,
) -> Result<Done> {
    let start = Instant::now();
    let compiled = tiers
        .cache
        .compile(scope)
        .source(
            &**compiler::FRONT_END,
            shader.text.clone(),
            |text: &Bytes| compiler::parse(text),
        )
        .run(|input, _cx| compile(input))
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

fn compile(input: CompileInput<Module>) -> Result<Artifact> {
    let start = Instant::now();
    let spirv = match input {
        CompileInput::Canonical(canonical) => compiler::compile_canonical(&canonical)?,
        CompileInput::Unkeyable(module, _) | CompileInput::PassedBy(module) => {
            compiler::compile_module(&module)?
        }
        _ => anyhow::bail!("the cache handed over an unknown kind of input"),
    };
    let metadata = compiler::metadata(start.elapsed());
    Ok(Artifact::with_metadata(spirv, metadata))
}
