//! Keys that the server did not have a short while ago.
//!
//! A miss of a lookup that began before the entry was put must not outlive the put. So a key is only
//! noted if it was not forgotten since the lookup began.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::key::PipelineFingerprint;

#[derive(Debug)]
pub(super) struct RecentKeys {
    capacity: usize,
    time_to_live: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    noted: HashMap<PipelineFingerprint, Instant>,
    /// Every note, oldest first. Those of forgotten keys stay until they are due.
    order: VecDeque<(PipelineFingerprint, Instant)>,
    pending: HashMap<PipelineFingerprint, PendingLookups>,
}

/// The lookups of one key that are under way.
#[derive(Debug, Default)]
struct PendingLookups {
    lookups: usize,
    /// How often the key was forgotten since the first of them.
    forgotten: u64,
}

/// A lookup that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct PendingLookup<'a> {
    keys: &'a RecentKeys,
    key: PipelineFingerprint,
    forgotten: u64,
}

impl RecentKeys {
    pub(super) fn new(capacity: usize, time_to_live: Duration) -> Self {
        Self {
            capacity,
            time_to_live,
            inner: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lookup of a key begins. `None` where a miss need not be noted, because one was noted a
    /// short while ago. So a key that is looked up again and again displaces no other.
    pub(super) fn begin_lookup(&self, key: &PipelineFingerprint) -> Option<PendingLookup<'_>> {
        let mut inner = self.lock();
        if self.is_fresh(&inner, key) {
            return None;
        }
        let pending = inner.pending.entry(*key).or_default();
        pending.lookups += 1;
        Some(PendingLookup {
            keys: self,
            key: *key,
            forgotten: pending.forgotten,
        })
    }

    /// Whether it was noted a short while ago.
    fn is_fresh(&self, inner: &Inner, key: &PipelineFingerprint) -> bool {
        let noted = inner.noted.get(key);
        noted.is_some_and(|at| at.elapsed() < self.time_to_live / 2)
    }

    pub(super) fn contains(&self, key: &PipelineFingerprint) -> bool {
        let inner = self.lock();
        let noted = inner.noted.get(key);
        noted.is_some_and(|at| at.elapsed() < self.time_to_live)
    }

    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        let mut inner = self.lock();
        if let Some(pending) = inner.pending.get_mut(key) {
            pending.forgotten += 1;
        }
        inner.noted.remove(key);
    }
}

impl PendingLookup<'_> {
    /// Notes that the lookup missed.
    pub(super) fn note(&self) {
        let Self { keys, key, .. } = self;
        let mut inner = keys.lock();
        if keys.is_fresh(&inner, key) {
            return;
        }
        let pending = inner.pending.get(key);
        let was_forgotten = pending.is_none_or(|pending| pending.forgotten != self.forgotten);
        if was_forgotten || keys.capacity == 0 {
            return;
        }
        while let Some(&(oldest, at)) = inner.order.front() {
            if inner.order.len() < keys.capacity && at.elapsed() < keys.time_to_live {
                break;
            }
            inner.order.pop_front();
            // It stays if it was noted again since then.
            if inner.noted.get(&oldest) == Some(&at) {
                inner.noted.remove(&oldest);
            }
        }
        let now = Instant::now();
        inner.noted.insert(*key, now);
        inner.order.push_back((*key, now));
    }
}

impl Drop for PendingLookup<'_> {
    fn drop(&mut self) {
        let mut inner = self.keys.lock();
        if let Some(pending) = inner.pending.get_mut(&self.key) {
            pending.lookups -= 1;
            if pending.lookups == 0 {
                inner.pending.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn key(byte: u8) -> PipelineFingerprint {
        PipelineFingerprint::from_bytes([byte; 32])
    }

    #[tokio::test(start_paused = true)]
    async fn notes_end_with_their_time() {
        let recent = RecentKeys::new(10, Duration::from_secs(5));
        recent.begin_lookup(&key(1)).unwrap().note();
        advance(Duration::from_secs(4)).await;
        assert!(recent.contains(&key(1)));
        recent.begin_lookup(&key(1)).unwrap().note();
        advance(Duration::from_secs(4)).await;
        assert!(recent.contains(&key(1)), "it was noted again");
        advance(Duration::from_secs(1)).await;
        assert!(!recent.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn notes_are_bounded() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        for round in 0..100 {
            recent.begin_lookup(&key(round)).unwrap().note();
            advance(Duration::from_millis(1)).await;
        }
        assert!(recent.contains(&key(99)) && recent.contains(&key(97)));
        assert!(!recent.contains(&key(96)));
        let inner = recent.lock();
        assert_eq!((inner.noted.len(), inner.order.len()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_noted_often_displaces_no_other() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        for round in [1, 2, 3, 3, 3, 3] {
            if let Some(lookup) = recent.begin_lookup(&key(round)) {
                lookup.note();
            }
        }
        // Under way at once, as well.
        let lookups = [(); 10].map(|()| recent.begin_lookup(&key(4)));
        recent.forget(&key(3));
        for lookup in lookups.iter().flatten() {
            lookup.note();
        }
        assert!(recent.contains(&key(2)) && recent.contains(&key(4)));
        assert!(!recent.contains(&key(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_miss_from_before_a_put_is_not_noted() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        let before = recent.begin_lookup(&key(1)).unwrap();
        let other = recent.begin_lookup(&key(2)).unwrap();
        recent.forget(&key(1));
        let again = recent.begin_lookup(&key(1)).unwrap();
        before.note();
        assert!(!recent.contains(&key(1)));
        drop(before);
        again.note();
        assert!(recent.contains(&key(1)));
        recent.forget(&key(1));
        assert!(!recent.contains(&key(1)));
        // What happened to one key says nothing about another.
        other.note();
        assert!(recent.contains(&key(2)));
        drop((again, other));
        assert!(recent.lock().pending.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_nothing_is_noted() {
        let recent = RecentKeys::new(0, Duration::from_secs(5));
        recent.begin_lookup(&key(1)).unwrap().note();
        assert!(!recent.contains(&key(1)));
    }
}
