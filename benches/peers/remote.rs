//! Hits over HTTP on the loopback, with and without a distance.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Router, routing};
use bytes::Bytes;
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineFingerprint,
    RemoteCache,
};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
            Contender::timed("reqwest (unverified)", entries, || server.bare(&tokio)),
        ];
        let figures = plan.contend(contenders);
        report.case(near, &figures, &[("reqwest (unverified)", 1.15)]);
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
