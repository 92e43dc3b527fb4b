//! The memory tier holds its budgets, says what it evicts, and serves what it holds.

use pipeline_cache::{
    Artifact, ArtifactMetadata, InMemoryEvictionReason, InMemoryPipelineCache, PipelineCacheStore,
    PipelineFingerprint, StoreErrorKind,
};
use std::sync::Arc;
use std::time::Duration;

fn key(n: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn artifact(n: u64, len: usize) -> Artifact {
    Artifact::new(vec![n as u8; len])
}

#[tokio::test]
async fn a_put_is_served_until_it_is_removed() {
    let cache = InMemoryPipelineCache::new();
    assert!(cache.is_empty());
    assert_eq!(cache.peek(&key(1)), None);
    assert_eq!(cache.get(&key(1)).await.unwrap(), None);

    cache.put(&key(1), artifact(1, 10)).await.unwrap();
    assert_eq!(cache.peek(&key(1)), Some(artifact(1, 10)));
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(1, 10)));
    assert!(cache.contains(&key(1)).await.unwrap());
    assert_eq!((cache.len(), cache.cached_bytes()), (1, 10));

    assert!(cache.remove(&key(1)).await.unwrap());
    assert!(!cache.remove(&key(1)).await.unwrap());
    assert_eq!(cache.peek(&key(1)), None);
    assert_eq!((cache.len(), cache.cached_bytes()), (0, 0));

    let metrics = cache.metrics();
    assert_eq!((metrics.lookups, metrics.hits, metrics.misses), (3, 2, 1));
    assert_eq!((metrics.puts, metrics.removes), (1, 1));
}

#[tokio::test]
async fn both_budgets_can_be_used_up_to_the_last_entry_and_byte() {
    let cache = InMemoryPipelineCache::with_limits(10, 1_000);
    for n in 0..10 {
        cache.put(&key(n), artifact(n, 100)).await.unwrap();
    }
    assert_eq!((cache.len(), cache.cached_bytes()), (10, 1_000));
    assert!(cache.eviction_reports().is_empty());
}

#[tokio::test]
async fn small_artifacts_do_not_use_up_the_bytes_of_large_ones() {
    let cache = InMemoryPipelineCache::with_limits(4, 1_000);
    for n in 0..3 {
        cache.put(&key(n), artifact(n, 1)).await.unwrap();
    }
    cache.put(&key(3), artifact(3, 997)).await.unwrap();
    assert_eq!((cache.len(), cache.cached_bytes()), (4, 1_000));
}

#[tokio::test]
async fn evictions_say_how_many_how_large_and_why() {
    let by_entries = InMemoryPipelineCache::with_limits(2, 1_000);
    for n in 0..3 {
        by_entries.put(&key(n), artifact(n, 10)).await.unwrap();
    }
    let reports = by_entries.eviction_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].entries, reports[0].bytes), (1, 10));
    assert_eq!(reports[0].reason, InMemoryEvictionReason::EntryLimit);

    let by_bytes = InMemoryPipelineCache::with_limits(100, 100);
    for n in 0..5 {
        by_bytes.put(&key(n), artifact(n, 20)).await.unwrap();
    }
    // Asked for often enough that it is let in, whatever it drives out.
    for _ in 0..10 {
        by_bytes.get(&key(99)).await.unwrap();
    }
    by_bytes.put(&key(99), artifact(9, 90)).await.unwrap();
    let reports = by_bytes.eviction_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].entries, reports[0].bytes), (5, 100));
    assert_eq!(reports[0].reason, InMemoryEvictionReason::ByteLimit);
    assert_eq!(by_bytes.cached_bytes(), 90);

    let metrics = by_bytes.metrics();
    assert_eq!((metrics.evictions, metrics.evicted_bytes), (5, 100));
}

#[tokio::test]
async fn the_greatest_age_is_that_of_the_oldest_evicted() {
    let cache = InMemoryPipelineCache::with_limits(1, 1_000);
    let before = std::time::Instant::now();
    cache.put(&key(1), artifact(1, 1)).await.unwrap();
    let stored = std::time::Instant::now();
    while stored.elapsed() < Duration::from_millis(2) {
        std::hint::spin_loop();
    }
    for _ in 0..10 {
        cache.get(&key(2)).await.unwrap();
    }
    cache.put(&key(2), artifact(2, 1)).await.unwrap();
    let reports = cache.eviction_reports();
    assert!(reports[0].max_age >= Duration::from_millis(2));
    assert!(reports[0].max_age <= before.elapsed());
}

#[tokio::test]
async fn an_oversized_put_is_rejected_and_takes_the_old_entry_with_it() {
    let cache = InMemoryPipelineCache::with_limits(10, 100);
    cache.put(&key(1), artifact(1, 50)).await.unwrap();
    cache.put(&key(2), artifact(2, 10)).await.unwrap();
    let error = cache.put(&key(1), artifact(1, 101)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);

    assert_eq!(cache.peek(&key(1)), None);
    assert_eq!(cache.peek(&key(2)), Some(artifact(2, 10)));
    let reports = cache.eviction_reports();
    assert_eq!(reports.len(), 1);
    assert_eq!((reports[0].entries, reports[0].bytes), (1, 50));
    assert_eq!(reports[0].reason, InMemoryEvictionReason::RejectedPut);
    assert_eq!(cache.metrics().rejected_puts, 1);
}

#[tokio::test]
async fn texts_of_metadata_count_as_bytes() {
    let cache = InMemoryPipelineCache::with_limits(10, 100);
    let metadata = ArtifactMetadata::new().with_device("x".repeat(60));
    let artifact = Artifact::with_metadata(vec![0; 41], metadata);
    assert!(cache.put(&key(1), artifact).await.is_err());
}

#[tokio::test]
async fn a_cache_of_nothing_holds_nothing() {
    for (entries, bytes) in [(0, 100), (100, 0), (0, 0)] {
        let cache = InMemoryPipelineCache::with_limits(entries, bytes);
        assert!(cache.put(&key(1), artifact(1, 1)).await.is_err());
        assert_eq!(cache.peek(&key(1)), None);
    }
    let cache = InMemoryPipelineCache::with_limits(1, 0);
    cache.put(&key(1), artifact(1, 0)).await.unwrap();
    assert_eq!(cache.peek(&key(1)), Some(artifact(1, 0)));
}

#[tokio::test]
async fn a_replaced_artifact_is_counted_once() {
    let cache = InMemoryPipelineCache::with_limits(10, 100);
    cache.put(&key(1), artifact(1, 60)).await.unwrap();
    cache.put(&key(1), artifact(2, 90)).await.unwrap();
    assert_eq!((cache.len(), cache.cached_bytes()), (1, 90));
    assert_eq!(cache.peek(&key(1)), Some(artifact(2, 90)));
    assert!(cache.eviction_reports().is_empty());
}

#[tokio::test]
async fn a_closed_cache_still_serves_and_takes_nothing() {
    let cache = InMemoryPipelineCache::new();
    cache.put(&key(1), artifact(1, 1)).await.unwrap();
    cache.close(Duration::ZERO).await.unwrap();
    assert_eq!(cache.peek(&key(1)), Some(artifact(1, 1)));
    let error = cache.put(&key(2), artifact(2, 1)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed);
}

/// Readers watch both budgets while writers press against them. What a reader sees is never over
/// a budget, and what it is served is never of another key.
#[test]
fn the_budgets_hold_at_every_moment_under_load() {
    const ENTRIES: u64 = 64;
    const BYTES: u64 = 40_000;
    let cache = Arc::new(InMemoryPipelineCache::with_limits(ENTRIES, BYTES));
    let start = Arc::new(std::sync::Barrier::new(6));
    let threads: Vec<_> = (0..6u64)
        .map(|thread| {
            let (cache, start) = (Arc::clone(&cache), Arc::clone(&start));
            std::thread::spawn(move || {
                start.wait();
                let mut random = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                for _ in 0..20_000 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let n = random % 300;
                    let key = key(n);
                    match (random >> 32) % 8 {
                        0..=2 => {
                            let put = cache.put(&key, artifact(n, (n as usize * 7) % 2_000));
                            futures::executor::block_on(put).unwrap();
                        }
                        3 => {
                            futures::executor::block_on(cache.remove(&key)).unwrap();
                        }
                        _ => {
                            if let Some(found) = cache.peek(&key) {
                                assert_eq!(found, artifact(n, (n as usize * 7) % 2_000));
                            }
                        }
                    }
                    assert!(cache.len() <= ENTRIES, "{} entries", cache.len());
                    let bytes = cache.cached_bytes();
                    assert!(bytes <= BYTES, "{bytes} bytes");
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }

    // At rest the sums are those of what is really there.
    let held: Vec<_> = (0..300).filter_map(|n| cache.peek(&key(n))).collect();
    assert_eq!(cache.len(), held.len() as u64);
    let bytes: usize = held.iter().map(Artifact::len).sum();
    assert_eq!(cache.cached_bytes(), bytes as u64);
}

#[test]
fn reports_are_kept_up_to_a_bound() {
    let cache = InMemoryPipelineCache::with_limits(1, 1_000);
    for n in 0..1_000 {
        futures::executor::block_on(cache.put(&key(n), artifact(n, 1))).unwrap();
    }
    assert_eq!(cache.eviction_reports().len(), 256);
    assert_eq!(cache.metrics().evictions, 999);
}

/// Whatever is refused, by the limit or by the policy, evicts nothing.
#[tokio::test]
async fn an_artifact_near_or_above_the_budget_does_not_empty_the_tier() {
    let cache = InMemoryPipelineCache::with_limits(1_000, 1_000_000);
    for n in 0..80 {
        cache.put(&key(n), artifact(n, 10_000)).await.unwrap();
    }
    let error = cache.put(&key(100), artifact(0, 5_000_000)).await;
    assert_eq!(error.unwrap_err().kind(), StoreErrorKind::TooLarge);
    cache.put(&key(100), artifact(0, 900_000)).await.unwrap();
    assert!(cache.len() >= 80, "{}", cache.len());
    assert_eq!(cache.max_artifact_bytes(), 1_000_000);
}
