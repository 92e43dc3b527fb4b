//! A cache says what it saves, and one that costs more than it saves can be passed by.

use super::support::{FRONT_END, Front, MS, Words, memory, scope};
use pipeline_cache::{CompileInput, CompileSource, InMemoryPipelineCache, LayeredPipelineCache};
use std::time::Duration;

#[tokio::test]
async fn hits_save_the_time_of_their_compile_by_tier_and_scope() {
    let (cache, front, scope) = (memory(), Front::default(), scope());
    let request = || {
        let front = front.clone();
        let request = cache.compile(&scope).source(FRONT_END, "a", front.parse());
        request.run(move |input: CompileInput<Words>, cx| {
            std::thread::sleep(20 * MS);
            front.compile()(input, cx)
        })
    };
    request().await.unwrap();
    cache.flush().await.unwrap();
    let before = cache.layered_metrics();
    assert!(
        before.scopes[0].saved_nanos < 0,
        "a miss costs its key and lookup"
    );
    for _ in 0..3 {
        request().await.unwrap();
    }
    let metrics = cache.layered_metrics();
    let scope = &metrics.scopes[0];
    assert_eq!((&*scope.compiler, &*scope.target), ("cc 1", "x86_64"));
    assert_eq!((scope.requests, scope.hits), (4, 3));
    let saved = metrics.tiers[0].saved_nanos;
    assert_eq!(scope.saved_nanos, before.scopes[0].saved_nanos + saved);
    let saved = Duration::from_nanos(saved.unsigned_abs());
    assert!(saved > 50 * MS && saved < 10_000 * MS, "{saved:?}");
    assert_eq!(
        (metrics.compile_time.count, metrics.queue_time.count),
        (1, 1)
    );
}

/// Each program is new, so that the cache costs and saves nothing.
#[tokio::test]
async fn a_scope_that_costs_more_than_it_saves_is_passed_by_where_that_was_asked_for() {
    for passes_by in [false, true] {
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .pass_by_losing_scopes(passes_by)
            .build();
        let (front, scope) = (Front::default(), scope());
        for number in 0..1_001 {
            let request = cache.compile(&scope);
            let request = request.source(FRONT_END, number.to_string(), front.parse());
            let compiled = request.run(front.compile()).await.unwrap();
            let is_passed_by = compiled.source == CompileSource::PassedBy;
            assert_eq!(is_passed_by, passes_by && number == 1_000, "{number}");
        }
        let passed_by = cache.layered_metrics().scopes[0].passed_by;
        assert_eq!(passed_by, u64::from(passes_by));
    }
}
