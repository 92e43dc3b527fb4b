//! Keys about which something was learnt a short while ago: that the server has no such entry, or
//! that it has one.
//!
//! What is learnt from a lookup that was asked before the entry changed must not outlive the
//! change. So a note is only taken if its key was not forgotten since the lookup was asked.

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
    /// Every note taken, oldest first. Those of forgotten keys stay until they are due.
    order: VecDeque<(PipelineFingerprint, Instant)>,
    asked: HashMap<PipelineFingerprint, Asked>,
}

/// The questions about a key that are under way.
#[derive(Debug, Default)]
struct Asked {
    questions: usize,
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

    /// A lookup about a key is asked. None where its answer is not worth a note: one was taken
    /// a short while ago. So a key that is asked for again and again takes the place of no other.
    pub(super) fn ask(&self, key: &PipelineFingerprint) -> Option<PendingLookup<'_>> {
        let mut inner = self.lock();
        if self.is_fresh(&inner, key) {
            return None;
        }
        let asked = inner.asked.entry(*key).or_default();
        asked.questions += 1;
        Some(PendingLookup {
            keys: self,
            key: *key,
            forgotten: asked.forgotten,
        })
    }

    /// Whether a note of it was taken a short while ago.
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
        if let Some(asked) = inner.asked.get_mut(key) {
            asked.forgotten += 1;
        }
        inner.noted.remove(key);
    }
}

impl PendingLookup<'_> {
    /// Notes that the answer was the one that is kept in mind here.
    pub(super) fn note(&self) {
        let Self { keys, key, .. } = self;
        let mut inner = keys.lock();
        if keys.is_fresh(&inner, key) {
            return;
        }
        let asked = inner.asked.get(key);
        if asked.is_none_or(|asked| asked.forgotten != self.forgotten) || keys.capacity == 0 {
            return;
        }
        while let Some(&(oldest, at)) = inner.order.front() {
            if inner.order.len() < keys.capacity && at.elapsed() < keys.time_to_live {
                break;
            }
            inner.order.pop_front();
            // Noted again since then, it stays.
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
        if let Some(asked) = inner.asked.get_mut(&self.key) {
            asked.questions -= 1;
            if asked.questions == 0 {
                inner.asked.remove(&self.key);
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
        recent.ask(&key(1)).unwrap().note();
        advance(Duration::from_secs(4)).await;
        assert!(recent.contains(&key(1)));
        recent.ask(&key(1)).unwrap().note();
        advance(Duration::from_secs(4)).await;
        assert!(recent.contains(&key(1)), "it was noted again");
        advance(Duration::from_secs(1)).await;
        assert!(!recent.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn notes_are_bounded() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        for round in 0..100 {
            recent.ask(&key(round)).unwrap().note();
            advance(Duration::from_millis(1)).await;
        }
        assert!(recent.contains(&key(99)) && recent.contains(&key(97)));
        assert!(!recent.contains(&key(96)));
        let inner = recent.lock();
        assert_eq!((inner.noted.len(), inner.order.len()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_noted_often_takes_the_place_of_no_other() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        for round in [1, 2, 3, 3, 3, 3] {
            if let Some(pending) = recent.ask(&key(round)) {
                pending.note();
            }
        }
        // Under way at once, as well.
        let asked = [(); 10].map(|()| recent.ask(&key(4)));
        recent.forget(&key(3));
        for pending in asked.iter().flatten() {
            pending.note();
        }
        assert!(recent.contains(&key(2)) && recent.contains(&key(4)));
        assert!(!recent.contains(&key(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_before_a_change_is_not_noted() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        let asked = recent.ask(&key(1)).unwrap();
        let other = recent.ask(&key(2)).unwrap();
        recent.forget(&key(1));
        let again = recent.ask(&key(1)).unwrap();
        asked.note();
        assert!(!recent.contains(&key(1)));
        drop(asked);
        again.note();
        assert!(recent.contains(&key(1)));
        recent.forget(&key(1));
        assert!(!recent.contains(&key(1)));
        // What happened to one key says nothing about another.
        other.note();
        assert!(recent.contains(&key(2)));
        drop((again, other));
        assert!(recent.lock().asked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_nothing_is_noted() {
        let recent = RecentKeys::new(0, Duration::from_secs(5));
        recent.ask(&key(1)).unwrap().note();
        assert!(!recent.contains(&key(1)));
    }
}
