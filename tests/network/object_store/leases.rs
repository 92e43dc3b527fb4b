//! Compile leases of object stores that honour conditional puts, and none of those that do not.

use super::seaweed::{builder as on_seaweed, open};
use crate::support::captured_trace::{capture, captured};
use crate::support::fleet::compile_everywhere;
use crate::support::scripted_http::{ScriptedServer, answer};
use crate::support::seaweed::{Single, TURN};
use futures::TryStreamExt as _;
use futures::future::join_all;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use pipeline_cache::{
    Artifact, CompileLease, CompileLeases as _, CompileSource, InMemoryPipelineCache,
    LayeredPipelineCache, ObjectStoreCache, PipelineCacheStore as _, PipelineFingerprint,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longer than any test waits for anything.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(300);
/// The default of a request, and what a loaded machine may add to it.
const BUDGET: Duration = Duration::from_millis(250);
const SLACK: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What belongs under a key, and under no other.
fn artifact(number: u64) -> Artifact {
    Artifact::new(format!("artifact {number}").repeat(50))
}

fn granting(store: &Arc<dyn ObjectStore>, time: Duration) -> ObjectStoreCache {
    let builder = ObjectStoreCache::builder().writes().compile_leases(time);
    builder.build_on(Arc::clone(store), "artifacts")
}

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// The layers of one machine of a fleet. However busy it is, it waits for the store.
fn machine(cache: ObjectStoreCache) -> LayeredPipelineCache {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(cache)
        .max_compile_wait(FOR_EVER)
        .network_budget(FOR_EVER)
        .build()
}

async fn compile(cache: &LayeredPipelineCache, number: u64) -> CompileSource {
    let compile = move || async move { Ok::<_, Infallible>(artifact(number)) };
    let key = key(number);
    let compiled = cache.get_or_insert_with(&key, compile);
    let compiled = compiled.await.unwrap();
    assert_eq!(compiled.artifact, artifact(number));
    compiled.source
}

async fn lease(cache: &ObjectStoreCache, number: u64) -> CompileLease {
    let key = key(number);
    let lease = timeout(FOR_EVER, cache.compile_lease(&key)).await;
    lease.expect("nobody holds it for ever").unwrap().unwrap()
}

fn lease_path(number: u64) -> Path {
    Path::from(format!("artifacts/leases/{}", key(number)))
}

async fn leases(store: &dyn ObjectStore) -> usize {
    let folder = Path::from("artifacts/leases");
    let objects: Vec<_> = store.list(Some(&folder)).try_collect().await.unwrap();
    objects.len()
}

async fn compile_once_each(caches: &[LayeredPipelineCache], keys: u64) {
    let compiles = compile_everywhere(caches, keys, key, artifact).await;
    assert_eq!(compiles, keys);
    let mut followed = 0;
    for cache in caches {
        cache.close(LONG).await;
        let metrics = cache.layered_metrics();
        assert_eq!(metrics.unshared_compiles, 0);
        assert_eq!(metrics.tiers[1].store.expired_leases, 0);
        followed += metrics.tiers[1].leases_followed;
    }
    assert!(followed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_are_all_cold_compile_once_what_they_share() {
    let folder = tempfile::tempdir().unwrap();
    let on_a_folder = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    for store in [in_memory(), Arc::new(on_a_folder)] {
        let caches: Vec<_> = (0..4).map(|_| machine(granting(&store, LONG))).collect();
        compile_once_each(&caches, 60).await;
        // What was released is deleted.
        assert_eq!(leases(&*store).await, 0, "{store}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_on_s3_compile_once_what_they_share() {
    let _turn = TURN.lock().await;
    let Some(mut server) = tokio::task::spawn_blocking(Single::start).await.unwrap() else {
        return;
    };
    let endpoint = server.endpoint();
    let granting = |time| open(on_seaweed(&endpoint).compile_leases(time), "team");
    // The first write makes the volumes of the server, which may take long.
    let first = granting(LONG);
    let takes_writes = timeout(LONG, async {
        while first.put(&key(1000), artifact(1000)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    takes_writes.await.unwrap();
    let caches: Vec<_> = (0..3).map(|_| machine(granting(LONG))).collect();
    compile_once_each(&caches, 30).await;

    // A lease is renewed, and taken over by one of many when its holder is gone.
    let holder = granting(Duration::from_millis(600));
    let held = lease(&holder, 100).await;
    let other = granting(LONG);
    let waited = timeout(Duration::from_secs(2), other.compile_lease(&key(100))).await;
    assert!(waited.is_err());
    assert_eq!(holder.metrics().expired_leases, 0);
    drop(held);
    holder.close(LONG).await.unwrap();
    drop(lease(&other, 100).await);
    other.close(LONG).await.unwrap();

    // A store that is gone costs a compile its network budget, and grants leases once it is back.
    server.kill();
    let cache = LayeredPipelineCache::builder()
        .tier(granting(LONG))
        .network_budget(BUDGET)
        .build();
    let began = Instant::now();
    assert_eq!(compile(&cache, 200).await, CompileSource::Compiled);
    assert!(began.elapsed() < BUDGET + SLACK);
    tokio::task::block_in_place(|| server.restart());
    let again = timeout(LONG, async {
        let cache = granting(LONG);
        while cache.compile_lease(&key(201)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    again.await.unwrap();
}

/// A lease that nobody renews, as a process that was killed leaves it.
async fn abandoned(store: &dyn ObjectStore, number: u64, time: Duration) {
    let object = format!("gone {} 0", time.as_millis());
    let payload = PutPayload::from(object);
    store.put(&lease_path(number), payload).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_is_gone_loses_its_lease_after_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let on_a_folder = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    for store in [in_memory(), Arc::new(on_a_folder)] {
        abandoned(&*store, 1, 60 * SECOND).await;
        let began = Instant::now();
        let caches = [(); 2].map(|()| granting(&store, 10 * SECOND));
        let waiting = caches.each_ref().map(|cache| {
            let cache = cache.clone();
            tokio::spawn(async move { (lease(&cache, 1).await, Instant::now()) })
        });
        let [one, other] = waiting;
        let first = tokio::select! {
            first = one => first,
            first = other => first,
        };
        let (lease, at) = first.unwrap();
        let took = at - began;
        assert!(
            (60 * SECOND..64 * SECOND).contains(&took),
            "{store}: {took:?}"
        );
        drop(lease);
        for cache in caches {
            cache.close(LONG).await.unwrap();
        }
    }
}

/// The clock of the waiter alone counts, and that from the last change that it has seen.
#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_as_long_as_it_is_held() {
    let store = in_memory();
    let (one, other) = (granting(&store, 10 * SECOND), granting(&store, 10 * SECOND));
    let held = lease(&one, 1).await;
    let waiting = {
        let other = other.clone();
        tokio::spawn(async move { lease(&other, 1).await.is_stored() })
    };
    tokio::time::sleep(600 * SECOND).await;
    assert!(!waiting.is_finished());
    one.put(&key(1), artifact(1)).await.unwrap();
    drop(held);
    assert!(waiting.await.unwrap());
    one.close(LONG).await.unwrap();
    assert_eq!(leases(&*store).await, 0);
    assert_eq!(one.metrics().expired_leases, 0);
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_was_taken_over_notices_and_ends_no_other() {
    let store = in_memory();
    let one = granting(&store, 10 * SECOND);
    let held = lease(&one, 1).await;
    store
        .put(&lease_path(1), PutPayload::from("another 10000 0"))
        .await
        .unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(one.metrics().expired_leases, 1);
    one.put(&key(1), artifact(1)).await.unwrap();
    drop(held);
    one.close(LONG).await.unwrap();
    assert_eq!(leases(&*store).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_no_lease_is_replaced_after_a_time() {
    for object in [&b""[..], b"\xff\xfe", b"a lease", &[b'x'; 100_000]] {
        let store = in_memory();
        let payload = PutPayload::from(object.to_vec());
        store.put(&lease_path(1), payload).await.unwrap();
        let cache = granting(&store, 10 * SECOND);
        let began = Instant::now();
        drop(lease(&cache, 1).await);
        assert!(began.elapsed() < 15 * SECOND);
        cache.close(LONG).await.unwrap();
        assert_eq!(leases(&*store).await, 0);
    }
}

#[tokio::test]
async fn what_was_stored_meanwhile_needs_no_lease() {
    let store = in_memory();
    let cache = granting(&store, LONG);
    cache.put(&key(1), artifact(1)).await.unwrap();
    assert!(lease(&cache, 1).await.is_stored());
    assert_eq!(leases(&*store).await, 0);
}

/// They need not hold the lease one after the other to learn it.
#[tokio::test(start_paused = true)]
async fn all_who_wait_learn_soon_that_the_artifact_is_stored() {
    let call = Duration::from_millis(50);
    let slow = ThrottleConfig {
        wait_put_per_call: call,
        wait_get_per_call: call,
        wait_delete_per_call: call,
        ..ThrottleConfig::default()
    };
    let store: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(InMemory::new(), slow));
    let holder = granting(&store, LONG);
    let held = lease(&holder, 1).await;
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let cache = granting(&store, LONG);
            tokio::spawn(async move { lease(&cache, 1).await.is_stored() })
        })
        .collect();
    tokio::time::sleep(30 * SECOND).await;
    holder.put(&key(1), artifact(1)).await.unwrap();
    drop(held);
    let began = Instant::now();
    for is_stored in join_all(waiting).await {
        assert!(is_stored.unwrap());
    }
    let took = began.elapsed();
    assert!(took < 4 * SECOND, "{took:?}");
    assert_eq!(leases(&*store).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_compile_leaves_the_key_to_the_next() {
    let store = in_memory();
    let caches = [(); 2].map(|()| machine(granting(&store, LONG)));
    let fails = || async { Err::<Artifact, _>("no such instruction") };
    let failed = caches[0].get_or_insert_with(&key(1), fails).await;
    failed.unwrap_err();
    assert_eq!(compile(&caches[1], 1).await, CompileSource::Compiled);
}

/// One that stores what is there already, and one that says that it knows no conditions.
#[tokio::test]
async fn a_store_without_conditional_puts_grants_none_and_it_is_said() {
    for (status, requests) in [("200 OK", 2), ("501 Not Implemented", 1)] {
        let server = ScriptedServer::start(move |request| {
            let is_lease = request.path.contains("/leases/");
            match (request.method.as_str(), is_lease) {
                ("PUT", true) => answer(&format!("{status}\r\nETag: \"1\""), b""),
                ("PUT", false) => answer("200 OK\r\nETag: \"1\"", b""),
                ("DELETE", _) => answer("204 No Content", b""),
                _ => answer("404 Not Found", b""),
            }
        });
        let cache = open(on_seaweed(&server.url()).compile_leases(LONG), "team");
        let layered = machine(cache.clone());
        capture();
        for number in 0..20 {
            assert_eq!(compile(&layered, number).await, CompileSource::Compiled);
        }
        let said = captured();
        let said = said.matches("does not honour conditional puts").count();
        assert_eq!(said, 1, "{status}");
        let asked = server.requests();
        let asked = asked
            .iter()
            .filter(|request| request.path.contains("/leases/"));
        assert_eq!(asked.count(), requests, "{status}");
        assert_eq!(layered.layered_metrics().unshared_compiles, 0);
        assert!(cache.compile_lease(&key(1)).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn leases_are_an_option_and_need_writes() {
    let store = in_memory();
    let plain = ObjectStoreCache::builder().writes();
    let plain = plain.build_on(Arc::clone(&store), "artifacts");
    assert!(plain.compile_leases().is_none());
    let reading = ObjectStoreCache::builder().compile_leases(LONG);
    let reading = reading.build_on(Arc::clone(&store), "artifacts");
    assert!(reading.compile_leases().is_none());
    let closed = granting(&store, LONG);
    closed.close(LONG).await.unwrap();
    assert!(closed.compile_lease(&key(1)).await.unwrap().is_none());
}
