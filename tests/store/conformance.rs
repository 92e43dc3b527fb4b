//! Every tier and wrapper of this crate keeps the contract that a user's own tier is held to.

use async_trait::async_trait;
use pipeline_cache::testing::{FaultyStore, check_conformance};
use pipeline_cache::{
    Artifact, DiskCache, Fetched, InMemoryPipelineCache, LayeredPipelineCache,
    PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, SharedSecret, StoreError,
    WritePolicy,
};
use std::fmt;
use std::sync::{Arc, Mutex};

fn memory() -> Arc<dyn PipelineCacheStore> {
    Arc::new(InMemoryPipelineCache::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_tier_conforms() {
    check_conformance(|| async { memory() }, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_that_fails_on_command_conforms_when_it_is_not_told_to() {
    let new_store = || async { Arc::new(FaultyStore::new("faulty")) as _ };
    check_conformance(new_store, &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layered_store_conforms_under_every_write_policy() {
    for policy in [
        WritePolicy::First,
        WritePolicy::Through,
        WritePolicy::Behind,
    ] {
        let new_store = || async move {
            let cache = LayeredPipelineCache::builder()
                .tier(memory())
                .tier(Arc::new(FaultyStore::new("slow")))
                .write_policy(policy)
                .build();
            Arc::new(cache) as Arc<dyn PipelineCacheStore>
        };
        check_conformance(new_store, &[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_tier_conforms() {
    let folders = Mutex::new(Vec::new());
    let new_store = || async {
        let folder = tempfile::tempdir().unwrap();
        let cache = DiskCache::builder()
            .root(folder.path())
            .shared_secret(SharedSecret::new("hunter2"))
            .open()
            .await
            .unwrap();
        folders.lock().unwrap().push(folder);
        Arc::new(cache) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(new_store, &["hunter2"]).await.unwrap();
}

/// What a broken tier does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Vice {
    ServesPrefixes,
    ForgetsParts,
    MixesUpKeys,
    MixesUpAnswers,
    BlocksItsThread,
    TellsSecrets,
    ForgetsToRemove,
    Hangs,
    CountsNothing,
    TakesWritesWhenClosed,
    TakesAnySize,
}

/// A tier with one vice, around a sound one.
#[derive(Debug)]
struct Vicious {
    inner: InMemoryPipelineCache,
    vice: Vice,
}

impl fmt::Display for Vicious {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.vice == Vice::TellsSecrets {
            "hunter2"
        } else {
            "..."
        };
        write!(f, "vicious({secret})")
    }
}

impl Vicious {
    fn key(&self, key: &PipelineFingerprint) -> PipelineFingerprint {
        let mut bytes = *key.as_bytes();
        if self.vice == Vice::MixesUpKeys {
            bytes[31] &= !1;
        }
        PipelineFingerprint::from_bytes(bytes)
    }
}

#[async_trait]
impl PipelineCacheStore for Vicious {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        if self.vice == Vice::BlocksItsThread {
            std::thread::sleep(std::time::Duration::from_millis(80));
        }
        let found = self.inner.get(&self.key(key)).await?;
        if self.vice == Vice::ServesPrefixes {
            return Ok(Fetched::from(found.map(|found| {
                let half = found.payload().slice(..found.len() / 2);
                Artifact::with_metadata(half, found.metadata().clone())
            })));
        }
        if self.vice == Vice::ForgetsParts {
            return Ok(Fetched::from(found.map(|found| {
                Artifact::with_metadata(found.payload().clone(), found.metadata().clone())
            })));
        }
        Ok(Fetched::from(found))
    }

    async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
        let mut answers = Vec::new();
        for key in keys {
            answers.push(self.fetch(key).await);
        }
        if self.vice == Vice::MixesUpAnswers {
            answers.reverse();
        }
        answers
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.inner.put(&self.key(key), artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.contains(&self.key(key)).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        match self.vice {
            Vice::ForgetsToRemove => self.inner.contains(key).await,
            _ => self.inner.remove(&self.key(key)).await,
        }
    }

    async fn close(&self, deadline: std::time::Duration) -> Result<(), StoreError> {
        match self.vice {
            Vice::TakesWritesWhenClosed => Ok(()),
            Vice::Hangs => std::future::pending().await,
            _ => self.inner.close(deadline).await,
        }
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        match self.vice {
            Vice::CountsNothing => PipelineCacheMetrics::default(),
            _ => self.inner.metrics(),
        }
    }

    fn max_artifact_bytes(&self) -> u64 {
        match self.vice {
            Vice::TakesAnySize => 1_000_000,
            _ => self.inner.max_artifact_bytes(),
        }
    }
}

/// The suite itself is held to its promise: each broken tier is caught, and for the right reason.
#[tokio::test(start_paused = true)]
async fn each_vice_is_caught() {
    let vices = [
        (
            Vice::ServesPrefixes,
            "a get returns the whole artifact that was put",
        ),
        (Vice::ForgetsParts, "a get returns the parts that were put"),
        (
            Vice::MixesUpKeys,
            "a get never returns another key's artifact",
        ),
        (
            Vice::MixesUpAnswers,
            "a fetch of many keys answers each of them, in their order",
        ),
        (Vice::BlocksItsThread, "no call keeps its thread"),
        (Vice::TellsSecrets, "secrets are never printed"),
        (Vice::ForgetsToRemove, "what was removed is gone"),
        (Vice::Hangs, "every call ends"),
        (Vice::CountsNothing, "lookups are counted"),
        (
            Vice::TakesWritesWhenClosed,
            "a closed tier takes no writes and harms nothing",
        ),
        (Vice::TakesAnySize, "what is too large is refused"),
    ];
    for (vice, promise) in vices {
        let new_store = || async move {
            let inner = InMemoryPipelineCache::with_limits(1_000, 70 << 20);
            Arc::new(Vicious { inner, vice }) as Arc<dyn PipelineCacheStore>
        };
        let broken = check_conformance(new_store, &["hunter2"])
            .await
            .unwrap_err();
        assert_eq!(broken.promise, promise, "{vice:?}: {broken}");
    }
}
