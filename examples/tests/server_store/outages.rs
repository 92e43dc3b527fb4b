//! A store that is not there, or is not one.

use crate::cache_server::{
    CacheServer, KEY, READER, WRITER, artifact, builder, client, command, files, path, remote,
};
use crate::support::{on_folder, on_s3, wait_for_uploads};
use pipeline_cache::{Artifact, PipelineCacheStore as _};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::process::Command;
use std::time::Duration;

/// Nobody listens there.
const GONE: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn a_removal_that_the_store_does_not_hear_of_is_told() {
    let server = on_s3(GONE, &[]);
    let writer = remote(&server, WRITER);
    writer.put(&KEY, artifact(1000)).await.unwrap();
    let request = client().delete(server.url(&path(&KEY))).bearer_auth(WRITER);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let told = answer.text().await.unwrap();
    assert!(told.contains("removed from this server"), "{told}");
    assert_eq!(remote(&server, READER).get(&KEY).await.unwrap(), None);
}

/// The folder remembers what the store lacks, also where the server is told to stop at once.
#[tokio::test]
async fn what_was_uploaded_during_an_outage_arrives_after_a_restart() {
    let store = tempfile::tempdir().unwrap();
    // A file in place of the folder.
    let root = store.path().join("objects");
    std::fs::write(&root, "in the way").unwrap();
    let url = format!("file://{}", root.display());
    let mut server = CacheServer::start(&["--store", &url, "--drain", "10"]);
    remote(&server, WRITER)
        .put(&KEY, artifact(1000))
        .await
        .unwrap();
    server
        .wait_for("cache_server_store_waiting", |waiting| waiting == 1)
        .await;
    server.terminate();
    let ended = server.wait();
    assert!(ended.success(), "{}", server.said());
    let said = server.said();
    assert!(
        said.contains("1 artifacts are not in the object store yet"),
        "{said}"
    );
    assert!(said.contains("request failed"), "{said}");

    std::fs::remove_file(&root).unwrap();
    server.restart();
    wait_for_uploads(&server, 1).await;
    assert!(root.join(format!("{KEY}.bin")).exists());
}

/// What comes from the folder has to fit in what may wait for the store.
#[tokio::test]
async fn a_large_artifact_arrives_after_a_restart_as_well() {
    const BYTES: usize = 66 << 20;
    const LONG: Duration = Duration::from_secs(120);
    let store = tempfile::tempdir().unwrap();
    let root = store.path().join("objects");
    std::fs::write(&root, "in the way").unwrap();
    let url = format!("file://{}", root.display());
    let mut server = CacheServer::start(&["--store", &url, "--max-artifact", "100M"]);
    let writer = builder(WRITER).max_artifact_bytes(100 << 20);
    let writer = writer.request_timeout(LONG).attempt_timeout(LONG);
    let writer = writer.inactivity_timeout(LONG);
    let writer = writer.build(server.url("/artifacts")).unwrap();
    let large = Artifact::new(vec![7; BYTES]);
    writer.put(&KEY, large).await.unwrap();
    // As all writes that are not done, it is remembered within a second.
    let intents = server.folder().join("artifacts/intents");
    let hex = KEY.to_hex();
    let is_remembered = || {
        let files = files(&intents).into_iter();
        files
            .map(|(file, _)| file)
            .any(|file| file.to_string_lossy().contains(&hex))
    };
    server
        .wait_for("cache_server_requests_under_way", |_| {
            intents.exists() && is_remembered()
        })
        .await;
    server.kill();

    std::fs::remove_file(&root).unwrap();
    server.restart();
    wait_for_uploads(&server, 1).await;
    let stored = std::fs::metadata(root.join(format!("{KEY}.bin"))).unwrap();
    assert_eq!(stored.len(), 144 + BYTES as u64);
}

#[test]
fn a_url_that_is_no_store_stops_it_and_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for (url, expected) in [
        ("ftp://example.com/hunter2", "s3://bucket/prefix"),
        ("", "is empty: expected s3://BUCKET[/PREFIX]"),
        (
            "hunter2/prefix",
            "is not valid: expected s3://BUCKET[/PREFIX]",
        ),
        ("s3://", "names no bucket: expected s3://BUCKET[/PREFIX]"),
        (
            "s3:///hunter2",
            "names no bucket: expected s3://BUCKET[/PREFIX]",
        ),
        ("s3://AK:hunter2@bucket", "such as AWS_ACCESS_KEY_ID and"),
        ("gs://hunter2@bucket", "such as AWS_ACCESS_KEY_ID and"),
        // The secrets of S3 may have a slash, before which the rest is a port.
        ("s3://AK:17/hunter2@bucket", "such as AWS_ACCESS_KEY_ID and"),
        ("s3://AK:hunter2/x@bucket", "such as AWS_ACCESS_KEY_ID and"),
    ] {
        let told = command()
            .args(["--anonymous", "read-only", "--listen", "127.0.0.1:0"])
            .env("CACHE_SERVER_STORE", url)
            .arg("--cache-dir")
            .arg(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(2), "{url}: {said}");
        assert!(said.contains("cannot use --store"), "{url}: {said}");
        assert!(said.contains(expected), "{url}: {said}");
        assert!(!said.contains("hunter2"), "{url}: {said}");
    }
}

/// As on a network file system that is gone: the thread that reads never comes back.
#[tokio::test]
async fn a_store_that_hangs_in_a_system_call_does_not_keep_the_server_from_its_end() {
    let store = tempfile::tempdir().unwrap();
    let pipe = store.path().join(format!("{KEY}.bin"));
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mut server = on_folder(store.path(), &["--store-timeout", "1"]);
    let got = server.get(&path(&KEY), HeaderMap::new()).await;
    assert_eq!(got.status(), StatusCode::NOT_FOUND);
    server.terminate();
    let ended = tokio::task::spawn_blocking(move || server.wait());
    let ended = tokio::time::timeout(Duration::from_secs(50), ended).await;
    ended.expect("it ends").unwrap();
}
