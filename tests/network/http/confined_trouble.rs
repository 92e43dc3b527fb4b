//! The trouble of one key, of writes, or of impatient callers stays where it begins.

use crate::support::captured_trace::{capture, captured};
use crate::support::scripted_http::{Request, ScriptedServer, Step, answer};
use futures::future::join_all;
use pipeline_cache::network::{BreakerPolicy, BreakerState, RetryPolicy};
use pipeline_cache::{
    Artifact, Credentials, Fetched, PipelineCacheStore, PipelineFingerprint, RemoteCache,
    RemoteCacheBuilder, StoreError, StoreErrorKind,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

const PRESENT: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const ABSENT: PipelineFingerprint = PipelineFingerprint::from_bytes([0x22; 32]);
const MS: Duration = Duration::from_millis(1);
/// Far longer than anything here takes, and than no test waits for nothing.
const PATIENCE: Duration = Duration::from_secs(20);

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .writes()
        .retry(RetryPolicy::default().base_delay(MS))
}

fn artifact() -> Artifact {
    Artifact::new("code")
}

fn entry() -> Vec<Step> {
    answer("200 OK", &artifact().to_frame(&PRESENT, None).unwrap())
}

fn kind<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

fn is_present(request: &Request) -> bool {
    request.path.contains(&PRESENT.to_hex())
}

/// A server that has one entry, and answers so for what it does not have.
fn absent_as(status: &'static str) -> ScriptedServer {
    ScriptedServer::start(move |request| match is_present(request) {
        true => entry(),
        false => answer(status, b""),
    })
}

/// A server that serves one entry, and answers every write so.
fn writes_as(status: &'static str) -> ScriptedServer {
    ScriptedServer::start(move |request| match request.method.as_str() {
        "PUT" => answer(status, b""),
        _ => entry(),
    })
}

fn puts(server: &ScriptedServer) -> usize {
    let requests = server.requests();
    requests.iter().filter(|r| r.method == "PUT").count()
}

// One key.

#[tokio::test]
async fn an_absent_key_that_is_forbidden_costs_no_other_key() {
    for status in ["403 Forbidden", "401 Unauthorized"] {
        for is_authenticated in [false, true] {
            let server = absent_as(status);
            let remote = match is_authenticated {
                true => builder().bearer_token("t"),
                false => builder(),
            };
            let remote = remote.build(server.url()).unwrap();
            if is_authenticated {
                assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
            }
            for _ in 0..20 {
                let refused = remote.fetch(&ABSENT).await;
                assert_eq!(kind(refused), Some(StoreErrorKind::PermissionDenied));
                assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
            }
            assert_eq!(remote.breaker_state(), BreakerState::Closed);
        }
    }
}

#[tokio::test]
async fn statuses_that_mean_absence_are_misses() {
    for status in ["403 Forbidden", "401 Unauthorized", "410 Gone", "499 Odd"] {
        let server = absent_as(status);
        let remote = builder()
            .bearer_token("t")
            .absent_statuses([401, 403, 404, 410, 499])
            .build(server.url())
            .unwrap();
        for _ in 0..5 {
            assert_eq!(remote.fetch(&ABSENT).await.unwrap(), Fetched::Miss);
            assert!(!remote.contains(&ABSENT).await.unwrap());
            assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
        }
        assert_eq!(remote.metrics().errors, 0);
    }
    let server = absent_as("403 Forbidden");
    let remote = builder().absent_statuses([200, 403]).build(server.url());
    let remote = remote.unwrap();
    assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
    // A refused removal does not say that there was nothing to remove.
    let removed = remote.remove(&ABSENT).await;
    assert_eq!(kind(removed), Some(StoreErrorKind::PermissionDenied));
}

/// As behind a firewall that takes offence at one name.
#[tokio::test]
async fn a_key_that_a_working_server_rejects_costs_no_other_key() {
    for status in [
        "400 Bad",
        "406 Not Acceptable",
        "414 Long",
        "422 Odd",
        "451 Legal",
    ] {
        let server = absent_as(status);
        let remote = builder().build(server.url()).unwrap();
        for _ in 0..20 {
            let rejected = remote.fetch(&ABSENT).await;
            assert_eq!(kind(rejected), Some(StoreErrorKind::Protocol), "{status}");
            assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
        }
    }
}

/// The server says when it takes this entry, not when it takes writes.
#[tokio::test]
async fn a_rejected_entry_that_names_a_time_pauses_no_other_write() {
    let server = ScriptedServer::start(|request| match is_present(request) {
        true => answer("413 Large\r\nRetry-After: 60", b""),
        false => answer("201 Created", b""),
    });
    let remote = builder().build(server.url()).unwrap();
    let rejected = remote.put(&PRESENT, artifact()).await;
    assert_eq!(kind(rejected), Some(StoreErrorKind::TooLarge));
    remote.put(&ABSENT, artifact()).await.unwrap();
    assert_eq!(remote.write_breaker_state(), BreakerState::Closed);
}

// Writes.

#[tokio::test]
async fn writes_come_back_by_a_write_that_is_let_through() {
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = Arc::clone(&ill);
    let server = ScriptedServer::start(move |_| match is_ill.load(Ordering::SeqCst) {
        true => answer("500 Disk full", b""),
        false => answer("201 Created", b""),
    });
    let remote = builder()
        .breaker(BreakerPolicy::default().probe_interval(50 * MS))
        .retry(RetryPolicy::default().attempts(1))
        .build(server.url())
        .unwrap();
    let mut state = remote.watch_write_breaker();
    for _ in 0..5 {
        remote.put(&ABSENT, artifact()).await.unwrap_err();
    }
    assert_eq!(remote.write_breaker_state(), BreakerState::Open);
    assert_eq!(remote.breaker_state(), BreakerState::Closed);
    tokio::time::sleep(60 * MS).await;
    let sent = puts(&server);
    let probe = remote.put(&ABSENT, artifact()).await;
    assert_eq!(kind(probe), Some(StoreErrorKind::Unavailable));
    assert_eq!(puts(&server), sent + 1, "the probe is one request");

    ill.store(false, Ordering::SeqCst);
    let until_written = async { while remote.put(&ABSENT, artifact()).await.is_err() {} };
    timeout(PATIENCE, until_written).await.unwrap();
    assert!(state.wait_for(|s| *s == BreakerState::Closed).await.is_ok());
    let metrics = remote.metrics();
    let counts = (metrics.write_breaker_opened, metrics.write_breaker_closed);
    assert_eq!(counts, (1, 1));
    assert_eq!(metrics.write_breakers_open, 0);
}

#[tokio::test]
async fn refused_writes_cost_no_read_and_are_soon_sent_no_more() {
    for (status, most_sent) in [
        ("429 Slow\r\nRetry-After: 60", 1),
        ("503 Busy\r\nRetry-After: 60", 1),
        ("429 Slow", 15),
        ("500 Broken", 15),
        ("507 Full", 15),
    ] {
        let server = writes_as(status);
        let remote = builder().build(server.url()).unwrap();
        for _ in 0..20 {
            remote.put(&ABSENT, artifact()).await.unwrap_err();
            assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
        }
        let refused = remote.put(&ABSENT, artifact()).await;
        assert_eq!(kind(refused), Some(StoreErrorKind::BreakerOpen), "{status}");
        assert_eq!(remote.breaker_state(), BreakerState::Closed, "{status}");
        assert!(puts(&server) <= most_sent, "{status}: {}", puts(&server));
    }
}

/// A conflict may be with a write that has not ended, and that then fails.
#[tokio::test]
async fn a_conflict_without_an_entry_is_tried_again() {
    for status in ["409 Conflict", "412 Precondition Failed"] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = ScriptedServer::start(move |request| match request.method.as_str() {
            "PUT" if count.fetch_add(1, Ordering::SeqCst) == 0 => answer(status, b""),
            "PUT" => answer("201 Created", b""),
            _ => answer("404 Not Found", b""),
        });
        let remote = builder().build(server.url()).unwrap();
        remote.put(&ABSENT, artifact()).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{status}");
    }
}

// Callers that do not wait.

#[tokio::test]
async fn ten_requests_in_a_row_without_an_answer_open_the_breaker_however_short_the_deadlines() {
    for deadline in [50, 200, 900] {
        let server = ScriptedServer::always(vec![Step::Hang]);
        let remote = builder().build(server.url()).unwrap();
        for _ in 0..10 {
            let _ = timeout(deadline * MS, remote.fetch(&PRESENT)).await;
        }
        let mut state = remote.watch_breaker();
        let opens = timeout(PATIENCE, state.wait_for(|s| *s != BreakerState::Closed)).await;
        assert!(opens.is_ok(), "{deadline} ms: never learnt");
        drop(opens);
        let began = Instant::now();
        let refused = remote.fetch(&PRESENT).await;
        assert_eq!(kind(refused), Some(StoreErrorKind::BreakerOpen));
        assert!(began.elapsed() < 900 * MS);
    }
}

/// The server is healthy, and answers only after its callers are gone.
#[tokio::test]
async fn a_healthy_server_stays_in_use_by_callers_that_never_wait_for_it() {
    let server = ScriptedServer::start(|_| {
        std::thread::sleep(30 * MS);
        entry()
    });
    let remote = builder().build(server.url()).unwrap();
    for _ in 0..100 {
        let _ = timeout(15 * MS, remote.fetch(&PRESENT)).await;
    }
    assert_eq!(remote.breaker_state(), BreakerState::Closed);
    assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
}

#[tokio::test]
async fn what_callers_gave_up_is_bounded_and_holds_no_permit() {
    let server = ScriptedServer::start(|request| match is_present(request) {
        true => entry(),
        false => vec![Step::Hang],
    });
    let remote = builder()
        .max_concurrent_requests(2)
        .breaker(BreakerPolicy::default().failure_percent(101))
        .build(server.url())
        .unwrap();
    for _ in 0..10 {
        join_all(
            [ABSENT; 2]
                .iter()
                .map(|key| timeout(5 * MS, remote.fetch(key))),
        )
        .await;
        let found = timeout(PATIENCE, remote.get(&PRESENT)).await;
        assert_eq!(found.expect("no permit is free").unwrap(), Some(artifact()));
    }
    assert!(server.most_open() <= 2 + 16 + 2, "{}", server.most_open());
}

// Logs.

fn told(text: &str) -> Vec<&str> {
    let told = |line: &&str| {
        ["ERROR", "WARN", "INFO"]
            .iter()
            .any(|level| line.starts_with(level))
    };
    text.lines().filter(told).collect()
}

#[tokio::test]
async fn an_outage_is_told_once_where_it_begins_and_once_where_it_ends() {
    let ill = Arc::new(AtomicBool::new(false));
    let is_ill = Arc::clone(&ill);
    let server = ScriptedServer::start(move |request| {
        match (is_ill.load(Ordering::SeqCst), request.method.as_str()) {
            (true, _) => answer("503 Busy", b""),
            (false, "PUT") => answer("201 Created", b""),
            (false, _) => entry(),
        }
    });
    let remote = builder()
        .breaker(BreakerPolicy::default().probe_interval(20 * MS))
        .build(server.url())
        .unwrap();
    capture();
    ill.store(true, Ordering::SeqCst);
    for _ in 0..50 {
        remote.fetch(&PRESENT).await.unwrap_err();
    }
    let text = captured();
    assert_eq!(told(&text).len(), 1, "{text}");
    assert!(
        told(&text)[0].starts_with("WARN") && told(&text)[0].contains("reads"),
        "{text}"
    );
    for _ in 0..50 {
        remote.put(&PRESENT, artifact()).await.unwrap_err();
    }
    let text = captured();
    assert_eq!(told(&text).len(), 2, "{text}");
    assert!(
        told(&text)[1].starts_with("WARN") && told(&text)[1].contains("writes"),
        "{text}"
    );

    ill.store(false, Ordering::SeqCst);
    let mut state = remote.watch_breaker();
    let closed = timeout(PATIENCE, state.wait_for(|s| *s == BreakerState::Closed)).await;
    assert!(closed.is_ok());
    drop(closed);
    let until_written = async { while remote.put(&PRESENT, artifact()).await.is_err() {} };
    timeout(PATIENCE, until_written).await.unwrap();
    for _ in 0..50 {
        assert_eq!(remote.get(&PRESENT).await.unwrap(), Some(artifact()));
    }
    let text = captured();
    let ends: Vec<_> = told(&text).into_iter().skip(2).collect();
    assert_eq!(ends.len(), 2, "{text}");
    for requests in ["requests=reads failed=50", "requests=writes failed="] {
        let end = ends.iter().find(|end| end.contains(requests));
        assert!(end.is_some_and(|end| end.starts_with("INFO")), "{text}");
    }
}

/// As from a site that answers every request with its front page.
#[tokio::test]
async fn a_site_that_answers_with_pages_is_told_of_once() {
    let server = ScriptedServer::always(answer("200 OK", b"<!doctype html><title>Hello</title>"));
    let remote = builder().build(server.url()).unwrap();
    capture();
    for _ in 0..20 {
        assert!(matches!(
            remote.fetch(&ABSENT).await.unwrap(),
            Fetched::Corrupt(_)
        ));
    }
    let text = captured();
    assert_eq!(told(&text).len(), 1, "{text}");
    assert_eq!(remote.metrics().corrupt, 20);
}

/// As at a base URL without the path of the artifacts.
#[tokio::test]
async fn a_url_that_takes_no_writes_is_told_of_once_with_what_to_do() {
    let server = ScriptedServer::always(answer("404 Not Found", b""));
    let remote = builder().build(server.url()).unwrap();
    capture();
    for number in 0..20 {
        let key = PipelineFingerprint::from_bytes([number; 32]);
        let refused = remote.put(&key, artifact()).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Protocol);
    }
    let text = captured();
    let told = told(&text);
    assert_eq!(told.len(), 1, "{text}");
    assert!(told[0].contains("check the path of the base URL"), "{text}");
}

/// As a `cache_server` answers outside of its paths.
#[tokio::test]
async fn a_url_that_is_not_understood_is_told_of_with_what_to_do() {
    let server = ScriptedServer::always(answer("400 Bad Request", b""));
    let remote = builder().build(server.url()).unwrap();
    capture();
    let key = PipelineFingerprint::from_bytes([1; 32]);
    remote.fetch(&key).await.unwrap_err();
    let text = captured();
    let told = told(&text);
    assert_eq!(told.len(), 1, "{text}");
    assert!(told[0].contains("ends in /artifacts"), "{text}");
}

/// A token for reads alone is told apart from a server that hides what it does not have.
#[tokio::test]
async fn a_refused_write_is_told_of_as_a_write() {
    let server = ScriptedServer::always(answer("403 Forbidden", b""));
    let remote = builder().bearer_token("t").build(server.url()).unwrap();
    capture();
    let key = PipelineFingerprint::from_bytes([1; 32]);
    remote.put(&key, artifact()).await.unwrap_err();
    let text = captured();
    assert!(text.contains("They may allow reads alone"), "{text}");
    assert!(!text.contains("absent_statuses"), "{text}");
}

/// As when a server comes back with other tokens. That it was down is no reason to hide that.
#[tokio::test]
async fn what_somebody_has_to_mend_is_told_after_what_passed() {
    let asked = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |_| {
        // Of one entry, the second.
        let statuses = ["503 Service Unavailable", "422 Unprocessable Content"];
        let status = statuses.get(asked.fetch_add(1, Ordering::SeqCst));
        answer(status.unwrap_or(&"401 Unauthorized"), b"")
    });
    let remote = builder()
        .bearer_token("t")
        .retry(RetryPolicy::default().attempts(1));
    let remote = remote.build(server.url()).unwrap();
    capture();
    for _ in 0..4 {
        remote.fetch(&ABSENT).await.unwrap_err();
    }
    let text = captured();
    let lines = |what| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("request failed; further failures"), 1, "{text}");
    assert_eq!(lines("ERROR message=credentials rejected"), 1, "{text}");
}

/// As behind an edge that transforms every response.
#[tokio::test]
async fn uploads_that_change_nothing_are_told_of_once() {
    let server = ScriptedServer::start(|request| match request.method.as_str() {
        "PUT" => answer("201 Created", b""),
        _ => answer("200 OK", &[b'x'; 900]),
    });
    let remote = builder().build(server.url()).unwrap();
    capture();
    for number in 0..20 {
        let key = PipelineFingerprint::from_bytes([number; 32]);
        for _ in 0..2 {
            remote.fetch(&key).await.unwrap();
            remote.put(&key, artifact()).await.ok();
        }
    }
    let text = captured();
    // One of corrupt entries, and one of uploads.
    assert_eq!(told(&text).len(), 2, "{text}");
}

/// No request was sent, so nothing else tells of it, and no probe may say that the server works.
#[tokio::test]
async fn a_callback_that_panics_is_told_once_and_closes_no_breaker() {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let server = ScriptedServer::always(answer("503 Busy", b""));
    let remote = builder()
        .breaker(BreakerPolicy::default().probe_interval(5 * MS))
        .credentials_from(move || {
            assert!(!is_broken.load(Ordering::SeqCst), "hunter2");
            Credentials::bearer("t")
        })
        .build(server.url())
        .unwrap();
    broken.store(true, Ordering::SeqCst);
    capture();
    for _ in 0..20 {
        let denied = remote.fetch(&PRESENT).await;
        assert_eq!(kind(denied), Some(StoreErrorKind::PermissionDenied));
    }
    let text = captured();
    assert_eq!(told(&text).len(), 1, "{text}");
    assert!(
        text.contains("panicked") && !text.contains("hunter2"),
        "{text}"
    );

    broken.store(false, Ordering::SeqCst);
    while remote.breaker_state() == BreakerState::Closed {
        remote.fetch(&PRESENT).await.unwrap_err();
    }
    broken.store(true, Ordering::SeqCst);
    let mut state = remote.watch_breaker();
    for _ in 0..3 {
        let probed = timeout(PATIENCE, state.changed()).await;
        probed.unwrap().unwrap();
    }
    assert_eq!(remote.metrics().breaker_closed, 0);
}
