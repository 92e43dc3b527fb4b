//! Promotion: what was found in a slow tier is written to the faster ones, in the background.
//!
//! At most one promotion per key, at most so many entries and bytes at a time, each in a task of
//! its own. An artifact on its way up is served from here. Whatever becomes of a promotion is
//! counted, exactly once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::tier::Tier;
use crate::{Artifact, PipelineFingerprint, StoreError, StoreOperation};

/// What became of the promotions so far.
///
/// Every event ends in exactly one way, so that
/// `events == promoted + coalesced + dropped + failed + pending` at all times, and `pending` is 0
/// after a flush.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayeredPromotionReport {
    /// Hits below the first tier that asked for a promotion.
    pub events: u64,
    /// Events after which every faster tier that takes the artifact has it.
    pub promoted: u64,
    /// Tiers written to, over all events.
    pub promoted_layers: u64,
    /// Payload bytes written, over all events and tiers.
    pub promoted_bytes: u64,
    /// Events that met a promotion of the same key on its way, and left it to that.
    pub coalesced: u64,
    /// Events given up: a bound was reached, the key was removed, or the cache was closed.
    pub dropped: u64,
    /// Events in which some tier failed to take the artifact.
    pub failed: u64,
    /// Events under way.
    pub pending: u64,
    /// The tier the last promotion that wrote something came from.
    pub last_source_layer: Option<usize>,
    /// How many tiers the last promotion that wrote something wrote to.
    pub last_promoted_layers: u64,
    /// The payload bytes that the last promotion that wrote something wrote, over its tiers.
    pub last_promoted_bytes: u64,
}

/// The bounds of promotion.
#[derive(Debug, Clone, Copy)]
pub(super) struct PromotionLimits {
    pub(super) entries: usize,
    pub(super) bytes: u64,
    pub(super) concurrency: usize,
    /// For each write to a tier.
    pub(super) write_timeout: Duration,
}

/// Where an artifact was found, and where it is missing.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) source: usize,
    /// Tiers to write to, in order, and whether each is known to lack the artifact.
    pub(super) targets: Vec<(usize, bool)>,
}

#[derive(Debug)]
pub(super) struct Promotions {
    tiers: Arc<[Tier]>,
    limits: PromotionLimits,
    slots: Semaphore,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    jobs: HashMap<PipelineFingerprint, Job>,
    bytes: u64,
    next_id: u64,
    /// Keys that are being removed: nothing may bring them back.
    blocked: HashMap<PipelineFingerprint, usize>,
    closed: bool,
    report: LayeredPromotionReport,
}

#[derive(Debug)]
struct Job {
    id: u64,
    source: usize,
    artifact: Artifact,
    task: Option<AbortHandle>,
}

/// How a promotion ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Promoted,
    Failed,
    Dropped,
}

impl Promotions {
    pub(super) fn new(tiers: Arc<[Tier]>, limits: PromotionLimits) -> Self {
        Self {
            tiers,
            slots: Semaphore::new(limits.concurrency.max(1)),
            limits,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> LayeredPromotionReport {
        let state = self.lock();
        LayeredPromotionReport {
            pending: state.jobs.len() as u64,
            ..state.report
        }
    }

    /// The artifact, if it is on its way up, and the tier it comes from.
    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<(Artifact, usize)> {
        let state = self.lock();
        let job = state.jobs.get(key)?;
        Some((job.artifact.clone(), job.source))
    }

    /// Starts a promotion, unless there is one of this key or a bound is reached. Never waits.
    pub(super) fn start(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        route: Route,
    ) {
        let Some(id) = self.accept(key, artifact, route.source) else {
            return;
        };
        let run = Run {
            promotions: Arc::clone(self),
            key: *key,
            id,
            source: route.source,
            layers: 0,
            bytes: 0,
            end: End::Dropped,
        };
        // Outside the lock: a runtime that is shutting down drops the task, and with it the run,
        // right here.
        let task = tokio::spawn(run.promote(artifact.clone(), route.targets));
        if let Some(job) = self.lock().jobs.get_mut(key) {
            if job.id == id {
                job.task = Some(task.abort_handle());
            }
        }
    }

    fn accept(&self, key: &PipelineFingerprint, artifact: &Artifact, source: usize) -> Option<u64> {
        let mut state = self.lock();
        state.report.events += 1;
        if state.jobs.contains_key(key) {
            state.report.coalesced += 1;
            return None;
        }
        let bytes = state.bytes.saturating_add(artifact.len() as u64);
        let full = state.jobs.len() >= self.limits.entries || bytes > self.limits.bytes;
        if full || state.closed || state.blocked.contains_key(key) {
            state.report.dropped += 1;
            tracing::debug!(%key, full, "promotion dropped");
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.bytes = bytes;
        let job = Job {
            id,
            source,
            artifact: artifact.clone(),
            task: None,
        };
        state.jobs.insert(*key, job);
        Some(id)
    }

    /// Waits until every promotion started before the call has ended.
    ///
    /// Each write has a deadline and the number of promotions is bounded, so this ends.
    pub(super) async fn drain(&self) {
        let until = self.lock().next_id;
        self.wait_until(|state| state.jobs.values().all(|job| job.id >= until))
            .await;
    }

    async fn wait_until(&self, done: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if done(&self.lock()) {
                return;
            }
            changed.await;
        }
    }

    /// Ends the promotion of a key and keeps others from starting, until the block is dropped.
    ///
    /// A write under way is waited for and not aborted: a dropped write may still complete on
    /// the blocking pool, after whatever the caller does next.
    pub(super) async fn block(self: &Arc<Self>, key: &PipelineFingerprint) -> Block {
        let block = Block {
            promotions: Arc::clone(self),
            key: *key,
        };
        *self.lock().blocked.entry(*key).or_default() += 1;
        self.wait_until(|state| !state.jobs.contains_key(key)).await;
        block
    }

    /// Takes no more promotions.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Gives up what is under way; how many promotions that were.
    pub(super) fn abort(&self) -> u64 {
        let state = self.lock();
        for job in state.jobs.values() {
            if let Some(task) = &job.task {
                task.abort();
            }
        }
        state.jobs.len() as u64
    }
}

/// Keeps a key from being promoted.
#[derive(Debug)]
pub(super) struct Block {
    promotions: Arc<Promotions>,
    key: PipelineFingerprint,
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.promotions.lock();
        if let Some(blocks) = state.blocked.get_mut(&self.key) {
            *blocks -= 1;
            if *blocks == 0 {
                state.blocked.remove(&self.key);
            }
        }
    }
}

/// A promotion under way. Dropping it, however that comes about, ends and counts it.
struct Run {
    promotions: Arc<Promotions>,
    key: PipelineFingerprint,
    id: u64,
    source: usize,
    layers: u64,
    bytes: u64,
    end: End,
}

impl Run {
    async fn promote(mut self, artifact: Artifact, targets: Vec<(usize, bool)>) {
        let promotions = Arc::clone(&self.promotions);
        let Ok(_slot) = promotions.slots.acquire().await else {
            return;
        };
        let mut end = End::Promoted;
        for (target, lacks) in targets {
            if promotions.lock().blocked.contains_key(&self.key) {
                end = End::Dropped;
                break;
            }
            let tier = &promotions.tiers[target];
            let write = write(tier, &self.key, &artifact, lacks);
            let written = timeout(promotions.limits.write_timeout, write)
                .await
                .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Put)));
            match written {
                Ok(true) => {
                    self.layers += 1;
                    self.bytes += artifact.len() as u64;
                    tracing::debug!(
                        key = %self.key,
                        from = promotions.tiers[self.source].name(),
                        to = tier.name(),
                        bytes = artifact.len(),
                        "promoted"
                    );
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, "promotion failed");
                    end = End::Failed;
                }
            }
        }
        self.end = end;
    }
}

/// Writes to a tier, unless it turns out to have the artifact; whether it was written.
async fn write(
    tier: &Tier,
    key: &PipelineFingerprint,
    artifact: &Artifact,
    lacks: bool,
) -> Result<bool, StoreError> {
    if !lacks && tier.contains(key).await? {
        return Ok(false);
    }
    tier.put(key, artifact.clone()).await.map(|()| true)
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut state = self.promotions.lock();
        // Dropped after the lock is released: it may be the last reference to many bytes.
        let job = state.jobs.remove(&self.key);
        if let Some(job) = &job {
            debug_assert_eq!(job.id, self.id, "one promotion per key");
            state.bytes -= job.artifact.len() as u64;
        }
        let report = &mut state.report;
        match self.end {
            End::Promoted => report.promoted += 1,
            End::Failed => report.failed += 1,
            End::Dropped => report.dropped += 1,
        }
        report.promoted_layers += self.layers;
        report.promoted_bytes += self.bytes;
        if self.layers > 0 {
            report.last_source_layer = Some(self.source);
            report.last_promoted_layers = self.layers;
            report.last_promoted_bytes = self.bytes;
        }
        drop(state);
        self.promotions.changed.notify_waiters();
    }
}
