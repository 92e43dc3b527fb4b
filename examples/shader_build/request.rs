//! One program from its source text to its artifact: with the cache, and without any.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use naga::Module;
use pipeline_cache::{
    Artifact, CompileInput, CompileScope, CompileSource, Compiled, PipelineFingerprint,
    Program as _, Unkeyable,
};

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
    let work = Work::default();
    let start = Instant::now();
    let known = tiers
        .aliases
        .peek::<Module>(&compiler::FRONT_END, &shader.text);
    let hash = start.elapsed();
    let program = match known {
        Some(program) => Ok(program),
        None => unknown(tiers, &shader.text, &work).await,
    };
    let compiled = match program {
        Ok(program) => look_up(tiers, &program.scoped(scope), &shader.text, &work).await?,
        Err(NoKey::Unkeyable) => bypass(tiers, scope, &shader.text, &work).await?,
        Err(NoKey::Parse(error)) => return Err(error),
    };
    let all = start.elapsed();
    let mut times = work.times();
    times.hash = hash;
    // What is neither of the others was spent on asking tiers, and on waiting for them.
    times.lookup = all.saturating_sub(times.sum());
    Ok(Done {
        payload: compiled.artifact.payload().clone(),
        source: compiled.source,
        times,
    })
}

/// Why a source has no key.
enum NoKey {
    Parse(anyhow::Error),
    Unkeyable,
}

impl From<Unkeyable> for NoKey {
    fn from(_: Unkeyable) -> Self {
        Self::Unkeyable
    }
}

/// The program that a source spells which is not in the table: from the store of known spellings,
/// or by its parse.
async fn unknown(tiers: &Tiers, text: &Bytes, work: &Work) -> Result<PipelineFingerprint, NoKey> {
    let parse = {
        let work = work.clone();
        move |text: &Bytes| work.parse(text).map_err(NoKey::Parse)
    };
    let program = tiers
        .aliases
        .fingerprint(&compiler::FRONT_END, text, parse)
        .await;
    work.key_is_made();
    program
}

async fn look_up(
    tiers: &Tiers,
    key: &PipelineFingerprint,
    text: &Bytes,
    work: &Work,
) -> Result<Compiled> {
    let (text, work) = (text.clone(), work.clone());
    let compile = move || async move {
        // A compile does not await, so it must not run on a worker of the runtime.
        tokio::task::spawn_blocking(move || work.compile(&text)).await?
    };
    let compiled = tiers.cache.get_or_insert_with(key, compile).await;
    compiled.map_err(|error| anyhow::anyhow!("{error}"))
}

/// A program without a key is compiled as it is. The cache keeps nothing of it.
async fn bypass(
    tiers: &Tiers,
    scope: &CompileScope,
    text: &Bytes,
    work: &Work,
) -> Result<Compiled> {
    let module = work.take_parsed(text)?;
    let work = work.clone();
    let compile = |input: CompileInput<Module>, _scope| async {
        tokio::task::spawn_blocking(move || work.compile_input(input)).await?
    };
    let compiled = tiers.cache.get_or_compile(&module, scope, compile).await;
    compiled.map_err(|error| anyhow::anyhow!("{error}"))
}

/// The work of one request, with a clock for each kind. Clones share it.
#[derive(Debug, Default, Clone)]
struct Work(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    times: Times,
    /// What was parsed for the key is what is compiled.
    parsed: Option<Module>,
    parse_ended: Option<Instant>,
}

impl Work {
    fn with<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn times(&self) -> Times {
        self.with(|progress| progress.times)
    }

    fn parse(&self, text: &[u8]) -> Result<Module> {
        let start = Instant::now();
        let module = compiler::parse(text)?;
        self.with(|progress| {
            progress.times.parse += start.elapsed();
            progress.parsed = Some(module.clone());
            progress.parse_ended = Some(Instant::now());
        });
        Ok(module)
    }

    /// The canonical form and its hash follow the parse.
    fn key_is_made(&self) {
        self.with(|progress| {
            let since_parse = progress.parse_ended.map(|ended| ended.elapsed());
            progress.times.key += since_parse.unwrap_or_default();
        });
    }

    /// The parsed module; parses where only the fingerprint was known.
    fn take_parsed(&self, text: &[u8]) -> Result<Module> {
        if self.with(|progress| progress.parsed.is_none()) {
            self.parse(text)?;
        }
        let parsed = self.with(|progress| progress.parsed.take());
        parsed.ok_or_else(|| anyhow::anyhow!("the parse left no module"))
    }

    fn compile(&self, text: &[u8]) -> Result<Artifact> {
        let module = self.take_parsed(text)?;
        let start = Instant::now();
        let canonical = module.canonicalize()?;
        self.with(|progress| progress.times.key += start.elapsed());
        self.compile_input(CompileInput::Canonical(canonical))
    }

    fn compile_input(&self, input: CompileInput<Module>) -> Result<Artifact> {
        let start = Instant::now();
        let spirv = match input {
            CompileInput::Canonical(canonical) => compiler::compile_canonical(&canonical)?,
            CompileInput::Unkeyable(module, _reason) => compiler::compile_module(&module)?,
            _ => anyhow::bail!("the cache handed over an unknown kind of input"),
        };
        let time: Duration = start.elapsed();
        self.with(|progress| progress.times.compile += time);
        Ok(Artifact::with_metadata(spirv, compiler::metadata(time)))
    }
}
