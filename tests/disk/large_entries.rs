//! What would empty a bounded folder is refused, and what is too large in it goes first.

use crate::support::{artifact, entry, folder, key, names, open};
use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, StoreErrorKind};
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

const BOUND: u64 = 1_000_000;
const KEPT: u64 = 80;

fn entries(root: &Path) -> u64 {
    let names = names(root);
    names.iter().filter(|name| name.ends_with(".bin")).count() as u64
}

async fn bounded(root: &Path) -> DiskCache {
    let cache = DiskCache::builder().root(root).max_bytes(BOUND);
    cache.open().await.unwrap()
}

#[tokio::test]
async fn an_artifact_that_would_empty_the_folder_is_refused() {
    let folder = folder();
    let cache = bounded(folder.path()).await;
    for number in 0..KEPT {
        cache.put(&key(number), artifact(10_000)).await.unwrap();
    }
    let largest = usize::try_from(cache.max_artifact_bytes()).unwrap();
    assert!(largest < 900_000, "{largest}");
    for bytes in [5_000_000, 1_000_000, 900_000, largest + 1] {
        let error = cache.put(&key(100), artifact(bytes)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    }
    // As a server stores what a client sent.
    let frame = Artifact::new(vec![1; 900_000]);
    let unbounded = open(folder.path().join("other")).await;
    unbounded.put(&key(100), frame).await.unwrap();
    let frame = fs::read(entry(unbounded.root(), &key(100))).unwrap();
    let error = cache.put_frame(&key(100), frame.into()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert_eq!(cache.metrics().rejected_puts, 5);
    cache.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(entries(folder.path()), KEPT);
}

#[tokio::test]
async fn the_largest_artifact_that_is_taken_stays_and_empties_nothing() {
    let folder = folder();
    let cache = bounded(folder.path()).await;
    for number in 0..KEPT {
        cache.put(&key(number), artifact(10_000)).await.unwrap();
    }
    let largest = usize::try_from(cache.max_artifact_bytes()).unwrap();
    let largest = Artifact::new(vec![1; largest]);
    cache.put(&key(100), largest.clone()).await.unwrap();
    cache.close(Duration::from_secs(60)).await.unwrap();
    let cache = bounded(folder.path()).await;
    cache.trim().await.unwrap();
    assert_eq!(cache.get(&key(100)).await.unwrap(), Some(largest));
    assert!(entries(folder.path()) > KEPT / 4);
}

/// A sparse file under a key's name, used later than all entries.
fn put_sparse_file(root: &Path) {
    let sparse = File::create(entry(root, &key(1000))).unwrap();
    sparse.set_len(1 << 40).unwrap();
}

#[tokio::test]
async fn an_entry_larger_than_the_bound_is_evicted_first() {
    for on_demand in [true, false] {
        let folder = folder();
        let unbounded = open(folder.path()).await;
        for number in 0..10 {
            unbounded.put(&key(number), artifact(1000)).await.unwrap();
        }
        put_sparse_file(folder.path());
        let cache = bounded(folder.path()).await;
        if on_demand {
            let report = cache.trim().await.unwrap();
            assert_eq!((report.scanned, report.removed), (11, 1));
        } else {
            cache.put(&key(10), artifact(1000)).await.unwrap();
            let patience = std::time::Instant::now();
            while entry(folder.path(), &key(1000)).exists() {
                assert!(patience.elapsed() < Duration::from_secs(30));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        cache.close(Duration::from_secs(60)).await.unwrap();
        for number in 0..10 {
            assert!(cache.contains(&key(number)).await.unwrap());
        }
    }
}
