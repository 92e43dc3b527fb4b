//! What `cache_server` withstands: bodies without end, paths with tricks, clients that leave, more
//! uploads than it has memory for, the signal to stop in the midst of all that, and settings that make
//! no sense.

use super::support::{
    CacheServer, KEY, OTHER, WRITER, artifact, builder, client, files, frame, path, program,
    put_head,
};
use bytes::Bytes;
use futures::future::join_all;
use http_body::Frame;
use http_body_util::StreamBody;
use pipeline_cache::{PipelineCacheStore as _, PipelineFingerprint};
use reqwest::header::HeaderMap;
use reqwest::{Body, StatusCode};
use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

/// Puts what the server refuses before it has read it all.
async fn is_too_large(server: &CacheServer, path: &str, body: impl Into<Body>) {
    let request = client()
        .put(server.url(path))
        .bearer_auth(WRITER)
        .body(body);
    match request.send().await {
        Ok(answer) => assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE),
        // It may close the connection while the client still sends.
        Err(error) => assert!(error.is_request(), "{error:?}"),
    }
}

#[tokio::test]
async fn bodies_above_their_limit_are_not_taken_whatever_is_announced() {
    let server = CacheServer::start(&["--max-artifact", "100K", "--max-foreign-blob", "100K"]);
    let whole = frame(&KEY, artifact(100 << 10)).await;
    assert_eq!(server.put(&path(&KEY), whole).await, StatusCode::CREATED);
    let large = frame(&OTHER, artifact((100 << 10) + 1)).await;
    for target in [path(&OTHER), "/sccache/a/b".to_owned()] {
        let large = [&large[..], &vec![0; 1 << 20]].concat();
        is_too_large(&server, &target, large.clone()).await;
        // In chunks, of which nobody knows how many will come.
        let chunks = large.chunks(1000).map(Bytes::copy_from_slice);
        let chunks: Vec<_> = chunks
            .map(|part| Ok::<_, Infallible>(Frame::data(part)))
            .collect();
        let body = Body::wrap(StreamBody::new(futures::stream::iter(chunks)));
        is_too_large(&server, &target, body).await;
    }
    is_too_large(&server, &path(&OTHER), large).await;
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
        "/ccache/".to_owned(),
        "/ccache//".to_owned(),
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
        "//".to_owned(),
        "/status/".to_owned(),
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
    const UPLOADS: u8 = 24;
    // They wait for one another, on a machine that may have other things to do.
    const PATIENCE: Duration = Duration::from_secs(120);
    let server = CacheServer::start(&["--upload-memory", "16M"]);
    let remote = builder(WRITER)
        .max_concurrent_requests(usize::from(UPLOADS))
        .inactivity_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .request_timeout(PATIENCE);
    let remote = remote.build(server.url("/artifacts")).unwrap();
    let artifact = artifact(8 << 20);
    let puts = (0..UPLOADS).map(|number| {
        let key = PipelineFingerprint::from_bytes([number; 32]);
        let (remote, artifact) = (&remote, artifact.clone());
        async move { remote.put(&key, artifact).await.unwrap() }
    });
    join_all(puts).await;
    let peak = server.peak_mebibytes();
    println!("{UPLOADS} uploads of 8 MiB at once: at most {peak} MiB");
    assert!(peak < 160, "{peak} MiB");
    assert_eq!(
        server.metric("cache_server_artifact_puts_total").await,
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
    server.wait_for(under_way, |requests| requests >= 2).await;
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

/// Whoever has sent the whole of an entry may leave: it will be there.
#[tokio::test]
async fn a_server_told_to_stop_finishes_what_its_clients_have_left() {
    let mut server = CacheServer::start(&[]);
    let whole = frame(&KEY, artifact(30 << 20)).await;
    let (last, most) = whole.split_last().unwrap();
    let mut upload = TcpStream::connect(server.address()).unwrap();
    let head = put_head(&path(&KEY), whole.len());
    upload.write_all(head.as_bytes()).unwrap();
    upload.write_all(most).unwrap();
    let under_way = "cache_server_requests_under_way";
    server.wait_for(under_way, |requests| requests >= 2).await;
    server.terminate();
    while TcpStream::connect(server.address()).is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    upload.write_all(&[*last]).unwrap();
    drop(upload);
    assert_eq!(server.wait().code(), Some(0));
    let entry = server.folder().join(path(&KEY).trim_start_matches('/'));
    assert!(std::fs::read(entry).unwrap() == whole);
}

#[tokio::test]
async fn a_server_told_to_stop_does_not_wait_for_ever() {
    let mut server = CacheServer::start(&["--drain", "0.3"]);
    let _stuck = stuck_upload(&server).await;
    server.terminate();
    assert_eq!(server.wait().code(), Some(3));
}

#[tokio::test]
async fn the_access_log_is_written_to_its_end() {
    let (mut server, mut out, _errors) = CacheServer::launch(&["--drain", "0.3"]);
    // More lines than a pipe holds.
    let long = format!("/ccache/{}", "a".repeat(1000));
    for _ in 0..200 {
        server.get(&long, HeaderMap::new()).await;
    }
    let mut stuck = stuck_upload(&server).await;
    server.terminate();
    // It has given up what was under way once that is closed.
    let _ = stuck.read_to_end(&mut Vec::new());
    let mut log = String::new();
    out.read_to_string(&mut log).unwrap();
    assert_eq!(server.wait().code(), Some(3));
    assert_eq!(log.matches(&long).count(), 200);
    assert!(log.contains(" writer PUT /ccache/a 0-left "), "{log}");
}

#[tokio::test]
async fn a_server_told_twice_to_stop_does_not_wait_at_all() {
    let mut server = CacheServer::start(&["--drain", "3600"]);
    let _stuck = stuck_upload(&server).await;
    server.terminate();
    // It has heard the first once it takes nobody any more.
    while TcpStream::connect(server.address()).is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.terminate();
    assert_eq!(server.wait().code(), Some(3));
}

/// An upload that is under way and stays so.
async fn stuck_upload(server: &CacheServer) -> TcpStream {
    let mut stuck = TcpStream::connect(server.address()).unwrap();
    let head = put_head("/ccache/a", 10);
    stuck.write_all(head.as_bytes()).unwrap();
    let under_way = "cache_server_requests_under_way";
    server.wait_for(under_way, |requests| requests >= 2).await;
    stuck
}

#[tokio::test]
async fn a_server_whose_output_nobody_reads_serves_and_ends() {
    let (mut server, out, errors) = CacheServer::launch(&[]);
    // More lines than a pipe holds.
    let long = format!("/ccache/{}", "a".repeat(1000));
    for _ in 0..200 {
        let missed = server.get(&long, HeaderMap::new()).await;
        assert_eq!(missed.status(), StatusCode::NOT_FOUND);
    }
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
    drop((out, errors));
}

#[tokio::test]
async fn a_server_whose_output_is_closed_serves_and_ends() {
    let (mut server, out, errors) = CacheServer::launch(&[]);
    drop((out, errors));
    // Something to tell: the folder is no folder.
    let folder = server.folder().join("ccache");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    let failed = server.put("/ccache/a", "blob").await;
    assert_eq!(failed, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(server.put("/sccache/a", "blob").await, StatusCode::CREATED);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn a_server_whose_complaints_nobody_reads_serves_and_ends() {
    let (mut server, _out, _errors) = CacheServer::launch(&["--no-access-log"]);
    // Something to tell of each upload: the folder is no folder.
    let folder = server.folder().join("ccache");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "").unwrap();
    // More than a pipe and the queue before it hold.
    let client = client();
    let uploads = async {
        for _ in 0..1000 {
            let upload = client.put(server.url("/ccache/a")).bearer_auth(WRITER);
            let failed = upload.send().await.unwrap();
            assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        }
    };
    let served = tokio::time::timeout(Duration::from_secs(30), uploads).await;
    served.expect("an upload waits for its line to be read");
    let well = client.get(server.url("/healthz")).send();
    let well = tokio::time::timeout(Duration::from_secs(5), well).await;
    assert_eq!(well.unwrap().unwrap().status(), StatusCode::OK);
    assert!(server.metric("cache_server_messages_lost_total").await > 0);
    server.terminate();
    assert_eq!(server.wait().code(), Some(0));
}

#[tokio::test]
async fn room_is_made_where_some_blobs_cannot_be_looked_at() {
    let server = CacheServer::start(&["--max-foreign-bytes", "1M"]);
    let paths = (0..60).map(|number| format!("blob-{number}"));
    // One of the folders that these blobs are spread over, and that holds none of them.
    let taken: Vec<_> = paths
        .clone()
        .map(|path| blake3::hash(path.as_bytes()).as_bytes()[0])
        .collect();
    let free = (0..=u8::MAX).find(|shard| !taken.contains(shard)).unwrap();
    let folder = server.folder().join(format!("ccache/{free:02x}"));
    std::fs::remove_dir(folder).unwrap();
    for path in paths {
        let target = format!("/ccache/{path}");
        let stored = server.put(&target, vec![1; 40_000]).await;
        assert_eq!(stored, StatusCode::CREATED);
    }
    let held = "cache_server_blob_bytes{area=\"ccache\"}";
    server.wait_for(held, |bytes| bytes <= 1 << 20).await;
}

#[test]
fn tokens_that_make_no_sense_stop_it_and_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for (tokens, expected) in [
        ("", "nobody could do anything"),
        (
            "read-only ci",
            "line 1 of the variable CACHE_SERVER_TOKENS: ",
        ),
        (
            "\nadmin ci hunter2hunter2hunter2",
            "line 2 of the variable CACHE_SERVER_TOKENS: ",
        ),
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

/// Of two sources, the error names the one that has the line.
#[test]
fn a_line_of_the_tokens_is_told_with_its_file() {
    const TOKEN: &str = "hunter2hunter2hunter2";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let shown = file.display();
    for (line, expected) in [
        ("read-only ci", format!("line 2 of {shown}: is not a role")),
        (
            "read-only ci hunter2hunter2hunter2",
            format!(
                "line 1 of the variable CACHE_SERVER_TOKENS and line 2 of {shown} give two roles"
            ),
        ),
    ] {
        std::fs::write(&file, format!("\u{feff}# ours\n{line}\n")).unwrap();
        let output = Command::new(program())
            .args(["--listen", "127.0.0.1:0", "--cache-dir"])
            .arg(folder.path())
            .arg("--tokens")
            .arg(&file)
            .env("CACHE_SERVER_TOKENS", format!("read-write ci {TOKEN}"))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains(&expected), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn arguments_that_make_no_sense_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.into_os_string().into_string().unwrap()
    };
    let (empty, blank) = (file("empty", ""), file("blank", "\n \n"));
    let nobody = file("nobody", "# read-only ci 0123456789abcdef\n");
    let huge = u64::MAX.to_string();
    for (option, value, expected) in [
        ("--secret-file", &empty, "empty holds no secret"),
        ("--secret-file", &blank, "blank holds no secret"),
        ("--tokens", &empty, "empty holds no token"),
        ("--tokens", &nobody, "nobody holds no token"),
        (
            "--max-requests",
            &huge,
            "expected a whole number from 1 to ",
        ),
        (
            "--max-requests",
            &"0".to_owned(),
            "expected a whole number from 1 to ",
        ),
        (
            "--max-connections",
            &huge,
            "expected a whole number from 1 to ",
        ),
        (
            "--inactivity",
            &huge,
            "expected a number of seconds above 0 and up to ",
        ),
        (
            "--inactivity",
            &"0".to_owned(),
            "expected a number of seconds above 0 and up to ",
        ),
        (
            "--idle",
            &"0.0000000001".to_owned(),
            "expected a number of seconds above 0 and up to ",
        ),
        (
            "--drain",
            &"-1".to_owned(),
            "expected a number of seconds from 0 to 31536000, such as 30 or 1.5",
        ),
        (
            "--idle",
            &"30s".to_owned(),
            "expected a number of seconds above 0 and up to ",
        ),
        (
            "--max-bytes",
            &"lots".to_owned(),
            "expected a number of bytes, such as 500M or 10G",
        ),
    ] {
        let output = tokio::process::Command::new(program())
            .kill_on_drop(true)
            .args(["--listen", "127.0.0.1:0", "--anonymous", "read-only"])
            .arg("--cache-dir")
            .arg(folder.path().join("cache"))
            // As two words: a negative number is not another flag.
            .args([option, value])
            .env_remove("CACHE_SERVER_TOKENS")
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), output).await;
        let output = output.unwrap_or_else(|_| panic!("{option}={value} is taken"));
        let output = output.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{option}={value}: {said}");
        assert!(said.contains(expected), "{option}={value}: {said}");
    }
}

/// It would evict everything else, and then itself.
#[tokio::test]
async fn an_artifact_near_the_bound_of_the_folder_is_refused_and_evicts_nothing() {
    let server = CacheServer::start(&["--max-bytes", "1M"]);
    let small = frame(&KEY, artifact(10_000)).await;
    assert_eq!(server.put(&path(&KEY), small).await, StatusCode::CREATED);
    for bytes in [5 << 20, 1 << 20, 900_000] {
        let large = frame(&OTHER, artifact(bytes)).await;
        is_too_large(&server, &path(&OTHER), large).await;
    }
    for (key, status) in [(KEY, StatusCode::OK), (OTHER, StatusCode::NOT_FOUND)] {
        let answer = server.get(&path(&key), HeaderMap::new()).await;
        assert_eq!(answer.status(), status);
    }
}

#[cfg(not(feature = "object-store"))]
#[test]
fn a_build_without_object_stores_says_how_to_build_one_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let told = Command::new(program())
        .args(["--anonymous", "read-only", "--listen", "127.0.0.1:0"])
        .args(["--store", "s3://bucket/artifacts", "--cache-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(told.status.code(), Some(2));
    let said = String::from_utf8(told.stderr).unwrap();
    assert!(said.contains("--features object-store"), "{said}");
}
