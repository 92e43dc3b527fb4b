//! A network that hangs costs a request its budget, once, and may still win.

use super::support::{FRONT_END, Front, MS, key, scope};
use bytes::Bytes;
use pipeline_cache::layered::TierOutcome;
use pipeline_cache::store::answer_begins;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileSource, Fetched, InMemoryPipelineCache, LayeredPipelineCache, Locality,
    LookupPolicy, LookupSource, OpaqueProgram, PipelineCacheMetrics, PipelineCacheStore,
    PipelineFingerprint, SourceAliases, StoreError, StoreOperation, TierSelection,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn hung() -> Arc<FaultyStore> {
    let remote = Arc::new(FaultyStore::new("remote").network());
    remote.set(StoreOperation::Get, Fault::Hang);
    remote.set(StoreOperation::Put, Fault::Hang);
    remote
}

fn cache_over(remote: &Arc<FaultyStore>) -> LayeredPipelineCache {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(remote))
        .build()
}

async fn compile_in(time: Duration) -> Result<Artifact, Infallible> {
    sleep(time).await;
    Ok(Artifact::new("compiled"))
}

#[tokio::test(start_paused = true)]
async fn a_hung_network_costs_a_request_its_budget_once() {
    let policies = [
        LookupPolicy::default(),
        LookupPolicy::Concurrent,
        LookupPolicy::Sequential,
    ];
    for policy in policies {
        let (one, two) = (hung(), hung());
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .tier(one)
            .tier(two)
            .lookup_policy(policy)
            .build();
        for (number, budget) in [(1, 250), (2, 250), (3, 20)] {
            let (start, scope) = (Instant::now(), scope());
            let mut request = cache.compile(&scope).key(key(number));
            if budget != 250 {
                request = request.network_budget(budget * MS);
            }
            let compiled = request.run_async(|(), _| compile_in(3 * MS)).await.unwrap();
            let took = start.elapsed();
            assert_eq!(compiled.source, CompileSource::Compiled);
            let budget = budget * MS;
            assert!(
                took >= budget && took < budget + 10 * MS,
                "{policy:?}: {took:?}"
            );
            let remote = compiled.tiers().nth(1).unwrap();
            assert_eq!(remote.name, "remote");
            assert!(matches!(remote.outcome, TierOutcome::TimedOut));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_network_may_still_win_after_the_budget() {
    let remote = hung();
    remote.set(StoreOperation::Put, Fault::None);
    remote.put(&key(1), Artifact::new("stored")).await.unwrap();
    remote.set(StoreOperation::Get, Fault::Latency(400 * MS));
    let cache = cache_over(&remote);
    let (start, scope) = (Instant::now(), scope());
    let request = cache.compile(&scope).key(key(1));
    let compiled = request
        .run_async(|(), _| compile_in(10_000 * MS))
        .await
        .unwrap();
    assert_eq!(compiled.source, CompileSource::Cache(LookupSource::Tier(1)));
    assert_eq!(compiled.tier_name(), Some("remote"));
    assert!(start.elapsed() < 410 * MS);
    assert_eq!(remote.calls(StoreOperation::Get), 1, "no second request");
}

/// A tier whose answer begins at once and takes long.
#[derive(Debug)]
struct Slow(Duration);

impl std::fmt::Display for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("slow")
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Slow {
    async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        sleep(MS).await;
        answer_begins();
        sleep(self.0).await;
        Ok(Fetched::Hit(Artifact::new("stored")))
    }
    async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        Ok(())
    }
    async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
    fn locality(&self) -> Locality {
        Locality::Network
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_has_begun_has_no_budget() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Slow(Duration::from_secs(5)))
        .build();
    let scope = scope();
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run_async(|(), _| compile_in(MS)).await.unwrap();
    assert_eq!(compiled.source, CompileSource::Cache(LookupSource::Tier(1)));
    assert_eq!(cache.layered_metrics().compiles, 0);
}

#[tokio::test(start_paused = true)]
async fn an_editor_asks_no_network_and_compiles_on_a_local_miss() {
    let remote = hung();
    let cache = cache_over(&remote);
    let (start, scope) = (Instant::now(), scope());
    let request = cache
        .compile(&scope)
        .key(key(1))
        .tiers(TierSelection::Local);
    let compiled = request.run_async(|(), _| compile_in(3 * MS)).await.unwrap();
    assert_eq!(compiled.source, CompileSource::Compiled);
    assert!(start.elapsed() < 10 * MS);
    assert_eq!(remote.calls(StoreOperation::Get), 0);
}

/// An editor joins a flight that waits for the network. It does not wait for it as well.
#[tokio::test(start_paused = true)]
async fn an_editor_that_joins_a_flight_at_the_network_makes_it_compile() {
    let remote = hung();
    let cache = cache_over(&remote);
    let first = tokio::spawn({
        let cache = cache.clone();
        async move {
            let compile = || compile_in(3 * MS);
            cache.get_or_insert_with(&key(1), compile).await.unwrap()
        }
    });
    remote.called(StoreOperation::Get, 1).await;
    let (start, scope) = (Instant::now(), scope());
    let request = cache
        .compile(&scope)
        .key(key(1))
        .tiers(TierSelection::Local);
    let joined = request.run_async(|(), _| compile_in(3 * MS)).await.unwrap();
    assert_eq!(joined.source, CompileSource::Joined);
    assert!(start.elapsed() < 10 * MS, "{:?}", start.elapsed());
    assert_eq!(first.await.unwrap().source, CompileSource::Compiled);
}

/// Aliases in a network that hangs and artifacts in one: both together cost one budget. The clock is
/// paused: no timer is set while a thread parses, and what is small is compiled without one.
#[tokio::test(start_paused = true)]
async fn aliases_and_artifacts_share_one_budget() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(hung())
        .source_aliases(SourceAliases::new().kept_in(hung()))
        .build();
    let (scope, start) = (scope(), Instant::now());
    let parse = |text: &Bytes| Ok::<_, Infallible>(OpaqueProgram::new("text", text.clone()));
    let request = cache
        .compile(&scope)
        .source(FRONT_END, "a b", parse)
        .network_budget(1_000 * MS);
    let compile = request.run_async(|_, _| async { Ok(Artifact::new("code")) });
    compile.await.unwrap();
    let took = start.elapsed();
    assert!(took >= 1_000 * MS && took < 1_010 * MS, "{took:?}");
}

/// An editor asks for a source whose alias a hung network may know: at first, and while somebody else
/// waits for that network.
#[tokio::test]
async fn an_editor_waits_for_no_alias_in_a_network() {
    const LONG: Duration = Duration::from_secs(3_600);
    for joins in [false, true] {
        let kept = hung();
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .source_aliases(SourceAliases::new().kept_in(Arc::clone(&kept)))
            .network_budget(LONG)
            .build();
        let (front, scope) = (Front::default(), scope());
        let request = || {
            cache
                .compile(&scope)
                .source(FRONT_END, "a b", front.parse())
        };
        let mut patient = Box::pin(request().run(front.compile()));
        if joins {
            while kept.calls(StoreOperation::Get) == 0 {
                assert!(futures::poll!(&mut patient).is_pending());
                tokio::task::yield_now().await;
            }
        }
        let editor = request().tiers(TierSelection::Local);
        let compiled = editor.run(front.compile()).await.unwrap();
        assert_eq!(&compiled.artifact.payload()[..], b"a b for x86_64");
        let calls = kept.calls(StoreOperation::Get);
        assert_eq!(calls, u64::from(joins), "asked by the editor: {calls}");
        patient.await.unwrap();
        assert_eq!((front.parses(), front.compiles()), (1, 1));
    }
}
