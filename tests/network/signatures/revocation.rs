//! A signer that is revoked is served no more.

use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore};

use super::{KEY, OTHER, all_signers, artifact, branch_key, main_key, revoked_key};

#[tokio::test]
async fn signers_are_rotated_and_revoked_while_readers_run() {
    let (old, new) = (revoked_key(), main_key());
    let signer = |name: &str, key: &SigningKey| Signer::new(name, "main", key.public_key());
    let signers = TrustedSigners::new([signer("old", &old)]);
    let folder = tempfile::tempdir().unwrap();
    let reader = DiskCache::builder()
        .trusted_signers(signers.clone())
        .root(folder.path())
        .open()
        .await
        .unwrap();
    let writer = DiskCache::new(folder.path()).await.unwrap();
    writer
        .put(&KEY, artifact().signed(&KEY, &old))
        .await
        .unwrap();
    writer
        .put(&OTHER, artifact().signed(&OTHER, &new))
        .await
        .unwrap();
    let is_served = async |key| reader.get(key).await.unwrap().is_some();
    assert!(is_served(&KEY).await && !is_served(&OTHER).await);
    signers.replace([signer("old", &old), signer("new", &new)]);
    assert!(is_served(&KEY).await && is_served(&OTHER).await);
    assert!(signers.revoke(&old.public_key()));
    assert!(!is_served(&KEY).await && is_served(&OTHER).await);
    // Nothing was lost by it.
    assert!(writer.get(&KEY).await.unwrap().is_some());
    assert_eq!(reader.metrics().corrupt, 0);
}

#[tokio::test]
async fn what_was_promoted_to_memory_is_not_served_once_its_signer_is_revoked() {
    let signers = TrustedSigners::new(all_signers());
    let folder = tempfile::tempdir().unwrap();
    let plain = DiskCache::new(folder.path()).await.unwrap();
    plain
        .put(&KEY, artifact().signed(&KEY, &main_key()))
        .await
        .unwrap();
    let disk = DiskCache::builder()
        .root(folder.path())
        .trusted_signers(signers.clone())
        .open()
        .await
        .unwrap();
    let memory = InMemoryPipelineCache::new().trusting(signers.clone());
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(disk)
        .build();
    assert!(cache.get(&KEY).await.is_some());
    cache.flush().await.unwrap();
    assert!(memory.peek(&KEY).is_some());
    signers.revoke(&main_key().public_key());
    assert!(memory.peek(&KEY).is_none());
    assert!(memory.get(&KEY).await.unwrap().is_none());
    assert!(cache.get(&KEY).await.is_none());
    // Another signer's artifact takes its place, though the bytes are the same.
    memory
        .put(&KEY, artifact().signed(&KEY, &branch_key()))
        .await
        .unwrap();
    assert!(memory.peek(&KEY).is_some());
}
