//! What was removed stays removed, whatever was on its way when it was.

use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, Fetched, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheMetrics,
    PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation,
};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);

fn artifact() -> Artifact {
    Artifact::new("code")
}

/// A tier with a long way back: it has read its answer, and hands it over when it is told to.
#[derive(Debug, Default)]
struct Distant {
    inner: InMemoryPipelineCache,
    far: AtomicBool,
    has_read: Notify,
    hand_over: Notify,
}

impl fmt::Display for Distant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("distant")
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Distant {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let found = self.inner.fetch(key).await;
        if self.far.load(Ordering::SeqCst) {
            self.has_read.notify_one();
            self.hand_over.notified().await;
        }
        found
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

/// A search has its answer and is on its way back when the key is removed, after a put has taken
/// the search off the table or not.
#[tokio::test]
async fn a_find_that_was_on_its_way_is_not_promoted() {
    for with_put in [false, true] {
        let disk = Arc::new(FaultyStore::new("disk"));
        let distant = Arc::new(Distant::default());
        distant.put(&KEY, artifact()).await.unwrap();
        distant.far.store(true, Ordering::SeqCst);
        let cache = LayeredPipelineCache::builder()
            .tier(Arc::clone(&disk))
            .tier(Arc::clone(&distant))
            .build();
        let get = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get(&KEY).await }
        });
        distant.has_read.notified().await;
        if with_put {
            cache.put(&KEY, artifact()).await.unwrap();
        }
        assert!(cache.remove(&KEY).await.unwrap());
        distant.hand_over.notify_one();
        // Who asked before the remove may be told.
        assert_eq!(get.await.unwrap(), Some(artifact()));
        cache.flush().await.unwrap();
        assert!(
            !disk.contains(&KEY).await.unwrap(),
            "with a put: {with_put}"
        );
        assert_eq!(cache.promotion_report().dropped, 1);
    }
}

/// A tier that stops whoever asks for its limit, the first time.
#[derive(Debug)]
struct Stops {
    inner: InMemoryPipelineCache,
    armed: AtomicBool,
    there: SyncSender<()>,
    on: Mutex<Receiver<()>>,
}

impl fmt::Display for Stops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stops")
    }
}

#[async_trait::async_trait]
impl PipelineCacheStore for Stops {
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
    fn max_artifact_bytes(&self) -> u64 {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.there.send(()).unwrap();
            self.on.lock().unwrap().recv().unwrap();
        }
        u64::MAX
    }
}

/// The whole of a remove fits between a search's decision to promote and the promotion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_was_decided_before_the_remove_is_not_made_after_it() {
    let (there, has_come) = sync_channel(1);
    let (go, on) = sync_channel(1);
    let top = Arc::new(Stops {
        inner: InMemoryPipelineCache::new(),
        armed: AtomicBool::new(true),
        there,
        on: Mutex::new(on),
    });
    let low = Arc::new(FaultyStore::new("low"));
    low.put(&KEY, artifact()).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&top))
        .tier(low)
        .build();
    let get = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&KEY).await }
    });
    tokio::task::spawn_blocking(move || has_come.recv().unwrap())
        .await
        .unwrap();
    assert!(cache.remove(&KEY).await.unwrap());
    go.send(()).unwrap();
    get.await.unwrap();
    cache.flush().await.unwrap();
    assert!(!top.contains(&KEY).await.unwrap());
}

/// A compile that begins after the remove does not join one that was about to find the removed
/// artifact.
#[tokio::test]
async fn a_lookup_after_a_remove_does_not_get_what_was_found_before() {
    let distant = Arc::new(Distant::default());
    distant.put(&KEY, Artifact::new("poisoned")).await.unwrap();
    distant.far.store(true, Ordering::SeqCst);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&distant))
        .build();
    let ask = || {
        let cache = cache.clone();
        tokio::spawn(async move {
            let compile = || async { Ok::<_, Infallible>(artifact()) };
            cache
                .get_or_insert_with(&KEY, compile)
                .await
                .unwrap()
                .artifact
        })
    };
    let before = ask();
    distant.has_read.notified().await;
    assert!(cache.remove(&KEY).await.unwrap());
    distant.far.store(false, Ordering::SeqCst);
    let after = ask();
    assert_eq!(after.await.unwrap(), artifact());
    distant.hand_over.notify_one();
    assert_eq!(before.await.unwrap(), Artifact::new("poisoned"));
}

#[tokio::test(start_paused = true)]
async fn a_remove_is_not_held_up_for_ever() {
    // By a tier that hangs.
    let hung = Arc::new(FaultyStore::new("hung"));
    hung.set(StoreOperation::Remove, Fault::Hang);
    let cache = LayeredPipelineCache::builder().tier(hung).build();
    let removed = timeout(Duration::from_secs(31), cache.remove(&KEY))
        .await
        .unwrap();
    assert_eq!(removed.unwrap_err().kind(), StoreErrorKind::TimedOut);

    // By other keys' writes, for whose slots its own one waits.
    let (slow, low) = (Arc::new(FaultyStore::new("slow")), FaultyStore::new("low"));
    let key = |n: u8| PipelineFingerprint::from_bytes([n; 32]);
    for n in 0..64 {
        low.put(&key(n), artifact()).await.unwrap();
    }
    slow.set(StoreOperation::Put, Fault::Hang);
    let cache = LayeredPipelineCache::builder()
        .tier(slow)
        .tier(low)
        .background_concurrency(1)
        .build();
    for n in 0..64 {
        cache.get(&key(n)).await.unwrap();
    }
    let start = Instant::now();
    assert!(cache.remove(&key(63)).await.unwrap());
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_tier_that_takes_no_writes_and_still_has_it_is_named() {
    let top = Arc::new(FaultyStore::new("top"));
    let fixed = FaultyStore::new("fixed").read_only();
    fixed.put(&KEY, artifact()).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&top))
        .tier(fixed)
        .build();
    top.put(&KEY, artifact()).await.unwrap();
    let error = cache.remove(&KEY).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.tier()),
        (StoreErrorKind::ReadOnly, "fixed")
    );
    assert!(!top.contains(&KEY).await.unwrap());
}

/// Not a removal, but the same question: what a layered store says as a tier of another.
#[tokio::test(start_paused = true)]
async fn as_a_tier_it_tells_what_its_own_tiers_could_not_say() {
    let tier = Arc::new(FaultyStore::new("tier"));
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&tier))
        .lookup_deadline(Duration::from_millis(10))
        .build();
    let store: &dyn PipelineCacheStore = &cache;
    assert_eq!(store.fetch(&KEY).await.unwrap(), Fetched::Miss);
    tier.set(StoreOperation::Get, Fault::Corrupt);
    assert!(matches!(
        store.fetch(&KEY).await.unwrap(),
        Fetched::Corrupt(_)
    ));
    tier.set(StoreOperation::Get, Fault::Hang);
    assert_eq!(
        store.fetch(&KEY).await.unwrap_err().kind(),
        StoreErrorKind::TimedOut
    );
    assert_eq!(cache.layered_metrics().tiers[0].timed_out, 1);
}
