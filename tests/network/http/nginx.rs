//! A remote tier on a real nginx, as it comes with a Linux distribution: what is put is got back,
//! and whatever the server does to it on the way is noticed.

use crate::support::certificates::certificates;
use crate::support::nginx::{Nginx, Settings};
use crate::support::scripted_http::{ScriptedServer, Step, answer_of_length};
use futures::future::join_all;
use pipeline_cache::network::RetryPolicy;
use pipeline_cache::{
    Artifact, ArtifactMetadata, Fetched, FrameError, PipelineCacheStore, PipelineFingerprint,
    RemoteCache, RemoteCacheBuilder, StoreErrorKind,
};
use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([0x22; 32]);

/// A folder that can be read and written, and the same one read-only.
const FOLDER: &str = "
    location /cache/ { dav_methods PUT DELETE; create_full_put_path on; }
    location /read-only/ { alias $folder/www/cache/; }
    location /forbidden/ { alias $folder/www/cache/; limit_except GET { deny all; } }
    location /small/ { dav_methods PUT; create_full_put_path on; client_max_body_size 1k; }
    location /moved/ { rewrite ^/moved/(.*)$ /cache/$1 redirect; }
    location /slow/ { alias $folder/www/cache/; limit_rate 1k; }
    location /single-page/ { error_page 404 =200 /index.html; }
    location /private/ {
        alias $folder/www/cache/; auth_basic cache; auth_basic_user_file $folder/www/users;
    }
";

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .request_timeout(Duration::from_secs(30))
        .max_artifact_bytes(8 << 20)
}

fn reader(nginx: &Nginx, path: &str) -> RemoteCache {
    builder().build(nginx.url(path)).unwrap()
}

fn writer(nginx: &Nginx, path: &str) -> RemoteCache {
    builder().writes().build(nginx.url(path)).unwrap()
}

fn entry(nginx: &Nginx, key: &PipelineFingerprint) -> PathBuf {
    nginx.www(&format!("cache/{key}.bin"))
}

fn artifact(bytes: usize) -> Artifact {
    let payload: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
    Artifact::with_metadata(payload, ArtifactMetadata::new().with_provenance("ci"))
}

#[tokio::test]
async fn what_one_client_puts_another_gets() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    let (writer, reader) = (writer(&nginx, "/cache"), reader(&nginx, "/cache/"));
    assert_eq!(reader.fetch(&KEY).await.unwrap(), Fetched::Miss);
    for bytes in [0, 1, 4096, 100_000, 5 << 20] {
        let artifact = artifact(bytes);
        writer.put(&KEY, artifact.clone()).await.unwrap();
        let got = reader.get(&KEY).await.unwrap().unwrap();
        assert_eq!(got, artifact);
        assert_eq!(got.payload(), artifact.payload());
        assert_eq!(got.metadata(), artifact.metadata());
    }
    assert_eq!(writer.metrics().puts, 5);
    assert_eq!((reader.metrics().hits, reader.metrics().misses), (5, 1));
    // One after the other, everything goes over one connection a client.
    let log = nginx.access_log(11);
    let connections: HashSet<_> = log.iter().map(|line| connection(line)).collect();
    assert_eq!(connections.len(), 2);
}

fn connection(line: &str) -> String {
    line.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn entries_are_found_and_removed() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    let remote = writer(&nginx, "/cache");
    assert!(!remote.contains(&KEY).await.unwrap());
    assert!(!remote.remove(&KEY).await.unwrap());
    remote.put(&KEY, artifact(3000)).await.unwrap();
    assert!(remote.contains(&KEY).await.unwrap());
    assert!(remote.remove(&KEY).await.unwrap());
    assert!(!remote.contains(&KEY).await.unwrap());
    assert_eq!(remote.get(&KEY).await.unwrap(), None);
    assert_eq!(remote.metrics().removes, 1);
}

#[tokio::test]
async fn writes_that_the_server_refuses_are_typed_errors() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    for (path, expected) in [
        ("/read-only", StoreErrorKind::ReadOnly),
        ("/forbidden", StoreErrorKind::PermissionDenied),
        ("/small", StoreErrorKind::TooLarge),
    ] {
        let remote = writer(&nginx, path);
        let error = remote.put(&KEY, artifact(3 << 20)).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(!error.is_transient());
        assert_eq!(remote.metrics().puts, 0);
        assert_eq!(remote.get(&KEY).await.unwrap(), None);
    }
}

#[tokio::test]
async fn credentials_open_what_is_closed_without_them() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    fs::write(nginx.www("users"), "ci:{PLAIN}open sesame\n").unwrap();
    writer(&nginx, "/cache")
        .put(&KEY, artifact(3000))
        .await
        .unwrap();

    let error = reader(&nginx, "/private").fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::PermissionDenied);
    let with_password = builder().basic_auth("ci", "open sesame");
    let remote = with_password.build(nginx.url("/private")).unwrap();
    assert_eq!(remote.get(&KEY).await.unwrap(), Some(artifact(3000)));
}

#[tokio::test]
async fn a_redirect_leads_to_the_entry() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    writer(&nginx, "/cache")
        .put(&KEY, artifact(3000))
        .await
        .unwrap();
    let moved = reader(&nginx, "/moved");
    assert_eq!(moved.get(&KEY).await.unwrap(), Some(artifact(3000)));
    assert!(moved.contains(&KEY).await.unwrap());
}

#[tokio::test]
async fn a_file_that_was_cut_short_or_changed_is_corrupt_until_the_next_put() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    let remote = writer(&nginx, "/cache");
    remote.put(&KEY, artifact(100_000)).await.unwrap();
    remote.put(&OTHER, artifact(200_000)).await.unwrap();
    let good = fs::read(entry(&nginx, &KEY)).unwrap();
    let other = fs::read(entry(&nginx, &OTHER)).unwrap();
    let mut flipped = good.clone();
    flipped[50_000] ^= 1;
    for (content, reason) in [
        (&good[..good.len() / 2], FrameError::LengthMismatch),
        (&good[..0], FrameError::TooShort(0)),
        (&other[..], FrameError::OtherFingerprint),
        (&flipped[..], FrameError::BadPayload),
    ] {
        fs::write(entry(&nginx, &KEY), content).unwrap();
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Corrupt(reason));
        remote.put(&KEY, artifact(100_000)).await.unwrap();
        assert_eq!(remote.get(&KEY).await.unwrap(), Some(artifact(100_000)));
    }
    assert_eq!(remote.metrics().corrupt, 4);
}

#[tokio::test]
async fn a_page_in_place_of_an_error_is_corrupt() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    fs::write(nginx.www("index.html"), "<!DOCTYPE html>".repeat(50)).unwrap();
    let fetched = reader(&nginx, "/single-page").fetch(&KEY).await.unwrap();
    assert_eq!(fetched, Fetched::Corrupt(FrameError::NotAFrame));
}

#[tokio::test]
async fn a_body_that_breaks_off_behind_a_proxy_is_a_transient_failure() {
    let mut half = answer_of_length("200 OK", &[0; 5000], 10_000);
    half.push(Step::Close);
    let origin = ScriptedServer::always(half);
    let proxy = format!("location /proxied/ {{ proxy_pass {}; }}", origin.url());
    let Some(nginx) = Nginx::start(&proxy) else {
        return;
    };
    let remote = reader(&nginx, "/proxied");
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unreachable, "{error}");

    // With nothing behind it, the proxy says so itself.
    drop(origin);
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert!(error.is_transient());
    assert_eq!(remote.metrics().errors, 2);
}

#[tokio::test]
async fn a_server_that_sends_too_slowly_costs_the_limit() {
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    writer(&nginx, "/cache")
        .put(&KEY, artifact(1 << 20))
        .await
        .unwrap();
    let impatient = builder().request_timeout(Duration::from_millis(300));
    let remote = impatient.build(nginx.url("/slow")).unwrap();
    let error = remote.fetch(&KEY).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TimedOut, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_concurrent_gets_are_all_right() {
    const SLOTS: usize = 16;
    let Some(nginx) = Nginx::start(FOLDER) else {
        return;
    };
    let key = |i: u8| PipelineFingerprint::from_bytes([i; 32]);
    // Some are hashed inline and some are not.
    let size = |i: u8| 1000 + usize::from(i) * 5000;
    let remote = builder().max_concurrent_requests(SLOTS).writes();
    let remote = Arc::new(remote.build(nginx.url("/cache")).unwrap());
    for i in 0..25 {
        remote.put(&key(i), artifact(size(i))).await.unwrap();
    }
    let mut gets = tokio::task::JoinSet::new();
    for n in 0..1000_u32 {
        let remote = Arc::clone(&remote);
        let i = (n % 50) as u8;
        gets.spawn(async move { (i, remote.get(&key(i)).await) });
    }
    while let Some(got) = gets.join_next().await {
        let (i, got) = got.unwrap();
        let expected = (i < 25).then(|| artifact(size(i)));
        assert_eq!(got.unwrap(), expected, "artifact {i}");
    }
    let metrics = remote.metrics();
    assert_eq!(
        (metrics.hits, metrics.misses, metrics.errors),
        (500, 500, 0)
    );
    let log = nginx.access_log(1025);
    assert_eq!(log.len(), 1025);
    let connections: HashSet<_> = log.iter().map(|line| connection(line)).collect();
    assert!(
        connections.len() <= 2 * SLOTS,
        "{} connections",
        connections.len()
    );
}

/// The whole contract of a tier, with a real server behind it, and of one that takes no writes.
#[cfg(feature = "testing")]
#[tokio::test(flavor = "multi_thread")]
async fn the_http_tier_conforms() {
    use pipeline_cache::testing::check_conformance;
    use std::sync::atomic::{AtomicU64, Ordering};

    let Some(nginx) = Nginx::start(
        "location /fresh/ { dav_methods PUT DELETE; create_full_put_path on; client_max_body_size 80m; }",
    ) else {
        return;
    };
    let fresh = AtomicU64::new(0);
    let new_store = || async {
        let folder = fresh.fetch_add(1, Ordering::Relaxed);
        let store = RemoteCache::builder()
            .no_proxy()
            .bearer_token("hunter2")
            .shared_secret(pipeline_cache::SharedSecret::new("hunter3"))
            .writes()
            .build(nginx.url(&format!("/fresh/{folder}")))
            .unwrap();
        Arc::new(store) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(new_store, &["hunter2", "hunter3"])
        .await
        .unwrap();
    let read_only =
        || async { Arc::new(reader(&nginx, "/fresh/0")) as Arc<dyn PipelineCacheStore> };
    check_conformance(read_only, &[]).await.unwrap();
}

/// Many lookups at once over a connection that carries all of them.
async fn share_one_connection(nginx: &Nginx, builder: RemoteCacheBuilder) {
    // Each is asked for once, however little time the machine has for it.
    const PATIENCE: Duration = Duration::from_secs(120);
    let patient = builder
        .retry(RetryPolicy::default().attempts(1))
        .inactivity_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .request_timeout(PATIENCE);
    let remote = patient.writes().build(nginx.url("/cache")).unwrap();
    remote.put(&KEY, artifact(300_000)).await.unwrap();
    let gets = (0..50).map(|_| remote.get(&KEY));
    for got in join_all(gets).await {
        assert_eq!(got.unwrap().unwrap().payload(), artifact(300_000).payload());
    }
    assert_eq!(remote.fetch(&OTHER).await.unwrap(), Fetched::Miss);
    assert!(remote.remove(&KEY).await.unwrap());
    let log = nginx.access_log(53);
    assert_eq!(log.len(), 53);
    assert!(log.iter().all(|line| line.ends_with("HTTP/2.0")), "{log:?}");
    let connections: HashSet<_> = log.iter().map(|line| connection(line)).collect();
    assert_eq!(connections.len(), 1);
}

#[tokio::test]
async fn http2_without_tls_is_spoken_to_servers_known_to_speak_it() {
    let settings = Settings {
        listen: "http2",
        ..Settings::default()
    };
    let Some(nginx) = Nginx::start_with(&settings, FOLDER) else {
        return;
    };
    share_one_connection(&nginx, builder().http2_prior_knowledge()).await;
}

#[tokio::test]
async fn http2_is_agreed_on_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    if certificates(folder.path()).is_none() {
        return;
    }
    let path = folder.path().display();
    let server =
        format!("ssl_certificate {path}/server.pem; ssl_certificate_key {path}/server.key;");
    let settings = Settings {
        listen: "ssl http2",
        server: &server,
        ..Settings::default()
    };
    let Some(nginx) = Nginx::start_with(&settings, FOLDER) else {
        return;
    };
    let authority = fs::read(folder.path().join("ca.pem")).unwrap();
    share_one_connection(&nginx, builder().extra_root_certificates(authority)).await;
}

/// An edge that keeps what it has passed on, before an origin.
fn edge(origin: &Nginx) -> Option<Nginx> {
    let settings = Settings {
        http: "proxy_cache_path $folder/kept keys_zone=kept:1m max_size=64m;",
        ..Settings::default()
    };
    let locations = format!(
        "location /cache/ {{
             proxy_pass http://127.0.0.1:{}; proxy_http_version 1.1;
             proxy_set_header Connection \"\";
             proxy_cache kept; proxy_cache_valid 200 1h; proxy_cache_lock on;
             proxy_cache_lock_timeout 30s; proxy_connect_timeout 2s;
         }}",
        origin.port()
    );
    Nginx::start_with(&settings, &locations)
}

#[tokio::test]
async fn an_edge_asks_its_origin_once_and_outlives_it() {
    let Some(mut origin) = Nginx::start(FOLDER) else {
        return;
    };
    let Some(edge) = edge(&origin) else {
        return;
    };
    let near = writer(&edge, "/cache");
    // A miss is not kept: what comes after it is found.
    assert_eq!(near.fetch(&KEY).await.unwrap(), Fetched::Miss);
    near.put(&KEY, artifact(200_000)).await.unwrap();
    let readers: Vec<_> = (0..20).map(|_| reader(&edge, "/cache")).collect();
    let gets = readers.iter().map(|reader| reader.get(&KEY));
    for got in join_all(gets).await {
        assert_eq!(got.unwrap().unwrap().payload(), artifact(200_000).payload());
    }
    let asked = |line: &&String| line.contains(&format!("200 GET /cache/{KEY}.bin"));
    assert_eq!(origin.access_log(3).iter().filter(asked).count(), 1);

    origin.kill();
    let late = reader(&edge, "/cache");
    assert_eq!(late.get(&KEY).await.unwrap(), Some(artifact(200_000)));
    assert!(late.contains(&KEY).await.unwrap());
    let unknown = late.get(&OTHER).await.unwrap_err();
    assert_eq!(unknown.kind(), StoreErrorKind::Unavailable);
}
