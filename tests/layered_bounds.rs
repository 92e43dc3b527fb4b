//! Whatever is asked of a layered store, what it holds and what it starts stays within bounds.
#![cfg(feature = "testing")]

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, LookupPriority,
    PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind,
    StoreOperation,
};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn key(n: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// Payload bytes that are alive, now and at most.
#[derive(Debug, Default)]
struct Alive {
    now: AtomicU64,
    peak: AtomicU64,
}

/// A payload that is counted while it lives. All share their bytes, so that the test needs few.
struct CountedPayload {
    bytes: Arc<Vec<u8>>,
    alive: Arc<Alive>,
}

impl AsRef<[u8]> for CountedPayload {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedPayload {
    fn drop(&mut self) {
        self.alive
            .now
            .fetch_sub(self.bytes.len() as u64, Ordering::SeqCst);
    }
}

/// A remote that has every key.
#[derive(Debug)]
struct Everything {
    bytes: Arc<Vec<u8>>,
    alive: Arc<Alive>,
}

impl fmt::Display for Everything {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("everything")
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Everything {
    async fn get(&self, _: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        let len = self.bytes.len() as u64;
        let now = self.alive.now.fetch_add(len, Ordering::SeqCst) + len;
        self.alive.peak.fetch_max(now, Ordering::SeqCst);
        Ok(Some(Artifact::new(Bytes::from_owner(CountedPayload {
            bytes: Arc::clone(&self.bytes),
            alive: Arc::clone(&self.alive),
        }))))
    }
    async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        Ok(())
    }
    async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(true)
    }
    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
}

/// 1,000 lookups of 8 MiB each at once, above a disk that takes none of them for long: the
/// promotions hold their bound, the searches theirs, and the callers what they were handed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_large_promotions_into_a_slow_disk_stay_within_their_bytes() {
    const SIZE: u64 = 8 << 20;
    const PROMOTING: u64 = 64 << 20;
    const SEARCHES: u64 = 4;
    let alive = Arc::new(Alive::default());
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Put, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&disk))
        .tier(Everything {
            bytes: Arc::new(vec![7; SIZE as usize]),
            alive: Arc::clone(&alive),
        })
        .background_limits(1_000, PROMOTING)
        .max_searches(SEARCHES as usize)
        .build();
    // A caller takes its answer in turn with the others, so that at most so many hold one.
    let callers = Arc::new(tokio::sync::Semaphore::new(SEARCHES as usize));
    let lookups = (0..1_000).map(|n| {
        let (cache, callers) = (cache.clone(), Arc::clone(&callers));
        tokio::spawn(async move {
            let _turn = callers.acquire().await.unwrap();
            assert_eq!(cache.get(&key(n)).await.unwrap().len() as u64, SIZE);
        })
    });
    for lookup in lookups.collect::<Vec<_>>() {
        lookup.await.unwrap();
    }
    let report = cache.promotion_report();
    assert_eq!((report.pending, report.dropped), (8, 992));
    // A search hands its find on before it is quite gone: one more for each.
    let peak = alive.peak.load(Ordering::SeqCst);
    assert!(
        peak <= PROMOTING + 2 * SEARCHES * SIZE,
        "{} MiB",
        peak >> 20
    );
    disk.open(StoreOperation::Put, 8);
    cache.flush().await.unwrap();
}

/// 10,000 operations in no particular order, with tiers that fail now and then: the reports of
/// what happened in the background add up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_flush_the_promotion_report_adds_up() {
    let disk = Arc::new(FaultyStore::new("disk"));
    let remote = Arc::new(FaultyStore::new("remote").network());
    for n in 0..400 {
        remote
            .put(&key(n), Artifact::new(n.to_le_bytes().to_vec()))
            .await
            .unwrap();
    }
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::with_limits(50, 1 << 20))
        .tier(Arc::clone(&disk))
        .tier(Arc::clone(&remote))
        .background_limits(20, 1 << 20)
        .build();
    let workers = (0..8u64).map(|worker| {
        let (cache, disk) = (cache.clone(), Arc::clone(&disk));
        tokio::spawn(async move {
            let mut random = worker.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            for _ in 0..1_250 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let n = random % 400;
                match (random >> 32) % 20 {
                    0 => drop(
                        cache
                            .put(&key(n), Artifact::new(n.to_le_bytes().to_vec()))
                            .await,
                    ),
                    1 => drop(cache.remove(&key(n)).await),
                    2 => disk.set(
                        StoreOperation::Put,
                        Fault::Error(StoreErrorKind::StorageFull),
                    ),
                    3 => disk.set(StoreOperation::Put, Fault::Panic),
                    4..=6 => disk.set(StoreOperation::Put, Fault::None),
                    7 => drop(disk.remove(&key(n)).await),
                    _ => {
                        if let Some(found) = cache.get(&key(n)).await {
                            assert_eq!(found.payload()[..], n.to_le_bytes());
                        }
                    }
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    cache.flush().await.unwrap();
    let report = cache.promotion_report();
    let ends = report.promoted + report.coalesced + report.dropped + report.failed;
    assert_eq!((report.events, report.pending), (ends, 0), "{report:?}");
    assert!(report.promoted > 100 && report.failed > 0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_answers_each_key_once_as_the_answers_come() {
    let slow = Arc::new(FaultyStore::new("slow"));
    for n in 0..100 {
        slow.put(&key(n), Artifact::new(n.to_le_bytes().to_vec()))
            .await
            .unwrap();
    }
    let memory = InMemoryPipelineCache::new();
    memory
        .put(&key(7), Artifact::new(7u64.to_le_bytes().to_vec()))
        .await
        .unwrap();
    slow.set(
        StoreOperation::Get,
        Fault::Latency(Duration::from_millis(10)),
    );
    let cache = LayeredPipelineCache::builder()
        .tier(memory)
        .tier(Arc::clone(&slow))
        .build();

    // Every key twice, and twenty that nobody has.
    let keys = (0..120).chain(0..120).map(key);
    let answers: Vec<_> = cache.get_many(keys, &LookupOptions::new()).collect().await;
    // What is at hand comes first.
    assert_eq!(answers[0].0, key(7));
    let distinct: HashSet<_> = answers.iter().map(|(key, _)| *key).collect();
    assert_eq!((answers.len(), distinct.len()), (120, 120));
    let hits = answers
        .iter()
        .filter(|(_, lookup)| lookup.artifact().is_some());
    assert_eq!(hits.count(), 100);
    assert_eq!(slow.calls(StoreOperation::Get), 119);
}

/// Lookups in the background wait for each other and leave room: one that somebody waits for does
/// not queue behind a thousand that nobody does.
#[tokio::test]
async fn background_lookups_leave_room_for_interactive_ones() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .max_searches(8)
        .build();
    let background = LookupOptions::new().priority(LookupPriority::Background);
    let warm_up: Vec<_> = (0..1_000)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.lookup(&key(n), &background).await })
        })
        .collect();
    tier.called(StoreOperation::Get, 4).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tier.calls(StoreOperation::Get), 4, "half of the searches");

    let interactive = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key(5_000)).await }
    });
    tier.called(StoreOperation::Get, 5).await;
    tier.set(StoreOperation::Get, Fault::None);
    tier.open(StoreOperation::Get, 5);
    interactive.await.unwrap();
    for lookup in join_all(warm_up).await {
        lookup.unwrap();
    }
    assert_eq!(tier.calls(StoreOperation::Get), 1_001);
}

/// A lookup that finds no room in time says so of every tier, and is no silent miss.
#[tokio::test(start_paused = true)]
async fn a_lookup_without_room_is_a_degraded_miss() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.set(StoreOperation::Get, Fault::Hang);
    let cache = LayeredPipelineCache::builder()
        .tier(tier)
        .max_searches(2)
        .build();
    let hung: Vec<_> = (0..2)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get(&key(n)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let options = LookupOptions::new().deadline(Duration::from_millis(5));
    let lookup = cache.lookup(&key(9), &options).await;
    assert!(lookup.artifact().is_none() && lookup.is_degraded());
    for hung in hung {
        hung.abort();
    }
}

#[tokio::test]
async fn the_metrics_are_a_table_a_person_can_read() {
    let tier = Arc::new(FaultyStore::new("disk"));
    tier.put(&key(1), Artifact::new("code")).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&tier))
        .build();
    cache.get(&key(1)).await.unwrap();
    cache.flush().await.unwrap();
    cache.get(&key(1)).await.unwrap();
    cache.get(&key(2)).await;
    tier.set(StoreOperation::Get, Fault::Error(StoreErrorKind::Io));
    cache.get(&key(3)).await;

    let metrics = cache.layered_metrics();
    assert_eq!((metrics.lookups, metrics.hits), (4, 2));
    assert_eq!((metrics.misses, metrics.degraded_misses), (1, 1));
    assert_eq!(metrics.latency.count, 3);
    let disk = &metrics.tiers[1];
    assert_eq!((disk.hits, disk.misses, disk.failed), (1, 1, 1));
    let table = metrics.to_string();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("tier  "), "{table}");
    assert!(lines[2].starts_with("disk  "), "{table}");
    let widths: HashSet<_> = lines[..4].iter().map(|line| line.chars().count()).collect();
    assert_eq!(widths.len(), 1, "the columns are not straight:\n{table}");
    assert!(table.contains("promoted 1 of 1"), "{table}");
}
