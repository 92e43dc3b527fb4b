//! A trim brings the folder within its bounds and harms nothing else in it.
#![cfg(unix)]

mod disk_support;

use disk_support::{artifact, entry, folder, key, names, open};
use pipeline_cache::{DiskCache, DiskCacheBuilder, PipelineCacheStore, StoreErrorKind};
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

/// A folder of ten entries; entry 0 was used ten hours ago, entry 9 one hour ago.
async fn filled(settings: DiskCacheBuilder) -> (tempfile::TempDir, DiskCache) {
    let folder = folder();
    let cache = settings.root(folder.path()).open().await.unwrap();
    for number in 0..10 {
        cache.put(&key(number), artifact(1000)).await.unwrap();
        used(&cache, number, HOUR * (10 - number as u32));
    }
    (folder, cache)
}

fn used(cache: &DiskCache, number: u64, ago: Duration) {
    let file = File::open(entry(cache.root(), &key(number))).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

async fn kept(cache: &DiskCache) -> Vec<u64> {
    let mut kept = Vec::new();
    for number in 0..10 {
        if cache.contains(&key(number)).await.unwrap() {
            kept.push(number);
        }
    }
    kept
}

#[tokio::test]
async fn to_a_number_of_entries() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(3)).await;
    let report = cache.trim().await.unwrap();
    assert_eq!(kept(&cache).await, [7, 8, 9]);
    assert_eq!((report.scanned, report.removed), (10, 7));
    assert_eq!(report.removed_bytes * 10, report.scanned_bytes * 7);
    let oldest = report.oldest_kept.unwrap().elapsed().unwrap();
    assert!((HOUR * 3..HOUR * 4).contains(&oldest));
    let metrics = cache.metrics();
    assert_eq!(
        (metrics.evictions, metrics.evicted_bytes),
        (7, report.removed_bytes)
    );
    assert_eq!(cache.durability_report().pending_flushes, 3);

    let again = cache.trim().await.unwrap();
    assert_eq!((again.scanned, again.removed), (3, 0));
}

#[tokio::test]
async fn to_a_number_of_bytes() {
    let (_folder, probe) = filled(DiskCache::builder()).await;
    let each = fs::metadata(entry(probe.root(), &key(0))).unwrap().len();
    for (max_bytes, expected) in [(each * 4, 4), (each * 4 - 1, 3), (0, 0)] {
        let (_folder, cache) = filled(DiskCache::builder().max_bytes(max_bytes)).await;
        cache.trim().await.unwrap();
        assert_eq!(kept(&cache).await.len(), expected);
    }
}

#[tokio::test]
async fn to_an_age() {
    let settings = DiskCache::builder().max_age(HOUR * 4 + HOUR / 2);
    let (_folder, cache) = filled(settings).await;
    cache.trim().await.unwrap();
    assert_eq!(kept(&cache).await, [6, 7, 8, 9]);
}

#[tokio::test]
async fn to_no_bound_at_all() {
    let (_folder, cache) = filled(DiskCache::builder()).await;
    let report = cache.trim().await.unwrap();
    assert_eq!((report.scanned, report.removed), (10, 0));
}

#[tokio::test]
async fn the_least_recently_used_go_first() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(2)).await;
    assert!(cache.get(&key(0)).await.unwrap().is_some());
    cache.put(&key(1), artifact(1000)).await.unwrap();
    cache.trim().await.unwrap();
    assert_eq!(kept(&cache).await, [0, 1]);
}

#[tokio::test]
async fn what_is_no_entry_stays_and_what_was_set_aside_goes() {
    let (folder, cache) = filled(DiskCache::builder().max_entries(0)).await;
    fs::write(entry(folder.path(), &key(0)), "torn").unwrap();
    assert!(cache.get(&key(0)).await.unwrap().is_none());
    let upper = format!("{}.bin", key(1).to_hex().to_uppercase());
    let others = ["README", "x.bin", "a.corrupt", &upper];
    for name in others {
        fs::write(folder.path().join(name), "precious").unwrap();
    }
    fs::create_dir(entry(folder.path(), &key(20))).unwrap();
    std::os::unix::fs::symlink("README", entry(folder.path(), &key(21))).unwrap();
    cache.close(Duration::from_secs(60)).await.unwrap();
    drop(cache);

    let cache = DiskCache::builder().root(folder.path()).max_entries(0);
    let cache = cache.open().await.unwrap();
    let report = cache.trim().await.unwrap();
    assert_eq!(
        (report.scanned, report.removed, report.oldest_kept),
        (9, 9, None)
    );
    let mut expected: Vec<_> = others.map(str::to_owned).into();
    expected.extend([20, 21].map(|number| format!("{}.bin", key(number))));
    expected.sort();
    assert_eq!(names(folder.path()), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn others_go_on_meanwhile() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(5)).await;
    let putting = tokio::spawn({
        let cache = cache.clone();
        async move {
            for number in 0..300 {
                cache.put(&key(number % 20), artifact(1000)).await.unwrap();
                assert!(cache.get(&key(number % 20)).await.is_ok());
            }
        }
    });
    let other = open(cache.root()).await;
    while !putting.is_finished() {
        cache.trim().await.unwrap();
        other.trim().await.unwrap();
    }
    putting.await.unwrap();
    cache.trim().await.unwrap();
    let left = names(cache.root())
        .iter()
        .filter(|name| name.ends_with(".bin"))
        .count();
    assert_eq!(left, 5);
    assert_eq!(cache.metrics().corrupt, 0);
}

#[tokio::test]
async fn a_closed_cache_trims_no_more() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(5)).await;
    cache.close(Duration::from_secs(60)).await.unwrap();
    let error = cache.trim().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed);
    assert_eq!(kept(&cache).await.len(), 10);
}
