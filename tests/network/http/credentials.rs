//! A callback for credentials is asked once for each attempt, and its panic is an error.

use crate::support::scripted_http::{ScriptedServer, answer, redirect};
use pipeline_cache::network::RetryPolicy;
use pipeline_cache::{
    Artifact, Credentials, Fetched, PipelineCacheStore, PipelineFingerprint, RemoteCache,
    RemoteCacheBuilder, RemoteCacheError, StoreErrorKind,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .retry(RetryPolicy::default().base_delay(Duration::from_millis(1)))
        .writes()
}

/// The first call is that of `build`.
fn counted(
    credentials: impl Fn(usize) -> Credentials + Send + Sync + 'static,
) -> (
    Arc<AtomicUsize>,
    impl Fn() -> Credentials + Send + Sync + 'static,
) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let callback = move || credentials(counter.fetch_add(1, Ordering::SeqCst));
    (calls, callback)
}

#[tokio::test]
async fn the_callback_is_called_once_for_each_attempt() {
    // Each attempt is redirected once; the second of a put asks for the entry as well.
    let asked = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |request| match request.path.as_str() {
        path if path.starts_with("/there") => match request.method.as_str() {
            "PUT" => answer("409 Conflict", b""),
            "HEAD" => answer("404 Not Found", b""),
            _ if asked.fetch_add(1, Ordering::SeqCst) == 0 => answer("503 Busy", b""),
            _ => answer("404 Not Found", b""),
        },
        path => redirect("307 Temporary Redirect", &format!("/there{path}")),
    });
    let (calls, callback) = counted(|_| Credentials::bearer("token"));
    let remote = builder().credentials_from(callback);
    let remote = remote.build(server.url()).unwrap();
    let calls_of_build = calls.swap(0, Ordering::SeqCst);
    assert_eq!(calls_of_build, 1);

    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert_eq!(calls.swap(0, Ordering::SeqCst), 2, "two attempts");
    let _ = remote.put(&KEY, Artifact::new("code")).await;
    let puts = server.requests();
    let puts = puts
        .iter()
        .filter(|r| r.method == "PUT" && !r.path.starts_with("/there"));
    assert_eq!(calls.load(Ordering::SeqCst), puts.count());
}

/// The rotation comes between two calls of the callback, wherever they are.
#[tokio::test]
async fn a_rejection_is_booked_on_the_credentials_that_were_sent() {
    let server = ScriptedServer::start(|request| match request.header("authorization") {
        Some("Bearer new") => answer("404 Not Found", b""),
        _ => answer("401 Unauthorized", b""),
    });
    for rotation in 1..6 {
        let (_, callback) =
            counted(move |call| Credentials::bearer(if call < rotation { "old" } else { "new" }));
        let remote = builder().credentials_from(callback);
        let remote = remote.build(server.url()).unwrap();
        // Those that are made with the old ones are rejected, and no other.
        for _ in 1..rotation {
            remote.fetch(&KEY).await.unwrap_err();
        }
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
}

#[tokio::test]
async fn a_callback_that_panics_is_a_typed_error() {
    let server = ScriptedServer::always(answer("404 Not Found", b""));
    let (_, callback) = counted(|call| match call {
        1 => panic!("hunter2"),
        _ => Credentials::bearer("token"),
    });
    let remote = builder().credentials_from(callback);
    let remote = remote.build(server.url()).unwrap();
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::PermissionDenied);
    assert!(!format!("{error:#} {error:?}").contains("hunter2"));
    assert!(server.requests().is_empty());
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);

    let callback = || panic!("hunter2");
    let error = builder().credentials_from(callback).build(server.url());
    assert_eq!(error.unwrap_err(), RemoteCacheError::CredentialsPanicked);
}
