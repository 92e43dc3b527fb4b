//! A server that hangs costs a compile request its network budget, until the breaker opens.

use crate::support::scripted_http::{ScriptedServer, Step};
use pipeline_cache::layered::TierOutcome;
use pipeline_cache::network::{BreakerPolicy, BreakerState};
use pipeline_cache::{
    Artifact, CompileScope, CompileSource, Compiled, InMemoryPipelineCache, LayeredPipelineCache,
    LookupSource, PipelineFingerprint, RemoteCache, RemoteCacheBuilder,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const MS: Duration = Duration::from_millis(1);
/// Far longer than anything here takes, and than no test waits for nothing.
const PATIENCE: Duration = Duration::from_secs(20);

fn builder() -> RemoteCacheBuilder {
    let breaker = BreakerPolicy::default()
        .min_calls(3)
        .abandoned_after(50 * MS);
    RemoteCache::builder().no_proxy().breaker(breaker)
}

async fn request(cache: &LayeredPipelineCache, number: u8, budget: Duration) -> Compiled {
    let scope = CompileScope::new("cc 1", "x86_64").unwrap();
    let key = PipelineFingerprint::from_bytes([number; 32]);
    let request = cache.compile(&scope).key(key).network_budget(budget);
    let compiled = request.run(|(), _| Ok::<_, Infallible>(Artifact::new("compiled")));
    compiled.await.unwrap()
}

/// The lookups that were given up while the server hung count for the breaker.
#[tokio::test]
async fn a_hung_server_costs_the_budget_until_the_breaker_opens_and_then_nothing() {
    let server = ScriptedServer::start(|_| vec![Step::Hang]);
    let remote = Arc::new(builder().build(server.url()).unwrap());
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&remote))
        .build();
    let mut number = 0;
    let before_it_opens = async {
        while remote.breaker_state() == BreakerState::Closed {
            number += 1;
            let compiled = request(&cache, number, 100 * MS).await;
            assert_eq!(compiled.source, CompileSource::Compiled);
            let lookup = compiled.times.lookup;
            assert!(lookup < 5_000 * MS, "{lookup:?}");
        }
    };
    timeout(PATIENCE, before_it_opens).await.unwrap();
    assert!(number <= 20, "the breaker opened after {number} requests");
    let mut best = PATIENCE;
    for _ in 0..20 {
        number += 1;
        let start = Instant::now();
        // None of this is waited for.
        let budget = Duration::from_secs(3_600);
        let compiled = timeout(PATIENCE, request(&cache, number, budget));
        let compiled = compiled.await.expect("nothing is waited for");
        let outcome = compiled.tiers().nth(1).unwrap().outcome;
        assert!(matches!(outcome, TierOutcome::BreakerOpen), "{outcome}");
        best = best.min(start.elapsed());
    }
    assert!(best < 5 * MS, "{best:?}");
}

/// The head of the response is there at once, and the body takes longer than the budget.
#[tokio::test]
async fn a_response_that_has_begun_is_waited_for() {
    let key = PipelineFingerprint::from_bytes([1; 32]);
    let frame = Artifact::new(vec![7; 100]).to_frame(&key, None).unwrap();
    let server = ScriptedServer::start(move |_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", frame.len());
        vec![
            Step::Send(head.into_bytes()),
            // Takes about twice the budget.
            Step::Drip(frame.to_vec(), 10 * MS),
        ]
    });
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(builder().build(server.url()).unwrap())
        .build();
    let compiled = request(&cache, 1, 1_500 * MS).await;
    assert_eq!(compiled.source, CompileSource::Cache(LookupSource::Tier(1)));
    assert_eq!(compiled.artifact, Artifact::new(vec![7; 100]));
    assert!(compiled.times.lookup > 1_500 * MS, "{compiled}");
    assert_eq!(cache.layered_metrics().compiles, 0);
    assert_eq!(server.requests().len(), 1);
}
