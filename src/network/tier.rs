//! A tier across a network, whatever protocol its servers speak: what each response means to the
//! cache.
//!
//! Every call runs as a task from its start. A caller that no longer polls its future then holds no
//! request permit and no connection; a caller that drops its future aborts the task.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::backend::{Backend, Upload};
use super::breaker::{Breaker, BreakerState};
use super::call_policy::{Call, CallPolicy};
use super::healer::{self, Probed};
use super::remembered_misses::RememberedMisses;
use super::request_error::RequestError;
use super::requirement::Requirement;
use super::settings::NetworkSettings;
use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::metrics::{Counter, StoreCounters};
use crate::store::{Fetched, PipelineCacheMetrics, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::blocking;

#[derive(Debug)]
pub(crate) struct NetworkTier<B> {
    pub(crate) backend: B,
    /// As the tier prints itself.
    pub(crate) name: String,
    pub(crate) writes: bool,
    pub(crate) required: Requirement,
    /// Whether what it serves may be promoted to other tiers.
    pub(crate) promotable: bool,
    policy: CallPolicy,
    misses: Option<RememberedMisses>,
    closed: AtomicBool,
    counters: StoreCounters,
    remembered_misses: Counter,
    unauthenticated: Counter,
}

impl<B: Backend> NetworkTier<B> {
    pub(crate) fn new(
        name: String,
        backend: B,
        promotable: bool,
        settings: NetworkSettings,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend,
            name,
            writes: settings.writes,
            required: settings.required,
            promotable,
            policy: CallPolicy::new(settings.limits),
            misses: settings
                .remember_misses
                .map(|time| RememberedMisses::new(settings.max_remembered_misses, time)),
            closed: AtomicBool::new(false),
            counters: StoreCounters::default(),
            remembered_misses: Counter::default(),
            unauthenticated: Counter::default(),
        })
    }

    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.policy.breaker.state()
    }

    pub(crate) fn watch_breaker(&self) -> watch::Receiver<BreakerState> {
        self.policy.breaker.subscribe()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writes && !self.closed.load(Ordering::Acquire)
    }

    pub(crate) async fn fetch(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<Fetched, StoreError> {
        if self.is_remembered_miss(key) {
            self.counters.misses.increment();
            return Ok(Fetched::Miss);
        }
        let (tier, key) = (Arc::clone(self), *key);
        as_task(async move {
            let misses = tier.misses.as_ref();
            let lookup = misses.and_then(|misses| misses.begin_lookup(&key));
            let download = || tier.backend.download(&key);
            let fetched = tier.call(StoreOperation::Get, &key, download).await;
            let fetched = tier.count_lookup(&key, fetched);
            if let (Ok(Fetched::Miss), Some(lookup)) = (&fetched, lookup) {
                lookup.remember_miss();
            }
            fetched
        })
        .await
    }

    pub(crate) async fn put(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let (tier, key) = (Arc::clone(self), *key);
        as_task(async move {
            let result = tier.upload(&key, &artifact).await;
            tier.count_put(&result);
            result
        })
        .await
    }

    pub(crate) async fn contains(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        if self.is_remembered_miss(key) {
            return Ok(false);
        }
        let (tier, key) = (Arc::clone(self), *key);
        as_task(async move {
            let probe = || tier.backend.probe(&key);
            tier.call(StoreOperation::Contains, &key, probe).await
        })
        .await
    }

    pub(crate) async fn remove(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        self.check_writable(StoreOperation::Remove)?;
        let (tier, key) = (Arc::clone(self), *key);
        let removed = as_task(async move {
            let delete = || tier.backend.delete(&key);
            tier.call(StoreOperation::Remove, &key, delete).await
        });
        let removed = removed.await?;
        if removed {
            self.counters.removes.increment();
        }
        Ok(removed)
    }

    /// A put returns once the server has the artifact, so there is nothing to wait for.
    pub(crate) fn flush(&self) {
        self.counters.flushes.increment();
    }

    /// Takes no more writes.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn metrics(&self) -> PipelineCacheMetrics {
        let breaker = &self.policy.breaker;
        PipelineCacheMetrics {
            unauthenticated: self.unauthenticated.get(),
            remembered_misses: self.remembered_misses.get(),
            retries: self.policy.retries.get(),
            short_circuited: self.policy.short_circuited.get(),
            breaker_opened: breaker.opened.get(),
            breaker_closed: breaker.closed.get(),
            breakers_open: u64::from(breaker.state() != BreakerState::Closed),
            ..self.counters.snapshot()
        }
    }

    /// Makes the requests of a call, as the policy allows. The error names the tier.
    async fn call<T, F>(
        self: &Arc<Self>,
        operation: StoreOperation,
        key: &PipelineFingerprint,
        request: impl Fn() -> F + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        // However the call ends, also where it is dropped, it may have opened the breaker.
        let _heal = HealOnDrop(self);
        let call = Call {
            tier: &self.name,
            operation,
            key,
            credentials: &self.backend,
        };
        let result = self.policy.run(call, request).await;
        result.map_err(|error| {
            self.log(&call, &error);
            self.error(error.kind, operation).with_source(error)
        })
    }

    fn log(&self, call: &Call<'_>, error: &RequestError) {
        let Call { operation, key, .. } = call;
        let (tier, kind) = (&self.name, error.kind);
        // An open breaker and rejected credentials were logged once, when they began.
        if kind == StoreErrorKind::CircuitOpen {
            tracing::debug!(tier, %key, %operation, %kind, reason = %error, "request not sent: circuit breaker open");
        } else if error.blocks_credentials {
            tracing::debug!(tier, %key, %operation, %kind, reason = %error, "credentials rejected by the server");
        } else {
            tracing::warn!(tier, %key, %operation, %kind, reason = %error, "request failed");
        }
    }

    /// Counts a lookup. The entry of another reader, and what the settings refuse, is
    /// [`Fetched::Refused`].
    fn count_lookup(
        &self,
        key: &PipelineFingerprint,
        fetched: Result<Fetched, StoreError>,
    ) -> Result<Fetched, StoreError> {
        let counters = &self.counters;
        match &fetched {
            Err(_) => counters.errors.increment(),
            Ok(Fetched::Hit(artifact)) if !self.required.is_met_by(artifact.metadata()) => {
                const WHY: &str = "metadata does not match require_provenance or require_device";
                return Ok(self.refuse(key, &WHY));
            }
            Ok(Fetched::Hit(_)) => counters.hits.increment(),
            Ok(Fetched::Miss) => counters.misses.increment(),
            Ok(Fetched::Corrupt(reason)) => {
                if reason.is_unauthenticated() {
                    self.unauthenticated.increment();
                }
                if reason.is_foreign() {
                    return Ok(self.refuse(key, reason));
                }
                counters.misses.increment();
                counters.corrupt.increment();
                tracing::warn!(tier = self.name, %key, %reason, "corrupt entry not served");
            }
            // No backend judges more than the frame.
            Ok(Fetched::Refused) => return Ok(self.refuse(key, &"refused by the server's client")),
        }
        fetched
    }

    fn refuse(&self, key: &PipelineFingerprint, reason: &dyn fmt::Display) -> Fetched {
        self.counters.misses.increment();
        self.counters.refused.increment();
        tracing::debug!(tier = self.name, %key, %reason, "entry refused");
        Fetched::Refused
    }

    fn count_put(&self, result: &Result<(), StoreError>) {
        let counter = match result {
            Ok(()) => &self.counters.puts,
            Err(error) if error.kind() == StoreErrorKind::TooLarge => &self.counters.rejected_puts,
            Err(_) => &self.counters.put_errors,
        };
        counter.increment();
    }

    async fn upload(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<(), StoreError> {
        self.check_writable(StoreOperation::Put)?;
        let frame = self.backend.format().encode(key, artifact).await;
        let (head, payload) = frame.map_err(|reason| {
            let kind = match reason {
                FrameError::TooLarge => StoreErrorKind::TooLarge,
                _ => StoreErrorKind::InvalidArtifact,
            };
            self.error(kind, StoreOperation::Put).with_source(reason)
        })?;
        let upload = Upload { head, payload };
        // Whatever becomes of the upload, the entry may be there from its start.
        self.forget_miss(key);
        let request = || self.backend.upload(key, &upload);
        self.call(StoreOperation::Put, key, request).await?;
        // A lookup that began before the upload may have remembered its miss meanwhile.
        self.forget_miss(key);
        Ok(())
    }

    fn is_remembered_miss(&self, key: &PipelineFingerprint) -> bool {
        let is_remembered = self
            .misses
            .as_ref()
            .is_some_and(|misses| misses.contains(key));
        if is_remembered {
            self.remembered_misses.increment();
        }
        is_remembered
    }

    fn forget_miss(&self, key: &PipelineFingerprint) {
        if let Some(misses) = &self.misses {
            misses.forget(key);
        }
    }

    fn check_writable(&self, operation: StoreOperation) -> Result<(), StoreError> {
        let kind = if self.closed.load(Ordering::Acquire) {
            StoreErrorKind::Closed
        } else if self.writes {
            return Ok(());
        } else {
            StoreErrorKind::ReadOnly
        };
        Err(self.error(kind, operation))
    }

    fn error(&self, kind: StoreErrorKind, operation: StoreOperation) -> StoreError {
        StoreError::new(kind, self.name.clone(), operation)
    }
}

impl<B: Backend> Probed for NetworkTier<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn breaker(&self) -> &Breaker {
        &self.policy.breaker
    }

    async fn probe(&self, key: &PipelineFingerprint) -> bool {
        self.policy.probe(self.backend.download(key)).await
    }
}

/// Runs a call as a task: it makes progress whether or not its caller polls.
async fn as_task<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> T {
    let task = tokio::spawn(call.in_current_span());
    blocking::join(AbortOnDropHandle::new(task)).await
}

struct HealOnDrop<'a, B: Backend>(&'a Arc<NetworkTier<B>>);

impl<B: Backend> Drop for HealOnDrop<'_, B> {
    fn drop(&mut self) {
        healer::start(self.0);
    }
}
