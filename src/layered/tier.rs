//! A tier as the layered store sees it: its calls cannot panic and cannot hang.

use futures::FutureExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use super::flight::panic_message;
use super::metrics::{TierCounters, TierMetrics};
use crate::{
    Artifact, Fetched, Locality, PipelineCacheStore, PipelineFingerprint, StoreError,
    StoreErrorKind, StoreOperation,
};

#[derive(Debug)]
pub(super) struct Tier {
    pub(super) store: Arc<dyn PipelineCacheStore>,
    pub(super) locality: Locality,
    pub(super) counters: TierCounters,
    name: String,
}

impl Tier {
    pub(super) fn new(store: Arc<dyn PipelineCacheStore>) -> Self {
        Self {
            locality: store.locality(),
            counters: TierCounters::new(),
            name: store.to_string(),
            store,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn metrics(&self) -> TierMetrics {
        self.counters.snapshot(&self.name, self.store.metrics())
    }

    /// Whether the tier takes an artifact of this size.
    pub(super) fn takes(&self, artifact: &Artifact) -> bool {
        self.store.is_writable() && artifact.len() as u64 <= self.store.max_artifact_bytes()
    }

    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        catch_unwind(AssertUnwindSafe(|| self.store.peek(key))).unwrap_or_else(|panic| {
            let error = self.panicked(StoreOperation::Get, &panic_message(&*panic));
            tracing::error!(tier = self.name, %error, "a tier panicked");
            None
        })
    }

    pub(super) async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.guard(StoreOperation::Get, async { self.store.fetch(key).await })
            .await
    }

    pub(super) async fn put(
        &self,
        key: &PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        self.guard(StoreOperation::Put, async {
            self.store.put(key, artifact).await
        })
        .await
    }

    pub(super) async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.guard(StoreOperation::Contains, async {
            self.store.contains(key).await
        })
        .await
    }

    pub(super) async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.guard(StoreOperation::Remove, async {
            self.store.remove(key).await
        })
        .await
    }

    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.guard(StoreOperation::Flush, async { self.store.flush().await })
            .await
    }

    pub(super) async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        let close = self.guard(StoreOperation::Close, async {
            self.store.close(deadline).await
        });
        // The tier keeps its own deadline, or is given up here a little later.
        let grace = deadline.saturating_add(Duration::from_millis(100));
        match timeout(grace, close).await {
            Ok(closed) => closed,
            Err(_) => Err(self.timed_out(StoreOperation::Close)),
        }
    }

    pub(super) fn timed_out(&self, operation: StoreOperation) -> StoreError {
        StoreError::new(StoreErrorKind::TimedOut, self.name.clone(), operation)
    }

    fn panicked(&self, operation: StoreOperation, message: &str) -> StoreError {
        StoreError::new(StoreErrorKind::Panicked, self.name.clone(), operation).with_source(message)
    }

    /// A panic in a tier is the failure of that tier, not of its neighbours.
    async fn guard<T>(
        &self,
        operation: StoreOperation,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match AssertUnwindSafe(call).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => Err(self.panicked(operation, &panic_message(&*panic))),
        }
    }
}
