//! What a tier could not take is offered to it again, and no flush says that all is well before it
//! is there.

use async_trait::async_trait;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, Fetched, InMemoryPipelineCache, LayeredPipelineCache, LayeredPipelineCacheBuilder,
    PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind,
    StoreOperation,
};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn key(number: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([number; 32])
}

fn artifact() -> Artifact {
    Artifact::new("code")
}

/// A cache over memory and a remote that takes no writes at present, and the remote.
fn during_an_outage() -> (LayeredPipelineCacheBuilder, Arc<FaultyStore>) {
    let remote = Arc::new(FaultyStore::new("remote").network());
    let fault = Fault::Error(StoreErrorKind::Unavailable);
    remote.set(StoreOperation::Put, fault);
    let builder = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&remote));
    (builder, remote)
}

async fn stored(remote: &FaultyStore, keys: u8) -> usize {
    let mut stored = 0;
    for number in 0..keys {
        stored += usize::from(remote.contains(&key(number)).await.unwrap());
    }
    stored
}

#[tokio::test(start_paused = true)]
async fn what_a_tier_could_not_take_is_offered_again_when_it_is_back() {
    let (builder, remote) = during_an_outage();
    let cache = builder.build();
    for number in 0..50 {
        cache.put(&key(number), artifact()).await.unwrap();
    }
    for _ in 0..3 {
        let error = cache.flush().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    }
    let tried = remote.calls(StoreOperation::Put);
    assert_eq!(cache.write_behind_report().waiting, 50);
    tokio::time::sleep(Duration::from_secs(61)).await;
    let tries = remote.calls(StoreOperation::Put) - tried;
    assert!((10..=13).contains(&tries), "{tries} tries in a minute");

    remote.set(StoreOperation::Put, Fault::None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(stored(&remote, 50).await, 50);
    cache.flush().await.unwrap();
    let report = cache.write_behind_report();
    assert_eq!((report.accepted, report.failed), (50, 50));
    assert_eq!(
        (report.waiting, report.recovered, report.abandoned),
        (0, 50, 0)
    );
    // A second outage is noticed as the first was.
    remote.set(StoreOperation::Put, Fault::Error(StoreErrorKind::TimedOut));
    cache.put(&key(60), artifact()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    remote.set(StoreOperation::Put, Fault::None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(remote.contains(&key(60)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_flush_offers_again_what_was_not_written() {
    let (builder, remote) = during_an_outage();
    let cache = builder.build();
    for number in 0..20 {
        cache.put(&key(number), artifact()).await.unwrap();
    }
    cache.flush().await.unwrap_err();
    remote.set(StoreOperation::Put, Fault::None);
    cache.flush().await.unwrap();
    assert_eq!(stored(&remote, 20).await, 20);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_its_loss_is_told_once() {
    let (builder, remote) = during_an_outage();
    let cache = builder.background_limits(4, 1 << 20).build();
    for number in 0..10 {
        cache.put(&key(number), artifact()).await.unwrap();
        cache.flush().await.unwrap_err();
    }
    let report = cache.write_behind_report();
    assert_eq!((report.waiting, report.abandoned), (4, 6));
    cache.put(&key(10), artifact()).await.unwrap();
    // The write has failed, and one more is lost.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(cache.write_behind_report().abandoned, 7);
    remote.set(StoreOperation::Put, Fault::None);
    cache.flush().await.unwrap_err();
    cache.flush().await.unwrap();
    assert_eq!(stored(&remote, 11).await, 4);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_removed_is_not_offered_again() {
    let (builder, remote) = during_an_outage();
    let cache = builder.build();
    cache.put(&key(1), artifact()).await.unwrap();
    cache.flush().await.unwrap_err();
    cache.remove(&key(1)).await.unwrap();
    remote.set(StoreOperation::Put, Fault::None);
    cache.flush().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!remote.contains(&key(1)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_close_reports_what_was_never_taken() {
    let (builder, _remote) = during_an_outage();
    let cache = builder.build();
    cache.put(&key(1), artifact()).await.unwrap();
    cache.flush().await.unwrap_err();
    let report = cache.close(Duration::from_secs(1)).await;
    assert_eq!((report.unfinished_writes, report.errors.len()), (1, 1));
}

/// A write that will fail again for the same reason is told once, and not kept.
#[tokio::test(start_paused = true)]
async fn what_a_tier_will_never_take_is_not_offered_again() {
    let (builder, remote) = during_an_outage();
    remote.set(StoreOperation::Put, Fault::Error(StoreErrorKind::ReadOnly));
    let cache = builder.build();
    cache.put(&key(1), artifact()).await.unwrap();
    let error = cache.flush().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
    cache.flush().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(remote.calls(StoreOperation::Put), 1);
}

/// Refuses one key, and takes all others.
#[derive(Debug)]
struct Picky {
    inner: InMemoryPipelineCache,
    refused: PipelineFingerprint,
    error: StoreErrorKind,
    tries: AtomicU64,
}

impl Picky {
    fn new(refused: PipelineFingerprint, error: StoreErrorKind) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemoryPipelineCache::new(),
            refused,
            error,
            tries: AtomicU64::new(0),
        })
    }
}

impl fmt::Display for Picky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("picky")
    }
}

#[async_trait]
impl PipelineCacheStore for Picky {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.inner.fetch(key).await
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        if *key != self.refused {
            return self.inner.put(key, artifact).await;
        }
        self.tries.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::new(self.error, "picky", StoreOperation::Put))
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

/// As behind a firewall that takes offence at one body.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_refused_while_others_are_taken_is_given_up_and_told_once() {
    for error in [
        StoreErrorKind::PermissionDenied,
        StoreErrorKind::Unavailable,
    ] {
        let picky = Picky::new(key(1), error);
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .tier(Arc::clone(&picky))
            .max_write_refusals(4)
            .build();
        cache.put(&key(1), artifact()).await.unwrap();
        // Of a tier that takes nothing else it is not known whose fault it is.
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(cache.write_behind_report().waiting, 1);
        for number in 2..12 {
            cache.put(&key(number), artifact()).await.unwrap();
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        let report = cache.write_behind_report();
        assert_eq!((report.waiting, report.abandoned), (0, 1));
        let tries = picky.tries.load(Ordering::SeqCst);
        assert_eq!(cache.flush().await.unwrap_err().kind(), error);
        cache.flush().await.unwrap();
        assert!(cache.close(Duration::from_secs(1)).await.is_clean());
        assert_eq!(picky.tries.load(Ordering::SeqCst), tries);
    }
}

/// Nothing was sent: the entry was not refused.
#[tokio::test(start_paused = true)]
async fn an_open_breaker_gives_no_entry_up() {
    let picky = Picky::new(key(1), StoreErrorKind::BreakerOpen);
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&picky))
        .max_write_refusals(1)
        .build();
    for number in 1..12 {
        cache.put(&key(number), artifact()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    assert_eq!(cache.write_behind_report().waiting, 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_removed_while_others_are_offered_stays_removed() {
    let (builder, remote) = during_an_outage();
    let cache = builder.build();
    for number in 1..3 {
        cache.put(&key(number), artifact()).await.unwrap();
    }
    cache.flush().await.unwrap_err();
    let tried = remote.calls(StoreOperation::Put);
    remote.set(StoreOperation::Put, Fault::Gate);
    let (flushed, ()) = tokio::join!(cache.flush(), async {
        remote.called(StoreOperation::Put, tried + 1).await;
        // One of them is on its way, and the other comes next.
        assert_eq!(cache.write_behind_report().waiting, 2);
        remote.open(StoreOperation::Put, 10);
        for number in 1..3 {
            cache.remove(&key(number)).await.unwrap();
        }
    });
    flushed.unwrap();
    for number in 1..3 {
        assert!(!remote.contains(&key(number)).await.unwrap(), "{number}");
    }
}

/// As in a lookup that finds it elsewhere while the disk is full.
#[tokio::test(start_paused = true)]
async fn a_promotion_that_fails_does_not_forget_the_write_that_is_owed() {
    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(
        StoreOperation::Put,
        Fault::Error(StoreErrorKind::StorageFull),
    );
    let memory = Arc::new(FaultyStore::new("memory"));
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&memory))
        .tier(Arc::clone(&disk))
        .tier(InMemoryPipelineCache::new())
        .build();
    cache.put(&key(1), artifact()).await.unwrap();
    cache.flush().await.unwrap_err();
    memory.remove(&key(1)).await.unwrap();
    cache.get(&key(1)).await.expect("in the third tier");
    while cache.promotion_report().failed == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.write_behind_report().waiting, 1);
    cache.flush().await.unwrap_err();
    disk.set(StoreOperation::Put, Fault::None);
    cache.flush().await.unwrap();
    assert!(disk.contains(&key(1)).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_hangs_keeps_no_other_from_being_offered() {
    let (builder, remote) = during_an_outage();
    let hangs = Arc::new(FaultyStore::new("hangs").network());
    hangs.set(StoreOperation::Put, Fault::Hang);
    let cache = builder.tier(Arc::clone(&hangs)).build();
    for number in 0..40 {
        cache.put(&key(number), artifact()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    remote.set(StoreOperation::Put, Fault::None);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(stored(&remote, 40).await, 40);
}

/// Its runtime took the task that offers with it.
#[test]
fn what_is_kept_is_offered_on_another_runtime_too() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (builder, remote) = during_an_outage();
    let cache = builder.build();
    let first = runtime();
    first.block_on(async {
        cache.put(&key(1), artifact()).await.unwrap();
        cache.flush().await.unwrap_err();
    });
    drop(first);
    remote.set(StoreOperation::Put, Fault::None);
    runtime().block_on(async {
        cache.put(&key(2), artifact()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(stored(&remote, 3).await, 2);
    });
}

/// A cache whose background is full of one write that hangs for a second.
async fn full_background() -> (LayeredPipelineCache, Arc<FaultyStore>) {
    let (builder, remote) = during_an_outage();
    remote.set(StoreOperation::Put, Fault::Hang);
    let cache = builder
        .background_limits(1, 1 << 20)
        .write_timeout(Duration::from_secs(1))
        .build();
    compile(&cache, 1).await;
    remote.called(StoreOperation::Put, 1).await;
    (cache, remote)
}

async fn compile(cache: &LayeredPipelineCache, number: u8) {
    let compile = || async { Ok::<_, Infallible>(artifact()) };
    let key = key(number);
    cache.get_or_insert_with(&key, compile).await.unwrap();
}

/// Its compile waits for the write, and nobody is told how that ended.
#[tokio::test(start_paused = true)]
async fn what_was_compiled_while_the_background_is_full_is_kept_too() {
    let (cache, remote) = full_background().await;
    compile(&cache, 2).await;
    cache.flush().await.unwrap_err();
    remote.set(StoreOperation::Put, Fault::None);
    for _ in 0..3 {
        let _ = cache.flush().await;
    }
    let report = cache.write_behind_report();
    let there = stored(&remote, 3).await as u64;
    assert_eq!(
        (there + report.abandoned, report.waiting),
        (2, 0),
        "{report:?}"
    );
    assert_eq!(report.awaited, 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_compiled_and_will_never_be_taken_fails_the_next_flush() {
    let (cache, remote) = full_background().await;
    remote.set(StoreOperation::Put, Fault::Error(StoreErrorKind::ReadOnly));
    compile(&cache, 2).await;
    remote.called(StoreOperation::Put, 2).await;
    remote.set(StoreOperation::Put, Fault::None);
    let error = cache.flush().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
    cache.flush().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_compiled_and_removed_before_its_write_failed_is_not_offered() {
    let (cache, remote) = full_background().await;
    tokio::join!(compile(&cache, 2), async {
        remote.called(StoreOperation::Put, 2).await;
        cache.remove(&key(2)).await.unwrap();
    });
    remote.set(StoreOperation::Put, Fault::None);
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(!remote.contains(&key(2)).await.unwrap());
    assert!(remote.contains(&key(1)).await.unwrap());
}
