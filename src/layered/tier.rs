//! A tier as the layered store sees it: a panic in a call is an error of that call.

use futures::FutureExt as _;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

use super::metrics::{TierCounters, TierMetrics};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{
    CompileLease, Fetched, Locality, PipelineCacheMetrics, PipelineCacheStore, StoreError,
    StoreErrorKind, StoreOperation, WriteIntents,
};
use crate::sync::single_flight::panic_message;
use crate::sync::trouble::Trouble;

/// How long before a lease is granted none must have failed for the trouble with leases to end.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Tier {
    pub(super) store: Arc<dyn PipelineCacheStore>,
    pub(super) locality: Locality,
    pub(super) counters: TierCounters,
    /// When leases that it did not grant are logged.
    lease_trouble: Trouble,
    name: String,
}

impl Tier {
    pub(super) fn new(store: Arc<dyn PipelineCacheStore>) -> Self {
        Self {
            locality: store.locality(),
            counters: TierCounters::default(),
            lease_trouble: Trouble::new(QUIET),
            name: store.to_string(),
            store,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn metrics(&self) -> TierMetrics {
        let store = self
            .catch_panic_now(|| self.store.metrics())
            .unwrap_or_default();
        let aliases = || {
            let stores = self.store.alias_stores();
            let none = PipelineCacheMetrics::default();
            let metrics = stores.iter().map(|store| store.metrics());
            metrics.fold(none, |sum, of_store| sum.saturating_add(&of_store))
        };
        let aliases = self.catch_panic_now(aliases).unwrap_or_default();
        self.counters.snapshot(&self.name, store, aliases)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.catch_panic_now(|| self.store.is_writable())
            .unwrap_or(false)
    }

    pub(super) fn is_trusted_source(&self) -> bool {
        self.catch_panic_now(|| self.store.is_trusted_source())
            .unwrap_or(false)
    }

    pub(super) fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        self.catch_panic_now(|| self.store.alias_stores())
            .unwrap_or_default()
    }

    /// Whether the tier takes writes, and an artifact of this size.
    pub(super) fn takes(&self, artifact: &Artifact) -> bool {
        self.is_writable() && artifact.len() as u64 <= self.max_artifact_bytes()
    }

    /// The largest artifact the tier takes; zero if it takes no writes.
    pub(super) fn max_artifact_bytes(&self) -> u64 {
        let limit = self.catch_panic_now(|| self.store.max_artifact_bytes());
        limit.filter(|_| self.is_writable()).unwrap_or(0)
    }

    /// Whether the tier serves artifacts of whoever signed this one.
    pub(super) fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.catch_panic_now(|| self.store.accepts_maker(artifact))
            .unwrap_or(false)
    }

    #[inline]
    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<Artifact> {
        self.catch_panic_now(|| self.store.peek(key)).flatten()
    }

    /// Makes a call that does not wait; `None` if it panics.
    #[inline]
    fn catch_panic_now<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(call))
            .inspect_err(|panic| {
                let message = panic_message(&**panic);
                tracing::error!(tier = self.name, %message, "tier panicked; the call counts as no answer");
            })
            .ok()
    }

    pub(super) async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.catch_panic(StoreOperation::Get, async { self.store.fetch(key).await })
            .await
    }

    /// As many answers as keys, where the tier keeps its contract.
    pub(super) async fn fetch_many(
        &self,
        keys: &[PipelineFingerprint],
    ) -> Vec<Result<Fetched, StoreError>> {
        let call = async { Ok(self.store.fetch_many(keys).await) };
        let answers = self.catch_panic(StoreOperation::GetMany, call).await;
        answers.unwrap_or_else(|error| vec![Err(error); keys.len()])
    }

    pub(super) async fn put(
        &self,
        key: &PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        self.catch_panic(StoreOperation::Put, async {
            self.store.put(key, artifact).await
        })
        .await
    }

    pub(super) async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.catch_panic(StoreOperation::Contains, async {
            self.store.contains(key).await
        })
        .await
    }

    pub(super) async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.catch_panic(StoreOperation::Remove, async {
            self.store.remove(key).await
        })
        .await
    }

    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.catch_panic(StoreOperation::Flush, async { self.store.flush().await })
            .await
    }

    pub(super) async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        let close = self.catch_panic(StoreOperation::Close, async {
            self.store.close(deadline).await
        });
        // The tier keeps its own deadline, or is given up here a little later.
        let grace = deadline.saturating_add(Duration::from_millis(100));
        match timeout(grace, close).await {
            Ok(closed) => closed,
            Err(_) => Err(self.timed_out(StoreOperation::Close)),
        }
    }

    pub(super) fn grants_leases(&self) -> bool {
        self.catch_panic_now(|| self.store.compile_leases().is_some())
            .unwrap_or(false)
    }

    pub(super) async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.catch_panic(StoreOperation::CompileLease, async {
            match self.store.compile_leases() {
                Some(leases) => leases.compile_lease(key).await,
                None => Ok(None),
            }
        })
        .await
    }

    pub(super) fn write_intents(&self) -> Option<&dyn WriteIntents> {
        self.catch_panic_now(|| self.store.write_intents())
            .flatten()
    }

    /// Calls the tier for the intents that it keeps.
    pub(super) async fn intents<'a, T, F>(
        &'a self,
        call: impl FnOnce(&'a dyn WriteIntents) -> F + Send,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let operation = StoreOperation::WriteIntent;
        self.catch_panic(operation, async {
            match self.store.write_intents() {
                Some(intents) => call(intents).await,
                None => Err(self.error(StoreErrorKind::ReadOnly, operation)),
            }
        })
        .await
    }

    /// No compile can be shared while a server is ill, so only the first is a warning.
    pub(super) fn log_lease_failure(&self, key: &PipelineFingerprint, error: &StoreError) {
        if self.lease_trouble.failed() {
            tracing::warn!(
                tier = self.name, %key, error = %format_args!("{error:#}"),
                "no compile lease: another process may compile the same key; further failures are \
                 logged at debug level until a lease is granted"
            );
        } else {
            tracing::debug!(tier = self.name, %key, error = %format_args!("{error:#}"), "no compile lease");
        }
    }

    pub(super) fn log_lease_success(&self) {
        if let Some(ended) = self.lease_trouble.succeeded() {
            let (failed, lasted) = (ended.failed, ended.lasted);
            tracing::info!(
                tier = self.name,
                failed,
                ?lasted,
                "compile leases are granted again"
            );
        }
    }

    pub(super) fn forget_miss(&self, key: &PipelineFingerprint) {
        self.catch_panic_now(|| self.store.forget_miss(key));
    }

    pub(super) fn timed_out(&self, operation: StoreOperation) -> StoreError {
        self.error(StoreErrorKind::TimedOut, operation)
    }

    pub(super) fn error(&self, kind: StoreErrorKind, operation: StoreOperation) -> StoreError {
        StoreError::new(kind, self.name.clone(), operation)
    }

    fn panicked(&self, operation: StoreOperation, message: &str) -> StoreError {
        self.error(StoreErrorKind::Panicked, operation)
            .with_source(message)
    }

    /// A panic in a tier is a failure of that tier alone.
    async fn catch_panic<T>(
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

/// The names of the tiers of a cache, and a short label for each. A clone shares them.
#[derive(Debug, Clone)]
pub(super) struct TierNames(Arc<[(String, String)]>);

impl TierNames {
    pub(super) fn of(tiers: &[Tier]) -> Self {
        let labels = unique(tiers.iter().map(|tier| kind(&tier.name).to_owned()));
        let names = tiers.iter().map(|tier| tier.name.clone());
        Self(names.zip(labels).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn name(&self, tier: usize) -> &str {
        &self.0[tier].0
    }

    pub(super) fn label(&self, tier: usize) -> &str {
        &self.0[tier].1
    }
}

/// The kind of a tier, out of a name such as `disk(/var/cache)`. Folders and URLs are too long for
/// a label, and may be nobody else's business.
pub(super) fn kind(tier: &str) -> &str {
    let kind = tier.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
    kind.into_iter()
        .find(|kind| !kind.is_empty())
        .unwrap_or("tier")
}

/// The labels, numbered where one comes again.
pub(super) fn unique(wanted: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken = HashSet::new();
    let unique = wanted.map(|wanted| {
        let numbered = (2..).map(|number: u32| format!("{wanted}_{number}"));
        let mut labels = std::iter::once(wanted.clone()).chain(numbered);
        // The labels are endless, and those taken are not.
        labels
            .find(|label| taken.insert(label.clone()))
            .unwrap_or_default()
    });
    unique.collect()
}

/// The name of a layered store: that of each of its tiers, in order.
pub(super) fn stack_name(tiers: &[Tier]) -> String {
    let names: Vec<_> = tiers.iter().map(Tier::name).collect();
    format!("layered({})", names.join(", "))
}
