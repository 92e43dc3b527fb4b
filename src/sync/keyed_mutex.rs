//! One writer per key at a time: the second finds the first's entry instead of replacing one that
//! a flush has just made durable, and nothing removes what a put has just stored.
//!
//! Only another process that writes the same key in the same instant can still do that: a power
//! loss then may cost the entry, until either has flushed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;

use crate::key::PipelineFingerprint;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// Those of one key.
#[derive(Debug, Default)]
struct Queue {
    lock: Lock,
    /// How many have a place.
    places: usize,
}

/// The keys that are written, or wait to be, and no others: a trim passes over these, and must
/// find the rest of the folder free however many there are.
#[derive(Debug, Default)]
pub(crate) struct KeyedMutex(Arc<Mutex<Table>>);

type Table = HashMap<PipelineFingerprint, Queue>;

/// The turn of a key.
#[derive(Debug)]
pub(crate) struct KeyedGuard {
    // Dropped before the place, so that nobody is given the key anew while it is held.
    _guard: OwnedMutexGuard<()>,
    _place: Place,
}

impl KeyedMutex {
    pub(crate) async fn lock(&self, key: &PipelineFingerprint) -> KeyedGuard {
        let (place, lock) = self.take_place(&mut lock(&self.0), key);
        KeyedGuard {
            _guard: lock.lock_owned().await,
            _place: place,
        }
    }

    /// The turn of a key that nobody writes, or waits to.
    pub(crate) fn try_lock(&self, key: &PipelineFingerprint) -> Option<KeyedGuard> {
        let mut table = lock(&self.0);
        if table.contains_key(key) {
            return None;
        }
        let (place, free) = self.take_place(&mut table, key);
        // Or else the place, which looks at the table as it goes, would find it locked.
        drop(table);
        Some(KeyedGuard {
            _guard: free.try_lock_owned().ok()?,
            _place: place,
        })
    }

    fn take_place(&self, table: &mut Table, key: &PipelineFingerprint) -> (Place, Lock) {
        let queue = table.entry(*key).or_default();
        queue.places += 1;
        let place = Place {
            key: *key,
            key_locks: Self(Arc::clone(&self.0)),
        };
        (place, Arc::clone(&queue.lock))
    }
}

/// A place in the queue for a key. With the last one, the queue goes.
#[derive(Debug)]
struct Place {
    key: PipelineFingerprint,
    key_locks: KeyedMutex,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.key_locks.0);
        if let Some(queue) = table.get_mut(&self.key) {
            queue.places -= 1;
            if queue.places == 0 {
                table.remove(&self.key);
            }
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
        let key_locks = KeyedMutex::default();
        let first = key_locks.lock(&ONE).await;
        assert!(key_locks.try_lock(&ONE).is_none());
        drop(key_locks.try_lock(&OTHER).expect("it is another's"));
        {
            let mut second = pin!(key_locks.lock(&ONE));
            let mut leaver = Box::pin(key_locks.lock(&ONE));
            assert!(poll!(&mut second).is_pending());
            assert!(poll!(&mut leaver).is_pending());
            drop(first);
            drop(leaver);
            let second = second.await;
            assert!(key_locks.try_lock(&ONE).is_none());
            drop(second);
        }
        assert!(key_locks.try_lock(&ONE).is_some());
        assert!(lock(&key_locks.0).is_empty());
    }

    #[tokio::test]
    async fn one_who_leaves_last_leaves_nothing() {
        let key_locks = KeyedMutex::default();
        let first = key_locks.lock(&ONE).await;
        let mut leaver = Box::pin(key_locks.lock(&ONE));
        assert!(poll!(&mut leaver).is_pending());
        drop(first);
        drop(leaver);
        assert!(lock(&key_locks.0).is_empty());
    }

    #[tokio::test]
    async fn what_is_left_of_one_who_goes_keeps_no_place() {
        let key_locks = KeyedMutex::default();
        let first = key_locks.lock(&ONE).await;
        // As between two steps of another's drop.
        let left = Arc::clone(&lock(&key_locks.0)[&ONE].lock);
        drop(first);
        assert!(key_locks.try_lock(&ONE).is_some());
        drop(left);
        assert!(lock(&key_locks.0).is_empty());
    }
}
