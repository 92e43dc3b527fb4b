//! A machine of the fleet: the real layered store, over a real memory tier, a modelled disk and a
//! modelled remote.

use pipeline_cache::layered::{CompileSource, LookupSource};
use pipeline_cache::{
    CompileScope, InMemoryPipelineCache, LayeredPipelineCache, LookupPolicy,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

use crate::clock::{Clock, stretched};
use crate::disk::Disk;
use crate::remote::Remote;
use crate::tally::{Answered, Tally};
use crate::workload::{ProgramId, Workload};

#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) clock: Clock,
    pub(crate) workload: Arc<Workload>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) scope: Arc<CompileScope>,
    cache: LayeredPipelineCache,
}

impl Machine {
    pub(crate) fn new(
        clock: Clock,
        workload: Arc<Workload>,
        tally: Arc<Tally>,
        scope: Arc<CompileScope>,
        remote: Remote,
        compile_places: usize,
    ) -> Self {
        let disk = Disk::new(clock, Arc::clone(&workload));
        let cache = with_defaults_stretched()
            .tier(InMemoryPipelineCache::new())
            .tier(disk)
            .tier(remote)
            .compile_places(compile_places)
            .build();
        Self {
            clock,
            workload,
            tally,
            scope,
            cache,
        }
    }

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

pub(crate) const MEMORY: CompileSource = CompileSource::Cache(LookupSource::Tier(0));

/// The defaults of the library, on the clock of the model.
fn with_defaults_stretched() -> pipeline_cache::LayeredPipelineCacheBuilder {
    let defaults = LayeredPipelineCache::builder();
    let delay = stretched(Duration::from_millis(2));
    let seconds = |seconds| stretched(Duration::from_secs(seconds));
    defaults
        .lookup_policy(LookupPolicy::Hedged { delay })
        .lookup_deadline(seconds(10))
        .write_timeout(seconds(30))
        .write_retry_interval(seconds(5))
        .compile_limit(seconds(600))
        .max_compile_wait(seconds(30))
        .network_budget(stretched(Duration::from_millis(250)))
}
