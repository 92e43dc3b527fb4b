//! A remote tier whose server has a bad day costs little, says so once, and comes back by itself.

use crate::support::captured_trace::{capture, captured};
use crate::support::scripted_http::{
    Request, ScriptedServer, Step, answer, answer_of_length, redirect,
};
use pipeline_cache::network::{BreakerPolicy, BreakerState, RetryPolicy};
use pipeline_cache::{
    Artifact, Credentials, Fetched, PipelineCacheStore, PipelineFingerprint, RemoteCache,
    RemoteCacheBuilder, StoreError, StoreErrorKind,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const MS: Duration = Duration::from_millis(1);

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .breaker(BreakerPolicy::default().probe_interval(20 * MS))
}

fn once() -> RetryPolicy {
    RetryPolicy::default().attempts(1)
}

fn eager() -> RetryPolicy {
    RetryPolicy::default().base_delay(MS)
}

fn key(number: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([number; 32])
}

fn kind<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

/// A server that answers 503 while it is ill, and 404 else.
fn sickly() -> (ScriptedServer, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(true));
    let is_ill = Arc::clone(&ill);
    let server = ScriptedServer::start(move |_| {
        if is_ill.load(Ordering::SeqCst) {
            answer("503 Busy", b"")
        } else {
            answer("404 Not Found", b"")
        }
    });
    (server, ill)
}

// The breaker.

#[tokio::test]
async fn the_breaker_opens_on_a_failing_server_and_closes_by_itself() {
    let (server, ill) = sickly();
    capture();
    let remote = builder().retry(once()).build(server.url()).unwrap();
    let mut states = remote.watch_breaker();
    assert_eq!(remote.breaker_state(), BreakerState::Closed);
    for _ in 0..5 {
        assert_eq!(
            kind(remote.fetch(&KEY).await),
            Some(StoreErrorKind::Unavailable)
        );
    }
    states
        .wait_for(|state| *state != BreakerState::Closed)
        .await
        .unwrap();
    assert_eq!(remote.metrics().breakers_open, 1);

    // Nobody waits now, and no lookup reaches the server.
    for _ in 0..100 {
        let error = remote.fetch(&KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::BreakerOpen);
        assert!(error.is_transient());
    }
    assert_eq!(remote.metrics().short_circuited, 100);
    assert_eq!(
        captured().matches("WARN").count(),
        1,
        "it is logged where the trouble begins"
    );

    // Nobody asks, and still it is found to be well.
    ill.store(false, Ordering::SeqCst);
    states
        .wait_for(|state| *state == BreakerState::Closed)
        .await
        .unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    let metrics = remote.metrics();
    assert_eq!((metrics.breaker_opened, metrics.breaker_closed), (1, 1));
    assert_eq!(metrics.breakers_open, 0);
}

#[tokio::test]
async fn an_open_breaker_lets_one_probe_through_at_a_time() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = ScriptedServer::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0..5 => answer("503 Busy", b""),
        _ => vec![Step::Hang],
    });
    let remote = Arc::new(builder().retry(once()).build(server.url()).unwrap());
    for _ in 0..5 {
        remote.fetch(&KEY).await.unwrap_err();
    }
    let mut states = remote.watch_breaker();
    states
        .wait_for(|state| *state == BreakerState::HalfOpen)
        .await
        .unwrap();
    for _ in 0..50 {
        assert_eq!(
            kind(remote.fetch(&KEY).await),
            Some(StoreErrorKind::BreakerOpen)
        );
    }
    assert!(asked.load(Ordering::SeqCst) <= 6);
}

#[tokio::test]
async fn misses_and_refusals_never_open_the_breaker() {
    for status in ["404 Not Found", "410 Gone", "413 Large", "401 No"] {
        let server = ScriptedServer::always(answer(status, b""));
        let remote = builder().build(server.url()).unwrap();
        for _ in 0..50 {
            assert_ne!(
                kind(remote.fetch(&KEY).await),
                Some(StoreErrorKind::BreakerOpen)
            );
        }
        assert_eq!(remote.breaker_state(), BreakerState::Closed, "{status}");
    }
}

/// Whatever it answers to writes, a server that answers lookups is read.
#[tokio::test]
async fn refused_writes_never_open_a_breaker_and_failing_ones_open_that_of_the_writes() {
    for (status, is_ill) in [
        ("400 Bad", false),
        ("404 Not Found", false),
        ("405 Not Allowed", false),
        ("409 Conflict", false),
        ("411 Length", false),
        ("412 Precondition", false),
        ("413 Large", false),
        ("415 Type", false),
        ("422 Unprocessable", false),
        ("423 Locked", false),
        ("501 Not Implemented", false),
        ("408 Timeout", true),
        ("425 Early", true),
        ("429 Slow", true),
        ("500 Broken", true),
        ("502 Gateway", true),
        ("507 Full", true),
        ("304 Not Modified", true),
    ] {
        let server = ScriptedServer::start(move |request| match request.method.as_str() {
            "PUT" | "DELETE" => answer(status, b""),
            _ => answer("404 Not Found", b""),
        });
        let remote = builder()
            .breaker(BreakerPolicy::default().probe_interval(Duration::from_secs(3600)))
            .retry(once())
            .writes()
            .build(server.url())
            .unwrap();
        for number in 0..10 {
            let put = remote.put(&key(number), Artifact::new("a")).await;
            assert!(put.is_err(), "{status}");
            let _ = remote.remove(&key(number)).await;
        }
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss, "{status}");
        let is_open = remote.write_breaker_state() == BreakerState::Open;
        assert_eq!(is_open, is_ill, "{status}");
        let metrics = remote.metrics();
        assert_eq!(metrics.breaker_opened, 0, "{status}");
        assert_eq!(metrics.write_breaker_opened, u64::from(is_ill), "{status}");
        assert_eq!(metrics.write_breakers_open, u64::from(is_ill), "{status}");
        assert_eq!(metrics.short_circuited_writes > 0, is_ill, "{status}");
    }
}

#[tokio::test]
async fn lookups_that_their_callers_give_up_teach_the_breaker_too() {
    let server = ScriptedServer::always(vec![Step::Hang]);
    let policy = BreakerPolicy::default().abandoned_after(10 * MS);
    let remote = builder().breaker(policy).build(server.url()).unwrap();
    for _ in 0..5 {
        let given_up = tokio::time::timeout(20 * MS, remote.fetch(&KEY)).await;
        assert!(given_up.is_err());
    }
    assert_eq!(
        kind(remote.fetch(&KEY).await),
        Some(StoreErrorKind::BreakerOpen)
    );
}

#[tokio::test]
async fn a_call_that_waits_for_a_permit_fails_when_the_breaker_opens() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = ScriptedServer::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        answer("503 Busy", b"")
    });
    let remote = builder()
        .retry(once())
        .max_concurrent_requests(2)
        .build(server.url())
        .unwrap();
    let lookups = (0..40).map(|_| remote.fetch(&KEY));
    let kinds: Vec<_> = futures::future::join_all(lookups)
        .await
        .into_iter()
        .map(kind)
        .collect();
    let open = kinds
        .iter()
        .filter(|kind| **kind == Some(StoreErrorKind::BreakerOpen))
        .count();
    assert!(open >= 30, "{kinds:?}");
    // Those before it opened, those under way, and a probe or two.
    assert!(asked.load(Ordering::SeqCst) <= 10);
}

// Retries.

#[tokio::test]
async fn what_failed_for_a_passing_reason_is_asked_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = ScriptedServer::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("503 Busy", b""),
        1 => vec![Step::Reset],
        _ => answer("404 Not Found", b""),
    });
    let remote = builder().retry(eager()).build(server.url()).unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    let metrics = remote.metrics();
    assert_eq!((metrics.lookups, metrics.errors, metrics.misses), (1, 0, 1));
    assert!(metrics.retries >= 1 && asked.load(Ordering::SeqCst) >= 3);
}

#[tokio::test]
async fn what_will_fail_again_is_not_asked_again() {
    for status in ["400 Bad", "401 No", "403 No", "413 Large", "507 Full"] {
        let server = ScriptedServer::always(answer(status, b""));
        let remote = builder()
            .retry(eager())
            .writes()
            .build(server.url())
            .unwrap();
        remote.fetch(&KEY).await.unwrap_err();
        assert_eq!(server.requests().len(), 1, "{status}");
        assert_eq!(remote.metrics().retries, 0);
    }
}

#[tokio::test]
async fn a_put_is_made_again_with_its_whole_body() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let server = ScriptedServer::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer("429 Slow", b""),
        _ => answer("201 Created", b""),
    });
    let remote = builder()
        .retry(eager())
        .writes()
        .build(server.url())
        .unwrap();
    remote
        .put(&KEY, Artifact::new(vec![7; 5000]))
        .await
        .unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(remote.metrics().puts, 1);
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_its_cap() {
    for (seconds, retried) in [
        ("0", true),
        ("3600", false),
        ("99999999999999999999", false),
    ] {
        let head =
            format!("HTTP/1.1 503 Busy\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n");
        let server = ScriptedServer::always(vec![Step::Send(head.into_bytes())]);
        let remote = builder()
            .retry(eager().attempts(2))
            .build(server.url())
            .unwrap();
        let started = Instant::now();
        remote.fetch(&KEY).await.unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(60));
        assert_eq!(
            server.requests().len(),
            1 + usize::from(retried),
            "{seconds}"
        );
    }
}

#[tokio::test]
async fn all_calls_share_one_budget_of_retries() {
    let server = ScriptedServer::always(answer("503 Busy", b""));
    let never = BreakerPolicy::default().failure_percent(101);
    let policy = eager().attempts(10).budget_reserve(5).budget_percent(10);
    let remote = builder()
        .breaker(never)
        .retry(policy)
        .build(server.url())
        .unwrap();
    for _ in 0..40 {
        remote.fetch(&KEY).await.unwrap_err();
    }
    // The reserve, and a tenth of the calls.
    assert!(
        (5..=9).contains(&remote.metrics().retries),
        "{}",
        remote.metrics()
    );
}

#[tokio::test]
async fn each_attempt_has_its_deadline_and_all_have_one_together() {
    let server = ScriptedServer::always(vec![Step::Hang]);
    let remote = builder()
        .attempt_timeout(400 * MS)
        .request_timeout(1000 * MS)
        .retry(eager().attempts(100))
        .build(server.url())
        .unwrap();
    let started = Instant::now();
    assert_eq!(
        kind(remote.fetch(&KEY).await),
        Some(StoreErrorKind::TimedOut)
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    let attempts = server.requests().len();
    assert!((1..=4).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn settings_without_measure_do_no_harm() {
    let endless = Duration::MAX;
    let breaker = BreakerPolicy::default()
        .window(endless)
        .min_calls(0)
        .failure_percent(0)
        .probe_interval(endless)
        .abandoned_after(endless);
    let retry = RetryPolicy::default()
        .base_delay(endless)
        .max_delay(endless)
        .max_retry_after(endless)
        .budget_percent(u32::MAX)
        .budget_reserve(u32::MAX);
    let (server, ill) = sickly();
    ill.store(false, Ordering::SeqCst);
    let remote = builder()
        .breaker(breaker.window(Duration::ZERO))
        .remember_misses_for(endless)
        .max_remembered_misses(usize::MAX)
        .build(server.url())
        .unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    let remote = builder()
        .breaker(breaker)
        .retry(retry.attempts(0))
        .attempt_timeout(endless)
        .request_timeout(endless)
        .build(server.url())
        .unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    ill.store(true, Ordering::SeqCst);
    remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(
        kind(remote.fetch(&KEY).await),
        Some(StoreErrorKind::BreakerOpen)
    );
}

/// Of an entry as large as may be, too: its header says that the server works.
#[tokio::test]
async fn a_health_probe_reads_no_more_of_an_entry_than_its_header() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let ill = Arc::clone(&is_ill);
    let server = ScriptedServer::start(move |_| {
        if ill.load(Ordering::SeqCst) {
            return answer("503 Busy", b"");
        }
        let mut large = answer_of_length("200 OK", &[7; 256], 64 << 20);
        large.push(Step::Hang);
        large
    });
    let remote = builder()
        .inactivity_timeout(Duration::from_secs(60))
        .attempt_timeout(Duration::from_secs(60))
        .request_timeout(Duration::from_secs(60))
        .retry(RetryPolicy::default().attempts(1))
        .breaker(
            BreakerPolicy::default()
                .min_calls(1)
                .probe_interval(20 * MS),
        )
        .build(server.url())
        .unwrap();
    remote.fetch(&KEY).await.unwrap_err();
    is_ill.store(false, Ordering::SeqCst);
    let mut state = remote.watch_breaker();
    let closed = state.wait_for(|state| *state == BreakerState::Closed);
    let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
    closed.expect("it reads the whole entry").unwrap();
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.method == "GET")
    );
}

// Credentials.

#[tokio::test]
async fn refused_credentials_are_told_once_and_not_shown_again_until_they_change() {
    let server = ScriptedServer::start(|request| match request.header("authorization") {
        Some("Bearer fresh") => answer("404 Not Found", b""),
        _ => answer("401 Unauthorized", b""),
    });
    let token = Arc::new(Mutex::new("stale"));
    let current = Arc::clone(&token);
    let remote = builder()
        .credentials_from(move || Credentials::bearer(*current.lock().unwrap()))
        .build(server.url())
        .unwrap();
    capture();
    for _ in 0..20 {
        assert_eq!(
            kind(remote.fetch(&KEY).await),
            Some(StoreErrorKind::PermissionDenied)
        );
    }
    assert_eq!(server.requests().len(), 1);
    let text = captured();
    assert_eq!(text.matches("ERROR").count(), 1, "{text}");
    assert_eq!(text.matches("WARN").count(), 0, "{text}");
    assert!(!text.contains("stale"), "{text}");

    *token.lock().unwrap() = "fresh";
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert!(!format!("{remote:?}").contains("fresh"));
}

#[tokio::test]
async fn a_token_that_may_only_read_still_reads() {
    let server = ScriptedServer::start(|request| match request.method.as_str() {
        "PUT" => answer("403 Forbidden", b""),
        _ => answer("404 Not Found", b""),
    });
    let remote = builder()
        .writes()
        .bearer_token("t")
        .build(server.url())
        .unwrap();
    for _ in 0..3 {
        let put = remote.put(&KEY, Artifact::new("a")).await;
        assert_eq!(kind(put), Some(StoreErrorKind::PermissionDenied));
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
    let puts = server
        .requests()
        .iter()
        .filter(|r| r.method == "PUT")
        .count();
    assert_eq!(puts, 1);
}

/// A server that was shown no credentials cannot have refused them, nor does a proxy know them.
#[tokio::test]
async fn credentials_that_another_server_refuses_are_still_sent_home() {
    for (status, is_elsewhere) in [
        ("401 Unauthorized", true),
        ("403 Forbidden", true),
        ("407 Proxy", true),
        ("407 Proxy", false),
    ] {
        let is_first = AtomicBool::new(true);
        let script = move |_: &Request| match is_first.swap(false, Ordering::SeqCst) {
            true => answer(status, b""),
            false => answer("404 Not Found", b""),
        };
        let last = ScriptedServer::start(script);
        let away = last.url();
        let first = ScriptedServer::start(move |request| {
            redirect("302 Found", &format!("{away}{}", request.path))
        });
        let home = if is_elsewhere { &first } else { &last };
        let remote = builder().bearer_token("t").build(home.url()).unwrap();
        let refused = remote.fetch(&KEY).await;
        assert_eq!(kind(refused), Some(StoreErrorKind::PermissionDenied));
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss, "{status}");
    }
}

/// As to a token that may only write.
#[tokio::test]
async fn credentials_that_may_not_read_still_write() {
    let server = ScriptedServer::start(|request| match request.method.as_str() {
        "PUT" => answer("409 Conflict", b""),
        _ => answer("403 Forbidden", b""),
    });
    let remote = builder()
        .writes()
        .bearer_token("t")
        .build(server.url())
        .unwrap();
    for number in 0..2 {
        let put = remote.put(&key(number), Artifact::new("a")).await;
        assert_eq!(kind(put), Some(StoreErrorKind::Protocol));
    }
    assert_eq!(puts(&server).len(), 2);
}

// Remembered misses.

#[tokio::test]
async fn a_miss_is_remembered_until_this_process_puts_the_key() {
    let stored = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::clone(&stored);
    let server = ScriptedServer::start(move |request| {
        let mut stored = store.lock().unwrap();
        match request.method.as_str() {
            "PUT" => {
                *stored = request.body.clone();
                answer("201 Created", b"")
            }
            _ if stored.is_empty() => answer("404 Not Found", b""),
            _ => answer("200 OK", &stored),
        }
    });
    let remote = builder()
        .writes()
        .remember_misses_for(Duration::from_secs(3600))
        .build(server.url())
        .unwrap();
    for _ in 0..10 {
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
    assert!(!remote.contains(&KEY).await.unwrap());
    assert_eq!(server.requests().len(), 1);
    assert_eq!(
        (remote.metrics().misses, remote.metrics().remembered_misses),
        (10, 10)
    );
    let artifact = Artifact::new("a");
    remote.put(&KEY, artifact.clone()).await.unwrap();
    assert_eq!(remote.get(&KEY).await.unwrap(), Some(artifact));
}

// Writes.

fn puts(server: &ScriptedServer) -> Vec<Request> {
    let requests = server.requests().into_iter();
    requests.filter(|request| request.method == "PUT").collect()
}

#[tokio::test]
async fn a_closed_tier_takes_no_writes_and_still_serves_lookups() {
    let server = ScriptedServer::always(answer("404 Not Found", b""));
    let remote = builder().writes().build(server.url()).unwrap();
    remote.close(20 * MS).await.unwrap();
    assert!(!remote.is_writable());
    let put = remote.put(&KEY, Artifact::new("a")).await;
    assert_eq!(kind(put), Some(StoreErrorKind::Closed));
    assert_eq!(
        kind(remote.remove(&KEY).await),
        Some(StoreErrorKind::Closed)
    );
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert_eq!(server.requests().len(), 1);
    // Closing twice is not an error.
    remote.close(20 * MS).await.unwrap();
}

/// A put that returned is on the server: there is nothing left to flush.
#[tokio::test]
async fn a_put_waits_for_its_upload_and_returns_its_error() {
    let server = ScriptedServer::always(answer("507 Full", b""));
    let remote = builder().writes().build(server.url()).unwrap();
    let put = remote.put(&KEY, Artifact::new("a")).await;
    assert_eq!(kind(put), Some(StoreErrorKind::StorageFull));
    remote.flush().await.unwrap();
    let metrics = remote.metrics();
    assert_eq!((metrics.put_errors, metrics.flushes), (1, 1));
}

#[tokio::test]
async fn clones_share_one_tier() {
    let (server, _) = sickly();
    let remote = builder().retry(once()).build(server.url()).unwrap();
    let clone = remote.clone();
    for _ in 0..5 {
        remote.fetch(&KEY).await.unwrap_err();
    }
    assert_ne!(clone.breaker_state(), BreakerState::Closed);
    assert_eq!(clone.metrics().errors, 5);
}
