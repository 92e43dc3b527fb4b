//! Compile leases: one client at a time compiles a key, and none waits for ever for another.

use super::support::{
    CacheServer, KEY, OTHER, READER, WRITER, builder, client, frame, path, remote,
};
use futures::future::join_all;
use pipeline_cache::network::{BreakerState, RetryPolicy};
use pipeline_cache::{
    Artifact, CompileLease, CompileLeases as _, CompileSource, InMemoryPipelineCache,
    LayeredPipelineCache, PipelineCacheStore as _, PipelineFingerprint, RemoteCache,
    RemoteCacheBuilder, StoreErrorKind,
};
use reqwest::{Method, StatusCode};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than any test waits for anything.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(300);
const SHORT: Duration = Duration::from_millis(600);
/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(5);

fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What belongs under a key, and under no other.
fn artifact(number: u64) -> Artifact {
    Artifact::new(format!("artifact {number}").repeat(50))
}

/// With the retries of the default.
fn writing() -> RemoteCacheBuilder {
    builder(WRITER).retry(RetryPolicy::default())
}

fn granting(server: &CacheServer, time: Duration) -> RemoteCache {
    let builder = writing().compile_leases(time);
    builder.build(server.url("/artifacts")).unwrap()
}

/// The layers of one machine of a fleet. However busy it is, it waits for the server.
fn machine(remote: RemoteCache) -> LayeredPipelineCache {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(remote)
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

async fn lease(cache: &RemoteCache, number: u64) -> CompileLease {
    let key = key(number);
    let lease = tokio::time::timeout(Duration::from_secs(60), cache.compile_lease(&key));
    let lease = lease.await.expect("nobody holds it for ever").unwrap();
    lease.expect("the tier is open")
}

/// Waits until it holds; there is no other way to be told.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The status and the text of the answer to a request about a lease.
async fn ask(
    server: &CacheServer,
    method: Method,
    key: &PipelineFingerprint,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let url = server.url(&format!("/artifacts/leases/{key}"));
    let mut request = client().request(method, url).bearer_auth(WRITER);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.text().await.unwrap())
}

async fn acquire(server: &CacheServer, key: &PipelineFingerprint, token: &str) -> (u16, String) {
    let headers = [("Lease-Token", token), ("Lease-Time-Ms", "300000")];
    ask(server, Method::POST, key, &headers).await
}

async fn release(server: &CacheServer, key: &PipelineFingerprint, token: &str) -> u16 {
    let headers = [("Lease-Token", token)];
    ask(server, Method::DELETE, key, &headers).await.0
}

async fn compile_once_each(server: &CacheServer, caches: &[LayeredPipelineCache], keys: u64) {
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
    assert_eq!(compiles.load(Ordering::Relaxed), keys);
    let count = |of: fn(&pipeline_cache::layered::TierMetrics) -> u64| {
        let metrics = caches.iter().map(LayeredPipelineCache::layered_metrics);
        metrics.map(|metrics| of(&metrics.tiers[1])).sum::<u64>()
    };
    assert_eq!(count(|tier| tier.leases_granted), keys);
    assert_eq!(count(|tier| tier.leases_timed_out), 0);
    assert_eq!(count(|tier| tier.store.expired_leases), 0);
    assert!(count(|tier| tier.leases_followed) > 0);
    for cache in caches {
        assert_eq!(cache.layered_metrics().unshared_compiles, 0);
        cache.close(Duration::from_secs(30)).await;
    }
    // What ended, the server knows of.
    server
        .wait_for("cache_server_leases ", |held| held == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_are_all_cold_compile_once_what_they_share() {
    let server = CacheServer::start(&[]);
    let caches: Vec<_> = (0..4).map(|_| machine(granting(&server, LONG))).collect();
    compile_once_each(&server, &caches, 80).await;
    assert_eq!(
        server
            .metric("cache_server_leases_total{outcome=\"expired\"}")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_granted_over_http_2() {
    let server = CacheServer::start(&[]);
    let caches: Vec<_> = (0..3)
        .map(|_| {
            let builder = writing().http2_prior_knowledge().compile_leases(LONG);
            machine(builder.build(server.url("/artifacts")).unwrap())
        })
        .collect();
    compile_once_each(&server, &caches, 40).await;
}

/// Nobody who waits is told by asking alone: that would take an eighth of the time waited.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_are_woken() {
    const WAITERS: u64 = 16;
    let server = CacheServer::start(&[]);
    let (holder, waiter) = (granting(&server, LONG), granting(&server, LONG));
    let mut held = Vec::new();
    for number in 0..WAITERS {
        held.push(lease(&holder, number).await);
    }
    let began = Instant::now();
    let waiting: Vec<_> = (0..WAITERS)
        .map(|number| {
            let waiter = waiter.clone();
            tokio::spawn(async move { (lease(&waiter, number).await, Instant::now()) })
        })
        .collect();
    server
        .wait_for("cache_server_lease_waits ", |waits| waits == WAITERS)
        .await;
    // The requests that wait are repeated meanwhile.
    tokio::time::sleep_until((began + Duration::from_secs(6)).into()).await;
    server
        .wait_for("cache_server_lease_waits ", |waits| waits == WAITERS)
        .await;
    let mut late = Vec::new();
    for ((number, lease), waiting) in (0..).zip(held).zip(waiting) {
        let ended = Instant::now();
        if number % 2 == 0 {
            holder.put(&key(number), artifact(number)).await.unwrap();
        } else {
            drop(lease);
        }
        let (lease, woken) = waiting.await.unwrap();
        late.push(woken - ended);
        assert_eq!(lease.is_stored(), number % 2 == 0);
    }
    late.sort_unstable();
    let median = late[late.len() / 2];
    assert!(median < Duration::from_millis(300), "{late:?}");
    assert_eq!(waiter.metrics().awaited_compiles, WAITERS);
    server
        .wait_for("cache_server_lease_waits ", |waits| waits == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_as_long_as_it_is_held() {
    let server = CacheServer::start(&[]);
    let time = Duration::from_secs(2);
    let (one, other) = (granting(&server, time), granting(&server, LONG));
    let held = lease(&one, 1).await;
    let waited = tokio::time::timeout(3 * time, other.compile_lease(&key(1))).await;
    assert!(waited.is_err());
    one.put(&key(1), artifact(1)).await.unwrap();
    assert!(lease(&other, 1).await.is_stored());
    drop(held);
    one.close(LONG).await.unwrap();
    assert_eq!(server.metric("cache_server_leases ").await, 0);
    assert_eq!(one.metrics().expired_leases, 0);
}

/// One that is killed renews nothing, and one that is stopped renews too late.
#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_gone_loses_its_lease() {
    let server = CacheServer::start(&[]);
    let headers = [("Lease-Token", "gone"), ("Lease-Time-Ms", "700")];
    let began = Instant::now();
    let granted = ask(&server, Method::POST, &key(1), &headers).await;
    assert_eq!(granted, (201, "granted\n".to_owned()));
    let cache = machine(granting(&server, LONG));
    assert_eq!(compile(&cache, 1).await, CompileSource::Compiled);
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert!(began.elapsed() < Duration::from_millis(700) + SLACK);
    cache.flush().await.unwrap();
    let metrics = cache.layered_metrics();
    assert_eq!(
        (metrics.tiers[1].leases_granted, metrics.unshared_compiles),
        (1, 0)
    );
    // It goes on: its release ends no other's lease, and its renewal finds the artifact.
    let other = granting(&server, LONG);
    let held = lease(&other, 2).await;
    assert_eq!(release(&server, &key(2), "gone").await, 404);
    let late = ask(&server, Method::POST, &key(1), &headers).await;
    assert_eq!(late, (200, "stored\n".to_owned()));
    assert_eq!(acquire(&server, &key(2), "gone").await.1, "held\n");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_too_late_counts_it_and_stores_the_same() {
    let server = CacheServer::start(&[]);
    let first = granting(&server, SHORT);
    let held = lease(&first, 1).await;
    // The server takes no renewal for longer than the lease lives.
    signal(&server, "STOP");
    eventually("it has noticed", || first.metrics().expired_leases == 1).await;
    signal(&server, "CONT");
    let second = machine(granting(&server, LONG));
    assert_eq!(compile(&second, 1).await, CompileSource::Compiled);
    second.flush().await.unwrap();
    first.put(&key(1), artifact(1)).await.unwrap();
    drop(held);
    first.close(LONG).await.unwrap();
    assert_eq!(second.layered_metrics().unshared_compiles, 0);
}

fn signal(server: &CacheServer, signal: &str) {
    let pid = server.pid().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", signal, &pid])
        .status();
    assert!(sent.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_compile_leaves_the_key_to_the_next() {
    let server = CacheServer::start(&[]);
    let caches = [(); 2].map(|()| machine(granting(&server, LONG)));
    let fails = || async { Err::<Artifact, _>("no such instruction") };
    let failed = caches[0].get_or_insert_with(&key(1), fails).await;
    failed.unwrap_err();
    assert_eq!(compile(&caches[1], 1).await, CompileSource::Compiled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_the_time_that_the_caller_has() {
    let server = CacheServer::start(&[]);
    assert_eq!(acquire(&server, &key(1), "slow").await.0, 201);
    let cache = LayeredPipelineCache::builder()
        .tier(granting(&server, LONG))
        .max_compile_wait(SHORT)
        .network_budget(FOR_EVER)
        .build();
    let began = Instant::now();
    assert_eq!(compile(&cache, 1).await, CompileSource::Compiled);
    let took = began.elapsed();
    assert!((SHORT..SHORT + SLACK).contains(&took), "{took:?}");
    let metrics = cache.layered_metrics();
    assert_eq!(metrics.tiers[0].leases_timed_out, 1);
    assert_eq!(metrics.unshared_compiles, 1);
    // Both store the same.
    assert_eq!(
        server
            .put(&path(&KEY), frame(&KEY, artifact(1)).await)
            .await,
        201
    );
    cache.flush().await.unwrap();
    server
        .wait_for("cache_server_lease_waits ", |waits| waits == 0)
        .await;
}

/// The holder has its lease again with its next renewal, unless another was faster.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_again_costs_a_second_compile_at_most() {
    let mut server = CacheServer::start(&[]);
    let holder = granting(&server, Duration::from_secs(30));
    let held = lease(&holder, 1).await;
    let remote = granting(&server, LONG);
    let cache = machine(remote.clone());
    let waiting = {
        let cache = cache.clone();
        tokio::spawn(async move { compile(&cache, 1).await })
    };
    server
        .wait_for("cache_server_lease_waits ", |waits| waits == 1)
        .await;
    server.restart();
    // The lease is lost: it is granted to the other. Or the server was not back in time.
    assert_eq!(waiting.await.unwrap(), CompileSource::Compiled);
    holder.put(&key(1), artifact(1)).await.unwrap();
    drop(held);
    holder.close(LONG).await.unwrap();
    cache.flush().await.unwrap();
    assert_eq!(remote.get(&key(1)).await.unwrap(), Some(artifact(1)));

    let renewing = granting(&server, Duration::from_secs(9));
    let held = lease(&renewing, 2).await;
    server.restart();
    server
        .wait_for("cache_server_leases ", |leases| leases == 1)
        .await;
    assert_eq!(acquire(&server, &key(2), "other").await.1, "held\n");
    drop(held);
    renewing.close(LONG).await.unwrap();
    assert_eq!(renewing.metrics().expired_leases, 0);
    assert_eq!(acquire(&server, &key(2), "other").await.1, "granted\n");
}

/// The requests that wait hold no permit, neither of the client nor of the server.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_wait_keep_nobody_out() {
    let server = CacheServer::start(&["--max-requests", "1"]);
    for number in 0..8 {
        assert_eq!(acquire(&server, &key(number), "slow").await.0, 201);
    }
    let builder = writing().compile_leases(LONG).max_concurrent_requests(1);
    let remote = builder.build(server.url("/artifacts")).unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|number| {
            let remote = remote.clone();
            tokio::spawn(async move { lease(&remote, number).await.is_stored() })
        })
        .collect();
    server
        .wait_for("cache_server_lease_waits ", |waits| waits == 8)
        .await;
    remote.put(&OTHER, artifact(9)).await.unwrap();
    assert_eq!(remote.get(&OTHER).await.unwrap(), Some(artifact(9)));
    for number in 0..8 {
        assert_eq!(release(&server, &key(number), "slow").await, 204);
    }
    for waiting in waiting {
        assert!(!waiting.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leases_and_the_requests_that_wait_are_bounded() {
    let server = CacheServer::start(&["--max-leases", "2", "--max-lease-waits", "1"]);
    let remote = granting(&server, LONG);
    let held = [lease(&remote, 1).await, lease(&remote, 2).await];
    let refused = remote.compile_lease(&key(3)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::StorageFull);
    assert_eq!(acquire(&server, &key(3), "other").await.0, 507);
    // One of them waits at the server, and the other asks now and then.
    let others = [1, 2].map(|number| {
        let other = granting(&server, LONG);
        tokio::spawn(async move { lease(&other, number).await.is_stored() })
    });
    server
        .wait_for("cache_server_lease_waits ", |waits| waits == 1)
        .await;
    let wait = [("Lease-Wait-Ms", "60000")];
    assert_eq!(ask(&server, Method::POST, &key(1), &wait).await.0, 503);
    drop(held);
    for other in others {
        assert!(!other.await.unwrap());
    }
    assert_eq!(remote.breaker_state(), BreakerState::Closed);
    assert_eq!(
        server
            .metric("cache_server_leases_total{outcome=\"refused\"}")
            .await,
        2
    );
}

/// A full table takes new leases once the time of old ones is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_time_is_over_makes_room() {
    let server = CacheServer::start(&["--max-leases", "1"]);
    let headers = [("Lease-Token", "gone"), ("Lease-Time-Ms", "100")];
    assert_eq!(ask(&server, Method::POST, &key(1), &headers).await.0, 201);
    let began = Instant::now();
    while acquire(&server, &key(2), "next").await.0 != 201 {
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_gets_no_lease() {
    let server = CacheServer::start(&[]);
    let url = server.url(&format!("/artifacts/leases/{KEY}"));
    for (token, status) in [(Some(READER), 403), (None, 401)] {
        for header in ["Lease-Time-Ms", "Lease-Wait-Ms"] {
            let mut request = client().post(&url).header("Lease-Token", "x");
            request = request.header(header, "1000");
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            assert_eq!(request.send().await.unwrap().status(), status);
        }
    }
    let reading = builder(READER).compile_leases(LONG);
    let reading = reading.build(server.url("/artifacts")).unwrap();
    let refused = reading.compile_lease(&KEY).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    // Without writes there is nothing to lease.
    let reader = RemoteCache::builder().no_proxy().compile_leases(LONG);
    let reader = reader.build(server.url("/artifacts")).unwrap();
    assert!(reader.compile_leases().is_none());
    assert!(remote(&server, WRITER).compile_leases().is_none());
}

#[tokio::test]
async fn a_wait_says_what_it_came_to() {
    let server = CacheServer::start(&[]);
    let wait = |millis: &'static str| {
        let server = &server;
        async move { ask(server, Method::POST, &KEY, &[("Lease-Wait-Ms", millis)]).await }
    };
    assert_eq!(wait("60000").await, (200, "free\n".to_owned()));
    assert_eq!(acquire(&server, &KEY, "a").await.0, 201);
    assert_eq!(acquire(&server, &KEY, "a").await.1, "granted\n");
    assert_eq!(
        acquire(&server, &KEY, "b").await,
        (202, "held\n".to_owned())
    );
    let began = Instant::now();
    assert_eq!(wait("300").await, (202, "held\n".to_owned()));
    assert!(began.elapsed() >= Duration::from_millis(300));
    let stored = async {
        server
            .wait_for("cache_server_lease_waits ", |waits| waits == 1)
            .await;
        let frame = frame(&KEY, artifact(1)).await;
        assert_eq!(server.put(&path(&KEY), frame).await, StatusCode::CREATED);
    };
    let (waited, ()) = futures::join!(wait("30000"), stored);
    assert_eq!(waited, (200, "stored\n".to_owned()));
    assert_eq!(acquire(&server, &KEY, "b").await.1, "stored\n");
    assert_eq!(release(&server, &KEY, "b").await, 404);
    assert_eq!(release(&server, &KEY, "a").await, 204);
}

/// Its reader has other settings, such as another secret, and compiles.
#[tokio::test]
async fn an_entry_that_its_reader_cannot_use_keeps_nobody_from_a_lease() {
    let server = CacheServer::start(&[]);
    let frame = || frame(&KEY, artifact(1));
    assert_eq!(
        server.put(&path(&KEY), frame().await).await,
        StatusCode::CREATED
    );
    let asks = async |headers: &[(&str, &str)]| {
        let headers = [headers, &[("Lease-Ignores-Entry", "1")]].concat();
        ask(&server, Method::POST, &KEY, &headers).await.1
    };
    let acquires = async |token| asks(&[("Lease-Token", token), ("Lease-Time-Ms", "300000")]).await;
    assert_eq!(acquire(&server, &KEY, "a").await.1, "stored\n");
    assert_eq!(acquires("a").await, "granted\n");
    assert_eq!(acquires("b").await, "held\n");
    assert_eq!(asks(&[("Lease-Wait-Ms", "1")]).await, "held\n");
    let stored = async {
        server
            .wait_for("cache_server_lease_waits ", |waits| waits == 1)
            .await;
        server.put(&path(&KEY), frame().await).await
    };
    let (waited, _) = futures::join!(asks(&[("Lease-Wait-Ms", "30000")]), stored);
    assert_eq!(waited, "stored\n");
}

#[tokio::test]
async fn a_request_that_is_wrong_gets_no_lease_and_an_error() {
    let server = CacheServer::start(&[]);
    let long = "x".repeat(65);
    for headers in [
        &[][..],
        &[("Lease-Token", "a")],
        &[("Lease-Time-Ms", "1000")],
        &[("Lease-Token", ""), ("Lease-Time-Ms", "1000")],
        &[("Lease-Token", &long), ("Lease-Time-Ms", "1000")],
        &[("Lease-Token", "a"), ("Lease-Time-Ms", "99")],
        &[("Lease-Token", "a"), ("Lease-Time-Ms", "600001")],
        &[("Lease-Token", "a"), ("Lease-Time-Ms", "-1")],
        &[("Lease-Token", "a"), ("Lease-Time-Ms", "1e3")],
        &[("Lease-Wait-Ms", "soon")],
    ] {
        let answer = ask(&server, Method::POST, &KEY, headers).await;
        assert_eq!(answer.0, 400, "{headers:?}: {answer:?}");
        assert!(answer.1.contains("Lease-Token"), "{answer:?}");
    }
    assert_eq!(ask(&server, Method::GET, &KEY, &[]).await.0, 405);
    for path in [
        "",
        "x",
        &format!("{KEY}.bin"),
        &KEY.to_string().to_uppercase(),
    ] {
        let url = server.url(&format!("/artifacts/leases/{path}"));
        let post = client().post(url).bearer_auth(WRITER);
        assert_eq!(post.send().await.unwrap().status(), 400, "{path}");
    }
    assert_eq!(server.metric("cache_server_leases ").await, 0);
}

#[tokio::test]
async fn a_server_that_stops_sends_those_who_wait_away() {
    let mut server = CacheServer::start(&["--drain", "60"]);
    assert_eq!(acquire(&server, &KEY, "a").await.0, 201);
    let stop = async {
        server
            .wait_for("cache_server_lease_waits ", |waits| waits == 1)
            .await;
        server.terminate();
    };
    let wait = ask(&server, Method::POST, &KEY, &[("Lease-Wait-Ms", "30000")]);
    let began = Instant::now();
    let ((status, _), ()) = futures::join!(wait, stop);
    assert_eq!(status, 503);
    assert!(began.elapsed() < Duration::from_secs(25));
    assert!(server.wait().success());
    let said = server.said();
    assert!(said.contains("/artifacts/leases/"), "{said}");
    assert!(!said.to_lowercase().contains("lease-token"), "{said}");
}
