//! What a compile made beside the code is there on every hit, from whichever tier.

use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
    PipelineFingerprint, StoreErrorKind, WritePolicy,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::unbounded_channel;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);

fn compiled(warnings: &'static str) -> Artifact {
    let parts = Artifact::builder().part("code", vec![1; 100_000]);
    parts.part("warnings", warnings).build().unwrap()
}

async fn on_disk(folder: &Path) -> LayeredPipelineCache {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(DiskCache::new(folder).await.unwrap())
        .write_policy(WritePolicy::Through)
        .build()
}

#[tokio::test]
async fn the_warnings_of_a_compile_are_there_on_every_hit() {
    let folder = tempfile::tempdir().unwrap();
    let compiles = Arc::new(AtomicUsize::new(0));
    // Compiled and hit in memory, then read from disk and hit where that was promoted to.
    for _process in 0..2 {
        let cache = on_disk(folder.path()).await;
        for _hit in 0..3 {
            let compiles = Arc::clone(&compiles);
            let compile = || async move {
                compiles.fetch_add(1, Ordering::Relaxed);
                Ok::<_, StoreErrorKind>(compiled("line 1"))
            };
            let result = cache.get_or_insert_with(&KEY, compile).await.unwrap();
            assert_eq!(result.artifact.part("warnings").unwrap(), "line 1");
            assert_eq!(result.artifact.part("code").unwrap(), vec![1; 100_000]);
            cache.flush().await.unwrap();
        }
    }
    assert_eq!(compiles.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_recompile_with_other_warnings_is_a_mismatch() {
    let (tell, mut heard) = unbounded_channel();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .verify_sample(1.0, move |mismatch| tell.send(mismatch.clone()).unwrap())
        .build();
    cache.put(&KEY, compiled("line 1")).await.unwrap();
    let compile = || async { Ok::<_, StoreErrorKind>(compiled("line 2")) };
    cache.get_or_insert_with(&KEY, compile).await.unwrap();
    let mismatch = heard.recv().await.unwrap();
    assert_eq!(
        mismatch.stored.part("code"),
        mismatch.recompiled.part("code")
    );
    assert_eq!(mismatch.recompiled.part("warnings").unwrap(), "line 2");
}

#[tokio::test]
async fn all_parts_count_towards_the_bounds_of_a_tier() {
    let artifact = compiled("line 1");
    let memory = InMemoryPipelineCache::new();
    memory.put(&KEY, artifact.clone()).await.unwrap();
    assert_eq!(memory.metrics().cached_bytes, artifact.len() as u64);

    let folder = tempfile::tempdir().unwrap();
    let disk = |limit: usize| {
        let builder = DiskCache::builder().root(folder.path());
        builder.max_artifact_bytes(limit as u64).open()
    };
    let small = disk(artifact.len() - 1).await.unwrap();
    let refused = small.put(&KEY, artifact.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::TooLarge);
    let large = disk(artifact.len()).await.unwrap();
    large.put(&KEY, artifact).await.unwrap();
}
