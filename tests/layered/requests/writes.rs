//! Where what was compiled is written.

use super::support::{Gate, key, scope, until};
use pipeline_cache::layered::CompileContext;
use pipeline_cache::testing::FaultyStore;
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore as _, StoreOperation,
    TierSelection,
};
use std::convert::Infallible;
use std::sync::Arc;

fn tiers() -> (
    InMemoryPipelineCache,
    Arc<FaultyStore>,
    LayeredPipelineCache,
) {
    let memory = InMemoryPipelineCache::new();
    let remote = Arc::new(FaultyStore::new("remote").network());
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(Arc::clone(&remote))
        .build();
    (memory, remote, cache)
}

#[tokio::test]
async fn a_draft_stays_on_this_machine_until_it_is_put() {
    let (memory, remote, cache) = tiers();
    let scope = scope();
    let request = cache.compile(&scope).key(key(1));
    let compiled = request
        .tiers(TierSelection::Local)
        .writes(TierSelection::Local)
        .run(|(), _| Ok::<_, Infallible>(Artifact::new("draft")))
        .await
        .unwrap();
    cache.flush().await.unwrap();
    assert!(memory.peek(&key(1)).is_some());
    assert_eq!(remote.calls(StoreOperation::Put), 0);

    cache.put(&key(1), compiled.artifact).await.unwrap();
    cache.flush().await.unwrap();
    assert!(remote.contains(&key(1)).await.unwrap());
}

#[tokio::test]
async fn a_compile_is_written_wherever_one_of_its_callers_wants_it() {
    for draft_is_first in [true, false] {
        let (_memory, remote, cache) = tiers();
        let (scope, gate) = (scope(), Gate::default());
        let compile = || {
            let gate = gate.clone();
            move |(), _: &CompileContext| {
                gate.wait();
                Ok::<_, Infallible>(Artifact::new("code"))
            }
        };
        let mut orders = [TierSelection::Local, TierSelection::All];
        if !draft_is_first {
            orders.reverse();
        }
        let request = |writes| cache.compile(&scope).key(key(1)).writes(writes);
        let mut first = Box::pin(request(orders[0]).run(compile()));
        assert!(futures::poll!(&mut first).is_pending());
        gate.until_arrived(1).await;
        let mut second = Box::pin(request(orders[1]).run(compile()));
        assert!(futures::poll!(&mut second).is_pending());
        until(|| cache.layered_metrics().joins == 1).await;
        gate.open(1);
        first.await.unwrap();
        second.await.unwrap();
        cache.flush().await.unwrap();
        assert!(remote.contains(&key(1)).await.unwrap(), "{draft_is_first}");
    }
}
