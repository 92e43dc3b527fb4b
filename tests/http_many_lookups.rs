//! Thousands of lookups at once through one remote tier: what they cost the server in connections,
//! this process in file descriptors, and everybody in time.
//!
//! `PIPELINE_CACHE_LONG_TESTS=1` asks 5,000 at once, five times, instead of 1,000 once.

#![cfg(all(feature = "remote-cache", target_os = "linux"))]

use futures::future::join_all;
use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint, RemoteCache};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const CONNECTIONS: usize = 64;

/// Everybody is answered, however little time the machine has for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Now, and at most.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server that answers every request with the same bytes, and counts from its side.
struct Server {
    address: SocketAddr,
    connections: Gauge,
    /// Requests that were read and whose answer was not yet sent.
    busy: Gauge,
    answer: Vec<u8>,
}

impl Server {
    /// On threads of its own, so that it is no part of the runtime under test.
    fn start(body: &[u8]) -> Arc<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let server = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            connections: Gauge::default(),
            busy: Gauge::default(),
            answer: [head.as_bytes(), body].concat(),
        });
        let serving = Arc::clone(&server);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let serving = Arc::clone(&serving);
                    serving.connections.enter();
                    tokio::spawn(async move {
                        let _ = serving.serve(stream).await;
                        serving.connections.leave();
                    });
                }
            });
        });
        server
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut request = Vec::new();
        while stream.read_buf(&mut request).await? > 0 {
            if request.ends_with(b"\r\n\r\n") {
                request.clear();
                self.busy.enter();
                // Others come and go meanwhile, as on a server with work to do.
                tokio::task::yield_now().await;
                let sent = stream.write_all(&self.answer).await;
                self.busy.leave();
                sent?;
            }
        }
        Ok(())
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The connections that there were at most; all of them are closed by now.
    async fn most_connections(&self) -> usize {
        wait_until("the connections to close", || {
            self.connections.now.load(Ordering::SeqCst) == 0
        })
        .await;
        self.connections.most.swap(0, Ordering::SeqCst)
    }
}

async fn wait_until(what: &str, reached: impl Fn() -> bool + Send) {
    let began = Instant::now();
    while !reached() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "waited for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn frame(artifact: &Artifact) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache::new(folder.path()).await.unwrap();
    disk.put(&KEY, artifact.clone()).await.unwrap();
    std::fs::read(folder.path().join(format!("{KEY}.bin"))).unwrap()
}

/// The time of so many lookups at once through one tier.
async fn through_the_tier(server: &Server, lookups: usize, artifact: &Artifact) -> Duration {
    let remote = RemoteCache::builder()
        .proxy_from_environment(false)
        .max_concurrent_requests(CONNECTIONS)
        .inactivity_timeout(PATIENCE)
        .attempt_timeout(PATIENCE)
        .request_timeout(PATIENCE)
        .build(server.url())
        .unwrap();
    let remote = Arc::new(remote);
    let began = Instant::now();
    let tasks = (0..lookups).map(|_| {
        let remote = Arc::clone(&remote);
        tokio::spawn(async move { remote.get(&KEY).await })
    });
    for got in join_all(tasks).await {
        assert_eq!(got.unwrap().unwrap().as_ref(), Some(artifact));
    }
    began.elapsed()
}

/// The same without a tier: the HTTP client alone, as many at once, and nothing verified.
async fn through_the_client(server: &Server, lookups: usize, length: usize) -> Duration {
    let client = reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .pool_max_idle_per_host(CONNECTIONS)
        .build()
        .unwrap();
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let url = format!("{}/{KEY}.bin", server.url());
    let began = Instant::now();
    let tasks = (0..lookups).map(|_| {
        let (client, url, slots) = (client.clone(), url.clone(), Arc::clone(&slots));
        tokio::spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            client.get(url).send().await.unwrap().bytes().await.unwrap()
        })
    });
    for got in join_all(tasks).await {
        assert_eq!(got.unwrap().len(), length);
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_at_once_share_the_connections_and_leave_no_file_open() {
    let long = std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some();
    let (lookups, rounds) = if long { (5000, 5) } else { (1000, 1) };
    let artifact = Artifact::new(vec![7; 4096]);
    let frame = frame(&artifact).await;
    let server = Server::start(&frame);
    // What a process opens once and keeps is open from here on.
    through_the_tier(&server, 1, &artifact).await;
    through_the_client(&server, 1, frame.len()).await;
    server.most_connections().await;
    server.busy.most.store(0, Ordering::SeqCst);
    let before = open_files();

    let mut times = Vec::new();
    for round in 0..rounds {
        // Neither is always the first, for whom the machine may be warmer or colder.
        let bare = async || {
            let time = through_the_client(&server, lookups, frame.len()).await;
            let connections = server.most_connections().await;
            println!("bare client: at most {connections} connections at once");
            time
        };
        let before = if round % 2 == 1 {
            Some(bare().await)
        } else {
            None
        };
        server.busy.most.store(0, Ordering::SeqCst);
        let ours = through_the_tier(&server, lookups, &artifact).await;
        let busy = server.busy.most.swap(0, Ordering::SeqCst);
        let connections = server.most_connections().await;
        println!(
            "{lookups} lookups: at most {busy} requests and {connections} connections at once"
        );
        assert!(busy <= CONNECTIONS, "{busy} requests at once");
        assert!(
            connections <= CONNECTIONS,
            "{connections} connections at once"
        );
        let bare = match before {
            Some(time) => time,
            None => bare().await,
        };
        times.push((ours, bare));
    }
    wait_until("the files to close", || open_files() <= before).await;

    let sorted = |of: &dyn Fn(&(Duration, Duration)) -> f64| {
        let mut all: Vec<_> = times.iter().map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    };
    let ours = sorted(&|(ours, _)| lookups as f64 / ours.as_secs_f64());
    let bare = sorted(&|(_, bare)| lookups as f64 / bare.as_secs_f64());
    let ratios = sorted(&|(ours, bare)| bare.as_secs_f64() / ours.as_secs_f64());
    let middle = times.len() / 2;
    println!(
        "{:.0} lookups/s through the tier, {:.0} through the bare client: {:.2} ({:.2} to {:.2})",
        ours[middle],
        bare[middle],
        ratios[middle],
        ratios[0],
        ratios[times.len() - 1]
    );
}
