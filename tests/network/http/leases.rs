//! Compile leases and servers that grant none, or answer wrongly.

use crate::support::captured_trace::{capture, captured};
use crate::support::nginx::Nginx;
use crate::support::scripted_http::{Request, ScriptedServer, Step, answer, redirect};
use pipeline_cache::network::{BreakerState, RetryPolicy};
use pipeline_cache::{
    Artifact, CompileLeases as _, CompileSource, LayeredPipelineCache, PipelineCacheStore as _,
    PipelineFingerprint, RemoteCache, RemoteCacheBuilder, StoreErrorKind,
};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(60);
/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn key(number: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([number; 32])
}

fn granting() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .writes()
        .compile_leases(LEASE)
}

fn layered(remote: &RemoteCache) -> LayeredPipelineCache {
    LayeredPipelineCache::builder()
        .tier(remote.clone())
        .network_budget(PATIENCE)
        .build()
}

async fn compile(cache: &LayeredPipelineCache, number: u8) -> CompileSource {
    let compile = || async { Ok::<_, Infallible>(Artifact::new("compiled")) };
    let key = key(number);
    let compiled = cache.get_or_insert_with(&key, compile);
    compiled.await.unwrap().source
}

/// A server that has nothing, takes everything, and answers so to requests for leases.
fn server(leases: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> ScriptedServer {
    ScriptedServer::start(move |request| match request.method.as_str() {
        "GET" => answer("404 Not Found", b""),
        "PUT" => answer("201 Created", b""),
        _ => leases(request),
    })
}

fn posts(server: &ScriptedServer) -> usize {
    let requests = server.requests();
    let posts = requests.iter().filter(|request| request.method == "POST");
    posts.count()
}

#[tokio::test]
async fn a_server_without_leases_costs_one_request() {
    for status in ["400", "404", "405", "501", "403"] {
        let server = server(move |_| answer(status, b"<html>no</html>"));
        let remote = granting().build(server.url()).unwrap();
        let cache = layered(&remote);
        capture();
        for number in 0..20 {
            assert_eq!(compile(&cache, number).await, CompileSource::Compiled);
        }
        let trace = captured();
        assert_eq!(posts(&server), 1, "{status}");
        assert_eq!(trace.matches("grants no compile leases").count(), 1);
        assert!(remote.compile_lease(&key(1)).await.unwrap().is_none());
        let metrics = cache.layered_metrics();
        assert_eq!(
            (metrics.unshared_compiles, metrics.tiers[0].leases_granted),
            (0, 0)
        );
        cache.flush().await.unwrap();
        assert_eq!(remote.metrics().puts, 20);
        assert_eq!(remote.write_breaker_state(), BreakerState::Closed);
    }
}

/// With credentials it may be these that are rejected: that is an error, and passes.
#[tokio::test]
async fn rejected_credentials_are_an_error_and_cost_no_lookup_and_no_put() {
    let server = server(|_| answer("403 Forbidden", b""));
    let remote = granting()
        .bearer_token("a-token")
        .build(server.url())
        .unwrap();
    for number in 0..5 {
        let refused = remote.compile_lease(&key(number)).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
        assert_eq!(remote.get(&key(number)).await.unwrap(), None);
        remote.put(&key(number), Artifact::new("a")).await.unwrap();
    }
    assert_eq!(posts(&server), 1);
}

#[tokio::test]
async fn nginx_serves_artifacts_to_those_who_would_have_leases() {
    let locations = "location /cache/ { dav_methods PUT DELETE; create_full_put_path on; }";
    let Some(nginx) = Nginx::start(locations) else {
        return;
    };
    let machines = [(); 2].map(|()| {
        let remote = granting().build(nginx.url("/cache")).unwrap();
        layered(&remote)
    });
    for number in 0..10 {
        assert_eq!(compile(&machines[0], number).await, CompileSource::Compiled);
    }
    machines[0].flush().await.unwrap();
    for number in 0..10 {
        let source = compile(&machines[1], number).await;
        assert!(matches!(source, CompileSource::Cache(_)), "{source:?}");
    }
    assert_eq!(compile(&machines[1], 99).await, CompileSource::Compiled);
    machines[1].flush().await.unwrap();
    let log = nginx.access_log(10 + 10 + 1 + 10 + 1 + 1 + 1);
    let posts = log.iter().filter(|line| line.contains("POST"));
    // One of each machine.
    assert_eq!(posts.count(), 2, "{log:#?}");
    assert_eq!(machines[1].layered_metrics().unshared_compiles, 0);
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    for (status, body) in [
        ("200 OK", "<html>welcome</html>"),
        ("200 OK", ""),
        ("204 No Content", ""),
        ("200 OK", "granted"),
        ("201 Created", &"granted\n".repeat(100_000)),
        ("300 Multiple Choices", "granted\n"),
        ("302 Found", "granted\n"),
        ("418 I am a teapot", "granted\n"),
    ] {
        let body = body.to_owned();
        let server = server(move |_| answer(status, body.as_bytes()));
        let remote = granting().build(server.url()).unwrap();
        let failed = remote.compile_lease(&key(1)).await.unwrap_err();
        assert_eq!(failed.kind(), StoreErrorKind::Protocol, "{status}");
        let cache = layered(&remote);
        assert_eq!(compile(&cache, 2).await, CompileSource::Compiled);
        assert_eq!(cache.layered_metrics().unshared_compiles, 1);
        cache.flush().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_its_time_limit() {
    let server = server(|_| vec![Step::Hang]);
    let limit = Duration::from_millis(300);
    let once = granting().retry(RetryPolicy::default().attempts(1));
    let remote = once.inactivity_timeout(limit).build(server.url()).unwrap();
    let began = Instant::now();
    let failed = remote.compile_lease(&key(1)).await.unwrap_err();
    assert_eq!(failed.kind(), StoreErrorKind::TimedOut);
    assert!(began.elapsed() < PATIENCE);
    // A compile pays its network budget.
    let cache = LayeredPipelineCache::builder()
        .tier(granting().build(server.url()).unwrap())
        .network_budget(limit)
        .build();
    assert_eq!(compile(&cache, 2).await, CompileSource::Compiled);
    assert_eq!(cache.layered_metrics().tiers[0].leases_timed_out, 1);
}

fn waits(request: &Request) -> bool {
    request.header("lease-wait-ms").is_some()
}

/// A server that does not wait, or not as it should, is asked now and then.
#[tokio::test]
async fn a_wait_that_fails_at_the_server_is_no_busy_loop() {
    for (status, body) in [
        ("202 Accepted", "held\n"),
        ("200 OK", "free\n"),
        ("200 OK", "<html>"),
        ("503 Service Unavailable", ""),
        ("404 Not Found", ""),
    ] {
        let server = server(move |request| match waits(request) {
            true => answer(status, body.as_bytes()),
            false => answer("202 Accepted", b"held\n"),
        });
        let remote = granting().build(server.url()).unwrap();
        let waited = Duration::from_secs(1);
        let lease = tokio::time::timeout(waited, remote.compile_lease(&key(1))).await;
        assert!(lease.is_err(), "{status}: it is held");
        // After 20 ms at first, and ever more. Twice where the server says that it is free.
        let requests = server.requests().len();
        assert!(requests <= 70, "{status} {body}: {requests}");
        assert!(requests > 2);
    }
}

/// It is asked as long as it says that the lease is held, and gets it when that ends.
#[tokio::test]
async fn a_server_that_does_not_wait_grants_what_has_become_free() {
    let asked = AtomicUsize::new(0);
    let server =
        server(
            move |request| match waits(request) || asked.fetch_add(1, Ordering::Relaxed) < 5 {
                true => answer("202 Accepted", b"held\n"),
                false => answer("201 Created", b"granted\n"),
            },
        );
    let remote = granting().build(server.url()).unwrap();
    let key = key(1);
    let lease = tokio::time::timeout(PATIENCE, remote.compile_lease(&key));
    let lease = lease.await.expect("it is free").unwrap().unwrap();
    assert!(!lease.is_stored());
}

/// Redirected to another server, neither the token of the client nor that of the lease goes along.
#[tokio::test]
async fn another_server_sees_no_token() {
    let other = server(|_| answer("201 Created", b"granted\n"));
    let location = other.url();
    let server = server(move |request| {
        let path = &request.path;
        redirect("307 Temporary Redirect", &format!("{location}{path}"))
    });
    let remote = granting()
        .bearer_token("a-token")
        .build(server.url())
        .unwrap();
    let _ = remote.compile_lease(&key(1)).await.unwrap();
    let requests = other.requests();
    assert_eq!(requests[0].method, "POST");
    for name in ["authorization", "lease-token"] {
        assert_eq!(requests[0].header(name), None);
    }
}
