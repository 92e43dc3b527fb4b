//! Entries that an upload did not change: they stay corrupt, or refused, and for a while they are
//! not uploaded again.
//!
//! So an edge that transforms every response, or a server that keeps another's entry, costs one
//! upload and not one for each lookup.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::key::PipelineFingerprint;

/// The most uploads that are remembered.
const CAPACITY: usize = 4096;

#[derive(Debug)]
pub(super) struct UnhealedEntries {
    /// For how long an upload is remembered.
    time: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    uploads: HashMap<PipelineFingerprint, Upload>,
    /// Every remembered upload, oldest first, also those that were forgotten since.
    order: VecDeque<(PipelineFingerprint, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Upload {
    at: Instant,
    /// Whether a lookup since then found that it changed nothing.
    is_unhealed: bool,
}

impl UnhealedEntries {
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server took an upload of this key.
    pub(super) fn uploaded(&self, key: &PipelineFingerprint) {
        let (mut inner, at) = (self.lock(), Instant::now());
        while let Some(&(oldest, uploaded)) = inner.order.front() {
            if inner.order.len() < CAPACITY && uploaded.elapsed() < self.time {
                break;
            }
            inner.order.pop_front();
            if inner
                .uploads
                .get(&oldest)
                .is_some_and(|last| last.at == uploaded)
            {
                inner.uploads.remove(&oldest);
            }
        }
        let is_unhealed = false;
        inner.uploads.insert(*key, Upload { at, is_unhealed });
        inner.order.push_back((*key, at));
    }

    /// A lookup found a corrupt or refused entry. Returns whether that is news about an upload.
    pub(super) fn found_bad(&self, key: &PipelineFingerprint) -> bool {
        let mut inner = self.lock();
        let upload = inner.uploads.get_mut(key);
        upload.is_some_and(|upload| !std::mem::replace(&mut upload.is_unhealed, true))
    }

    /// The entry is as it should be, or gone.
    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        self.lock().uploads.remove(key);
    }

    /// Whether the last upload of this key changed nothing, a short while ago.
    pub(super) fn contains(&self, key: &PipelineFingerprint) -> bool {
        let inner = self.lock();
        let upload = inner.uploads.get(key);
        upload.is_some_and(|upload| upload.is_unhealed && upload.at.elapsed() < self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn key(number: u32) -> PipelineFingerprint {
        PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_changed_nothing_is_not_repeated_for_its_time() {
        let entries = UnhealedEntries::new(Duration::from_secs(60));
        assert!(!entries.found_bad(&key(1)), "it was not uploaded");
        assert!(!entries.contains(&key(1)), "an upload may heal it");
        entries.uploaded(&key(1));
        assert!(!entries.contains(&key(1)), "it may be healed");
        assert!(entries.found_bad(&key(1)));
        assert!(!entries.found_bad(&key(1)), "that is no news");
        advance(Duration::from_secs(59)).await;
        assert!(entries.contains(&key(1)));
        advance(Duration::from_secs(1)).await;
        assert!(!entries.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_is_good_again_is_forgotten() {
        let entries = UnhealedEntries::new(Duration::from_secs(60));
        entries.uploaded(&key(1));
        entries.found_bad(&key(1));
        entries.forget(&key(1));
        assert!(!entries.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_uploads_are_bounded() {
        let entries = UnhealedEntries::new(Duration::from_secs(60));
        for number in 0..2 * CAPACITY as u32 {
            entries.uploaded(&key(number));
            entries.uploaded(&key(0));
        }
        let inner = entries.lock();
        assert!(inner.uploads.len() <= CAPACITY && inner.order.len() <= CAPACITY);
        assert!(inner.uploads.contains_key(&key(0)), "it is the latest");
    }
}
