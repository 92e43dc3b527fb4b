//! A tier across a network, whatever protocol its servers speak: what each response means to the
//! cache.
//!
//! Every call runs as a task from its start. A caller that no longer polls its future then holds no
//! request permit and no connection; a caller that drops its future aborts the task.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::attempt::Attempt;
use super::backend::{Backend, Upload};
use super::breaker::{Breaker, BreakerState};
use super::call_policy::{Call, CallPolicy};
use super::healer::{self, Probed};
use super::remembered_misses::RememberedMisses;
use super::request_error::RequestError;
use super::requirement::Requirement;
use super::settings::NetworkSettings;
use super::unhealed::UnhealedEntries;
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
    unhealed: UnhealedEntries,
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
            unhealed: UnhealedEntries::new(settings.heal_interval),
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
            let download = |credentials| tier.backend.download(&key, credentials);
            let fetched = tier.call(StoreOperation::Get, &key, download).await;
            let fetched = tier.check_metadata(fetched);
            tier.count_lookup(&key, &fetched);
            tier.learn_health(&key, &fetched);
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
        if self.is_remembered_miss(key) || self.unhealed.contains(key) {
            return Ok(false);
        }
        let (tier, key) = (Arc::clone(self), *key);
        as_task(async move {
            let probe = |credentials| tier.backend.probe(&key, credentials);
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
            let delete = |credentials| tier.backend.delete(&key, credentials);
            tier.call(StoreOperation::Remove, &key, delete).await
        });
        let removed = removed.await?;
        self.unhealed.forget(&key);
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
        let connections = self.backend.connection_counts();
        PipelineCacheMetrics {
            unauthenticated: self.unauthenticated.get(),
            remembered_misses: self.remembered_misses.get(),
            retries: self.policy.retries.get() + connections.repeated,
            connections_replaced: connections.replaced,
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
        request: impl Fn(B::Credentials) -> F + Send + Sync,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        // However the call ends, also where it is dropped, it may have opened the breaker.
        let _heal = HealOnDrop(self);
        let attempt = Attempt::new(&self.backend);
        let call = Call {
            tier: &self.name,
            operation,
            key,
            credentials: &attempt,
        };
        let send = || async { request(attempt.credentials()?).await };
        let result = self.policy.run(call, send).await;
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

    fn check_metadata(&self, fetched: Result<Fetched, StoreError>) -> Result<Fetched, StoreError> {
        match fetched {
            Ok(Fetched::Hit(artifact)) if !self.required.is_met_by(artifact.metadata()) => {
                Ok(Fetched::Refused)
            }
            fetched => fetched,
        }
    }

    fn count_lookup(&self, key: &PipelineFingerprint, fetched: &Result<Fetched, StoreError>) {
        let counters = &self.counters;
        match fetched {
            Err(_) => counters.errors.increment(),
            Ok(Fetched::Hit(_)) => counters.hits.increment(),
            Ok(Fetched::Miss) => counters.misses.increment(),
            Ok(Fetched::Corrupt(reason)) => {
                counters.misses.increment();
                counters.corrupt.increment();
                if matches!(reason, FrameError::BadTag | FrameError::Unauthenticated) {
                    self.unauthenticated.increment();
                }
                tracing::warn!(tier = self.name, %key, %reason, "corrupt entry not served");
            }
            Ok(Fetched::Refused) => {
                counters.misses.increment();
                counters.refused.increment();
                tracing::debug!(
                    tier = self.name, %key,
                    "artifact refused: metadata does not match require_provenance or require_device"
                );
            }
        }
    }

    /// Learns whether the last upload of a key did any good.
    fn learn_health(&self, key: &PipelineFingerprint, fetched: &Result<Fetched, StoreError>) {
        match fetched {
            Err(_) => {}
            Ok(Fetched::Hit(_) | Fetched::Miss) => self.unhealed.forget(key),
            Ok(Fetched::Corrupt(_) | Fetched::Refused) => {
                if self.unhealed.found(key) {
                    tracing::warn!(
                        tier = self.name, %key,
                        "an upload left its entry corrupt or refused; not uploaded again for heal_interval"
                    );
                }
            }
        }
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
        if self.unhealed.contains(key) {
            let kind = StoreErrorKind::Protocol;
            let reason = "not sent: the last upload left the entry corrupt or refused";
            return Err(self.error(kind, StoreOperation::Put).with_source(reason));
        }
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
        let request = |credentials| self.backend.upload(key, &upload, credentials);
        self.call(StoreOperation::Put, key, request).await?;
        self.unhealed.uploaded(key);
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
        let check = async {
            let credentials = self.backend.credentials()?;
            self.backend.check_health(key, credentials).await
        };
        self.policy.probe(check).await
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
