//! One pass: every program through the cache once, timed, counted, and checked.

use std::time::{Duration, Instant};

use anyhow::Result;
use pipeline_cache::{CompileInput, CompileScope, CompileSource, Compiled, LayeredPipelineCache};
use serde::{Deserialize, Serialize};

use crate::compiler;
use crate::programs::Shader;
use crate::progress::Progress;
use crate::tiers::Tier;

/// The figures of a pass: a row of the table, and an element of `passes` in the JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) programs: usize,
    pub(crate) compiled: usize,
    pub(crate) memory: usize,
    pub(crate) disk: usize,
    pub(crate) remote: usize,
    pub(crate) median_us: f64,
    pub(crate) total_ms: f64,
}

/// A pass that was run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Pass {
    pub(crate) figures: Figures,
    /// The programs that were compiled, by name.
    pub(crate) compiled: Vec<String>,
    /// What must not happen: another artifact than a fresh compile gives, or none.
    pub(crate) faults: Vec<String>,
    /// What may happen, and costs a later compile.
    pub(crate) warnings: Vec<String>,
}

impl Pass {
    /// Runs the programs one after the other, so that no call is slowed down by another.
    pub(crate) async fn run(
        name: &str,
        cache: &LayeredPipelineCache,
        scope: &CompileScope,
        shaders: &[Shader],
    ) -> Self {
        let progress = Progress::new(name, shaders.len());
        let mut pass = Self::new(name, shaders.len());
        let mut times = Vec::with_capacity(shaders.len());
        for shader in shaders {
            progress.start(&shader.name);
            let start = Instant::now();
            let result = cached_compile(cache, scope, shader).await;
            times.push(start.elapsed());
            match result {
                Ok(compiled) => pass.count(shader, &compiled),
                Err(error) => pass.faults.push(format!("{}: {error:#}", shader.name)),
            }
        }
        pass.figures.set_times(times);
        pass
    }

    fn new(name: &str, programs: usize) -> Self {
        Self {
            figures: Figures {
                name: name.to_owned(),
                programs,
                ..Figures::default()
            },
            compiled: Vec::new(),
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn count(&mut self, shader: &Shader, compiled: &Compiled) {
        let name = &shader.name;
        let figures = &mut self.figures;
        match &compiled.source {
            CompileSource::Cache(source) => match Tier::of(*source) {
                Tier::Memory => figures.memory += 1,
                Tier::Disk => figures.disk += 1,
                Tier::Remote => figures.remote += 1,
            },
            source => {
                figures.compiled += 1;
                self.compiled.push(name.clone());
                if let CompileSource::Bypassed(reason) = source {
                    self.warnings.push(format!("{name}: not cached: {reason}"));
                }
            }
        }
        for error in compiled.store_errors.iter() {
            self.warnings
                .push(format!("{name}: compiled, and not stored: {error}"));
        }
        if compiled.artifact.payload() != &shader.fresh {
            self.faults.push(format!(
                "{name}: the artifact is not what a fresh compile gives"
            ));
        }
    }
}

/// What the cache is for: the artifact of a program, compiled only where no tier has it.
async fn cached_compile(
    cache: &LayeredPipelineCache,
    scope: &CompileScope,
    shader: &Shader,
) -> Result<Compiled> {
    // A compile does not await, so it must not run on a worker of the runtime.
    let compile = |input: CompileInput<naga::Module>, _scope| async {
        tokio::task::spawn_blocking(|| compiler::compile(input)).await?
    };
    cache
        .get_or_compile(&shader.module, scope, compile)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))
}

impl Figures {
    fn set_times(&mut self, mut times: Vec<Duration>) {
        times.sort_unstable();
        let median = match (times.len() / 2, times.len() % 2) {
            (0, 0) => Duration::ZERO,
            (middle, 0) => (times[middle - 1] + times[middle]) / 2,
            (middle, _) => times[middle],
        };
        let total: Duration = times.iter().sum();
        // To the nanosecond, and not what binary fractions make of it.
        self.median_us = median.as_nanos() as f64 / 1e3;
        self.total_ms = total.as_nanos() as f64 / 1e6;
    }
}
