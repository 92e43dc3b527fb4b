//! Four processes on one folder, one of them trimming it: every answer is right, no entry is lost,
//! and the folder outgrows its bound by no more than what is being written.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment they do ten minutes' worth of operations;
//! without, a few seconds'.

use crate::support::{
    Mount, ROOT, block_on, child, entry, folder, is_child, is_long, key, names, open, skip,
    temporaries,
};
use futures::{StreamExt as _, TryStreamExt as _};
use pipeline_cache::disk::DiskCacheHealth;
use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const PROCESS: &str = "PIPELINE_CACHE_TEST_PROCESS";
const OPERATIONS: &str = "PIPELINE_CACHE_TEST_OPERATIONS";

const PROCESSES: u64 = 4;

/// What each process does at a time.
const CONCURRENCY: u64 = 8;

const MAX_BYTES: u64 = 64 << 20;
const PAGE: u64 = 4096;
const MAX_PAGES: u64 = 8;

/// Keys that all processes use, of about twice the bytes that fit.
const SHARED: u64 = 8000;

/// Keys that nobody puts.
const NEVER: u64 = 1 << 40;

/// The artifact of a key. Its file is of whole pages, so that the file system counts as the cache
/// does.
fn artifact_of(number: u64) -> Artifact {
    const OVERHEAD: u64 = 144;
    let pages = 1 + number * 7919 % MAX_PAGES;
    crate::support::artifact_of(number, (pages * PAGE - OVERHEAD) as usize)
}

#[derive(Default)]
struct Done {
    hits: AtomicU64,
    misses: AtomicU64,
    puts: AtomicU64,
    removes: AtomicU64,
}

/// One of the processes.
async fn work() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let process: u64 = variable(PROCESS).parse().unwrap();
    let operations: u64 = variable(OPERATIONS).parse().unwrap();
    let cache = DiskCache::builder()
        .root(PathBuf::from(variable(ROOT)))
        .max_bytes(MAX_BYTES)
        .max_concurrent_operations(CONCURRENCY as usize);
    let cache = cache.open().await.unwrap();
    let done = Done::default();
    let (mut trims, mut slowest) = (0, Duration::ZERO);
    let steps = operations / 1000;
    for step in 0..steps {
        let numbers = step * 1000..(step + 1) * 1000;
        futures::stream::iter(numbers)
            .for_each_concurrent(CONCURRENCY as usize, |operation| {
                operate(&cache, process, operation, &done)
            })
            .await;
        // Each has bounds, and trims when it is due; one also does so on demand.
        if process == 0 {
            let report = cache.trim().await.unwrap();
            slowest = slowest.max(report.elapsed);
            trims += 1;
        }
    }
    cache.close(Duration::from_secs(60)).await.unwrap();
    let metrics = cache.metrics();
    assert_eq!((metrics.corrupt, metrics.errors), (0, 0));
    assert_eq!((metrics.put_errors, metrics.flush_errors), (0, 0));
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "process {process}: {} hits, {} misses, {} puts, {} removes, {} evictions, {trims} trims on demand, the slowest {slowest:?}",
        count(&done.hits),
        count(&done.misses),
        count(&done.puts),
        count(&done.removes),
        metrics.evictions
    );
}

async fn operate(cache: &DiskCache, process: u64, operation: u64, done: &Done) {
    let dice = u64::from_le_bytes(
        key(operation * PROCESSES + process).as_bytes()[..8]
            .try_into()
            .unwrap(),
    );
    let shared = dice / 100 % SHARED;
    let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    match dice % 100 {
        // What only this process puts, and nobody has since had time to evict.
        0..15 => {
            let own = ((process + 1) << 32) + operation;
            put(cache, own, done).await;
            assert!(get(cache, own).await, "{own} is lost");
            add(&done.hits);
        }
        15..40 => put(cache, shared, done).await,
        40..80 => match get(cache, shared).await {
            true => drop(add(&done.hits)),
            false => drop(add(&done.misses)),
        },
        80..90 => assert!(!get(cache, NEVER + shared).await, "nobody put it"),
        90..95 => drop(cache.contains(&key(shared)).await.unwrap()),
        95..99 => {
            let removed = cache.remove(&key(shared)).await.unwrap();
            done.removes
                .fetch_add(u64::from(removed), Ordering::Relaxed);
        }
        _ if operation % 10 == 0 => cache.flush().await.unwrap(),
        _ => {}
    }
}

async fn put(cache: &DiskCache, number: u64, done: &Done) {
    let put = cache.put(&key(number), artifact_of(number)).await;
    if let Err(error) = put {
        panic!("more than the bound and what is being written: {error}");
    }
    done.puts.fetch_add(1, Ordering::Relaxed);
}

/// Whether it is there; if so, it is right.
async fn get(cache: &DiskCache, number: u64) -> bool {
    let got = cache.get(&key(number)).await.unwrap();
    let right = got
        .as_ref()
        .is_none_or(|got| *got == artifact_of(number) && number < NEVER);
    assert!(right, "{number} is wrong");
    got.is_some()
}

/// The file system has room for the bound, for what may be in flight, and for nothing else: a put
/// that does not fit finds it full.
#[test]
fn four_processes_share_a_bounded_folder() {
    const TEST: &str = "four_processes_share_a_bounded_folder";
    if is_child() {
        return block_on(work());
    }
    let operations: u64 = if is_long() { 1_000_000 } else { 6000 };
    let folder = folder();
    let in_flight = PROCESSES * CONCURRENCY * MAX_PAGES * PAGE;
    let housekeeping = 16 * PAGE;
    let size = format!("size={}", MAX_BYTES + in_flight + housekeeping);
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", &size, "bounded"], folder.path()) else {
        return skip("no tmpfs");
    };
    let root = folder.path().join("cache");
    let start = Instant::now();
    let processes = (0..PROCESSES).map(|process| {
        let mut command = child(module_path!(), TEST);
        command
            .env(ROOT, &root)
            .env(PROCESS, process.to_string())
            .env(OPERATIONS, operations.to_string());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    let processes: Vec<_> = processes.collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        crate::support::assert_success(&output);
        let said = String::from_utf8(output.stdout).unwrap();
        let said = said.lines().filter(|line| line.contains("hits"));
        said.for_each(|line| println!("{line}"));
    }
    println!(
        "{} operations in {:?}",
        operations * PROCESSES,
        start.elapsed()
    );
    block_on(check(&root));
}

/// All that is left is whole, and within the bound.
async fn check(root: &Path) {
    let cache = open(root).await;
    assert_eq!(temporaries(root), [""; 0]);
    let checks: Vec<_> = cache.verify().try_collect().await.unwrap();
    let whole = checks
        .iter()
        .filter(|check| matches!(check.health, DiskCacheHealth::Whole));
    assert_eq!(whole.count(), checks.len());
    assert_eq!(names(root).len(), checks.len());
    let bytes: u64 = checks.iter().map(|check| check.bytes).sum();
    println!("{} entries of {bytes} bytes are left", checks.len());
    assert!(checks.iter().all(|check| check.bytes % PAGE == 0));
    // Each left when it was within the bound, but for what came after its last look.
    assert!(bytes <= MAX_BYTES + PROCESSES * CONCURRENCY * MAX_PAGES * PAGE);
    assert!(bytes > MAX_BYTES / 2, "not more was removed than had to be");
    assert!(entry(root, &key(NEVER)).symlink_metadata().is_err());
}
