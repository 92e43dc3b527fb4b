//! A kept connection that was closed, or that delivers the responses of other requests, costs no
//! lookup.

use crate::support::captured_trace::{capture, captured};
use crate::support::scripted_http::{Request, ScriptedServer, Step, answer};
use pipeline_cache::network::{BreakerPolicy, BreakerState, RetryPolicy};
use pipeline_cache::{
    Artifact, Fetched, FrameError, PipelineCacheStore, PipelineFingerprint, RemoteCache,
    RemoteCacheBuilder,
};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([0x22; 32]);

/// Makes no retries of its own, and asks whatever the server does.
fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .retry(RetryPolicy::default().attempts(1))
        .breaker(BreakerPolicy::default().failure_percent(101))
}

fn key(number: usize) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn artifact(key: &PipelineFingerprint) -> Artifact {
    Artifact::new(key.as_bytes().to_vec())
}

fn frame(key: &PipelineFingerprint) -> Vec<u8> {
    artifact(key).to_frame(key, None).unwrap().to_vec()
}

/// Answers, and closes the connection 300 microseconds later.
fn answer_and_close(status: &str) -> Vec<Step> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
    let last = head.split_off(head.len() - 1);
    vec![
        Step::Send(head),
        Step::Drip(last, Duration::from_micros(300)),
        Step::Close,
    ]
}

/// Some of the requests run into the connection as it closes.
#[tokio::test]
async fn a_server_that_closes_after_each_answer_costs_no_lookup() {
    const LOOKUPS: u64 = 5000;
    let server = ScriptedServer::start(|_| answer_and_close("404 Not Found"));
    let remote = RemoteCache::builder()
        .no_proxy()
        .retry(RetryPolicy::default().budget_reserve(0).budget_percent(0))
        .build(server.url())
        .unwrap();
    for _ in 0..LOOKUPS {
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
    assert_eq!(remote.metrics().misses, LOOKUPS);
    assert_eq!(remote.breaker_state(), BreakerState::Closed);
    assert_eq!(remote.metrics().breaker_opened, 0);
}

#[tokio::test]
async fn an_upload_over_a_closing_connection_is_sent_again_as_a_whole() {
    const PUTS: usize = 300;
    let server = ScriptedServer::start(|_| answer_and_close("201 Created"));
    let remote = builder().writes().build(server.url()).unwrap();
    for number in 0..PUTS {
        let key = key(number);
        remote.put(&key, artifact(&key)).await.unwrap();
    }
    for number in 0..PUTS {
        let key = key(number);
        let is_it = |request: &Request| request.path.contains(&key.to_string());
        let requests = server.requests();
        let uploads: Vec<_> = requests.iter().filter(|request| is_it(request)).collect();
        assert!(!uploads.is_empty());
        assert!(uploads.iter().all(|upload| upload.body == frame(&key)));
    }
}

/// What helps against a closed connection must not double the load of a server that fails.
#[tokio::test]
async fn a_server_that_closes_without_an_answer_is_asked_once_for_each_lookup() {
    const LOOKUPS: usize = 20;
    let asked = AtomicUsize::new(0);
    let server = ScriptedServer::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => answer("404 Not Found", b""),
        _ => vec![Step::Close],
    });
    let remote = builder().build(server.url()).unwrap();
    remote.fetch(&KEY).await.unwrap();
    for _ in 0..LOOKUPS {
        remote.fetch(&KEY).await.unwrap_err();
    }
    // One more for the only connection that was kept.
    assert!(server.requests().len() <= 1 + LOOKUPS + 1);
    assert_eq!(remote.metrics().retries, 1);
}

/// Answers the first request on a connection, and each further one with the response to the one
/// before.
fn serve_one_late(stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    let mut previous: Option<Vec<u8>> = None;
    loop {
        let mut asked = String::new();
        if reader.read_line(&mut asked)? == 0 {
            return Ok(());
        }
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let name = asked.split(['/', '.']).nth(1).unwrap();
        let body = frame(&name.parse().unwrap());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let response = [head.as_bytes(), &body].concat();
        writer.write_all(previous.as_deref().unwrap_or(&response))?;
        previous = Some(response);
    }
}

fn server_one_late() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || serve_one_late(&stream));
        }
    });
    url
}

#[tokio::test]
async fn a_connection_that_delivers_the_response_before_is_given_up() {
    const LOOKUPS: usize = 1000;
    capture();
    let url = server_one_late();
    let remote = builder().build(url).unwrap();
    for number in 0..LOOKUPS {
        let key = key(number);
        assert_eq!(remote.get(&key).await.unwrap(), Some(artifact(&key)));
    }
    let metrics = remote.metrics();
    assert_eq!((metrics.hits, metrics.corrupt), (LOOKUPS as u64, 0));
    let replaced = metrics.connections_replaced;
    assert!(replaced > 0);
    let logged = captured();
    let lines = logged.lines().filter(|line| line.starts_with("WARN"));
    assert_eq!(lines.count() as u64, replaced, "{logged}");
    assert!(logged.contains("frame of another key"), "{logged}");
}

/// Only where a connection is used again can it deliver the response before.
#[tokio::test]
async fn connections_are_kept_again_a_second_after_they_were_replaced() {
    let url = server_one_late();
    let remote = builder().build(url).unwrap();
    let began = Instant::now();
    for number in 0.. {
        assert!(remote.get(&key(number)).await.unwrap().is_some());
        if remote.metrics().connections_replaced == 2 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
}

/// The entry is wrong, and no connection.
#[tokio::test]
async fn an_entry_of_another_key_costs_no_connection() {
    const LOOKUPS: usize = 10;
    let server = ScriptedServer::start(|request| {
        if request.path.contains(&KEY.to_string()) {
            answer("200 OK", &frame(&OTHER))
        } else {
            answer("404 Not Found", b"")
        }
    });
    let remote = builder().build(server.url()).unwrap();
    for _ in 0..LOOKUPS {
        let misfiled = remote.fetch(&KEY).await.unwrap();
        assert_eq!(misfiled, Fetched::Corrupt(FrameError::OtherFingerprint));
        assert_eq!(remote.fetch(&OTHER).await.unwrap(), Fetched::Miss);
    }
    assert_eq!(remote.metrics().connections_replaced, 0);
    // Each lookup of the misfiled entry looks at it once more, over a connection of its own.
    assert!(server.connections() <= 1 + LOOKUPS + 1);
}
