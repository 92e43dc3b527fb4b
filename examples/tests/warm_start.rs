//! What a prefetch does to the lookups of users: a measurement, against a real `cache_server` on this
//! machine. It is not run by itself, and is of use in release alone:
//!
//! ```sh
//! cargo test --release -p pipeline-cache-tools --test warm_start -- --ignored --nocapture
//! ```
#![cfg(unix)]

#[path = "cache_server/support.rs"]
#[expect(dead_code, reason = "the tests of cache_server use the rest")]
mod cache_server;

use cache_server::{CacheServer, READER, WRITER, remote};
use futures::stream::{self, StreamExt as _};
use hdrhistogram::Histogram;
use pipeline_cache::layered::RecordedRun;
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, LookupSource,
    PipelineCacheStore as _, PipelineFingerprint,
};
use std::time::{Duration, Instant};

/// Runs of each kind, in turns.
const RUNS: usize = 7;
/// One lookup in this time, whether or not the last has ended.
const EVERY: Duration = Duration::from_millis(4);
const LOOKUPS: u64 = 1_000;
/// More than is fetched in that time.
const TO_FETCH: u64 = 24_000;
const BYTES_TO_FETCH: usize = 32 << 10;
const BYTES_OF_USERS: usize = 4 << 10;

fn key(of: &str, number: u64) -> PipelineFingerprint {
    let mut hasher = blake3::Hasher::new();
    hasher.update(of.as_bytes()).update(&number.to_le_bytes());
    PipelineFingerprint::from_bytes(*hasher.finalize().as_bytes())
}

fn artifact(bytes: usize) -> Artifact {
    Artifact::new(vec![0x5a; bytes])
}

async fn fill(server: &CacheServer, of: &str, entries: u64, bytes: usize) {
    let remote = remote(server, WRITER);
    let puts = stream::iter(0..entries).map(|number| {
        let remote = remote.clone();
        async move { remote.put(&key(of, number), artifact(bytes)).await }
    });
    let puts: Vec<_> = puts.buffer_unordered(16).collect().await;
    assert!(puts.into_iter().all(|put| put.is_ok()));
}

async fn run_to_fetch() -> RecordedRun {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .record_run()
        .build();
    for number in 0..TO_FETCH {
        cache.get(&key("to fetch", number)).await;
    }
    cache.recorded_run().await.unwrap()
}

/// What runs beside the lookups: nothing, or a prefetch with so many bytes a second, and so many keys at
/// a time.
const KINDS: [(&str, Option<(u64, usize)>); 4] = [
    ("no prefetch", None),
    ("a prefetch with the defaults", Some((u64::MAX, 4))),
    ("a prefetch of one key at a time", Some((u64::MAX, 1))),
    (
        "a prefetch of one key at a time and 4 MiB/s",
        Some((4 << 20, 1)),
    ),
];

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    /// Of lookups that the disk answers, and of those that the server answers, in microseconds.
    disk: (u64, u64),
    server: (u64, u64),
    fetched: u64,
}

/// Every other lookup is of a key on the disk, and every other of one that only the server has.
async fn lookups(server: &CacheServer, run: &RecordedRun, bounds: Option<(u64, usize)>) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache::new(folder.path()).await.unwrap();
    for number in 0..LOOKUPS {
        let on_disk = key("on disk", number);
        disk.put(&on_disk, artifact(BYTES_OF_USERS)).await.unwrap();
    }
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(disk)
        .tier(remote(server, READER))
        .build();
    let prefetch = bounds.map(|(bytes, keys)| {
        let prefetch = cache.prefetch(run).bytes_per_second(bytes);
        prefetch.concurrency(keys).start().unwrap()
    });
    let mut tasks = Vec::new();
    let mut ticks = tokio::time::interval(EVERY);
    for number in 0..LOOKUPS {
        ticks.tick().await;
        let (of, tier) = match number % 2 {
            0 => ("on disk", 1),
            _ => ("of users", 2),
        };
        let cache = cache.clone();
        tasks.push(tokio::spawn(async move {
            let start = Instant::now();
            let lookup = cache.lookup(&key(of, number), &LookupOptions::new()).await;
            let took = start.elapsed();
            assert_eq!(lookup.source(), Some(LookupSource::Tier(tier)));
            (tier, took)
        }));
    }
    let mut figures = Figures::default();
    let mut times = [
        Histogram::new(3).unwrap(),
        Histogram::<u64>::new(3).unwrap(),
    ];
    if let Some(prefetch) = &prefetch {
        let progress = prefetch.progress();
        assert!(progress.left > 0 && progress.failed == 0, "{progress}");
        figures.fetched = progress.fetched;
    }
    drop(prefetch);
    for task in tasks {
        let (tier, took) = task.await.unwrap();
        times[tier - 1].record(took.as_micros() as u64).unwrap();
    }
    let of = |times: &Histogram<u64>| (times.value_at_quantile(0.5), times.value_at_quantile(0.99));
    (figures.disk, figures.server) = (of(&times[0]), of(&times[1]));
    cache.close(Duration::from_secs(10)).await;
    figures
}

fn median(figures: &[Figures], of: impl Fn(&Figures) -> u64) -> u64 {
    let mut all: Vec<_> = figures.iter().map(of).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, which takes some minutes"]
async fn lookups_of_users_beside_a_prefetch() {
    let server = CacheServer::start(&[]);
    fill(&server, "to fetch", TO_FETCH, BYTES_TO_FETCH).await;
    fill(&server, "of users", LOOKUPS, BYTES_OF_USERS).await;
    let run = run_to_fetch().await;
    lookups(&server, &run, None).await;
    let mut all = KINDS.map(|_| Vec::new());
    for turn in 0..RUNS * KINDS.len() {
        // Each kind comes first as often as the others.
        let kind = (turn + turn / KINDS.len()) % KINDS.len();
        all[kind].push(lookups(&server, &run, KINDS[kind].1).await);
    }
    for ((what, _), figures) in KINDS.iter().zip(&all) {
        println!("{what}, each run: {figures:?}");
        println!(
            "{what}, medians of {RUNS} runs: disk p50 {} us, p99 {} us; server p50 {} us, p99 {} us; {} \
             keys fetched meanwhile",
            median(figures, |run| run.disk.0),
            median(figures, |run| run.disk.1),
            median(figures, |run| run.server.0),
            median(figures, |run| run.server.1),
            median(figures, |run| run.fetched),
        );
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load of the machine at the end: {}", load.trim());
}
