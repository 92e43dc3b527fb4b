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

/// The most keys that are remembered.
const CAPACITY: usize = 4096;

#[derive(Debug)]
pub(super) struct UnhealedEntries {
    /// For how long each step is remembered.
    time: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<PipelineFingerprint, BadEntry>,
    /// Every step that is remembered, oldest first, also those of forgotten keys.
    order: VecDeque<(PipelineFingerprint, Instant)>,
}

/// An entry that a lookup found corrupt or refused.
#[derive(Debug, Clone, Copy)]
struct BadEntry {
    state: State,
    /// When it was found, or uploaded since.
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Found,
    Uploaded,
    /// A lookup after the upload found it as bad as before.
    Unhealed,
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

    fn state(&self, inner: &Inner, key: &PipelineFingerprint) -> Option<State> {
        let entry = inner.entries.get(key)?;
        (entry.at.elapsed() < self.time).then_some(entry.state)
    }

    fn remember(&self, inner: &mut Inner, key: &PipelineFingerprint, state: State) {
        while let Some(&(oldest, at)) = inner.order.front() {
            if inner.order.len() < CAPACITY && at.elapsed() < self.time {
                break;
            }
            inner.order.pop_front();
            if inner
                .entries
                .get(&oldest)
                .is_some_and(|entry| entry.at == at)
            {
                inner.entries.remove(&oldest);
            }
        }
        let at = Instant::now();
        inner.entries.insert(*key, BadEntry { state, at });
        inner.order.push_back((*key, at));
    }

    /// A lookup found a corrupt or refused entry. Returns whether an upload turns out to have
    /// changed nothing.
    pub(super) fn found(&self, key: &PipelineFingerprint) -> bool {
        let mut inner = self.lock();
        match self.state(&inner, key) {
            None => self.remember(&mut inner, key, State::Found),
            Some(State::Uploaded) => {
                if let Some(entry) = inner.entries.get_mut(key) {
                    entry.state = State::Unhealed;
                }
                return true;
            }
            Some(State::Found | State::Unhealed) => {}
        }
        false
    }

    /// Whether the last lookup found a corrupt or refused entry, and nothing was uploaded since.
    pub(super) fn was_found(&self, key: &PipelineFingerprint) -> bool {
        let state = self.state(&self.lock(), key);
        matches!(state, Some(State::Found | State::Unhealed))
    }

    /// The server took an upload of this key.
    pub(super) fn uploaded(&self, key: &PipelineFingerprint) {
        let mut inner = self.lock();
        if inner.entries.contains_key(key) {
            self.remember(&mut inner, key, State::Uploaded);
        }
    }

    /// The entry is as it should be, or gone.
    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        self.lock().entries.remove(key);
    }

    /// Whether the last upload of this key changed nothing, a short while ago.
    pub(super) fn contains(&self, key: &PipelineFingerprint) -> bool {
        self.state(&self.lock(), key) == Some(State::Unhealed)
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
        for _ in 0..3 {
            assert!(!entries.found(&key(1)));
            assert!(!entries.contains(&key(1)), "an upload may heal it");
            entries.uploaded(&key(1));
            assert!(!entries.contains(&key(1)), "it may be healed");
            assert!(entries.found(&key(1)));
            assert!(!entries.found(&key(1)), "that is no news");
            advance(Duration::from_secs(59)).await;
            assert!(entries.contains(&key(1)));
            advance(Duration::from_secs(1)).await;
            assert!(!entries.contains(&key(1)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_was_good_before_its_upload_may_be_uploaded_again() {
        let entries = UnhealedEntries::new(Duration::from_secs(60));
        entries.uploaded(&key(1));
        assert!(!entries.found(&key(1)));
        assert!(!entries.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_is_good_again_is_forgotten() {
        let entries = UnhealedEntries::new(Duration::from_secs(60));
        entries.found(&key(1));
        entries.uploaded(&key(1));
        entries.found(&key(1));
        entries.forget(&key(1));
        assert!(!entries.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_keys_are_bounded() {
        let entries = UnhealedEntries::new(Duration::from_secs(60));
        for number in 0..2 * CAPACITY as u32 {
            entries.found(&key(number));
            entries.uploaded(&key(number));
        }
        let inner = entries.lock();
        assert!(inner.entries.len() <= CAPACITY && inner.order.len() <= CAPACITY);
        let last = 2 * CAPACITY as u32 - 1;
        assert!(inner.entries.contains_key(&key(last)));
    }
}
