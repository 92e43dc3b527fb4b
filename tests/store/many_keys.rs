//! `fetch_many` of a tier that has only `fetch`: each key has its own answer, in its place, and few
//! lookups are under way at a time.

use async_trait::async_trait;
use futures::poll;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, Fetched, FrameError, InMemoryPipelineCache, PipelineCacheMetrics, PipelineCacheStore,
    PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation,
};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;

fn key(n: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([n; 32])
}

/// Has an answer of each kind, and gives them through a gate.
#[derive(Debug)]
struct Gated {
    gate: Semaphore,
    under_way: AtomicUsize,
}

impl Gated {
    fn new(open: usize) -> Self {
        Self {
            gate: Semaphore::new(open),
            under_way: AtomicUsize::new(0),
        }
    }
}

impl fmt::Display for Gated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gated")
    }
}

#[async_trait]
impl PipelineCacheStore for Gated {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        match key.as_bytes()[0] % 4 {
            0 => Ok(Fetched::Hit(Artifact::new(key.as_bytes().to_vec()))),
            1 => Ok(Fetched::Miss),
            2 => Ok(Fetched::Corrupt(FrameError::BadPayload)),
            _ => Err(StoreError::new(
                StoreErrorKind::Io,
                "gated",
                StoreOperation::Get,
            )),
        }
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
        PipelineCacheMetrics::default()
    }
}

#[tokio::test]
async fn each_key_has_its_own_answer_in_its_place() {
    // Behind a pointer, as tiers are held.
    let store: Arc<dyn PipelineCacheStore> = Arc::new(Gated::new(1_000));
    assert!(store.fetch_many(&[]).await.is_empty());
    let numbers: Vec<u8> = (0..200).chain([3, 3, 0, 1]).collect();
    let keys: Vec<_> = numbers.iter().copied().map(key).collect();
    let answers = store.fetch_many(&keys).await;
    assert_eq!(answers.len(), keys.len());
    for (n, answer) in numbers.into_iter().zip(answers) {
        match (n % 4, answer) {
            (0, Ok(Fetched::Hit(found))) => assert_eq!(found.payload()[..], [n; 32]),
            (1, Ok(Fetched::Miss)) => {}
            (2, Ok(Fetched::Corrupt(FrameError::BadPayload))) => {}
            (3, Err(error)) => assert_eq!(error.kind(), StoreErrorKind::Io),
            (_, other) => panic!("{n}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn sixteen_lookups_are_under_way_at_a_time_and_none_after_a_drop() {
    let store = Arc::new(Gated::new(0));
    let keys: Vec<_> = (0..100).map(key).collect();
    {
        let mut answers = pin!(store.fetch_many(&keys));
        assert!(poll!(&mut answers).is_pending());
        assert_eq!(store.under_way.load(Ordering::SeqCst), 16);
        store.gate.add_permits(10);
        assert!(poll!(&mut answers).is_pending());
        assert_eq!(store.under_way.load(Ordering::SeqCst), 16);
    }
    store.gate.add_permits(100);
    assert_eq!(store.fetch_many(&keys[..20]).await.len(), 20);
    assert_eq!(store.gate.available_permits(), 80, "nobody else took one");
}

#[tokio::test]
async fn a_tier_that_fails_on_command_takes_many_keys_as_one_call() {
    let inner = InMemoryPipelineCache::new();
    inner.put(&key(1), Artifact::new("code")).await.unwrap();
    let faulty = FaultyStore::over("faulty", Arc::new(inner));
    let keys = [key(1), key(2)];
    let answers = faulty.fetch_many(&keys).await;
    assert!(matches!(&answers[0], Ok(Fetched::Hit(found)) if found.payload() == "code"));
    assert!(matches!(&answers[1], Ok(Fetched::Miss)));

    faulty.set(StoreOperation::GetMany, Fault::Lie);
    let answers = faulty.fetch_many(&keys).await;
    assert!(matches!(&answers[0], Ok(Fetched::Hit(found)) if found.payload() != "code"));
    faulty.set(StoreOperation::GetMany, Fault::Corrupt);
    let answers = faulty.fetch_many(&keys).await;
    assert!(matches!(
        &answers[..],
        [Ok(Fetched::Corrupt(_)), Ok(Fetched::Corrupt(_))]
    ));
    faulty.set(
        StoreOperation::GetMany,
        Fault::Error(StoreErrorKind::Unavailable),
    );
    assert!(faulty.fetch_many(&keys).await.iter().all(Result::is_err));
    assert_eq!(faulty.calls(StoreOperation::GetMany), 4);
    assert_eq!(faulty.calls(StoreOperation::Get), 0);
}
