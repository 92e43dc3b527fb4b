//! A bundle that changes under its tier serves what it was, or nothing.

use pipeline_cache::{BundleCache, PipelineCacheStore as _};
use std::fs::{self, File};
use std::io::Write as _;

use crate::support::{Small, entries, write};

#[tokio::test]
async fn a_bundle_that_is_replaced_or_removed_is_served_as_it_was() {
    let small = Small::new().await;
    let cache = BundleCache::open(&small.path).await.unwrap();
    write(&small.path, &entries(50..60, 500), &entries([], 0)).await;
    assert_eq!(small.served_of(&cache).await, 5);
    let new = BundleCache::open(&small.path).await.unwrap();
    assert_eq!(new.metrics().entries, 10);
    fs::remove_file(&small.path).unwrap();
    assert_eq!(small.served_of(&cache).await, 5);
    assert_eq!(cache.metrics().corrupt, 0);
}

#[tokio::test]
async fn a_bundle_that_is_cut_in_place_serves_what_is_left() {
    let small = Small::new().await;
    let mut last = 0;
    for len in (0..=small.bytes.len()).step_by(3) {
        fs::write(&small.path, &small.bytes).unwrap();
        let cache = BundleCache::open(&small.path).await.unwrap();
        let file = File::options().write(true).open(&small.path).unwrap();
        file.set_len(len as u64).unwrap();
        let served = small.served_of(&cache).await;
        assert!(served >= last, "{len}");
        last = served;
    }
    assert_eq!(last, 5);
}

#[tokio::test]
async fn a_bundle_that_is_overwritten_in_place_serves_nothing_wrong() {
    let small = Small::new().await;
    // The same keys and lengths with other artifacts would be another key's artifacts: such bytes have
    // other keys in their frames.
    let other = small.folder.path().join("other.bundle");
    write(&other, &entries(4..=6, 20), &entries(13..=14, 32)).await;
    let other = fs::read(other).unwrap();
    assert_eq!(other.len(), small.bytes.len());
    for len in (0..=other.len()).step_by(3) {
        fs::write(&small.path, &small.bytes).unwrap();
        let cache = BundleCache::open(&small.path).await.unwrap();
        let mut file = File::options().write(true).open(&small.path).unwrap();
        file.write_all(&other[..len]).unwrap();
        let served = small.served_of(&cache).await;
        let bad = cache.metrics().corrupt + cache.aliases().unwrap().metrics().corrupt;
        assert_eq!(served as u64 + bad, 5, "{len}");
    }
}
