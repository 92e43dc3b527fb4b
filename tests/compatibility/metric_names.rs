//! The names of metrics, on which dashboards and alerts stand.

use metrics_exporter_prometheus::PrometheusBuilder;
use pipeline_cache::layered::{LATENCY_BUCKETS, MetricsExporter};
use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache};

use crate::folder::compile;
use crate::names::{Names, check};

/// Each name with its type and its labels, as a cache exports them.
pub(crate) async fn now() -> Names {
    let folder = tempfile::tempdir().unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(DiskCache::new(folder.path()).await.unwrap())
        .keep_aliases()
        .build();
    compile(&cache).await;
    let exporter = MetricsExporter::new("shaders");
    let builder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS);
    let recorder = builder.unwrap().build_recorder();
    metrics::with_local_recorder(&recorder, || exporter.export(&cache.layered_metrics()));
    let text = recorder.handle().render();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut names: Names = types.map(str::to_owned).collect();
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, labels)) = sample.split_once('{') {
            let labels = labels
                .split("\",")
                .filter_map(|label| label.split_once('='));
            let labels: Vec<_> = labels.map(|(label, _)| label).collect();
            names.insert(format!("{name} {}", labels.join(" ")));
        }
    }
    names
}

#[tokio::test]
async fn metrics_of_earlier_releases_keep_their_names() {
    let now = now().await;
    assert!(now.len() > 50, "{now:?}");
    check("metrics", &now);
}
