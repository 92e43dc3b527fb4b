//! What `cache_server` promises to the people who share it, and to whoever looks after it.
#![cfg(unix)]

#[path = "support/cache_server.rs"]
mod support;

use bytes::Bytes;
use futures::future::join_all;
use http_body::Frame;
use http_body_util::StreamBody;
use pipeline_cache::{
    Artifact, ArtifactMetadata, Fetched, PipelineCacheStore as _, PipelineFingerprint, RemoteCache,
    RemoteCacheBuilder, RetryPolicy, SharedSecret, StoreErrorKind,
};
use reqwest::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use reqwest::{Body, Client, Method, Response, StatusCode};
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;
use support::{CacheServer, READER, WRITER, files, frame, program};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([0x22; 32]);

fn builder(token: &str) -> RemoteCacheBuilder {
    RemoteCache::builder()
        .proxy_from_environment(false)
        .bearer_token(token)
        .retry(RetryPolicy::default().attempts(1))
        .writes(true)
}

fn remote(server: &CacheServer, token: &str) -> RemoteCache {
    builder(token).build(server.url("/artifacts")).unwrap()
}

fn artifact(bytes: usize) -> Artifact {
    let payload: Vec<u8> = (0..bytes).map(|i| (i * 31 % 251) as u8).collect();
    Artifact::with_metadata(payload, ArtifactMetadata::new().with_provenance("ci"))
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

fn path(key: &PipelineFingerprint) -> String {
    format!("/artifacts/{key}.bin")
}

async fn put(server: &CacheServer, path: &str, body: impl Into<Body>) -> StatusCode {
    let request = client().put(server.url(path)).bearer_auth(WRITER);
    request.body(body).send().await.unwrap().status()
}

async fn get(server: &CacheServer, path: &str, headers: HeaderMap) -> Response {
    let request = client().get(server.url(path)).bearer_auth(READER);
    request.headers(headers).send().await.unwrap()
}

/// Waits until a number of the server's is what it should come to be.
async fn wait_for(server: &CacheServer, name: &str, reached: impl Fn(u64) -> bool) {
    for _ in 0..4000 {
        if reached(metric(server, name).await) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{name} stays at {}", metric(server, name).await);
}

async fn metric(server: &CacheServer, name: &str) -> u64 {
    let text = get(server, "/metrics", HeaderMap::new()).await;
    let text = text.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.unwrap_or_else(|| panic!("no {name} in {text}"));
    value.trim().parse().unwrap()
}

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
        ("refused_frames_total", 0),
        (
            "requests_total{area=\"artifacts\",method=\"PUT\",status=\"2xx\"}",
            1,
        ),
    ] {
        assert_eq!(
            metric(&server, &format!("cache_server_{name}")).await,
            expected,
            "{name}"
        );
    }
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

#[test]
fn tokens_that_make_no_sense_stop_it_and_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for (tokens, expected) in [
        ("", "nobody could do anything"),
        ("read-only ci", "line 1 of the tokens"),
        ("\nadmin ci hunter2hunter2hunter2", "line 2 of the tokens"),
        ("read-only ci hunter2", "fewer than 16 characters"),
        (
            "read-only ci hunter2hunter2hunter2 hunter2",
            "a role, a name and a token",
        ),
    ] {
        let output = Command::new(program())
            .args(["--listen", "127.0.0.1:0", "--cache-dir"])
            .arg(folder.path())
            .env("CACHE_SERVER_TOKENS", tokens)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
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
        .proxy_from_environment(false)
        .bearer_token(WRITER)
        .retry(RetryPolicy::default().attempts(1))
        .shared_secret(SharedSecret::new("one that the server does not know"))
        .writes(true)
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
        let status = put(&server, &path(&KEY), refused).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{number}");
    }
    assert!(signed.put(&KEY, artifact(10)).await.is_err());
    let artifacts = server.folder().join("artifacts");
    assert_eq!(files(&artifacts), []);
    assert_eq!(
        metric(&server, "cache_server_refused_frames_total").await,
        count + 1
    );

    assert_eq!(
        put(&server, &path(&KEY), whole.clone()).await,
        StatusCode::CREATED
    );
    // Nor does anything of this replace what is there.
    assert_eq!(
        put(&server, &path(&KEY), changed(130)).await,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    let got = get(&server, &path(&KEY), HeaderMap::new()).await;
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
        metric(&server, "cache_server_artifact_corrupt_total").await,
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
}

#[tokio::test]
async fn parts_and_revalidations_are_answered_as_http_has_it() {
    let server = CacheServer::start(&[]);
    let whole = frame(&KEY, artifact(200_000)).await;
    put(&server, &path(&KEY), whole.clone()).await;
    let length = whole.len();

    let head = client().head(server.url(&path(&KEY))).bearer_auth(READER);
    let head = head.send().await.unwrap();
    assert_eq!(head.headers()[CONTENT_LENGTH], length.to_string());
    assert_eq!(head.headers()[ACCEPT_RANGES], "bytes");
    let etag = head.headers()[ETAG].clone();

    let with = |name, value: &str| HeaderMap::from_iter([(name, value.parse().unwrap())]);
    for (range, expected) in [
        ("bytes=0-0", 0..1),
        ("bytes=100-299", 100..300),
        ("bytes=100000-", 100_000..length),
        ("bytes=-7", length - 7..length),
        ("bytes=5-99999999", 5..length),
    ] {
        let part = get(&server, &path(&KEY), with(RANGE, range)).await;
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
        let all = get(&server, &path(&KEY), with(RANGE, range)).await;
        assert_eq!(all.status(), StatusCode::OK, "{range}");
        assert_eq!(all.bytes().await.unwrap(), whole);
    }
    for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
        let beyond = get(&server, &path(&KEY), with(RANGE, &range)).await;
        assert_eq!(
            beyond.status(),
            StatusCode::RANGE_NOT_SATISFIABLE,
            "{range}"
        );
    }

    let same = get(
        &server,
        &path(&KEY),
        HeaderMap::from_iter([(IF_NONE_MATCH, etag.clone())]),
    )
    .await;
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    let other = get(&server, &path(&KEY), with(IF_NONE_MATCH, "\"other\"")).await;
    assert_eq!(other.status(), StatusCode::OK);
    // Half of one frame and half of another would be neither.
    let mut resumed = with(RANGE, "bytes=100-299");
    resumed.insert(IF_RANGE, etag);
    let part = get(&server, &path(&KEY), resumed.clone()).await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    let removed = client().delete(server.url(&path(&KEY))).bearer_auth(WRITER);
    assert_eq!(
        removed.send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    put(&server, &path(&KEY), frame(&KEY, artifact(199_999)).await).await;
    let whole = get(&server, &path(&KEY), resumed).await;
    assert_eq!(whole.status(), StatusCode::OK);
}

#[tokio::test]
async fn bodies_above_their_limit_are_not_taken_whatever_is_announced() {
    let server = CacheServer::start(&["--max-artifact", "100K", "--max-foreign-blob", "100K"]);
    let whole = frame(&KEY, artifact(100 << 10)).await;
    assert_eq!(put(&server, &path(&KEY), whole).await, StatusCode::CREATED);
    let large = frame(&OTHER, artifact((100 << 10) + 1)).await;
    for target in [path(&OTHER), "/sccache/a/b".to_owned()] {
        let large = [&large[..], &vec![0; 1 << 20]].concat();
        assert_eq!(
            put(&server, &target, large.clone()).await,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        // In chunks, of which nobody knows how many will come.
        let chunks = large.chunks(1000).map(Bytes::copy_from_slice);
        let chunks: Vec<_> = chunks
            .map(|part| Ok::<_, Infallible>(Frame::data(part)))
            .collect();
        let body = Body::wrap(StreamBody::new(futures::stream::iter(chunks)));
        let request = client()
            .put(server.url(&target))
            .bearer_auth(WRITER)
            .body(body);
        match request.send().await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE),
            // It may close the connection while the client still sends.
            Err(error) => assert!(error.is_request(), "{error:?}"),
        }
    }
    assert_eq!(
        put(&server, &path(&OTHER), large).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let blobs = files(&server.folder().join("sccache"));
    assert_eq!(blobs, []);
}

/// One request as bytes, and the status of its answer; 0 where the connection is closed instead.
fn raw(server: &CacheServer, request: &str) -> u16 {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer
        .split(' ')
        .nth(1)
        .map_or(0, |status| status.parse().unwrap())
}

#[tokio::test]
async fn no_path_leads_out_of_its_place() {
    let server = CacheServer::start(&[]);
    std::fs::write(server.folder().join("outside"), "secret").unwrap();
    let hex = KEY.to_hex();
    let before = files(server.folder().parent().unwrap());
    let paths = [
        "/artifacts/../outside".to_owned(),
        "/artifacts/..%2foutside".to_owned(),
        "/artifacts/%2e%2e/outside".to_owned(),
        "/artifacts//etc/passwd".to_owned(),
        "/artifacts/".to_owned(),
        "/artifacts/.staging".to_owned(),
        format!("/artifacts/{hex}"),
        format!("/artifacts/{hex}.corrupt"),
        format!("/artifacts/{hex}.bin/"),
        format!("/artifacts/{hex}.bin%00"),
        format!("/artifacts/./{hex}.bin"),
        format!("/artifacts/{}.bin", hex.replace('1', "A")),
        "/sccache/../outside".to_owned(),
        "/sccache/../artifacts/x".to_owned(),
        "/sccache/..\\outside".to_owned(),
        "/sccache/%2e%2e/outside".to_owned(),
        "/sccache/a/./b".to_owned(),
        "/sccache/a//b".to_owned(),
        "/sccache/a%00b".to_owned(),
        format!("/sccache/{}", "a".repeat(2000)),
        "/ccache/~root".to_owned(),
        "/outside".to_owned(),
        "/../outside".to_owned(),
        "/".to_owned(),
    ];
    for path in &paths {
        for method in ["GET", "PUT", "DELETE"] {
            let request = format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                 Authorization: Bearer {WRITER}\r\nContent-Length: 1\r\n\r\nx"
            );
            let status = raw(&server, &request);
            assert!(
                matches!(status, 400 | 404 | 405 | 414),
                "{method} {path}: {status}"
            );
        }
    }
    assert_eq!(files(server.folder().parent().unwrap()), before);
}

#[tokio::test]
async fn a_body_that_breaks_off_or_stands_still_leaves_nothing() {
    let server = CacheServer::start(&["--inactivity", "0.2"]);
    for target in [path(&KEY), "/ccache/ab/cd".to_owned()] {
        let head = format!(
            "PUT {target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITER}\r\n\
             Content-Length: 1000\r\n\r\nonly this"
        );
        // It stands still: the server gives it up.
        assert_eq!(raw(&server, &head), 408);
        let mut broken = TcpStream::connect(server.address()).unwrap();
        broken.write_all(head.as_bytes()).unwrap();
        drop(broken);
    }
    // What is asked for next comes after the server has noticed.
    let gone = async {
        loop {
            let left: Vec<_> = files(&server.folder());
            let left: Vec<_> = left
                .iter()
                .filter(|(path, _)| !path.ends_with("lock"))
                .collect();
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
}

/// Its memory for uploads is a budget, and not what clients make of it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_at_once_take_bounded_memory() {
    const UPLOADS: u8 = 48;
    let server = CacheServer::start(&["--upload-memory", "16M"]);
    let remote = builder(WRITER).max_concurrent_requests(usize::from(UPLOADS));
    let remote = remote.build(server.url("/artifacts")).unwrap();
    let artifact = artifact(8 << 20);
    let puts = (0..UPLOADS).map(|number| {
        let key = PipelineFingerprint::from_bytes([number; 32]);
        let (remote, artifact) = (&remote, artifact.clone());
        async move { remote.put(&key, artifact).await.unwrap() }
    });
    join_all(puts).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    let peak: u64 = peak.parse().unwrap();
    println!(
        "{UPLOADS} uploads of 8 MiB at once: at most {} MiB",
        peak >> 10
    );
    assert!(peak >> 10 < 160, "{} MiB", peak >> 10);
    assert_eq!(
        metric(&server, "cache_server_artifact_puts_total").await,
        u64::from(UPLOADS)
    );
}

#[tokio::test]
async fn a_server_told_to_stop_finishes_what_is_under_way() {
    let mut server = CacheServer::start(&[]);
    let whole = frame(&KEY, artifact(100_000)).await;
    let mut upload = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITER}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        path(&KEY),
        whole.len()
    );
    upload.write_all(head.as_bytes()).unwrap();
    upload.write_all(&whole[..5000]).unwrap();
    // The upload is under way once it is counted.
    let under_way = "cache_server_requests_under_way";
    wait_for(&server, under_way, |requests| requests >= 2).await;
    server.terminate();
    // It takes nobody any more.
    while TcpStream::connect(server.address()).is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    upload.write_all(&whole[5000..]).unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(server.wait().code(), Some(0));
    let entry = server.folder().join(path(&KEY).trim_start_matches('/'));
    assert_eq!(std::fs::read(entry).unwrap(), whole);
    let line = format!(" writer PUT {} 201 ", path(&KEY));
    assert!(server.said().contains(&line), "{}", server.said());
}

#[tokio::test]
async fn a_server_told_to_stop_does_not_wait_for_ever() {
    let mut server = CacheServer::start(&["--drain", "0.3"]);
    let mut stuck = TcpStream::connect(server.address()).unwrap();
    let head = format!(
        "PUT /ccache/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {WRITER}\r\n\
         Content-Length: 10\r\n\r\n"
    );
    stuck.write_all(head.as_bytes()).unwrap();
    wait_for(&server, "cache_server_requests_under_way", |requests| {
        requests >= 2
    })
    .await;
    server.terminate();
    assert_eq!(server.wait().code(), Some(3));
}

#[tokio::test]
async fn blobs_of_other_caches_come_back_and_stay_within_their_bound() {
    let server = CacheServer::start(&["--max-foreign-bytes", "1M"]);
    let blob = |number: usize| vec![number as u8; 40_000];
    for number in 0..60 {
        let path = format!("/sccache/{number}/blob-{number}");
        assert_eq!(put(&server, &path, blob(number)).await, StatusCode::CREATED);
        let got = get(&server, &path, HeaderMap::new()).await;
        assert_eq!(got.bytes().await.unwrap(), blob(number));
    }
    let held = "cache_server_blob_bytes{area=\"sccache\"}";
    wait_for(&server, held, |bytes| bytes <= 1 << 20).await;
    let blobs = files(&server.folder().join("sccache"));
    let bytes: u64 = blobs.iter().map(|(_, length)| length).sum();
    assert!((500_000..=1 << 20).contains(&bytes), "{bytes}");
    // The other tool has its own.
    assert_eq!(files(&server.folder().join("ccache")), []);
    assert_eq!(
        get(&server, "/ccache/1/blob-1", HeaderMap::new())
            .await
            .status(),
        404
    );

    let path = "/ccache/ab/cd";
    put(&server, path, "one").await;
    put(&server, path, "another").await;
    assert_eq!(
        get(&server, path, HeaderMap::new())
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
        get(&server, path, HeaderMap::new()).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        metric(&server, "cache_server_blob_bytes{area=\"ccache\"}").await,
        0
    );
}

#[tokio::test]
async fn what_webdav_clients_ask_first_is_answered() {
    let server = CacheServer::start(&[]);
    put(&server, "/sccache/a/blob", "12345").await;
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
