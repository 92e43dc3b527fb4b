//! What a tier could not take is offered to it again, and no flush says that all is well before it
//! is there.

use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, LayeredPipelineCacheBuilder,
    PipelineCacheStore, PipelineFingerprint, StoreErrorKind, StoreOperation,
};
use std::sync::Arc;
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
