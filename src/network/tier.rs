//! A tier across a network, whatever its servers speak: what each answer means to the cache.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::breaker::{BreakerState, Epoch};
use super::call_policy::{Call, CallPolicy, after};
use super::recent_keys::{PendingLookup, RecentKeys};
use super::uploads::{Admission, UploadReport, Uploads};
use super::{Backend, NetworkSettings, RequestError, Upload};
use crate::artifact::{Artifact, ArtifactMetadata, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::metrics::{Counter, StoreCounters};
use crate::store::{Fetched, PipelineCacheMetrics, StoreError, StoreErrorKind, StoreOperation};

/// How many keys are kept in mind as being on the server, and for how long.
const KNOWN_KEYS: usize = 16 * 1024;
const KNOWN_FOR: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct NetworkTier<B> {
    pub(crate) backend: B,
    /// As the tier prints itself.
    pub(crate) name: String,
    pub(crate) writes: bool,
    policy: CallPolicy,
    /// Keys that the server did not have.
    absent: Option<RecentKeys>,
    /// Keys that it had.
    known: RecentKeys,
    uploads: Option<Arc<Uploads>>,
    closed: AtomicBool,
    counters: StoreCounters,
    negative_answers: Counter,
    unauthenticated: Counter,
}

impl<B: Backend> NetworkTier<B> {
    pub(crate) fn new(name: String, backend: B, settings: &NetworkSettings) -> Arc<Self> {
        let negative = settings.negative;
        Arc::new(Self {
            backend,
            name,
            writes: settings.writes,
            policy: CallPolicy::new(settings.limits),
            absent: negative.map(|(time, keys)| RecentKeys::new(keys, time)),
            known: RecentKeys::new(KNOWN_KEYS, KNOWN_FOR),
            uploads: settings
                .uploads
                .map(|policy| Arc::new(Uploads::new(policy))),
            closed: AtomicBool::new(false),
            counters: StoreCounters::default(),
            negative_answers: Counter::default(),
            unauthenticated: Counter::default(),
        })
    }

    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.policy.breaker.state()
    }

    pub(crate) fn watch_breaker(&self) -> watch::Receiver<BreakerState> {
        self.policy.breaker.subscribe()
    }

    pub(crate) fn upload_report(&self) -> UploadReport {
        let uploads = self.uploads.as_ref();
        uploads.map(|uploads| uploads.report()).unwrap_or_default()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writes && !self.closed.load(Ordering::Acquire)
    }

    /// Runs one call of the tier, with the tier's name on what goes wrong.
    async fn call<T, F>(
        self: &Arc<Self>,
        operation: StoreOperation,
        key: &PipelineFingerprint,
        attempt: impl Fn() -> F + Send,
    ) -> Result<T, StoreError>
    where
        T: Send,
        F: Future<Output = Result<T, RequestError>> + Send,
    {
        // However the call ends, and be it that it is dropped, it may have opened the breaker.
        let _heal = HealOnDrop(self);
        let call = Call {
            tier: &self.name,
            operation,
            key,
        };
        let credentials = || self.backend.credentials_version();
        let result = self.policy.run(call, credentials, attempt).await;
        result.map_err(|failure| {
            let kind = failure.kind;
            // These were told once, when they began.
            if kind == StoreErrorKind::CircuitOpen || failure.is_denial {
                tracing::debug!(tier = self.name, %key, %operation, %kind, reason = %failure, "request refused");
            } else {
                tracing::warn!(tier = self.name, %key, %operation, %kind, reason = %failure, "request failed");
            }
            self.error(kind, operation).with_source(failure)
        })
    }

    fn error(&self, kind: StoreErrorKind, operation: StoreOperation) -> StoreError {
        StoreError::new(kind, self.name.clone(), operation)
    }

    pub(crate) async fn fetch(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        accepts: impl Fn(&ArtifactMetadata) -> bool + Send,
    ) -> Result<Fetched, StoreError> {
        let counters = &self.counters;
        if self.absent.as_ref().is_some_and(|keys| keys.contains(key)) {
            counters.misses.increment();
            self.negative_answers.increment();
            return Ok(Fetched::Miss);
        }
        let is_known = self.known.ask(key);
        let is_absent = self.absent.as_ref().and_then(|keys| keys.ask(key));
        let mut fetched = self
            .call(StoreOperation::Get, key, || self.backend.download(key))
            .await
            .inspect_err(|_| counters.errors.increment())?;
        match &fetched {
            Fetched::Hit(artifact) if !accepts(artifact.metadata()) => fetched = Fetched::Refused,
            _ => {}
        }
        match &fetched {
            Fetched::Hit(_) | Fetched::Refused => note(is_known),
            Fetched::Miss | Fetched::Corrupt(_) => self.known.forget(key),
        }
        match &fetched {
            Fetched::Hit(_) => counters.hits.increment(),
            Fetched::Miss => {
                counters.misses.increment();
                note(is_absent);
            }
            Fetched::Corrupt(reason) => {
                counters.misses.increment();
                counters.corrupt.increment();
                if matches!(reason, FrameError::BadTag | FrameError::Unauthenticated) {
                    self.unauthenticated.increment();
                }
                tracing::warn!(tier = self.name, %key, %reason, "corrupt entry not served");
            }
            Fetched::Refused => {
                counters.misses.increment();
                counters.refused.increment();
                tracing::debug!(tier = self.name, %key, "artifact of other metadata not served");
            }
        }
        Ok(fetched)
    }

    pub(crate) async fn put(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let upload = match self.prepare(key, &artifact).await {
            Ok(upload) => upload,
            Err(error) => {
                self.count_put(Err(&error));
                return Err(error);
            }
        };
        self.forget_absence(key);
        match &self.uploads {
            None => self.upload(key, &upload).await,
            Some(uploads) => self.upload_behind(uploads, key, upload),
        }
    }

    async fn prepare(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<Upload, StoreError> {
        self.check_writable(StoreOperation::Put)?;
        let frame = self.backend.format().encode(key, artifact).await;
        let (head, payload) = frame.map_err(|reason| {
            let kind = match reason {
                FrameError::TooLarge => StoreErrorKind::TooLarge,
                _ => StoreErrorKind::InvalidArtifact,
            };
            self.error(kind, StoreOperation::Put).with_source(reason)
        })?;
        Ok(Upload { head, payload })
    }

    async fn upload(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        upload: &Upload,
    ) -> Result<(), StoreError> {
        let is_known = self.known.ask(key);
        let result = self
            .call(StoreOperation::Put, key, || {
                self.backend.upload(key, upload)
            })
            .await;
        if result.is_ok() {
            note(is_known);
            self.forget_absence(key);
        }
        self.count_put(result.as_ref());
        result
    }

    /// Starts an upload. Never waits.
    fn upload_behind(
        self: &Arc<Self>,
        uploads: &Arc<Uploads>,
        key: &PipelineFingerprint,
        upload: Upload,
    ) -> Result<(), StoreError> {
        if self.known.contains(key) {
            uploads.skip();
            return Ok(());
        }
        let bytes = (upload.head.len() + upload.payload.len()) as u64;
        match uploads.admit(key, bytes) {
            Admission::Accepted(job) => {
                let (tier, key) = (Arc::clone(self), *key);
                tokio::spawn(job.run(async move { tier.upload(&key, &upload).await }));
                Ok(())
            }
            Admission::Coalesced => Ok(()),
            Admission::Rejected => {
                let error = self
                    .error(StoreErrorKind::Unavailable, StoreOperation::Put)
                    .with_source("too many uploads are pending");
                self.count_put(Err(&error));
                Err(error)
            }
        }
    }

    fn count_put(&self, result: Result<&(), &StoreError>) {
        let counter = match result {
            Ok(()) => &self.counters.puts,
            Err(error) if error.kind() == StoreErrorKind::TooLarge => &self.counters.rejected_puts,
            Err(_) => &self.counters.put_errors,
        };
        counter.increment();
    }

    fn forget_absence(&self, key: &PipelineFingerprint) {
        if let Some(absent) = &self.absent {
            absent.forget(key);
        }
    }

    /// Refuses a write where the tier takes none.
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

    pub(crate) async fn contains(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        if self.absent.as_ref().is_some_and(|keys| keys.contains(key)) {
            self.negative_answers.increment();
            return Ok(false);
        }
        self.call(StoreOperation::Contains, key, || self.backend.probe(key))
            .await
    }

    pub(crate) async fn remove(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        self.check_writable(StoreOperation::Remove)?;
        if let Some(uploads) = &self.uploads {
            uploads.cancel(key).await;
        }
        self.known.forget(key);
        let removed = self
            .call(StoreOperation::Remove, key, || self.backend.delete(key))
            .await;
        // Whatever was noted meanwhile was true before.
        self.known.forget(key);
        let removed = removed?;
        if removed {
            self.counters.removes.increment();
        }
        Ok(removed)
    }

    pub(crate) async fn flush(&self) -> Result<(), StoreError> {
        let flushed = match &self.uploads {
            Some(uploads) => uploads.flush().await,
            None => Ok(()),
        };
        match &flushed {
            Ok(()) => self.counters.flushes.increment(),
            Err(_) => self.counters.flush_errors.increment(),
        }
        flushed
    }

    pub(crate) async fn close(&self, deadline: Duration) -> Result<(), StoreError> {
        self.closed.store(true, Ordering::Release);
        let Some(uploads) = &self.uploads else {
            return Ok(());
        };
        let flushed = timeout(deadline, uploads.flush()).await;
        uploads.abort();
        flushed.unwrap_or_else(|_| {
            let error = self.error(StoreErrorKind::TimedOut, StoreOperation::Close);
            Err(error.with_source("uploads were given up"))
        })
    }

    pub(crate) fn metrics(&self) -> PipelineCacheMetrics {
        let breaker = &self.policy.breaker;
        PipelineCacheMetrics {
            unauthenticated: self.unauthenticated.get(),
            negative_answers: self.negative_answers.get(),
            retries: self.policy.retries.get(),
            short_circuited: self.policy.short_circuited.get(),
            breaker_opened: breaker.opened.get(),
            breaker_closed: breaker.closed.get(),
            breakers_open: u64::from(breaker.state() != BreakerState::Closed),
            ..self.counters.snapshot()
        }
    }

    /// Sees to it that an open breaker is probed until it closes.
    fn heal(self: &Arc<Self>) {
        let breaker = &self.policy.breaker;
        if breaker.state() == BreakerState::Closed {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Some(epoch) = breaker.start_healing() else {
            return;
        };
        let interval = breaker.probe_interval();
        tracing::warn!(
            tier = self.name,
            ?interval,
            "most recent calls failed: the tier is left alone, and probed now and then"
        );
        let tier = Arc::downgrade(self);
        let healer = Healer { tier, epoch };
        runtime.spawn(async move {
            let mut next = after(interval);
            // The tier is not held while nothing happens: who drops it ends this.
            loop {
                sleep_until(next).await;
                let Some(tier) = healer.tier.upgrade() else {
                    return;
                };
                // From the start of one probe to that of the next: a server that comes back while
                // a probe still hangs is found by the next one, and that must not be long after.
                next = after(interval);
                if tier.probe(epoch).await {
                    return;
                }
                next = next.max(after(PAUSE_BETWEEN_PROBES));
            }
        });
    }

    /// Whether the server is well again.
    async fn probe(&self, epoch: Epoch) -> bool {
        let breaker = &self.policy.breaker;
        let Some(key) = breaker.half_open(epoch) else {
            return true;
        };
        let success = self.policy.probe(self.backend.download(&key)).await;
        if success {
            tracing::info!(tier = self.name, "the tier answers again");
        } else {
            tracing::debug!(tier = self.name, "the tier still fails");
        }
        breaker.probed(epoch, success);
        success
    }
}

/// Keeps the answer to a lookup in mind where that is worth it.
fn note(pending: Option<PendingLookup<'_>>) {
    if let Some(pending) = pending {
        pending.note();
    }
}

/// Between two probes of which the first took longer than the interval.
const PAUSE_BETWEEN_PROBES: Duration = Duration::from_millis(1);

struct HealOnDrop<'a, B: Backend>(&'a Arc<NetworkTier<B>>);

impl<B: Backend> Drop for HealOnDrop<'_, B> {
    fn drop(&mut self) {
        self.0.heal();
    }
}

/// Whoever probes a tier. When it ends early, as with its runtime, another may take over.
struct Healer<B: Backend> {
    tier: Weak<NetworkTier<B>>,
    epoch: Epoch,
}

impl<B: Backend> Drop for Healer<B> {
    fn drop(&mut self) {
        if let Some(tier) = self.tier.upgrade() {
            tier.policy.breaker.stop_healing(self.epoch);
        }
    }
}
