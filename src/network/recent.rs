//! Keys about which something was learnt a short while ago: that the server has no such entry, or
//! that it has one.
//!
//! What is learnt from a question that was asked before the entry changed must not outlive the
//! change. So a note is only taken if nothing was forgotten since the question was asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

use crate::PipelineFingerprint;

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
    epoch: Epoch,
}

/// When a question was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Epoch(u64);

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

    pub(super) fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    pub(super) fn contains(&self, key: &PipelineFingerprint) -> bool {
        let inner = self.lock();
        let noted = inner.noted.get(key);
        noted.is_some_and(|at| at.elapsed() < self.time_to_live)
    }

    /// Notes what was learnt from a question asked in this epoch.
    pub(super) fn note(&self, key: &PipelineFingerprint, asked: Epoch) {
        let mut inner = self.lock();
        if inner.epoch != asked || self.capacity == 0 {
            return;
        }
        while let Some(&(oldest, at)) = inner.order.front() {
            if inner.order.len() < self.capacity && at.elapsed() < self.time_to_live {
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

    pub(super) fn forget(&self, key: &PipelineFingerprint) {
        let mut inner = self.lock();
        inner.epoch.0 += 1;
        inner.noted.remove(key);
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
        recent.note(&key(1), recent.epoch());
        advance(Duration::from_secs(4)).await;
        assert!(recent.contains(&key(1)));
        recent.note(&key(1), recent.epoch());
        advance(Duration::from_secs(4)).await;
        assert!(recent.contains(&key(1)), "it was noted again");
        advance(Duration::from_secs(1)).await;
        assert!(!recent.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn notes_are_bounded() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        for round in 0..100 {
            recent.note(&key(round), recent.epoch());
            advance(Duration::from_millis(1)).await;
        }
        assert!(recent.contains(&key(99)) && recent.contains(&key(97)));
        assert!(!recent.contains(&key(96)));
        let inner = recent.lock();
        assert_eq!((inner.noted.len(), inner.order.len()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_before_a_change_is_not_noted() {
        let recent = RecentKeys::new(3, Duration::from_secs(5));
        let asked = recent.epoch();
        recent.forget(&key(1));
        recent.note(&key(1), asked);
        assert!(!recent.contains(&key(1)));
        recent.note(&key(1), recent.epoch());
        recent.forget(&key(1));
        assert!(!recent.contains(&key(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_nothing_is_noted() {
        let recent = RecentKeys::new(0, Duration::from_secs(5));
        recent.note(&key(1), recent.epoch());
        assert!(!recent.contains(&key(1)));
    }
}
