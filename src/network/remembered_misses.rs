//! Remembered misses: the keys that the server did not have a short while ago.
//!
//! A miss of a lookup that began before the entry was put must not outlive the put. So a miss is only
//! remembered if its key was not forgotten since the lookup began.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::key::PipelineFingerprint;

#[derive(Debug)]
pub(super) struct RememberedMisses {
    capacity: usize,
    time_to_live: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    remembered: HashMap<PipelineFingerprint, Instant>,
    /// Every remembered miss, oldest first. Those of forgotten keys stay until they are due.
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
    keys: &'a RememberedMisses,
    key: PipelineFingerprint,
    forgotten: u64,
}

impl RememberedMisses {
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

    /// A lookup of a key begins. `None` where its miss need not be remembered, because one was a
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

    /// Whether its miss was remembered a short while ago.
    fn is_fresh(&self, inner: &Inner, key: &PipelineFingerprint) -> bool {
        let missed = inner.remembered.get(key);
        missed.is_some_and(|at| at.elapsed() < self.time_to_live / 2)
    }

    pub(super) fn contains(&self, key: &PipelineFingerprint) -> bool {
        let inner = self.lock();
        let missed = inner.remembered.get(key);
        missed.is_some_and(|at| at.elapsed() < self.time_to_live)
    }

    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        let mut inner = self.lock();
        if let Some(pending) = inner.pending.get_mut(key) {
            pending.forgotten += 1;
        }
        inner.remembered.remove(key);
    }
}

impl PendingLookup<'_> {
    /// Remembers that the lookup missed.
    pub(super) fn remember_miss(&self) {
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
            // It stays if it was remembered again since then.
            if inner.remembered.get(&oldest) == Some(&at) {
                inner.remembered.remove(&oldest);
            }
        }
        let now = Instant::now();
        inner.remembered.insert(*key, now);
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
    async fn misses_are_forgotten_after_their_time() {
        let misses = RememberedMisses::new(10, Duration::from_secs(5));
        misses.begin_lookup(&key(1)).unwrap().remember_miss();
        advance(Duration::from_secs(4)).await;
        assert!(misses.contains(&key(1)));
        misses.begin_lookup(&key(1)).unwrap().remember_miss();
        advance(Duration::from_secs(4)).await;
        assert!(misses.contains(&key(1)), "it was remembered again");
        advance(Duration::from_secs(1)).await;
        assert!(!misses.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn remembered_misses_are_bounded() {
        let misses = RememberedMisses::new(3, Duration::from_secs(5));
        for round in 0..100 {
            misses.begin_lookup(&key(round)).unwrap().remember_miss();
            advance(Duration::from_millis(1)).await;
        }
        assert!(misses.contains(&key(99)) && misses.contains(&key(97)));
        assert!(!misses.contains(&key(96)));
        let inner = misses.lock();
        assert_eq!((inner.remembered.len(), inner.order.len()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_missed_often_displaces_no_other() {
        let misses = RememberedMisses::new(3, Duration::from_secs(5));
        for round in [1, 2, 3, 3, 3, 3] {
            if let Some(lookup) = misses.begin_lookup(&key(round)) {
                lookup.remember_miss();
            }
        }
        // Under way at once, as well.
        let lookups = [(); 10].map(|()| misses.begin_lookup(&key(4)));
        misses.forget(&key(3));
        for lookup in lookups.iter().flatten() {
            lookup.remember_miss();
        }
        assert!(misses.contains(&key(2)) && misses.contains(&key(4)));
        assert!(!misses.contains(&key(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_miss_from_before_a_put_is_not_remembered() {
        let misses = RememberedMisses::new(3, Duration::from_secs(5));
        let before = misses.begin_lookup(&key(1)).unwrap();
        let other = misses.begin_lookup(&key(2)).unwrap();
        misses.forget(&key(1));
        let again = misses.begin_lookup(&key(1)).unwrap();
        before.remember_miss();
        assert!(!misses.contains(&key(1)));
        drop(before);
        again.remember_miss();
        assert!(misses.contains(&key(1)));
        misses.forget(&key(1));
        assert!(!misses.contains(&key(1)));
        // What happened to one key says nothing about another.
        other.remember_miss();
        assert!(misses.contains(&key(2)));
        drop((again, other));
        assert!(misses.lock().pending.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_no_miss_is_remembered() {
        let misses = RememberedMisses::new(0, Duration::from_secs(5));
        misses.begin_lookup(&key(1)).unwrap().remember_miss();
        assert!(!misses.contains(&key(1)));
    }
}
