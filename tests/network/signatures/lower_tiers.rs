//! Tiers of different demands in one cache.

use pipeline_cache::signatures::TrustedSigners;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    DiskCache, InMemoryPipelineCache, LayeredPipelineCache, LookupOptions, LookupSource,
    PipelineCacheStore, StoreOperation, WritePolicy,
};
use std::sync::Arc;

use super::{KEY, artifact, branch_key, main_key, poison, signers};

async fn demanding(folder: &std::path::Path, signers: TrustedSigners) -> DiskCache {
    let disk = DiskCache::builder().trusted_signers(signers);
    disk.root(folder).open().await.unwrap()
}

/// Each hit below would otherwise be a write that fails.
#[tokio::test]
async fn what_a_lower_tier_serves_is_not_offered_to_one_that_would_refuse_it() {
    let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (lower, offered) in [
        (poison(), 0),
        (poison().signed(&KEY, &branch_key()), 0),
        (artifact().signed(&KEY, &main_key()), 1),
    ] {
        let plain = DiskCache::new(below.path()).await.unwrap();
        plain.remove(&KEY).await.unwrap();
        plain.put(&KEY, lower.clone()).await.unwrap();
        let demanding = demanding(above.path(), signers()).await;
        let cache = LayeredPipelineCache::builder()
            .tier(demanding.clone())
            .tier(plain)
            .build();
        for _ in 0..3 {
            let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
            assert_eq!(lookup.artifact(), Some(&lower));
            cache.flush().await.unwrap();
        }
        let report = cache.promotion_report();
        assert_eq!((report.events, report.failed), (offered, 0), "{report:?}");
        assert_eq!(demanding.metrics().rejected_puts, 0);
    }
}

/// A branch's artifact is served from the branch's tier, and kept in memory for the branch alone.
#[tokio::test]
async fn a_memory_tier_takes_nothing_of_a_signer_that_it_does_not_accept() {
    let folder = tempfile::tempdir().unwrap();
    let plain = DiskCache::new(folder.path()).await.unwrap();
    let of_branch = poison().signed(&KEY, &branch_key());
    plain.put(&KEY, of_branch.clone()).await.unwrap();
    let memory = InMemoryPipelineCache::new().trusting(signers());
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(plain)
        .build();
    for _ in 0..2 {
        let lookup = cache.lookup(&KEY, &LookupOptions::new()).await;
        assert_eq!(lookup.source(), Some(LookupSource::Tier(1)));
        cache.flush().await.unwrap();
    }
    assert_eq!(memory.metrics().rejected_puts, 0);
}

/// While an artifact is on its way to a tier, what is put under its key is taken for the same. That is
/// not for one of another signer: it would take the place of what was put.
#[tokio::test]
async fn what_is_put_is_not_replaced_by_what_is_promoted() {
    let (above, below) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plain = DiskCache::new(below.path()).await.unwrap();
    plain.put(&KEY, poison()).await.unwrap();
    let slow = Arc::new(FaultyStore::new("slow"));
    slow.set(StoreOperation::Put, Fault::Gate);
    let demanding = demanding(above.path(), signers()).await;
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&slow))
        .tier(demanding.clone())
        .tier(plain)
        .write_policy(WritePolicy::Behind)
        .signing_key(main_key())
        .build();
    assert_eq!(cache.get(&KEY).await, Some(poison()));
    // The promotion hangs, and the put does not.
    slow.called(StoreOperation::Put, 1).await;
    slow.set(StoreOperation::Put, Fault::None);
    cache.put(&KEY, artifact()).await.unwrap();
    slow.open(StoreOperation::Put, 1);
    cache.flush().await.unwrap();
    assert_eq!(demanding.get(&KEY).await.unwrap(), Some(artifact()));
}
