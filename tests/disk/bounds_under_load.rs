//! However many puts are under way, the folder outgrows its bound by no more than these.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment there are ten times as many.

use crate::support::{STAGING, artifact, block_on, entry, folder, is_long, key, names, on_drop};
use futures::StreamExt as _;
use pipeline_cache::{DiskCache, PipelineCacheStore};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const BOUND: u64 = 400;
const IN_FLIGHT: usize = 500;

fn entries(root: &Path) -> usize {
    let names = names(root);
    names.iter().filter(|name| name.ends_with(".bin")).count()
}

/// The most entries that were ever seen, until it is over.
fn watch(root: &Path, over: &AtomicBool) -> (usize, usize) {
    let (mut most, mut looks) = (0, 0);
    while !over.load(Ordering::SeqCst) {
        most = most.max(entries(root));
        looks += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    (most, looks)
}

#[test]
fn a_flood_of_puts() {
    let puts = if is_long() { 40_000 } else { 4000 };
    let folder = folder();
    let over = AtomicBool::new(false);
    let start = Instant::now();
    let (most, looks) = std::thread::scope(|threads| {
        let watcher = threads.spawn(|| watch(folder.path(), &over));
        let end = on_drop(|| over.store(true, Ordering::SeqCst));
        block_on(async {
            let cache = DiskCache::builder().root(folder.path()).max_entries(BOUND);
            let cache = &cache.open().await.unwrap();
            futures::stream::iter(0..puts - 1)
                .for_each_concurrent(IN_FLIGHT, |number| async move {
                    cache.put(&key(number), artifact(1000)).await.unwrap();
                })
                .await;
            // By itself: of those at once, any may be the oldest.
            cache.put(&key(puts - 1), artifact(1000)).await.unwrap();
            let patience = Instant::now();
            while entries(folder.path()) > BOUND as usize {
                assert!(patience.elapsed() < Duration::from_secs(30));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cache.close(Duration::from_secs(60)).await.unwrap();
        });
        drop(end);
        watcher.join().unwrap()
    });
    let left = entries(folder.path());
    println!(
        "{puts} puts, {IN_FLIGHT} at a time, in {:?}: at most {most} entries in {looks} looks, {left} at the end",
        start.elapsed()
    );
    assert!(most <= BOUND as usize + IN_FLIGHT, "{most}");
    assert!(left <= BOUND as usize, "{left}");
    assert!(entry(folder.path(), &key(puts - 1)).exists());
}

const MIB: u64 = 1 << 20;

/// The bytes of all files in the folder, those that are being written included.
fn bytes(root: &Path) -> u64 {
    let in_folder = |folder: &Path| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let files = files.filter_map(|file| file.metadata().ok());
        files
            .filter(|file| file.is_file())
            .map(|file| file.len())
            .sum::<u64>()
    };
    in_folder(root) + in_folder(&root.join(STAGING))
}

#[test]
fn puts_that_outrun_the_evictions_are_slowed_down() {
    const BOUND: u64 = 20 * MIB;
    const TASKS: u64 = 64;
    let each = if is_long() { 100 } else { 12 };
    let folder = folder();
    let over = AtomicBool::new(false);
    let (most, metrics) = std::thread::scope(|threads| {
        let watcher = threads.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::SeqCst) {
                most = most.max(bytes(folder.path()));
                std::thread::sleep(Duration::from_millis(1));
            }
            most
        });
        let end = on_drop(|| over.store(true, Ordering::SeqCst));
        let metrics = block_on(async {
            let cache = DiskCache::builder().root(folder.path()).max_bytes(BOUND);
            let cache = cache.open().await.unwrap();
            let tasks = (0..TASKS).map(|task| {
                let cache = cache.clone();
                tokio::spawn(async move {
                    for number in 0..each {
                        let number = task * each + number;
                        cache
                            .put(&key(number), artifact(MIB as usize))
                            .await
                            .unwrap();
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
            cache.close(Duration::from_secs(60)).await.unwrap();
            cache.metrics()
        });
        drop(end);
        (watcher.join().unwrap(), metrics)
    });
    println!("at most {} KiB; {metrics}", most >> 10);
    let in_flight = TASKS * (MIB + 1024);
    assert!(most <= BOUND + in_flight + BOUND / 10, "{} MiB", most >> 20);
    assert_eq!(metrics.puts, TASKS * each);
    assert!(metrics.throttled_puts > 0 && metrics.throttled_micros > 0);
}
