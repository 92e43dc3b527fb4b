//! An object store is a tier like any other: it keeps the contract, verifies what it serves, and
//! says what failed.

use crate::support::scripted_http::{ScriptedServer, Step, answer, chunk, redirect};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use pipeline_cache::network::{BreakerState, RetryPolicy};
use pipeline_cache::testing::check_conformance;
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileInput, CompileScope, DiskCache, Fetched, FrameError,
    LayeredPipelineCache, ObjectStoreCache, ObjectStoreCacheBuilder, OpaqueProgram,
    PipelineCacheStore, PipelineFingerprint, SharedSecret, StoreErrorKind, Trust, TrustedKeys,
    Unkeyable,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);

fn writing(store: &Arc<InMemory>) -> ObjectStoreCache {
    let store = Arc::clone(store) as Arc<dyn ObjectStore>;
    ObjectStoreCache::builder()
        .writes()
        .build_on(store, "artifacts")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_conforms_in_memory_and_on_a_folder() {
    let in_memory = || async {
        // This store copies what is put, on the worker: nothing large, then.
        let store = ObjectStoreCache::builder()
            .writes()
            .max_artifact_bytes(1 << 20)
            .build_on(Arc::new(InMemory::new()), "a/b");
        Arc::new(store) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(in_memory, &[]).await.unwrap();

    let folders = Mutex::new(Vec::new());
    let on_a_folder = || async {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        folders.lock().unwrap().push(folder);
        let cache = ObjectStoreCache::builder()
            .writes()
            .build_on(Arc::new(store), "");
        Arc::new(cache) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(on_a_folder, &[]).await.unwrap();

    let read_only = || async { Arc::new(ObjectStoreCache::new("memory:///x").unwrap()) as _ };
    check_conformance(read_only, &[]).await.unwrap();
}

#[tokio::test]
async fn an_artifact_without_the_required_metadata_is_refused() {
    let store = Arc::new(InMemory::new());
    let metadata = ArtifactMetadata::new().with_provenance("ci");
    let artifact = Artifact::with_metadata("code", metadata);
    writing(&store).put(&KEY, artifact.clone()).await.unwrap();
    for (provenance, expected) in [("ci", Fetched::Hit(artifact)), ("laptop", Fetched::Refused)] {
        let cache = ObjectStoreCache::builder()
            .require_provenance(provenance)
            .build_on(Arc::clone(&store) as _, "artifacts");
        assert_eq!(cache.clone().fetch(&KEY).await.unwrap(), expected);
        let refused = u64::from(expected == Fetched::Refused);
        assert_eq!(cache.metrics().refused, refused);
    }
}

/// The stored form is one: what a disk tier wrote, an object store over its folder serves.
#[tokio::test]
async fn the_folder_of_a_disk_tier_is_an_object_store() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache::new(folder.path()).await.unwrap();
    disk.put(&KEY, Artifact::new("code")).await.unwrap();
    let url = format!("file://{}", folder.path().display());
    let cache = ObjectStoreCache::new(url).unwrap();
    assert_eq!(cache.get(&KEY).await.unwrap(), Some(Artifact::new("code")));
}

/// One switch, and the bucket of the artifacts knows spellings for the next machine.
#[tokio::test]
async fn aliases_stand_in_a_folder_of_their_own() {
    let store = Arc::new(InMemory::new());
    let scope = CompileScope::new("upper-caser 1", "ascii").unwrap();
    for machine in 0..2 {
        let tier = Arc::new(writing(&store));
        let cache = LayeredPipelineCache::builder()
            .tier(Arc::clone(&tier))
            .keep_aliases()
            .build();
        let parse = move |text: &Bytes| {
            assert_eq!(machine, 0, "parsed again");
            Ok::<_, Unkeyable>(OpaqueProgram::new("text", text.clone()))
        };
        let request = cache.compile(&scope).source("text 1", "hello", parse);
        let compile = |input: CompileInput<OpaqueProgram>, _: &_| {
            Ok(Artifact::new(input.into_canonical()?.bytes().clone()))
        };
        let compiled = request.run(compile).await.unwrap();
        let key = compiled.key.unwrap();
        cache.flush().await.unwrap();
        let names = store
            .list(None)
            .map_ok(|object| object.location.to_string());
        let names: Vec<_> = names.try_collect().await.unwrap();
        let is_alias = |name: &String| name.starts_with("artifacts/aliases/");
        let (aliases, artifacts): (Vec<_>, Vec<_>) = names.into_iter().partition(is_alias);
        assert_eq!(artifacts, [format!("artifacts/{key}.bin")]);
        assert_eq!(aliases.len(), 1, "{aliases:?}");
        let tier = &cache.layered_metrics().tiers[0];
        let (store, aliases) = (tier.store, tier.aliases);
        assert_eq!((store.puts, aliases.puts), (1 - machine, 1 - machine));
        assert_eq!((store.misses, aliases.misses), (1 - machine, 1 - machine));
        assert_eq!((store.hits, aliases.hits), (machine, machine));
    }
}

#[tokio::test]
async fn what_is_not_the_artifact_is_corrupt_and_healed_by_the_next_put() {
    let store = Arc::new(InMemory::new());
    let cache = writing(&store);
    cache.put(&KEY, Artifact::new("code")).await.unwrap();
    let path = Path::from(format!("artifacts/{KEY}.bin"));
    let frame = store.get(&path).await.unwrap().bytes().await.unwrap();
    let other = Path::from(format!(
        "artifacts/{}.bin",
        PipelineFingerprint::from_bytes([8; 32])
    ));
    store
        .put(&other, PutPayload::from(frame.clone()))
        .await
        .unwrap();
    let renamed = cache
        .fetch(&PipelineFingerprint::from_bytes([8; 32]))
        .await
        .unwrap();
    assert!(matches!(renamed, Fetched::Corrupt(_)));

    let mut flipped = frame.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    for bad in [
        Vec::new(),
        b"<html>".to_vec(),
        frame[..frame.len() - 1].to_vec(),
        flipped,
    ] {
        store.put(&path, PutPayload::from(bad)).await.unwrap();
        assert!(matches!(
            cache.fetch(&KEY).await.unwrap(),
            Fetched::Corrupt(_)
        ));
        cache.put(&KEY, Artifact::new("code")).await.unwrap();
        assert_eq!(cache.get(&KEY).await.unwrap(), Some(Artifact::new("code")));
    }
    assert_eq!(cache.metrics().corrupt, 5);
}

#[tokio::test]
async fn an_object_longer_than_any_frame_is_not_read() {
    let store = Arc::new(InMemory::new());
    let path = Path::from(format!("artifacts/{KEY}.bin"));
    store
        .put(&path, PutPayload::from(vec![0; 1 << 20]))
        .await
        .unwrap();
    let builder = ObjectStoreCache::builder().max_artifact_bytes(1_000);
    let cache = builder.build_on(Arc::clone(&store) as Arc<dyn ObjectStore>, "artifacts");
    assert_eq!(cache.fetch(&KEY).await.unwrap(), Fetched::Refused);
    assert_eq!((cache.metrics().refused, cache.metrics().corrupt), (1, 0));
    assert!(!cache.contains(&KEY).await.unwrap());
}

#[tokio::test]
async fn an_entry_written_without_the_secret_is_not_served() {
    let store = Arc::new(InMemory::new());
    writing(&store)
        .put(&KEY, Artifact::new("forged"))
        .await
        .unwrap();
    let trust = Trust::Authenticated(TrustedKeys::from(SharedSecret::new("s")));
    let builder = ObjectStoreCache::builder().trust(trust).writes();
    let cache = builder.build_on(Arc::clone(&store) as Arc<dyn ObjectStore>, "artifacts");
    assert_eq!(cache.get(&KEY).await.unwrap(), None);
    assert_eq!(cache.metrics().unauthenticated, 1);
    cache.put(&KEY, Artifact::new("code")).await.unwrap();
    assert_eq!(cache.get(&KEY).await.unwrap(), Some(Artifact::new("code")));
}

/// No key of any real account, and no server: the store is set up, fails, and says neither.
#[tokio::test]
async fn a_store_that_cannot_be_set_up_or_reached_is_a_typed_error() {
    for (url, expected) in [
        ("no url", "not valid"),
        ("s3://bucket/hunter2//x", "path"),
        ("gopher://x/y", "not that of an object store"),
        (
            "https://user:hunter2@example.com/x?y",
            "not that of an object store",
        ),
        ("az://hunter2/x", "a setting"),
    ] {
        let error = ObjectStoreCache::new(url).unwrap_err().to_string();
        assert!(error.contains(expected), "{url}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let cache = ObjectStoreCache::builder().build_on(Arc::new(InMemory::new()), "x");
    let error = cache.put(&KEY, Artifact::new("x")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
}

/// S3 says so while another write of the object is under way, or where a body came too slowly.
#[tokio::test]
async fn a_write_that_fails_for_a_passing_reason_is_made_again() {
    for (status, body) in [
        ("409 Conflict", "<Code>OperationAborted</Code>"),
        ("409 Conflict", "<Code>ConditionalRequestConflict</Code>"),
        ("412 Precondition Failed", "<Code>PreconditionFailed</Code>"),
        ("400 Bad Request", "<Code>RequestTimeout</Code>"),
    ] {
        let puts = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&puts);
        let server = ScriptedServer::start(move |request| match request.method.as_str() {
            "PUT" if count.fetch_add(1, Ordering::SeqCst) == 0 => answer(status, body.as_bytes()),
            "PUT" => answer("200 OK\r\nETag: \"1\"", b""),
            _ => answer("404 Not Found", b""),
        });
        let cache = on_s3(&server).writes().build("s3://bucket").unwrap();
        let put = cache.put(&KEY, Artifact::new("code")).await;
        assert!(put.is_ok(), "{body}: {put:?}");
        assert_eq!(puts.load(Ordering::SeqCst), 2, "{body}");
        // It will fail again.
        let expired = ScriptedServer::always(answer(status, b"<Code>ExpiredToken</Code>"));
        let cache = on_s3(&expired).build("s3://bucket").unwrap();
        let error = cache.get(&KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Protocol, "{body}");
    }
}

/// A bucket says 403 for what is not there to credentials that may not list it.
#[tokio::test]
async fn statuses_can_mean_absence_and_are_an_error_of_the_key_alone_otherwise() {
    let server = ScriptedServer::always(answer("403 Forbidden", b"<Code>AccessDenied</Code>"));
    let cache = on_s3(&server).absent_statuses([403, 404]).writes();
    let cache = cache.build("s3://bucket").unwrap();
    assert_eq!(cache.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert!(!cache.contains(&KEY).await.unwrap());
    // A refused write is not one of something that is not there.
    let put = cache.put(&KEY, Artifact::new("code")).await;
    assert_eq!(put.unwrap_err().kind(), StoreErrorKind::PermissionDenied);
    let removed = cache.remove(&KEY).await;
    assert_eq!(
        removed.unwrap_err().kind(),
        StoreErrorKind::PermissionDenied
    );

    let head = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\n\
                Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let frame = Artifact::new("code").to_frame(&KEY, None).unwrap();
    let length = format!("Content-Length: {}\r\n\r\n", frame.len());
    let entry = [head.as_bytes(), length.as_bytes(), frame.as_ref()].concat();
    let server = ScriptedServer::start(move |request| match request.path.contains(&KEY.to_hex()) {
        true => vec![Step::Send(entry.clone())],
        false => answer("403 Forbidden", b""),
    });
    let cache = on_s3(&server).build("s3://bucket").unwrap();
    for other in 0..7 {
        let other = PipelineFingerprint::from_bytes([other; 32]);
        let refused = cache.fetch(&other).await.unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
        assert_eq!(cache.get(&KEY).await.unwrap(), Some(Artifact::new("code")));
    }
}

#[tokio::test]
async fn a_store_that_never_answers_impatient_callers_opens_the_breaker() {
    let server = ScriptedServer::always(vec![Step::Hang]);
    let cache = on_s3(&server).build("s3://bucket").unwrap();
    for _ in 0..10 {
        let _ = tokio::time::timeout(Duration::from_millis(50), cache.fetch(&KEY)).await;
    }
    let mut state = cache.watch_breaker();
    let opens = state.wait_for(|state| *state != BreakerState::Closed);
    let opens = tokio::time::timeout(Duration::from_secs(20), opens).await;
    assert!(opens.is_ok(), "never learnt");
}

fn on_s3(server: &ScriptedServer) -> ObjectStoreCacheBuilder {
    ObjectStoreCache::builder()
        .store_option("AWS_ENDPOINT", server.url())
        .store_option("aws_allow_http", "true")
        .store_option("aws_access_key_id", "us")
        .store_option("aws_secret_access_key", "hunter2")
}

/// A bucket whose objects are written once, that is not there, or whose policy says no.
#[tokio::test]
async fn a_store_that_refuses_a_write_is_well_and_still_read() {
    use StoreErrorKind::{PermissionDenied, Protocol, ReadOnly, TooLarge, Unavailable};
    for (status, expected) in [
        ("400 Bad Request", Protocol),
        ("403 Forbidden", PermissionDenied),
        ("404 Not Found", Protocol),
        ("405 Method Not Allowed", ReadOnly),
        ("409 Conflict", Unavailable),
        ("411 Length Required", Protocol),
        ("412 Precondition Failed", Unavailable),
        ("413 Too Large", TooLarge),
    ] {
        let server = ScriptedServer::start(move |request| match request.method.as_str() {
            "PUT" => answer(status, b""),
            _ => answer("404 Not Found", b""),
        });
        let once = RetryPolicy::default().attempts(1);
        let cache = on_s3(&server)
            .retry(once)
            .writes()
            .build("s3://bucket")
            .unwrap();
        for _ in 0..20 {
            let refused = cache.put(&KEY, Artifact::new("code")).await.unwrap_err();
            assert_eq!(refused.kind(), expected, "{status}");
        }
        assert_eq!(cache.fetch(&KEY).await.unwrap(), Fetched::Miss, "{status}");
        let puts = server.requests().into_iter().filter(|r| r.method == "PUT");
        assert_eq!(puts.count(), 20, "no breaker opens: {status}");
    }
}

/// As one whose session has ended, to S3.
#[tokio::test]
async fn a_store_that_will_refuse_again_is_not_asked_again() {
    for (answered, expected) in [
        ("400 Bad Request", StoreErrorKind::Protocol),
        // The bucket is in another region.
        ("301 Moved Permanently", StoreErrorKind::Protocol),
        (
            "503 Slow Down\r\nRetry-After: 60",
            StoreErrorKind::Unavailable,
        ),
    ] {
        let server = ScriptedServer::always(answer(answered, b"<Code>ExpiredToken</Code>"));
        let cache = on_s3(&server).build("s3://bucket").unwrap();
        let error = cache.get(&KEY).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{answered}");
        assert_eq!(server.requests().len(), 1, "{answered}");
    }
}

/// The token of a session would go wherever the redirect says.
#[tokio::test]
async fn a_redirect_is_a_typed_error_and_carries_no_credentials_elsewhere() {
    let elsewhere = ScriptedServer::always(answer("404 Not Found", b""));
    let target = elsewhere.url();
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let target = format!("{target}/x");
        let server = ScriptedServer::start(move |_| redirect(status, &target));
        let cache = on_s3(&server)
            .store_option("aws_session_token", "hunter2")
            .writes()
            .build("s3://bucket")
            .unwrap();
        let get = cache.get(&KEY).await.map(|_| ());
        let put = cache.put(&KEY, Artifact::new("code")).await;
        let contains = cache.contains(&KEY).await.map(|_| ());
        for result in [get, put, contains] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Protocol, "{status}");
            assert!(format!("{error:#}").contains(&status[..3]), "{error:#}");
        }
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn an_object_in_another_encoding_is_named_and_contains_agrees() {
    let server = ScriptedServer::start(|request| {
        let head = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Encoding: gzip\r\n\
                    Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                    Content-Length: 900\r\n\r\n";
        let body: &[u8] = match request.method.as_str() {
            "HEAD" => &[],
            _ => &[0x1f; 900],
        };
        vec![Step::Send([head.as_bytes(), body].concat())]
    });
    let cache = on_s3(&server).build("s3://bucket").unwrap();
    let fetched = cache.fetch(&KEY).await.unwrap();
    let expected = FrameError::ContentEncoded("gzip");
    assert_eq!(fetched, Fetched::Corrupt(expected));
    assert!(!cache.contains(&KEY).await.unwrap());
    for request in server.requests() {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
}

/// The options are those of the `object_store` crate, under its names.
#[test]
fn the_options_of_the_client_are_checked() {
    for (name, value, is_valid) in [
        ("timeout", "30s", true),
        ("timeout", "soon", false),
        ("http2_keep_alive_interval", "1m 5s", true),
        ("pool_max_idle_per_host", "many", false),
        ("allow_http", "perhaps", false),
        ("randomize_addresses", "off", true),
        ("proxy_url", "http://127.0.0.1:1", true),
        ("proxy_ca_certificate", "none", true),
    ] {
        let builder = ObjectStoreCache::builder().store_option(name, value);
        let built = builder.build("s3://bucket");
        assert_eq!(built.is_ok(), is_valid, "{name}={value}: {built:?}");
    }
}

#[tokio::test]
async fn a_page_that_never_ends_does_not_hold_up_a_miss() {
    for (status, expected) in [
        ("404 Not Found", None),
        ("400 Bad Request", Some(StoreErrorKind::Protocol)),
    ] {
        let head = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let server = ScriptedServer::always(vec![
            Step::Send(head.into_bytes()),
            Step::Endless(chunk(&[b'x'; 4096])),
        ]);
        let cache = on_s3(&server).build("s3://bucket").unwrap();
        let found = tokio::time::timeout(Duration::from_secs(9), cache.fetch(&KEY)).await;
        let found = found.expect("it is read to its end");
        assert_eq!(found.err().map(|error| error.kind()), expected);
        drop(cache);
    }
}

/// By the limits that a store has where none are set.
#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_does_not_cost_a_whole_attempt() {
    let server = ScriptedServer::always(vec![Step::Hang]);
    let cache = on_s3(&server)
        .retry(RetryPolicy::default().attempts(1))
        .attempt_timeout(Duration::from_secs(10))
        .build("s3://bucket")
        .unwrap();
    let began = Instant::now();
    let error = cache.get(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TimedOut);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unreachable() {
    let server = ScriptedServer::always(Vec::new());
    let builder = on_s3(&server).retry(RetryPolicy::default().attempts(1));
    // Its port is free again once the last of it is gone.
    let address = server.url().trim_start_matches("http://").to_owned();
    drop(server);
    while std::net::TcpStream::connect(&address).is_ok() {}
    let cache = builder.build("s3://bucket").unwrap();
    let error = cache.get(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable);
}

/// It is what was to be stored.
#[tokio::test]
async fn an_object_that_is_there_already_has_been_put() {
    let server = ScriptedServer::start(|request| match request.method.as_str() {
        "PUT" => answer("412 Precondition Failed", b""),
        _ => {
            let head = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\n\
                        Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                        Content-Length: 1000\r\n\r\n";
            vec![Step::Send(head.as_bytes().to_vec())]
        }
    });
    let cache = on_s3(&server).writes().build("s3://bucket").unwrap();
    cache.put(&KEY, Artifact::new("code")).await.unwrap();
    assert_eq!(cache.metrics().puts, 1);
}

/// Retries of the store's own would multiply the requests, and outlast the deadline.
#[tokio::test]
async fn a_store_that_is_ill_is_asked_as_often_as_the_retry_policy_says() {
    for attempts in [1, 3] {
        let server = ScriptedServer::always(answer("503 Slow Down", b""));
        let retry = RetryPolicy::default().attempts(attempts);
        let cache = on_s3(&server)
            .retry(retry.base_delay(Duration::from_millis(1)))
            .build("s3://bucket/artifacts")
            .unwrap();
        let name = cache.to_string();
        assert!(
            name.starts_with("objects(s3://bucket/artifacts, at 127.0.0.1:"),
            "{name}"
        );
        let error = cache.get(&KEY).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        let asked: Vec<_> = server.requests().iter().map(|r| r.path.clone()).collect();
        assert_eq!(
            asked,
            vec![format!("/bucket/artifacts/{KEY}.bin"); attempts as usize]
        );
    }
}

#[test]
fn the_options_of_a_store_are_not_printed() {
    let builder = ObjectStoreCache::builder().store_option("aws_secret_access_key", "hunter2");
    assert!(!format!("{builder:?}").contains("hunter2"));
}
