//! What `cache_server` answers to requests that mean something else than they seem to: parts of an
//! upload, conditions, a wrong base; and where it says what is where.

use super::support::{
    CacheServer, KEY, OTHER, READER, WRITER, artifact, builder, client, frame, path, program,
};
use pipeline_cache::PipelineCacheStore as _;
use reqwest::header::{
    CACHE_CONTROL, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, RANGE,
};
use reqwest::{Response, StatusCode};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn with(name: HeaderName, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(name, value.parse().unwrap())])
}

async fn put(server: &CacheServer, path: &str, headers: HeaderMap, body: Vec<u8>) -> StatusCode {
    let request = client().put(server.url(path)).bearer_auth(WRITER);
    let request = request.headers(headers).body(body);
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_part_of_an_entry_is_not_stored_as_the_whole() {
    let server = CacheServer::start(&[]);
    let whole = frame(&KEY, artifact(5000)).await;
    let part = with(CONTENT_RANGE, "bytes 0-9/100");
    for (path, body) in [
        (path(&KEY), whole),
        ("/ccache/a".into(), b"0123456789".into()),
    ] {
        let status = put(&server, &path, part.clone(), body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        let stored = server.get(&path, HeaderMap::new()).await.status();
        assert_eq!(stored, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn if_match_is_honoured() {
    let server = CacheServer::start(&[]);
    let whole = frame(&KEY, artifact(5000)).await;
    let any = || with(IF_MATCH, "*");
    let stored = |headers| put(&server, "/ccache/a", headers, b"blob".to_vec());
    // There is nothing that it could match.
    let status = put(&server, &path(&KEY), any(), whole.clone()).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(stored(any()).await, StatusCode::PRECONDITION_FAILED);
    let absent = server.get(&path(&KEY), any()).await.status();
    assert_eq!(absent, StatusCode::NOT_FOUND);

    assert_eq!(
        put(&server, &path(&KEY), HeaderMap::new(), whole.clone()).await,
        201
    );
    assert_eq!(stored(HeaderMap::new()).await, 201);
    let found = server.get(&path(&KEY), HeaderMap::new()).await;
    let etag = found.headers()[ETAG].to_str().unwrap().to_owned();
    for (tags, matches) in [
        ("*".to_owned(), true),
        (etag.clone(), true),
        (format!("\"other\", {etag}"), true),
        ("\"other\"".to_owned(), false),
        (format!("W/{etag}"), false),
    ] {
        let headers = with(IF_MATCH, &tags);
        let got = server.get(&path(&KEY), headers.clone()).await.status();
        let status = put(&server, &path(&KEY), headers, whole.clone()).await;
        if matches {
            assert_eq!(
                (got, status),
                (StatusCode::OK, StatusCode::CREATED),
                "{tags}"
            );
        } else {
            let failed = StatusCode::PRECONDITION_FAILED;
            assert_eq!((got, status), (failed, failed), "{tags}");
        }
    }
    // A blob has no tag: nothing but `*` matches it.
    assert_eq!(stored(any()).await, StatusCode::CREATED);
    assert_eq!(
        stored(with(IF_MATCH, "\"a\"")).await,
        StatusCode::PRECONDITION_FAILED
    );
    let got = server.get("/ccache/a", with(IF_MATCH, "\"a\"")).await;
    assert_eq!(got.status(), StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn artifacts_may_be_kept_by_caches_on_the_way_for_as_long_as_they_like() {
    let kept = |answer: &Response| answer.headers().get(CACHE_CONTROL).cloned();
    for (arguments, who) in [
        (&[][..], "private"),
        (&["--anonymous", "read-only"][..], "public"),
    ] {
        let server = CacheServer::start(arguments);
        server
            .put(&path(&KEY), frame(&KEY, artifact(5000)).await)
            .await;
        server.put("/ccache/a", "blob").await;
        let expected = format!("{who}, max-age=31536000, immutable, no-transform");
        let whole = server.get(&path(&KEY), HeaderMap::new()).await;
        let etag = whole.headers()[ETAG].to_str().unwrap().to_owned();
        assert_eq!(kept(&whole).unwrap(), expected);
        let part = server.get(&path(&KEY), with(RANGE, "bytes=0-9")).await;
        assert_eq!(kept(&part).unwrap(), expected);
        let same = server.get(&path(&KEY), with(IF_NONE_MATCH, &etag)).await;
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(kept(&same).unwrap(), expected);
        // A source alias may be corrected.
        let alias = path(&KEY).replace("/artifacts/", "/artifacts/aliases/");
        server.put(&alias, frame(&KEY, artifact(32)).await).await;
        let alias = server.get(&alias, HeaderMap::new()).await;
        assert_eq!(kept(&alias).unwrap(), "no-cache, no-transform");
        // A miss may be a hit in a moment, and a blob may be replaced by another.
        let miss = server.get(&path(&OTHER), HeaderMap::new()).await;
        assert_eq!(kept(&miss), None);
        let blob = server.get("/ccache/a", HeaderMap::new()).await;
        assert_eq!(kept(&blob), None);
    }
}

#[tokio::test]
async fn one_token_with_two_roles_stops_it_and_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let token = "hunter2hunter2hunter2";
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let start = |lines: String| {
        Command::new(program())
            // Taken: it ends in any case.
            .args(["--listen", &taken, "--cache-dir"])
            .arg(folder.path())
            .env("CACHE_SERVER_TOKENS", lines)
            .output()
            .unwrap()
    };
    let output = start(format!("read-only dev {token}\n\nread-write ci {token}"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    let variable = "the variable CACHE_SERVER_TOKENS";
    let lines = format!("line 1 of {variable} and line 3 of {variable}");
    assert!(said.contains(&lines), "{said}");
    assert!(said.contains("two roles"), "{said}");
    assert!(!said.contains(token), "{said}");
}

#[cfg(unix)]
#[test]
fn tokens_that_are_not_text_stop_it() {
    use std::os::unix::ffi::OsStrExt as _;

    let folder = tempfile::tempdir().unwrap();
    let tokens = std::ffi::OsStr::from_bytes(b"read-write ci caf\xe9-hunter2-hunter2");
    let output = Command::new(program())
        .args([
            "--anonymous",
            "read-only",
            "--listen",
            "127.0.0.1:0",
            "--cache-dir",
        ])
        .arg(folder.path())
        .env("CACHE_SERVER_TOKENS", tokens)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("CACHE_SERVER_TOKENS is not UTF-8"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn an_artifact_asked_for_at_a_wrong_base_is_told_where_artifacts_are() {
    let server = CacheServer::start(&[]);
    server
        .put(&path(&KEY), frame(&KEY, artifact(10)).await)
        .await;
    for base in ["", "/cache", "/a/b", "/artifacts/sub", "/artifact"] {
        let answer = server
            .get(&format!("{base}/{KEY}.bin"), HeaderMap::new())
            .await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{base}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("/artifacts/"), "{base}: {text}");
        assert!(text.contains("base URL"), "{base}: {text}");
        let status = server.put(&format!("{base}/{KEY}.bin"), "x").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{base}");
        let remote = builder(READER).build(server.url(base)).unwrap();
        let error = anyhow::Error::from(remote.fetch(&KEY).await.unwrap_err());
        let error = format!("{error:#}");
        assert!(error.contains("400"), "{base}: {error}");
    }
    // The name of a blob is whatever its tool likes.
    let blob = server
        .get(&format!("/ccache/{KEY}.bin"), HeaderMap::new())
        .await;
    let text = blob.text().await.unwrap();
    assert!(!text.contains("/artifacts/"), "{text}");
}

#[tokio::test]
async fn help_and_the_first_line_say_what_is_where() {
    let help = Command::new(program()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let server = CacheServer::start(&[]);
    let line = server.start_line();
    for part in [
        "/artifacts",
        "/ccache",
        "/sccache",
        "/status",
        "/metrics",
        "/healthz",
        "TLS",
    ] {
        assert!(help.contains(part), "{part}: {help}");
        assert!(line.contains(part), "{part}: {line}");
    }
    assert!(line.contains(&server.url("/artifacts")), "{line}");
}

#[tokio::test]
async fn a_client_of_prometheus_reads_what_the_server_counts() {
    let server = CacheServer::start(&[]);
    server
        .put(&path(&KEY), frame(&KEY, artifact(10)).await)
        .await;
    let text = server.get("/metrics", HeaderMap::new()).await;
    let Some(lines) = super::prometheus::parse(&text.text().await.unwrap()) else {
        return;
    };
    let families = lines.iter().filter_map(|line| line.strip_prefix("family "));
    for family in families {
        assert!(family.starts_with("cache_server_"), "{family}");
        assert!(
            family.ends_with(" counter True") || family.ends_with(" gauge True"),
            "{family}"
        );
    }
    for sample in [
        "sample cache_server_artifact_puts_total - 1.0",
        "sample cache_server_requests_total area=artifacts,method=PUT,status=2xx 1.0",
        "sample cache_server_blob_bytes area=sccache 0.0",
    ] {
        assert!(
            lines.iter().any(|line| line == sample),
            "{sample}: {lines:#?}"
        );
    }
}

/// Removes empty folders below one of the server's, or all of it.
fn clean(folder: &Path, all: bool) {
    if all {
        std::fs::remove_dir_all(folder).unwrap();
        return;
    }
    let below = walkdir::WalkDir::new(folder).contents_first(true);
    for entry in below.into_iter().map(Result::unwrap) {
        if entry.file_type().is_dir() {
            // Where it is not empty, it stays.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[tokio::test]
async fn a_cleaner_that_removes_folders_costs_nothing_but_what_was_in_them() {
    for all in [false, true] {
        let server = CacheServer::start(&[]);
        for tool in ["ccache", "sccache"] {
            let paths = (0..20).map(|number| format!("/{tool}/blob-{number}"));
            for (number, path) in paths.enumerate() {
                clean(&server.folder().join(tool), all);
                let missed = server.get(&path, HeaderMap::new()).await.status();
                assert_eq!(missed, StatusCode::NOT_FOUND, "{path}");
                let gone = client().delete(server.url(&path)).bearer_auth(WRITER);
                assert_eq!(gone.send().await.unwrap().status(), 404, "{path}");
                let status = server.put(&path, vec![number as u8; 100_000]).await;
                assert_eq!(status, StatusCode::CREATED, "{path}");
                let got = server.get(&path, HeaderMap::new()).await;
                assert_eq!(got.bytes().await.unwrap(), vec![number as u8; 100_000]);
            }
        }
        // Where uploads of artifacts wait.
        clean(&server.folder().join("uploads"), all);
        let whole = frame(&KEY, artifact(1 << 20)).await;
        assert_eq!(server.put(&path(&KEY), whole).await, StatusCode::CREATED);
        assert!(!server.said().contains("cannot"), "{}", server.said());
    }
}

/// In the midst of an upload there is nothing but a file that is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn a_cleaner_that_never_rests_breaks_no_upload() {
    let server = CacheServer::start(&[]);
    let folder = server.folder().join("sccache");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let cleaner = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for entry in walkdir::WalkDir::new(&folder)
                .contents_first(true)
                .into_iter()
                .flatten()
            {
                if entry.file_type().is_dir() {
                    let _ = std::fs::remove_dir(entry.path());
                }
            }
        }
    });
    let client = client();
    for number in 0..300 {
        let path = format!("/sccache/blob-{number}");
        let request = client.put(server.url(&path)).bearer_auth(WRITER);
        let status = request.body(vec![1; 2000]).send().await.unwrap().status();
        assert_eq!(status, StatusCode::CREATED, "{path}: {}", server.said());
    }
    stop.store(true, Ordering::Relaxed);
    cleaner.join().unwrap();
}
