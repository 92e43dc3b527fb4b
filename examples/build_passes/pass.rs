//! One pass: every program through the cache once, timed, counted, and checked.

use std::sync::Arc;
use std::time::Duration;

use pipeline_cache::CompileSource;
use serde::{Deserialize, Serialize};

use super::compiler::Compiler;
use super::programs::Checked;
use super::progress::Progress;
use super::request::{self, Done};
use super::tiers::{Tier, Tiers};
use super::times::{Times, TimesMs, milliseconds};

/// The figures of a pass: a row of the table, and an element of `passes` in the JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) name: String,
    pub(crate) programs: usize,
    /// How many had to be parsed.
    pub(crate) parsed: usize,
    pub(crate) compiled: usize,
    pub(crate) memory: usize,
    pub(crate) disk: usize,
    pub(crate) remote: usize,
    pub(crate) median_us: f64,
    pub(crate) total_ms: f64,
    /// Where the total went.
    pub(crate) times_ms: TimesMs,
    /// How many times as long the pass without a cache takes; under 1 where the cache loses.
    pub(crate) speed_up: f64,
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
    /// Compiles every program as a compiler without a cache does.
    pub(crate) async fn without_cache<C: Compiler>(
        name: &str,
        compiler: &C,
        programs: &[Checked<C>],
    ) -> Self {
        let compile = async |program| request::without_cache(compiler, program);
        Self::run(name, programs, compile).await
    }

    /// Asks the cache for every program.
    pub(crate) async fn with_cache<C: Compiler>(
        name: &str,
        tiers: &Tiers,
        compiler: &Arc<C>,
        programs: &[Checked<C>],
    ) -> Self {
        let ask = async |program: &Checked<C>| {
            let done = request::with_cache(tiers, compiler, program).await?;
            if blake3::hash(&done.payload) != program.fresh {
                anyhow::bail!("the artifact is not what a fresh compile gives");
            }
            Ok(done)
        };
        Self::run(name, programs, ask).await
    }

    /// Runs the programs one after the other, so that no call is slowed down by another.
    async fn run<'a, C: Compiler>(
        name: &str,
        programs: &'a [Checked<C>],
        compile: impl AsyncFn(&'a Checked<C>) -> anyhow::Result<Done>,
    ) -> Self {
        let progress = Progress::new(name, programs.len());
        let mut pass = Self::new(name, programs.len());
        let mut times = Vec::with_capacity(programs.len());
        for program in programs {
            progress.start(&program.name);
            match compile(program).await {
                Ok(done) => {
                    pass.count(&program.name, &done);
                    times.push(done.times);
                }
                Err(error) => pass.faults.push(format!("{}: {error:#}", program.name)),
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

    fn count(&mut self, name: &str, done: &Done) {
        let figures = &mut self.figures;
        figures.parsed += usize::from(!done.times.parse.is_zero());
        match &done.source {
            CompileSource::Cache(source) => match Tier::of(*source) {
                Tier::Memory => figures.memory += 1,
                Tier::Disk => figures.disk += 1,
                Tier::Remote => figures.remote += 1,
            },
            source => {
                figures.compiled += 1;
                self.compiled.push(name.to_owned());
                if let CompileSource::Bypassed(reason) = source {
                    self.warnings.push(format!("{name}: not cached: {reason}"));
                }
            }
        }
    }
}

impl Figures {
    fn set_times(&mut self, all: Vec<Times>) {
        let mut whole = Times::default();
        all.iter().for_each(|times| whole += *times);
        let mut times: Vec<Duration> = all.iter().map(Times::sum).collect();
        times.sort_unstable();
        let median = match (times.len() / 2, times.len() % 2) {
            (0, 0) => Duration::ZERO,
            (middle, 0) => (times[middle - 1] + times[middle]) / 2,
            (middle, _) => times[middle],
        };
        self.median_us = median.as_nanos() as f64 / 1e3;
        self.total_ms = milliseconds(whole.sum());
        self.times_ms = whole.to_ms();
    }
}
