//! A layered lookup takes the first hit, waits for nobody in vain, and says what each tier did.

use pipeline_cache::layered::TierOutcome;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, LookupPolicy,
    LookupSource, PipelineCacheStore, PipelineFingerprint, StoreErrorKind, StoreOperation,
    TierSelection, WritePolicy,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);
const MS: Duration = Duration::from_millis(1);

fn artifact() -> Artifact {
    Artifact::new("code")
}

async fn holding(store: FaultyStore) -> Arc<FaultyStore> {
    store.put(&KEY, artifact()).await.unwrap();
    Arc::new(store)
}

fn layered(tiers: &[&Arc<FaultyStore>]) -> LayeredPipelineCache {
    LayeredPipelineCache::new(tiers.iter().map(|tier| Arc::clone(tier) as _))
}

fn outcomes(lookup: &pipeline_cache::Lookup) -> Vec<String> {
    lookup
        .tiers()
        .map(|tier| tier.outcome.to_string())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn lower_tiers_are_read_at_the_same_time() {
    let first = Arc::new(FaultyStore::new("first"));
    let second = Arc::new(FaultyStore::new("second"));
    first.set(StoreOperation::Get, Fault::Latency(50 * MS));
    second.set(StoreOperation::Get, Fault::Latency(50 * MS));
    let cache = layered(&[&first, &second]);

    let start = Instant::now();
    let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
    assert_eq!(start.elapsed(), 50 * MS);
    assert_eq!(outcomes(&lookup), ["miss", "miss"]);
    assert!(lookup.tiers().all(|tier| tier.elapsed == 50 * MS));
    assert!(!lookup.is_degraded());
}

#[tokio::test(start_paused = true)]
async fn the_first_hit_wins_and_the_others_are_dropped() {
    let slow = holding(FaultyStore::new("slow")).await;
    let quick = holding(FaultyStore::new("quick")).await;
    slow.set(StoreOperation::Get, Fault::Hang);
    quick.set(StoreOperation::Get, Fault::Latency(3 * MS));
    let cache = layered(&[&slow, &quick]);

    let start = Instant::now();
    let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
    assert_eq!(start.elapsed(), 3 * MS);
    assert_eq!(lookup.source(), Some(LookupSource::Tier(1)));
    assert_eq!(lookup.artifact(), Some(&artifact()));
    assert_eq!(outcomes(&lookup), ["cancelled", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn a_local_hit_never_reaches_the_network() {
    let disk = holding(FaultyStore::new("disk")).await;
    let remote = holding(FaultyStore::new("remote").network()).await;
    disk.set(StoreOperation::Get, Fault::Latency(MS));
    let cache = layered(&[&disk, &remote]);

    let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
    assert_eq!(outcomes(&lookup), ["hit", "skipped"]);
    assert_eq!(remote.calls(StoreOperation::Get), 0);
}

#[tokio::test(start_paused = true)]
async fn the_head_start_ends_when_the_local_tiers_have_missed() {
    let disk = Arc::new(FaultyStore::new("disk"));
    let remote = holding(FaultyStore::new("remote").network()).await;
    let cache = layered(&[&disk, &remote]);

    let start = Instant::now();
    let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(outcomes(&lookup), ["miss", "hit"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_local_tier_holds_the_network_up_no_longer_than_the_head_start() {
    for (policy, expected) in [
        (LookupPolicy::default(), 2 * MS),
        (LookupPolicy::Hedged { delay: 7 * MS }, 7 * MS),
        (
            LookupPolicy::Hedged {
                delay: Duration::ZERO,
            },
            Duration::ZERO,
        ),
        (LookupPolicy::Concurrent, Duration::ZERO),
        (LookupPolicy::Sequential, 20 * MS),
    ] {
        let disk = Arc::new(FaultyStore::new("disk"));
        disk.set(StoreOperation::Get, Fault::Latency(20 * MS));
        let remote = holding(FaultyStore::new("remote").network()).await;
        let cache = LayeredPipelineCache::builder()
            .tier(disk)
            .tier(remote)
            .lookup_policy(policy)
            .build();
        let start = Instant::now();
        assert_eq!(cache.get(&KEY).await, Some(artifact()));
        // The timer's granularity is a millisecond, rounded up.
        let elapsed = start.elapsed();
        assert!(
            elapsed >= expected && elapsed <= expected + MS,
            "{policy:?}: {elapsed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_tier_costs_a_hit_nothing_and_a_miss_its_deadline() {
    let disk = holding(FaultyStore::new("disk")).await;
    let remote = Arc::new(FaultyStore::new("remote").network());
    remote.set_all(Fault::Hang);
    let cache = layered(&[&disk, &remote]);

    let start = Instant::now();
    assert_eq!(cache.get(&KEY).await, Some(artifact()));
    assert_eq!(start.elapsed(), Duration::ZERO);

    let other = PipelineFingerprint::from_bytes([8; 32]);
    let options = LookupOptions::new().deadline(30 * MS);
    let lookup = cache.lookup(&other, &options).await;
    assert!(start.elapsed() <= 31 * MS);
    assert_eq!(outcomes(&lookup), ["miss", "timed out"]);
    assert!(lookup.is_degraded());

    // Without options the cache's own deadline holds.
    let start = Instant::now();
    let lookup = cache.lookup(&other, &LookupOptions::new()).await;
    assert!(start.elapsed() <= Duration::from_millis(10_001));
    assert_eq!(outcomes(&lookup), ["miss", "timed out"]);
}

#[tokio::test(start_paused = true)]
async fn an_endless_deadline_is_no_overflow() {
    let tier = Arc::new(FaultyStore::new("tier"));
    let cache = LayeredPipelineCache::builder()
        .tier(tier)
        .lookup_deadline(Duration::MAX)
        .build();
    let options = LookupOptions::new().deadline(Duration::MAX);
    assert!(cache.lookup(&KEY, &options).await.artifact().is_none());
    assert!(cache.close(Duration::MAX).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_keystroke_asks_this_machine_alone() {
    let disk = Arc::new(FaultyStore::new("disk"));
    let remote = holding(FaultyStore::new("remote").network()).await;
    let cache = layered(&[&disk, &remote]);
    let options = LookupOptions::new().tiers(TierSelection::Local);
    let lookup = cache.lookup(&KEY, &options).await;
    assert_eq!(outcomes(&lookup), ["miss", "skipped"]);
    assert!(!lookup.is_degraded());
    assert_eq!(remote.calls(StoreOperation::Get), 0);
}

#[tokio::test]
async fn a_broken_tier_is_reported_and_leaves_its_neighbours_alone() {
    let faults = [
        (
            Fault::Error(StoreErrorKind::Io),
            "failed: broken: get: I/O error",
        ),
        (
            Fault::Panic,
            "failed: broken: get: panicked: broken was told to panic",
        ),
        (
            Fault::Corrupt,
            "corrupt: the payload does not match its digest",
        ),
    ];
    for (fault, expected) in faults {
        let broken = Arc::new(FaultyStore::new("broken"));
        broken.set_all(fault);
        let good = holding(FaultyStore::new("good")).await;
        let cache = layered(&[&broken, &good]);

        let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
        assert_eq!(lookup.artifact(), Some(&artifact()));
        // The good tier may be first; the broken one was then told to stop.
        let outcome = &outcomes(&lookup)[0];
        assert!(outcome == expected || outcome == "cancelled", "{outcome}");

        let other = PipelineFingerprint::from_bytes([8; 32]);
        let lookup = cache.lookup(&other, &LookupOptions::new()).await;
        assert_eq!(outcomes(&lookup), [expected, "miss"]);
        assert!(lookup.is_degraded());
        assert!(cache.metrics().errors >= 1);

        // Puts go to the broken tier here, and fail there; a cache around it still answers.
        if fault != Fault::Corrupt {
            assert!(cache.put(&other, artifact()).await.is_err());
        }
        assert!(good.calls(StoreOperation::Get) >= 2);
    }
}

#[tokio::test]
async fn as_a_tier_it_passes_a_failure_on_and_not_for_a_miss() {
    let broken = Arc::new(FaultyStore::new("broken"));
    broken.set(StoreOperation::Get, Fault::Error(StoreErrorKind::Io));
    let good = Arc::new(FaultyStore::new("good"));
    let cache = layered(&[&broken, &good]);
    let store: &dyn PipelineCacheStore = &cache;
    assert_eq!(
        store.get(&KEY).await.unwrap_err().kind(),
        StoreErrorKind::Io
    );
    assert_eq!(cache.get(&KEY).await, None);
    good.put(&KEY, artifact()).await.unwrap();
    assert_eq!(store.get(&KEY).await.unwrap(), Some(artifact()));
}

#[tokio::test]
async fn puts_go_where_the_policy_says() {
    let tiers = || {
        [
            Arc::new(FaultyStore::new("a").read_only()),
            Arc::new(FaultyStore::new("b")),
            Arc::new(FaultyStore::new("c")),
        ]
    };
    let puts = |tiers: &[Arc<FaultyStore>; 3]| -> Vec<u64> {
        tiers
            .iter()
            .map(|tier| tier.calls(StoreOperation::Put))
            .collect()
    };

    let first = tiers();
    let cache = LayeredPipelineCache::new(first.iter().map(|tier| Arc::clone(tier) as _));
    cache.put(&KEY, artifact()).await.unwrap();
    assert_eq!(puts(&first), [0, 1, 0]);

    let through = tiers();
    let mut builder = LayeredPipelineCache::builder().write_policy(WritePolicy::Through);
    for tier in &through {
        builder = builder.tier(Arc::clone(tier));
    }
    let cache = builder.build();
    cache.put(&KEY, artifact()).await.unwrap();
    assert_eq!(puts(&through), [0, 1, 1]);
    through[1].set(StoreOperation::Put, Fault::Panic);
    let error = cache.put(&KEY, artifact()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.tier()),
        (StoreErrorKind::Panicked, "b")
    );
    assert_eq!(puts(&through), [0, 2, 2]);

    let read_only = Arc::new(FaultyStore::new("a").read_only());
    let error = layered(&[&read_only])
        .put(&KEY, artifact())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
}

#[tokio::test(start_paused = true)]
async fn a_hung_tier_does_not_hang_a_put() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.set(StoreOperation::Put, Fault::Hang);
    let cache = layered(&[&tier]);
    let error = cache.put(&KEY, artifact()).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TimedOut);
}

#[tokio::test]
async fn removes_reach_every_tier() {
    let a = holding(FaultyStore::new("a")).await;
    let b = holding(FaultyStore::new("b")).await;
    let cache = layered(&[&a, &b]);
    assert!(cache.contains(&KEY).await.unwrap());
    assert!(cache.remove(&KEY).await.unwrap());
    assert!(!cache.remove(&KEY).await.unwrap());
    assert!(!cache.contains(&KEY).await.unwrap());
    assert_eq!(cache.get(&KEY).await, None);
}

#[tokio::test]
async fn a_cache_without_tiers_misses() {
    let cache = LayeredPipelineCache::new([]);
    assert_eq!(cache.get(&KEY).await, None);
    assert!(cache.put(&KEY, artifact()).await.is_err());
    assert!(cache.flush().await.is_ok());
    assert!(cache.close(Duration::ZERO).await.is_clean());
}

#[tokio::test]
async fn a_flush_reaches_all_tiers_and_names_the_one_that_failed() {
    let tiers = ["a", "b", "c"].map(|name| Arc::new(FaultyStore::new(name)));
    let cache = layered(&[&tiers[0], &tiers[1], &tiers[2]]);
    cache.flush().await.unwrap();
    tiers[0].set(
        StoreOperation::Flush,
        Fault::Error(StoreErrorKind::StorageFull),
    );
    tiers[1].set(StoreOperation::Flush, Fault::Panic);
    let error = cache.flush().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.tier()),
        (StoreErrorKind::StorageFull, "a")
    );
    for tier in &tiers {
        assert_eq!(tier.calls(StoreOperation::Flush), 2);
    }
    assert_eq!(
        (cache.metrics().flushes, cache.metrics().flush_errors),
        (1, 1)
    );
}

/// 1,000 concurrent gets and puts on one key, through memory and a slower tier: each get is the
/// whole artifact or a miss, and nobody is left waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_gets_and_puts_on_one_key() {
    let memory = Arc::new(InMemoryPipelineCache::new());
    let slow = Arc::new(FaultyStore::new("slow"));
    slow.set(StoreOperation::Get, Fault::Latency(MS));
    let cache = LayeredPipelineCache::builder()
        .tier(memory)
        .tier(slow)
        .write_policy(WritePolicy::Through)
        .build();
    let artifact = Artifact::new(vec![5; 100_000]);
    let start = Arc::new(tokio::sync::Barrier::new(1_000));
    let tasks: Vec<_> = (0..1_000)
        .map(|n| {
            let (cache, artifact, start) = (cache.clone(), artifact.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                match n % 4 {
                    0 => cache.put(&KEY, artifact).await.unwrap(),
                    1 if n % 100 == 1 => {
                        cache.remove(&KEY).await.unwrap();
                    }
                    _ => {
                        if let Some(found) = cache.get(&KEY).await {
                            assert_eq!(found.payload(), artifact.payload());
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    cache.put(&KEY, artifact.clone()).await.unwrap();
    assert_eq!(cache.get(&KEY).await, Some(artifact));
}

#[test]
fn outcomes_say_whether_they_are_failures() {
    assert!(TierOutcome::TimedOut.is_failure());
    assert!(!TierOutcome::Miss.is_failure());
}
