//! A machine of the fleet: the library's layered store, over memory, a disk and a remote. In the model
//! these three are modelled, in a real run they are the library's.

use pipeline_cache::layered::{CompileSource, LookupSource};
use pipeline_cache::{
    CompileScope, LayeredPipelineCache, LookupPolicy, PipelineCacheStore, SourceAliases,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::tally::{Answered, Tally};
use crate::workload::{ProgramId, Workload};

#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) clock: Clock,
    pub(crate) workload: Arc<Workload>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) scope: Arc<CompileScope>,
    pub(crate) cache: LayeredPipelineCache,
}

impl Machine {
    /// Asks for what the workload says, and waits for all answers.
    pub(crate) async fn run(self, number: usize) {
        let mut requests = JoinSet::new();
        for (at, program) in self.workload.requests(number) {
            self.clock.sleep_until(at).await;
            while requests.try_join_next().is_some() {}
            requests.spawn(self.clone().request(program));
        }
        requests.join_all().await;
    }

    async fn request(self, id: ProgramId) {
        let program = self.workload.program(id);
        let (clock, tally) = (self.clock, Arc::clone(&self.tally));
        let (artifact, time) = (program.artifact.clone(), program.compile_time);
        let began = clock.now();
        let compiled = self
            .cache
            .compile(&self.scope)
            .key(program.key)
            .run_async(move |(), _cx| async move {
                tally.compile_began(clock.now(), id);
                clock.sleep(time).await;
                Ok::<_, Infallible>(artifact)
            })
            .await;
        let answered = match compiled {
            Err(_) => Answered::Failed,
            Ok(compiled) if compiled.artifact != program.artifact => Answered::Wrong,
            Ok(compiled) if compiled.source == MEMORY => Answered::FromMemory,
            Ok(_) => Answered::Otherwise,
        };
        self.tally.answered(id, clock.now() - began, answered);
    }
}

const MEMORY: CompileSource = CompileSource::Cache(LookupSource::Tier(0));

/// Memory, a disk and a remote.
pub(crate) type Tiers = [Arc<dyn PipelineCacheStore>; 3];

/// The cache of a machine, with the defaults of the library on this clock. Machines may share the aliases:
/// they compile by key, and no source has one.
pub(crate) fn cache(
    clock: Clock,
    tiers: Tiers,
    aliases: Arc<SourceAliases>,
    compile_places: usize,
) -> LayeredPipelineCache {
    let delay = clock.stretched(Duration::from_millis(2));
    let seconds = |seconds| clock.stretched(Duration::from_secs(seconds));
    LayeredPipelineCache::builder()
        .tiers(tiers)
        .source_aliases(aliases)
        .compile_places(compile_places)
        .lookup_policy(LookupPolicy::Hedged { delay })
        .lookup_deadline(seconds(10))
        .write_timeout(seconds(30))
        .write_retry_interval(seconds(5))
        .compile_limit(seconds(600))
        .max_compile_wait(seconds(30))
        .network_budget(clock.stretched(Duration::from_millis(250)))
        .build()
}
