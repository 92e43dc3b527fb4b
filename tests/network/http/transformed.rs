//! An edge that transforms responses, or a server that does not change an entry, costs one upload
//! and says what is wrong.

use crate::support::scripted_http::{Request, ScriptedServer, Step, answer};
use pipeline_cache::network::RetryPolicy;
use pipeline_cache::{
    Artifact, Fetched, FrameError, LayeredPipelineCache, PipelineCacheStore, PipelineFingerprint,
    RemoteCache, RemoteCacheBuilder, StoreErrorKind,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const GZIP: FrameError = FrameError::ContentEncoded("gzip");

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .retry(RetryPolicy::default().attempts(1))
        .writes()
}

/// Whatever was stored, as gzip.
fn gzipped(request: &Request) -> Vec<Step> {
    let body: &[u8] = match request.method.as_str() {
        "PUT" => return answer("201 Created", b""),
        "HEAD" => &[],
        _ => &[0x1f; 900],
    };
    let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 900\r\n\r\n";
    vec![Step::Send([head.as_bytes(), body].concat())]
}

fn puts(server: &ScriptedServer) -> usize {
    let requests = server.requests();
    requests.iter().filter(|r| r.method == "PUT").count()
}

#[tokio::test]
async fn an_encoding_that_nobody_asked_for_is_named_and_contains_agrees() {
    let server = ScriptedServer::start(gzipped);
    let remote = builder().build(server.url()).unwrap();
    let fetched = remote.fetch(&KEY).await.unwrap();
    assert_eq!(fetched, Fetched::Corrupt(GZIP));
    assert!(GZIP.to_string().contains("gzip"));
    assert!(!remote.contains(&KEY).await.unwrap());
    for request in server.requests() {
        assert_eq!(request.header("accept-encoding"), Some("identity"));
    }
}

#[tokio::test]
async fn an_entry_that_an_upload_does_not_change_is_uploaded_once_and_not_for_each_lookup() {
    let server = ScriptedServer::start(gzipped);
    let remote = Arc::new(builder().build(server.url()).unwrap());
    let cache = LayeredPipelineCache::new(vec![Arc::clone(&remote) as Arc<dyn PipelineCacheStore>]);
    for _ in 0..10 {
        let compile = || async { Ok::<_, StoreErrorKind>(Artifact::new("code")) };
        let compiled = cache.get_or_insert_with(&KEY, compile).await.unwrap();
        assert_eq!(compiled.artifact, Artifact::new("code"));
        let _ = cache.flush().await;
    }
    assert_eq!(puts(&server), 1);
    let refused = remote.put(&KEY, Artifact::new("code")).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Protocol);
    assert!(format!("{refused:#}").contains("not sent"), "{refused:#}");
}

#[tokio::test]
async fn an_entry_that_stayed_corrupt_is_uploaded_again_later() {
    let server = ScriptedServer::start(gzipped);
    let interval = Duration::from_secs(7200);
    let remote = builder().heal_interval(interval);
    let remote = remote.build(server.url()).unwrap();
    for uploads in 1..4 {
        remote.fetch(&KEY).await.unwrap();
        remote.put(&KEY, Artifact::new("code")).await.unwrap();
        remote.fetch(&KEY).await.unwrap();
        remote.put(&KEY, Artifact::new("code")).await.unwrap_err();
        assert_eq!(puts(&server), uploads);
        tokio::time::pause();
        tokio::time::advance(interval).await;
        tokio::time::resume();
    }
}

#[tokio::test]
async fn an_entry_that_an_upload_heals_is_uploaded_whenever_it_is_corrupt() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let ill = Arc::clone(&is_ill);
    let server = ScriptedServer::start(move |request| match request.method.as_str() {
        "PUT" => answer("201 Created", b""),
        _ if ill.load(Ordering::SeqCst) => answer("200 OK", &[b'x'; 900]),
        _ => answer("404 Not Found", b""),
    });
    let remote = builder().build(server.url()).unwrap();
    for uploads in 1..4 {
        is_ill.store(true, Ordering::SeqCst);
        assert!(matches!(
            remote.fetch(&KEY).await.unwrap(),
            Fetched::Corrupt(_)
        ));
        remote.put(&KEY, Artifact::new("code")).await.unwrap();
        is_ill.store(false, Ordering::SeqCst);
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
        assert_eq!(puts(&server), uploads);
    }
}
