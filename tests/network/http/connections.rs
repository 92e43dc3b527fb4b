//! However its connections end, a remote tier keeps a small multiple of the requests that it may
//! make at once, leaves none behind, and goes on.

use crate::support::scripted_http::{
    Request, ScriptedServer, Step, answer, answer_of_length, redirect,
};
use futures::future::join_all;
use pipeline_cache::network::{BreakerPolicy, RetryPolicy};
use pipeline_cache::{
    Artifact, Fetched, PipelineCacheStore, PipelineFingerprint, RemoteCache, StoreErrorKind,
};
use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const MOST: usize = 4;

/// Shorter than it may take until a connection is found to be gone.
const SHORT: Duration = Duration::from_millis(50);

/// How many lookups may be lost to dead connections, and to a machine without time, at the most.
const PATIENCE: usize = 400;

/// Answers each request by its number, which begins at 0.
fn server(script: impl Fn(usize, &Request) -> Vec<Step> + Send + Sync + 'static) -> ScriptedServer {
    let asked = AtomicUsize::new(0);
    ScriptedServer::start(move |request| script(asked.fetch_add(1, Ordering::SeqCst), request))
}

fn remote(server: &ScriptedServer, connections: usize, deadline: Duration) -> RemoteCache {
    RemoteCache::builder()
        .no_proxy()
        .max_concurrent_requests(connections)
        .request_timeout(deadline)
        .retry(RetryPolicy::default().attempts(1))
        .breaker(BreakerPolicy::default().failure_percent(101))
        .build(server.url())
        .unwrap()
}

/// The server counts a connection until it has come to see that the client has closed it: on a busy
/// machine that is after the client has opened another.
fn assert_bound(server: &ScriptedServer, connections: usize) {
    let most = server.most_open();
    assert!((1..=2 * connections).contains(&most), "{most} connections");
}

async fn until_none_is_open(server: &ScriptedServer) {
    let closed = timeout(Duration::from_secs(20), async {
        while server.open() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    closed.await.expect("connections stay open");
}

fn nothing_here() -> Vec<Step> {
    answer("404 Not Found", b"")
}

/// Looks up until so many lookups in all were answered.
async fn are_answered(remote: &RemoteCache, wanted: usize) {
    let mut answered = 0;
    for _ in 0..PATIENCE {
        answered += usize::from(remote.fetch(&KEY).await.is_ok());
        if answered == wanted {
            return;
        }
    }
    panic!("{answered} of {PATIENCE} lookups were answered");
}

/// More lookups at once than there are connections, as often.
async fn waves(remote: &RemoteCache, waves: usize) {
    for _ in 0..waves {
        join_all((0..2 * MOST).map(|_| remote.fetch(&KEY))).await;
    }
}

#[tokio::test]
async fn lookups_go_on_past_requests_that_ran_out_of_time() {
    let server = server(|number, _| match number {
        0..16 => vec![Step::Hang],
        _ => nothing_here(),
    });
    let remote = remote(&server, MOST, SHORT);
    waves(&remote, 4).await;
    are_answered(&remote, 20).await;
    assert_bound(&server, MOST);
    drop(remote);
    until_none_is_open(&server).await;
}

#[tokio::test]
async fn lookups_go_on_past_lookups_that_were_dropped() {
    let server = server(|number, _| match number {
        0..16 => vec![Step::Hang],
        _ => nothing_here(),
    });
    let remote = remote(&server, MOST, Duration::from_secs(60));
    for _ in 0..4 {
        let wave = (0..2 * MOST).map(|_| timeout(SHORT, remote.fetch(&KEY)));
        join_all(wave).await;
    }
    for _ in 0..PATIENCE {
        if let Ok(found) = timeout(SHORT, remote.fetch(&KEY)).await {
            assert_eq!(found.unwrap(), Fetched::Miss);
            // Besides those that run on until their answers begin.
            assert_bound(&server, MOST + 16);
            drop(remote);
            until_none_is_open(&server).await;
            return;
        }
    }
    panic!("no lookup was answered");
}

#[tokio::test]
async fn lookups_go_on_past_answers_that_stopped_midway() {
    let server = server(|number, _| match number {
        0..16 => [answer_of_length("200 OK", b"PART", 5000), vec![Step::Hang]].concat(),
        _ => nothing_here(),
    });
    let remote = remote(&server, MOST, SHORT);
    waves(&remote, 4).await;
    are_answered(&remote, 20).await;
    assert_bound(&server, MOST);
}

#[tokio::test]
async fn lookups_go_on_past_a_server_that_closes_without_a_word() {
    let server = server(|_, _| [nothing_here(), vec![Step::Close]].concat());
    let remote = remote(&server, 2, SHORT);
    are_answered(&remote, 6).await;
    assert_bound(&server, 2);
}

#[tokio::test]
async fn lookups_go_on_past_a_server_that_resets() {
    let server = server(|number, _| match number {
        0..16 => vec![Step::Reset],
        _ => nothing_here(),
    });
    let remote = remote(&server, MOST, SHORT);
    waves(&remote, 4).await;
    are_answered(&remote, 20).await;
    assert_bound(&server, MOST);
}

#[tokio::test]
async fn the_connections_to_one_server_do_not_stand_in_the_way_of_another() {
    let target = server(|_, _| nothing_here());
    let elsewhere = format!("{}/entry", target.url());
    let server = server(move |_, _| redirect("302 Found", &elsewhere));
    let remote = remote(&server, MOST, Duration::from_secs(60));
    join_all((0..20 * MOST).map(|_| remote.fetch(&KEY))).await;
    let metrics = remote.metrics();
    assert_eq!((metrics.misses, metrics.errors), (20 * MOST as u64, 0));
    assert_bound(&server, MOST);
    assert_bound(&target, MOST);
}

/// A server could redirect each lookup to another: connections to all of them would use up what
/// this process may have open.
#[tokio::test]
async fn connections_to_ever_other_servers_are_not_kept() {
    let others: Vec<_> = (0..50).map(|_| server(|_, _| nothing_here())).collect();
    let urls: Vec<_> = others.iter().map(ScriptedServer::url).collect();
    let lookups = 2 * urls.len();
    let home = server(move |number, _| redirect("302 Found", &urls[number % urls.len()]));
    let remote = remote(&home, MOST, Duration::from_secs(60));
    for _ in 0..lookups {
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
    let connections = |server: &ScriptedServer| server.connections();
    let opened: usize = others.iter().map(connections).sum();
    assert_eq!(opened, 8 + 2 * 42, "those to the first few are used again");
    let all_but_a_few_are_closed = async {
        while others.iter().map(ScriptedServer::open).sum::<usize>() > 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let closed = timeout(Duration::from_secs(20), all_but_a_few_are_closed).await;
    closed.expect("they stay open");
}

/// Nor do dropped lookups leave any, wherever the server sends them to.
#[tokio::test]
async fn connections_of_dropped_lookups_are_closed_also_where_they_are_not_kept() {
    const KEPT: usize = 8;
    let others: Vec<_> = (0..KEPT).map(|_| server(|_, _| nothing_here())).collect();
    let mut urls: Vec<_> = others.iter().map(ScriptedServer::url).collect();
    // One that takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    urls.push(format!("https://{}/", silent.local_addr().unwrap()));
    let home = server(move |number, _| redirect("302 Found", &urls[number.min(KEPT)]));
    let remote = remote(&home, MOST, Duration::from_secs(60));
    for _ in 0..KEPT {
        assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    }
    for _ in 0..4 * MOST {
        let lookup = timeout(SHORT, remote.fetch(&KEY)).await;
        lookup.expect_err("nobody answers");
    }
    silent.set_nonblocking(true).unwrap();
    let mut accepted: Vec<_> = std::iter::from_fn(|| silent.accept().ok()).collect();
    assert!(accepted.len() >= MOST, "{}", accepted.len());
    // What a dropped lookup had opened is closed: behind its first bytes stands the end.
    let until_closed = tokio::task::spawn_blocking(move || {
        for (stream, _) in &mut accepted {
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            std::io::Read::read_to_end(stream, &mut Vec::new()).unwrap();
        }
    });
    until_closed.await.unwrap();
}

#[tokio::test]
async fn a_lookup_that_is_polled_once_and_left_holds_up_no_other() {
    let server = server(|_, _| nothing_here());
    let remote = remote(&server, 1, Duration::from_secs(60));
    let mut left = std::pin::pin!(remote.fetch(&KEY));
    assert!(futures::poll!(&mut left).is_pending());
    let others = join_all((0..1000).map(|_| remote.fetch(&KEY)));
    let others = timeout(Duration::from_secs(50), others).await;
    for found in others.expect("they wait for the one that nobody polls") {
        assert_eq!(found.unwrap(), Fetched::Miss);
    }
    // Its answer is kept until somebody asks.
    assert_eq!(left.await.unwrap(), Fetched::Miss);
}

/// Before HTTP/1.1 an answer ended its connection, unless it said otherwise.
#[tokio::test]
async fn an_answer_of_http_1_0_ends_its_connection() {
    const LOOKUPS: usize = 5;
    for (says, connections) in [
        ("", LOOKUPS),
        ("Connection: close\r\n", LOOKUPS),
        ("Connection: keep-alive\r\n", 1),
    ] {
        // It is for the client to close them: the server waits for more on each.
        let head = format!("HTTP/1.0 404 Not Found\r\n{says}Content-Length: 0\r\n\r\n");
        let server = server(move |_, _| vec![Step::Send(head.clone().into_bytes())]);
        let remote = remote(&server, 1, Duration::from_secs(60));
        for _ in 0..LOOKUPS {
            assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
        }
        assert_eq!(server.connections(), connections, "{says}");
        assert_bound(&server, 1);
    }
}

/// It ends where the server closes: there is no length to tell.
#[tokio::test]
async fn a_body_of_http_1_0_without_a_length_is_read_to_its_end() {
    let stored = Arc::new(Mutex::new(Vec::new()));
    let served = Arc::clone(&stored);
    let server = server(move |_, request| {
        let mut stored = served.lock().unwrap();
        if request.method == "PUT" {
            stored.clone_from(&request.body);
            return answer("201 Created", b"");
        }
        let frame = [b"HTTP/1.0 200 OK\r\n\r\n", stored.as_slice()].concat();
        vec![Step::Send(frame), Step::Close]
    });
    let remote = RemoteCache::builder()
        .no_proxy()
        .max_concurrent_requests(1)
        .writes()
        .build(server.url())
        .unwrap();
    let artifact = pipeline_cache::Artifact::new(vec![7; 5000]);
    remote.put(&KEY, artifact.clone()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(remote.get(&KEY).await.unwrap().as_ref(), Some(&artifact));
    }
    assert_bound(&server, 1);
}

/// A server that answers at once, and reads the body only after its client has got the answer.
#[tokio::test]
async fn an_upload_ends_when_its_response_comes() {
    const PAYLOAD: usize = 48 << 20;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (returned, client_has_returned) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let mut received = stream.read(&mut head).unwrap();
        let refused = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refused).unwrap();
        client_has_returned.recv().unwrap();
        let mut rest = vec![0; 1 << 20];
        while let Ok(bytes @ 1..) = stream.read(&mut rest) {
            received += bytes;
        }
        received
    });
    let remote = RemoteCache::builder()
        .no_proxy()
        .writes()
        .build(url)
        .unwrap();
    let put = remote.put(&KEY, Artifact::new(vec![0; PAYLOAD])).await;
    assert_eq!(put.unwrap_err().kind(), StoreErrorKind::TooLarge);
    returned.send(()).unwrap();
    let received = tokio::task::spawn_blocking(|| server.join().unwrap());
    let received = received.await.unwrap();
    assert!(received < PAYLOAD, "{received} bytes of a refused upload");
}
