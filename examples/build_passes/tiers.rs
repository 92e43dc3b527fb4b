//! The cache of one process: memory over disk, and over another machine's folder where there is one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, LayeredPromotionReport,
    LookupSource, PipelineCacheStore as _, Program as _, RemoteCache, RemoteCacheBuilder,
    SourceAliases, ToWire as _, layered::RecordedRun,
};
use serde::{Deserialize, Serialize};

use super::compiler::Compiler;
use super::programs::Checked;

/// The folder of a machine's artifacts, also below the URL of its server.
const ARTIFACTS: &str = "artifacts";

const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// The layered cache, and its two tiers that can be looked into one by one.
#[derive(Debug)]
pub(crate) struct Tiers {
    pub(crate) cache: LayeredPipelineCache,
    memory: InMemoryPipelineCache,
    disk: DiskCache,
}

/// A server of another machine's folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote<'a> {
    pub(crate) url: &'a str,
    /// Whether its known spellings are used as well.
    pub(crate) aliases: bool,
}

/// Where an artifact came from, as the table counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Memory,
    Disk,
    Remote,
}

/// What became of hits in slow tiers: the library's report, and where the artifacts are now.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Promotion {
    events: u64,
    promoted: u64,
    promoted_layers: u64,
    promoted_bytes: u64,
    coalesced: u64,
    dropped: u64,
    failed: u64,
    pending: u64,
    last_source_layer: Option<usize>,
    last_promoted_layers: u64,
    last_promoted_bytes: u64,
    /// Programs whose artifact memory has, once the promotions have ended.
    pub(crate) now_in_memory: usize,
    /// Programs whose artifact the disk has, once the promotions have ended.
    pub(crate) now_on_disk: usize,
}

impl Tiers {
    /// What is compiled reaches every tier that takes writes, so that a folder is a full copy. The
    /// remote tier only reads, as is its default.
    pub(crate) async fn open<C: Compiler>(
        folder: &Path,
        compiler: &C,
        remote: Option<Remote<'_>>,
    ) -> Result<Self> {
        let memory = InMemoryPipelineCache::new();
        let disk = DiskCache::new(folder.join(ARTIFACTS)).await?;
        let mut cache = LayeredPipelineCache::builder()
            .tier(memory.clone())
            .tier(disk.clone())
            .record_run();
        cache = match remote {
            // Known spellings have no compiler and no device, as artifacts have, so they cannot be held
            // to one: this machine takes the other one's word for what a source means.
            None | Some(Remote { aliases: true, .. }) => cache.keep_aliases(),
            Some(Remote { aliases: false, .. }) => {
                cache.source_aliases(SourceAliases::new().kept_in(disk.clone()))
            }
        };
        if let Some(Remote { url, .. }) = remote {
            let remote = remote_tier()
                .require_provenance(C::PROVENANCE)
                .require_device(compiler.scope().target())
                .build(format!("{url}/{ARTIFACTS}"))?;
            cache = cache.tier(remote);
        }
        Ok(Self {
            cache: cache.build(),
            memory,
            disk,
        })
    }

    /// Waits for the promotions, and looks where each artifact is now.
    pub(crate) async fn promotion<C: Compiler>(
        &self,
        compiler: &C,
        programs: &[Checked<C>],
    ) -> Result<Promotion> {
        self.cache.flush().await?;
        let mut promotion = Promotion::from(self.cache.promotion_report());
        for program in programs {
            let Ok(canonical) = program.program.canonicalize() else {
                continue;
            };
            let key = canonical.fingerprint().scoped(compiler.scope());
            let is_whole = |artifact: Option<Artifact>| {
                artifact.is_some_and(|artifact| blake3::hash(artifact.payload()) == program.fresh)
            };
            promotion.now_in_memory += usize::from(is_whole(self.memory.peek(&key)));
            promotion.now_on_disk += usize::from(is_whole(self.disk.get(&key).await?));
        }
        Ok(promotion)
    }

    /// Ends all background work, so that what was stored is safe before the process ends.
    pub(crate) async fn close(self) -> Result<()> {
        let report = self.cache.close(CLOSE_DEADLINE).await;
        match report.errors.into_iter().next() {
            Some(error) => Err(error).context("the cache could not be closed"),
            None => Ok(()),
        }
    }

    /// Saves what the cache was asked for so far, where it is wanted.
    pub(crate) async fn save_run(&self, file: Option<&Path>) -> Result<()> {
        if let (Some(file), Some(run)) = (file, self.cache.recorded_run().await) {
            run.save(file).await?;
        }
        Ok(())
    }

    /// Fetches what a recorded run used; a line that says what came of it.
    pub(crate) async fn prefetch(&self, file: &Path) -> Result<String> {
        let run = RecordedRun::load(file).await?;
        let start = Instant::now();
        let report = self.cache.prefetch(&run).start()?.finish().await;
        let took = start.elapsed();
        self.flush().await?;
        Ok(format!("Before its pass, in {took:.1?}: {report}."))
    }

    /// Waits until all that was stored is in its tier.
    pub(crate) async fn flush(&self) -> Result<()> {
        self.cache.flush().await.context("not stored")
    }
}

fn remote_tier() -> RemoteCacheBuilder {
    // The server is on this machine, where no proxy leads.
    RemoteCache::builder().no_proxy()
}

impl Tier {
    /// The tiers in the order in which [`Tiers::open`] adds them.
    pub(crate) const fn of(source: LookupSource) -> Self {
        match source {
            LookupSource::Tier(1) => Self::Disk,
            LookupSource::Tier(2) => Self::Remote,
            // The first tier; and what is on its way up from a slow one, which is in memory too.
            _ => Self::Memory,
        }
    }
}

impl From<LayeredPromotionReport> for Promotion {
    fn from(report: LayeredPromotionReport) -> Self {
        Self {
            events: report.events,
            promoted: report.promoted,
            promoted_layers: report.promoted_layers,
            promoted_bytes: report.promoted_bytes,
            coalesced: report.coalesced,
            dropped: report.dropped,
            failed: report.failed,
            pending: report.pending,
            last_source_layer: report.last_source_layer,
            last_promoted_layers: report.last_promoted_layers,
            last_promoted_bytes: report.last_promoted_bytes,
            now_in_memory: 0,
            now_on_disk: 0,
        }
    }
}
