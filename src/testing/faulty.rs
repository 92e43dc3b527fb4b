//! A tier that fails on command.

use async_trait::async_trait;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;
use crate::memory::InMemoryPipelineCache;
use crate::store::{
    CompileLease, CompileLeases, Fetched, Locality, PipelineCacheMetrics, PipelineCacheStore,
    StoreError, StoreErrorKind, StoreOperation, WriteIntents,
};
use crate::sync::lock::lock;

/// What happens to the calls of one operation.
///
/// See [`FaultyStore`] for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: the call goes through.
    #[default]
    None,
    /// The call goes through after this time.
    Latency(Duration),
    /// The call fails.
    Error(StoreErrorKind),
    /// Every n-th call fails: calls 1, 1 + n, 1 + 2n, …
    Sometimes(StoreErrorKind, u64),
    /// The call never answers.
    Hang,
    /// The call panics.
    Panic,
    /// A get finds a corrupt entry. Other calls go through.
    Corrupt,
    /// A get that finds an artifact serves another, whole and sound: bytes that were never put.
    /// Only a recompile can tell. Other calls go through.
    Lie,
    /// The call waits for [`FaultyStore::open`], then goes through.
    Gate,
}

/// A tier around another, whose calls are counted and can be made to fail, hang, wait or panic. Needs
/// the feature `testing`.
///
/// It never answers a [`peek`](PipelineCacheStore::peek), so that every lookup is a call.
///
/// ```
/// use pipeline_cache::testing::{Fault, FaultyStore};
/// use pipeline_cache::{
///     LayeredPipelineCache, LookupOptions, PipelineFingerprint, StoreErrorKind, StoreOperation,
/// };
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let broken = Arc::new(FaultyStore::new("broken"));
/// broken.set(StoreOperation::Get, Fault::Error(StoreErrorKind::Io));
///
/// let cache = LayeredPipelineCache::new([broken.clone() as _]);
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let lookup = cache.lookup(&key, &LookupOptions::new()).await;
/// assert!(lookup.is_degraded());
/// assert_eq!(broken.calls(StoreOperation::Get), 1);
/// # }
/// ```
///
/// A mirror that others fill, whose hits are copied to no other tier, during an outage:
///
/// ```
/// use pipeline_cache::testing::{Fault, FaultyStore};
/// use pipeline_cache::{
///     Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
///     PipelineFingerprint, StoreErrorKind, StoreOperation,
/// };
/// use std::sync::Arc;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), pipeline_cache::StoreError> {
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// let theirs = Arc::new(InMemoryPipelineCache::new());
/// theirs.put(&key, Artifact::new("code")).await?;
/// let mirror = FaultyStore::over("mirror", theirs).network().read_only().untrusted();
/// let mirror = Arc::new(mirror);
/// let memory = InMemoryPipelineCache::new();
/// let cache = LayeredPipelineCache::builder()
///     .tier(memory.clone())
///     .shared_tier(mirror.clone())
///     .build();
///
/// mirror.set_all(Fault::Error(StoreErrorKind::Unreachable));
/// assert_eq!(cache.get(&key).await, None);
///
/// // The answer comes when the test lets it, which knows by then that the call was made.
/// mirror.set_all(Fault::None);
/// mirror.set(StoreOperation::Get, Fault::Gate);
/// let (found, ()) = tokio::join!(cache.get(&key), async {
///     mirror.called(StoreOperation::Get, 2).await;
///     mirror.open(StoreOperation::Get, 1);
/// });
/// assert_eq!(found, Some(Artifact::new("code")));
/// cache.flush().await?;
/// assert_eq!(memory.get(&key).await?, None);
/// # Ok(())
/// # }
/// ```
pub struct FaultyStore {
    name: String,
    inner: Arc<dyn PipelineCacheStore>,
    locality: Locality,
    writable: bool,
    trusted: bool,
    faults: Mutex<HashMap<StoreOperation, Fault>>,
    gates: Mutex<HashMap<StoreOperation, Arc<Semaphore>>>,
    calls: watch::Sender<HashMap<StoreOperation, u64>>,
}

impl FaultyStore {
    /// A faultless local tier over memory.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self::over(name, Arc::new(InMemoryPipelineCache::new()))
    }

    /// A faultless local tier over another.
    #[must_use]
    pub fn over(name: impl Into<String>, inner: Arc<dyn PipelineCacheStore>) -> Self {
        Self {
            name: name.into(),
            inner,
            locality: Locality::Local,
            writable: true,
            trusted: true,
            faults: Mutex::default(),
            gates: Mutex::default(),
            calls: watch::Sender::default(),
        }
    }

    /// Makes it a network tier.
    #[must_use]
    pub const fn network(mut self) -> Self {
        self.locality = Locality::Network;
        self
    }

    /// Makes it say that it takes no writes. Writes that come all the same go through.
    #[must_use]
    pub const fn read_only(mut self) -> Self {
        self.writable = false;
        self
    }

    /// Makes it a tier whose hits may not be promoted.
    #[must_use]
    pub const fn untrusted(mut self) -> Self {
        self.trusted = false;
        self
    }

    /// Sets what happens to the calls of an operation from now on.
    pub fn set(&self, operation: StoreOperation, fault: Fault) {
        lock(&self.faults).insert(operation, fault);
    }

    /// Sets what happens to every call from now on.
    pub fn set_all(&self, fault: Fault) {
        use StoreOperation::{Close, CompileLease, Contains, Flush, Get, GetMany, Put, Remove};
        for operation in [
            Get,
            GetMany,
            Put,
            Contains,
            Remove,
            Flush,
            Close,
            CompileLease,
        ] {
            self.set(operation, fault);
        }
    }

    /// Lets this many calls through the gate of an operation, now or when they come.
    pub fn open(&self, operation: StoreOperation, calls: usize) {
        self.gate(operation).add_permits(calls);
    }

    /// How many calls of an operation have come.
    #[must_use]
    pub fn calls(&self, operation: StoreOperation) -> u64 {
        self.calls.borrow().get(&operation).copied().unwrap_or(0)
    }

    /// Waits until this many calls of an operation have come.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn called(&self, operation: StoreOperation, calls: u64) {
        let mut watch = self.calls.subscribe();
        let reached = watch
            .wait_for(|counts| counts.get(&operation).copied().unwrap_or(0) >= calls)
            .await;
        debug_assert!(reached.is_ok(), "the sender is this store's own");
    }

    fn gate(&self, operation: StoreOperation) -> Arc<Semaphore> {
        let mut gates = lock(&self.gates);
        let gate = gates
            .entry(operation)
            .or_insert_with(|| Arc::new(Semaphore::new(0)));
        Arc::clone(gate)
    }

    /// Counts the call and does to it what is set; returns what that was.
    async fn suffer(
        &self,
        operation: StoreOperation,
        key: Option<&PipelineFingerprint>,
    ) -> Result<Fault, StoreError> {
        let mut call = 0;
        self.calls.send_modify(|counts| {
            let count = counts.entry(operation).or_default();
            *count += 1;
            call = *count;
        });
        let fault = lock(&self.faults).get(&operation).copied();
        let fault = fault.unwrap_or_default();
        match fault {
            Fault::None | Fault::Corrupt | Fault::Lie => {}
            Fault::Sometimes(kind, every) => {
                if call % every.max(1) == 1 % every.max(1) {
                    return Err(self.failed(kind, operation, key));
                }
            }
            Fault::Latency(latency) => tokio::time::sleep(latency).await,
            Fault::Error(kind) => return Err(self.failed(kind, operation, key)),
            Fault::Hang => std::future::pending().await,
            Fault::Panic => panic!("{} was told to panic", self.name),
            Fault::Gate => {
                let passed = self.gate(operation).acquire_owned().await;
                // Used up: each permit lets one call through.
                passed
                    .into_iter()
                    .for_each(tokio::sync::OwnedSemaphorePermit::forget);
            }
        }
        Ok(fault)
    }

    fn corrupt(&self, key: &PipelineFingerprint) -> Fetched {
        tracing::warn!(%key, tier = %self, "corrupt entry, as the faulty tier was told");
        Fetched::Corrupt(FrameError::BadPayload)
    }

    /// A failure, logged where it begins, as every tier does.
    fn failed(
        &self,
        kind: StoreErrorKind,
        operation: StoreOperation,
        key: Option<&PipelineFingerprint>,
    ) -> StoreError {
        let error = StoreError::new(kind, self.name.clone(), operation);
        let key = key.map(tracing::field::display);
        tracing::warn!(key, %error, "the faulty tier failed as it was told to");
        error
    }
}

/// What is served in place of what was found.
fn spoilt(found: Fetched, fault: Fault) -> Fetched {
    match found {
        Fetched::Hit(_) if fault == Fault::Lie => Fetched::Hit(Artifact::new("a lie")),
        found => found,
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("name", &self.name)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl PipelineCacheStore for FaultyStore {
    fn peek(&self, _: &PipelineFingerprint) -> Option<Artifact> {
        None
    }

    async fn get(&self, key: &PipelineFingerprint) -> Result<Option<Artifact>, StoreError> {
        self.fetch(key).await.map(Fetched::into_artifact)
    }

    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let fault = self.suffer(StoreOperation::Get, Some(key)).await?;
        if fault == Fault::Corrupt {
            return Ok(self.corrupt(key));
        }
        self.inner
            .fetch(key)
            .await
            .map(|found| spoilt(found, fault))
    }

    /// One call of [`StoreOperation::GetMany`], whose fault is that of every key in it.
    async fn fetch_many(&self, keys: &[PipelineFingerprint]) -> Vec<Result<Fetched, StoreError>> {
        let fault = match self.suffer(StoreOperation::GetMany, None).await {
            Ok(fault) => fault,
            Err(error) => return vec![Err(error); keys.len()],
        };
        if fault == Fault::Corrupt {
            return keys.iter().map(|key| Ok(self.corrupt(key))).collect();
        }
        let found = self.inner.fetch_many(keys).await.into_iter();
        found
            .map(|found| found.map(|found| spoilt(found, fault)))
            .collect()
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.suffer(StoreOperation::Put, Some(key)).await?;
        self.inner.put(key, artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.suffer(StoreOperation::Contains, Some(key)).await?;
        self.inner.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.suffer(StoreOperation::Remove, Some(key)).await?;
        self.inner.remove(key).await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.suffer(StoreOperation::Flush, None).await?;
        self.inner.flush().await
    }

    async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.suffer(StoreOperation::Close, None).await?;
        self.inner.close(deadline).await
    }

    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        self.inner.compile_leases().is_some().then_some(self)
    }

    /// Those of the inner store, which suffer no faults of this one.
    fn write_intents(&self) -> Option<&dyn WriteIntents> {
        self.inner.write_intents()
    }

    fn forget_miss(&self, key: &PipelineFingerprint) {
        self.inner.forget_miss(key);
    }

    /// None: aliases that are kept in this store suffer its faults.
    fn alias_stores(&self) -> Vec<Arc<dyn PipelineCacheStore>> {
        Vec::new()
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.inner.metrics()
    }

    fn locality(&self) -> Locality {
        self.locality
    }

    fn is_writable(&self) -> bool {
        self.writable
    }

    fn is_trusted_source(&self) -> bool {
        self.trusted && self.inner.is_trusted_source()
    }

    fn max_artifact_bytes(&self) -> u64 {
        self.inner.max_artifact_bytes()
    }

    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.inner.accepts_maker(artifact)
    }
}

#[async_trait]
impl CompileLeases for FaultyStore {
    async fn compile_lease(
        &self,
        key: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.suffer(StoreOperation::CompileLease, Some(key)).await?;
        match self.inner.compile_leases() {
            Some(leases) => leases.compile_lease(key).await,
            None => Ok(None),
        }
    }
}
