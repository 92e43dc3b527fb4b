//! Hits in a Redis server on the loopback, beside the client that makes them.

use pipeline_cache::{Artifact, PipelineCacheStore as _, PipelineFingerprint, RedisCache};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::measure::{Contender, Plan};
use crate::memory::{key, payload};
use crate::remote::Load;
use crate::report::Report;
use crate::runtime::Tokio;

const ENTRIES: usize = 300;

pub(crate) fn cases(plan: &Plan, report: &mut Report) {
    // One at a time at most half as long again; many at once at least 0.8 of the throughput.
    for (at_once, hits, goal) in [(1, 1_000, 1.5), (64, 12_800, 1.25)] {
        let case = format!("redis_hit 4 KiB, {at_once} at once");
        if !plan.wants(&case) {
            continue;
        }
        let Some(server) = Server::start() else {
            eprintln!("{case}: skipped, redis-server is not installed");
            continue;
        };
        let tokio = Tokio::multi();
        let load = Load {
            at_once,
            hits: plan.count(hits),
        };
        hits_of(plan, report, &case, goal, &tokio, &server.url(), load);
    }
}

fn hits_of(
    plan: &Plan,
    report: &mut Report,
    case: &str,
    goal: f64,
    tokio: &Tokio,
    url: &str,
    load: Load,
) {
    const BARE: &str = "redis, GET (unverified)";
    let keys: Arc<Vec<PipelineFingerprint>> = Arc::new((0..ENTRIES).map(key).collect());
    let cache = RedisCache::builder().writes().build(url).expect("a tier");
    let (filled, entries) = (cache.clone(), Arc::clone(&keys));
    let connection = tokio.run({
        let url = url.to_owned();
        async move {
            for (number, key) in entries.iter().enumerate() {
                let artifact = Artifact::new(payload(number, 4 << 10));
                filled.put(key, artifact).await.expect("a put");
            }
            let client = redis::Client::open(url).expect("a client");
            let connection = client.get_multiplexed_async_connection();
            connection.await.expect("a connection")
        }
    });
    let ours = load.on(&keys, move |key| {
        let cache = cache.clone();
        async move { cache.get(&key).await.expect("an answer").is_some() }
    });
    let get = move |key: PipelineFingerprint| {
        let mut connection = connection.clone();
        async move {
            let mut get = redis::cmd("GET");
            get.arg(format!("pipeline-cache:{key}"));
            let frame: Vec<u8> = get.query_async(&mut connection).await.expect("a reply");
            frame
        }
    };
    let bare = load.on(&keys, {
        let get = get.clone();
        move |key| {
            let frame = get(key);
            async move { frame.await.len() > 4 << 10 }
        }
    });
    let hashed = load.on(&keys, move |key| {
        let frame = get(key);
        async move { *blake3::hash(&frame.await).as_bytes() != [0; 32] }
    });
    let contenders = vec![
        Contender::timed("ours", load.hits, || tokio.run(ours())),
        Contender::timed(BARE, load.hits, || tokio.run(bare())),
        Contender::timed("redis, GET and BLAKE3", load.hits, || tokio.run(hashed())),
    ];
    let figures = plan.contend(contenders);
    report.case(case, &figures, &[(BARE, goal)]);
}

/// It dies with the value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// `None` where Redis is not installed.
    fn start() -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--port"])
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { child, port };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "it starts");
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(server)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
