//! Lookups of many keys: faster tiers answer first, a network tier is asked once for all the rest, and
//! otherwise each key is looked up as ever.

use async_trait::async_trait;
use futures::{StreamExt as _, poll};
use pipeline_cache::layered::TierOutcome;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, Fetched, InMemoryPipelineCache, LayeredPipelineCache, Locality, Lookup,
    LookupOptions, LookupPolicy, PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint,
    StoreError, StoreErrorKind, StoreOperation, TierSelection,
};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const MS: Duration = Duration::from_millis(1);

fn key(number: u32) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<PipelineFingerprint> {
    numbers.into_iter().map(key).collect()
}

fn artifact(number: u32) -> Artifact {
    Artifact::new(format!("artifact {number}"))
}

async fn holding(store: FaultyStore, numbers: impl IntoIterator<Item = u32>) -> Arc<FaultyStore> {
    for number in numbers {
        store.put(&key(number), artifact(number)).await.unwrap();
    }
    Arc::new(store)
}

async fn remote(numbers: impl IntoIterator<Item = u32>) -> Arc<FaultyStore> {
    holding(FaultyStore::new("remote").network(), numbers).await
}

/// How often the network was asked for many keys, for one, and for how many in all.
fn asked(remote: &FaultyStore) -> (u64, u64, u64) {
    let calls = |operation| remote.calls(operation);
    let metrics = remote.metrics();
    (
        calls(StoreOperation::GetMany),
        calls(StoreOperation::Get),
        metrics.hits + metrics.misses,
    )
}

#[tokio::test(start_paused = true)]
async fn the_network_is_asked_once_for_what_no_faster_tier_has() {
    let memory = InMemoryPipelineCache::new();
    memory.put(&key(0), artifact(0)).await.unwrap();
    let disk = holding(FaultyStore::new("disk"), 1..300).await;
    let remote = remote(300..900).await;
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(Arc::clone(&disk))
        .tier(Arc::clone(&remote))
        .build();

    // Keys that nobody has, and some that are given twice.
    let numbers: Vec<u32> = (0..1000).chain([5, 950, 0, 400]).collect();
    let found = cache.get_many(&keys(numbers.iter().copied())).await;
    for (number, found) in numbers.into_iter().zip(found) {
        let expected = (number < 900).then(|| artifact(number));
        assert_eq!(found, expected, "{number}");
    }
    assert_eq!(asked(&remote), (1, 0, 700));
    let metrics = cache.layered_metrics();
    assert_eq!((metrics.hits, metrics.misses), (900, 100));

    // What was found is promoted, as after any lookup.
    cache.flush().await.unwrap();
    assert_eq!(memory.peek(&key(200)), Some(artifact(200)));
    assert_eq!(memory.peek(&key(800)), Some(artifact(800)));
    assert_eq!(disk.get(&key(800)).await.unwrap(), Some(artifact(800)));
    assert!(cache.get_many(&[]).await.is_empty());

    // A single key that is left is a single lookup.
    cache.get_many(&keys([1, 2, 2000])).await;
    assert_eq!(asked(&remote), (1, 1, 701));
}

/// A tier on this machine that answers one key after the other, each after a millisecond.
#[derive(Debug)]
struct OneByOne {
    inner: InMemoryPipelineCache,
    turn: tokio::sync::Mutex<()>,
}

impl fmt::Display for OneByOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one by one")
    }
}

#[async_trait]
impl PipelineCacheStore for OneByOne {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let _turn = self.turn.lock().await;
        sleep(MS).await;
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

/// The head start is 2 ms. A disk with a hundred keys to answer is not late, and what it has is not
/// asked of the network.
#[tokio::test(start_paused = true)]
async fn local_tiers_have_their_head_start_as_long_as_they_answer() {
    let inner = InMemoryPipelineCache::new();
    for number in 0..90 {
        inner.put(&key(number), artifact(number)).await.unwrap();
    }
    let turn = tokio::sync::Mutex::default();
    let remote = remote(90..100).await;
    let cache = LayeredPipelineCache::builder()
        .tier(OneByOne { inner, turn })
        .tier(Arc::clone(&remote))
        .build();
    let found = cache.get_many(&keys(0..100)).await;
    assert!(found.iter().all(Option::is_some));
    assert_eq!(asked(&remote), (1, 0, 10));
}

#[tokio::test(start_paused = true)]
async fn a_local_tier_that_hangs_costs_a_head_start() {
    for policy in [LookupPolicy::default(), LookupPolicy::Concurrent] {
        let disk = Arc::new(FaultyStore::new("disk"));
        disk.set(StoreOperation::Get, Fault::Hang);
        let remote = remote(0..100).await;
        let cache = LayeredPipelineCache::builder()
            .tier(disk)
            .tier(Arc::clone(&remote))
            .lookup_policy(policy)
            .build();
        let start = Instant::now();
        let found = cache.get_many(&keys(0..100)).await;
        assert!(found.iter().all(Option::is_some));
        assert!(start.elapsed() <= 5 * MS, "{:?}", start.elapsed());
        assert_eq!(asked(&remote), (1, 0, 100), "{policy:?}");
    }
}

/// One member that is held up elsewhere is waited for no longer than the others keep coming.
#[tokio::test(start_paused = true)]
async fn one_key_that_is_held_up_holds_up_no_other() {
    #[derive(Debug)]
    struct HangsOnOne(InMemoryPipelineCache);

    impl fmt::Display for HangsOnOne {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("hangs on one")
        }
    }

    #[async_trait]
    impl PipelineCacheStore for HangsOnOne {
        async fn fetch(&self, asked: &PipelineFingerprint) -> Result<Fetched, StoreError> {
            if *asked == key(7) {
                std::future::pending().await
            }
            self.0.fetch(asked).await
        }

        async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
            Ok(())
        }

        async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
            Ok(false)
        }

        async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
            Ok(false)
        }

        fn metrics(&self) -> PipelineCacheMetrics {
            self.0.metrics()
        }
    }

    let remote = remote(0..100).await;
    let cache = LayeredPipelineCache::builder()
        .tier(HangsOnOne(InMemoryPipelineCache::new()))
        .tier(Arc::clone(&remote))
        .lookup_policy(LookupPolicy::Sequential)
        .build();
    let asked_for = keys(0..100);
    let options = LookupOptions::new();
    let start = Instant::now();
    let answers = cache.lookup_many(&asked_for, &options).take(99);
    let answers: Vec<_> = answers.collect().await;
    assert!(
        answers
            .iter()
            .all(|(_, lookup)| lookup.artifact().is_some())
    );
    assert!(start.elapsed() <= 5 * MS, "{:?}", start.elapsed());
    assert_eq!(asked(&remote), (1, 0, 99));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_under_way_is_joined() {
    let remote = remote(0..10).await;
    remote.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&remote))
        .build();
    let first = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key(3)).await }
    });
    remote.called(StoreOperation::Get, 1).await;
    let asked_for = keys(0..10);
    let mut many = pin!(cache.get_many(&asked_for));
    assert!(poll!(&mut many).is_pending());
    remote.called(StoreOperation::GetMany, 1).await;
    remote.open(StoreOperation::Get, 1);
    assert!(many.await.iter().all(Option::is_some));
    assert_eq!(first.await.unwrap(), Some(artifact(3)));
    assert_eq!(asked(&remote), (1, 1, 10));
    assert_eq!(cache.layered_metrics().joins, 1);
}

fn outcome(lookup: &Lookup, tier: usize) -> TierOutcome {
    lookup.tiers().nth(tier).unwrap().outcome
}

#[tokio::test(start_paused = true)]
async fn a_network_that_fails_costs_what_only_it_may_have() {
    let cases = [
        (Fault::Error(StoreErrorKind::Unreachable), "failed"),
        (
            Fault::Error(StoreErrorKind::BreakerOpen),
            "circuit breaker open",
        ),
        (Fault::Panic, "failed"),
        (Fault::Corrupt, "corrupt"),
        (Fault::Hang, "timed out"),
    ];
    for (fault, expected) in cases {
        let disk = holding(FaultyStore::new("disk"), 0..50).await;
        let remote = remote(50..100).await;
        remote.set(StoreOperation::GetMany, fault);
        let cache = LayeredPipelineCache::builder()
            .tier(disk)
            .tier(Arc::clone(&remote))
            .build();
        let asked_for = keys(0..100);
        let options = LookupOptions::new().deadline(100 * MS);
        let start = Instant::now();
        let answers = cache.lookup_many(&asked_for, &options);
        let answers: Vec<_> = answers.collect().await;
        assert!(start.elapsed() <= 101 * MS);
        let (hits, rest): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .partition(|(_, lookup)| lookup.artifact().is_some());
        assert_eq!((hits.len(), rest.len()), (50, 50), "{fault:?}");
        for (_, lookup) in rest {
            assert!(lookup.is_degraded());
            let outcome = outcome(&lookup, 1).to_string();
            assert!(outcome.starts_with(expected), "{fault:?}: {outcome}");
        }
        // As a tier, it tells of the failure as well.
        remote.set(
            StoreOperation::GetMany,
            Fault::Error(StoreErrorKind::Unreachable),
        );
        let answers = cache.fetch_many(&asked_for[49..]).await;
        assert!(matches!(&answers[0], Ok(Fetched::Hit(found)) if *found == artifact(49)));
        assert!(answers[1..].iter().all(Result::is_err));
    }
}

/// A tier that breaks its promise and answers for one key less.
#[derive(Debug)]
struct OneTooFew(InMemoryPipelineCache);

impl fmt::Display for OneTooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one too few")
    }
}

#[async_trait]
impl PipelineCacheStore for OneTooFew {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.0.fetch(key).await
    }

    async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
        self.0.fetch_many(&keys[1..]).await
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.0.put(key, artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.0.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.0.remove(key).await
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.0.metrics()
    }

    fn locality(&self) -> Locality {
        Locality::Network
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_without_an_answer_is_a_degraded_miss() {
    let cache = LayeredPipelineCache::builder()
        .tier(OneTooFew(InMemoryPipelineCache::new()))
        .build();
    let asked_for = keys(0..10);
    let options = LookupOptions::new();
    let answers = cache.lookup_many(&asked_for, &options);
    let answers: Vec<_> = answers.collect().await;
    let degraded = answers.iter().filter(|(_, lookup)| lookup.is_degraded());
    assert_eq!((answers.len(), degraded.count()), (10, 1));
}

/// The searches of a group wait for each other. Few permits must not be what they wait for.
#[tokio::test(start_paused = true)]
async fn few_search_permits_make_no_smaller_groups_and_no_standstill() {
    let disk = Arc::new(FaultyStore::new("disk"));
    let remote = remote(0..3000).await;
    let cache = LayeredPipelineCache::builder()
        .tier(disk)
        .tier(Arc::clone(&remote))
        .max_searches(4)
        .build();
    let both = [keys(0..1000), keys(1000..3000)];
    let found = timeout(
        Duration::from_secs(1),
        futures::future::join_all(both.iter().map(|keys| cache.get_many(keys))),
    );
    let found = found.await.unwrap();
    assert!(found.iter().flatten().all(Option::is_some));
    let (calls, single, keys) = asked(&remote);
    assert!(calls <= 4 && single == 0, "{calls} {single}");
    assert_eq!(keys, 3000);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_no_request_and_no_permit_behind() {
    let remote = remote(0..10).await;
    remote.set(StoreOperation::GetMany, Fault::Hang);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&remote))
        .max_searches(1)
        .build();
    {
        let asked_for = keys(0..10);
        let mut many = pin!(cache.get_many(&asked_for));
        assert!(poll!(&mut many).is_pending());
        remote.called(StoreOperation::GetMany, 1).await;
        assert!(poll!(&mut many).is_pending());
    }
    let other = timeout(Duration::from_secs(1), cache.get(&key(3))).await;
    assert_eq!(other.unwrap(), Some(artifact(3)));
    // The searches are gone, and with them the call: nothing of it holds the tier.
    drop(cache);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&remote), 1);
}

#[tokio::test(start_paused = true)]
async fn local_tiers_alone_are_asked_where_the_options_say_so() {
    let disk = holding(FaultyStore::new("disk"), 0..50).await;
    let remote = remote(50..100).await;
    let cache = LayeredPipelineCache::builder()
        .tier(disk)
        .tier(Arc::clone(&remote))
        .build();
    let options = LookupOptions::new().tiers(TierSelection::Local);
    let asked_for = keys(0..100);
    let answers = cache.lookup_many(&asked_for, &options);
    let hits = answers.filter(|(_, lookup)| std::future::ready(lookup.artifact().is_some()));
    assert_eq!(hits.count().await, 50);
    assert_eq!(asked(&remote), (0, 0, 0));
}
