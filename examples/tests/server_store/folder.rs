//! A folder is the store: what holds for any.

use crate::cache_server::{
    CacheServer, KEY, OTHER, READER, WRITER, artifact, builder, client, files, frame, path, remote,
};
use crate::support::{on_folder, wait_for_uploads};
use pipeline_cache::{Fetched, PipelineCacheStore as _, PipelineFingerprint, SharedSecret};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderValue, RANGE};
use std::fs;
use std::path::PathBuf;

/// How many artifacts are in the folder of a server.
fn entries(server: &CacheServer) -> usize {
    let files = files(&server.folder().join("artifacts"));
    let is_entry = |file: &PathBuf| file.extension().is_some_and(|end| end == "bin");
    files.iter().filter(|(file, _)| is_entry(file)).count()
}

#[tokio::test]
async fn two_servers_on_one_store_share_artifacts_and_source_aliases() {
    let store = tempfile::tempdir().unwrap();
    let [one, two] = [(); 2].map(|()| on_folder(store.path(), &[]));
    let (writer, reader) = (remote(&one, WRITER), remote(&two, READER));
    assert_eq!(reader.fetch(&KEY).await.unwrap(), Fetched::Miss);
    writer.put(&KEY, artifact(100_000)).await.unwrap();
    wait_for_uploads(&one, 1).await;
    assert!(reader.contains(&KEY).await.unwrap());
    let got = reader.get(&KEY).await.unwrap().unwrap();
    assert_eq!(got.payload(), artifact(100_000).payload());
    assert_eq!(got.metadata(), artifact(1).metadata());

    // From its own folder, whatever becomes of the store.
    fs::remove_dir_all(store.path()).unwrap();
    assert!(reader.get(&KEY).await.unwrap().is_some());
    let promoted = two.metric("cache_server_artifact_puts_total").await;
    assert_eq!(promoted, 1, "it is written once");
    let misses = two.metric("cache_server_artifact_misses_total").await;
    assert_eq!(misses, 3, "a miss of the folder counts once");
    assert_eq!(
        one.metric("cache_server_artifact_puts_total").await,
        1,
        "an upload counts once"
    );

    fs::create_dir(store.path()).unwrap();
    let [writes, reads] = [&writer, &reader].map(|tier| tier.alias_stores().remove(0));
    writes.put(&OTHER, artifact(32)).await.unwrap();
    let alias = store.path().join(format!("aliases/{OTHER}.bin"));
    one.wait_for("cache_server_requests_under_way", |_| alias.exists())
        .await;
    assert_eq!(reads.get(&OTHER).await.unwrap(), Some(artifact(32)));
    assert_eq!(reader.get(&OTHER).await.unwrap(), None, "it is no artifact");
}

#[tokio::test]
async fn what_comes_from_the_store_is_answered_as_from_the_folder() {
    let store = tempfile::tempdir().unwrap();
    let stored = frame(&KEY, artifact(100_000)).await;
    fs::write(store.path().join(format!("{KEY}.bin")), &stored).unwrap();
    let server = on_folder(store.path(), &[]);

    let head = client().head(server.url(&path(&KEY))).bearer_auth(READER);
    let head = head.send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(head.headers().get(CONTENT_LENGTH), None);
    let entry = server.folder().join(format!("artifacts/{KEY}.bin"));
    assert!(!entry.exists(), "a HEAD fetches nothing");

    let range = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=10-19"))]);
    let part = server.get(&path(&KEY), range.clone()).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    let etag = part.headers()[ETAG].clone();
    assert_eq!(part.bytes().await.unwrap(), stored[10..20]);
    assert_eq!(fs::read(entry).unwrap(), stored);
    let again = server.get(&path(&KEY), range).await;
    assert_eq!(again.headers()[ETAG], etag);

    let missing = client().head(server.url(&path(&OTHER))).bearer_auth(READER);
    let missing = missing.send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
}

/// A folder that is bounded to less than twice the artifact does not take it.
#[tokio::test]
async fn what_the_folder_does_not_take_is_answered_from_memory() {
    let store = tempfile::tempdir().unwrap();
    let stored = frame(&KEY, artifact(100_000)).await;
    fs::write(store.path().join(format!("{KEY}.bin")), &stored).unwrap();
    let roomy = on_folder(store.path(), &[]);
    let narrow = on_folder(store.path(), &["--max-bytes", "100K"]);
    let range = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=10-19"))]);
    let mut tags = Vec::new();
    for server in [&roomy, &narrow] {
        let whole = server.get(&path(&KEY), HeaderMap::new()).await;
        tags.push(whole.headers()[ETAG].clone());
        assert_eq!(whole.bytes().await.unwrap(), stored);
        let part = server.get(&path(&KEY), range.clone()).await;
        assert_eq!(part.bytes().await.unwrap(), stored[10..20]);
    }
    assert_eq!(tags[0], tags[1]);
    assert_eq!((entries(&roomy), entries(&narrow)), (1, 0));
}

#[tokio::test]
async fn a_damaged_or_foreign_object_is_not_served() {
    let store = tempfile::tempdir().unwrap();
    let mut damaged = frame(&KEY, artifact(1000)).await;
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(store.path().join(format!("{KEY}.bin")), &damaged).unwrap();
    let unsigned = frame(&OTHER, artifact(1000)).await;
    fs::write(store.path().join(format!("{OTHER}.bin")), &unsigned).unwrap();

    let open = on_folder(store.path(), &[]);
    let reader = remote(&open, READER);
    assert_eq!(reader.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert!(reader.get(&OTHER).await.unwrap().is_some());

    let secret = store.path().join("secret");
    fs::write(&secret, "correct horse battery staple\n").unwrap();
    let signed = on_folder(store.path(), &["--secret-file", secret.to_str().unwrap()]);
    let shared = SharedSecret::new("correct horse battery staple");
    let team = builder(WRITER).shared_secret(shared.clone());
    let team = team.build(signed.url("/artifacts")).unwrap();
    assert_eq!(team.fetch(&OTHER).await.unwrap(), Fetched::Miss);

    // A put heals the damaged object, with the secret.
    team.put(&KEY, artifact(1000)).await.unwrap();
    wait_for_uploads(&signed, 1).await;
    let third = on_folder(store.path(), &["--secret-file", secret.to_str().unwrap()]);
    let reader = builder(READER).shared_secret(shared);
    let reader = reader.build(third.url("/artifacts")).unwrap();
    assert_eq!(reader.get(&KEY).await.unwrap(), Some(artifact(1000)));
}

#[tokio::test]
async fn a_batch_has_what_only_the_store_has() {
    let store = tempfile::tempdir().unwrap();
    let keys: Vec<_> = (0..200_u8)
        .map(|number| PipelineFingerprint::from_bytes([number; 32]))
        .collect();
    for key in keys.iter().step_by(2) {
        let stored = artifact(500).to_frame(key, None).unwrap();
        fs::write(store.path().join(format!("{key}.bin")), &stored).unwrap();
    }
    let server = on_folder(store.path(), &[]);
    let got = remote(&server, READER).fetch_many(&keys).await;
    for (number, got) in got.into_iter().enumerate() {
        let expected = match number % 2 {
            0 => Fetched::Hit(artifact(500)),
            _ => Fetched::Miss,
        };
        assert_eq!(got.unwrap(), expected, "{number}");
    }
    let gets = "cache_server_requests_total{area=\"artifacts\",method=\"POST\",status=\"2xx\"}";
    assert_eq!(server.metric(gets).await, 1, "in one request");
    assert_eq!(entries(&server), 100);
}

#[tokio::test]
async fn what_is_removed_is_gone_from_the_folder_and_the_store() {
    let store = tempfile::tempdir().unwrap();
    let [one, two] = [(); 2].map(|()| on_folder(store.path(), &[]));
    let (writer, other) = (remote(&one, WRITER), remote(&two, WRITER));
    writer.put(&KEY, artifact(1000)).await.unwrap();
    wait_for_uploads(&one, 1).await;
    assert!(other.get(&KEY).await.unwrap().is_some());
    assert!(writer.remove(&KEY).await.unwrap());
    assert_eq!(writer.get(&KEY).await.unwrap(), None);
    assert!(files(store.path()).is_empty());
    // Another server keeps its own copy until it removes it.
    assert!(other.get(&KEY).await.unwrap().is_some());
    assert!(other.remove(&KEY).await.unwrap());
    assert!(!other.remove(&KEY).await.unwrap());
}
