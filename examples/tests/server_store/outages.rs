//! A store that is not there, or is not one.

use crate::cache_server::{
    CacheServer, KEY, READER, WRITER, artifact, client, path, program, remote,
};
use crate::support::{on_s3, wait_for_uploads};
use pipeline_cache::PipelineCacheStore as _;
use reqwest::StatusCode;
use std::process::Command;

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

#[test]
fn a_url_that_is_no_store_stops_it_and_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let told = Command::new(program())
        .args(["--anonymous", "read-only", "--listen", "127.0.0.1:0"])
        .args(["--store", "ftp://user:hunter2@example.com/x", "--cache-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(2));
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(said.contains("cannot use --store"), "{said}");
    assert!(said.contains("s3://bucket/prefix"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
