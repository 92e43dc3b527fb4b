//! How cost grows: with entries, with their size, with tasks.

use bytes::Bytes;
use pipeline_cache::testing::encode_frame;
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore as _,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::measure::{Plan, quantile};
use crate::memory::{key, payload, shuffled};
use crate::plot::{self, Line};
use crate::report::{Report, time};
use crate::runtime::Tokio;

pub(crate) fn cases(plan: &Plan, plots: Option<&Path>, report: &mut Report) {
    if !plan.wants("growth") {
        return;
    }
    let tokio = Tokio::multi();
    let most = if plan.is_quick() { 1_000 } else { 1_000_000 };
    let counts = [1_000, 100_000, 1_000_000];
    for entries in counts.into_iter().filter(|&entries| entries <= most) {
        memory(&tokio, entries, report);
        disk(&tokio, entries, report);
    }
    let by_tasks = tasks(plan, &tokio, report);
    let by_size = sizes(plan, &tokio, report);
    if let Some(folder) = plots {
        std::fs::create_dir_all(folder).expect("a folder for plots");
        plot::draw(
            &folder.join("latency_by_size.svg"),
            "Latency of a hit",
            "bytes",
            &by_size,
        );
        plot::draw(
            &folder.join("latency_by_tasks.svg"),
            "Time per lookup",
            "tasks at once",
            &by_tasks,
        );
    }
}

/// Median and 99th percentile of single operations.
fn spread(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |share| quantile(&times, share).as_secs_f64() * 1e9;
    (at(0.5), at(0.99))
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

fn memory(tokio: &Tokio, entries: usize, report: &mut Report) {
    let shared = Artifact::new(Bytes::from_static(&[7; 64]));
    let before = resident();
    let cache = Arc::new(InMemoryPipelineCache::with_limits(
        2 * entries as u64,
        u64::MAX,
    ));
    let filled = Arc::clone(&cache);
    tokio.run(async move {
        for number in 0..entries {
            filled
                .put(&key(number), shared.clone())
                .await
                .expect("a put");
        }
    });
    let per_entry = (resident().saturating_sub(before)) as f64 / entries as f64;
    let keys = shuffled(entries, 1);
    let rounds = (1_000_000 / entries).max(1);
    let start = Instant::now();
    for _ in 0..rounds {
        let hits = keys.iter().filter(|key| cache.peek(key).is_some()).count();
        assert_eq!(hits, entries);
    }
    let hit = start.elapsed().as_secs_f64() * 1e9 / (rounds * entries) as f64;
    let case = format!("growth: memory of {entries} entries");
    report.bound(&case, "ns per hit", hit, None);
    report.bound(&case, "bytes per entry beside the payload", per_entry, None);
}

fn disk(tokio: &Tokio, entries: usize, report: &mut Report) {
    let folder = tempfile::tempdir().expect("a folder");
    // By hand: what is measured is a folder that has grown, and not its growth.
    for number in 0..entries {
        let key = key(number);
        let frame = encode_frame(&key, &Artifact::new(payload(number, 200)), None);
        let path = folder.path().join(format!("{key}.bin"));
        std::fs::write(path, frame.expect("a frame")).expect("a write");
    }
    let root = folder.path().to_owned();
    let start = Instant::now();
    let cache = tokio.run(async move { DiskCache::new(root).await.expect("a cache") });
    let open = start.elapsed().as_secs_f64() * 1e3;
    let keys: Vec<_> = shuffled(entries, 1).into_iter().take(1000).collect();
    let times = tokio.run(async move {
        let mut times = Vec::new();
        for round in 0..5 {
            for key in &keys {
                let start = Instant::now();
                assert!(cache.get(key).await.expect("a get").is_some());
                if round > 0 {
                    times.push(start.elapsed());
                }
            }
        }
        times
    });
    let (median, slow) = spread(times);
    let case = format!("growth: folder of {entries} entries");
    report.bound(&case, "ms to open", open, None);
    report.line(&format!(
        "  a get: median {}, p99 {}",
        time(median),
        time(slow)
    ));
    report.bound(&case, "us per get", median / 1e3, None);
}

/// Lookups at once, each a hit in memory or on disk.
fn tasks(plan: &Plan, tokio: &Tokio, report: &mut Report) -> Vec<Line> {
    let mut lines = vec![Line::new("memory"), Line::new("disk")];
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().to_owned();
    let disk = tokio.run(async move { DiskCache::new(root).await.expect("a cache") });
    let filled = disk.clone();
    tokio.run(async move {
        for number in 0..1000 {
            let artifact = Artifact::new(payload(number, 4 << 10));
            filled.put(&key(number), artifact).await.expect("a put");
        }
    });
    for at_once in [1, 100, plan.count(10_000)] {
        for (line, in_memory) in lines.iter_mut().zip([true, false]) {
            let disk = disk.clone();
            let elapsed = tokio.run(async move {
                let memory = InMemoryPipelineCache::new();
                if in_memory {
                    for number in 0..1000 {
                        let artifact = Artifact::new(payload(number, 4 << 10));
                        memory.put(&key(number), artifact).await.expect("a put");
                    }
                }
                let cache = LayeredPipelineCache::builder()
                    .tier(memory)
                    .tier(disk)
                    .build();
                let cache = Arc::new(cache);
                let start = Instant::now();
                let tasks: Vec<_> = (0..at_once)
                    .map(|number| {
                        let cache = Arc::clone(&cache);
                        tokio::spawn(async move { cache.get(&key(number % 1000)).await })
                    })
                    .collect();
                for task in tasks {
                    assert!(task.await.expect("a task").expect("a get").is_some());
                }
                start.elapsed()
            });
            let each = elapsed.as_secs_f64() * 1e9 / at_once as f64;
            line.points.push((at_once as f64, each));
            let case = format!("growth: {at_once} lookups at once, {}", line.name);
            report.bound(&case, "us per lookup", each / 1e3, None);
        }
    }
    lines
}

fn sizes(plan: &Plan, tokio: &Tokio, report: &mut Report) -> Vec<Line> {
    let mut lines = ["memory", "disk", "inline std::fs::read + blake3"].map(Line::new);
    let folder = tempfile::tempdir().expect("a folder");
    for power in (10..=24).step_by(2) {
        let size = 1_usize << power;
        let operations = plan.count(((64 << 20) / size).clamp(4, 400));
        let (root, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        let bytes = payload(power, size);
        std::fs::write(&plain, &bytes).expect("a write");
        let times = tokio.run(async move {
            let disk = DiskCache::new(root).await.expect("a cache");
            let memory = InMemoryPipelineCache::with_limits(10, 64 << 20);
            let artifact = Artifact::hash(bytes, Default::default()).await;
            disk.put(&key(power), artifact.clone())
                .await
                .expect("a put");
            memory.put(&key(power), artifact).await.expect("a put");
            let mut times = [const { Vec::new() }; 3];
            for _ in 0..operations {
                let start = Instant::now();
                assert!(memory.peek(&key(power)).is_some());
                times[0].push(start.elapsed());
                let start = Instant::now();
                assert!(disk.get(&key(power)).await.expect("a get").is_some());
                times[1].push(start.elapsed());
                let start = Instant::now();
                let read = std::fs::read(&plain).expect("a read");
                std::hint::black_box(blake3::hash(&read));
                times[2].push(start.elapsed());
            }
            times
        });
        for (line, times) in lines.iter_mut().zip(times) {
            let (median, _) = spread(times);
            line.points.push((size as f64, median));
            let case = format!("growth: {size} bytes, {}", line.name);
            report.bound(&case, "us per hit", median / 1e3, None);
        }
    }
    lines.into()
}
