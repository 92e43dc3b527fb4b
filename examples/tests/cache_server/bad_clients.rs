//! Clients that hold on to what `cache_server` has only so much of: they do not read, do not ask, do
//! not send, or leave in the midst of it. The others are served.

use super::support::{
    CacheServer, KEY, OTHER, READER, WRITER, artifact, begin_upload, builder, client, frame, path,
    put_head,
};
use futures::future::join_all;
use pipeline_cache::{Artifact, PipelineCacheStore as _};
use reqwest::header::HeaderMap;
use reqwest::{Client, ClientBuilder, StatusCode};
use std::fs::Metadata;
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use walkdir::WalkDir;

/// More than anything here takes, on a machine that has other things to do.
const LONG: Duration = Duration::from_secs(60);

/// More than all buffers between a server and a client hold.
const LARGE: usize = 32 << 20;

async fn connect(server: &CacheServer) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

fn http2() -> ClientBuilder {
    let http2 = Client::builder().no_proxy().tls_certs_only([]);
    http2.http2_prior_knowledge()
}

fn get_head(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
}

/// All that comes until the server closes the connection.
async fn read_to_end(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut came = Vec::new();
    // It may close it in the midst of something.
    let _ = timeout(LONG, stream.read_to_end(&mut came))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&came).into_owned()
}

/// Waits until the server has a place for one more request.
async fn until_served(server: &CacheServer) {
    let served = async {
        while server.get("/metrics", HeaderMap::new()).await.status() != StatusCode::OK {}
    };
    timeout(LONG, served).await.expect("no place becomes free");
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_broken_off_and_gives_its_place_back() {
    let server = CacheServer::start(&["--max-requests", "1", "--inactivity", "0.3"]);
    assert_eq!(server.put("/ccache/a", vec![1; LARGE]).await, 201);

    let mut stuck = connect(&server).await;
    let head = get_head("/ccache/a", READER);
    stuck.write_all(head.as_bytes()).await.unwrap();
    // Its place is taken once it has an answer.
    stuck.readable().await.unwrap();
    until_served(&server).await;
    assert!(read_to_end(stuck).await.len() < LARGE);

    // By a client that reads from its connection all the time, and leaves one of the answers on it.
    let stuck = http2()
        .build()
        .unwrap()
        .get(server.url("/ccache/a"))
        .bearer_auth(READER);
    let stuck = stuck.send().await.unwrap();
    assert_eq!(stuck.status(), StatusCode::OK);
    until_served(&server).await;
    assert!(stuck.bytes().await.is_err());
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_read_to_its_end() {
    let server = CacheServer::start(&["--inactivity", "3"]);
    assert_eq!(server.put("/ccache/a", vec![1; LARGE]).await, 201);
    let mut slow = server.get("/ccache/a", HeaderMap::new()).await;
    let (began, mut read, mut pauses) = (Instant::now(), 0, 0);
    while let Some(part) = slow.chunk().await.unwrap() {
        read += part.len();
        // Longer in all than an answer may stand still.
        if read >> 20 > pauses {
            pauses += 1;
            sleep(Duration::from_millis(120)).await;
        }
    }
    assert_eq!(read, LARGE);
    assert!(began.elapsed() > Duration::from_secs(3));
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_closed() {
    let idle = Duration::from_millis(300);
    // They may all do something: who may not is not even waited for.
    let server = CacheServer::start(&["--idle", "0.3", "--anonymous", "read-only"]);
    let beginnings = [
        "",
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        "GET /healthz HTTP/1.1\r\nHo",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /hea",
    ];
    let closed = beginnings.map(|beginning| {
        let server = &server;
        async move {
            let began = Instant::now();
            let mut stream = connect(server).await;
            stream.write_all(beginning.as_bytes()).await.unwrap();
            let came = read_to_end(stream).await;
            let answered = beginning.contains("\r\n\r\nGET") || beginning.ends_with("x\r\n\r\n");
            assert_eq!(came.contains("well"), answered, "{beginning:?}: {came}");
            assert!(began.elapsed() >= idle, "{beginning:?}");
        }
    });
    // A head that comes in all the time, and never to its end.
    let endless = async {
        let mut stream = connect(&server).await;
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\n").await;
        let began = Instant::now();
        while stream.write_all(b"a: b\r\n").await.is_ok() {
            assert!(began.elapsed() < LONG, "the connection stays open");
            sleep(Duration::from_millis(30)).await;
        }
    };
    futures::join!(join_all(closed), endless);
}

#[tokio::test]
async fn a_connection_on_which_a_request_is_under_way_stays_open() {
    let server = CacheServer::start(&["--idle", "0.3"]);
    let mut upload = begin_upload(&server, "/ccache/a", 10).await;
    upload.write_all(b"01234").await.unwrap();
    sleep(Duration::from_secs(1)).await;
    upload.write_all(b"56789").await.unwrap();
    let answer = read_to_end(upload).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test]
async fn an_upload_that_drips_is_given_up() {
    let server = CacheServer::start(&["--inactivity", "0.5"]);
    let drips = [path(&KEY), "/ccache/a".to_owned()].map(|target| {
        let server = &server;
        async move {
            let (mut reader, mut writer) = connect(server).await.into_split();
            let head = put_head(&target, 1 << 20);
            writer.write_all(head.as_bytes()).await.unwrap();
            let drip = tokio::spawn(async move {
                while writer.write_all(b"x").await.is_ok() {
                    sleep(Duration::from_millis(20)).await;
                }
            });
            let answer = read_to_end(&mut reader).await;
            drip.abort();
            assert!(answer.starts_with("HTTP/1.1 408"), "{target}: {answer}");
        }
    });
    join_all(drips).await;
}

/// They hold what they have sent, and no memory for what they may yet send.
#[tokio::test]
async fn slow_uploads_hold_up_no_others() {
    let server = CacheServer::start(&["--upload-memory", "1M", "--inactivity", "60"]);
    let mut slow = Vec::new();
    for number in 0..8 {
        let mut stream = connect(&server).await;
        let head = match number % 2 {
            0 => put_head(&path(&OTHER), 60 << 20),
            _ => {
                put_head(&path(&OTHER), 0)
                    .replace("Content-Length: 0", "Transfer-Encoding: chunked")
                    + "100000\r\n"
            }
        };
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![0; 500_000]).await.unwrap();
        slow.push(stream);
    }
    let under_way = "cache_server_requests_under_way";
    server.wait_for(under_way, |requests| requests >= 9).await;
    let whole = frame(&KEY, artifact(3 << 20)).await;
    let quick = timeout(LONG / 2, server.put(&path(&KEY), whole)).await;
    assert_eq!(quick.expect("it waits for the others"), StatusCode::CREATED);
}

/// What a client began is still work when it has left: it counts as long as it goes on.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn uploads_whose_clients_have_left_take_bounded_memory() {
    const UPLOADS: u64 = 60;
    let server = CacheServer::start(&[]);
    // A few bytes on the way, and many to verify.
    let zeros = Artifact::new(vec![0; 8 << 20]);
    let remote = builder(WRITER).zstd(1, 0).build(server.url("/artifacts"));
    remote.unwrap().put(&KEY, zeros).await.unwrap();
    let file = server.folder().join(path(&KEY).trim_start_matches('/'));
    let compressed = std::fs::read(file).unwrap();
    assert!(compressed.len() < 64 << 10, "{}", compressed.len());
    for _ in 0..UPLOADS {
        let mut upload = begin_upload(&server, &path(&KEY), compressed.len()).await;
        upload.write_all(&compressed).await.unwrap();
    }
    let puts = "cache_server_artifact_puts_total";
    server.wait_for(puts, |puts| puts > UPLOADS).await;
    let peak = server.peak_mebibytes();
    println!("{UPLOADS} uploads that come to 8 MiB each: at most {peak} MiB");
    assert!(peak < 240, "{peak} MiB");
}

#[tokio::test]
async fn refusals_and_the_sign_of_life_take_no_place() {
    let server = CacheServer::start(&["--max-requests", "1"]);
    let mut upload = begin_upload(&server, "/ccache/a", 10).await;
    let others = async {
        for (method, path, token, expected) in [
            ("GET", "/healthz", "", 200),
            ("GET", "/ccache/a", "", 401),
            ("GET", "/ccache/a", "stranger-0123456789", 401),
            ("PUT", "/ccache/a", READER, 403),
        ] {
            let request = client().request(method.parse().unwrap(), server.url(path));
            let answer = request.bearer_auth(token).send().await.unwrap();
            assert_eq!(answer.status(), expected, "{method} {path}");
        }
    };
    timeout(LONG / 3, others)
        .await
        .expect("they wait for a place");
    upload.write_all(b"0123456789").await.unwrap();
    let mut answer = [0; 12];
    upload.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
}

/// A request now and then would hold it for ever.
#[tokio::test]
async fn who_may_do_nothing_keeps_no_connection() {
    let server = CacheServer::start(&["--max-connections", "1"]);
    for (path, status) in [("/ccache/a", 401), ("/healthz", 200)] {
        let mut stranger = connect(&server).await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stranger.write_all(head.as_bytes()).await.unwrap();
        let answer = read_to_end(stranger).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")));
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");

        let stranger = http2().build().unwrap();
        let answer = stranger.get(server.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), status);
        let other = timeout(LONG / 3, server.get("/metrics", HeaderMap::new())).await;
        assert_eq!(other.expect("there is no room").status(), 200);
        drop(stranger);
    }
    // One that may do something keeps its own.
    let known = client();
    for _ in 0..2 {
        let missed = known.get(server.url("/ccache/a")).bearer_auth(READER);
        let missed = missed.send().await.unwrap();
        assert_eq!(missed.status(), StatusCode::NOT_FOUND);
        assert!(!missed.headers().contains_key("connection"));
    }
}

#[tokio::test]
async fn refusals_that_are_not_read_hold_no_place() {
    let server = CacheServer::start(&["--max-requests", "1"]);
    // It leaves no room for a body on its connection.
    let stuck = http2().http2_initial_stream_window_size(0).build().unwrap();
    let missed = stuck.get(server.url("/ccache/a")).bearer_auth(READER);
    let missed = missed.send().await.unwrap();
    assert_eq!(missed.status(), StatusCode::NOT_FOUND);
    let other = timeout(LONG / 3, server.get("/metrics", HeaderMap::new())).await;
    assert_eq!(other.expect("it waits for a place").status(), 200);
    drop(missed);
}

/// Whoever leaves, replaces or removes what.
#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_blobs_are_those_in_the_folder() {
    let server = CacheServer::start(&[]);
    let clients = (0..8_usize).map(|number| {
        let server = &server;
        async move {
            for round in 0..9_usize {
                let target = format!("/ccache/{}", round % 3);
                let length = 1000 + 100 * number + round;
                let mut stream = begin_upload(server, &target, length).await;
                match (number + round) % 4 {
                    // It leaves in the midst of its body, or before its answer.
                    0 => stream.write_all(&vec![1; length / 2]).await?,
                    1 => stream.write_all(&vec![1; length]).await?,
                    2 => {
                        stream.write_all(&vec![1; length]).await?;
                        stream.read_exact(&mut [0; 12]).await?;
                    }
                    _ => {
                        let gone = client().delete(server.url(&target)).bearer_auth(WRITER);
                        gone.send().await.unwrap();
                    }
                }
            }
            Ok::<_, io::Error>(())
        }
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    let folder = server.folder().join("ccache");
    let count = "cache_server_blob_bytes{area=\"ccache\"}";
    let (mut held, mut bytes) = (0, 1);
    let began = Instant::now();
    // Those that left may still be at work.
    while began.elapsed() < LONG && held != bytes {
        held = server.metric(count).await;
        // What is gone by the time it is looked at does not count.
        let there = WalkDir::new(&folder).into_iter().flatten();
        let there = there.filter_map(|entry| entry.metadata().ok());
        let blobs = there.filter(Metadata::is_file);
        bytes = blobs.map(|blob| blob.len()).sum();
    }
    assert_eq!(held, bytes);
}
