//! `cachectl` beside a server with a certificate, with all that it needs in its environment.

use super::certificates::Certificate;
use super::support::{CacheServer, KEY, WRITER, artifact};
use pipeline_cache::{DiskCache, PipelineCacheStore as _, SharedSecret};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

const SECRET: &str = "a secret that is long enough";

async fn signed_cache(folder: &Path) {
    let disk = DiskCache::builder().root(folder);
    let disk = disk.shared_secret(SharedSecret::new(SECRET));
    let disk = disk.open().await.unwrap();
    disk.put(&KEY, artifact(1000)).await.unwrap();
    disk.close(Duration::from_secs(60)).await.unwrap();
}

#[tokio::test]
async fn cachectl_takes_folder_secret_and_token_from_its_environment() {
    let (Some(certificate), Some(other)) = (Certificate::new(), Certificate::new()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let secret = file("secret", SECRET.as_bytes());
    let token = file("token", WRITER.as_bytes());
    let cache = folder.path().join("cache");
    signed_cache(&cache).await;
    let secret_file = ["--secret-file", secret.to_str().unwrap()];
    let mut server = CacheServer::start(&[&certificate.arguments()[..], &secret_file].concat());
    server.trust(&certificate.authority);
    let run = |authority: &[u8], arguments: &[&str]| -> Output {
        let authority = file("authority", authority);
        let mut command = Command::new(env!("CARGO_BIN_EXE_cachectl"));
        command
            .args(arguments)
            .env("CACHECTL_CACHE_DIR", &cache)
            .env("CACHECTL_SECRET_FILE", &secret)
            .env("CACHECTL_TOKEN_FILE", &token)
            .env("SSL_CERT_FILE", authority)
            .env_remove("SSL_CERT_DIR")
            .env("NO_PROXY", "127.0.0.1");
        command.output().unwrap()
    };
    let known = &certificate.authority;
    let verified = run(known, &["verify"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    // The command line comes first: these are not the entries' secret and not their folder.
    let wrong = file("wrong", b"another secret, as long");
    let unjudged = run(known, &["verify", "--secret-file", wrong.to_str().unwrap()]);
    assert_eq!(unjudged.status.code(), Some(3), "{unjudged:?}");
    let elsewhere = run(known, &["--cache-dir", "/nonexistent", "stat"]);
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");

    let push = ["push", "--all", &server.url("/artifacts")];
    let stranger = run(&other.authority, &push);
    assert_eq!(stranger.status.code(), Some(2), "{stranger:?}");
    let pushed = run(known, &push);
    assert_eq!(pushed.status.code(), Some(0), "{pushed:?}");
    let got = server
        .get(&super::support::path(&KEY), HeaderMap::new())
        .await;
    assert_eq!(got.status(), StatusCode::OK);
}
