//! What `cache_server` promises to the people who share it.

use super::support::{
    CacheServer, KEY, OTHER, READER, WRITER, artifact, builder, client, files, frame, path, remote,
};
use pipeline_cache::network::RetryPolicy;
use pipeline_cache::{
    Artifact, Fetched, PipelineCacheStore as _, PipelineFingerprint, RemoteCache, SharedSecret,
    StoreErrorKind,
};
use reqwest::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use reqwest::{Method, StatusCode};
use std::time::{Duration, SystemTime};
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn what_one_of_the_team_puts_the_others_get() {
    let server = CacheServer::start(&[]);
    let (writer, reader) = (remote(&server, WRITER), remote(&server, READER));
    assert_eq!(reader.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert!(!reader.contains(&KEY).await.unwrap());
    writer.put(&KEY, artifact(100_000)).await.unwrap();
    assert!(reader.contains(&KEY).await.unwrap());
    let got = reader.get(&KEY).await.unwrap().unwrap();
    assert_eq!(got.payload(), artifact(100_000).payload());
    assert_eq!(got.metadata(), artifact(1).metadata());
    assert!(writer.remove(&KEY).await.unwrap());
    assert!(!writer.remove(&KEY).await.unwrap());
    assert_eq!(reader.get(&KEY).await.unwrap(), None);

    for (name, expected) in [
        ("artifact_puts_total", 1),
        ("artifact_hits_total", 2),
        ("artifact_misses_total", 3),
        ("rejected_frames_total", 0),
        (
            "requests_total{area=\"artifacts\",method=\"PUT\",status=\"2xx\"}",
            1,
        ),
    ] {
        assert_eq!(
            server.metric(&format!("cache_server_{name}")).await,
            expected,
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_warnings_of_a_compile_reach_the_others_with_its_code() {
    let server = CacheServer::start(&[]);
    let (writer, reader) = (remote(&server, WRITER), remote(&server, READER));
    let parts = Artifact::builder().part("code", vec![7; 100_000]);
    let built = parts.part("warnings", "line 1").build().unwrap();
    writer.put(&KEY, built.clone()).await.unwrap();
    let got = reader.get(&KEY).await.unwrap().unwrap();
    assert_eq!(got.part("warnings").unwrap(), "line 1");
    assert_eq!(got, built);
}

/// Each with the token of its role, and apart from the artifacts of the same key.
#[tokio::test]
async fn the_team_shares_source_aliases_apart_from_artifacts() {
    let server = CacheServer::start(&[]);
    let (writer, reader) = (remote(&server, WRITER), remote(&server, READER));
    let [writes, reads] = [&writer, &reader].map(|tier| tier.alias_stores().remove(0));
    writes.put(&KEY, artifact(32)).await.unwrap();
    assert_eq!(reads.get(&KEY).await.unwrap(), Some(artifact(32)));
    assert_eq!(reader.get(&KEY).await.unwrap(), None);
    let refused = reads.put(&OTHER, artifact(32)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    assert_eq!(server.metric("cache_server_artifact_puts_total").await, 0);
    assert!(writes.remove(&KEY).await.unwrap());
    assert_eq!(reads.get(&KEY).await.unwrap(), None);
}

/// Also while nobody closes the server.
#[tokio::test]
async fn source_aliases_become_durable_as_artifacts_do() {
    let server = CacheServer::start(&[]);
    let aliases = remote(&server, WRITER).alias_stores().remove(0);
    aliases.put(&KEY, artifact(32)).await.unwrap();
    let durable = async {
        while server.metric("cache_server_artifacts_unsynced").await > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let durable = timeout(Duration::from_secs(60), durable).await;
    durable.expect("they are never flushed");
}

#[tokio::test]
async fn a_token_does_what_its_role_allows_and_is_never_printed() {
    let mut server = CacheServer::start(&[]);
    let (reader, stranger) = (
        remote(&server, READER),
        remote(&server, "stranger-0123456789"),
    );
    let refused = reader.put(&KEY, artifact(10)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    let refused = reader.remove(&KEY).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    assert_eq!(reader.get(&KEY).await.unwrap(), None);
    let refused = stranger.get(&KEY).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);

    let everywhere = [path(&KEY), "/metrics".to_owned(), "/ccache/ab/c".to_owned()];
    for path in &everywhere {
        let bare = client().get(server.url(path)).send().await.unwrap();
        assert_eq!(bare.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    for method in ["PUT", "DELETE", "MKCOL", "POST", "MADE-UP"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        for path in &everywhere {
            let request = client().request(method.clone(), server.url(path));
            let status = request.bearer_auth(READER).send().await.unwrap().status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
        }
    }
    // As a password, too, for clients that know no bearer tokens.
    let basic = client().get(server.url(&path(&KEY)));
    let basic = basic
        .basic_auth("anybody", Some(READER))
        .send()
        .await
        .unwrap();
    assert_eq!(basic.status(), StatusCode::NOT_FOUND);
    let health = client().get(server.url("/healthz")).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);

    server.terminate();
    assert!(server.wait().success());
    let said = server.said();
    assert!(
        said.contains(&format!(" reader GET {} 404 ", path(&KEY))),
        "{said}"
    );
    assert!(
        said.contains(&format!(" ? GET {} 401 ", path(&KEY))),
        "{said}"
    );
    assert!(
        said.contains(&format!(" - GET {} 401 ", path(&KEY))),
        "{said}"
    );
    for token in [READER, WRITER, "stranger-0123456789"] {
        assert!(!said.contains(token), "{said}");
    }
}

#[tokio::test]
async fn only_the_whole_frame_of_its_key_is_stored() {
    let server = CacheServer::start(&[]);
    let whole = frame(&KEY, artifact(5000)).await;
    let changed = |at: usize| {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        changed
    };
    let signed = RemoteCache::builder()
        .no_proxy()
        .bearer_token(WRITER)
        .retry(RetryPolicy::default().attempts(1))
        .shared_secret(SharedSecret::new("one that the server does not know"))
        .writes()
        .build(server.url("/artifacts"))
        .unwrap();
    let refusals = [
        Vec::new(),
        b"<html>".to_vec(),
        frame(&OTHER, artifact(5000)).await,
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"x"].concat(),
        // The magic, a flag, the key, the digest, the tag, the metadata, the payload.
        changed(0),
        changed(10),
        changed(40),
        changed(70),
        changed(100),
        changed(130),
        changed(whole.len() - 1),
    ];
    let count = refusals.len() as u64;
    for (number, refused) in refusals.into_iter().enumerate() {
        let status = server.put(&path(&KEY), refused).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{number}");
    }
    assert!(signed.put(&KEY, artifact(10)).await.is_err());
    let artifacts = server.folder().join("artifacts");
    assert_eq!(files(&artifacts), []);
    assert_eq!(
        server.metric("cache_server_rejected_frames_total").await,
        count + 1
    );

    assert_eq!(
        server.put(&path(&KEY), whole.clone()).await,
        StatusCode::CREATED
    );
    // Nor does anything of this replace what is there.
    assert_eq!(
        server.put(&path(&KEY), changed(130)).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let got = server.get(&path(&KEY), HeaderMap::new()).await;
    assert_eq!(got.bytes().await.unwrap(), whole);
}

/// What a disk does to an entry does not reach anybody, and the next put heals it.
#[tokio::test]
async fn an_entry_that_rots_on_the_server_is_a_miss_that_heals() {
    let server = CacheServer::start(&[]);
    let (writer, reader) = (remote(&server, WRITER), remote(&server, READER));
    writer.put(&KEY, artifact(5000)).await.unwrap();
    let file = server.folder().join(path(&KEY).trim_start_matches('/'));
    let whole = std::fs::read(&file).unwrap();

    // The header: the server sees it itself.
    std::fs::write(&file, b"torn").unwrap();
    assert_eq!(reader.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert_eq!(
        server.metric("cache_server_artifact_corrupt_total").await,
        1
    );
    writer.put(&KEY, artifact(5000)).await.unwrap();

    // The payload: the reader sees it.
    let mut rotten = whole;
    *rotten.last_mut().unwrap() ^= 1;
    std::fs::write(&file, rotten).unwrap();
    assert!(matches!(
        reader.fetch(&KEY).await.unwrap(),
        Fetched::Corrupt(_)
    ));
    writer.put(&KEY, artifact(5000)).await.unwrap();
    assert_eq!(reader.get(&KEY).await.unwrap(), Some(artifact(5000)));
}

#[tokio::test]
async fn signed_and_compressed_frames_are_kept_as_their_makers_had_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "the team's secret\n").unwrap();
    let server = CacheServer::start(&["--secret-file", file.to_str().unwrap()]);
    let ours = || {
        let secret = SharedSecret::new("the team's secret");
        let builder = builder(WRITER).shared_secret(secret).zstd(3, 1000);
        builder.build(server.url("/artifacts")).unwrap()
    };
    let zeros = Artifact::new(vec![0; 1 << 20]);
    ours().put(&KEY, zeros.clone()).await.unwrap();
    assert_eq!(ours().get(&KEY).await.unwrap(), Some(zeros));
    let stored = files(&server.folder().join("artifacts"));
    let entry = stored
        .iter()
        .find(|(path, _)| path.ends_with(format!("{KEY}.bin")));
    let (_, length) = entry.unwrap();
    assert!(
        *length < 10_000,
        "it was not stored compressed: {length} bytes"
    );

    // Whole, but not of the team.
    let unsigned = remote(&server, WRITER).put(&OTHER, artifact(10)).await;
    assert!(unsigned.is_err());
    assert_eq!(ours().get(&OTHER).await.unwrap(), None);

    // What was stored before there was a secret is somebody's, until nobody has used it for a day.
    let old = artifact(10).to_frame(&OTHER, None).unwrap();
    let file = server.folder().join(path(&OTHER).trim_start_matches('/'));
    std::fs::write(&file, &old).unwrap();
    assert_eq!(ours().fetch(&OTHER).await.unwrap(), Fetched::Refused);
    assert!(ours().put(&OTHER, artifact(10)).await.is_err());
    assert_eq!(std::fs::read(&file).unwrap(), old);
    let unused = SystemTime::now() - Duration::from_secs(2 * 24 * 60 * 60);
    let opened = std::fs::File::open(&file).unwrap();
    opened.set_modified(unused).unwrap();
    assert_eq!(ours().fetch(&OTHER).await.unwrap(), Fetched::Refused);
    ours().put(&OTHER, artifact(10)).await.unwrap();
    assert_eq!(ours().get(&OTHER).await.unwrap(), Some(artifact(10)));
}

#[tokio::test]
async fn parts_and_revalidations_are_answered_as_http_has_it() {
    let server = CacheServer::start(&[]);
    let whole = frame(&KEY, artifact(200_000)).await;
    server.put(&path(&KEY), whole.clone()).await;
    let length = whole.len();

    let head = client().head(server.url(&path(&KEY))).bearer_auth(READER);
    let head = head.send().await.unwrap();
    assert_eq!(head.headers()[CONTENT_LENGTH], length.to_string());
    assert_eq!(head.headers()[ACCEPT_RANGES], "bytes");
    let etag = head.headers()[ETAG].clone();

    let with = |name, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
    // A part is a matter of GET alone.
    for range in ["bytes=0-0", "bytes=99999999-"] {
        let head = client().head(server.url(&path(&KEY))).bearer_auth(READER);
        let head = head.header(RANGE, range).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK, "{range}");
        assert_eq!(head.headers()[CONTENT_LENGTH], length.to_string());
    }
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=100-299", 100..300),
        ("bytes=100000-", 100_000..length),
        ("bytes=-7", length - 7..length),
        ("bytes=5-99999999", 5..length),
    ] {
        let part = server.get(&path(&KEY), with(RANGE, range)).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        let said = format!("bytes {}-{}/{length}", expected.start, expected.end - 1);
        assert_eq!(part.headers()[CONTENT_RANGE], said);
        assert_eq!(part.bytes().await.unwrap(), whole[expected]);
    }
    for range in [
        "bytes=-",
        "bytes=9-5",
        "lines=1-2",
        "bytes=0-1,5-6",
        "bytes=x-",
    ] {
        let all = server.get(&path(&KEY), with(RANGE, range)).await;
        assert_eq!(all.status(), StatusCode::OK, "{range}");
        assert_eq!(all.bytes().await.unwrap(), whole);
    }
    for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
        let beyond = server.get(&path(&KEY), with(RANGE, &range)).await;
        assert_eq!(
            beyond.status(),
            StatusCode::RANGE_NOT_SATISFIABLE,
            "{range}"
        );
    }

    let same = server
        .get(
            &path(&KEY),
            HeaderMap::from_iter([(IF_NONE_MATCH, etag.clone())]),
        )
        .await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    let other = server
        .get(&path(&KEY), with(IF_NONE_MATCH, "\"other\""))
        .await;
    assert_eq!(other.status(), StatusCode::OK);
    let mut listed = with(IF_NONE_MATCH, "\"other\", W/\"another\"");
    listed.append(IF_NONE_MATCH, etag.clone());
    let same = server.get(&path(&KEY), listed).await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    // Half of one frame and half of another would be neither.
    let mut resumed = with(RANGE, "bytes=100-299");
    resumed.insert(IF_RANGE, etag);
    let part = server.get(&path(&KEY), resumed.clone()).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    let removed = client().delete(server.url(&path(&KEY))).bearer_auth(WRITER);
    assert_eq!(
        removed.send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    server
        .put(&path(&KEY), frame(&KEY, artifact(199_999)).await)
        .await;
    let whole = server.get(&path(&KEY), resumed).await;
    assert_eq!(whole.status(), StatusCode::OK);
}

/// The tag of a compressed frame says nothing of its bytes, and that of a blob would say nothing.
#[tokio::test]
async fn only_equal_bytes_have_equal_strong_tags() {
    let server = CacheServer::start(&[]);
    let zstd = builder(WRITER).zstd(1, 0);
    let zstd = zstd.build(server.url("/artifacts")).unwrap();
    zstd.put(&KEY, artifact(200_000)).await.unwrap();
    let whole = server.get(&path(&KEY), HeaderMap::new()).await;
    let etag = whole.headers()[ETAG].clone();
    assert!(etag.to_str().unwrap().starts_with("W/\""), "{etag:?}");
    let known = HeaderMap::from_iter([(IF_NONE_MATCH, etag.clone())]);
    let same = server.get(&path(&KEY), known).await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    let part = || (RANGE, "bytes=100-299".parse().unwrap());
    let resumed = HeaderMap::from_iter([part(), (IF_RANGE, etag)]);
    let all = server.get(&path(&KEY), resumed).await;
    assert_eq!(all.status(), StatusCode::OK);

    server.put("/ccache/a", vec![1; 1000]).await;
    let blob = server
        .get("/ccache/a", HeaderMap::from_iter([part()]))
        .await;
    assert_eq!(blob.status(), StatusCode::PARTIAL_CONTENT);
    assert!(!blob.headers().contains_key(ETAG));
}

#[tokio::test]
async fn blobs_of_other_caches_come_back_and_stay_within_their_bound() {
    let server = CacheServer::start(&["--max-foreign-bytes", "1M"]);
    let blob = |number: usize| vec![number as u8; 40_000];
    for number in 0..60 {
        let path = format!("/sccache/{number}/blob-{number}");
        assert_eq!(server.put(&path, blob(number)).await, StatusCode::CREATED);
        let got = server.get(&path, HeaderMap::new()).await;
        assert_eq!(got.bytes().await.unwrap(), blob(number));
    }
    let held = "cache_server_blob_bytes{area=\"sccache\"}";
    server.wait_for(held, |bytes| bytes <= 1 << 20).await;
    let blobs = files(&server.folder().join("sccache"));
    let bytes: u64 = blobs.iter().map(|(_, length)| length).sum();
    assert!((500_000..=1 << 20).contains(&bytes), "{bytes}");
    // The other tool has its own.
    assert_eq!(files(&server.folder().join("ccache")), []);
    assert_eq!(
        server
            .get("/ccache/1/blob-1", HeaderMap::new())
            .await
            .status(),
        404
    );

    let path = "/ccache/ab/cd";
    server.put(path, "one").await;
    server.put(path, "another").await;
    assert_eq!(
        server
            .get(path, HeaderMap::new())
            .await
            .text()
            .await
            .unwrap(),
        "another"
    );
    let removed = client().delete(server.url(path)).bearer_auth(WRITER);
    assert_eq!(
        removed.send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        server.get(path, HeaderMap::new()).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        server
            .metric("cache_server_blob_bytes{area=\"ccache\"}")
            .await,
        0
    );
}

#[tokio::test]
async fn what_webdav_clients_ask_first_is_answered() {
    let server = CacheServer::start(&[]);
    server.put("/sccache/a/blob", "12345").await;
    let ask = |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = client().request(method, server.url(path));
        let request = request.bearer_auth(WRITER).header("Depth", "0");
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    let (status, folder) = ask("PROPFIND", "/sccache/a/").await;
    assert_eq!(status, 207);
    assert!(folder.contains("<D:collection/>"), "{folder}");
    let (status, blob) = ask("PROPFIND", "/sccache/a/blob").await;
    assert_eq!(status, 207);
    assert!(blob.contains("<D:getcontentlength>5<"), "{blob}");
    assert!(!blob.contains("collection"), "{blob}");
    assert_eq!(ask("PROPFIND", "/sccache/a/other").await.0, 404);
    assert_eq!(ask("MKCOL", "/sccache/a/b/").await.0, 201);
    assert_eq!(ask("OPTIONS", "/sccache/").await.0, 200);
    assert_eq!(ask("LOCK", "/sccache/a/blob").await.0, 405);
}

/// While clients change from one secret to another, some have the old one.
#[tokio::test]
async fn each_of_several_secrets_is_accepted_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["new", "old"].map(|name| {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("the {name} secret\n")).unwrap();
        [
            "--secret-file".to_owned(),
            file.to_str().unwrap().to_owned(),
        ]
    });
    let flags: Vec<_> = flags.iter().flatten().map(String::as_str).collect();
    let server = CacheServer::start(&flags);
    let client = |name: &str| {
        let secret = SharedSecret::new(format!("the {name} secret"));
        let client = builder(WRITER).shared_secret(secret);
        client.build(server.url("/artifacts")).unwrap()
    };
    for (key, name) in [(KEY, "new"), (OTHER, "old")] {
        let client = client(name);
        client.put(&key, artifact(100)).await.unwrap();
        assert_eq!(client.get(&key).await.unwrap(), Some(artifact(100)));
    }
    let third = PipelineFingerprint::from_bytes([0x33; 32]);
    let refused = client("lost").put(&third, artifact(100)).await;
    refused.unwrap_err();
}
