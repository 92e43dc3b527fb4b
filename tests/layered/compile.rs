//! A compile is started when the policy says, checked when it is sampled, and written where the
//! write policy says, with whoever leaves leaving nobody behind.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "a clone that is turned into `dyn` on the way"
)]

use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileLease, CompileLeases, CompilePolicy, CompileSource, Fetched,
    InMemoryPipelineCache, LayeredPipelineCache, Locality, LookupOptions, LookupSource,
    PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind,
    StoreOperation, WritePolicy,
};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);
const MS: Duration = Duration::from_millis(1);

fn stored() -> Artifact {
    Artifact::new("stored")
}

fn compiled() -> Artifact {
    Artifact::new("compiled")
}

async fn compile_in(time: Duration) -> Result<Artifact, Infallible> {
    sleep(time).await;
    Ok(compiled())
}

/// A remote that answers after `answer`, with the artifact or without.
async fn racing(answer: Duration, holds: bool, after: Duration) -> LayeredPipelineCache {
    let remote = FaultyStore::new("remote").network();
    if holds {
        remote.put(&KEY, stored()).await.unwrap();
    }
    remote.set(StoreOperation::Get, Fault::Latency(answer));
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(remote)
        .compile_policy(CompilePolicy::Race { after })
        .build()
}

#[tokio::test(start_paused = true)]
async fn in_a_race_whichever_is_ready_first_wins() {
    // (remote answers after, holds it, head start, compile takes) -> (took, compiled)
    let races = [
        // The search is in time, and no compile starts.
        (5 * MS, true, 10 * MS, 100 * MS, 5 * MS, false),
        // The search misses before the head start is over: the compile starts at once.
        (5 * MS, false, 10 * MS, 100 * MS, 105 * MS, true),
        // The compile starts, and the search is first all the same.
        (50 * MS, true, 10 * MS, 100 * MS, 50 * MS, false),
        // The compile is first.
        (500 * MS, true, 10 * MS, 100 * MS, 110 * MS, true),
        // The search misses while the compile is on: it goes on and is not started again.
        (50 * MS, false, 10 * MS, 100 * MS, 110 * MS, true),
    ];
    for (answer, holds, after, compile, took, compiles) in races {
        let cache = racing(answer, holds, after).await;
        let start = Instant::now();
        let result = cache
            .get_or_insert_with(&KEY, move || compile_in(compile))
            .await
            .unwrap();
        let case = format!("{answer:?} {holds} {after:?}: {:?}", start.elapsed());
        assert!(
            start.elapsed() >= took && start.elapsed() <= took + 2 * MS,
            "{case}"
        );
        let expected = match compiles {
            true => (compiled(), CompileSource::Compiled),
            false => (stored(), CompileSource::Cache(LookupSource::Tier(1))),
        };
        assert_eq!((result.artifact, result.source), expected, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_network_does_not_hold_up_a_racing_compile() {
    let cache = racing(Duration::from_secs(1_000), true, 5 * MS).await;
    let start = Instant::now();
    cache
        .get_or_insert_with(&KEY, || compile_in(20 * MS))
        .await
        .unwrap();
    assert!(start.elapsed() <= 27 * MS, "{:?}", start.elapsed());
}

/// The first caller gives up after each number of polls. The second, which has joined before that, is
/// answered, and nothing is compiled twice.
#[tokio::test]
async fn the_first_caller_may_leave_at_every_await() {
    for polls in 0..20 {
        let tier = Arc::new(FaultyStore::new("tier"));
        let cache = LayeredPipelineCache::new([tier.clone() as _]);
        let (compiles, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let compile = || {
            let (compiles, gate) = (Arc::clone(&compiles), Arc::clone(&gate));
            move || async move {
                compiles.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(compiled())
            }
        };
        let mut first = Box::pin(cache.get_or_insert_with(&KEY, compile()));
        let mut second = Box::pin(cache.get_or_insert_with(&KEY, compile()));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        for _ in 0..polls {
            assert!(futures::poll!(&mut first).is_pending());
            tokio::task::yield_now().await;
        }
        drop(first);
        gate.add_permits(1);
        let result = second.await.unwrap();
        assert_eq!(result.source, CompileSource::Joined, "after {polls} polls");
        assert_eq!(compiles.load(Ordering::SeqCst), 1, "after {polls} polls");
        cache.flush().await.unwrap();
        assert_eq!(tier.calls(StoreOperation::Put), 1);
    }
}

#[tokio::test]
async fn a_sample_of_the_hits_is_compiled_again_and_a_difference_is_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let (tell, heard) = tokio::sync::mpsc::unbounded_channel();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .verify_sample(0.25, {
            let told = Arc::clone(&told);
            move |mismatch| {
                told.lock().unwrap().push(mismatch.clone());
                tell.send(()).unwrap();
            }
        })
        .build();
    let mut heard = heard;
    cache.put(&KEY, stored()).await.unwrap();
    for hit in 1..=8 {
        let compile = || async { Ok::<_, Infallible>(compiled()) };
        let result = cache.get_or_insert_with(&KEY, compile).await.unwrap();
        // The caller is served what is stored, whatever the sample finds.
        assert_eq!(result.artifact, stored());
        if hit % 4 == 0 {
            heard.recv().await.unwrap();
        }
    }
    let metrics = cache.layered_metrics();
    assert_eq!((metrics.verified, metrics.verify_mismatches), (2, 2));
    assert_eq!(metrics.abandoned_compiles, 0);
    let told = told.lock().unwrap();
    assert_eq!((told[0].key, told.len()), (KEY, 2));
    assert_eq!(
        (&told[0].stored, &told[0].recompiled),
        (&stored(), &compiled())
    );
}

#[tokio::test]
async fn a_verified_sample_runs_in_the_background() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .verify_sample(1.0, |_| {})
        .build();
    cache.put(&KEY, stored()).await.unwrap();
    for _ in 0..100 {
        // Each sample would take for ever; one runs, the other hits are passed over.
        let compile = || std::future::pending::<Result<Artifact, Infallible>>();
        let result = cache.get_or_insert_with(&KEY, compile).await.unwrap();
        assert_eq!(result.artifact, stored());
    }
    assert_eq!(cache.layered_metrics().verified, 0);
}

#[tokio::test]
async fn a_put_written_behind_waits_for_the_first_tier_alone() {
    let first = Arc::new(FaultyStore::new("first"));
    let second = Arc::new(FaultyStore::new("second"));
    second.set(StoreOperation::Put, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(first.clone())
        .tier(second.clone())
        .write_policy(WritePolicy::Behind)
        .background_limits(2, 1 << 20)
        .build();
    let key = |n: u8| PipelineFingerprint::from_bytes([n; 32]);
    cache.put(&key(1), stored()).await.unwrap();
    cache.put(&key(2), stored()).await.unwrap();
    second.called(StoreOperation::Put, 2).await;
    assert_eq!(cache.write_behind_report().pending, 2);

    // On its way down, an artifact is served even if the first tier has lost it.
    first.remove(&key(1)).await.unwrap();
    let lookup = cache.lookup(&key(1), &LookupOptions::new()).await;
    assert_eq!(lookup.source(), Some(LookupSource::WriteBehind));

    // The background is full: the third waits for its lower tier itself.
    let third = tokio::spawn({
        let cache = cache.clone();
        async move { cache.put(&key(3), stored()).await }
    });
    second.called(StoreOperation::Put, 3).await;
    assert!(!third.is_finished());
    second.open(StoreOperation::Put, 3);
    third.await.unwrap().unwrap();

    cache.flush().await.unwrap();
    let report = cache.write_behind_report();
    assert_eq!((report.accepted, report.written, report.awaited), (2, 2, 1));
    assert_eq!(report.pending, 0);
    for n in 1..=3 {
        assert!(second.contains(&key(n)).await.unwrap());
    }
}

#[tokio::test]
async fn a_write_behind_that_fails_is_counted() {
    let second = Arc::new(FaultyStore::new("second"));
    second.set(
        StoreOperation::Put,
        Fault::Error(StoreErrorKind::StorageFull),
    );
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(second.clone())
        .write_policy(WritePolicy::Behind)
        .build();
    cache.put(&KEY, stored()).await.unwrap();
    for _ in 0..2 {
        let error = cache.flush().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.tier()),
            (StoreErrorKind::StorageFull, "second")
        );
    }
    let report = cache.write_behind_report();
    assert_eq!((report.accepted, report.failed, report.written), (1, 1, 0));
}

/// A put under the first policy stops at memory, but a compile is work that is worth keeping.
#[tokio::test]
async fn what_was_compiled_reaches_every_writable_tier_under_every_policy() {
    let policies = [
        WritePolicy::First,
        WritePolicy::Through,
        WritePolicy::Behind,
    ];
    for policy in policies {
        let disk = Arc::new(FaultyStore::new("disk"));
        let fixed = Arc::new(FaultyStore::new("fixed").read_only());
        let remote = Arc::new(FaultyStore::new("remote").network());
        let memory = InMemoryPipelineCache::new();
        let cache = LayeredPipelineCache::builder()
            .tier(memory.clone())
            .tier(disk.clone())
            .tier(fixed.clone())
            .tier(remote.clone())
            .write_policy(policy)
            .build();
        let compile = || async { Ok::<_, Infallible>(compiled()) };
        cache.get_or_insert_with(&KEY, compile).await.unwrap();
        cache.flush().await.unwrap();
        assert_eq!(memory.peek(&KEY), Some(compiled()), "{policy:?}");
        assert!(disk.contains(&KEY).await.unwrap(), "{policy:?}");
        assert!(remote.contains(&KEY).await.unwrap(), "{policy:?}");
        assert_eq!(fixed.calls(StoreOperation::Put), 0, "{policy:?}");
        let report = cache.write_behind_report();
        assert_eq!((report.accepted, report.written), (1, 1), "{policy:?}");
    }
}

#[tokio::test]
async fn new_puts_to_the_first_tier_and_the_builder_writes_behind() {
    let disk = || Arc::new(FaultyStore::new("disk"));
    let (first, behind) = (disk(), disk());
    let memory = || Arc::new(InMemoryPipelineCache::new());
    let new = LayeredPipelineCache::new([memory() as _, first.clone() as _]);
    let built = LayeredPipelineCache::builder()
        .tiers([memory() as _, behind.clone() as _])
        .build();
    for cache in [new, built] {
        cache.put(&KEY, stored()).await.unwrap();
        cache.flush().await.unwrap();
    }
    assert_eq!(first.calls(StoreOperation::Put), 0);
    assert_eq!(behind.calls(StoreOperation::Put), 1);
}

/// A network tier that grants a lease of every key, and counts those that are held.
#[derive(Debug)]
struct Leasing {
    inner: Arc<FaultyStore>,
    held: Arc<()>,
}

impl Leasing {
    fn leases(&self) -> usize {
        Arc::strong_count(&self.held) - 1
    }
}

impl std::fmt::Display for Leasing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("leasing")
    }
}

#[async_trait::async_trait]
impl CompileLeases for Leasing {
    async fn compile_lease(
        &self,
        _: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        Ok(Some(CompileLease::new(Arc::clone(&self.held))))
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Leasing {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
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
    fn locality(&self) -> Locality {
        Locality::Network
    }
    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        Some(self)
    }
}

/// Others in the fleet look for the artifact in the tier that granted the lease. Not longer than the
/// write may take, though.
#[tokio::test(start_paused = true)]
async fn a_lease_of_a_network_tier_is_held_until_the_artifact_is_there() {
    for hangs in [false, true] {
        let inner = Arc::new(FaultyStore::new("remote"));
        inner.set(StoreOperation::Put, Fault::Gate);
        let remote = Arc::new(Leasing {
            inner: Arc::clone(&inner),
            held: Arc::new(()),
        });
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .tier(Arc::clone(&remote))
            .write_timeout(1000 * MS)
            .build();
        let compile = || compile_in(MS);
        cache.get_or_insert_with(&KEY, compile).await.unwrap();
        inner.called(StoreOperation::Put, 1).await;
        sleep(100 * MS).await;
        assert_eq!(remote.leases(), 1);
        if !hangs {
            inner.open(StoreOperation::Put, 1);
        }
        assert_eq!(cache.flush().await.is_err(), hangs);
        assert_eq!(remote.leases(), 0);
    }
}

/// As above, where the tier that granted it is in a layered store below.
#[tokio::test(start_paused = true)]
async fn a_lease_of_a_network_tier_of_a_nested_store_is_held_until_the_artifact_is_there() {
    let inner = Arc::new(FaultyStore::new("remote"));
    inner.set(StoreOperation::Put, Fault::Gate);
    let remote = Arc::new(Leasing {
        inner: Arc::clone(&inner),
        held: Arc::new(()),
    });
    let nested = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&remote))
        .build();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(nested)
        .build();
    let compile = || compile_in(MS);
    cache.get_or_insert_with(&KEY, compile).await.unwrap();
    inner.called(StoreOperation::Put, 1).await;
    sleep(100 * MS).await;
    assert_eq!(remote.leases(), 1);
    inner.open(StoreOperation::Put, 1);
    cache.flush().await.unwrap();
    assert_eq!(remote.leases(), 0);
}
