//! One process of a fleet at a time compiles a key, and none waits for ever for another.

use super::{SLACK, artifact, key, writing};
use crate::support::fleet::compile_everywhere;
use crate::support::redis::{Cluster, Redis};
use pipeline_cache::network::BreakerState;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileLease, CompileLeases as _, CompileSource, DiskCache, InMemoryPipelineCache,
    LayeredPipelineCache, LayeredPipelineCacheBuilder, PipelineCacheStore, RedisCache,
    StoreErrorKind, StoreOperation,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than any test waits for anything.
pub(super) const FOR_EVER: Duration = Duration::from_secs(3600);
/// No test waits until it is over, however busy the machine is.
pub(super) const LEASE: Duration = Duration::from_secs(600);
/// The default of a request.
const BUDGET: Duration = Duration::from_millis(250);

pub(super) fn granting(url: &str) -> RedisCache {
    granting_for(url, LEASE)
}

pub(super) fn granting_for(url: &str, time: Duration) -> RedisCache {
    let patience = Duration::from_secs(60);
    writing()
        .compile_leases(time)
        .connect_timeout(patience)
        .inactivity_timeout(patience)
        .attempt_timeout(patience)
        .request_timeout(patience)
        .build(url)
        .unwrap()
}

/// The layers of one machine of a fleet. However busy it is, it waits for the server.
pub(super) fn layers() -> LayeredPipelineCacheBuilder {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .max_compile_wait(FOR_EVER)
        .network_budget(FOR_EVER)
}

pub(super) fn machine(redis: RedisCache) -> LayeredPipelineCache {
    layers().tier(redis).build()
}

pub(super) fn lease_key(number: u64) -> String {
    let key = key(number);
    format!("pipeline-cache:lease:{{pipeline-cache:{key}}}")
}

pub(super) async fn compile(cache: &LayeredPipelineCache, number: u64) -> CompileSource {
    let compile = move || async move { Ok::<_, Infallible>(artifact(number)) };
    let compiled = cache
        .get_or_insert_with(&key(number), compile)
        .await
        .unwrap();
    assert_eq!(compiled.artifact, artifact(number));
    compiled.source
}

/// Waits until it holds; there is no other way to be told.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn compile_once_each(caches: &[LayeredPipelineCache], keys: u64) {
    let compiles = compile_everywhere(caches, keys, key, artifact).await;
    assert_eq!(compiles, keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_are_all_cold_compile_once_what_they_share() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let caches: Vec<_> = (0..4).map(|_| machine(granting(&server.url()))).collect();
    compile_once_each(&caches, 100).await;
    let count = |of: fn(&pipeline_cache::layered::TierMetrics) -> u64| {
        let metrics = caches.iter().map(LayeredPipelineCache::layered_metrics);
        metrics.map(|metrics| of(&metrics.tiers[1])).sum::<u64>()
    };
    assert_eq!(count(|tier| tier.leases_granted), 100);
    assert_eq!(count(|tier| tier.leases_timed_out), 0);
    assert_eq!(count(|tier| tier.store.expired_leases), 0);
    let followed = count(|tier| tier.leases_followed);
    assert!((1..=300).contains(&followed), "{followed}");
    for cache in &caches {
        assert_eq!(cache.layered_metrics().unshared_compiles, 0);
        cache.close(Duration::from_secs(30)).await;
    }
    // What ended, the server knows of.
    assert_eq!(server.command(&["keys", "*lease*"]), "");
}

/// The processes of a machine compete for the lease of their folder, and one of them for that of the
/// fleet.
#[tokio::test(flavor = "multi_thread")]
async fn processes_on_two_machines_compile_once_with_both_kinds_of_leases() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut caches = Vec::new();
    for folder in folders.iter().chain(&folders) {
        let disk = DiskCache::builder().root(folder.path()).compile_locks();
        let cache = layers()
            .tier(disk.open().await.unwrap())
            .tier(granting(&server.url()));
        caches.push(cache.build());
    }
    compile_once_each(&caches, 40).await;
    for tier in [1, 2] {
        let metrics = caches.iter().map(LayeredPipelineCache::layered_metrics);
        let followed: u64 = metrics
            .map(|metrics| metrics.tiers[tier].leases_followed)
            .sum();
        assert!(followed > 0, "{tier}");
    }
    for cache in caches {
        cache.close(Duration::from_secs(30)).await;
    }
}

/// Nobody who waits is told by asking alone: that would take half a second on the average.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_woken() {
    const WAITERS: u64 = 16;
    let Some(server) = Redis::start("") else {
        return;
    };
    let holder = granting(&server.url());
    let waiter = granting(&server.url());
    let mut held = Vec::new();
    for number in 0..WAITERS {
        held.push(lease(&holder, number).await);
    }
    let began = Instant::now();
    let waiting: Vec<_> = (0..WAITERS)
        .map(|number| {
            let waiter = waiter.clone();
            tokio::spawn(async move {
                let lease = lease(&waiter, number).await;
                (lease, Instant::now())
            })
        })
        .collect();
    let channel = lease_key(WAITERS - 1);
    eventually("a subscription", || {
        server
            .command(&["pubsub", "numsub", &channel])
            .ends_with('1')
    })
    .await;
    tokio::time::sleep_until((began + Duration::from_secs(8)).into()).await;
    let mut late = Vec::new();
    for (lease, waiting) in held.into_iter().zip(waiting) {
        let released = Instant::now();
        drop(lease);
        let (lease, woken) = waiting.await.unwrap();
        late.push(woken - released);
        assert!(!lease.is_stored());
    }
    late.sort_unstable();
    let median = late[late.len() / 2];
    assert!(median < Duration::from_millis(350), "{late:?}");
    assert_eq!(waiter.metrics().awaited_compiles, WAITERS);
    // A lease is asked for twice when another has it, and then now and then.
    eventually("nobody is subscribed", || {
        server.command(&["pubsub", "channels"]).is_empty()
    })
    .await;
}

pub(super) async fn lease(cache: &RedisCache, number: u64) -> CompileLease {
    let key = key(number);
    let lease = tokio::time::timeout(Duration::from_secs(60), cache.compile_lease(&key));
    let lease = lease.await.expect("nobody holds it for ever").unwrap();
    lease.expect("the tier is open")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_as_long_as_it_is_held() {
    let Some(server) = Redis::start("") else {
        return;
    };
    // Renewed each third of it: the rest is what a busy machine may take.
    let one = granting_for(&server.url(), Duration::from_secs(9));
    let other = granting(&server.url());
    let held = lease(&one, 1).await;
    let left = || -> i64 {
        let left = server.command(&["pttl", &lease_key(1)]);
        left.parse().unwrap()
    };
    let mut before = left();
    eventually("it is renewed", || {
        let now = left();
        let is_renewed = now > before;
        before = now;
        is_renewed
    })
    .await;
    assert!((1..=9000).contains(&left()));
    let short = Duration::from_millis(100);
    let waited = tokio::time::timeout(short, other.compile_lease(&key(1))).await;
    assert!(waited.is_err());
    // A put of the key holds it too, until its artifact is there.
    one.put(&key(1), artifact(1)).await.unwrap();
    assert!(lease(&other, 1).await.is_stored());
    drop(held);
    eventually("it is released", || {
        server.command(&["exists", &lease_key(1)]) == "0"
    })
    .await;
    assert_eq!(one.metrics().expired_leases, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_the_queue_leaves_nothing_behind() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = granting(&server.url());
    for round in 0..200 {
        let (key, limit) = (key(round), Duration::from_micros(20 * (round % 20)));
        drop(tokio::time::timeout(limit, cache.compile_lease(&key)).await);
    }
    // By their holder: no lease of this test ends by itself.
    eventually("all are released", || {
        server.command(&["keys", "*lease*"]).is_empty()
    })
    .await;
    assert_eq!(cache.metrics().expired_leases, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_compile_leaves_the_key_to_the_next() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let caches = [(); 2].map(|()| machine(granting(&server.url())));
    let fails = || async { Err::<Artifact, _>("no such instruction") };
    caches[0]
        .get_or_insert_with(&key(1), fails)
        .await
        .unwrap_err();
    assert_eq!(compile(&caches[1], 1).await, CompileSource::Compiled);
}

/// The server takes small artifacts alone. Those who wait find this one in another tier.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_lasts_until_an_artifact_that_the_server_does_not_take_is_elsewhere() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let remote = Arc::new(FaultyStore::new("remote").network());
    remote.set(StoreOperation::Put, Fault::Gate);
    let caches = [(); 2].map(|()| {
        let redis = granting(&server.url());
        let cache = layers()
            .tier(redis.clone())
            .tier(Arc::clone(&remote))
            .build();
        (cache, redis)
    });
    let large = || async { Ok::<_, Infallible>(Artifact::new(vec![7; 2 << 20])) };
    let [(first, _), (second, redis)] = caches;
    let compiled = first.get_or_insert_with(&key(1), large).await.unwrap();
    assert_eq!(compiled.source, CompileSource::Compiled);
    let waiting = {
        let second = second.clone();
        tokio::spawn(async move { second.get_or_insert_with(&key(1), large).await })
    };
    eventually("it waits", || redis.metrics().awaited_compiles == 1).await;
    assert!(!waiting.is_finished());
    remote.open(StoreOperation::Put, 1);
    let found = waiting.await.unwrap().unwrap();
    assert_eq!(found.tier_name(), Some("remote"));
    assert_eq!(second.layered_metrics().tiers[1].leases_followed, 1);
    remote.set(StoreOperation::Put, Fault::None);
    // That it was passed over is no error of a flush.
    first.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_tier_grants_no_lease_and_a_reading_one_never_did() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = granting(&server.url());
    let held = lease(&cache, 1).await;
    let other = granting(&server.url());
    let waiter = {
        let other = other.clone();
        tokio::spawn(async move { other.compile_lease(&key(1)).await })
    };
    eventually("it waits", || other.metrics().awaited_compiles == 1).await;
    other.close(FOR_EVER).await.unwrap();
    assert!(waiter.await.unwrap().unwrap().is_none());
    assert!(other.compile_lease(&key(2)).await.unwrap().is_none());
    drop(held);
    cache.close(FOR_EVER).await.unwrap();
    assert_eq!(server.command(&["exists", &lease_key(1)]), "0");
    let reading = RedisCache::builder()
        .compile_leases(LEASE)
        .build(server.url());
    assert!(reading.unwrap().compile_leases().is_none());
    assert!(
        writing()
            .build(server.url())
            .unwrap()
            .compile_leases()
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_grant_costs_a_compile_its_budget_at_most() {
    let Some(mut server) = Redis::start("--maxmemory-policy noeviction") else {
        return;
    };
    let redis = granting(&server.url());
    let cache = layers().tier(redis.clone()).network_budget(BUDGET).build();
    // Without memory it grants none, and is read as before.
    server.command(&["config", "set", "maxmemory", "1"]);
    let error = redis.compile_lease(&key(1)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::StorageFull);
    assert_eq!(compile(&cache, 1).await, CompileSource::Compiled);
    assert_eq!(redis.breaker_state(), BreakerState::Closed);
    server.command(&["config", "set", "maxmemory", "0"]);

    // A key of another type is nobody's lease.
    server.command(&["rpush", &lease_key(2), "a"]);
    assert_eq!(compile(&cache, 2).await, CompileSource::Compiled);
    assert_eq!(cache.layered_metrics().unshared_compiles, 2);

    // Stopped between the lookup and the lease, and before both.
    for number in [3, 4] {
        server.freeze();
        let began = Instant::now();
        assert_eq!(compile(&cache, number).await, CompileSource::Compiled);
        let took = began.elapsed();
        assert!(took < BUDGET + SLACK, "{took:?}");
        server.thaw();
    }

    // Killed while somebody waits for another: who waits compiles.
    let holder = granting(&server.url());
    eventually("it is well again", || {
        redis.breaker_state() == BreakerState::Closed
    })
    .await;
    let _held = lease(&holder, 5).await;
    let awaited = redis.metrics().awaited_compiles;
    let waiting = {
        let cache = cache.clone();
        tokio::spawn(async move { compile(&cache, 5).await })
    };
    eventually("it waits", || redis.metrics().awaited_compiles > awaited).await;
    server.kill();
    assert_eq!(waiting.await.unwrap(), CompileSource::Compiled);
    let began = Instant::now();
    assert_eq!(compile(&cache, 6).await, CompileSource::Compiled);
    assert!(began.elapsed() < BUDGET + SLACK);
    assert!(cache.layered_metrics().unshared_compiles >= 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grants_leases_and_wakes_those_who_wait() {
    let Some(cluster) = tokio::task::spawn_blocking(Cluster::start).await.unwrap() else {
        return;
    };
    let caches: Vec<_> = (0..3).map(|_| machine(granting(&cluster.url()))).collect();
    compile_once_each(&caches, 60).await;
    for cache in caches {
        cache.close(Duration::from_secs(30)).await;
    }
}
