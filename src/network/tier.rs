//! A tier across a network, whatever protocol its servers speak: what each response means to the
//! cache.
//!
//! Every call runs as a task from its start, see `caller`. A caller that no longer polls its future
//! then holds no request permit and no connection.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

use super::access::Access;
use super::attempt::Attempt;
use super::backend::{Backend, Upload};
use super::breaker::Breaker;
use super::breaker_policy::BreakerState;
use super::call::{Call, log_success};
use super::call_policy::CallPolicy;
use super::caller::{AnswerProgress, Caller, as_task};
use super::healer::{self, Probed};
use super::later_entries::LaterEntries;
use super::leases::TierLeases;
use super::remembered_misses::{PendingLookup, RememberedMisses};
use super::request_error::RequestError;
use super::requirement::Requirement;
use super::settings::NetworkSettings;
use super::unhealed::UnhealedEntries;
use crate::artifact::{Artifact, FrameError};
use crate::key::PipelineFingerprint;
use crate::store::metrics::{Counter, StoreCounters};
use crate::store::{
    ALIAS_FOLDER, Fetched, PipelineCacheMetrics, StoreError, StoreErrorKind, StoreOperation,
};
use crate::sync::trouble::{Ended, Trouble};

#[derive(Debug)]
pub(crate) struct NetworkTier<B> {
    pub(crate) backend: B,
    /// As the tier prints itself.
    pub(crate) name: String,
    pub(crate) writes: bool,
    pub(crate) required: Requirement,
    /// Whether what it serves may be promoted to other tiers.
    pub(crate) promotable: bool,
    /// The entries of source aliases. With a policy of its own, so that its trouble costs no artifact.
    pub(crate) aliases: Option<Arc<Self>>,
    pub(super) leases: Option<Box<dyn TierLeases>>,
    pub(super) policy: CallPolicy,
    misses: Option<RememberedMisses>,
    unhealed: UnhealedEntries,
    later: LaterEntries,
    closed: AtomicBool,
    counters: StoreCounters,
    remembered_misses: Counter,
    unauthenticated: Counter,
    /// When corrupt entries are logged.
    corruption: Trouble,
    /// When uploads that changed nothing are logged.
    futile_uploads: Trouble,
}

impl<B: Backend> NetworkTier<B> {
    pub(crate) fn new(
        name: String,
        backend: B,
        promotable: bool,
        settings: NetworkSettings,
        leases: Option<Box<dyn TierLeases>>,
    ) -> Arc<Self> {
        let of_aliases = NetworkSettings {
            // An alias has no compiler and no device.
            required: Requirement::default(),
            ..settings.clone()
        };
        let aliases = Self::assemble(
            format!("{name}/{ALIAS_FOLDER}"),
            backend.in_folder(ALIAS_FOLDER),
            promotable,
            of_aliases,
        );
        let mut tier = Self::assemble(name, backend, promotable, settings);
        tier.aliases = Some(Arc::new(aliases));
        tier.leases = leases;
        Arc::new(tier)
    }

    fn assemble(name: String, backend: B, promotable: bool, settings: NetworkSettings) -> Self {
        Self {
            backend,
            name,
            aliases: None,
            leases: None,
            writes: settings.writes,
            required: settings.required,
            promotable,
            corruption: Trouble::new(settings.limits.breaker.quiet()),
            futile_uploads: Trouble::new(settings.limits.breaker.quiet()),
            policy: CallPolicy::new(settings.limits),
            misses: settings
                .remember_misses
                .map(|time| RememberedMisses::new(settings.max_remembered_misses, time)),
            unhealed: UnhealedEntries::new(settings.heal_interval),
            later: LaterEntries::default(),
            closed: AtomicBool::new(false),
            counters: StoreCounters::default(),
            remembered_misses: Counter::default(),
            unauthenticated: Counter::default(),
        }
    }

    pub(crate) fn breaker_state(&self) -> BreakerState {
        self.policy.of(Access::Read).breaker.state()
    }

    pub(crate) fn write_breaker_state(&self) -> BreakerState {
        self.policy.of(Access::Write).breaker.state()
    }

    pub(crate) fn watch_breaker(&self) -> watch::Receiver<BreakerState> {
        self.policy.of(Access::Read).breaker.subscribe()
    }

    pub(crate) fn watch_write_breaker(&self) -> watch::Receiver<BreakerState> {
        self.policy.of(Access::Write).breaker.subscribe()
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writes && !self.closed.load(Ordering::Acquire)
    }

    pub(crate) async fn fetch(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<Fetched, StoreError> {
        if let Some(miss) = self.remembered_miss(key) {
            return Ok(miss);
        }
        let (tier, key) = (Arc::clone(self), *key);
        as_task(|caller| async move {
            let lookup = tier.begin_lookup(&key);
            let download = |credentials, answer: AnswerProgress| {
                let tier = &tier;
                async move { tier.backend.download(&key, credentials, &answer).await }
            };
            let fetched = tier.call(&caller, StoreOperation::Get, &key, download);
            Some(tier.settle(&key, fetched.await?, lookup))
        })
        .await
    }

    /// The answer to a lookup of a key that was missed a short while ago. It is counted.
    pub(super) fn remembered_miss(&self, key: &PipelineFingerprint) -> Option<Fetched> {
        let is_remembered = self.is_remembered_miss(key);
        is_remembered.then(|| {
            self.counters.misses.increment();
            Fetched::Miss
        })
    }

    /// A lookup of a key begins, whose miss may be remembered.
    pub(super) fn begin_lookup(&self, key: &PipelineFingerprint) -> Option<PendingLookup<'_>> {
        self.misses.as_ref()?.begin_lookup(key)
    }

    /// Counts a lookup that has ended, and learns from it.
    pub(super) fn settle(
        &self,
        key: &PipelineFingerprint,
        fetched: Result<Fetched, StoreError>,
        lookup: Option<PendingLookup<'_>>,
    ) -> Result<Fetched, StoreError> {
        self.later.learn(key, &fetched);
        let fetched = self.count_lookup(key, fetched);
        self.learn_health(key, &fetched);
        if let (Ok(Fetched::Miss), Some(lookup)) = (&fetched, lookup) {
            lookup.remember_miss();
        }
        fetched
    }

    pub(crate) async fn put(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        artifact: Artifact,
    ) -> Result<(), StoreError> {
        let (tier, key) = (Arc::clone(self), *key);
        // Also where the caller leaves: the upload goes on.
        let lease = tier.leases.as_ref().and_then(|leases| leases.held(&key));
        as_task(|caller| async move {
            let _lease = lease;
            let result = tier.upload(&caller, &key, &artifact).await?;
            tier.count_put(&result);
            Some(result)
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
        as_task(|caller| async move {
            let probe = |credentials, _| tier.backend.probe(&key, credentials);
            tier.call(&caller, StoreOperation::Contains, &key, probe)
                .await
        })
        .await
    }

    pub(crate) async fn remove(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
    ) -> Result<bool, StoreError> {
        self.check_writable(StoreOperation::Remove)?;
        let (tier, key) = (Arc::clone(self), *key);
        let removed = as_task(|caller| async move {
            let delete = |credentials, _| tier.backend.delete(&key, credentials);
            tier.call(&caller, StoreOperation::Remove, &key, delete)
                .await
        });
        let removed = removed.await?;
        self.unhealed.forget(&key);
        self.later.forget(&key);
        if removed {
            self.counters.removes.increment();
        }
        Ok(removed)
    }

    /// A put returns once the server has the artifact, so there is nothing to wait for.
    pub(crate) fn flush(&self) {
        self.counters.flushes.increment();
    }

    /// Takes no more writes, and grants no more leases.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.closed.store(true, Ordering::Release);
        if let Some(aliases) = &self.aliases {
            aliases.closed.store(true, Ordering::Release);
        }
        if let Some(leases) = &self.leases {
            leases.close(deadline).await;
        }
    }

    pub(crate) fn metrics(&self) -> PipelineCacheMetrics {
        let (reads, writes) = (self.policy.of(Access::Read), self.policy.of(Access::Write));
        let is_open = |breaker: &Breaker| u64::from(breaker.state() != BreakerState::Closed);
        let connections = self.backend.connection_counts();
        let mut metrics = PipelineCacheMetrics {
            unauthenticated: self.unauthenticated.get(),
            remembered_misses: self.remembered_misses.get(),
            retries: self.policy.retries.get() + connections.repeated,
            connections_replaced: connections.replaced,
            short_circuited: reads.short_circuited.get(),
            breaker_opened: reads.breaker.opened.get(),
            breaker_closed: reads.breaker.closed.get(),
            breakers_open: is_open(&reads.breaker),
            short_circuited_writes: writes.short_circuited.get(),
            write_breaker_opened: writes.breaker.opened.get(),
            write_breaker_closed: writes.breaker.closed.get(),
            write_breakers_open: is_open(&writes.breaker),
            ..self.counters.snapshot()
        };
        if let Some(leases) = &self.leases {
            leases.count(&mut metrics);
        }
        metrics
    }

    /// Makes the requests of a call, as the policy allows. The error names the tier. `None` once the
    /// caller has left.
    pub(super) async fn call<T, F>(
        self: &Arc<Self>,
        caller: &Caller,
        operation: StoreOperation,
        key: &PipelineFingerprint,
        request: impl Fn(B::Credentials, AnswerProgress) -> F + Send + Sync,
    ) -> Option<Result<T, StoreError>>
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
            caller,
            single_request: None,
        };
        let (request, attempt) = (&request, &attempt);
        let send = |answer| async move { request(attempt.credentials()?, answer).await };
        let result = self.policy.run(call, send).await?;
        Some(result.map_err(|error| self.error(error.kind, operation).with_source(error)))
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
            Ok(Fetched::Hit(_)) => {
                counters.hits.increment();
                if let Some(Ended { failed, lasted }) = self.corruption.succeeded() {
                    tracing::info!(tier = self.name, failed, ?lasted, "entries are whole again");
                }
            }
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
                self.log_corrupt(key, reason);
            }
            // No backend judges more than the frame.
            Ok(Fetched::Refused) => return Ok(self.refuse(key, &"refused by the backend")),
        }
        fetched
    }

    fn refuse(&self, key: &PipelineFingerprint, reason: &dyn fmt::Display) -> Fetched {
        self.counters.misses.increment();
        self.counters.refused.increment();
        tracing::debug!(tier = self.name, %key, %reason, "entry refused");
        Fetched::Refused
    }

    /// Learns whether the last upload of a key did any good.
    fn learn_health(&self, key: &PipelineFingerprint, fetched: &Result<Fetched, StoreError>) {
        match fetched {
            Err(_) => {}
            Ok(Fetched::Miss) => self.unhealed.forget(key),
            Ok(Fetched::Hit(_)) => {
                self.unhealed.forget(key);
                // Its end is not logged: each entry is healed on its own.
                let _ = self.futile_uploads.succeeded();
            }
            Ok(Fetched::Corrupt(_) | Fetched::Refused) => {
                if self.unhealed.found(key) {
                    self.log_futile_upload(key);
                }
            }
        }
    }

    /// An edge that transforms every response does so to every entry.
    fn log_futile_upload(&self, key: &PipelineFingerprint) {
        let tier = &self.name;
        if self.futile_uploads.failed() {
            tracing::warn!(
                tier, %key,
                "an upload left its entry corrupt or refused; not uploaded again for heal_interval; \
                 further ones are logged at debug level"
            );
        } else {
            tracing::debug!(tier, %key, "an upload left its entry corrupt or refused");
        }
    }

    /// A site that answers with a page of its own does so for every key.
    fn log_corrupt(&self, key: &PipelineFingerprint, reason: &FrameError) {
        let tier = &self.name;
        if self.corruption.failed() {
            tracing::warn!(
                tier, %key, %reason,
                "corrupt entry not served; further ones are logged at debug level until an entry is whole"
            );
        } else {
            tracing::debug!(tier, %key, %reason, "corrupt entry not served");
        }
    }

    fn count_put(&self, result: &Result<(), StoreError>) {
        let counter = match result {
            Ok(()) => &self.counters.puts,
            Err(error) => match error.kind() {
                StoreErrorKind::TooLarge | StoreErrorKind::Foreign => &self.counters.rejected_puts,
                _ => &self.counters.put_errors,
            },
        };
        counter.increment();
    }

    async fn upload(
        self: &Arc<Self>,
        caller: &Caller,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Option<Result<(), StoreError>> {
        let upload = match self.encode(key, artifact).await {
            Ok(upload) => upload,
            Err(error) => return Some(Err(error)),
        };
        // Whatever becomes of the upload, the entry may be there from its start.
        self.forget_miss(key);
        let request = |credentials, _| self.backend.upload(key, &upload, credentials);
        let stored = self.call(caller, StoreOperation::Put, key, request).await?;
        if stored.is_ok() {
            self.unhealed.uploaded(key);
        }
        // A lookup that began before the upload may have remembered its miss meanwhile.
        self.forget_miss(key);
        Some(stored)
    }

    async fn encode(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
    ) -> Result<Upload, StoreError> {
        self.check_writable(StoreOperation::Put)?;
        if self.later.contains(key) {
            let error = self.error(StoreErrorKind::Foreign, StoreOperation::Put);
            return Err(error.with_source(FrameError::UnknownFormat));
        }
        if self.unhealed.contains(key) {
            let kind = StoreErrorKind::Protocol;
            let reason = "not sent: the last upload left the entry corrupt or refused";
            return Err(self.error(kind, StoreOperation::Put).with_source(reason));
        }
        let frame = self.backend.format().encode(key, artifact).await;
        let (head, payload) = frame.map_err(|reason| {
            let kind = StoreErrorKind::of_a_rejected_put(reason);
            self.error(kind, StoreOperation::Put).with_source(reason)
        })?;
        Ok(Upload { head, payload })
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

    pub(crate) fn forget_miss(&self, key: &PipelineFingerprint) {
        if let Some(misses) = &self.misses {
            misses.forget(key);
        }
    }

    /// Whether the last lookup found an entry that this tier does not serve, and nothing was put since.
    pub(super) fn has_bad_entry(&self, key: &PipelineFingerprint) -> bool {
        self.unhealed.was_found(key)
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

    pub(super) fn error(&self, kind: StoreErrorKind, operation: StoreOperation) -> StoreError {
        StoreError::new(kind, self.name.clone(), operation)
    }
}

impl<B: Backend> Probed for NetworkTier<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn breaker(&self) -> &Breaker {
        &self.policy.of(Access::Read).breaker
    }

    async fn probe(&self, key: &PipelineFingerprint) -> bool {
        let works = match self.backend.credentials() {
            Ok(credentials) => {
                let check = self.backend.check_health(key, credentials);
                self.policy.probe(check).await
            }
            // Nothing can be sent, so nothing is learnt.
            Err(_) => false,
        };
        let trouble = &self.policy.of(Access::Read).trouble;
        match works {
            true => log_success(&self.name, Access::Read, trouble),
            false => trouble.goes_on(),
        }
        works
    }
}

struct HealOnDrop<'a, B: Backend>(&'a Arc<NetworkTier<B>>);

impl<B: Backend> Drop for HealOnDrop<'_, B> {
    fn drop(&mut self) {
        healer::start(self.0);
    }
}
