//! Uploads in the background: bounded, one per key, each counted exactly once however it ends.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::key::PipelineFingerprint;
use crate::store::StoreError;

/// The bounds of uploads in the background. What goes beyond them is not uploaded: the put fails
/// as [`Unavailable`](crate::StoreErrorKind::Unavailable), at once.
///
/// ```
/// use pipeline_cache::UploadPolicy;
///
/// let narrow = UploadPolicy::default().max_bytes(16 << 20).concurrency(1);
/// # let _ = narrow;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct UploadPolicy {
    max_entries: usize,
    max_bytes: u64,
    concurrency: usize,
}

impl Default for UploadPolicy {
    fn default() -> Self {
        Self {
            max_entries: 256,
            max_bytes: 256 * 1024 * 1024,
            concurrency: 4,
        }
    }
}

impl UploadPolicy {
    /// The most artifacts that wait or are under way. Default: 256.
    #[must_use]
    pub const fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = entries;
        self
    }

    /// The most bytes of them. Default: 256 MiB.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How many are under way at once, at least 1. Default: 4.
    #[must_use]
    pub const fn concurrency(mut self, uploads: usize) -> Self {
        self.concurrency = uploads;
        self
    }
}

/// What became of the uploads in the background.
///
/// Exact once a flush has returned: `accepted` is then the sum of `uploaded`, `failed` and
/// `dropped`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadReport {
    /// Artifacts taken for upload.
    pub accepted: u64,
    /// Artifacts that the server has taken.
    pub uploaded: u64,
    /// Artifacts that it has not.
    pub failed: u64,
    /// Uploads given up, by a close or a removal.
    pub dropped: u64,
    /// Puts of a key that was on its way already.
    pub coalesced: u64,
    /// Puts of an entry that the server is known to have.
    pub skipped: u64,
    /// Puts that were refused because a bound was reached.
    pub rejected: u64,
    /// Uploads that wait or are under way.
    pub pending: u64,
}

#[derive(Debug)]
pub(super) struct Uploads {
    policy: UploadPolicy,
    slots: Semaphore,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<PipelineFingerprint, Pending>,
    bytes: u64,
    next_id: u64,
    closed: bool,
    report: UploadReport,
    /// The first failure that no flush has told yet.
    untold: Option<StoreError>,
}

#[derive(Debug)]
struct Pending {
    id: u64,
    bytes: u64,
    cancelled: CancellationToken,
}

/// What a put in the background comes to.
#[derive(Debug)]
pub(super) enum Admission {
    /// To be uploaded.
    Accepted(Job),
    /// The same artifact is on its way.
    Coalesced,
    /// A bound is reached.
    Rejected,
}

/// An upload that was accepted. It is counted when this is dropped.
#[derive(Debug)]
pub(super) struct Job {
    uploads: Arc<Uploads>,
    key: PipelineFingerprint,
    cancelled: CancellationToken,
    /// `None` while it may still be given up.
    end: Option<Result<(), StoreError>>,
}

impl Uploads {
    pub(super) fn new(policy: UploadPolicy) -> Self {
        Self {
            slots: Semaphore::new(policy.concurrency.clamp(1, Semaphore::MAX_PERMITS)),
            policy,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn report(&self) -> UploadReport {
        let state = self.lock();
        UploadReport {
            pending: state.pending.len() as u64,
            ..state.report
        }
    }

    pub(super) fn skip(&self) {
        self.lock().report.skipped += 1;
    }

    pub(super) fn admit(self: &Arc<Self>, key: &PipelineFingerprint, bytes: u64) -> Admission {
        let mut state = self.lock();
        if state.pending.contains_key(key) {
            state.report.coalesced += 1;
            return Admission::Coalesced;
        }
        let total = state.bytes.saturating_add(bytes);
        if state.closed
            || state.pending.len() >= self.policy.max_entries
            || total > self.policy.max_bytes
        {
            state.report.rejected += 1;
            return Admission::Rejected;
        }
        let id = state.next_id;
        let cancelled = CancellationToken::new();
        let pending = Pending {
            id,
            bytes,
            cancelled: cancelled.clone(),
        };
        state.next_id += 1;
        state.bytes = total;
        state.report.accepted += 1;
        state.pending.insert(*key, pending);
        drop(state);
        Admission::Accepted(Job {
            uploads: Arc::clone(self),
            key: *key,
            cancelled,
            end: None,
        })
    }

    /// Waits until all that was accepted before has ended.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let next_id = self.lock().next_id;
        self.wait_until(|state| state.pending.values().all(|job| job.id >= next_id))
            .await;
        self.lock().untold.take().map_or(Ok(()), Err)
    }

    /// Gives up the upload of a key and waits until it has ended.
    pub(super) async fn cancel(&self, key: &PipelineFingerprint) {
        if let Some(job) = self.lock().pending.get(key) {
            job.cancelled.cancel();
        }
        self.wait_until(|state| {
            let job = state.pending.get(key);
            job.is_none_or(|job| !job.cancelled.is_cancelled())
        })
        .await;
    }

    /// Takes no more, and gives up all that has not ended.
    pub(super) fn abort(&self) {
        let mut state = self.lock();
        state.closed = true;
        for job in state.pending.values() {
            job.cancelled.cancel();
        }
    }

    async fn wait_until(&self, reached: impl Fn(&State) -> bool + Send) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if reached(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl Job {
    pub(super) async fn run(mut self, upload: impl Future<Output = Result<(), StoreError>> + Send) {
        let uploads = Arc::clone(&self.uploads);
        let upload = async {
            let _slot = uploads.slots.acquire().await;
            upload.await
        };
        self.end = self.cancelled.run_until_cancelled(upload).await;
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut state = self.uploads.lock();
        if let Some(pending) = state.pending.remove(&self.key) {
            state.bytes -= pending.bytes;
        }
        match self.end.take() {
            Some(Ok(())) => state.report.uploaded += 1,
            Some(Err(error)) => {
                state.report.failed += 1;
                state.untold.get_or_insert(error);
            }
            None => state.report.dropped += 1,
        }
        drop(state);
        self.uploads.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreErrorKind, StoreOperation};
    use futures::FutureExt as _;
    use std::future::{pending, ready};

    fn key(byte: u8) -> PipelineFingerprint {
        PipelineFingerprint::from_bytes([byte; 32])
    }

    fn uploads() -> Arc<Uploads> {
        let policy = UploadPolicy::default().max_entries(2).max_bytes(100);
        Arc::new(Uploads::new(policy.concurrency(1)))
    }

    fn accepted(uploads: &Arc<Uploads>, byte: u8, bytes: u64) -> Job {
        match uploads.admit(&key(byte), bytes) {
            Admission::Accepted(job) => job,
            refused => panic!("{refused:?}"),
        }
    }

    #[tokio::test]
    async fn the_bounds_hold_and_are_given_back() {
        let uploads = uploads();
        let first = accepted(&uploads, 1, 60);
        assert!(matches!(uploads.admit(&key(1), 1), Admission::Coalesced));
        assert!(matches!(uploads.admit(&key(2), 41), Admission::Rejected));
        let second = accepted(&uploads, 2, 40);
        assert!(matches!(uploads.admit(&key(3), 0), Admission::Rejected));
        first.run(ready(Ok(()))).await;
        drop(second);
        let _third = accepted(&uploads, 3, 100);
        let report = uploads.report();
        let ends = (report.uploaded, report.failed, report.dropped);
        assert_eq!((report.accepted, ends, report.pending), (3, (1, 0, 1), 1));
        assert_eq!((report.coalesced, report.rejected), (1, 2));
    }

    #[tokio::test]
    async fn a_flush_waits_for_what_was_accepted_before_it_and_for_no_more() {
        let uploads = uploads();
        let before = accepted(&uploads, 1, 1);
        let mut flush = Box::pin(uploads.flush());
        assert!((&mut flush).now_or_never().is_none());
        let _after = accepted(&uploads, 2, 1);
        before.run(ready(Ok(()))).await;
        flush.await.unwrap();
    }

    #[tokio::test]
    async fn a_failure_is_told_by_the_next_flush_once() {
        let uploads = uploads();
        let error = StoreError::new(StoreErrorKind::Unavailable, "t", StoreOperation::Put);
        accepted(&uploads, 1, 1).run(ready(Err(error))).await;
        let told = uploads.flush().await.unwrap_err();
        assert_eq!(told.kind(), StoreErrorKind::Unavailable);
        uploads.flush().await.unwrap();
        assert_eq!(uploads.report().failed, 1);
    }

    #[tokio::test]
    async fn a_removed_key_and_a_closed_tier_upload_nothing_more() {
        let uploads = uploads();
        let job = accepted(&uploads, 1, 1);
        let task = tokio::spawn(job.run(pending()));
        uploads.cancel(&key(1)).await;
        assert_eq!(uploads.report().dropped, 1);
        task.await.unwrap();

        let task = tokio::spawn(accepted(&uploads, 2, 1).run(pending()));
        uploads.abort();
        uploads.flush().await.unwrap();
        task.await.unwrap();
        assert!(matches!(uploads.admit(&key(3), 1), Admission::Rejected));
        assert_eq!(uploads.report().dropped, 2);
    }
}
