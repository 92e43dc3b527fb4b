//! What a flush or a close says of writes behind that went down with their runtime, and how the cache
//! goes on without it.

use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
    PipelineFingerprint, StoreErrorKind, StoreOperation, WritePolicy,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

const PUTS: u8 = 50;

fn key(n: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([n; 32])
}

fn artifact() -> Artifact {
    Artifact::new("code")
}

fn runtime() -> Runtime {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

/// Memory above this tier.
fn above(lower: impl PipelineCacheStore + 'static) -> LayeredPipelineCache {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(lower)
        .write_policy(WritePolicy::Behind)
        .build()
}

/// Puts on a runtime that is shut down before the lower tier has them.
async fn put_all(cache: &LayeredPipelineCache) {
    for n in 0..PUTS {
        cache.put(&key(n), artifact()).await.unwrap();
    }
}

/// A cache whose writes behind were lost, and its lower tier.
fn after_a_loss() -> (LayeredPipelineCache, Arc<FaultyStore>) {
    let lower = Arc::new(FaultyStore::new("lower"));
    lower.set(StoreOperation::Put, Fault::Hang);
    let cache = above(Arc::clone(&lower));
    runtime().block_on(put_all(&cache));
    lower.set(StoreOperation::Put, Fault::None);
    (cache, lower)
}

#[test]
fn a_flush_tells_once_how_many_puts_were_lost_with_their_runtime() {
    let (cache, lower) = after_a_loss();
    runtime().block_on(async {
        let error = cache.flush().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Lost);
        let told = format!("{error:#}");
        assert!(told.contains("50 puts"), "{told}");
        cache.flush().await.unwrap();
        let report = cache.write_behind_report();
        assert_eq!((report.accepted, report.dropped, report.lost), (50, 50, 50));

        cache.put(&key(100), artifact()).await.unwrap();
        cache.flush().await.unwrap();
        assert_eq!(lower.get(&key(100)).await.unwrap(), Some(artifact()));
    });
}

#[test]
fn a_close_after_a_loss_is_not_clean() {
    let (cache, _) = after_a_loss();
    runtime().block_on(async {
        let report = cache.close(Duration::from_secs(5)).await;
        assert!(!report.is_clean());
        assert_eq!(report.errors[0].kind(), StoreErrorKind::Lost);
        assert!(cache.close(Duration::from_secs(5)).await.is_clean());
    });
}

#[test]
fn a_loss_is_told_beside_a_failure() {
    let (cache, lower) = after_a_loss();
    lower.set(StoreOperation::Put, Fault::Error(StoreErrorKind::Io));
    runtime().block_on(async {
        cache.put(&key(100), artifact()).await.unwrap();
        assert_eq!(
            cache.flush().await.unwrap_err().kind(),
            StoreErrorKind::Lost
        );
        assert_eq!(cache.flush().await.unwrap_err().kind(), StoreErrorKind::Io);
        lower.set(StoreOperation::Put, Fault::None);
        cache.flush().await.unwrap();
    });
}

#[test]
fn what_was_given_up_on_purpose_is_no_loss() {
    let lower = Arc::new(FaultyStore::new("lower"));
    lower.set(StoreOperation::Put, Fault::Hang);
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&lower))
        .background_concurrency(1)
        .write_timeout(Duration::from_millis(50))
        .build();
    runtime().block_on(async {
        cache.put(&key(1), artifact()).await.unwrap();
        lower.called(StoreOperation::Put, 1).await;
        // It waits for its turn.
        cache.put(&key(2), artifact()).await.unwrap();
        PipelineCacheStore::remove(&cache, &key(2)).await.unwrap();
        let error = cache.flush().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::TimedOut);
        lower.set(StoreOperation::Put, Fault::None);
        cache.flush().await.unwrap();
        assert_eq!(cache.write_behind_report().lost, 0);
    });
}

/// The first try fails, and the key is removed before the try that it owes.
#[test]
fn a_failed_write_of_a_key_that_was_removed_meanwhile_fails_no_flush() {
    let failing = Arc::new(FaultyStore::new("failing"));
    failing.set(StoreOperation::Put, Fault::Error(StoreErrorKind::Io));
    let gate = Arc::new(FaultyStore::over("gate", Arc::clone(&failing) as _));
    gate.set(StoreOperation::Put, Fault::Gate);
    let cache = above(Arc::clone(&gate));
    runtime().block_on(async {
        cache.put(&key(1), artifact()).await.unwrap();
        gate.called(StoreOperation::Put, 1).await;
        // Joins the write, which owes it a try.
        cache.put(&key(1), artifact()).await.unwrap();
        let removal = tokio::spawn({
            let cache = cache.clone();
            async move { PipelineCacheStore::remove(&cache, &key(1)).await }
        });
        // The removal blocks the key before the try ends.
        tokio::task::yield_now().await;
        gate.open(StoreOperation::Put, 100);
        removal.await.unwrap().unwrap();
        cache.flush().await.unwrap();
        let report = cache.write_behind_report();
        assert_eq!((report.dropped, report.failed, report.lost), (1, 0, 0));
    });
}

#[test]
fn a_folder_whose_runtime_is_gone_works_on_that_of_the_caller() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, cache) = runtime().block_on(async {
        let disk = DiskCache::builder().root(folder.path()).max_entries(1000);
        let disk = disk.open().await.unwrap();
        let cache = above(disk.clone());
        put_all(&cache).await;
        (disk, cache)
    });
    runtime().block_on(async {
        let mut on_disk = 0;
        for n in 0..PUTS {
            on_disk += u32::from(disk.contains(&key(n)).await.unwrap());
        }
        let lost = u32::from(PUTS) - on_disk;
        let flushed = cache.flush().await;
        match lost {
            0 => flushed.unwrap(),
            _ => {
                let told = format!("{:#}", flushed.unwrap_err());
                assert!(told.contains(" put"), "{told}");
            }
        }
        put_all(&cache).await;
        cache.flush().await.unwrap();
        for n in 0..PUTS {
            assert_eq!(disk.get(&key(n)).await.unwrap(), Some(artifact()));
        }
        assert!(disk.durability_report().durable);
        disk.trim().await.unwrap();
        assert!(cache.close(Duration::from_secs(10)).await.is_clean());
    });
}

/// A put on another runtime goes on with what the task of the first one left.
#[test]
fn a_put_offers_again_what_the_last_runtime_left() {
    let lower = Arc::new(FaultyStore::new("lower"));
    let cache = above(Arc::clone(&lower));
    let fault = Fault::Error(StoreErrorKind::Unavailable);
    lower.set(StoreOperation::Put, fault);
    runtime().block_on(async {
        cache.put(&key(0), artifact()).await.unwrap();
        cache.flush().await.unwrap_err();
    });
    lower.set(StoreOperation::Put, Fault::None);
    let mut paused = Builder::new_current_thread();
    let paused = paused.enable_all().start_paused(true).build().unwrap();
    paused.block_on(async {
        cache.put(&key(1), artifact()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(lower.contains(&key(0)).await.unwrap());
    });
}
