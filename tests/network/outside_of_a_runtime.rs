//! Network tiers and runtimes: a call outside of one is a typed error, and a tier whose runtime is
//! gone works on that of its caller.

#[cfg(feature = "remote-cache")]
use crate::support::scripted_http::{ScriptedServer, answer};
#[cfg(feature = "remote-cache")]
use pipeline_cache::RemoteCache;
use pipeline_cache::{Artifact, PipelineCacheStore, PipelineFingerprint, StoreErrorKind};
use std::time::Duration;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

fn every_call_is_refused(store: &dyn PipelineCacheStore) {
    let kind = |error: pipeline_cache::StoreError| error.kind();
    futures::executor::block_on(async {
        let refused = [
            store.fetch(&KEY).await.err().map(kind),
            store.get(&KEY).await.err().map(kind),
            store.put(&KEY, Artifact::new("code")).await.err().map(kind),
            store.contains(&KEY).await.err().map(kind),
            store.remove(&KEY).await.err().map(kind),
        ];
        assert_eq!(refused, [Some(StoreErrorKind::NoRuntime); 5]);
        // Nothing is done for these.
        store.flush().await.unwrap();
        store.close(Duration::from_secs(1)).await.unwrap();
    });
}

#[cfg(feature = "remote-cache")]
#[test]
fn a_remote_cache_outside_of_a_runtime_is_a_typed_error() {
    let server = ScriptedServer::start(|_| answer("404 Not Found", b""));
    let builder = RemoteCache::builder().no_proxy().writes();
    let remote = builder.build(server.url()).unwrap();
    every_call_is_refused(&remote);
}

#[cfg(all(feature = "object-store", feature = "testing"))]
#[test]
fn an_object_store_outside_of_a_runtime_is_a_typed_error() {
    let builder = pipeline_cache::ObjectStoreCache::builder().writes();
    let objects = std::sync::Arc::new(object_store::memory::InMemory::new());
    every_call_is_refused(&builder.build_on(objects, "artifacts"));
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_cache_outside_of_a_runtime_is_a_typed_error() {
    use pipeline_cache::CompileLeases as _;
    let builder = pipeline_cache::RedisCache::builder().writes();
    let builder = builder.compile_leases(Duration::from_secs(1));
    // No server is asked.
    let redis = builder.build("redis://127.0.0.1:1").unwrap();
    let refused = futures::executor::block_on(redis.compile_lease(&KEY));
    assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::NoRuntime);
    every_call_is_refused(&redis);
}

/// Connections of the first runtime are of no use to the second.
#[cfg(feature = "remote-cache")]
#[test]
fn a_remote_cache_whose_runtime_is_gone_works_on_that_of_its_caller() {
    let server = ScriptedServer::start(|_| answer("404 Not Found", b""));
    let remote = RemoteCache::builder().no_proxy();
    let remote = remote.build(server.url()).unwrap();
    for round in 0..20_u8 {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            for number in 0..3 {
                let key = PipelineFingerprint::from_bytes([3 * round + number; 32]);
                assert_eq!(remote.get(&key).await.unwrap(), None);
            }
        });
        runtime.shutdown_background();
    }
    assert_eq!(remote.metrics().errors, 0);
}
