//! Whatever is asked of a layered store, what it holds and what it starts stays within bounds.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::poll;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, Fetched, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, LookupPriority,
    PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind,
    StoreOperation, WritePolicy,
};
use std::collections::HashSet;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

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
    async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let len = self.bytes.len() as u64;
        let now = self.alive.now.fetch_add(len, Ordering::SeqCst) + len;
        self.alive.peak.fetch_max(now, Ordering::SeqCst);
        Ok(Fetched::Hit(Artifact::new(Bytes::from_owner(
            CountedPayload {
                bytes: Arc::clone(&self.bytes),
                alive: Arc::clone(&self.alive),
            },
        ))))
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

/// 1,000 lookups of 8 MiB each at once, above a disk that takes none of them: the promotions hold
/// their bound, the searches theirs, and the callers what they were handed. The blocking pool, where
/// large payloads are freed, is busy all the while, so that as many wait for it as may.
#[test]
fn a_thousand_large_promotions_into_a_slow_disk_stay_within_their_bytes() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_time();
    runtime.build().unwrap().block_on(async {
        const SIZE: u64 = 8 << 20;
        const PROMOTING: u64 = 64 << 20;
        const SEARCHES: u64 = 4;
        /// What waits to be freed, of all artifacts of a process: see `Artifact`.
        const FREED_LATER: u64 = 64 << 20;
        let (release, held) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || held.recv());
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
                let _permit = callers.acquire().await.unwrap();
                assert_eq!(cache.get(&key(n)).await.unwrap().len() as u64, SIZE);
            })
        });
        for lookup in lookups.collect::<Vec<_>>() {
            lookup.await.unwrap();
        }
        let report = cache.promotion_report();
        assert_eq!((report.pending, report.dropped), (8, 992));
        let peak = alive.peak.load(Ordering::SeqCst);
        assert!(
            peak <= PROMOTING + SEARCHES * SIZE + FREED_LATER,
            "{} MiB",
            peak >> 20
        );
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        disk.open(StoreOperation::Put, 8);
        cache.flush().await.unwrap();
    });
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
    // Writes behind have failed as well, as the flush may say.
    drop(cache.flush().await);
    let report = cache.promotion_report();
    let ends = report.promoted + report.coalesced + report.dropped + report.failed;
    assert_eq!((report.events, report.pending), (ends, 0), "{report:?}");
    assert!(report.promoted > 100 && report.failed > 0, "{report:?}");
    let report = cache.write_behind_report();
    let ends = report.written + report.dropped + report.failed;
    assert_eq!((report.accepted, report.pending), (ends, 0), "{report:?}");
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
    let answers: Vec<_> = cache
        .lookup_many(keys, &LookupOptions::new())
        .collect()
        .await;
    // What needs no wait comes first.
    assert_eq!(answers[0].0, key(7));
    let distinct: HashSet<_> = answers.iter().map(|(key, _)| *key).collect();
    assert_eq!((answers.len(), distinct.len()), (120, 120));
    let hits = answers
        .iter()
        .filter(|(_, lookup)| lookup.artifact().is_some());
    assert_eq!(hits.count(), 100);
    assert_eq!(slow.calls(StoreOperation::Get), 119);
}

/// Searches that a batch has begun hold what all share no longer than they need it.
#[tokio::test(start_paused = true)]
async fn a_batch_that_is_not_polled_holds_up_no_other() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.put(&key(100), Artifact::new("code")).await.unwrap();
    tier.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .max_searches(4)
        .build();
    let options = LookupOptions::new();
    let mut batch = pin!(cache.lookup_many((0..16).map(key), &options));
    assert!(poll!(batch.next()).is_pending());
    tier.open(StoreOperation::Get, 1);
    assert!(batch.next().await.is_some());
    tier.open(StoreOperation::Get, 100);
    let other = timeout(Duration::from_secs(1), cache.get(&key(100))).await;
    assert_eq!(other.unwrap(), Some(Artifact::new("code")));
    assert_eq!(batch.count().await, 15);
}

/// Lookups in the background wait for each other and leave room: one that somebody waits for does
/// not queue behind a thousand that nobody does.
#[tokio::test]
async fn background_lookups_leave_room_for_interactive_ones() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .max_searches(7)
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
    assert_eq!(tier.calls(StoreOperation::Get), 4, "half as many");

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
        .max_searches(1)
        .build();
    let hung: Vec<_> = (0..1)
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

#[cfg(feature = "serde")]
#[tokio::test]
async fn the_reports_are_serialized_for_a_dashboard() {
    let full = Arc::new(FaultyStore::new("full"));
    full.set(
        StoreOperation::Close,
        Fault::Error(StoreErrorKind::StorageFull),
    );
    full.put(&key(1), Artifact::new("code")).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(full)
        .build();
    cache.get(&key(1)).await.unwrap();
    cache.flush().await.unwrap();
    let metrics = serde_json::to_value(cache.layered_metrics()).unwrap();
    assert_eq!(metrics["hits"], 1);
    assert_eq!(metrics["promotions"]["promoted"], 1);
    assert_eq!(metrics["write_behind"]["accepted"], 0);
    assert_eq!(metrics["tiers"][1]["tier"], "full");
    assert_eq!(metrics["tiers"][0]["store"]["puts"], 1);
    assert!(metrics["latency"]["max"].as_f64().unwrap() > 0.0);
    let report = cache.close(Duration::from_secs(5)).await;
    let report = serde_json::to_value(report).unwrap();
    assert_eq!(report["unfinished_writes"], 0);
    assert_eq!(report["errors"][0], "full: close: no space left");
}

/// With no permit free, a thousand lookups of one key wait for one search.
#[tokio::test(start_paused = true)]
async fn one_key_is_searched_once_though_all_permits_are_taken() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .max_searches(1)
        .build();
    let ask = |n| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get(&key(n)).await })
    };
    let first = ask(1);
    tier.called(StoreOperation::Get, 1).await;
    let others: Vec<_> = (0..1_000).map(|_| ask(2)).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    tier.open(StoreOperation::Get, 2);
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }
    assert_eq!(tier.calls(StoreOperation::Get), 2);
}

/// A background search that an interactive lookup joins no longer waits for a background permit.
#[tokio::test]
async fn an_interactive_lookup_boosts_the_background_search_that_it_joins() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .max_searches(2)
        .build();
    let background = LookupOptions::new().priority(LookupPriority::Background);
    let warm_up = |n| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.lookup(&key(n), &background).await })
    };
    let (one, two) = (warm_up(1), warm_up(2));
    tier.called(StoreOperation::Get, 1).await;
    let interactive = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key(2)).await }
    });
    tier.called(StoreOperation::Get, 2).await;
    tier.open(StoreOperation::Get, 2);
    for lookup in [one, two] {
        lookup.await.unwrap();
    }
    interactive.await.unwrap();
    assert_eq!(tier.calls(StoreOperation::Get), 2);
}

/// One tier's hung write costs the others none of the time they need to close.
#[tokio::test(start_paused = true)]
async fn a_hung_write_does_not_use_up_the_time_of_a_close() {
    let (disk, remote) = (FaultyStore::new("disk"), FaultyStore::new("remote"));
    disk.set(
        StoreOperation::Close,
        Fault::Latency(Duration::from_millis(500)),
    );
    remote.set(StoreOperation::Put, Fault::Hang);
    let cache = LayeredPipelineCache::builder()
        .tier(disk)
        .tier(remote)
        .write_policy(WritePolicy::Behind)
        .build();
    cache.put(&key(1), Artifact::new("code")).await.unwrap();
    let report = cache.close(Duration::from_secs(5)).await;
    assert_eq!(report.unfinished_writes, 1);
    assert!(report.errors.is_empty(), "{report:?}");
}

#[tokio::test]
async fn an_artifact_goes_to_the_first_tier_that_takes_it() {
    let disk = Arc::new(FaultyStore::new("disk"));
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::with_limits(10, 3))
        .tier(Arc::clone(&disk))
        .background_concurrency(usize::MAX)
        .build();
    cache.put(&key(1), Artifact::new("code")).await.unwrap();
    assert!(disk.contains(&key(1)).await.unwrap());
}

/// What a peek finds in a lower tier goes up as well.
#[tokio::test]
async fn a_peeked_hit_in_a_lower_tier_is_promoted() {
    let (small, large) = (InMemoryPipelineCache::new(), InMemoryPipelineCache::new());
    large.put(&key(1), Artifact::new("code")).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(small.clone())
        .tier(large)
        .build();
    cache.get(&key(1)).await.unwrap();
    cache.flush().await.unwrap();
    assert!(small.peek(&key(1)).is_some());
}

/// A tier that panics wherever it can: what the others have is found, and is promoted past it.
#[derive(Debug)]
struct Panics;

impl fmt::Display for Panics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("panics")
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Panics {
    fn peek(&self, _: &PipelineFingerprint) -> Option<Artifact> {
        panic!("peek")
    }
    async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        panic!("get")
    }
    async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        panic!("put")
    }
    async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        panic!("contains")
    }
    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        panic!("remove")
    }
    fn metrics(&self) -> PipelineCacheMetrics {
        panic!("metrics")
    }
    fn is_writable(&self) -> bool {
        panic!("is_writable")
    }
    fn max_artifact_bytes(&self) -> u64 {
        panic!("max_artifact_bytes")
    }
}

#[tokio::test]
async fn a_tier_that_panics_everywhere_costs_its_own_answers_alone() {
    let memory = InMemoryPipelineCache::new();
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.put(&key(1), Artifact::new("code")).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(Panics)
        .tier(disk)
        .write_policy(WritePolicy::Through)
        .build();
    assert_eq!(cache.get(&key(1)).await, Some(Artifact::new("code")));
    cache.put(&key(2), Artifact::new("more")).await.unwrap();
    let compile = || async { Ok::<_, std::convert::Infallible>(Artifact::new("made")) };
    cache.get_or_insert_with(&key(3), compile).await.unwrap();
    assert!(
        cache
            .lookup(&key(4), &LookupOptions::new())
            .await
            .is_degraded()
    );
    assert!(cache.flush().await.is_ok());
    assert!(memory.peek(&key(1)).is_some() && memory.peek(&key(3)).is_some());
    assert_eq!(cache.layered_metrics().tiers.len(), 3);
}

/// Every way to go wrong, on every call: each lookup answers, says what the tier did, and leaves
/// the tiers beside it alone.
#[tokio::test(start_paused = true)]
async fn a_bad_tier_is_named_in_every_answer_and_harms_no_other() {
    let cases = [
        (
            Fault::Error(StoreErrorKind::Io),
            "failed: bad: get: I/O error",
        ),
        (
            Fault::Error(StoreErrorKind::BreakerOpen),
            "circuit breaker open",
        ),
        (Fault::Hang, "timed out"),
        (
            Fault::Panic,
            "failed: bad: get: panicked: bad was told to panic",
        ),
        (
            Fault::Corrupt,
            "corrupt: the payload does not match its digest",
        ),
    ];
    for (fault, said) in cases {
        let good = Arc::new(FaultyStore::new("good"));
        let bad = Arc::new(FaultyStore::new("bad").network());
        bad.set_all(fault);
        let cache = LayeredPipelineCache::builder()
            .tier(Arc::clone(&good))
            .tier(bad)
            .lookup_deadline(Duration::from_millis(50))
            .build();
        good.put(&key(1), Artifact::new("code")).await.unwrap();
        for _ in 0..20 {
            assert_eq!(cache.get(&key(1)).await, Some(Artifact::new("code")));
            let lookup = cache.lookup(&key(2), &LookupOptions::new()).await;
            let outcomes: Vec<_> = lookup
                .tiers()
                .map(|tier| tier.outcome.to_string())
                .collect();
            assert_eq!(outcomes, ["miss", said]);
            assert!(lookup.is_degraded());
        }
        assert_eq!(good.calls(StoreOperation::Get), 40);
    }
}

#[tokio::test]
async fn a_tier_that_fails_now_and_then_answers_in_between() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.put(&key(1), Artifact::new("code")).await.unwrap();
    tier.set(StoreOperation::Get, Fault::Sometimes(StoreErrorKind::Io, 3));
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .build();
    let mut hits = Vec::new();
    for _ in 0..6 {
        hits.push(cache.get(&key(1)).await.is_some());
    }
    assert_eq!(hits, [false, true, true, false, true, true]);
}

/// Wrong bytes in the folder are told from the artifact by the frame; a whole artifact that is not
/// the program's is told by compiling again.
#[tokio::test]
async fn a_tier_that_lies_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let disk = pipeline_cache::DiskCache::new(folder.path()).await.unwrap();
    disk.put(&key(1), Artifact::new("code")).await.unwrap();
    let file = folder.path().join(format!("{}.bin", key(1)));
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let cache = LayeredPipelineCache::builder().tier(disk).build();
    let lookup = cache.lookup(&key(1), &LookupOptions::new()).await;
    let outcome = lookup.tiers().next().unwrap().outcome.to_string();
    assert_eq!(outcome, "corrupt: the payload does not match its digest");

    let liar = Arc::new(FaultyStore::new("liar"));
    liar.put(&key(1), Artifact::new("code")).await.unwrap();
    liar.set(StoreOperation::Get, Fault::Lie);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let cache = LayeredPipelineCache::builder()
        .tier(liar)
        .verify_sample(1.0, move |mismatch| tell.send(mismatch.clone()).unwrap())
        .build();
    let compile = || async { Ok::<_, std::convert::Infallible>(Artifact::new("code")) };
    let served = cache.get_or_insert_with(&key(1), compile).await.unwrap();
    let mismatch = told.recv().await.unwrap();
    assert_eq!(mismatch.stored, served.artifact);
    assert_eq!(mismatch.recompiled, Artifact::new("code"));
    assert_eq!(cache.layered_metrics().verify_mismatches, 1);
}

#[tokio::test(start_paused = true)]
async fn contains_asks_the_fastest_tier_first() {
    let slow = Arc::new(FaultyStore::new("slow"));
    slow.set_all(Fault::Hang);
    let memory = Arc::new(InMemoryPipelineCache::new());
    memory.put(&key(1), Artifact::new("code")).await.unwrap();
    let cache = LayeredPipelineCache::new([memory as _, slow as _]);
    let start = tokio::time::Instant::now();
    assert!(cache.contains(&key(1)).await.unwrap());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_flush_that_is_dropped_keeps_what_it_has_to_tell() {
    let lower = Arc::new(FaultyStore::new("lower"));
    lower.set(StoreOperation::Put, Fault::Error(StoreErrorKind::Io));
    lower.set(StoreOperation::Flush, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&lower))
        .write_policy(WritePolicy::Behind)
        .build();
    cache.put(&key(1), Artifact::new("code")).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_secs(1), cache.flush()).await;
    assert!(dropped.is_err(), "the gate is closed");
    lower.set(StoreOperation::Flush, Fault::None);
    for _ in 0..2 {
        let error = cache.flush().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Io);
    }
    lower.set(StoreOperation::Put, Fault::None);
    cache.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_hangs_holds_up_no_writes_to_others() {
    let hung = Arc::new(FaultyStore::new("hung"));
    hung.set(StoreOperation::Put, Fault::Hang);
    let first = Arc::new(InMemoryPipelineCache::new());
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&first))
        .tier(Arc::clone(&hung))
        .background_concurrency(1)
        .write_policy(WritePolicy::Through)
        .build();
    for number in 0..5 {
        let compile = async || Ok::<_, StoreError>(Artifact::new("code"));
        cache
            .get_or_insert_with(&key(number), compile)
            .await
            .unwrap();
    }
    // One waits in the tier that hangs, and the others behind it: all are in the first tier.
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(hung.calls(StoreOperation::Put), 1);
    assert_eq!(first.metrics().entries, 5);
}

#[tokio::test]
async fn a_peeked_hit_in_a_lower_tier_counts_once() {
    let lower = Arc::new(InMemoryPipelineCache::new());
    lower.put(&key(1), Artifact::new("code")).await.unwrap();
    let upper = InMemoryPipelineCache::new();
    let cache = LayeredPipelineCache::new([Arc::new(upper) as _, Arc::clone(&lower) as _]);
    assert!(cache.get(&key(1)).await.is_some());
    assert_eq!(lower.metrics().hits, 1);
    cache.flush().await.unwrap();
    assert_eq!(cache.promotion_report().promoted, 1);
}

/// What needs no wait is served where there is no runtime to promote it in.
#[test]
fn a_peeked_hit_needs_no_runtime() {
    let lower = Arc::new(InMemoryPipelineCache::new());
    futures::executor::block_on(lower.put(&key(1), Artifact::new("code"))).unwrap();
    let upper = InMemoryPipelineCache::new();
    let cache = LayeredPipelineCache::new([Arc::new(upper) as _, lower as _]);
    let hit = futures::executor::block_on(cache.get(&key(1)));
    assert!(hit.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_was_not_asked_has_not_timed_out() {
    let hung = Arc::new(FaultyStore::new("hung"));
    hung.set_all(Fault::Hang);
    let next = Arc::new(FaultyStore::new("next"));
    let cache = LayeredPipelineCache::builder()
        .tier(hung)
        .tier(next)
        .lookup_policy(pipeline_cache::LookupPolicy::Sequential)
        .build();
    let lookup = cache.lookup(&key(1), &LookupOptions::default()).await;
    assert!(lookup.is_degraded());
    let tiers = cache.layered_metrics().tiers;
    assert_eq!((tiers[0].timed_out, tiers[1].timed_out), (1, 0));
}

/// A put that relies on the write of another is not the one whose try failed.
#[tokio::test]
async fn a_put_that_joined_a_write_which_failed_has_a_try_of_its_own() {
    let failing = |every| {
        let store = FaultyStore::new("failing");
        let fault = Fault::Sometimes(StoreErrorKind::Io, every);
        store.set(StoreOperation::Put, fault);
        Arc::new(store)
    };
    // The first try fails, or each does, and so does that of the flush.
    for (failing, written, tries) in [(failing(100), true, 2), (failing(1), false, 3)] {
        let gate = Arc::new(FaultyStore::over("gate", Arc::clone(&failing) as _).network());
        gate.set(StoreOperation::Put, Fault::Gate);
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .tier(Arc::clone(&gate))
            .write_policy(WritePolicy::Behind)
            .build();
        cache.put(&key(1), Artifact::new("code")).await.unwrap();
        gate.called(StoreOperation::Put, 1).await;
        cache.put(&key(1), Artifact::new("code")).await.unwrap();
        gate.open(StoreOperation::Put, 100);
        assert_eq!(cache.flush().await.is_ok(), written);
        assert_eq!(failing.calls(StoreOperation::Put), tries);
        let report = cache.write_behind_report();
        assert_eq!((report.accepted, report.coalesced), (1, 1));
        assert_eq!(
            (report.written == 1, report.failed == 0),
            (written, written)
        );
        let found = failing.get(&key(1)).await.unwrap();
        assert_eq!(found.is_some(), written);
    }
}

/// Or else puts that come as often as it fails would keep it from ever coming to an end, and a
/// flush with it.
#[tokio::test(start_paused = true)]
async fn a_write_that_has_failed_is_joined_by_no_further_put() {
    let failing = Arc::new(FaultyStore::new("failing"));
    failing.set(StoreOperation::Put, Fault::Error(StoreErrorKind::Io));
    let gate = Arc::new(FaultyStore::over("gate", Arc::clone(&failing) as _));
    gate.set(StoreOperation::Put, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&gate))
        .write_policy(WritePolicy::Behind)
        .build();
    let put = || {
        let cache = cache.clone();
        async move { cache.put(&key(1), Artifact::new("code")).await }
    };
    put().await.unwrap();
    gate.called(StoreOperation::Put, 1).await;
    put().await.unwrap();
    gate.open(StoreOperation::Put, 1);
    gate.called(StoreOperation::Put, 2).await;
    // The further try is made for the second put; the third writes for itself.
    let third = tokio::spawn(put());
    let called = gate.called(StoreOperation::Put, 3);
    timeout(Duration::from_secs(1), called).await.unwrap();
    gate.open(StoreOperation::Put, 100);
    assert_eq!(third.await.unwrap().unwrap_err().kind(), StoreErrorKind::Io);
    assert_eq!(failing.calls(StoreOperation::Put), 3);
    assert_eq!(cache.flush().await.unwrap_err().kind(), StoreErrorKind::Io);
    assert_eq!(cache.write_behind_report().coalesced, 1);
}

/// A lookup whose future is polled once and never again keeps no permit for itself.
#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_polled_once_and_never_again_holds_up_no_other() {
    let tier = Arc::new(FaultyStore::new("tier"));
    tier.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .max_searches(1)
        .build();
    let first_key = key(0);
    let mut left_alone = pin!(cache.get(&first_key));
    assert!(poll!(&mut left_alone).is_pending());
    tier.open(StoreOperation::Get, 1_001);
    let others = (1..=1_000).map(|n| {
        let cache = cache.clone();
        async move { cache.get(&key(n)).await }
    });
    let others = timeout(Duration::from_secs(1), join_all(others)).await;
    assert!(
        others.is_ok(),
        "the lookup that is not polled kept its permit"
    );
    assert_eq!(tier.calls(StoreOperation::Get), 1_001);
    assert_eq!(left_alone.await, None);
}

/// A tier that counts how often it is looked at, by a peek or by a call.
#[derive(Debug, Default)]
struct Watched {
    inner: InMemoryPipelineCache,
    peeks: AtomicU64,
    fetches: AtomicU64,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Watched {
    fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        self.peeks.fetch_add(1, Ordering::SeqCst);
        self.inner.peek(key)
    }
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.inner.fetch(key).await
    }
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.inner.put(key, artifact).await
    }
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.contains(key).await
    }
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.remove(key).await
    }
    fn metrics(&self) -> PipelineCacheMetrics {
        self.inner.metrics()
    }
}

#[tokio::test]
async fn memory_is_looked_at_once_before_a_search_and_once_in_it() {
    let memory = Arc::new(Watched::default());
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.put(&key(1), Artifact::new("code")).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&memory))
        .tier(disk)
        .build();
    assert!(cache.get(&key(1)).await.is_some());
    let looks = |watched: &Watched| {
        let peeks = watched.peeks.load(Ordering::SeqCst);
        (peeks, watched.fetches.load(Ordering::SeqCst))
    };
    assert_eq!(looks(&memory), (1, 1));
}

/// The lookup before it may have brought the artifact.
#[tokio::test]
async fn a_search_that_waited_for_its_permit_looks_at_memory_before_the_lower_tiers() {
    let memory = Arc::new(Watched::default());
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&memory))
        .tier(Arc::clone(&disk))
        .max_searches(1)
        .build();
    let (one, other) = (key(1), key(2));
    let mut first = pin!(cache.get(&one));
    assert!(poll!(&mut first).is_pending());
    disk.called(StoreOperation::Get, 1).await;
    let mut second = pin!(cache.get(&other));
    assert!(poll!(&mut second).is_pending());
    memory.put(&other, Artifact::new("code")).await.unwrap();
    disk.open(StoreOperation::Get, 1);
    assert_eq!(first.await, None);
    assert_eq!(second.await, Some(Artifact::new("code")));
    assert_eq!(disk.calls(StoreOperation::Get), 1);
}
