//! The numbers of two caches in one process reach Prometheus, and stay apart there.

use async_trait::async_trait;
use bytes::Bytes;
use metrics::with_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use pipeline_cache::layered::{LATENCY_BUCKETS, MetricsExporter};
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileScope, DiskCache, Fetched, InMemoryPipelineCache,
    LayeredPipelineCache, LookupOptions, OpaqueProgram, PipelineCacheMetrics, PipelineCacheStore,
    PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation, Unkeyable, WritePolicy,
};
use std::fmt;
use std::time::Duration;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([2; 32]);

/// A tier that takes no put.
#[derive(Debug)]
struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("full(https://user@example.com/artifacts)")
    }
}

#[async_trait]
impl PipelineCacheStore for Full {
    async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        Ok(Fetched::Miss)
    }

    async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        let kind = StoreErrorKind::StorageFull;
        Err(StoreError::new(kind, self.to_string(), StoreOperation::Put))
    }

    async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
}

/// The text that Prometheus scrapes after these exports.
fn scraped(export: impl FnOnce()) -> String {
    let builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS);
    let recorder = builder.unwrap().build_recorder();
    with_local_recorder(&recorder, export);
    recorder.handle().render()
}

/// Two caches, each with two tiers of one kind, and what has become of some lookups and puts.
async fn two_caches() -> [LayeredPipelineCache; 2] {
    let memories = || LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new());
    // The second tier stays empty, so that the numbers of the two differ.
    let first = memories().tier(InMemoryPipelineCache::new());
    let first = first.write_policy(WritePolicy::First).build();
    first.put(&KEY, Artifact::new("code")).await.unwrap();
    first.get(&KEY).await.unwrap();
    for _ in 0..3 {
        first.lookup(&OTHER, &LookupOptions::new()).await;
    }
    let second = memories().tier(Full).write_policy(WritePolicy::Behind);
    let second = second.build();
    second.put(&KEY, Artifact::new("longer")).await.unwrap();
    second.flush().await.unwrap_err();
    [first, second]
}

#[tokio::test]
async fn two_caches_and_their_tiers_stay_apart() {
    let [first, second] = two_caches().await;
    let text = scraped(|| {
        let shaders = MetricsExporter::new("shaders").tier_labels(["l1", "l2"]);
        shaders.export(&first.layered_metrics());
        MetricsExporter::new("kernels").export(&second.layered_metrics());
    });
    for line in [
        "pipeline_cache_hits_total{cache=\"shaders\"} 1",
        "pipeline_cache_hits_total{cache=\"kernels\"} 0",
        "pipeline_cache_misses_total{cache=\"shaders\"} 3",
        "pipeline_cache_tier_answers_total{cache=\"shaders\",tier=\"l2\",outcome=\"miss\"} 3",
        "pipeline_cache_tier_cached_bytes{cache=\"shaders\",tier=\"l1\"} 4",
        "pipeline_cache_tier_cached_bytes{cache=\"shaders\",tier=\"l2\"} 0",
        "pipeline_cache_tier_cached_bytes{cache=\"kernels\",tier=\"memory\"} 6",
        "pipeline_cache_tier_puts_total{cache=\"shaders\",tier=\"l1\"} 1",
        "pipeline_cache_writes_behind_failed_total{cache=\"kernels\"} 1",
        "pipeline_cache_writes_behind_dropped_total{cache=\"kernels\"} 0",
        "# TYPE pipeline_cache_tier_puts_total counter",
        "# TYPE pipeline_cache_tier_cached_bytes gauge",
        "# TYPE pipeline_cache_lookup_seconds histogram",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("example.com"), "{text}");
}

#[tokio::test]
async fn a_client_of_prometheus_reads_every_number_once_and_described() {
    let [first, second] = two_caches().await;
    let text = scraped(|| {
        MetricsExporter::new("first").export(&first.layered_metrics());
        MetricsExporter::new("second").export(&second.layered_metrics());
    });
    let Some(lines) = crate::prometheus::parse(&text) else {
        return;
    };
    let families: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("family "))
        .collect();
    assert!(families.len() > 40, "{families:?}");
    for family in &families {
        assert!(family.ends_with(" True"), "{family} has no description");
        assert!(!family.contains(" unknown "), "{family} has no type");
    }
    for sample in [
        "sample pipeline_cache_misses_total cache=first 3.0",
        "sample pipeline_cache_misses_total cache=second 0.0",
        "sample pipeline_cache_lookup_seconds_bucket cache=first,le=+Inf 3.0",
        "sample pipeline_cache_lookup_seconds_count cache=first 3.0",
        "sample pipeline_cache_tier_answer_seconds_count cache=first,tier=memory_2 3.0",
    ] {
        assert!(
            lines.iter().any(|line| line == sample),
            "{sample}: {lines:#?}"
        );
    }
}

#[tokio::test]
async fn a_second_export_counts_nothing_twice() {
    let [first, _] = two_caches().await;
    let text = scraped(|| {
        let exporter = MetricsExporter::new("first");
        exporter.export(&first.layered_metrics());
        exporter.export(&first.layered_metrics());
    });
    let count = "pipeline_cache_lookup_seconds_count{cache=\"first\"} 3\n";
    assert!(text.contains(count), "{text}");
}

/// A label is no place for a path.
#[tokio::test]
async fn a_folder_is_no_label() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache::new(folder.path()).await.unwrap();
    let cache = LayeredPipelineCache::builder().tier(disk).build();
    let text = scraped(|| MetricsExporter::new("a").export(&cache.layered_metrics()));
    assert!(text.contains("tier=\"disk\""), "{text}");
    let path = folder.path().to_str().unwrap();
    assert!(!text.contains(path), "{text}");
}

/// What the cache saves, by tier and by scope, and what became of compiles and aliases.
#[tokio::test]
async fn a_client_of_prometheus_reads_what_a_cache_saves() {
    const TOOK: Duration = Duration::from_secs(3_600);
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .keep_aliases()
        .build();
    let scope = |option: &str| {
        let scope = CompileScope::new("cc 1", "x86_64").unwrap();
        scope.option("level", option)
    };
    for (scope, requests) in [(scope("1"), 3), (scope("2"), 2)] {
        for _ in 0..requests {
            let parse = |text: &Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("text", text.clone()));
            let request = cache.compile(&scope).source("text 1", "hello", parse);
            let compile = |_, _: &_| {
                let metadata = ArtifactMetadata::default().with_compile_time(TOOK);
                Ok(Artifact::with_metadata("code", metadata))
            };
            request.run(compile).await.unwrap();
            cache.flush().await.unwrap();
        }
    }
    let metrics = cache.layered_metrics();
    let text = scraped(|| MetricsExporter::new("a").export(&metrics));
    let Some(lines) = crate::prometheus::parse(&text) else {
        return;
    };
    let labels = "cache=a,compiler=cc 1,target=x86_64";
    for sample in [
        format!("sample pipeline_cache_scope_requests_total {labels} 5.0"),
        format!("sample pipeline_cache_scope_hits_total {labels} 3.0"),
        format!("sample pipeline_cache_scope_passed_by_total {labels} 0.0"),
        "sample pipeline_cache_compiles_total cache=a 2.0".to_owned(),
        "sample pipeline_cache_compiles_running cache=a 0.0".to_owned(),
        "sample pipeline_cache_compiles_queued cache=a 0.0".to_owned(),
        "sample pipeline_cache_compiles_abandoned cache=a 0.0".to_owned(),
        "sample pipeline_cache_compiles_finished_after_abandonment_total cache=a 0.0".to_owned(),
        "sample pipeline_cache_compile_queue_seconds_count cache=a 2.0".to_owned(),
        "sample pipeline_cache_compile_seconds_count cache=a 2.0".to_owned(),
        "sample pipeline_cache_alias_hits_total cache=a 4.0".to_owned(),
        "sample pipeline_cache_alias_misses_total cache=a 1.0".to_owned(),
        "sample pipeline_cache_alias_puts_total cache=a 1.0".to_owned(),
        "sample pipeline_cache_tier_alias_puts_total cache=a,tier=memory 1.0".to_owned(),
        "sample pipeline_cache_tier_alias_misses_total cache=a,tier=memory 1.0".to_owned(),
        "sample pipeline_cache_tier_alias_entries cache=a,tier=memory 1.0".to_owned(),
        "sample pipeline_cache_tier_puts_total cache=a,tier=memory 2.0".to_owned(),
        "sample pipeline_cache_tier_entries cache=a,tier=memory 2.0".to_owned(),
    ] {
        assert!(lines.contains(&sample), "{sample}: {lines:#?}");
    }
    // Three hits, each less its own lookup.
    for name in ["scope", "tier"] {
        let start = format!("sample pipeline_cache_{name}_saved_seconds ");
        let sample = lines.iter().find_map(|line| line.strip_prefix(&start));
        let value = sample.unwrap().rsplit(' ').next().unwrap();
        let saved: f64 = value.parse().unwrap();
        let most = 3.0 * TOOK.as_secs_f64();
        assert!(saved < most && saved > most - 600.0, "{name}: {saved}");
        let family = format!("family pipeline_cache_{name}_saved_seconds gauge True");
        assert!(lines.contains(&family), "{family}: {lines:#?}");
    }
}
