//! When puts wait for room, and when the folder is scanned.

use super::*;
use crate::artifact::Artifact;
use crate::disk::DiskCache;
use crate::disk::gc::usage::Stored;
use crate::key::PipelineFingerprint;
use crate::store::PipelineCacheStore as _;
use futures::poll;

/// A cache of at most 1000 entries, of whose folder the count says that it holds so many. The test
/// evicts.
async fn holding(folder: &std::path::Path, entries: u64) -> DiskCache {
    let cache = DiskCache::builder().root(folder).max_entries(1000);
    let cache = cache.open().await.unwrap();
    assert!(cache.collector.usage.start_collecting());
    let (directory, stored) = (&cache.shared.directory, Stored::default());
    let total = Total {
        entries,
        ..Total::default()
    };
    let usage = &cache.collector.usage;
    usage.correct(directory, None, stored, total);
    cache
}

fn put(cache: &DiskCache, number: u8) -> impl Future<Output = ()> + use<> {
    let (cache, key) = (cache.clone(), PipelineFingerprint::from_bytes([number; 32]));
    async move { cache.put(&key, Artifact::new("code")).await.unwrap() }
}

fn evict(cache: &DiskCache, entries: u64) {
    for _ in 0..entries {
        cache.collector.usage.add(Change::removal(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_waits_the_longer_the_further_the_bound_is_exceeded() {
    for (excess, patience) in [(1, 100), (20, 2000), (99, 9900), (500, 10_000)] {
        let folder = tempfile::tempdir().unwrap();
        let cache = holding(folder.path(), 1000 + excess).await;
        let start = tokio::time::Instant::now();
        put(&cache, 1).await;
        assert_eq!(start.elapsed(), Duration::from_millis(patience));
        let metrics = cache.metrics();
        assert_eq!(metrics.throttled_puts, 1);
        assert_eq!(metrics.throttled_micros, 1000 * patience);
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_waits_no_longer_than_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let cache = holding(folder.path(), 1050).await;
    let mut waits = Box::pin(put(&cache, 1));
    assert!(poll!(&mut waits).is_pending());
    let start = tokio::time::Instant::now();
    evict(&cache, 49);
    tokio::task::yield_now().await;
    assert!(poll!(&mut waits).is_pending());
    evict(&cache, 1);
    waits.await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_evicted_a_put_waits_for_a_moment_only() {
    let folder = tempfile::tempdir().unwrap();
    let cache = holding(folder.path(), 2000).await;
    cache.collector.usage.pause(Duration::from_secs(3600));
    let start = tokio::time::Instant::now();
    put(&cache, 1).await;
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn a_put_that_is_given_up_or_has_failed_holds_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let cache = holding(folder.path(), 1001).await;
    let mut waits = Box::pin(put(&cache, 1));
    assert!(poll!(&mut waits).is_pending());
    drop(waits);
    // Its task ends.
    tokio::task::yield_now().await;
    evict(&cache, 1);
    // In place of the entry, so that the put fails.
    let key = PipelineFingerprint::from_bytes([2; 32]);
    std::fs::create_dir(cache.shared.directory.entry(&key)).unwrap();
    cache.put(&key, Artifact::new("code")).await.unwrap_err();
    tokio::task::yield_now().await;
    assert_eq!(cache.collector.usage.held().entries, 1000);
    put(&cache, 3).await;
    assert_eq!(cache.collector.usage.held().entries, 1001);
    assert_eq!(cache.metrics().throttled_puts, 0);
}

/// Each would find that the other's scan is long ago or to come, and scan again at every put.
#[tokio::test]
async fn machines_whose_clocks_differ_do_not_scan_in_turn() {
    for theirs in [-7200, 0, 30, 7200] {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::builder().root(folder.path()).max_entries(1000);
        let cache = cache.open().await.unwrap();
        cache.trim().await.unwrap();
        // Only a scan finds this.
        let unbounded = DiskCache::new(folder.path()).await.unwrap();
        put(&unbounded, 1).await;
        cache
            .collector
            .usage
            .date_scan(&cache.shared.directory, theirs);
        put(&cache, 2).await;
        cache.close(Duration::from_secs(60)).await.unwrap();
        assert_eq!(cache.metrics().entries, 1, "{theirs}");
    }
}

/// Another process evicts the rest. A close does not wait for it.
#[test]
fn a_close_ends_an_eviction_with_its_step() {
    const STEP: u64 = 32;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::builder().root(folder.path());
        let cache = cache.max_entries(10_000).open().await.unwrap();
        let collector = &cache.collector;
        for number in 0..400_u64 {
            let key = *blake3::hash(&number.to_le_bytes()).as_bytes();
            let entry = cache
                .shared
                .directory
                .entry(&PipelineFingerprint::from_bytes(key));
            std::fs::write(entry, "not a frame").unwrap();
        }
        let survey = collector.trimmer.survey().await.unwrap();
        let candidates = collector.trimmer.candidates();
        candidates.keep(survey.first.into_sorted_vec().into());
        let total = Total {
            entries: 10_000,
            ..Total::default()
        };
        let stored = Stored::default();
        let directory = &cache.shared.directory;
        collector.usage.correct(directory, None, stored, total);
        assert!(collector.usage.start_collecting());
        let collection = Collection {
            collector: Arc::clone(collector),
            stopped: false,
        };
        cache.shared.tasks.spawn(collection.run());
        while cache.metrics().evictions <= STEP {
            tokio::task::yield_now().await;
        }
        let before = cache.metrics().evictions;
        cache.close(Duration::from_secs(60)).await.unwrap();
        let after = cache.metrics().evictions;
        assert!(after <= before + STEP, "{before}, then {after}");
    });
}
