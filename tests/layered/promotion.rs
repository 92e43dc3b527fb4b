//! What was found in a slow tier reaches the faster ones, in the background, once, and is counted.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "a clone that is turned into `dyn` on the way"
)]

use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, LayeredPromotionReport, LookupOptions,
    LookupSource, PipelineCacheStore, PipelineFingerprint, StoreErrorKind, StoreOperation,
};
use std::sync::Arc;
use std::time::Duration;

fn key(n: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn artifact() -> Artifact {
    Artifact::new("code")
}

async fn holding(name: &str, keys: u64) -> Arc<FaultyStore> {
    let store = FaultyStore::new(name);
    for n in 0..keys {
        store.put(&key(n), artifact()).await.unwrap();
    }
    Arc::new(store)
}

fn assert_adds_up(report: &LayeredPromotionReport) {
    let ends = report.promoted + report.coalesced + report.dropped + report.failed + report.pending;
    assert_eq!(report.events, ends, "{report:?}");
}

#[tokio::test]
async fn a_hit_reaches_every_faster_tier_that_lacks_it() {
    let memory = Arc::new(InMemoryPipelineCache::new());
    let disk = Arc::new(FaultyStore::new("disk"));
    let remote = holding("remote", 1).await;
    let cache =
        LayeredPipelineCache::new([memory.clone() as _, disk.clone() as _, remote.clone() as _]);

    let lookup = cache.lookup(&key(0), &LookupOptions::new()).await;
    assert_eq!(lookup.source(), Some(LookupSource::Tier(2)));
    cache.flush().await.unwrap();

    assert_eq!(memory.peek(&key(0)), Some(artifact()));
    assert!(disk.contains(&key(0)).await.unwrap());
    let report = cache.promotion_report();
    assert_adds_up(&report);
    assert_eq!((report.events, report.promoted, report.pending), (1, 1, 0));
    assert_eq!((report.promoted_layers, report.promoted_bytes), (2, 8));
    assert_eq!(report.last_source_layer, Some(2));
    assert_eq!(
        (report.last_promoted_layers, report.last_promoted_bytes),
        (2, 8)
    );

    // The next lookup ends at the first tier.
    let lookup = cache.lookup(&key(0), &LookupOptions::new()).await;
    assert_eq!(lookup.source(), Some(LookupSource::Tier(0)));
    assert_eq!(remote.calls(StoreOperation::Get), 1);
}

#[tokio::test]
async fn an_artifact_on_its_way_up_is_served_and_not_fetched_again() {
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Put, Fault::Gate);
    let remote = holding("remote", 1).await;
    let cache = LayeredPipelineCache::new([disk.clone() as _, remote.clone() as _]);

    cache.get(&key(0)).await.unwrap();
    disk.called(StoreOperation::Put, 1).await;
    for _ in 0..100 {
        let lookup = cache.lookup(&key(0), &LookupOptions::new()).await;
        assert_eq!(lookup.source(), Some(LookupSource::Promotion(1)));
    }
    assert_eq!(remote.calls(StoreOperation::Get), 1);
    assert_eq!(cache.promotion_report().pending, 1);

    disk.open(StoreOperation::Put, 1);
    cache.flush().await.unwrap();
    assert_eq!(disk.calls(StoreOperation::Put), 1);
    assert_eq!(cache.promotion_report().promoted, 1);
}

#[tokio::test]
async fn a_promotion_runs_in_the_background() {
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Put, Fault::Hang);
    let remote = holding("remote", 10).await;
    let cache = LayeredPipelineCache::new([disk as _, remote as _]);
    for n in 0..10 {
        assert_eq!(cache.get(&key(n)).await, Some(artifact()));
    }
    assert_eq!(cache.promotion_report().pending, 10);
}

#[tokio::test]
async fn what_a_tier_does_not_take_is_not_offered() {
    let read_only = Arc::new(FaultyStore::new("read-only").read_only());
    let small = Arc::new(FaultyStore::over(
        "small",
        Arc::new(InMemoryPipelineCache::with_limits(10, 3)),
    ));
    let remote = holding("remote", 1).await;
    let cache =
        LayeredPipelineCache::new([read_only.clone() as _, small.clone() as _, remote as _]);
    assert_eq!(cache.get(&key(0)).await, Some(artifact()));
    cache.flush().await.unwrap();
    assert_eq!(read_only.calls(StoreOperation::Put), 0);
    assert_eq!(small.calls(StoreOperation::Put), 0);
    assert_eq!(cache.promotion_report(), LayeredPromotionReport::default());
}

#[tokio::test]
async fn what_is_beyond_the_bounds_is_dropped_and_counted() {
    for (entries, bytes) in [(3, u64::MAX), (100, 14)] {
        let disk = Arc::new(FaultyStore::new("disk"));
        disk.set(StoreOperation::Put, Fault::Gate);
        let remote = holding("remote", 10).await;
        let cache = LayeredPipelineCache::builder()
            .tier(disk.clone())
            .tier(remote)
            .background_limits(entries, bytes)
            .build();
        for n in 0..10 {
            assert_eq!(cache.get(&key(n)).await, Some(artifact()));
        }
        let report = cache.promotion_report();
        assert_adds_up(&report);
        assert_eq!((report.pending, report.dropped), (3, 7));

        disk.open(StoreOperation::Put, 3);
        cache.flush().await.unwrap();
        let report = cache.promotion_report();
        assert_adds_up(&report);
        assert_eq!((report.promoted, report.dropped, report.pending), (3, 7, 0));

        // There is room again.
        disk.set(StoreOperation::Put, Fault::None);
        cache.get(&key(9)).await.unwrap();
        cache.flush().await.unwrap();
        assert_eq!(cache.promotion_report().promoted, 4);
    }
}

#[tokio::test]
async fn so_many_run_at_a_time_and_no_more() {
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Put, Fault::Gate);
    let remote = holding("remote", 20).await;
    let cache = LayeredPipelineCache::builder()
        .tier(disk.clone())
        .tier(remote)
        .background_concurrency(4)
        .build();
    for n in 0..20 {
        cache.get(&key(n)).await.unwrap();
    }
    for done in 0..17 {
        disk.called(StoreOperation::Put, done + 4).await;
        tokio::task::yield_now().await;
        assert_eq!(disk.calls(StoreOperation::Put), done + 4);
        disk.open(StoreOperation::Put, 1);
    }
    disk.open(StoreOperation::Put, 3);
    cache.flush().await.unwrap();
    assert_eq!(cache.promotion_report().promoted, 20);
}

#[tokio::test(start_paused = true)]
async fn a_failing_tier_is_counted_and_the_other_still_gets_it() {
    for fault in [
        Fault::Error(StoreErrorKind::StorageFull),
        Fault::Panic,
        Fault::Hang,
    ] {
        let good = Arc::new(FaultyStore::new("good"));
        let bad = Arc::new(FaultyStore::new("bad"));
        bad.set(StoreOperation::Put, fault);
        let remote = holding("remote", 1).await;
        let cache = LayeredPipelineCache::new([good.clone() as _, bad.clone() as _, remote as _]);
        assert_eq!(cache.get(&key(0)).await, Some(artifact()));
        cache.flush().await.unwrap();
        let report = cache.promotion_report();
        assert_adds_up(&report);
        assert_eq!((report.failed, report.promoted_layers), (1, 1), "{fault:?}");
        assert!(good.contains(&key(0)).await.unwrap());
        assert_eq!(bad.calls(StoreOperation::Put), 1, "never retried");
    }
}

/// Promotion is never what brings an artifact back: not one under way when the key is removed,
/// and not one that a search finds in a lower tier before that is emptied.
#[tokio::test]
async fn a_removed_key_stays_removed() {
    let disk = Arc::new(FaultyStore::new("disk"));
    let remote = holding("remote", 1).await;
    disk.set(StoreOperation::Put, Fault::Gate);
    let cache = LayeredPipelineCache::new([disk.clone() as _, remote.clone() as _]);
    cache.get(&key(0)).await.unwrap();
    disk.called(StoreOperation::Put, 1).await;

    // The remove waits for the write under way, and then removes it too.
    let remove = tokio::spawn({
        let cache = cache.clone();
        async move { cache.remove(&key(0)).await }
    });
    tokio::task::yield_now().await;
    assert!(!remove.is_finished());
    disk.open(StoreOperation::Put, 1);
    assert!(remove.await.unwrap().unwrap());
    assert_eq!(cache.get(&key(0)).await, None);

    // A search finds it in the remote while the remove is between the tiers.
    disk.set(StoreOperation::Put, Fault::None);
    remote.put(&key(0), artifact()).await.unwrap();
    remote.set(StoreOperation::Remove, Fault::Gate);
    remote.set(StoreOperation::Get, Fault::Gate);
    let get = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key(0)).await }
    });
    let gets = remote.calls(StoreOperation::Get);
    remote.called(StoreOperation::Get, gets.max(3)).await;
    let removes = remote.calls(StoreOperation::Remove);
    let remove = tokio::spawn({
        let cache = cache.clone();
        async move { cache.remove(&key(0)).await }
    });
    remote.called(StoreOperation::Remove, removes + 1).await;
    remote.open(StoreOperation::Get, 1);
    assert_eq!(get.await.unwrap(), Some(artifact()));
    remote.open(StoreOperation::Remove, 1);
    assert!(remove.await.unwrap().unwrap());
    cache.flush().await.unwrap();
    assert!(!disk.contains(&key(0)).await.unwrap());

    let report = cache.promotion_report();
    assert_adds_up(&report);
    assert_eq!((report.promoted, report.dropped), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_close_reports_what_it_gave_up() {
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Put, Fault::Hang);
    let remote = holding("remote", 3).await;
    let cache = LayeredPipelineCache::new([disk.clone() as _, remote as _]);
    for n in 0..3 {
        cache.get(&key(n)).await.unwrap();
    }
    let report = cache.close(Duration::from_secs(1)).await;
    assert_eq!(report.unfinished_writes, 3);
    assert!(!report.is_clean());
    // Closed: what is found is served, and promoted no more.
    assert_eq!(cache.get(&key(0)).await, Some(artifact()));
    cache.flush().await.unwrap();
    let report = cache.promotion_report();
    assert_adds_up(&report);
    assert_eq!((report.pending, report.promoted), (0, 0));
}

/// The runtime goes away under promotions and lookups: nothing panics, and the cache goes on
/// working on another runtime.
#[test]
fn a_runtime_may_be_shut_down_under_the_cache() {
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Put, Fault::Hang);
    let first = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let remote = first.block_on(holding("remote", 2));
    let cache = LayeredPipelineCache::new([disk.clone() as _, remote.clone() as _]);
    first.block_on(async {
        cache.get(&key(0)).await.unwrap();
        remote.set(StoreOperation::Get, Fault::Hang);
        let lookup = cache.clone();
        tokio::spawn(async move { lookup.get(&key(1)).await });
        remote.called(StoreOperation::Get, 2).await;
    });
    first.shutdown_background();

    remote.set(StoreOperation::Get, Fault::None);
    disk.set(StoreOperation::Put, Fault::None);
    let second = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    second.block_on(async {
        assert_eq!(cache.get(&key(1)).await, Some(artifact()));
        cache.flush().await.unwrap();
    });
    let report = cache.promotion_report();
    assert_adds_up(&report);
    assert_eq!((report.promoted, report.dropped), (1, 1));
}
