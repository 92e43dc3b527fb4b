//! Writes in the background: promotions, and the lower tiers of a put that is written behind.
//!
//! At most one per key, at most so many entries and bytes at a time, each in a task of its own.
//! An artifact on its way is served from here. Whatever becomes of a write is counted, exactly
//! once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::lookup::LookupSource;
use super::report::{LayeredPromotionReport, WriteBehindReport};
use super::tier::Tier;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, Locality, StoreError, StoreOperation};

/// The bounds of all writes in the background together.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackgroundLimits {
    pub(super) entries: usize,
    pub(super) bytes: u64,
    pub(super) concurrency: usize,
    /// For each write to a tier.
    pub(super) write_timeout: Duration,
}

/// Why something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// It was found in this tier, and the faster ones lack it.
    Promotion(usize),
    /// It was put, and the first tier has it already.
    Behind,
}

/// Why something is written, and where to.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) cause: Cause,
    /// The generation in which a promotion's artifact was found; `None` for a put.
    pub(super) generation: Option<Generation>,
    /// Tiers to write to, in order, and whether each is known to lack the artifact.
    pub(super) targets: Vec<(usize, bool)>,
    /// Held until it is written to the local tiers, so that nobody makes it again who may soon find
    /// it. Not longer: others in the same building need not wait for a network.
    pub(super) leads: Vec<CompileLease>,
}

/// The time between two removals, of any key that shares a counter with this one.
///
/// What was found in one generation is not promoted in another: the key may have been removed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

/// Counters of removals; a removal spoils the promotions of one key in so many.
const ERAS: usize = 64;

#[derive(Debug)]
pub(super) struct Background {
    tiers: Arc<[Tier]>,
    limits: BackgroundLimits,
    /// For each tier, so that one that hangs holds up no writes to the others.
    slots: Box<[Semaphore]>,
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
    /// Raised at the end of each removal.
    eras: Vec<u64>,
    closed: bool,
    /// The first failure of a write behind since the last flush.
    behind_error: Option<StoreError>,
    promotions: LayeredPromotionReport,
    behind: WriteBehindReport,
}

#[derive(Debug)]
struct Job {
    id: u64,
    cause: Cause,
    artifact: Artifact,
    leads: Vec<CompileLease>,
    /// Whether local tiers are still to be written to.
    is_local_yet: bool,
    /// Whether a put has relied on it that came later.
    joined: bool,
    /// Whether it failed, and no other may rely on it.
    failed: bool,
    task: Option<AbortHandle>,
}

/// What became of a wish to write.
enum Accepted {
    New(u64),
    UnderWay,
    No,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Written,
    Failed,
    Dropped,
}

impl State {
    fn generation(&mut self, key: &PipelineFingerprint) -> &mut u64 {
        &mut self.eras[usize::from(key.as_bytes()[0]) % ERAS]
    }

    fn count(&self, of: impl Fn(Cause) -> bool) -> u64 {
        self.jobs.values().filter(|job| of(job.cause)).count() as u64
    }
}

impl Background {
    pub(super) fn new(tiers: Arc<[Tier]>, limits: BackgroundLimits) -> Self {
        Self {
            slots: tiers
                .iter()
                .map(|_| Semaphore::new(limits.concurrency.clamp(1, Semaphore::MAX_PERMITS)))
                .collect(),
            tiers,
            limits,
            state: Mutex::new(State {
                eras: vec![0; ERAS],
                ..State::default()
            }),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn promotion_report(&self) -> LayeredPromotionReport {
        let state = self.lock();
        LayeredPromotionReport {
            pending: state.count(|cause| matches!(cause, Cause::Promotion(_))),
            ..state.promotions
        }
    }

    pub(super) fn behind_report(&self) -> WriteBehindReport {
        let state = self.lock();
        WriteBehindReport {
            pending: state.count(|cause| matches!(cause, Cause::Behind)),
            ..state.behind
        }
    }

    /// The generation of a key, to be taken before the key is looked for.
    pub(super) fn generation(&self, key: &PipelineFingerprint) -> Generation {
        Generation(*self.lock().generation(key))
    }

    /// The artifact, if it is on its way, and why.
    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<(Artifact, LookupSource)> {
        let state = self.lock();
        let job = state.jobs.get(key)?;
        let source = match job.cause {
            Cause::Promotion(tier) => LookupSource::Promotion(tier),
            Cause::Behind => LookupSource::WriteBehind,
        };
        Some((job.artifact.clone(), source))
    }

    /// Starts a write, or leaves it to one of the same key that does as much; whether the caller
    /// may rely on it. Never waits.
    pub(super) fn start(
        self: &Arc<Self>,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        mut route: Route,
    ) -> bool {
        let id = match self.accept(key, artifact, &mut route) {
            Accepted::New(id) => id,
            Accepted::UnderWay => return true,
            Accepted::No => {
                tracing::debug!(%key, cause = ?route.cause, "not written in the background");
                return false;
            }
        };
        let run = Run {
            background: Arc::clone(self),
            key: *key,
            id,
            cause: route.cause,
            layers: 0,
            bytes: 0,
            end: End::Dropped,
        };
        // Outside the lock: a runtime that is shutting down drops the task, and with it the run,
        // right here.
        let task = tokio::spawn(run.write(artifact.clone(), route.targets));
        if let Some(job) = self.lock().jobs.get_mut(key) {
            if job.id == id {
                job.task = Some(task.abort_handle());
            }
        }
        true
    }

    fn accept(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        route: &mut Route,
    ) -> Accepted {
        let mut state = self.lock();
        let bytes = state.bytes.saturating_add(artifact.len() as u64);
        let other = state.jobs.get(key).map(|job| (job.cause, job.failed));
        let refused = state.jobs.len() >= self.limits.entries
            || bytes > self.limits.bytes
            || state.closed
            || state.blocked.contains_key(key)
            || route
                .generation
                .is_some_and(|generation| generation != Generation(*state.generation(key)));
        match (route.cause, other) {
            (Cause::Promotion(_), other) => {
                let report = &mut state.promotions;
                report.events += 1;
                report.coalesced += u64::from(other.is_some());
                report.dropped += u64::from(refused && other.is_none());
            }
            // A key names one artifact: the write under way brings the same to the same tiers.
            (Cause::Behind, Some((Cause::Behind, false))) => {
                state.behind.coalesced += 1;
                if let Some(job) = state.jobs.get_mut(key) {
                    job.joined = true;
                    if job.is_local_yet {
                        job.leads.append(&mut route.leads);
                    }
                }
                return Accepted::UnderWay;
            }
            (Cause::Behind, Some(_)) => state.behind.awaited += 1,
            (Cause::Behind, None) if refused => state.behind.awaited += 1,
            (Cause::Behind, None) => state.behind.accepted += 1,
        }
        if other.is_some() || refused {
            return Accepted::No;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.bytes = bytes;
        let job = Job {
            id,
            cause: route.cause,
            artifact: artifact.clone(),
            leads: std::mem::take(&mut route.leads),
            is_local_yet: true,
            joined: false,
            failed: false,
            task: None,
        };
        state.jobs.insert(*key, job);
        Accepted::New(id)
    }

    /// The local tiers have it: whoever waited to make it may look there now.
    fn end_leads(&self, key: &PipelineFingerprint) {
        let mut state = self.lock();
        let Some(job) = state.jobs.get_mut(key) else {
            return;
        };
        job.is_local_yet = false;
        let leads = std::mem::take(&mut job.leads);
        // Foreign code, and so outside of the lock.
        drop(state);
        drop(leads);
    }

    /// Whether a write that failed is the failure of all who rely on it; not where a put came while
    /// it was written, which is owed a try of its own. No further put comes to rely on it: or else
    /// they could keep it from ever coming to an end.
    fn has_failed(&self, key: &PipelineFingerprint) -> bool {
        let mut state = self.lock();
        let Some(job) = state.jobs.get_mut(key) else {
            return true;
        };
        job.failed = true;
        !std::mem::take(&mut job.joined)
    }

    /// The first failure of a write behind since the last time, for a flush to return.
    pub(super) fn take_behind_error(&self) -> Option<StoreError> {
        self.lock().behind_error.take()
    }

    /// Waits until every write started before the call has ended.
    ///
    /// Each write has a deadline and their number is bounded, so this ends.
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

    /// Ends the write of a key and keeps others from starting, until the block is dropped.
    ///
    /// A write under way is waited for and not aborted: a dropped write may still complete on
    /// the blocking pool, after whatever the caller does next.
    pub(super) async fn block(self: &Arc<Self>, key: &PipelineFingerprint) -> Block {
        let block = Block {
            background: Arc::clone(self),
            key: *key,
        };
        *self.lock().blocked.entry(*key).or_default() += 1;
        // Those of the key that wait for a slot need not.
        self.changed.notify_waiters();
        self.wait_until(|state| !state.jobs.contains_key(key)).await;
        block
    }

    /// Takes no more writes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    /// Gives up what is under way; how many writes that were.
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

/// Keeps a key from being written.
#[derive(Debug)]
pub(super) struct Block {
    background: Arc<Background>,
    key: PipelineFingerprint,
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut state = self.background.lock();
        if let Some(blocks) = state.blocked.get_mut(&self.key) {
            *blocks -= 1;
            if *blocks == 0 {
                state.blocked.remove(&self.key);
            }
        }
        *state.generation(&self.key) += 1;
    }
}

/// A write under way. Dropping it, however that comes about, ends and counts it.
struct Run {
    background: Arc<Background>,
    key: PipelineFingerprint,
    id: u64,
    cause: Cause,
    layers: u64,
    bytes: u64,
    end: End,
}

impl Run {
    async fn write(mut self, artifact: Artifact, targets: Vec<(usize, bool)>) {
        let (mut end, mut failed) = self.write_to(&artifact, targets).await;
        while end == End::Failed && !self.background.has_failed(&self.key) {
            let again = failed.into_iter().map(|(target, _)| (target, true));
            (end, failed) = self.write_to(&artifact, again.collect()).await;
        }
        self.end = end;
        if let (Cause::Behind, Some((_, error))) = (self.cause, failed.into_iter().next()) {
            self.background.lock().behind_error.get_or_insert(error);
        }
    }

    /// Writes to these tiers, one after the other; how that ended, and which failed.
    async fn write_to(
        &mut self,
        artifact: &Artifact,
        targets: Vec<(usize, bool)>,
    ) -> (End, Vec<(usize, StoreError)>) {
        let background = Arc::clone(&self.background);
        let mut failed = Vec::new();
        let is_local =
            |target: &(usize, bool)| background.tiers[target.0].locality == Locality::Local;
        let local = targets
            .iter()
            .rposition(is_local)
            .map_or(0, |last| last + 1);
        for (number, (target, lacks)) in targets.into_iter().enumerate() {
            if number == local {
                background.end_leads(&self.key);
            }
            let blocked = background.wait_until(|state| state.blocked.contains_key(&self.key));
            let _slot = tokio::select! {
                biased;
                () = blocked => return (End::Dropped, failed),
                slot = background.slots[target].acquire() => slot,
            };
            let tier = &background.tiers[target];
            let write = write(tier, &self.key, artifact, lacks);
            let written = timeout(background.limits.write_timeout, write)
                .await
                .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Put)));
            match written {
                Ok(true) => {
                    self.layers += 1;
                    self.bytes += artifact.len() as u64;
                    tracing::debug!(
                        key = %self.key,
                        cause = ?self.cause,
                        to = tier.name(),
                        bytes = artifact.len(),
                        "written in the background"
                    );
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, cause = ?self.cause, "a write in the background failed");
                    failed.push((target, error));
                }
            }
        }
        let end = match failed.is_empty() {
            true => End::Written,
            false => End::Failed,
        };
        (end, failed)
    }
}

impl Run {
    fn count_promotion(&self, source: usize, report: &mut LayeredPromotionReport) {
        *match self.end {
            End::Written => &mut report.promoted,
            End::Failed => &mut report.failed,
            End::Dropped => &mut report.dropped,
        } += 1;
        report.promoted_layers += self.layers;
        report.promoted_bytes += self.bytes;
        if self.layers > 0 {
            report.last_source_layer = Some(source);
            report.last_promoted_layers = self.layers;
            report.last_promoted_bytes = self.bytes;
        }
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
        let mut state = self.background.lock();
        // Dropped after the lock is released: it may be the last reference to many bytes.
        let job = state.jobs.remove(&self.key);
        if let Some(job) = &job {
            debug_assert_eq!(job.id, self.id, "one write per key");
            state.bytes -= job.artifact.len() as u64;
        }
        match self.cause {
            Cause::Promotion(source) => self.count_promotion(source, &mut state.promotions),
            Cause::Behind => {
                let report = &mut state.behind;
                *match self.end {
                    End::Written => &mut report.written,
                    End::Failed => &mut report.failed,
                    End::Dropped => &mut report.dropped,
                } += 1;
            }
        }
        drop(state);
        self.background.changed.notify_waiters();
    }
}
