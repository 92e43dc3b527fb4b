//! Hits over HTTP on the loopback, with and without a distance.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Router, routing};
use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore as _,
    PipelineFingerprint, RemoteCache,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::measure::{Contender, Plan};
use crate::memory::{key, payload};
use crate::report::Report;
use crate::runtime::Tokio;

const FAR: Duration = Duration::from_millis(30);

pub(crate) fn cases(plan: &Plan, report: &mut Report) {
    let near = "layered_remote_hit 4 KiB";
    if plan.wants(near) {
        let tokio = Tokio::multi();
        let entries = plan.count(300);
        let server = Server::start(&tokio, entries, Duration::ZERO);
        let contenders = vec![
            Contender::timed("ours", entries, || server.ours(&tokio, None)),
            Contender::timed("ours, the tier alone", entries, || server.tier(&tokio)),
            Contender::timed("reqwest (unverified)", entries, || server.bare(&tokio)),
        ];
        let figures = plan.contend(contenders);
        report.case(near, &figures, &[("reqwest (unverified)", 1.5)]);
    }
    for (at_once, hits) in [(1, 300), (64, 6_400), (5_000, 5_000)] {
        peers(plan, report, at_once, hits);
    }
    let far = "layered_remote_hit 4 KiB, 30 ms away, after a miss on disk";
    if plan.wants(far) {
        let tokio = Tokio::multi();
        let entries = plan.count(10);
        let server = Server::start(&tokio, entries, FAR);
        let folder = tempfile::tempdir().expect("a folder");
        let contenders = vec![
            Contender::timed("ours", entries, || server.ours(&tokio, Some(folder.path()))),
            Contender::timed("reqwest (unverified)", entries, || server.bare(&tokio)),
        ];
        let figures = plan.contend(contenders);
        report.case(far, &figures, &[]);
        let above = (figures[0].median - figures[1].median) / 1e6;
        let most = (!plan.is_quick()).then_some(1.0);
        report.bound(far, "above bare reqwest, ms", above, most);
    }
}

/// The tier by itself beside other clients of HTTP, none of which verifies what it reads.
fn peers(plan: &Plan, report: &mut Report, at_once: usize, hits: usize) {
    let case = format!("remote_hit 4 KiB, {at_once} at once");
    if !plan.wants(&case) {
        return;
    }
    let tokio = Tokio::multi();
    let hits = plan.count(hits);
    let server = Server::start(&tokio, 300, Duration::ZERO);
    let load = Load { at_once, hits };
    let url = format!("http://{}", server.address);
    let remote = RemoteCache::new(&url).expect("a remote");
    let opendal = opendal_at(&url);
    let object_store = Arc::new(object_store_at(&url));
    let (client, base) = (server.client.clone(), url.clone());
    let keys = Arc::new(server.keys.clone());
    let ours = load.on(&keys, move |key| {
        let remote = remote.clone();
        async move { remote.get(&key).await.expect("an answer").is_some() }
    });
    let bare = load.on(&keys, move |key| {
        let request = client.get(format!("{base}/{key}.bin"));
        async move {
            let response = request.send().await.expect("an answer");
            let body = response.error_for_status().expect("a hit").bytes().await;
            body.expect("a body").len() > 4 << 10
        }
    });
    let opendal = load.on(&keys, move |key| {
        let operator = opendal.clone();
        async move {
            let body = operator.read(&format!("{key}.bin")).await;
            body.expect("a body").len() > 4 << 10
        }
    });
    let object_store = load.on(&keys, move |key| {
        let store = Arc::clone(&object_store);
        async move {
            let path = object_store::path::Path::from(format!("{key}.bin"));
            let body = store.get(&path).await.expect("a hit").bytes().await;
            body.expect("a body").len() > 4 << 10
        }
    });
    let contenders = vec![
        Contender::timed("ours", hits, || tokio.run(ours())),
        Contender::timed("reqwest (unverified)", hits, || tokio.run(bare())),
        Contender::timed("opendal (unverified)", hits, || tokio.run(opendal())),
        Contender::timed("object_store (unverified)", hits, || {
            tokio.run(object_store())
        }),
    ];
    let figures = plan.contend(contenders);
    // Of reqwest's throughput at least 0.8.
    let goals: &[_] = match at_once {
        1 => &[],
        _ => &[("reqwest (unverified)", 1.25)],
    };
    report.case(&case, &figures, goals);
}

fn opendal_at(url: &str) -> opendal::Operator {
    opendal::install_default();
    let service = opendal::services::Http::default().endpoint(url);
    opendal::Operator::new(service).expect("an operator")
}

fn object_store_at(url: &str) -> impl object_store::ObjectStore {
    let options = object_store::ClientOptions::new().with_allow_http(true);
    let builder = object_store::http::HttpBuilder::new().with_url(url);
    builder
        .with_client_options(options)
        .build()
        .expect("a store")
}

/// So many hits, each as a task of its own, of which no more than 64 ask the server at once: the
/// bound of the tier. One at a time they are no tasks.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) at_once: usize,
    pub(crate) hits: usize,
}

pub(crate) type Round = Pin<Box<dyn Future<Output = Duration> + Send>>;

impl Load {
    pub(crate) fn on<F>(
        self,
        keys: &Arc<Vec<PipelineFingerprint>>,
        hit: impl Fn(PipelineFingerprint) -> F + Clone + Send + Sync + 'static,
    ) -> impl Fn() -> Round
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let keys = Arc::clone(keys);
        move || {
            let (keys, hit) = (Arc::clone(&keys), hit.clone());
            Box::pin(async move {
                // The connections are there already.
                self.run(64.min(self.hits), &keys, &hit).await;
                let start = Instant::now();
                self.run(self.hits, &keys, &hit).await;
                start.elapsed()
            })
        }
    }

    async fn run<F>(
        self,
        hits: usize,
        keys: &[PipelineFingerprint],
        hit: &(impl Fn(PipelineFingerprint) -> F + Clone + Send + Sync + 'static),
    ) where
        F: Future<Output = bool> + Send + 'static,
    {
        if self.at_once == 1 {
            for number in 0..hits {
                assert!(hit(keys[number % keys.len()]).await);
            }
            return;
        }
        let permits = Arc::new(Semaphore::new(64));
        let mut tasks = JoinSet::<bool>::new();
        for number in 0..hits {
            if tasks.len() >= self.at_once {
                assert!(tasks.join_next().await.expect("a task").expect("no panic"));
            }
            let (key, hit) = (keys[number % keys.len()], hit.clone());
            let permits = Arc::clone(&permits);
            tasks.spawn(async move {
                let _permit = permits.acquire().await.expect("a permit");
                hit(key).await
            });
        }
        assert!(tasks.join_all().await.into_iter().all(|found| found));
    }
}

/// Frames by their file name, served after a while.
#[derive(Debug)]
struct Frames {
    frames: HashMap<String, Bytes>,
    after: Duration,
}

async fn serve(
    State(frames): State<Arc<Frames>>,
    Path(name): Path<String>,
) -> Result<Bytes, StatusCode> {
    if !frames.after.is_zero() {
        tokio::time::sleep(frames.after).await;
    }
    frames
        .frames
        .get(&name)
        .cloned()
        .ok_or(StatusCode::NOT_FOUND)
}

struct Server {
    address: SocketAddr,
    keys: Vec<PipelineFingerprint>,
    client: reqwest::Client,
    /// On a thread of its own, as a server is.
    _runtime: Tokio,
}

impl Server {
    fn start(tokio: &Tokio, entries: usize, after: Duration) -> Self {
        let keys: Vec<_> = (0..entries).map(key).collect();
        let frames = keys.iter().enumerate().map(|(number, key)| {
            let artifact = Artifact::new(payload(number, 4 << 10));
            let frame = artifact.to_frame(key, None).expect("a frame");
            (format!("{key}.bin"), frame)
        });
        let frames = Arc::new(Frames {
            frames: frames.collect(),
            after,
        });
        let runtime = Tokio::multi();
        let address = runtime.run(async move {
            use axum::serve::ListenerExt as _;
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port");
            let address = listener.local_addr().expect("an address");
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("an option"));
            let router = Router::new()
                .route("/{name}", routing::get(serve))
                .with_state(frames);
            tokio::spawn(async move { axum::serve(listener, router).await });
            address
        });
        Self {
            address,
            keys,
            client: tokio.run(async { reqwest::Client::new() }),
            _runtime: runtime,
        }
    }

    /// Each key once, through a cache whose own tiers have none of them.
    fn ours(&self, tokio: &Tokio, disk: Option<&std::path::Path>) -> Duration {
        let (address, keys) = (self.address, self.keys.clone());
        let root = disk.map(|root| tempfile::tempdir_in(root).expect("a folder"));
        tokio.run(async move {
            let remote = RemoteCache::new(format!("http://{address}")).expect("a remote");
            let mut builder = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new());
            if let Some(root) = &root {
                builder = builder.tier(DiskCache::new(root.path()).await.expect("a cache"));
            }
            let cache = builder.tier(remote).build();
            // The connection is there already, as the other's is.
            let absent = PipelineFingerprint::from_bytes([0; 32]);
            assert!(cache.get(&absent).await.is_none());
            let start = Instant::now();
            for key in keys {
                assert!(cache.get(&key).await.is_some());
            }
            let elapsed = start.elapsed();
            cache.flush().await.expect("a flush");
            elapsed
        })
    }

    /// Each key once, from the tier.
    fn tier(&self, tokio: &Tokio) -> Duration {
        let (address, keys) = (self.address, self.keys.clone());
        tokio.run(async move {
            let remote = RemoteCache::new(format!("http://{address}")).expect("a remote");
            let absent = PipelineFingerprint::from_bytes([0; 32]);
            assert!(remote.get(&absent).await.expect("an answer").is_none());
            let start = Instant::now();
            for key in keys {
                assert!(remote.get(&key).await.expect("an answer").is_some());
            }
            start.elapsed()
        })
    }

    fn bare(&self, tokio: &Tokio) -> Duration {
        let (address, keys, client) = (self.address, self.keys.clone(), self.client.clone());
        tokio.run(async move {
            let absent = client
                .get(format!("http://{address}/absent.bin"))
                .send()
                .await;
            absent.expect("an answer").bytes().await.expect("a body");
            let start = Instant::now();
            for key in keys {
                let url = format!("http://{address}/{key}.bin");
                let answer = client.get(url).send().await.expect("an answer");
                let body = answer.error_for_status().expect("a hit").bytes().await;
                assert!(body.expect("a body").len() > 4 << 10);
            }
            start.elapsed()
        })
    }
}
