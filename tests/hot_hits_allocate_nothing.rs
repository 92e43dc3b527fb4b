//! A hit in memory costs no allocation, through `dyn` and through the layered store.
//!
//! In a process of its own: allocations are counted by an allocator that serves the whole process.

use allocation_counter::measure;
use futures::FutureExt as _;
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, PipelineCacheStore,
    PipelineFingerprint,
};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);

#[test]
fn hot_hits_allocate_nothing() {
    let memory = InMemoryPipelineCache::new();
    let put = memory
        .put(&KEY, Artifact::new(vec![1; 4096]))
        .now_or_never();
    put.unwrap().unwrap();
    let layered = LayeredPipelineCache::builder().tier(memory.clone()).build();
    let options = LookupOptions::new();
    // The first use of a key takes its place in the record.
    let recording = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .record_run()
        .build();
    assert!(recording.get(&KEY).now_or_never().flatten().is_some());

    let hits: [(&str, &dyn Fn() -> bool); 5] = [
        ("memory as dyn", &|| {
            (&memory as &dyn PipelineCacheStore).peek(&KEY).is_some()
        }),
        ("layered as dyn", &|| {
            (&layered as &dyn PipelineCacheStore).peek(&KEY).is_some()
        }),
        ("layered get", &|| {
            layered.get(&KEY).now_or_never().flatten().is_some()
        }),
        ("layered lookup", &|| {
            let lookup = layered.lookup(&KEY, &options).now_or_never();
            lookup.is_some_and(|lookup| lookup.artifact().is_some())
        }),
        ("layered get that is recorded", &|| {
            recording.get(&KEY).now_or_never().flatten().is_some()
        }),
    ];
    for (what, hit) in hits {
        let allocations: u64 = (0..800)
            .map(|_| measure(|| assert!(hit())).count_total)
            .sum();
        assert_eq!(allocations, 0, "{what}");
    }
}
