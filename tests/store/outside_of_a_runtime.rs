//! A call outside of a tokio runtime is a typed error where the tier needs one, and works where it
//! does not. No call panics.

use futures::StreamExt as _;
use futures::executor::block_on;
use pipeline_cache::disk::DiskCacheHealth;
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileError, CompileLeases as _, DiskCache, DiskCacheError,
    InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, PipelineCacheStore,
    PipelineFingerprint, StoreError, StoreErrorKind,
};
use std::convert::Infallible;
use std::time::Duration;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([2; 32]);
const SOON: Duration = Duration::from_secs(1);

fn artifact() -> Artifact {
    Artifact::new("code")
}

fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

#[track_caller]
fn refused<T>(result: Result<T, StoreError>) {
    let kind = result.err().map(|error| error.kind());
    assert_eq!(kind, Some(StoreErrorKind::NoRuntime));
}

fn every_call_is_refused(store: &dyn PipelineCacheStore) {
    block_on(async {
        refused(store.fetch(&KEY).await);
        refused(store.get(&KEY).await);
        refused(store.put(&KEY, artifact()).await);
        refused(store.put(&KEY, Artifact::new(vec![1; 1 << 20])).await);
        refused(store.contains(&KEY).await);
        refused(store.remove(&KEY).await);
        refused(store.flush().await);
        refused(store.close(SOON).await);
    });
}

#[test]
fn memory_needs_no_runtime() {
    let cache = InMemoryPipelineCache::new();
    block_on(async {
        let large = Artifact::hash(vec![1; 1 << 20], ArtifactMetadata::new()).await;
        cache.put(&KEY, artifact()).await.unwrap();
        cache.put(&OTHER, large.clone()).await.unwrap();
        assert_eq!(cache.get(&KEY).await.unwrap(), Some(artifact()));
        assert_eq!(cache.get(&OTHER).await.unwrap(), Some(large));
        assert!(cache.contains(&KEY).await.unwrap());
        assert!(cache.remove(&KEY).await.unwrap());
        cache.flush().await.unwrap();
        cache.close(SOON).await.unwrap();
    });
}

#[test]
fn a_disk_cache_refuses_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let opened = block_on(DiskCache::new(folder.path()));
    assert!(matches!(opened, Err(DiskCacheError::NoRuntime)));
    let cache = on_a_runtime(async {
        let cache = DiskCache::builder().root(folder.path()).compile_locks();
        let cache = cache.open().await.unwrap();
        cache.put(&KEY, artifact()).await.unwrap();
        cache
    });
    every_call_is_refused(&cache);
    block_on(async {
        refused(cache.compile_lease(&KEY).await);
        refused(cache.entries().next().await.unwrap());
        refused(cache.verify().next().await.unwrap());
        refused(cache.entry(&KEY).await);
        refused(cache.trim().await);
        refused(cache.clear().await);
        refused(cache.open_frame(&KEY).await);
        refused(cache.put_frame(&KEY, "frame".into()).await);
    });
    on_a_runtime(async {
        assert_eq!(cache.get(&KEY).await.unwrap(), Some(artifact()));
        cache.put(&OTHER, artifact()).await.unwrap();
        let check = cache.verify().next().await.unwrap().unwrap();
        assert!(matches!(check.health, DiskCacheHealth::Whole));
        cache.close(SOON).await.unwrap();
    });
}

#[test]
fn a_layered_cache_refuses_what_it_cannot_answer_at_once() {
    let memory = InMemoryPipelineCache::new();
    block_on(memory.put(&OTHER, artifact())).unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(memory)
        .tier(InMemoryPipelineCache::new())
        .build();
    block_on(async {
        assert_eq!(cache.get(&OTHER).await, Some(artifact()));
        assert_eq!(cache.get(&KEY).await, None);
        let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
        assert!(lookup.is_degraded());
        let mut answers = std::pin::pin!(cache.lookup_many([KEY], &LookupOptions::new()));
        assert!(answers.next().await.unwrap().1.is_degraded());
        let compile = || async { Ok::<_, Infallible>(artifact()) };
        let compiled = cache.get_or_insert_with(&KEY, compile).await;
        assert!(matches!(compiled, Err(CompileError::NoRuntime)));
        let report = cache.close(SOON).await;
        assert_eq!(report.errors[0].kind(), StoreErrorKind::NoRuntime);
    });
    every_call_is_refused(&cache);
    on_a_runtime(async {
        cache.put(&KEY, artifact()).await.unwrap();
        cache.flush().await.unwrap();
    });
    assert_eq!(cache.write_behind_report().lost, 0);
}
