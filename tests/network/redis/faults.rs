//! The bad days of a server: what a call costs, and that a refused write costs no read.

use super::{SLACK, artifact, impatient, key, writing};
use crate::support::redis::{Redis, wait_until};
use pipeline_cache::network::{BreakerPolicy, BreakerState};
use pipeline_cache::{Fetched, PipelineCacheStore, RedisCache, StoreErrorKind};
use std::time::{Duration, Instant};

/// Looks up until the breaker is open. The kinds of the failures that opened it.
async fn open_breaker(cache: &RedisCache) -> Vec<StoreErrorKind> {
    let mut kinds = Vec::new();
    for number in 0..10 {
        if cache.breaker_state() != BreakerState::Closed {
            return kinds;
        }
        let began = Instant::now();
        kinds.push(cache.get(&key(number)).await.unwrap_err().kind());
        assert!(began.elapsed() < Duration::from_secs(1) + SLACK);
    }
    panic!("the breaker stays closed: {kinds:?}");
}

/// Waits until the breaker is closed.
async fn wait_until_well(cache: &RedisCache) {
    let mut breaker = cache.watch_breaker();
    let closed = breaker.wait_for(|state| *state == BreakerState::Closed);
    let closed = tokio::time::timeout(Duration::from_secs(30), closed).await;
    closed.expect("a probe closes the breaker").unwrap();
}

async fn assert_nothing_is_asked(cache: &RedisCache) {
    let began = Instant::now();
    for number in 0..100 {
        let error = cache.get(&key(number)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::BreakerOpen);
    }
    assert!(began.elapsed() < SLACK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_opens_the_breaker_and_is_found_again() {
    let Some(mut server) = Redis::start("") else {
        return;
    };
    let cache = impatient().build(server.url()).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    server.kill();
    let kinds = open_breaker(&cache).await;
    assert!(
        kinds
            .iter()
            .all(|kind| *kind == StoreErrorKind::Unreachable),
        "{kinds:?}"
    );
    assert_nothing_is_asked(&cache).await;
    server.restart();
    wait_until_well(&cache).await;
    assert_eq!(cache.fetch(&key(0)).await.unwrap(), Fetched::Miss);
    cache.put(&key(0), artifact(0)).await.unwrap();
    assert_eq!(cache.get(&key(0)).await.unwrap(), Some(artifact(0)));
}

/// The connections of a stopped server stay open, and nothing moves.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_a_deadline_until_the_breaker_is_open() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = impatient().build(server.url()).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    server.freeze();
    let kinds = open_breaker(&cache).await;
    assert!(
        kinds.iter().all(|kind| *kind == StoreErrorKind::TimedOut),
        "{kinds:?}"
    );
    assert_nothing_is_asked(&cache).await;
    server.thaw();
    wait_until_well(&cache).await;
    assert_eq!(cache.get(&key(0)).await.unwrap(), Some(artifact(0)));
}

/// As of a machine that is gone: another takes its address, and nobody closed the connection to the
/// first.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_not_answered_is_given_up() {
    let Some(hanging) = Redis::start("") else {
        return;
    };
    let link = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", link.local_addr().unwrap());
    let other = Redis::start("").unwrap();
    let ports = [hanging.port, other.port];
    tokio::spawn(async move {
        // The first connection goes to the one server, all others to the other.
        for number in 0.. {
            let (mut client, _) = link.accept().await.unwrap();
            let port = ports[usize::from(number > 0)];
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    let cache = impatient().build(url).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    hanging.freeze();
    // Its caller does not wait for the time limit.
    let short = tokio::time::timeout(Duration::from_millis(50), cache.get(&key(0))).await;
    assert!(short.is_err());
    let deadline = Instant::now() + Duration::from_secs(20);
    while !matches!(cache.fetch(&key(0)).await, Ok(Fetched::Miss)) {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(cache.metrics().connections_replaced, 1);
    hanging.thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_was_closed_costs_no_lookup() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = impatient().build(server.url()).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    for round in 1..20 {
        server.command(&["client", "kill", "type", "normal"]);
        assert_eq!(
            cache.get(&key(0)).await.unwrap(),
            Some(artifact(0)),
            "{round}"
        );
    }
    assert_eq!(cache.metrics().errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_memory_refuses_writes_and_serves_reads() {
    let Some(server) = Redis::start("--maxmemory-policy noeviction") else {
        return;
    };
    let cache = impatient().build(server.url()).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    server.command(&["config", "set", "maxmemory", "1"]);
    let refused = cache.put(&key(1), artifact(1)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::StorageFull);
    for number in 2..10 {
        cache.put(&key(number), artifact(number)).await.unwrap_err();
    }
    assert_ne!(cache.write_breaker_state(), BreakerState::Closed);
    assert_eq!(cache.breaker_state(), BreakerState::Closed);
    assert_eq!(cache.get(&key(0)).await.unwrap(), Some(artifact(0)));
    server.command(&["config", "set", "maxmemory", "0"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while cache.put(&key(1), artifact(1)).await.is_err() {
        assert!(
            Instant::now() < deadline,
            "the write breaker lets a probe through"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_refuses_writes_and_serves_reads() {
    let Some(master) = Redis::start("") else {
        return;
    };
    let replica = Redis::start(&format!("--replicaof 127.0.0.1 {}", master.port)).unwrap();
    let on_master = writing().build(master.url()).unwrap();
    on_master.put(&key(0), artifact(0)).await.unwrap();
    wait_until("the replica", || replica.command(&["dbsize"]) == "1");
    let cache = impatient().build(replica.url()).unwrap();
    for number in 0..10 {
        let refused = cache.put(&key(number), artifact(number)).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::ReadOnly);
        assert_eq!(cache.get(&key(0)).await.unwrap(), Some(artifact(0)));
    }
    // It asks again each time, so that a replica which becomes the master is found.
    replica.command(&["replicaof", "no", "one"]);
    cache.put(&key(1), artifact(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loads_is_unavailable_until_it_has_loaded() {
    let Some(mut server) =
        Redis::start("--key-load-delay 1000 --loading-process-events-interval-bytes 1024")
    else {
        return;
    };
    let cache = impatient().build(server.url()).unwrap();
    for number in 0..4000 {
        cache.put(&key(number), artifact(number)).await.unwrap();
    }
    assert_eq!(server.command(&["save"]), "OK");
    server.restart();
    let error = cache.get(&key(0)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:#}");
    assert!(format!("{error:#}").contains("LOADING"));
    server.command(&["config", "set", "key-load-delay", "0"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while cache.get(&key(0)).await.ok().flatten() != Some(artifact(0)) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The connection of the first runtime is of no use to the second.
#[test]
fn a_tier_whose_runtime_is_gone_works_on_that_of_its_caller() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = impatient().build(server.url()).unwrap();
    for round in 0..20 {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            cache.put(&key(round), artifact(round)).await.unwrap();
            assert_eq!(cache.get(&key(round)).await.unwrap(), Some(artifact(round)));
        });
        runtime.shutdown_background();
    }
    assert_eq!(cache.metrics().errors, 0);
}

/// Whoever asks next opens one of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_waited_for_and_that_failed_is_not_the_answer_to_the_next() {
    let Some(server) = Redis::start("") else {
        return;
    };
    // The first connection hears nothing, and all others reach the server.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (port, (accepted, first)) = (server.port, tokio::sync::oneshot::channel());
    let (given_up, ended) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut silent, _) = listener.accept().await.unwrap();
        accepted.send(()).unwrap();
        tokio::io::copy(&mut silent, &mut tokio::io::sink())
            .await
            .unwrap();
        given_up.send(()).unwrap();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
            let mut server = server.unwrap();
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut client, &mut server).await },
            );
        }
    });
    let breaker = BreakerPolicy::default().min_calls(10_000);
    let builder = impatient().breaker(breaker).max_abandoned_requests(0);
    let builder = builder.connect_timeout(Duration::from_secs(2));
    let cache = builder.build(url).unwrap();
    let left = {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get(&key(0)).await })
    };
    first.await.unwrap();
    left.abort();
    ended.await.unwrap();
    // Its socket is closed a moment before its end is known.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(cache.fetch(&key(0)).await.unwrap(), Fetched::Miss);
}
