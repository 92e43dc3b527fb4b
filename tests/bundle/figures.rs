//! How fast a bundle is beside a disk tier. Prints figures: run it in release, alone, with
//! `cargo test --release --all-features --test bundle figures -- --ignored --nocapture`.

use futures::future::join_all;
use pipeline_cache::{BundleCache, DiskCache, PipelineCacheStore};
use std::time::{Duration, Instant};

use crate::scales::write_many;
use crate::support::{artifact, key};

const ROUNDS: usize = 9;
const KEYS: u64 = 1_000;

#[test]
#[ignore = "prints figures, and takes long in a debug build"]
fn of_opening_and_of_hits() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::spawn(opening()).await.unwrap();
        tokio::spawn(hits()).await.unwrap();
    });
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.bundle");
    let start = Instant::now();
    write_many(&path, 100_000, 4096).await;
    println!(
        "100,000 entries of 4 KiB written in {:.2?}",
        start.elapsed()
    );
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let cache = BundleCache::open(&path).await.unwrap();
        times.push(start.elapsed());
        drop(cache);
    }
    println!(
        "opened in {:.2?} (median of {ROUNDS}), at most {:.2?}",
        median(times.clone()),
        times.iter().max().unwrap()
    );
}

async fn hits() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache::new(folder.path().join("disk")).await.unwrap();
    for number in 0..KEYS {
        disk.put(&key(number), artifact(number, 4096))
            .await
            .unwrap();
    }
    let path = folder.path().join("hits.bundle");
    write_many(&path, KEYS, 4096).await;
    let bundle = BundleCache::open(&path).await.unwrap();
    for at_once in [1, 64] {
        let (mut of_disk, mut of_bundle) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_disk.push(per_hit(&disk, at_once).await);
            of_bundle.push(per_hit(&bundle, at_once).await);
        }
        let (of_disk, of_bundle) = (median(of_disk), median(of_bundle));
        let ratio = of_bundle.as_secs_f64() / of_disk.as_secs_f64();
        println!(
            "hit of 4 KiB, {at_once} at once: bundle {of_bundle:.2?}, disk {of_disk:.2?}, {ratio:.2} x"
        );
    }
}

/// The time of all lookups over their number.
async fn per_hit(store: &(impl PipelineCacheStore + Clone + 'static), at_once: u64) -> Duration {
    const LOOKUPS: u64 = 32_000;
    let start = Instant::now();
    let tasks = (0..at_once).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..LOOKUPS / at_once {
                let key = key((task * 17 + number * 7) % KEYS);
                assert!(store.get(&key).await.unwrap().is_some());
            }
        })
    });
    for done in join_all(tasks).await {
        done.unwrap();
    }
    start.elapsed() / LOOKUPS as u32
}
