//! One process of the fleet: it asks for every program once, in an order of its own.

use crate::cache_server::WRITER;
use crate::support::seaweed::{ACCESS_KEY, BUCKET, SECRET_KEY};
use futures::{StreamExt as _, stream};
use pipeline_cache::{
    Artifact, CompileScope, DiskCache, InMemoryPipelineCache, LayeredPipelineCache,
    ObjectStoreCache, PipelineCacheStore, PipelineFingerprint, RedisCache, RemoteCache,
};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Holds the settings of a process that works.
pub(crate) const SETTINGS: &str = "PIPELINE_CACHE_TEST_FLEET";

/// Requests under way in one process.
pub(crate) const CONCURRENCY: u64 = 16;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) folder: PathBuf,
    pub(crate) process: u64,
    pub(crate) programs: u64,
    /// How much longer than usual a compile takes.
    pub(crate) slowness: u32,
    /// How long a lease lives.
    pub(crate) lease: Duration,
    pub(crate) network_budget: Duration,
    /// Of each request.
    pub(crate) deadline: Duration,
}

impl Settings {
    /// A line for each compile that has begun.
    pub(crate) fn compiles(&self) -> PathBuf {
        self.folder.join("compiles")
    }
}

/// What a process says at its end.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) wrong: u64,
    pub(crate) slowest: Duration,
    pub(crate) granted: u64,
    pub(crate) followed: u64,
    pub(crate) timed_out: u64,
    pub(crate) expired: u64,
    /// Compiles that began without a lease, because the server did not grant it in time.
    pub(crate) unshared: u64,
}

pub(crate) fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What belongs under a key, and under no other.
pub(crate) fn artifact(number: u64) -> Artifact {
    let mut payload = vec![0; 500 + (number * 7919 % 8000) as usize];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut payload);
    Artifact::new(payload)
}

/// The time that a compile takes.
fn compile_time(number: u64) -> Duration {
    Duration::from_millis(5 + number * 31 % 40)
}

/// The tier at a URL, with leases that live for so long.
pub(crate) fn remote(url: &str, lease: Duration) -> Arc<dyn PipelineCacheStore> {
    if let Some(endpoint) = url.strip_prefix("s3+") {
        let builder = ObjectStoreCache::builder()
            .store_option("aws_endpoint", endpoint)
            .store_option("aws_allow_http", "true")
            .store_option("aws_region", "us-east-1")
            .store_option("aws_access_key_id", ACCESS_KEY)
            .store_option("aws_secret_access_key", SECRET_KEY)
            .writes()
            .compile_leases(lease);
        return Arc::new(builder.build(format!("s3://{BUCKET}/fleet")).unwrap());
    }
    if url.starts_with("http") {
        let builder = RemoteCache::builder().no_proxy().bearer_token(WRITER);
        let builder = builder.writes().compile_leases(lease);
        return Arc::new(builder.build(url).unwrap());
    }
    let builder = RedisCache::builder().writes().compile_leases(lease);
    Arc::new(builder.build(url).unwrap())
}

/// What a process of the fleet does. No test of its own.
#[test]
fn a_process_of_the_fleet() {
    let Ok(settings) = std::env::var(SETTINGS) else {
        return;
    };
    let settings = serde_json::from_str(&settings).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(work(settings));
}

async fn work(settings: Settings) {
    let disk = DiskCache::builder().root(settings.folder.join("cache"));
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(disk.open().await.unwrap())
        .tier(remote(&settings.url, settings.lease))
        .compile_places(2)
        .network_budget(settings.network_budget)
        .max_compile_wait(settings.deadline)
        .build();
    let log = File::options()
        .create(true)
        .append(true)
        .open(settings.compiles())
        .unwrap();
    let log = Arc::new(log);
    println!("@ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let mut order: Vec<u64> = (0..settings.programs).collect();
    order.sort_by_key(|number| *key(number * 64 + settings.process).as_bytes());
    let mut report = Report::default();
    let requests = stream::iter(order).map(|number| request(&cache, &log, number, &settings));
    let mut requests = std::pin::pin!(requests.buffer_unordered(CONCURRENCY as usize));
    while let Some((is_right, took)) = requests.next().await {
        report.requests += 1;
        report.slowest = report.slowest.max(took);
        match is_right {
            Some(true) => {}
            Some(false) => report.wrong += 1,
            None => report.failed += 1,
        }
    }
    cache.close(Duration::from_secs(60)).await;
    let metrics = cache.layered_metrics();
    let tier = &metrics.tiers[2];
    report.granted = tier.leases_granted;
    report.followed = tier.leases_followed;
    report.timed_out = tier.leases_timed_out;
    report.expired = tier.store.expired_leases;
    report.unshared = metrics.unshared_compiles;
    println!("@{}", serde_json::to_string(&report).unwrap());
}

/// Whether the artifact is right, if there is one, and how long it took.
async fn request(
    cache: &LayeredPipelineCache,
    log: &Arc<File>,
    number: u64,
    settings: &Settings,
) -> (Option<bool>, Duration) {
    let scope = CompileScope::new("cc 1", "x86_64").unwrap();
    let (log, slowness) = (Arc::clone(log), settings.slowness);
    let began = Instant::now();
    let request = cache.compile(&scope).key(key(number));
    let compiled = request
        .deadline(settings.deadline)
        .run(move |(), _| {
            // In one write, so that a process that is killed leaves whole lines.
            (&*log).write_all(format!("{number}\n").as_bytes()).unwrap();
            std::thread::sleep(slowness * compile_time(number));
            Ok::<_, Infallible>(artifact(number))
        })
        .await;
    let is_right = compiled.ok().map(|compiled| {
        let expected = artifact(number);
        compiled.artifact.payload() == expected.payload()
    });
    (is_right, began.elapsed())
}
