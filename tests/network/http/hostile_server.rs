//! A server that fails, lies or attacks never makes a remote tier serve a wrong artifact, wait
//! without end, fill the memory, or give away a secret.

use crate::support::captured_trace::{capture, captured};
use crate::support::scripted_http::{
    Request, ScriptedServer, Step, answer, answer_of_length, chunk, chunked_head, redirect,
};
use pipeline_cache::network::{BreakerPolicy, RetryPolicy};
use pipeline_cache::{
    Artifact, ArtifactMetadata, Fetched, FrameError, InMemoryPipelineCache, LayeredPipelineCache,
    PipelineCacheStore, PipelineFingerprint, RemoteCache, RemoteCacheBuilder, RemoteCacheError,
    SharedSecret, StoreError, StoreErrorKind, Trust, TrustedKeys,
};
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([0x22; 32]);

/// Long enough for any answer that is coming at all.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test waits for an answer that never comes.
const SOON: Duration = Duration::from_millis(80);

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .inactivity_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .request_timeout(PATIENCE)
        .max_artifact_bytes(1024 * 1024)
        // What one request comes to is tested here, not what a tier makes of many.
        .retry(RetryPolicy::default().attempts(1))
        .breaker(BreakerPolicy::default().failure_percent(101))
}

fn reader(server: &ScriptedServer) -> RemoteCache {
    builder().build(server.url()).unwrap()
}

fn writer(server: &ScriptedServer) -> RemoteCache {
    builder().writes().build(server.url()).unwrap()
}

fn artifact() -> Artifact {
    let metadata = ArtifactMetadata::new()
        .with_provenance("ci")
        .with_device("sm_90");
    Artifact::with_metadata(vec![0xa5; 3000], metadata)
}

/// The frame as a tier with these settings writes it.
async fn frame_of(builder: RemoteCacheBuilder, key: &PipelineFingerprint) -> Vec<u8> {
    let server = ScriptedServer::always(answer("201 Created", b""));
    let remote = builder.writes().build(server.url()).unwrap();
    remote.put(key, artifact()).await.unwrap();
    server.requests().remove(0).body
}

async fn frame() -> Vec<u8> {
    frame_of(builder(), &KEY).await
}

/// What a fetch makes of these steps.
async fn fetched(steps: Vec<Step>) -> Result<Fetched, StoreError> {
    let server = ScriptedServer::always(steps);
    reader(&server).fetch(&KEY).await
}

fn kind<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

// What the server says.

#[tokio::test]
async fn a_whole_frame_is_served_however_it_is_sent() {
    let frame = frame().await;
    let (first, second) = frame.split_at(100);
    let chunked = vec![
        chunked_head(),
        Step::Send(chunk(first)),
        Step::Send([chunk(second), chunk(b"")].concat()),
    ];
    let until_close = vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()),
        Step::Send(frame.clone()),
        Step::Close,
    ];
    let one_by_one = {
        let mut steps = answer_of_length("200 OK", b"", frame.len());
        steps.push(Step::Drip(frame[..300].to_vec(), Duration::ZERO));
        steps.push(Step::Send(frame[300..].to_vec()));
        steps
    };
    for steps in [answer("200 OK", &frame), chunked, until_close, one_by_one] {
        let served = fetched(steps).await.unwrap().into_artifact().unwrap();
        assert_eq!(served, artifact());
        assert_eq!(served.metadata(), artifact().metadata());
    }
}

#[tokio::test]
async fn each_key_is_asked_under_its_own_name_below_the_base() {
    let server = ScriptedServer::always(answer("404 Not Found", b""));
    for base in ["/a/b", "/a/b/"] {
        let remote = builder().build(server.url() + base).unwrap();
        assert_eq!(remote.to_string(), format!("remote({}/a/b)", server.url()));
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
    for request in server.requests() {
        assert_eq!(request.method, "GET");
        assert_eq!(request.path, format!("/a/b/{KEY}.bin"));
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
}

#[tokio::test]
async fn every_status_of_a_read_is_a_miss_or_a_typed_error() {
    use StoreErrorKind::{PermissionDenied, Protocol, StorageFull, TooLarge, Unavailable};
    let server = ScriptedServer::start(|request| {
        let status = request.header("x-status").unwrap_or("500");
        // Whatever the status, the body is a page and never an artifact.
        answer(&format!("{status} Said So"), b"<html>page</html>")
    });
    for (status, expected) in [
        (404, None),
        (410, None),
        (201, Some(Protocol)),
        (203, Some(Protocol)),
        (206, Some(Protocol)),
        (300, Some(Protocol)),
        (302, Some(Protocol)),
        (400, Some(Protocol)),
        (401, Some(PermissionDenied)),
        (403, Some(PermissionDenied)),
        (405, Some(Protocol)),
        (407, Some(PermissionDenied)),
        (408, Some(Unavailable)),
        (413, Some(TooLarge)),
        (418, Some(Protocol)),
        (425, Some(Unavailable)),
        (429, Some(Unavailable)),
        (500, Some(Unavailable)),
        (501, Some(Unavailable)),
        (502, Some(Unavailable)),
        (503, Some(Unavailable)),
        (504, Some(Unavailable)),
        (507, Some(StorageFull)),
        (599, Some(Unavailable)),
        (999, Some(Protocol)),
    ] {
        let remote = builder()
            .header("X-Status", status.to_string())
            .build(server.url())
            .unwrap();
        let result = remote.fetch(&KEY).await;
        assert_eq!(kind(result.clone()), expected, "{status}");
        let metrics = remote.metrics();
        assert_eq!(metrics.lookups, 1, "{status}");
        match result {
            Ok(fetched) => {
                assert_eq!(fetched, Fetched::Miss, "{status}");
                assert_eq!((metrics.misses, metrics.corrupt), (1, 0), "{status}");
            }
            Err(error) => {
                assert_eq!(metrics.errors, 1, "{status}");
                let transient = expected == Some(Unavailable);
                assert_eq!(error.is_transient(), transient, "{status}");
                if status != 302 {
                    assert!(
                        format!("{error:#}").contains(&status.to_string()),
                        "{error}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn every_status_of_a_write_is_success_or_a_typed_error() {
    use StoreErrorKind::{
        PermissionDenied, Protocol, ReadOnly, StorageFull, TooLarge, Unavailable,
    };
    let server = ScriptedServer::start(|request| {
        let status = match request.method.as_str() {
            "HEAD" => "404",
            _ => request.header("x-status").unwrap_or("500"),
        };
        answer(&format!("{status} Said So"), b"")
    });
    for (status, expected) in [
        (200, None),
        (201, None),
        (202, None),
        (204, None),
        (302, Some(Protocol)),
        (400, Some(Protocol)),
        (401, Some(PermissionDenied)),
        (403, Some(PermissionDenied)),
        (404, Some(Protocol)),
        (405, Some(ReadOnly)),
        // Neither is taken at its word: HEAD says that there is nothing.
        (409, Some(Unavailable)),
        (412, Some(Unavailable)),
        (413, Some(TooLarge)),
        (429, Some(Unavailable)),
        (500, Some(Unavailable)),
        (501, Some(ReadOnly)),
        (503, Some(Unavailable)),
        (507, Some(StorageFull)),
    ] {
        let remote = builder()
            .writes()
            .header("X-Status", status.to_string())
            .build(server.url())
            .unwrap();
        let result = remote.put(&KEY, artifact()).await;
        assert_eq!(kind(result), expected, "PUT {status}");
        let metrics = remote.metrics();
        let counts = (metrics.puts, metrics.rejected_puts, metrics.put_errors);
        let expected_counts = match expected {
            None => (1, 0, 0),
            Some(TooLarge) => (0, 1, 0),
            Some(_) => (0, 0, 1),
        };
        assert_eq!(counts, expected_counts, "PUT {status}");

        // A DELETE differs where there is nothing to delete.
        let result = remote.remove(&KEY).await;
        match status {
            404 => assert!(!result.unwrap()),
            409 | 412 => assert_eq!(kind(result), Some(Protocol), "DELETE {status}"),
            _ => assert_eq!(kind(result), expected, "DELETE {status}"),
        }
        assert_eq!(remote.metrics().removes, u64::from(expected.is_none()));
    }
}

#[tokio::test]
async fn what_a_write_once_server_has_already_counts_as_stored() {
    let server = ScriptedServer::start(|request| match request.method.as_str() {
        "PUT" => answer("409 Conflict", b"there already"),
        _ => answer_of_length("200 OK", b"", 3000),
    });
    writer(&server).put(&KEY, artifact()).await.unwrap();
    let methods: Vec<_> = server.requests().into_iter().map(|r| r.method).collect();
    assert_eq!(methods, ["PUT", "HEAD"]);
}

#[tokio::test]
async fn contains_agrees_with_what_a_get_would_find() {
    let length = |length| move |_: &Request| answer_of_length("200 OK", b"", length);
    let contains = async |server: ScriptedServer| reader(&server).contains(&KEY).await;

    let server = ScriptedServer::start(length(3000));
    assert!(reader(&server).contains(&KEY).await.unwrap());
    assert_eq!(server.requests()[0].method, "HEAD");

    // Neither is a frame: an empty entry, and one above the limit.
    assert!(!contains(ScriptedServer::start(length(0))).await.unwrap());
    assert!(
        !contains(ScriptedServer::start(length(9 << 20)))
            .await
            .unwrap()
    );
    for status in ["404 Not Found", "410 Gone"] {
        let server = ScriptedServer::always(answer(status, b""));
        assert!(!contains(server).await.unwrap());
    }
    let server = ScriptedServer::always(answer("503 Busy", b""));
    assert_eq!(
        kind(contains(server).await),
        Some(StoreErrorKind::Unavailable)
    );
}

#[tokio::test]
async fn contains_asks_with_get_where_there_is_no_head() {
    for (status, expected) in [("200 OK", true), ("404 Not Found", false)] {
        let server = ScriptedServer::start(move |request| match request.method.as_str() {
            "HEAD" => answer("405 Not Allowed", b""),
            _ => answer(status, &[0; 3000]),
        });
        assert_eq!(reader(&server).contains(&KEY).await.unwrap(), expected);
        assert_eq!(server.requests().len(), 2);
    }
}

// What the server serves.

#[tokio::test]
async fn what_is_not_the_frame_of_the_key_is_corrupt_and_counted_and_never_served() {
    let good = frame().await;
    let other = frame_of(builder(), &OTHER).await;
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let html = b"<!DOCTYPE html><html><body>".repeat(20);
    for (body, reason) in [
        (vec![], FrameError::TooShort(0)),
        (b"<html></html>".to_vec(), FrameError::TooShort(13)),
        (html, FrameError::NotAFrame),
        (other, FrameError::OtherFingerprint),
        (good[..good.len() - 1].to_vec(), FrameError::LengthMismatch),
        ([&good[..], b"more"].concat(), FrameError::LengthMismatch),
        (flipped, FrameError::BadPayload),
    ] {
        let server = ScriptedServer::always(answer("200 OK", &body));
        let remote = reader(&server);
        capture();
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Corrupt(reason));
        let text = captured();
        assert_eq!(remote.get(&KEY).await.unwrap(), None);

        let metrics = remote.metrics();
        assert_eq!((metrics.corrupt, metrics.misses), (2, 2), "{reason}");
        assert_eq!((metrics.lookups, metrics.hits, metrics.errors), (2, 0, 0));
        for part in [
            "WARN",
            &remote.to_string(),
            &KEY.to_hex(),
            &reason.to_string(),
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[tokio::test]
async fn a_body_cut_short_on_the_way_is_a_transient_failure() {
    let frame = frame().await;
    let half = &frame[..frame.len() / 2];
    let cut = |mut steps: Vec<Step>, end: Step| {
        steps.push(end);
        steps
    };
    let announced = answer_of_length("200 OK", half, frame.len());
    let chunked = vec![chunked_head(), Step::Send(chunk(half))];
    for steps in [
        cut(announced.clone(), Step::Close),
        cut(announced, Step::Reset),
        cut(chunked.clone(), Step::Close),
        cut(chunked, Step::Reset),
    ] {
        let error = fetched(steps).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn what_follows_an_announced_body_is_never_taken_for_another_keys_artifact() {
    let frame = frame().await;
    let double = [answer("200 OK", &frame), answer("200 OK", &frame)].concat();
    let server = ScriptedServer::start(move |request| {
        if request.path.contains(&KEY.to_hex()) {
            double.clone()
        } else {
            answer("404 Not Found", b"")
        }
    });
    let remote = reader(&server);
    for _ in 0..5 {
        // The answer that nobody asked for may cost the connection, or stand in for the next.
        if let Ok(Fetched::Hit(served)) = remote.fetch(&KEY).await {
            assert_eq!(served.payload(), artifact().payload());
        }
        if let Ok(fetched) = remote.fetch(&OTHER).await {
            assert_eq!(fetched.into_artifact(), None);
        }
    }
    let short = answer_of_length("200 OK", &frame, frame.len() - 1);
    let corrupt = Fetched::Corrupt(FrameError::LengthMismatch);
    assert_eq!(fetched(short).await.unwrap(), corrupt);
}

#[tokio::test]
async fn an_endless_body_is_given_up_at_the_limit() {
    let endless = vec![chunked_head(), Step::Endless(chunk(&[0; 16 * 1024]))];
    let crumbs = vec![
        chunked_head(),
        Step::Endless(chunk(&[b'x'; 16]).repeat(512)),
    ];
    let unframed = vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec()),
        Step::Endless(vec![0; 16 * 1024]),
    ];
    for steps in [endless, crumbs, unframed] {
        let server = ScriptedServer::always(steps);
        let remote = builder()
            .max_artifact_bytes(128 * 1024)
            .build(server.url())
            .unwrap();
        let fetched = remote.fetch(&KEY).await.unwrap();
        assert_eq!(fetched, Fetched::Refused);
        // The limit, and what the sockets' buffers hold.
        assert!(
            server.bytes_sent() < 32 * 1024 * 1024,
            "{}",
            server.bytes_sent()
        );
    }
}

#[tokio::test]
async fn a_body_announced_above_the_limit_is_not_even_read() {
    for length in [2 << 20, 1 << 40, 1 << 62] {
        let mut steps = answer_of_length("200 OK", b"", length);
        steps.push(Step::Hang);
        let started = Instant::now();
        let fetched = fetched(steps).await.unwrap();
        assert_eq!(fetched, Fetched::Refused);
        assert!(started.elapsed() < PATIENCE, "it waited for the body");
    }
}

#[tokio::test]
async fn an_artifact_of_other_metadata_is_refused_and_counted() {
    let server = ScriptedServer::always(answer("200 OK", &frame().await));
    for (provenance, device, served) in [
        (None, None, true),
        (Some("ci"), None, true),
        (Some("ci"), Some("sm_90"), true),
        (Some("laptop"), None, false),
        (Some("ci"), Some("sm_80"), false),
    ] {
        let mut builder = builder();
        if let Some(provenance) = provenance {
            builder = builder.require_provenance(provenance);
        }
        if let Some(device) = device {
            builder = builder.require_device(device);
        }
        let remote = builder.build(server.url()).unwrap();
        let fetched = remote.fetch(&KEY).await.unwrap();
        let metrics = remote.metrics();
        if served {
            assert_eq!(fetched, Fetched::Hit(artifact()));
            assert_eq!((metrics.hits, metrics.refused), (1, 0));
        } else {
            assert_eq!(fetched, Fetched::Refused);
            assert_eq!(
                (metrics.misses, metrics.refused, metrics.corrupt),
                (1, 1, 0)
            );
        }
    }
}

#[tokio::test]
async fn with_a_secret_only_what_it_signed_is_served() {
    let secret = || SharedSecret::new("correct horse");
    let unsigned = frame().await;
    let signed = frame_of(builder().shared_secret(secret()), &KEY).await;
    for (frame, expected) in [
        (signed, Fetched::Hit(artifact())),
        (unsigned, Fetched::Refused),
    ] {
        let server = ScriptedServer::always(answer("200 OK", &frame));
        let remote = builder()
            .shared_secret(secret())
            .build(server.url())
            .unwrap();
        assert_eq!(remote.fetch(&KEY).await.unwrap(), expected);
    }
}

/// Whoever makes a frame can make its check.
fn check(frame: &mut [u8]) {
    let check = blake3::hash(&frame[..104]);
    frame[104..112].copy_from_slice(&check.as_bytes()[..8]);
}

#[tokio::test]
async fn the_good_entry_of_another_reader_is_refused_and_counted() {
    let signed = frame_of(builder().shared_secret(SharedSecret::new("s")), &KEY).await;
    let mut later = frame().await;
    later[8] = 2;
    check(&mut later);
    let small = || builder().max_artifact_bytes(100);
    for (what, frame, reader) in [
        ("another secret", signed, builder()),
        ("a later version", later, builder()),
        ("a smaller limit", frame().await, small()),
    ] {
        let server = ScriptedServer::always(answer("200 OK", &frame));
        let remote = reader.build(server.url()).unwrap();
        assert_eq!(
            remote.fetch(&KEY).await.unwrap(),
            Fetched::Refused,
            "{what}"
        );
        let metrics = remote.metrics();
        let counted = (metrics.refused, metrics.misses, metrics.corrupt);
        assert_eq!(counted, (1, 1, 0), "{what}");
        assert_eq!((metrics.lookups, metrics.errors), (1, 0), "{what}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Served,
    Corrupt,
    Refused,
}

#[tokio::test]
async fn what_the_secrets_did_not_sign_is_refused_and_counted() {
    let secret = |text: &str| SharedSecret::new(text);
    let signed_with = async |text: &str, key: &PipelineFingerprint| {
        frame_of(builder().shared_secret(secret(text)), key).await
    };
    let keys = || TrustedKeys::new(secret("new")).also_accepting(secret("old"));
    let (new, old) = (
        signed_with("new", &KEY).await,
        signed_with("old", &KEY).await,
    );
    let strange = signed_with("strange", &KEY).await;
    let replayed = signed_with("new", &OTHER).await;
    let unsigned = frame().await;
    // The unsigned header says that it is signed.
    let mut claimed = unsigned.clone();
    claimed[10] = 1;
    check(&mut claimed);
    // It even names the secret.
    let mut named = claimed.clone();
    named[96..104].copy_from_slice(&new[96..104]);
    check(&mut named);
    // The body, the metadata and the tag of frames that are good by themselves.
    let mut swapped = new.clone();
    let body = swapped.len() - 3000;
    swapped[body..].fill(0x5a);
    let mut edited = new.clone();
    edited[150] ^= 1;
    let mut grafted = unsigned.clone();
    grafted[..144].copy_from_slice(&replayed[..144]);
    let mut truncated = new.clone();
    truncated.truncate(new.len() - 1);
    let extended = [&new[..], &[0]].concat();
    use Expected::{Corrupt, Refused, Served};
    for (attack, frame, expected, unauthenticated) in [
        ("new", new, Served, 0),
        ("old", old, Served, 0),
        ("strange secret", strange, Refused, 1),
        ("unsigned", unsigned, Refused, 1),
        ("claims to be signed", claimed, Refused, 1),
        ("names the secret", named, Corrupt, 1),
        ("replayed under another key", replayed, Corrupt, 0),
        ("swapped body", swapped, Corrupt, 0),
        ("edited metadata", edited, Corrupt, 1),
        ("grafted header", grafted, Corrupt, 0),
        ("truncated", truncated, Corrupt, 0),
        ("extended", extended, Corrupt, 0),
    ] {
        let server = ScriptedServer::always(answer("200 OK", &frame));
        let remote = builder()
            .trust(Trust::Authenticated(keys()))
            .build(server.url())
            .unwrap();
        let got = remote.get(&KEY).await.unwrap();
        assert_eq!(got.is_some(), expected == Served, "{attack}");
        let metrics = remote.metrics();
        let counted = (metrics.corrupt, metrics.refused);
        let expected = (
            u64::from(expected == Corrupt),
            u64::from(expected == Refused),
        );
        assert_eq!(counted, expected, "{attack}");
        assert_eq!(metrics.unauthenticated, unauthenticated, "{attack}");
    }
}

#[tokio::test]
async fn a_server_that_is_only_believed_for_now_is_never_promoted_from() {
    let server = ScriptedServer::always(answer("200 OK", &frame().await));
    for (trust, promoted) in [(Trust::Server, 1), (Trust::ServerUnpromoted, 0)] {
        let memory = Arc::new(InMemoryPipelineCache::new());
        let remote = Arc::new(builder().trust(trust).build(server.url()).unwrap());
        assert_eq!(remote.is_trusted_source(), promoted == 1);
        let layers = [Arc::clone(&memory) as Arc<dyn PipelineCacheStore>, remote];
        let cache = LayeredPipelineCache::new(layers);
        for _ in 0..3 {
            assert_eq!(cache.get(&KEY).await, Some(artifact()));
            cache.flush().await.unwrap();
        }
        assert_eq!(memory.len(), promoted);
        assert_eq!(cache.promotion_report().promoted, promoted);
    }
}

#[cfg(feature = "zstd")]
#[tokio::test]
async fn a_compressed_entry_is_short_on_the_way_and_whole_on_arrival() {
    let compressed = frame_of(builder().zstd(3, 1000), &KEY).await;
    assert!(compressed.len() < 500, "{}", compressed.len());
    let hit = fetched(answer("200 OK", &compressed)).await.unwrap();
    assert_eq!(hit, Fetched::Hit(artifact()));
    let plain = frame_of(builder().zstd(3, 100_000), &KEY).await;
    assert_eq!(plain, frame().await);
}

// When nothing comes.

#[tokio::test]
async fn a_server_that_hangs_costs_the_inactivity_limit() {
    let mut mid_body = answer_of_length("200 OK", &[0; 100], 1000);
    mid_body.push(Step::Hang);
    for steps in [vec![Step::Hang], mid_body] {
        let server = ScriptedServer::always(steps);
        let remote = builder()
            .inactivity_timeout(SOON)
            .build(server.url())
            .unwrap();
        let started = Instant::now();
        let error = remote.fetch(&KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::TimedOut, "{error}");
        assert!(error.is_transient());
        assert!((SOON..PATIENCE).contains(&started.elapsed()));
        assert_eq!(remote.metrics().errors, 1);
    }
}

#[tokio::test]
async fn a_server_that_drips_costs_the_whole_requests_limit() {
    let mut steps = answer_of_length("200 OK", b"", 100_000);
    steps.push(Step::Drip(vec![0; 100_000], Duration::from_millis(2)));
    let server = ScriptedServer::always(steps);
    let remote = builder()
        .request_timeout(SOON * 3)
        .build(server.url())
        .unwrap();
    let started = Instant::now();
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TimedOut, "{error}");
    assert!((SOON * 3..PATIENCE).contains(&started.elapsed()));
}

#[tokio::test]
async fn waiting_for_a_slot_is_part_of_the_limit() {
    const LIMIT: Duration = Duration::from_millis(400);
    let server = ScriptedServer::always(vec![Step::Hang]);
    let remote = builder()
        .max_concurrent_requests(1)
        .request_timeout(LIMIT)
        .build(server.url())
        .unwrap();
    let started = Instant::now();
    for result in futures::future::join_all([KEY; 50].iter().map(|key| remote.fetch(key))).await {
        assert_eq!(kind(result), Some(StoreErrorKind::TimedOut));
    }
    assert!(started.elapsed() < LIMIT * 25, "one after the other");
}

#[tokio::test]
async fn a_dropped_lookup_gives_its_slot_back_and_counts_nothing() {
    let server = ScriptedServer::start(|request| {
        if request.path.contains(&KEY.to_hex()) {
            vec![Step::Hang]
        } else {
            answer("404 Not Found", b"")
        }
    });
    let remote = builder()
        .max_concurrent_requests(1)
        .build(server.url())
        .unwrap();
    for _ in 0..3 {
        let dropped = tokio::time::timeout(SOON, remote.fetch(&KEY)).await;
        assert!(dropped.is_err());
        assert_eq!(remote.fetch(&OTHER).await.unwrap(), Fetched::Miss);
    }
    assert_eq!(remote.metrics().lookups, 3);
}

#[tokio::test]
async fn an_upload_that_moves_is_not_taken_for_one_that_hangs() {
    const INACTIVITY: Duration = Duration::from_secs(1);
    let payload = vec![7; 16 << 20];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // A small window, so that the pace of this side is the pace of the other.
    let socket = socket2::SockRef::from(&listener);
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let length = payload.len();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = 0;
        let mut buffer = vec![0; 64 * 1024];
        while received < length {
            received += stream.read(&mut buffer).unwrap();
            // The second half may lie in the sockets' buffers already, where nothing moves for
            // the client to see.
            if received < length / 2 {
                thread::sleep(Duration::from_millis(14));
            }
        }
        // The heads were read as well, so a last bit of the body is still to come.
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let remote = builder()
        .writes()
        .max_artifact_bytes(32 << 20)
        .inactivity_timeout(INACTIVITY)
        .build(url)
        .unwrap();
    let started = Instant::now();
    remote.put(&KEY, Artifact::new(payload)).await.unwrap();
    assert!(started.elapsed() > INACTIVITY, "too fast to show anything");
}

/// As over a slow uplink: the system has taken the whole body, and the server has not.
#[tokio::test]
async fn an_upload_has_time_for_what_the_system_still_has_to_send() {
    let server = ScriptedServer::always(
        [
            // Not a byte of the response for much longer than the inactivity timeout.
            vec![Step::Drip(b"HTTP/1.1 ".to_vec(), SOON)],
            vec![Step::Send(
                b"201 Created\r\nContent-Length: 0\r\n\r\n".to_vec(),
            )],
        ]
        .concat(),
    );
    let remote = builder().writes().inactivity_timeout(SOON);
    let remote = remote.build(server.url()).unwrap();
    let upload = Artifact::new(vec![7; 256 << 10]);
    remote.put(&KEY, upload).await.unwrap();
}

/// Plus what the system may still have to send, see `inactivity_timeout`.
#[tokio::test]
async fn an_upload_that_stands_still_costs_the_inactivity_limit() {
    // Connections are taken by the system and never read.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let remote = builder()
        .writes()
        .max_artifact_bytes(64 << 20)
        .inactivity_timeout(SOON)
        .build(url)
        .unwrap();
    let started = Instant::now();
    let error = remote
        .put(&KEY, Artifact::new(vec![7; 48 << 20]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TimedOut, "{error}");
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(remote.metrics().put_errors, 1);
}

// When there is no server, or none that speaks HTTP.

#[tokio::test]
async fn a_server_that_is_not_there_or_breaks_off_is_unreachable() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let refused = builder().build(url).unwrap().fetch(&KEY).await;
    let reset = fetched(vec![Step::Reset]).await;
    let closed = fetched(vec![Step::Close]).await;
    let cut_head = fetched(vec![
        Step::Send(b"HTTP/1.1 200 OK\r\nCont".to_vec()),
        Step::Close,
    ])
    .await;
    for result in [refused, reset, closed, cut_head] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
        assert!(error.is_transient());
    }
}

/// The system takes the connection, and nobody answers the TLS handshake.
#[tokio::test]
async fn a_connection_that_does_not_open_costs_the_connect_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let remote = builder().connect_timeout(SOON).build(url).unwrap();
    let started = Instant::now();
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TimedOut, "{error}");
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn what_is_no_http_is_a_protocol_error() {
    for bytes in [
        &b"220 mail.example.com ESMTP\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &b"HTTP/1.1 200 OK\r\nX: "
            .iter()
            .chain([b'a'; 2 << 20].iter())
            .copied()
            .collect::<Vec<_>>(),
    ] {
        let result = fetched(vec![Step::Send(bytes.to_vec()), Step::Close]).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn what_is_no_tls_is_a_protocol_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let remote = builder().build(url).unwrap();
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error}");
}

/// The platform's certificates are found through the environment, which a test only has to itself
/// in a process of its own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_machine_without_root_certificates_can_still_ask_over_plain_http() {
    const NAME: &str =
        "http::hostile_server::a_machine_without_root_certificates_can_still_ask_over_plain_http";
    const NOWHERE: &str = "/nonexistent";
    if std::env::var("SSL_CERT_FILE").is_ok_and(|file| file == NOWHERE) {
        let server = ScriptedServer::always(answer("404 Not Found", b""));
        assert_eq!(reader(&server).fetch(&KEY).await.unwrap(), Fetched::Miss);
        let error = builder().build("https://127.0.0.1").unwrap_err();
        assert!(matches!(error, RemoteCacheError::Client { .. }), "{error}");
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env("SSL_CERT_FILE", NOWHERE)
        .env("SSL_CERT_DIR", NOWHERE)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

// Redirects and secrets.

#[tokio::test]
async fn redirects_are_followed_within_their_limit() {
    let frame = frame().await;
    let server = ScriptedServer::start(move |request| match request.path.as_str() {
        "/moved" => answer("200 OK", &frame),
        path if path.contains(&KEY.to_hex()) => redirect("302 Found", "/moved"),
        _ => redirect("302 Found", &request.path),
    });
    let hit = reader(&server).fetch(&KEY).await.unwrap();
    assert_eq!(hit, Fetched::Hit(artifact()));

    for limit in [0, 3] {
        let before = server.requests().len();
        let remote = builder().max_redirects(limit).build(server.url()).unwrap();
        let error = remote.fetch(&OTHER).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{error}");
        assert_eq!(server.requests().len() - before, limit + 1);
    }
}

#[tokio::test]
async fn a_redirected_write_arrives_whole_or_not_at_all() {
    let server = ScriptedServer::start(|request| match request.path.as_str() {
        "/moved" => answer("201 Created", b""),
        path if path.contains(&KEY.to_hex()) => redirect("307 Temporary Redirect", "/moved"),
        _ => redirect("302 Found", "/moved"),
    });
    let remote = writer(&server);
    remote.put(&KEY, artifact()).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].method, "PUT");
    assert_eq!(requests[1].body, requests[0].body);

    let error = remote.put(&OTHER, artifact()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Protocol);
    assert_eq!(server.requests().len(), 3, "a PUT was turned into a GET");
}

#[tokio::test]
async fn credentials_stay_with_the_server_they_are_for() {
    let frame = frame().await;
    let home = Arc::new(std::sync::OnceLock::<String>::new());
    let back = Arc::clone(&home);
    let elsewhere = ScriptedServer::start(move |_| {
        // And back again, to see whether the credentials come along now.
        redirect(
            "307 Temporary Redirect",
            &format!("{}/back", back.get().unwrap()),
        )
    });
    let away = elsewhere.url();
    let server = ScriptedServer::start(move |request| match request.path.as_str() {
        "/here" => redirect("307 Temporary Redirect", &format!("{away}/there")),
        "/back" => answer("200 OK", &frame),
        _ => redirect("307 Temporary Redirect", "/here"),
    });
    home.set(server.url()).unwrap();
    let remote = builder()
        .bearer_token("hunter2")
        .header("X-Api-Key", "hunter2")
        .build(server.url())
        .unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Hit(artifact()));

    let credentials = |request: &Request| {
        let bearer = request.header("authorization") == Some("Bearer hunter2");
        assert_eq!(bearer, request.header("x-api-key") == Some("hunter2"));
        bearer
    };
    let at_home: Vec<_> = server.requests().iter().map(credentials).collect();
    assert_eq!(at_home, [true, true, false]);
    let abroad = &elsewhere.requests()[0];
    assert!(!credentials(abroad));
    assert!(!format!("{abroad:?}").contains("hunter2"), "{abroad:?}");
}

#[tokio::test]
async fn basic_credentials_are_encoded() {
    let server = ScriptedServer::always(answer("404 Not Found", b""));
    let remote = builder()
        .bearer_token("replaced")
        .basic_auth("Aladdin", "open sesame")
        .build(server.url())
        .unwrap();
    remote.fetch(&KEY).await.unwrap();
    let header = server.requests()[0]
        .header("authorization")
        .map(str::to_owned);
    assert_eq!(
        header.as_deref(),
        Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
    );
}

#[tokio::test]
async fn headers_that_cannot_be_sent_are_refused_without_repeating_them() {
    for (name, value) in [
        ("X-Key", "hunter2\r\nX-Forged: 1"),
        ("X Key", "hunter2"),
        ("Content-Length", "hunter2"),
        ("transfer-encoding", "hunter2"),
    ] {
        let error = builder().header(name, value).build("http://h").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    let error = builder()
        .bearer_token("hunter2\n")
        .build("http://h")
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

/// A server of HTTP/2 that ends every connection with its first request, and says why.
fn goes_away(why: &'static str) -> String {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const ENHANCE_YOUR_CALM: u32 = 11;
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &[0; 4], payload].concat()
    };
    let last_stream_and_reason = [0, ENHANCE_YOUR_CALM].map(u32::to_be_bytes).concat();
    let goaway = [&last_stream_and_reason[..], why.as_bytes()].concat();
    let said = [frame(SETTINGS, &[]), frame(GOAWAY, &goaway)];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut answer = || {
                stream.read_exact(&mut [0; 24])?;
                stream.write_all(&said[0])?;
                let mut head = [0; 9];
                while head[3] != HEADERS {
                    stream.read_exact(&mut head)?;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    stream.read_exact(&mut vec![0; length as usize])?;
                }
                stream.write_all(&said[1])?;
                // The client leaves once it has read that.
                std::io::copy(&mut stream, &mut std::io::sink())
            };
            // A client that leaves sooner is no failure.
            let _ = answer();
        }
    });
    url
}

#[tokio::test]
async fn secrets_are_never_printed() {
    const SECRETS: [&str; 5] = ["hunter2", "aHVudGVy", "swordfish", "c3dvcmRmaXNo", "xyzzy"];
    let assert_clean = |what: &str, text: &str| {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{secret} in {what}: {text}");
        }
    };
    let assert_error_clean = |error: &StoreError| {
        assert_clean("an error", &format!("{error} {error:?} {error:#?}"));
        let mut source = error.source();
        while let Some(error) = source {
            assert_clean("a source", &format!("{error} {error:?}"));
            source = error.source();
        }
    };
    capture();

    // The server echoes what it was given wherever it can, and fails in every way.
    let server = ScriptedServer::start(|request| {
        let stolen = request
            .header("authorization")
            .unwrap_or_default()
            .to_owned();
        let api_key = request.header("x-api-key").unwrap_or_default().to_owned();
        match request.path.as_bytes()[1] {
            b'0' => answer(&format!("500 {stolen}"), api_key.as_bytes()),
            b'1' => answer("200 OK", (stolen + &api_key).repeat(100).as_bytes()),
            b'2' => redirect("302 Found", &format!("http://127.0.0.1:1/?{api_key}")),
            b'3' => redirect("302 Found", &format!("ftp://{api_key}@h/")),
            b'4' => vec![
                Step::Send(format!("{api_key}\r\n\r\n").into_bytes()),
                Step::Close,
            ],
            b'5' => vec![Step::Hang],
            _ => vec![Step::Reset],
        }
    });
    let common = || {
        builder()
            .inactivity_timeout(SOON)
            .shared_secret(SharedSecret::new("xyzzy"))
            .header("X-Api-Key", "hunter2")
            .writes()
    };
    for builder in [
        common().bearer_token("swordfish"),
        common().basic_auth("hunter", "swordfish"),
    ] {
        assert_clean("the builder", &format!("{builder:?}"));
        let remote = builder.build(server.url()).unwrap();
        for first in 0..=6_u8 {
            let key = PipelineFingerprint::from_bytes([first << 4; 32]);
            let results = [
                remote.fetch(&key).await.map(|_| ()),
                remote.put(&key, artifact()).await,
                remote.remove(&key).await.map(|_| ()),
                remote.contains(&key).await.map(|_| ()),
            ];
            for error in results.into_iter().filter_map(Result::err) {
                assert_error_clean(&error);
            }
        }
        assert_clean("the tier", &format!("{remote} {remote:?} {remote:#?}"));
    }
    let text = captured();
    assert!(text.contains("request failed"), "{text}");
    assert_clean("the trace", &text);

    // What the client itself traces of HTTP/2 it says at its own levels, to whoever wants them.
    capture();
    let url = goes_away("bad token Bearer hunter2");
    let remote = builder().http2_prior_knowledge().build(url).unwrap();
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");
    assert!(format!("{error:#}").contains("http2"), "{error}");
    assert_error_clean(&error);
    let text = captured();
    let ours = text.lines().filter(|line| line.contains(" tier="));
    assert!(ours.clone().any(|line| line.contains("request failed")));
    for line in ours {
        assert_clean("the trace", line);
    }

    // The server did hold them.
    let requests = format!("{:?}", server.requests());
    assert!(requests.contains("hunter2") && requests.contains("swordfish"));
}

// Writes and the tier's own rules.

#[tokio::test]
async fn a_put_sends_the_whole_frame_with_its_length() {
    let server = ScriptedServer::always(answer("201 Created", b""));
    let remote = writer(&server);
    remote.put(&KEY, artifact()).await.unwrap();
    remote.put(&OTHER, Artifact::new("")).await.unwrap();
    for request in server.requests() {
        assert_eq!(request.method, "PUT");
        let length = request.header("content-length").map(str::to_owned);
        assert_eq!(length, Some(request.body.len().to_string()));
        assert_eq!(request.header("transfer-encoding"), None);
    }
    let body = server.requests().remove(0).body;
    assert_eq!(
        fetched(answer("200 OK", &body)).await.unwrap(),
        Fetched::Hit(artifact())
    );
}

#[tokio::test]
async fn writes_are_refused_unless_asked_for_and_nothing_is_sent() {
    let server = ScriptedServer::always(answer("200 OK", b""));
    let remote = reader(&server);
    assert!(!remote.is_writable());
    let put = remote.put(&KEY, artifact()).await;
    assert_eq!(kind(put), Some(StoreErrorKind::ReadOnly));
    let remove = remote.remove(&KEY).await;
    assert_eq!(kind(remove), Some(StoreErrorKind::ReadOnly));

    let remote = writer(&server);
    let put = remote
        .put(&KEY, Artifact::new(vec![0; 1024 * 1024 + 1]))
        .await;
    assert_eq!(kind(put), Some(StoreErrorKind::TooLarge));
    assert_eq!(remote.metrics().rejected_puts, 1);
    let metadata = ArtifactMetadata::new().with_device("x".repeat(1 << 20));
    let put = remote
        .put(&KEY, Artifact::with_metadata("", metadata))
        .await;
    assert_eq!(kind(put), Some(StoreErrorKind::InvalidArtifact));

    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_closed_tier_reads_and_writes_no_more() {
    let server = ScriptedServer::always(answer("404 Not Found", b""));
    let remote = writer(&server);
    assert!(remote.is_writable());
    remote.flush().await.unwrap();
    remote.close(SOON).await.unwrap();
    remote.close(SOON).await.unwrap();
    assert!(!remote.is_writable());
    let put = remote.put(&KEY, artifact()).await;
    assert_eq!(kind(put), Some(StoreErrorKind::Closed));
    let remove = remote.remove(&KEY).await;
    assert_eq!(kind(remove), Some(StoreErrorKind::Closed));
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert_eq!(remote.metrics().flushes, 1);
}

#[tokio::test]
async fn misses_and_refusals_keep_their_connection() {
    let server = ScriptedServer::start(|request| {
        let status = match request.method.as_str() {
            "GET" => "404 Not Found",
            _ => "503 Busy",
        };
        let page = vec![b'x'; 2000];
        let mut steps = answer_of_length(status, b"", page.len());
        // The page comes after the answer was understood.
        steps.push(Step::Drip(page[..3].to_vec(), Duration::from_millis(3)));
        steps.push(Step::Send(page[3..].to_vec()));
        steps
    });
    let remote = writer(&server);
    for _ in 0..3 {
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
        let put = remote.put(&KEY, artifact()).await;
        assert_eq!(kind(put), Some(StoreErrorKind::Unavailable));
    }
    // One, unless this machine was too busy to send a page in time.
    assert!(server.connections() <= 3, "{}", server.connections());
}

#[tokio::test]
async fn a_page_that_never_ends_does_not_hold_up_a_miss() {
    let mut steps = answer_of_length("404 Not Found", b"", 1000);
    steps.push(Step::Hang);
    let started = Instant::now();
    assert_eq!(fetched(steps).await.unwrap(), Fetched::Miss);
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_requests_are_under_way_than_allowed() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (running, highest) = (Arc::clone(&now), Arc::clone(&most));
    let server = ScriptedServer::start(move |_| {
        highest.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Work that others have time to run into.
        thread::sleep(Duration::from_millis(2));
        running.fetch_sub(1, Ordering::SeqCst);
        answer("404 Not Found", b"")
    });
    let remote = Arc::new(
        builder()
            .max_concurrent_requests(4)
            .build(server.url())
            .unwrap(),
    );
    let mut lookups = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let remote = Arc::clone(&remote);
        lookups.spawn(async move { remote.fetch(&KEY).await });
    }
    while let Some(result) = lookups.join_next().await {
        assert_eq!(result.unwrap().unwrap(), Fetched::Miss);
    }
    let most = most.load(Ordering::SeqCst);
    assert!((2..=4).contains(&most), "{most} at once");
    assert_eq!(remote.metrics().misses, 200);
}
