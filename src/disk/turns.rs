//! One writer per key at a time: the second finds the first's entry instead of replacing one that
//! a flush has just made durable, and nothing removes what a put has just stored.
//!
//! Only another process that writes the same key in the same instant can still do that: a power
//! loss then may cost the entry, until either has flushed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;

use crate::PipelineFingerprint;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// The keys that are written, or wait to be, and no others: a trim passes over these, and must
/// find the rest of the folder free however many there are.
#[derive(Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<PipelineFingerprint, Lock>>>);

/// The turn of a key.
#[derive(Debug)]
pub(super) struct Turn {
    // Dropped before the place, which looks whether anybody else has one.
    _guard: OwnedMutexGuard<()>,
    _place: Place,
}

impl Turns {
    pub(super) async fn of(&self, key: &PipelineFingerprint) -> Turn {
        let place = Place {
            lock: Arc::clone(lock(&self.0).entry(*key).or_default()),
            key: *key,
            turns: Self(Arc::clone(&self.0)),
        };
        Turn {
            _guard: Arc::clone(&place.lock).lock_owned().await,
            _place: place,
        }
    }

    /// The turn of a key that nobody writes, or waits to.
    pub(super) fn try_of(&self, key: &PipelineFingerprint) -> Option<Turn> {
        let mut table = lock(&self.0);
        if table.contains_key(key) {
            return None;
        }
        let free = Lock::default();
        let guard = Arc::clone(&free).try_lock_owned().ok()?;
        table.insert(*key, Arc::clone(&free));
        Some(Turn {
            _guard: guard,
            _place: Place {
                lock: free,
                key: *key,
                turns: Self(Arc::clone(&self.0)),
            },
        })
    }
}

/// A place in the queue for a key. With the last one, the queue goes.
#[derive(Debug)]
struct Place {
    lock: Lock,
    key: PipelineFingerprint,
    turns: Turns,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.turns.0);
        // Its own and the table's: others are counted for as long as they have a place.
        if Arc::strong_count(&self.lock) == 2 {
            table.remove(&self.key);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder of the lock can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::pin::pin;

    const ONE: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);
    const OTHER: PipelineFingerprint = {
        let mut key = [1; 32];
        key[31] = 2;
        PipelineFingerprint::from_bytes(key)
    };

    #[tokio::test]
    async fn those_of_one_key_take_turns_and_leave_nothing() {
        let turns = Turns::default();
        let first = turns.of(&ONE).await;
        assert!(turns.try_of(&ONE).is_none());
        drop(turns.try_of(&OTHER).expect("it is another's"));
        {
            let mut second = pin!(turns.of(&ONE));
            let mut leaver = Box::pin(turns.of(&ONE));
            assert!(poll!(&mut second).is_pending());
            assert!(poll!(&mut leaver).is_pending());
            drop(first);
            drop(leaver);
            let second = second.await;
            assert!(turns.try_of(&ONE).is_none());
            drop(second);
        }
        assert!(turns.try_of(&ONE).is_some());
        assert!(lock(&turns.0).is_empty());
    }

    #[tokio::test]
    async fn one_who_leaves_last_leaves_nothing() {
        let turns = Turns::default();
        let first = turns.of(&ONE).await;
        let mut leaver = Box::pin(turns.of(&ONE));
        assert!(poll!(&mut leaver).is_pending());
        drop(first);
        drop(leaver);
        assert!(lock(&turns.0).is_empty());
    }
}
