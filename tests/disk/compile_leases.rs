//! A compile lease lasts until others can find the artifact, and nobody waits in a
//! circle for one.

use crate::support::{STAGING, artifact, folder, key, names};
use async_trait::async_trait;
use pipeline_cache::{
    Artifact, CompileLease, CompileLeases, CompileSource, DiskCache, Fetched, LayeredPipelineCache,
    PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError,
};
use std::convert::Infallible;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

async fn disk(root: &Path) -> DiskCache {
    let disk = DiskCache::builder().root(root);
    disk.compile_locks().open().await.unwrap()
}

fn lock_files(root: &Path) -> usize {
    let names = names(root.join(STAGING));
    names
        .iter()
        .filter(|name| name.ends_with(".compile"))
        .count()
}

/// The clock moves on only when there is nothing to be done but to wait.
#[cfg(feature = "testing")]
#[tokio::test(start_paused = true)]
async fn a_lease_lasts_until_the_store_below_has_written_the_artifact() {
    use crate::support::entry;
    use pipeline_cache::testing::{Fault, FaultyStore};
    use pipeline_cache::{InMemoryPipelineCache, StoreOperation, WritePolicy};
    use tokio::time::timeout;

    let folder = folder();
    let gated = Arc::new(disk(folder.path()).await);
    let gate = Arc::new(FaultyStore::over("gate", gated));
    gate.set(StoreOperation::Put, Fault::Gate);
    let below = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&gate))
        .write_policy(WritePolicy::Behind)
        .build();
    let above = LayeredPipelineCache::builder().tier(below.clone()).build();
    let compile = || async { Ok::<_, Infallible>(artifact(10)) };
    let compiled = above.get_or_insert_with(&key(1), compile).await.unwrap();
    assert_eq!(compiled.source, CompileSource::Compiled);
    while above.write_behind_report().pending > 0 {
        tokio::task::yield_now().await;
    }
    // The memory below has it, and the disk has not.
    let other = disk(folder.path()).await;
    let patience = Duration::from_secs(10);
    assert!(
        timeout(patience, other.compile_lease(&key(1)))
            .await
            .is_err()
    );
    assert!(!entry(folder.path(), &key(1)).exists());

    gate.open(StoreOperation::Put, 1);
    let lease = timeout(patience, other.compile_lease(&key(1)))
        .await
        .unwrap();
    assert!(lease.unwrap().is_some());
    assert!(entry(folder.path(), &key(1)).exists());
    below.flush().await.unwrap();
}

/// A tier that gives every lease, and tells who asked.
#[derive(Debug)]
struct Asked {
    name: &'static str,
    log: Arc<Mutex<Vec<&'static str>>>,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[async_trait]
impl PipelineCacheStore for Asked {
    async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        Ok(Fetched::Miss)
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

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        Some(self)
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
}

#[async_trait]
impl CompileLeases for Asked {
    async fn compile_lease(
        &self,
        _: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.log.lock().unwrap().push(self.name);
        Ok(Some(CompileLease::new(())))
    }
}

/// Two that took them in two orders could each wait for what the other has.
#[tokio::test]
async fn leases_are_taken_in_one_order_whatever_that_of_the_tiers() {
    let compile = || async { Ok::<_, Infallible>(artifact(10)) };
    for order in [["a", "b", "c"], ["c", "a", "b"], ["b", "c", "a"]] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let asked = order.map(|name| Asked {
            name,
            log: Arc::clone(&log),
        });
        let cache = LayeredPipelineCache::new(asked.map(|tier| Arc::new(tier) as _));
        cache.get_or_insert_with(&key(1), compile).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["a", "b", "c"]);
        CompileLeases::compile_lease(&cache, &key(2)).await.unwrap();
        assert_eq!(log.lock().unwrap()[3..], ["a", "b", "c"]);
    }
}

#[tokio::test]
async fn a_cache_with_no_compile_wait_acquires_no_lease() {
    let folder = folder();
    let compile = || async { Ok::<_, Infallible>(artifact(10)) };
    let leading = disk(folder.path()).await;
    let lease = leading.compile_lease(&key(1)).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(disk(folder.path()).await)
        .max_compile_wait(Duration::ZERO)
        .build();
    for number in [1, 2] {
        let compiled = cache.get_or_insert_with(&key(number), compile).await;
        assert_eq!(compiled.unwrap().source, CompileSource::Compiled);
    }
    let metrics = cache.layered_metrics();
    assert_eq!(metrics.unshared_compiles, 0);
    assert_eq!(metrics.tiers[0].store.awaited_compiles, 0);
    assert_eq!(lock_files(folder.path()), 1);
    drop(lease);
}

#[tokio::test]
async fn a_closed_tier_gives_no_lease() {
    let folder = folder();
    let cache = disk(folder.path()).await;
    cache.close(Duration::from_secs(60)).await.unwrap();
    assert!(cache.compile_lease(&key(1)).await.unwrap().is_none());
    assert!(!folder.path().join(STAGING).exists() || lock_files(folder.path()) == 0);
}
