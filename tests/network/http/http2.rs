//! A remote tier and an HTTP/2 server that ends streams and connections, as one does that is
//! restarted or has a limit on requests.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use pipeline_cache::network::{BreakerPolicy, RetryPolicy};
use pipeline_cache::{
    Artifact, Fetched, PipelineCacheStore, PipelineFingerprint, RemoteCache, RemoteCacheBuilder,
};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Answer,
    /// Nothing was done with it.
    Refuse,
    /// It was begun with, and given up.
    GiveUp,
    /// The connection takes no more: neither this request, nor those after it.
    Close,
    /// It is never answered.
    Hold,
    /// It is refused before its body has come, of which no more is read.
    RefuseEarly,
}

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

/// Does with each request, by its number from 0 on, what it is told. Speaks in frames of its own,
/// since no library says on purpose what it has not begun with.
async fn server(acts: impl Fn(usize) -> Act + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        url: format!("http://{}", listener.local_addr().unwrap()),
        requests: Arc::default(),
        connections: Arc::default(),
    };
    let acts = Arc::new(acts);
    let requests = Arc::clone(&server.requests);
    let connections = Arc::clone(&server.connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            let (acts, requests) = (Arc::clone(&acts), Arc::clone(&requests));
            let next = move || acts(requests.fetch_add(1, Ordering::SeqCst));
            // It ends as the client leaves.
            tokio::spawn(async move { serve(stream, next).await });
        }
    });
    server
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// Also the end of a stream.
const ACKNOWLEDGED: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u64 = 11;

/// How many resets the server takes on a connection before it closes it, as servers do that guard
/// against floods of them.
const TOLERATED_RESETS: usize = 10;

async fn serve(mut stream: TcpStream, next: impl Fn() -> Act + Send) -> io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    send(&mut stream, SETTINGS, 0, 0, &[]).await?;
    let mut is_closing = false;
    let mut refused = HashSet::new();
    let mut resets = 0;
    loop {
        let head = stream.read_u64().await?;
        let (length, kind) = ((head >> 40) as usize, (head >> 32) as u8);
        let flags = (head >> 24) as u8;
        let id = (head as u32) << 8 | u32::from(stream.read_u8().await?);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        let mut ends = flags & END_STREAM != 0;
        match kind {
            SETTINGS if flags & ACKNOWLEDGED == 0 => {
                send(&mut stream, SETTINGS, ACKNOWLEDGED, 0, &[]).await?;
                continue;
            }
            PING if flags & ACKNOWLEDGED == 0 => {
                send(&mut stream, PING, ACKNOWLEDGED, 0, &payload).await?;
                continue;
            }
            DATA if refused.contains(&id) => continue,
            RESET => {
                resets += 1;
                if resets > TOLERATED_RESETS {
                    let last = u64::from(id) << 32 | ENHANCE_YOUR_CALM;
                    return send(&mut stream, GO_AWAY, 0, 0, &last.to_be_bytes()).await;
                }
                continue;
            }
            DATA if length > 0 => {
                for stream_id in [0, id] {
                    let room = (length as u32).to_be_bytes();
                    send(&mut stream, WINDOW_UPDATE, 0, stream_id, &room).await?;
                }
            }
            // The end of a body may come by itself.
            DATA => {}
            // What comes after that it never looks at.
            HEADERS if is_closing => continue,
            HEADERS => match next() {
                Act::Answer => {}
                Act::Hold => continue,
                Act::RefuseEarly => {
                    refused.insert(id);
                    ends = true;
                }
                reset @ (Act::Refuse | Act::GiveUp) => {
                    let code = match reset {
                        Act::Refuse => REFUSED_STREAM,
                        _ => INTERNAL_ERROR,
                    };
                    send(&mut stream, RESET, 0, id, &code.to_be_bytes()).await?;
                    ends = false;
                }
                Act::Close => {
                    // The last that it has begun with, and no error.
                    let last = u64::from(id.saturating_sub(2)) << 32;
                    send(&mut stream, GO_AWAY, 0, 0, &last.to_be_bytes()).await?;
                    is_closing = true;
                    continue;
                }
            },
            _ => continue,
        }
        if ends {
            // Of the table that both sides know: the status 404.
            send(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, &[0x8d]).await?;
        }
    }
}

async fn send(
    stream: &mut TcpStream,
    kind: u8,
    flags: u8,
    id: u32,
    payload: &[u8],
) -> io::Result<()> {
    let length = payload.len() as u32;
    let head = [
        &length.to_be_bytes()[1..],
        &[kind, flags],
        &id.to_be_bytes(),
    ]
    .concat();
    stream.write_all(&[&head, payload].concat()).await
}

fn builder() -> RemoteCacheBuilder {
    RemoteCache::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .retry(RetryPolicy::default().attempts(1))
        .writes()
}

/// Asks once, and not again on its own account.
fn remote(server: &Server) -> RemoteCache {
    builder().build(&server.url).unwrap()
}

#[tokio::test]
async fn a_request_that_the_server_did_nothing_with_is_made_again() {
    for act in [Act::Refuse, Act::Close] {
        let server = server(move |number| if number == 1 { act } else { Act::Answer }).await;
        let remote = remote(&server);
        for _ in 0..3 {
            assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss, "{act:?}");
        }
        assert_eq!(server.requests.load(Ordering::SeqCst), 4, "{act:?}");
        let connections = if act == Act::Close { 2 } else { 1 };
        assert_eq!(server.connections.load(Ordering::SeqCst), connections);
    }
}

/// By the retries of the tier: the client itself cannot send the body of an upload again.
#[tokio::test]
async fn an_upload_that_the_server_did_nothing_with_is_made_again() {
    let server = server(|number| {
        if number == 0 {
            Act::Refuse
        } else {
            Act::Answer
        }
    })
    .await;
    let artifact = Artifact::new(vec![7; 1 << 20]);
    let remote = builder().retry(RetryPolicy::default().attempts(2));
    let remote = remote.build(&server.url).unwrap();
    // Sent whole, it comes to the answer of this server to everything.
    let error = remote.put(&KEY, artifact).await.unwrap_err();
    assert!(format!("{error:?}").contains("404"), "{error:?}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_request_that_the_server_had_begun_with_is_not_made_again_here() {
    let server = server(|_| Act::GiveUp).await;
    remote(&server).fetch(&KEY).await.unwrap_err();
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_refuses_everything_is_not_asked_for_ever() {
    let server = server(|_| Act::Refuse).await;
    remote(&server).fetch(&KEY).await.unwrap_err();
    assert_eq!(server.requests.load(Ordering::SeqCst), 3);
}

/// As nginx does after a thousand requests, whatever is under way.
#[tokio::test]
async fn no_lookup_is_lost_where_a_server_limits_the_requests_on_a_connection() {
    // In the first of all requests at once on a new connection, or in the midst of others.
    for last in [1, 49] {
        let server = server(move |number| match number % 50 {
            number if number == last => Act::Close,
            _ => Act::Answer,
        })
        .await;
        let remote = remote(&server);
        for _ in 0..10 {
            let lookups = (0..40).map(|_| remote.fetch(&KEY));
            for lookup in join_all(lookups).await {
                assert_eq!(lookup.unwrap(), Fetched::Miss);
            }
        }
        assert!(server.connections.load(Ordering::SeqCst) > 1);
    }
}

/// Each caller that gives up resets its request. A server that sees many resets closes the
/// connection, and with it the requests of all others.
#[tokio::test]
async fn callers_that_give_up_cost_no_other_caller_a_lookup() {
    const WAVES: usize = 40;
    let server = server(|number| match number % 4 {
        3 => Act::Hold,
        _ => Act::Answer,
    })
    .await;
    let breaker = BreakerPolicy::default().failure_percent(101);
    let remote = builder().breaker(breaker).build(&server.url).unwrap();
    for _ in 0..WAVES {
        let mut lookups: FuturesUnordered<_> = (0..40).map(|_| remote.fetch(&KEY)).collect();
        // The others are not answered, or one or two too many after a connection was closed.
        for _ in 0..28 {
            let answer = timeout(Duration::from_secs(20), lookups.next()).await;
            assert_eq!(answer.unwrap().unwrap().unwrap(), Fetched::Miss);
        }
    }
    let connections = server.connections.load(Ordering::SeqCst);
    assert!(connections > 1, "the server never saw too many resets");
}

/// Bytes that tell when nobody holds them any more.
struct Held(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

/// Its connection lives on, and with it the stream that waits for the server to read.
#[tokio::test]
async fn the_bytes_of_an_upload_that_is_refused_early_are_freed() {
    let server = server(|number| match number {
        0 => Act::RefuseEarly,
        _ => Act::Answer,
    })
    .await;
    let remote = remote(&server);
    let is_freed = Arc::new(AtomicBool::new(false));
    let payload = Held(vec![7; 8 << 20], Arc::clone(&is_freed));
    let artifact = Artifact::new(Bytes::from_owner(payload));
    remote.put(&KEY, artifact).await.unwrap_err();
    let freed = async {
        while !is_freed.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), freed).await.unwrap();
    assert_eq!(remote.fetch(&KEY).await.unwrap(), Fetched::Miss);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}
