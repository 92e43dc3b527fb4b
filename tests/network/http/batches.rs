//! Many keys in one request: what a server answers, what it answers wrongly, and a server that does
//! not know the request. The answer itself is taken apart in the tests of `src/http/batch.rs`.

use crate::support::captured_trace::{capture, captured};
use crate::support::nginx::Nginx;
use crate::support::scripted_http::{
    Request, ScriptedServer, Step, answer, answer_of_length, redirect,
};
use futures::poll;
use pipeline_cache::network::{BreakerState, RetryPolicy};
use pipeline_cache::{
    Artifact, Fetched, FrameError, PipelineCacheStore as _, PipelineFingerprint, RemoteCache,
    RemoteCacheBuilder, StoreError, StoreErrorKind,
};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{advance, pause, resume};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const MAGIC: &[u8] = b"\x89pcb\r\n\x1a\n";
const NO_ENTRY: u32 = 0;
const NOT_SENT: u32 = u32::MAX;

fn key(number: u32) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<PipelineFingerprint> {
    numbers.into_iter().map(key).collect()
}

fn artifact(number: u32) -> Artifact {
    Artifact::new(format!("artifact {number}"))
}

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .inactivity_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .request_timeout(PATIENCE)
        .retry(RetryPolicy::default().attempts(1))
}

fn reader(server: &ScriptedServer) -> RemoteCache {
    builder().build(server.url()).unwrap()
}

type Frames = Arc<HashMap<PipelineFingerprint, Vec<u8>>>;

/// The frames of the artifacts of these numbers, as a tier writes them.
async fn frames(numbers: impl IntoIterator<Item = u32>) -> Frames {
    let server = ScriptedServer::always(answer("201 Created", b""));
    let remote = builder().writes().build(server.url()).unwrap();
    let mut frames = HashMap::new();
    for number in numbers {
        remote.put(&key(number), artifact(number)).await.unwrap();
        let body = server.requests().pop().unwrap().body;
        frames.insert(key(number), body);
    }
    Arc::new(frames)
}

fn entry(frame: Option<&Vec<u8>>) -> Vec<u8> {
    match frame {
        Some(frame) => [&(frame.len() as u32).to_le_bytes(), &frame[..]].concat(),
        None => NO_ENTRY.to_le_bytes().to_vec(),
    }
}

/// The keys that a request asks for.
fn asked(request: &Request) -> Vec<PipelineFingerprint> {
    let keys = request.body.chunks(32).map(|key| key.try_into().unwrap());
    keys.map(PipelineFingerprint::from_bytes).collect()
}

/// The answer of a server that has these frames.
fn batch(frames: &Frames, request: &Request) -> Vec<u8> {
    let entries = asked(request).into_iter();
    let entries: Vec<_> = entries.map(|key| entry(frames.get(&key))).collect();
    [MAGIC, &entries.concat()].concat()
}

/// The answer to a single lookup.
fn single(frames: &Frames, request: &Request) -> Vec<Step> {
    let name = request.path.trim_start_matches('/');
    let key = name.strip_suffix(".bin").unwrap().parse().unwrap();
    match frames.get(&key) {
        Some(frame) => answer("200 OK", frame),
        None => answer("404 Not Found", b""),
    }
}

/// Answers single lookups rightly, and batches as it is told.
fn server(
    frames: &Frames,
    batches: impl Fn(&Request, usize) -> Vec<Step> + Send + Sync + 'static,
) -> ScriptedServer {
    let (frames, before) = (Arc::clone(frames), AtomicUsize::new(0));
    ScriptedServer::start(move |request| match request.method.as_str() {
        "POST" => batches(request, before.fetch_add(1, Ordering::SeqCst)),
        _ => single(&frames, request),
    })
}

fn count(server: &ScriptedServer, method: &str) -> usize {
    let requests = server.requests();
    let of_method = requests.iter().filter(|request| request.method == method);
    of_method.count()
}

/// Whether these are the answers for the numbers from 0 on, of which the even ones are there.
fn are_right(answers: &[Result<Fetched, StoreError>]) -> bool {
    (0..).zip(answers).all(|(number, answer)| match answer {
        Ok(Fetched::Hit(found)) => number % 2 == 0 && *found == artifact(number),
        Ok(Fetched::Miss) => number % 2 == 1,
        _ => false,
    })
}

async fn even(most: u32) -> Frames {
    frames((0..most).step_by(2)).await
}

fn kinds(answers: &[Result<Fetched, StoreError>]) -> Vec<Option<StoreErrorKind>> {
    let kinds = answers.iter();
    kinds
        .map(|answer| answer.as_ref().err().map(StoreError::kind))
        .collect()
}

#[tokio::test]
async fn many_keys_are_one_request_and_are_counted_one_by_one() {
    let frames = even(20).await;
    let served = Arc::clone(&frames);
    let server = server(&frames, move |request, _| {
        answer("200 OK", &batch(&served, request))
    });
    let remote = builder()
        .bearer_token("token")
        .remember_misses_for(PATIENCE)
        .build(server.url())
        .unwrap();
    assert!(remote.fetch_many(&[]).await.is_empty());
    let answers = remote.fetch_many(&keys(0..20)).await;
    assert!(are_right(&answers), "{answers:?}");
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].path, "/batch");
    assert_eq!(requests[0].header("authorization"), Some("Bearer token"));
    let metrics = remote.metrics();
    assert_eq!((metrics.hits, metrics.misses), (10, 10));

    // Its misses are remembered, and a key that is given twice is asked for once.
    let twice: Vec<_> = [0, 1, 0, 3, 2].into_iter().map(key).collect();
    let answers = remote.fetch_many(&twice).await;
    assert!(matches!(&answers[2], Ok(Fetched::Hit(found)) if *found == artifact(0)));
    assert!(matches!(&answers[3], Ok(Fetched::Miss)));
    assert_eq!(asked(&server.requests()[1]), [key(0), key(2)]);
    assert_eq!(remote.metrics().remembered_misses, 2);

    // A single key is a single lookup.
    assert_eq!(remote.fetch_many(&[key(4)]).await.len(), 1);
    assert_eq!((count(&server, "GET"), server.connections()), (1, 1));
}

#[tokio::test]
async fn more_keys_than_a_request_may_have_are_several_requests() {
    let nothing = frames([]).await;
    let served = Arc::clone(&nothing);
    let server = server(&nothing, move |request, _| {
        answer("200 OK", &batch(&served, request))
    });
    let remote = reader(&server);
    let answers = remote.fetch_many(&keys(0..2500)).await;
    assert_eq!(answers.len(), 2500);
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer, Ok(Fetched::Miss)))
    );
    let mut lengths: Vec<_> = server
        .requests()
        .iter()
        .map(|r| r.body.len() / 32)
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [452, 1024, 1024]);
}

#[tokio::test]
async fn a_server_without_batches_costs_one_request_until_it_is_asked_again() {
    let frames = even(20).await;
    let statuses = [
        "400 B", "404 N", "405 M", "410 G", "411 L", "413 L", "500 S", "501 N", "403 F", "201 C",
        "200 OK", "204 N",
    ];
    for status in statuses {
        let server = server(&frames, move |_, _| answer(status, b""));
        let remote = reader(&server);
        capture();
        for _ in 0..3 {
            assert!(
                are_right(&remote.fetch_many(&keys(0..20)).await),
                "{status}"
            );
        }
        let trace = captured();
        assert_eq!(count(&server, "POST"), 1, "{status}");
        assert_eq!(trace.matches("answers no batches").count(), 1, "{status}");
        assert!(
            !trace.contains("WARN") && !trace.contains("ERROR"),
            "{trace}"
        );
        assert_eq!(remote.metrics().errors, 0);
        pause();
        advance(Duration::from_secs(301)).await;
        resume();
        assert!(are_right(&remote.fetch_many(&keys(0..20)).await));
        assert_eq!(count(&server, "POST"), 2, "{status}");
    }
}

#[tokio::test]
async fn a_page_a_redirect_and_an_encoded_answer_are_no_batch() {
    let frames = even(20).await;
    let mut encoded = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        8
    )
    .into_bytes();
    encoded.extend_from_slice(MAGIC);
    let answers = [
        answer("200 OK", b"<!doctype html><title>Welcome</title>"),
        answer("200 OK", &MAGIC[..7]),
        redirect("302 Found", "/elsewhere"),
        redirect("303 See Other", "/elsewhere"),
        vec![Step::Send(encoded)],
    ];
    for steps in answers {
        let server = server(&frames, move |_, _| steps.clone());
        let remote = reader(&server);
        for _ in 0..2 {
            assert!(are_right(&remote.fetch_many(&keys(0..20)).await));
        }
        assert_eq!(count(&server, "POST"), 1);
        assert_eq!(remote.metrics().errors, 0);
    }
}

/// A site may forbid the method. That says nothing about the credentials.
#[tokio::test]
async fn a_batch_that_is_forbidden_blocks_no_credentials() {
    let frames = even(20).await;
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let server = server(&frames, move |_, _| answer(status, b""));
        let remote = builder().bearer_token("token").build(server.url()).unwrap();
        for _ in 0..2 {
            assert!(
                are_right(&remote.fetch_many(&keys(0..20)).await),
                "{status}"
            );
        }
        assert_eq!(count(&server, "POST"), 1);
    }
    // Rejected credentials are found out by the lookups, and block them as ever.
    let server = ScriptedServer::always(answer("401 Unauthorized", b""));
    let remote = builder().bearer_token("token").build(server.url()).unwrap();
    let answers = remote.fetch_many(&keys(0..200)).await;
    assert!(
        kinds(&answers)
            .iter()
            .all(|kind| *kind == Some(StoreErrorKind::PermissionDenied))
    );
    assert!(server.requests().len() < 40, "{}", server.requests().len());
}

#[tokio::test]
async fn an_ill_server_is_asked_again_and_then_no_more() {
    let frames = even(20).await;
    let served = Arc::clone(&frames);
    let once_ill = server(&frames, move |request, before| match before {
        0 => answer("503 Service Unavailable", b""),
        _ => answer("200 OK", &batch(&served, request)),
    });
    let retry = RetryPolicy::default().attempts(2);
    let retrying = |server: &ScriptedServer| builder().retry(retry).build(server.url()).unwrap();
    let remote = retrying(&once_ill);
    assert!(are_right(&remote.fetch_many(&keys(0..20)).await));
    assert_eq!((count(&once_ill, "POST"), remote.metrics().retries), (2, 1));

    let ill = server(&frames, |_, _| answer("503 Service Unavailable", b""));
    let remote = retrying(&ill);
    let mut calls = 0;
    while remote.breaker_state() == BreakerState::Closed {
        let answers = remote.fetch_many(&keys(0..20)).await;
        let kinds = kinds(&answers);
        assert!(
            kinds
                .iter()
                .all(|kind| *kind == Some(StoreErrorKind::Unavailable)),
            "{kinds:?}"
        );
        calls += 1;
        assert!(calls < 100);
    }
    let requests = ill.requests().len();
    let answers = remote.fetch_many(&keys(0..20)).await;
    let is_open = |kind: &Option<StoreErrorKind>| *kind == Some(StoreErrorKind::BreakerOpen);
    assert!(kinds(&answers).iter().all(is_open));
    assert_eq!((ill.requests().len(), count(&ill, "GET")), (requests, 0));
    assert_eq!(remote.metrics().errors, 20 * (calls + 1));
}

/// What came whole is not asked for again, and not lost where the repetition fails.
#[tokio::test]
async fn a_torn_answer_costs_what_was_still_to_come() {
    let frames = even(20).await;
    let torn = |request: &Request, frames: &Frames| {
        let whole = batch(frames, request);
        let mut steps = answer_of_length("200 OK", &whole[..whole.len() / 2], whole.len());
        steps.push(Step::Close);
        steps
    };
    let served = Arc::clone(&frames);
    let heals = server(&frames, move |request, before| match before {
        0 => torn(request, &served),
        _ => answer("200 OK", &batch(&served, request)),
    });
    let retry = RetryPolicy::default().attempts(2);
    let remote = builder().retry(retry).build(heals.url()).unwrap();
    assert!(are_right(&remote.fetch_many(&keys(0..20)).await));
    let requests = heals.requests();
    let (first, second) = (asked(&requests[0]), asked(&requests[1]));
    assert!((1..20).contains(&second.len()));
    assert_eq!(second, first[20 - second.len()..]);
    assert_eq!((requests.len(), remote.metrics().hits), (2, 10));

    let served = Arc::clone(&frames);
    let stays_torn = server(&frames, move |request, _| torn(request, &served));
    let remote = reader(&stays_torn);
    let answers = remote.fetch_many(&keys(0..20)).await;
    let whole = answers.iter().take_while(|answer| answer.is_ok()).count();
    assert!(
        (1..20).contains(&whole) && are_right(&answers[..whole]),
        "{answers:?}"
    );
    let rest = &kinds(&answers)[whole..];
    assert!(
        rest.iter()
            .all(|kind| *kind == Some(StoreErrorKind::Unreachable)),
        "{rest:?}"
    );
    // No miss was made up.
    let metrics = remote.metrics();
    assert_eq!(metrics.errors as usize, 20 - whole);
    assert_eq!((metrics.hits + metrics.misses) as usize, whole);
}

#[tokio::test]
async fn an_answer_of_other_entries_is_never_served() {
    let frames = even(20).await;
    let served = Arc::clone(&frames);
    // Each key is answered with the entry of the key before it.
    let lies = server(&frames, move |request, _| {
        let mut keys = asked(request);
        keys.rotate_right(1);
        let entries = keys.iter().map(|key| entry(served.get(key)));
        answer(
            "200 OK",
            &[MAGIC, &entries.collect::<Vec<_>>().concat()].concat(),
        )
    });
    let remote = reader(&lies);
    let answers = remote.fetch_many(&keys(0..20)).await;
    for (number, answer) in (0..).zip(&answers) {
        match answer {
            Ok(Fetched::Hit(found)) => assert_eq!(*found, artifact(number)),
            Ok(Fetched::Miss) => {}
            other => panic!("{other:?}"),
        }
    }
    // It lied about which are there, as any server may, and frames of other keys were asked for alone.
    assert_eq!((count(&lies, "POST"), count(&lies, "GET")), (1, 10));
}

#[tokio::test]
async fn damaged_entries_stand_beside_hits_and_can_be_healed() {
    let mut damaged = HashMap::clone(&*even(20).await);
    let last = damaged.get_mut(&key(4)).unwrap().last_mut().unwrap();
    *last ^= 1;
    let damaged: Frames = Arc::new(damaged);
    let served = Arc::clone(&damaged);
    let server = ScriptedServer::start(move |request| match request.method.as_str() {
        "POST" => answer("200 OK", &batch(&served, request)),
        "PUT" => answer("201 Created", b""),
        _ => single(&served, request),
    });
    let remote = builder().writes().build(server.url()).unwrap();
    let answers = remote.fetch_many(&keys(0..20)).await;
    assert!(matches!(
        answers[4],
        Ok(Fetched::Corrupt(FrameError::BadPayload))
    ));
    assert!(are_right(&answers[..4]));
    let metrics = remote.metrics();
    assert_eq!((metrics.hits, metrics.corrupt), (9, 1));
    // An upload that changes nothing is found out, here by a batch as by a single lookup.
    remote.put(&key(4), artifact(4)).await.unwrap();
    remote.fetch_many(&keys([4, 6])).await;
    let again = remote.put(&key(4), artifact(4)).await;
    assert_eq!(again.unwrap_err().kind(), StoreErrorKind::Protocol);
}

#[tokio::test]
async fn what_is_left_out_is_asked_for_again_and_then_alone() {
    let frames = even(20).await;
    let served = Arc::clone(&frames);
    // Room for three entries; the last key never has any.
    let server = server(&frames, move |request, _| {
        let keys = asked(request);
        let entries = keys.iter().enumerate().map(|(place, asked)| {
            let has_room = place < 3 && *asked != key(18);
            match has_room {
                true => entry(served.get(asked)),
                false => NOT_SENT.to_le_bytes().to_vec(),
            }
        });
        answer(
            "200 OK",
            &[MAGIC, &entries.collect::<Vec<_>>().concat()].concat(),
        )
    });
    let remote = reader(&server);
    assert!(are_right(&remote.fetch_many(&keys(0..20)).await));
    // Of three, of which the last time two are left: 18 and 19.
    assert_eq!((count(&server, "POST"), count(&server, "GET")), (7, 1));
    let metrics = remote.metrics();
    assert_eq!((metrics.hits, metrics.misses), (10, 10));
}

#[tokio::test]
async fn a_dropped_call_holds_no_permit() {
    let frames = even(20).await;
    let server = server(&frames, |_, _| vec![Step::Hang]);
    let remote = builder()
        .max_concurrent_requests(1)
        .build(server.url())
        .unwrap();
    {
        let keys = keys(0..20);
        let mut call = pin!(remote.fetch_many(&keys));
        while count(&server, "POST") == 0 {
            assert!(poll!(&mut call).is_pending());
            tokio::task::yield_now().await;
        }
        assert!(poll!(&mut call).is_pending());
    }
    assert_eq!(remote.get(&key(2)).await.unwrap(), Some(artifact(2)));
}

#[tokio::test]
async fn nginx_is_asked_once_and_serves_the_rest_one_by_one() {
    const LOCATIONS: &str = "
        location /cache/ { dav_methods PUT DELETE; create_full_put_path on; }
        location /read-only/ { alias $folder/www/cache/; }
        location /forbidden/ { alias $folder/www/cache/; limit_except GET { deny all; } }
        location /single-page/ { alias $folder/www/cache/; error_page 404 =200 /page; }
        location /moved/ { rewrite ^/moved/(.*)$ /cache/$1 redirect; }
    ";
    let Some(nginx) = Nginx::start(LOCATIONS) else {
        return;
    };
    let writer = builder().writes().build(nginx.url("/cache")).unwrap();
    for number in (0..20).step_by(2) {
        writer.put(&key(number), artifact(number)).await.unwrap();
    }
    let paths = ["/cache", "/read-only", "/forbidden", "/moved"];
    for path in paths {
        let remote = builder()
            .bearer_token("token")
            .build(nginx.url(path))
            .unwrap();
        for _ in 0..2 {
            assert!(are_right(&remote.fetch_many(&keys(0..20)).await), "{path}");
        }
        assert_eq!(remote.metrics().errors, 0);
    }
    let log = nginx.access_log(10 + paths.len() * (1 + 2 * 20));
    for path in paths {
        let post = format!("POST {path}/batch");
        let posts = log.iter().filter(|line| line.contains(&post)).count();
        assert_eq!(posts, 1, "{path}: {log:?}");
    }
    // A page with status 200 in place of each absent entry is corrupt, as ever.
    std::fs::write(nginx.www("page"), "<!doctype html>").unwrap();
    let remote = builder().build(nginx.url("/single-page")).unwrap();
    let answers = remote.fetch_many(&keys(0..20)).await;
    assert!(matches!(answers[1], Ok(Fetched::Corrupt(_))), "{answers:?}");
    assert!(matches!(&answers[2], Ok(Fetched::Hit(found)) if *found == artifact(2)));
}
