//! What the cache counts reaches whatever recorder is installed.

use metrics::with_local_recorder;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, PipelineFingerprint,
};
use std::collections::HashMap;

#[tokio::test]
async fn every_number_reaches_the_recorder() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .build();
    let key = PipelineFingerprint::from_bytes([1; 32]);
    cache.put(&key, Artifact::new("code")).await.unwrap();
    cache.get(&key).await.unwrap();
    let other = PipelineFingerprint::from_bytes([2; 32]);
    cache.lookup(&other, &LookupOptions::new()).await;

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    with_local_recorder(&recorder, || cache.layered_metrics().export());
    let seen: HashMap<String, DebugValue> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let key = key.key();
            let labels: Vec<_> = key.labels().map(|label| label.value()).collect();
            (format!("{}{labels:?}", key.name()), value)
        })
        .collect();
    let counted = |name: &str, value| assert_eq!(seen[name], DebugValue::Counter(value), "{name}");
    counted("pipeline_cache_hits_total[]", 1);
    counted("pipeline_cache_misses_total[]", 1);
    counted("pipeline_cache_puts_total[]", 1);
    counted("pipeline_cache_tier_answers_total[\"memory\", \"miss\"]", 1);
    let bytes = &seen["pipeline_cache_tier_cached_bytes[\"memory\"]"];
    assert_eq!(*bytes, DebugValue::Gauge(4.0.into()));
    assert!(seen.contains_key("pipeline_cache_latency_seconds[\"all\", \"0.99\"]"));
}
