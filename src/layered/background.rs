//! What is written in the background: promotions, writes behind, and what was compiled.
//!
//! All three use one queue. Several jobs of one cause make one [`Event`], which counts itself in
//! its report when the last of them has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

use super::lease::TierLease;
use super::lookup::{Found, LookupSource};
use super::report::{LayeredPromotionReport, WriteBehindReport};
use super::tier::Tier;
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, Locality, StoreError, StoreOperation};
use crate::sync::write_queue::{
    Block, Generation, Submission, Submitted, WriteJob, WriteKind, WriteLimits, WriteQueue,
};

/// The background writes of a layered store.
#[derive(Debug)]
pub(super) struct BackgroundWrites {
    tiers: Arc<[Tier]>,
    queue: Arc<WriteQueue<TierWrite>>,
    write_timeout: Duration,
    reports: Arc<Mutex<Reports>>,
}

#[derive(Debug, Default)]
struct Reports {
    promotions: LayeredPromotionReport,
    behind: WriteBehindReport,
    /// The first failure of a write behind since it was last taken.
    behind_error: Option<StoreError>,
    /// Puts whose writes behind were lost since that was last taken.
    behind_lost: u64,
}

/// Whether a tier is known to lack the artifact, or has to be asked before it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Missing,
    Unknown,
}

impl BackgroundWrites {
    pub(super) fn new(tiers: Arc<[Tier]>, limits: WriteLimits, write_timeout: Duration) -> Self {
        Self {
            queue: Arc::new(WriteQueue::new(tiers.len(), limits)),
            tiers,
            write_timeout,
            reports: Arc::default(),
        }
    }

    pub(super) fn promotion_report(&self) -> LayeredPromotionReport {
        lock(&self.reports).promotions
    }

    pub(super) fn behind_report(&self) -> WriteBehindReport {
        lock(&self.reports).behind
    }

    /// The first failure of a write behind since the last call, for a flush to return.
    pub(super) fn take_behind_error(&self) -> Option<StoreError> {
        lock(&self.reports).behind_error.take()
    }

    /// How many puts have lost writes behind since the last call, for a flush to return.
    pub(super) fn take_behind_lost(&self) -> u64 {
        std::mem::take(&mut lock(&self.reports).behind_lost)
    }

    /// The artifact, if it is on its way to a tier.
    pub(super) fn peek(&self, key: &PipelineFingerprint) -> Option<Found> {
        self.queue.peek(key)
    }

    /// The generation of a key. Take it before you look for the artifact.
    pub(super) fn generation(&self, key: &PipelineFingerprint) -> Generation {
        self.queue.generation(key)
    }

    /// Sends what was found in the tier `source` to the faster tiers that take it.
    pub(super) fn promote(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        source: usize,
        generation: Generation,
        presence: impl Fn(usize) -> Presence,
    ) {
        if !self.tiers[source].is_trusted_source() {
            return;
        }
        let targets: Vec<_> = (0..source)
            .filter(|&tier| self.tiers[tier].takes(artifact))
            .map(|tier| (tier, Vec::new()))
            .collect();
        if targets.is_empty() {
            return;
        }
        let submission = Submission {
            key,
            artifact,
            kind: WriteKind::BestEffort,
            tag: LookupSource::Promotion(source),
            generation: Some(generation),
            targets,
        };
        let submitted = self.submit(submission, presence);
        if submitted == Submitted::Refused {
            tracing::debug!(%key, "promotion dropped: the background queue did not take it");
        }
        let report = &mut lock(&self.reports).promotions;
        let count = match submitted {
            // Counted by its event.
            Submitted::Queued => return,
            Submitted::Joined => &mut report.coalesced,
            Submitted::Refused => &mut report.dropped,
        };
        *count += 1;
        report.events += 1;
    }

    /// Leaves a write to these tiers to the background; whether the caller may rely on it.
    ///
    /// A lease is held until the artifact is where others look for it: in the tier that granted the
    /// lease, or, for a local one, in all local tiers. Other processes on this machine need not wait
    /// for a network. A write that hangs holds a lease no longer than its timeout.
    pub(super) fn write_behind(
        &self,
        key: &PipelineFingerprint,
        artifact: &Artifact,
        tiers: &[usize],
        leases: &[TierLease],
    ) -> bool {
        let is_local = |tier: usize| self.tiers[tier].locality == Locality::Local;
        let holds = |tier: usize| {
            let held = leases.iter().filter(|held| match held.tier {
                Some(granter) if !is_local(granter) => granter == tier,
                _ => is_local(tier),
            });
            held.map(|held| held.lease.clone()).collect()
        };
        let submission = Submission {
            key,
            artifact,
            kind: WriteKind::Required,
            tag: LookupSource::WriteBehind,
            generation: None,
            targets: tiers.iter().map(|&tier| (tier, holds(tier))).collect(),
        };
        let submitted = self.submit(submission, |_| Presence::Missing);
        let behind = &mut lock(&self.reports).behind;
        match submitted {
            Submitted::Queued => {}
            Submitted::Joined => behind.coalesced += 1,
            Submitted::Refused => behind.awaited += 1,
        }
        submitted != Submitted::Refused
    }

    fn submit(
        &self,
        submission: Submission<'_, TierWrite>,
        presence: impl Fn(usize) -> Presence,
    ) -> Submitted {
        let source = submission.tag;
        let mut event = None;
        self.queue.submit(submission, |tier| {
            let event = event.get_or_insert_with(|| Event::begin(&self.reports, source));
            TierWrite {
                tiers: Arc::clone(&self.tiers),
                tier,
                presence: presence(tier),
                write_timeout: self.write_timeout,
                event: Arc::clone(event),
                end: WriteEnd::Lost,
            }
        })
    }

    /// Waits until every write that was started before the call has ended.
    pub(super) async fn drain(&self) {
        self.queue.drain().await;
    }

    /// Ends the writes of a key, and keeps others from starting while the block is held.
    pub(super) async fn block(&self, key: &PipelineFingerprint) -> Block<TierWrite> {
        self.queue.block(key).await
    }

    /// Takes no more writes.
    pub(super) fn close(&self) {
        self.queue.close();
    }

    /// Gives up the writes under way; how many those were.
    pub(super) fn abort(&self) -> u64 {
        self.queue.abort()
    }
}

/// One write to one tier.
#[derive(Debug)]
pub(super) struct TierWrite {
    tiers: Arc<[Tier]>,
    tier: usize,
    presence: Presence,
    write_timeout: Duration,
    event: Arc<Event>,
    end: WriteEnd,
}

/// How a write to one tier ended.
#[derive(Debug)]
enum WriteEnd {
    /// So many payload bytes were written.
    Written(u64),
    /// The tier had the artifact.
    WasThere,
    Failed(StoreError),
    GivenUp,
    /// Nobody gave it up: it went down with its runtime.
    Lost,
}

impl WriteJob for TierWrite {
    type Tag = LookupSource;
    type Hold = CompileLease;

    async fn attempt(&mut self, key: &PipelineFingerprint, artifact: &Artifact) -> bool {
        let (tier, cause) = (&self.tiers[self.tier], self.event.source);
        let write = write(tier, self.presence, key, artifact);
        let written = timeout(self.write_timeout, write)
            .await
            .unwrap_or_else(|_| Err(tier.timed_out(StoreOperation::Put)));
        // Another try writes, whatever the tier says it has.
        self.presence = Presence::Missing;
        self.end = match written {
            Ok(true) => {
                let (tier, bytes) = (tier.name(), artifact.len() as u64);
                tracing::debug!(%key, %cause, tier, bytes, "background write done");
                WriteEnd::Written(bytes)
            }
            Ok(false) => WriteEnd::WasThere,
            Err(error) => {
                tracing::warn!(%key, %cause, error = %format_args!("{error:#}"), "background write failed");
                WriteEnd::Failed(error)
            }
        };
        !matches!(self.end, WriteEnd::Failed(_))
    }

    fn give_up(&mut self) {
        self.end = WriteEnd::GivenUp;
    }
}

/// Writes to a tier, unless it turns out to have the artifact; whether it was written.
async fn write(
    tier: &Tier,
    presence: Presence,
    key: &PipelineFingerprint,
    artifact: &Artifact,
) -> Result<bool, StoreError> {
    if presence == Presence::Unknown && tier.contains(key).await? {
        return Ok(false);
    }
    tier.put(key, artifact.clone()).await.map(|()| true)
}

impl Drop for TierWrite {
    fn drop(&mut self) {
        let end = std::mem::replace(&mut self.end, WriteEnd::Lost);
        lock(&self.event.total).add(end);
    }
}

/// The writes that one hit or one put has caused. Its drop counts it in its report.
#[derive(Debug)]
struct Event {
    reports: Arc<Mutex<Reports>>,
    source: LookupSource,
    total: Mutex<Total>,
}

/// What became of the writes of an event.
#[derive(Debug, Default)]
struct Total {
    tiers_written: u64,
    bytes_written: u64,
    any_dropped: bool,
    any_lost: bool,
    first_error: Option<StoreError>,
}

impl Total {
    fn add(&mut self, end: WriteEnd) {
        match end {
            WriteEnd::Written(bytes) => {
                self.tiers_written += 1;
                self.bytes_written += bytes;
            }
            WriteEnd::WasThere => {}
            WriteEnd::Failed(error) => {
                self.first_error.get_or_insert(error);
            }
            WriteEnd::GivenUp => self.any_dropped = true,
            WriteEnd::Lost => (self.any_dropped, self.any_lost) = (true, true),
        }
    }
}

impl Event {
    fn begin(reports: &Arc<Mutex<Reports>>, source: LookupSource) -> Arc<Self> {
        {
            let mut reports = lock(reports);
            match source {
                LookupSource::WriteBehind => {
                    reports.behind.accepted += 1;
                    reports.behind.pending += 1;
                }
                LookupSource::Promotion(_) | LookupSource::Tier(_) => {
                    reports.promotions.events += 1;
                    reports.promotions.pending += 1;
                }
            }
        }
        Arc::new(Self {
            reports: Arc::clone(reports),
            source,
            total: Mutex::default(),
        })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let total = std::mem::take(&mut *lock(&self.total));
        let mut reports = lock(&self.reports);
        match self.source {
            LookupSource::WriteBehind => reports.end_write_behind(total),
            LookupSource::Promotion(source) | LookupSource::Tier(source) => {
                reports.promotions.end(source, &total);
            }
        }
    }
}

impl LayeredPromotionReport {
    fn end(&mut self, source: usize, total: &Total) {
        self.pending -= 1;
        *match total {
            Total {
                first_error: Some(_),
                ..
            } => &mut self.failed,
            Total {
                any_dropped: true, ..
            } => &mut self.dropped,
            _ => &mut self.promoted,
        } += 1;
        self.promoted_layers += total.tiers_written;
        self.promoted_bytes += total.bytes_written;
        if total.tiers_written > 0 {
            self.last_source_layer = Some(source);
            self.last_promoted_layers = total.tiers_written;
            self.last_promoted_bytes = total.bytes_written;
        }
    }
}

impl Reports {
    fn end_write_behind(&mut self, total: Total) {
        let report = &mut self.behind;
        report.pending -= 1;
        *match &total {
            Total {
                first_error: Some(_),
                ..
            } => &mut report.failed,
            Total {
                any_dropped: true, ..
            } => &mut report.dropped,
            _ => &mut report.written,
        } += 1;
        if total.any_lost {
            report.lost += 1;
            self.behind_lost += 1;
        }
        if let Some(error) = total.first_error {
            self.behind_error.get_or_insert(error);
        }
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
