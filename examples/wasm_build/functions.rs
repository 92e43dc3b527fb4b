//! Passes that show what it saves to keep each function that was compiled.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pipeline_cache::layered::LayeredMetrics;
use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache, Program as _};
use tokio::runtime::Handle;

use crate::build_passes::compiler::Compiler as _;
use crate::build_passes::own::OwnPasses;
use crate::build_passes::pass::Pass;
use crate::build_passes::programs::{self, Checked};
use crate::build_passes::tiers::Tiers;
use crate::change::change_one_function;
use crate::function_store::FunctionStore;
use crate::wasmtime_compiler::Wasmtime;

/// How many functions of a module are tried, until a change of one changes the module's key. One
/// that nothing calls does not.
const TRIES: usize = 16;

/// Functions that may wait to be written. A compile would wait for those beyond.
const MAX_UNWRITTEN: usize = 1 << 16;
const MAX_UNWRITTEN_BYTES: u64 = 256 << 20;

const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a compile waits for one function. It is local, and compiles in a few milliseconds.
const DEADLINE: Duration = Duration::from_millis(100);

/// Compiles all modules and keeps their functions, then each with one function changed: first with
/// the functions in memory, then with the functions on disk alone. The modules that are compiled are
/// in no cache.
pub(crate) async fn passes(
    compiler: &Wasmtime,
    programs: &[Checked<Wasmtime>],
    folder: &Path,
) -> Result<OwnPasses> {
    let changed: Vec<_> = programs
        .iter()
        .filter_map(|program| change(compiler, program))
        .collect();
    let mut own = OwnPasses::default();

    let functions = Functions::open(compiler, folder).await?;
    own.passes
        .push(functions.pass("functions kept", "kept", programs).await?);
    let before = functions.metrics();
    let pass = functions.pass("one function changed", "changed", &changed);
    own.passes.push(pass.await?);
    own.notes.push(note(&before, &functions.metrics()));
    functions.close().await?;

    let functions = Functions::open(compiler, folder).await?;
    let pass = functions.pass("changed, from disk", "changed-again", &changed);
    own.passes.push(pass.await?);
    functions.close().await?;
    Ok(own)
}

/// The module with one function changed, so that it has another key.
fn change(compiler: &Wasmtime, program: &Checked<Wasmtime>) -> Option<Checked<Wasmtime>> {
    let key = program.program.canonicalize().ok()?;
    let sources = change_one_function(&program.source).ok()?;
    let mut changed = sources.take(TRIES).filter_map(|source| {
        let source = source.into();
        let other = Wasmtime::parse(&source).ok()?.canonicalize().ok()?;
        (other != key).then_some(source)
    });
    programs::check(compiler, &program.name, changed.next()?).ok()
}

fn note(before: &LayeredMetrics, after: &LayeredMetrics) -> String {
    let hits = after.hits - before.hits;
    let lookups = after.lookups - before.lookups;
    format!(
        "With one function of each module changed, {hits} of {lookups} functions were not compiled."
    )
}

/// A compiler that keeps functions in memory and in a folder.
#[derive(Debug)]
struct Functions<'a> {
    compiler: Arc<Wasmtime>,
    cache: LayeredPipelineCache,
    folder: &'a Path,
}

impl<'a> Functions<'a> {
    async fn open(compiler: &Wasmtime, folder: &'a Path) -> Result<Self> {
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .tier(DiskCache::new(folder.join("functions")).await?)
            .background_limits(MAX_UNWRITTEN, MAX_UNWRITTEN_BYTES)
            // The compiler has all cores.
            .background_concurrency(1)
            .build();
        let runtime = Handle::current();
        let store = FunctionStore::new(cache.clone(), compiler.scope(), runtime, DEADLINE)?;
        Ok(Self {
            compiler: Arc::new(compiler.with_functions(Arc::new(store))),
            cache,
            folder,
        })
    }

    /// Compiles the programs. What this pass made of them is in no other pass's folder.
    async fn pass(
        &self,
        name: &str,
        artifacts: &str,
        programs: &[Checked<Wasmtime>],
    ) -> Result<Pass> {
        let tiers = Tiers::open(&self.folder.join(artifacts), &*self.compiler, None).await?;
        let pass = Pass::with_cache(name, &tiers, &self.compiler, programs).await;
        tiers.close().await?;
        // As between all passes.
        self.cache.flush().await.context("functions not stored")?;
        Ok(pass)
    }

    fn metrics(&self) -> LayeredMetrics {
        self.cache.layered_metrics()
    }

    async fn close(self) -> Result<()> {
        let report = self.cache.close(CLOSE_DEADLINE).await;
        match report.errors.into_iter().next() {
            Some(error) => Err(error).context("the cache of functions could not be closed"),
            None => Ok(()),
        }
    }
}
