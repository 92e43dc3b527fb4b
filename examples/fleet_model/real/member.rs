//! One process of a real run. It reads its task from stdin, says that it is ready, waits for a line,
//! and prints what it did.

use anyhow::{Context as _, Result};
use pipeline_cache::{
    CompileScope, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
    RemoteCache, SourceAliases,
};
use serde::{Deserialize, Serialize};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

use crate::args::{Load, RealServer};
use crate::clock::Clock;
use crate::machine::{self, Machine, Tiers};
use crate::tally::Tally;
use crate::workload::{Payloads, ProgramId, Workload};

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) number: u32,
    pub(super) run: u64,
    pub(super) folder: PathBuf,
    pub(super) server: RealServer,
    pub(super) leases: bool,
    pub(super) compile_places: usize,
    pub(super) load: Load,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) wrong: u64,
    pub(super) compiles: u64,
    pub(super) wanted: Vec<ProgramId>,
    /// Times to artifact in microseconds, and how many requests took each.
    pub(super) times: Vec<(u64, u64)>,
    pub(super) gets_and_puts: u64,
}

#[tokio::main]
pub(crate) async fn take_part() -> Result<()> {
    let task: Task = serde_json::from_str(&line()?)?;
    let payloads = Payloads::Whole { run: task.run };
    let workload = Arc::new(Workload::new(&task.load, payloads)?);
    let tally = Arc::new(Tally::new(workload.programs.len()));
    let cache = cache(&task).await?;
    println!("ready");
    line()?;
    let machine = Machine {
        clock: Clock::real(),
        workload,
        tally: Arc::clone(&tally),
        scope: Arc::new(CompileScope::new("modelled compiler", "modelled target")?),
        cache: cache.clone(),
    };
    machine.run(task.number as usize).await;
    cache.flush().await?;
    let metrics = cache.layered_metrics();
    let remote = metrics.tiers.last().context("no remote")?.store;
    let done = tally.with(|counts| Done {
        requests: counts.requests,
        failed: counts.failed,
        wrong: counts.wrong,
        compiles: counts.compiles,
        wanted: counts.wanted.iter().collect(),
        times: counts
            .times
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect(),
        gets_and_puts: remote.lookups + remote.puts,
    });
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&done)?)?;
    Ok(())
}

async fn cache(task: &Task) -> Result<LayeredPipelineCache> {
    let tiers: Tiers = [
        Arc::new(InMemoryPipelineCache::new()),
        Arc::new(DiskCache::new(&task.folder).await?),
        remote(task)?,
    ];
    let aliases = Arc::new(SourceAliases::new());
    Ok(machine::cache(
        Clock::real(),
        tiers,
        aliases,
        task.compile_places,
    ))
}

fn remote(task: &Task) -> Result<Arc<dyn PipelineCacheStore>> {
    if let Some(url) = &task.server.redis {
        return Ok(Arc::new(redis(url, task.leases)?));
    }
    let url = task.server.remote.as_ref().context("no remote")?;
    let mut remote = RemoteCache::builder().writes();
    if let Ok(token) = std::env::var("CACHE_TOKEN") {
        remote = remote.bearer_token(token);
    }
    Ok(Arc::new(remote.build(url)?))
}

#[cfg(feature = "redis")]
fn redis(url: &str, leases: bool) -> Result<pipeline_cache::RedisCache> {
    let builder = pipeline_cache::RedisCache::builder().writes();
    let builder = match leases {
        true => builder.compile_leases(crate::lease_table::TIME_TO_LIVE),
        false => builder,
    };
    Ok(builder.build(url)?)
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str, _: bool) -> Result<pipeline_cache::InMemoryPipelineCache> {
    anyhow::bail!("this build has no Redis: build with --features redis")
}

fn line() -> Result<String> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    Ok(line)
}
