//! What one client can take from `cache_server`: a connection for a while, and a known amount of
//! memory for as long as it is there.

use super::support::{
    CacheServer, READER, WRITER, artifact, begin_upload, builder, client, path, put_head,
};
use futures::future::join_all;
use pipeline_cache::{PipelineCacheStore as _, PipelineFingerprint};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// More than anything here takes, and less than an idle connection has by default.
const LONG: Duration = Duration::from_secs(30);

/// The memory of one connection, as the guide states it.
const CONNECTION_KIBIBYTES: u64 = 256;

async fn connect(server: &CacheServer) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

/// As many connections as this, on each of which this much of a head has been sent.
async fn silent(server: &CacheServer, connections: usize, head: &str) -> Vec<TcpStream> {
    let all = (0..connections).map(|_| async {
        let mut stream = connect(server).await;
        // The server may have closed it already.
        let _ = stream.write_all(head.as_bytes()).await;
        stream
    });
    join_all(all).await
}

async fn read_to_end(mut stream: TcpStream) -> String {
    let mut came = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut came))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&came).into_owned()
}

#[tokio::test]
async fn silent_connections_lock_nobody_out() {
    for head in ["", "GET /healthz HTTP/1.1\r\nHo"] {
        let server = CacheServer::start(&["--max-connections", "20"]);
        let _silent = silent(&server, 100, head).await;
        let answer = timeout(LONG, server.get("/metrics", HeaderMap::new())).await;
        let answer = answer.unwrap_or_else(|_| panic!("locked out by {head:?}"));
        assert_eq!(answer.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_longest_idle_connection_makes_room_and_no_busy_one_does() {
    let server = CacheServer::start(&["--max-connections", "3"]);
    // Of the three, one is in the midst of an upload.
    let mut busy = begin_upload(&server, "/ccache/a", 4).await;
    let mut silent = silent(&server, 2, "").await;
    let newer = silent.pop().unwrap();
    for _ in 0..2 {
        let get = client().get(server.url("/healthz")).send();
        let answer = timeout(LONG, get).await.expect("there is no room");
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(read_to_end(silent.pop().unwrap()).await, "");
    drop(newer);
    busy.write_all(b"blob").await.unwrap();
    let mut answer = [0; 12];
    busy.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
}

/// All connections are busy, and one becomes idle only while somebody waits for it.
#[tokio::test]
async fn a_connection_that_becomes_idle_makes_room_at_once() {
    let server = CacheServer::start(&["--max-connections", "1"]);
    let mut busy = begin_upload(&server, "/ccache/a", 4).await;
    let mut told = [0; 12];
    let finish = async {
        // Whoever waits is in the queue of the system by then, or comes later: it is all the same.
        sleep(Duration::from_millis(200)).await;
        busy.write_all(b"blob").await.unwrap();
        busy.read_exact(&mut told).await.unwrap();
    };
    let get = client().get(server.url("/healthz")).send();
    let (answer, ()) = futures::join!(timeout(LONG, get), finish);
    assert_eq!(answer.expect("there is no room").unwrap().status(), 200);
    assert_eq!(&told, b"HTTP/1.1 201");
}

#[tokio::test]
async fn the_first_head_has_a_limit_of_its_own() {
    let server = CacheServer::start(&["--head-timeout", "0.3"]);
    let began = Instant::now();
    for head in [
        "",
        "GET /healthz HTTP/1.1\r\nHo",
        "PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        for stream in silent(&server, 1, head).await {
            assert_eq!(read_to_end(stream).await, "", "{head:?}");
        }
    }
    assert!(began.elapsed() < LONG);
    // Between two requests a connection may rest for longer.
    let mut resting = connect(&server).await;
    let head =
        format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READER}\r\n\r\n");
    resting.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 4096];
    assert!(resting.read(&mut first).await.unwrap() > 0);
    sleep(Duration::from_secs(1)).await;
    resting.write_all(head.as_bytes()).await.unwrap();
    assert!(resting.read(&mut first).await.unwrap() > 0);
}

/// Waits until its memory is down to so many KiB, or says what it stays at.
async fn wait_for_memory(server: &CacheServer, limit: u64) -> Result<(), u64> {
    let began = Instant::now();
    loop {
        let now = server.kibibytes("VmRSS:");
        if now <= limit {
            return Ok(());
        }
        if began.elapsed() > LONG {
            return Err(now);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_uploads_hold_little_memory_and_give_it_back() {
    const UPLOADS: u64 = 200;
    for target in [
        path(&PipelineFingerprint::from_bytes([3; 32])),
        "/ccache/a".to_owned(),
    ] {
        let server = CacheServer::start(&[]);
        let before = server.kibibytes("VmRSS:");
        let head = put_head(&target, 60 << 20);
        let stalled = (0..UPLOADS).map(|_| async {
            let mut stream = connect(&server).await;
            stream.write_all(head.as_bytes()).await.unwrap();
            // More than the buffers on the way hold, so that the server has read all that it will.
            stream.write_all(&vec![1; 4 << 20]).await.unwrap();
            stream
        });
        let stalled = join_all(stalled).await;
        let under_way = "cache_server_requests_under_way";
        server
            .wait_for(under_way, |requests| requests > UPLOADS)
            .await;
        let peak = server.kibibytes("VmHWM:") - before;
        println!("{UPLOADS} stalled uploads to {target}: at most {peak} KiB");
        assert!(peak < UPLOADS * CONNECTION_KIBIBYTES, "{peak} KiB");
        drop(stalled);
        server.wait_for(under_way, |requests| requests == 1).await;
        let kept = wait_for_memory(&server, before + UPLOADS * CONNECTION_KIBIBYTES / 4).await;
        kept.unwrap_or_else(|now| panic!("{now} KiB stay, after {before} KiB at the start"));
    }
}

/// Answers of which nobody reads more than the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_read_hold_little_memory() {
    const ANSWERS: usize = 200;
    let server = CacheServer::start(&[]);
    assert_eq!(server.put("/ccache/a", vec![1; 32 << 20]).await, 201);
    let before = server.kibibytes("VmHWM:");
    let head =
        format!("GET /ccache/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {READER}\r\n\r\n");
    let unread = silent(&server, ANSWERS, &head).await;
    for stream in &unread {
        stream.readable().await.unwrap();
    }
    let peak = server.kibibytes("VmHWM:") - before;
    println!("{ANSWERS} answers that are not read: at most {peak} KiB");
    assert!(peak < ANSWERS as u64 * CONNECTION_KIBIBYTES, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_uploads_take_their_grant_and_their_connections() {
    const UPLOADS: u64 = 200;
    const GRANT_KIBIBYTES: u64 = 32 << 10;
    const PATIENCE: Duration = Duration::from_secs(120);
    let server = CacheServer::start(&["--upload-memory", "32M", "--inactivity", "120"]);
    let before = server.kibibytes("VmRSS:");
    let remote = builder(WRITER)
        .max_concurrent_requests(UPLOADS as usize)
        .inactivity_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .request_timeout(PATIENCE);
    let remote = remote.build(server.url("/artifacts")).unwrap();
    let artifact = artifact(4 << 20);
    let puts = (0..UPLOADS).map(|number| {
        let key = PipelineFingerprint::from_bytes([number as u8; 32]);
        let (remote, artifact) = (&remote, artifact.clone());
        async move { remote.put(&key, artifact).await.unwrap() }
    });
    join_all(puts).await;
    let peak = server.kibibytes("VmHWM:") - before;
    println!("{UPLOADS} uploads of 4 MiB at once: at most {peak} KiB");
    // What is free again is with the allocator for some seconds: at most as much as is in use.
    let allowed = UPLOADS * CONNECTION_KIBIBYTES + 2 * GRANT_KIBIBYTES;
    assert!(peak < allowed, "{peak} KiB of {allowed} KiB");
}
