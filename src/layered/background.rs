//! What is written in the background: promotions, writes behind, and what was compiled.
//!
//! All three use one queue. Several jobs of one cause make one [`Event`], which counts itself in
//! its report when the last of them has ended.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use super::lease::TierLease;
use super::lookup::{Found, LookupSource};
use super::report::{LayeredPromotionReport, WriteBehindReport};
use super::tier::Tier;
use super::unwritten::{Kept, Unwritten, passes};
use crate::artifact::Artifact;
use crate::key::PipelineFingerprint;
use crate::store::{CompileLease, Locality, StoreError, StoreErrorKind, StoreOperation};
use crate::sync::write_queue::{
    Block, Generation, Submission, Submitted, WriteJob, WriteKind, WriteLimits, WriteQueue,
};

/// The background writes of a layered store.
#[derive(Debug)]
pub(super) struct BackgroundWrites {
    /// For the writes, which must not keep it alive.
    me: Weak<Self>,
    tiers: Arc<[Tier]>,
    queue: Arc<WriteQueue<TierWrite>>,
    write_timeout: Duration,
    retry_interval: Duration,
    reports: Arc<Mutex<Reports>>,
    unwritten: Unwritten,
}

#[derive(Debug, Default)]
struct Reports {
    promotions: LayeredPromotionReport,
    behind: WriteBehindReport,
    /// The first write behind that was lost since it was last taken.
    behind_error: Option<StoreError>,
    /// Puts whose writes behind were lost since that was last taken.
    behind_lost: u64,
}

/// Whether a tier is known to lack the artifact, or has to be asked before it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Missing,
    Unknown,
    /// It has an entry that its settings refuse, and that may be another reader's: it is kept.
    Refused,
}

impl BackgroundWrites {
    pub(super) fn new(
        tiers: Arc<[Tier]>,
        limits: WriteLimits,
        write_timeout: Duration,
        retry_interval: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            queue: Arc::new(WriteQueue::new(tiers.len(), limits)),
            tiers,
            write_timeout,
            // Never so short that offers would follow one another without a pause.
            retry_interval: retry_interval.max(Duration::from_millis(1)),
            reports: Arc::default(),
            unwritten: Unwritten::new(limits),
        })
    }

    pub(super) fn promotion_report(&self) -> LayeredPromotionReport {
        lock(&self.reports).promotions
    }

    pub(super) fn behind_report(&self) -> WriteBehindReport {
        WriteBehindReport {
            waiting: self.unwritten.len(),
            ..lock(&self.reports).behind
        }
    }

    /// Why some write behind is not done: the first that was lost since the last call, or the oldest
    /// that is still kept.
    pub(super) fn take_behind_error(&self) -> Option<StoreError> {
        let lost = lock(&self.reports).behind_error.take();
        lost.or_else(|| self.unwritten.error())
    }

    /// How many writes behind are kept to be offered again.
    pub(super) fn unwritten(&self) -> u64 {
        self.unwritten.len()
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
            .filter(|&tier| presence(tier) != Presence::Refused)
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
        let submitted = self.submit(submission, Cause::Hit(source), presence);
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
            let held = leases.iter().filter(|held| match is_local(held.tier) {
                true => is_local(tier),
                false => held.tier == tier,
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
        let submitted = self.submit(submission, Cause::Put, |_| Presence::Missing);
        self.start_offering();
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
        cause: Cause,
        presence: impl Fn(usize) -> Presence,
    ) -> Submitted {
        let mut event = None;
        self.queue.submit(submission, |tier| {
            let event = event.get_or_insert_with(|| Event::begin(&self.reports, cause));
            TierWrite {
                background: Weak::clone(&self.me),
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

    /// Keeps an artifact that a tier could not take, to be offered again.
    fn keep(&self, kept: Kept) {
        let given_up = self.unwritten.keep(kept);
        if let Some(first) = given_up.first() {
            let mut reports = lock(&self.reports);
            reports.behind.abandoned += given_up.len() as u64;
            reports.behind_error.get_or_insert(first.error.clone());
            drop(reports);
            tracing::debug!(key = %first.key, tier = self.tiers[first.tier].name(), "background write lost: too many wait for their tiers");
        }
        self.start_offering();
    }

    /// Sees to it that what is kept is offered, on this runtime if that of the last offers is gone.
    fn start_offering(&self) {
        if let Ok(runtime) = Handle::try_current() {
            if self.unwritten.start_offering() {
                runtime.spawn(Offers(Weak::clone(&self.me)).run(self.retry_interval));
            }
        }
    }

    /// Offers each tier what it could not take: one artifact, and all others once it took that.
    pub(super) async fn offer_again(&self) {
        for tier in 0..self.tiers.len() {
            let kept = self.unwritten.of(tier);
            let Some((first, others)) = kept.split_first() else {
                continue;
            };
            self.offer(first);
            self.queue.drain().await;
            if !self.unwritten.contains(&first.key, tier) {
                others.iter().for_each(|kept| self.offer(kept));
                self.queue.drain().await;
            }
        }
    }

    fn offer(&self, kept: &Kept) {
        let submission = Submission {
            key: &kept.key,
            artifact: &kept.artifact,
            kind: WriteKind::Required,
            tag: LookupSource::WriteBehind,
            generation: None,
            targets: vec![(kept.tier, Vec::new())],
        };
        // Where it is refused, it is kept.
        self.submit(submission, Cause::Offer, |_| Presence::Missing);
    }

    /// Ends the writes of a key, and keeps others from starting while the block is held.
    pub(super) async fn block(&self, key: &PipelineFingerprint) -> Block<TierWrite> {
        let block = self.queue.block(key).await;
        self.unwritten.forget_key(key);
        block
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

/// The task that offers again what tiers could not take, until they have it all.
struct Offers(Weak<BackgroundWrites>);

impl Offers {
    async fn run(mut self, interval: Duration) {
        loop {
            sleep(interval).await;
            // Not held while nothing happens: dropping the cache ends the task.
            let Some(background) = self.0.upgrade() else {
                return;
            };
            background.offer_again().await;
            if background.unwritten.stop_if_empty() {
                // Another may have started since: it is not for this one to stop that.
                self.0 = Weak::new();
                return;
            }
        }
    }
}

impl Drop for Offers {
    /// It ends early, as with its runtime: another may take over.
    fn drop(&mut self) {
        if let Some(background) = self.0.upgrade() {
            background.unwritten.stop_offering();
        }
    }
}

/// One write to one tier.
#[derive(Debug)]
pub(super) struct TierWrite {
    background: Weak<BackgroundWrites>,
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
    /// It will be offered again.
    Kept,
    Failed(StoreError),
    GivenUp,
    /// Nobody gave it up: it went down with its runtime.
    Lost,
}

impl WriteJob for TierWrite {
    type Tag = LookupSource;
    type Hold = CompileLease;

    async fn attempt(&mut self, key: &PipelineFingerprint, artifact: &Artifact) -> bool {
        let (tier, cause) = (&self.tiers[self.tier], self.event.cause);
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
            // It is the tier's to say which entry it keeps, and it has.
            Err(error) if error.kind() == StoreErrorKind::Foreign => {
                tracing::debug!(%key, %cause, error = %format_args!("{error:#}"), "background write refused");
                WriteEnd::WasThere
            }
            Err(error) => {
                // The tier has logged its failure where it began.
                tracing::debug!(%key, %cause, error = %format_args!("{error:#}"), "background write failed");
                WriteEnd::Failed(error)
            }
        };
        self.keep_or_forget(key, artifact);
        matches!(self.end, WriteEnd::Written(_) | WriteEnd::WasThere)
    }

    fn give_up(&mut self) {
        self.end = WriteEnd::GivenUp;
    }
}

impl TierWrite {
    fn keep_or_forget(&mut self, key: &PipelineFingerprint, artifact: &Artifact) {
        let Some(background) = self.background.upgrade() else {
            return;
        };
        match &self.end {
            WriteEnd::Failed(error) if self.event.cause.is_kept() && passes(error.kind()) => {
                background.keep(Kept {
                    key: *key,
                    artifact: artifact.clone(),
                    tier: self.tier,
                    error: error.clone(),
                });
                self.end = WriteEnd::Kept;
            }
            _ => background.unwritten.forget(key, self.tier),
        }
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

/// What has caused a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// A hit in the tier of this index.
    Hit(usize),
    Put,
    /// A put whose write was kept.
    Offer,
}

impl Cause {
    /// Whether a write is kept that fails. A promotion is not: the artifact is in another tier.
    fn is_kept(self) -> bool {
        !matches!(self, Self::Hit(_))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit(tier) => write!(f, "promotion from tier {tier}"),
            Self::Put => f.write_str("write behind"),
            Self::Offer => f.write_str("write behind, offered again"),
        }
    }
}

/// The writes that one hit or one put has caused. Its drop counts it in its report.
#[derive(Debug)]
struct Event {
    reports: Arc<Mutex<Reports>>,
    cause: Cause,
    total: Mutex<Total>,
}

/// What became of the writes of an event.
#[derive(Debug, Default)]
struct Total {
    tiers_written: u64,
    bytes_written: u64,
    any_dropped: bool,
    any_lost: bool,
    any_failed: bool,
    /// Of the failures that are not kept.
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
            WriteEnd::Kept => self.any_failed = true,
            WriteEnd::Failed(error) => {
                self.any_failed = true;
                self.first_error.get_or_insert(error);
            }
            WriteEnd::GivenUp => self.any_dropped = true,
            WriteEnd::Lost => (self.any_dropped, self.any_lost) = (true, true),
        }
    }
}

impl Event {
    fn begin(reports: &Arc<Mutex<Reports>>, cause: Cause) -> Arc<Self> {
        {
            let mut reports = lock(reports);
            match cause {
                Cause::Offer => {}
                Cause::Put => {
                    reports.behind.accepted += 1;
                    reports.behind.pending += 1;
                }
                Cause::Hit(_) => {
                    reports.promotions.events += 1;
                    reports.promotions.pending += 1;
                }
            }
        }
        Arc::new(Self {
            reports: Arc::clone(reports),
            cause,
            total: Mutex::default(),
        })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        let total = std::mem::take(&mut *lock(&self.total));
        let mut reports = lock(&self.reports);
        match self.cause {
            Cause::Offer => reports.end_offer(total),
            Cause::Put => reports.end_write_behind(total),
            Cause::Hit(source) => reports.promotions.end(source, &total),
        }
    }
}

impl LayeredPromotionReport {
    fn end(&mut self, source: usize, total: &Total) {
        self.pending -= 1;
        *match total {
            Total {
                any_failed: true, ..
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
                any_failed: true, ..
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
        self.remember(total.first_error);
    }

    fn end_offer(&mut self, total: Total) {
        self.behind.recovered += total.tiers_written;
        self.behind.abandoned += u64::from(total.first_error.is_some());
        self.remember(total.first_error);
    }

    /// For a flush to return.
    fn remember(&mut self, given_up: Option<StoreError>) {
        self.behind_error = self.behind_error.take().or(given_up);
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
