//! A prefetch leaves requests of a server to users.

use crate::support::scripted_http::{ScriptedServer, Step, answer};
use pipeline_cache::layered::RecordedRun;
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint, RemoteCache,
};
use std::time::Duration;

const WANTED: PipelineFingerprint = PipelineFingerprint::from_bytes([0xff; 32]);

async fn run(keys: u8) -> RecordedRun {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .record_run()
        .build();
    for number in 0..keys {
        let key = PipelineFingerprint::from_bytes([number; 32]);
        cache.get(&key).await;
    }
    cache.recorded_run().await.unwrap()
}

/// The server answers a prefetch never, and users at once.
#[tokio::test]
async fn a_server_that_hangs_for_a_prefetch_has_requests_left_for_users() {
    let server = ScriptedServer::start(|request| {
        if !request.path.contains(&WANTED.to_string()) {
            return vec![Step::Hang];
        }
        let frame = Artifact::new("code").to_frame(&WANTED, None).unwrap();
        answer("200 OK", &frame)
    });
    let remote = RemoteCache::builder()
        .no_proxy()
        .max_concurrent_requests(4)
        .build(server.url())
        .unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(remote)
        .build();
    let prefetch = cache.prefetch(&run(20).await).concurrency(16);
    let prefetch = prefetch.give_way(Duration::ZERO).start().unwrap();
    while server.requests().len() < 2 {
        tokio::task::yield_now().await;
    }
    // Two of four requests are a prefetch's: the other two are there for this.
    for _ in 0..3 {
        assert_eq!(cache.get(&WANTED).await, Some(Artifact::new("code")));
    }
    let is_prefetch = |path: &str| !path.contains(&WANTED.to_string());
    let requests = server.requests();
    let prefetched = requests.iter().filter(|request| is_prefetch(&request.path));
    assert_eq!(prefetched.count(), 2);
    drop(prefetch);
}
