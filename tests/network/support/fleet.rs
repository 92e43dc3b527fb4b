//! A fleet whose machines all need the same at once.

use futures::future::join_all;
use pipeline_cache::{Artifact, LayeredPipelineCache, PipelineFingerprint};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Has every one of these caches compile so many keys, all at the same time. How often something was
/// compiled.
pub(crate) async fn compile_everywhere(
    caches: &[LayeredPipelineCache],
    keys: u64,
    key: fn(u64) -> PipelineFingerprint,
    artifact: fn(u64) -> Artifact,
) -> u64 {
    let compiles = Arc::new(AtomicU64::new(0));
    let requests = caches
        .iter()
        .flat_map(|cache| (0..keys).map(move |number| (cache, number)));
    let requests = requests.map(|(cache, number)| {
        let (cache, compiles) = (cache.clone(), Arc::clone(&compiles));
        tokio::spawn(async move {
            let compile = move || async move {
                compiles.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, Infallible>(artifact(number))
            };
            let key = key(number);
            let compiled = cache.get_or_insert_with(&key, compile);
            assert_eq!(compiled.await.unwrap().artifact, artifact(number));
        })
    });
    for request in join_all(requests).await {
        request.unwrap();
    }
    compiles.load(Ordering::Relaxed)
}
