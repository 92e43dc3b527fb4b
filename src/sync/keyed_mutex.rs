//! A mutex for each key: one writer of a key at a time in this process.
//!
//! The second writer finds the entry of the first, instead of replacing one that a flush has just
//! made durable, and nothing removes an entry that a put has just stored. Another process can still
//! write the same key at the same time. A power loss may then cost the entry, until one of the two
//! has flushed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::OwnedMutexGuard;

use super::lock::lock;
use crate::key::PipelineFingerprint;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// The mutex of one key.
#[derive(Debug, Default)]
struct Entry {
    lock: Lock,
    /// How many hold the mutex or wait for it.
    users: usize,
}

/// The mutexes of the keys that are written or wait to be written, and of no others: a trim skips
/// these keys, and must find all others free.
#[derive(Debug, Default)]
pub(crate) struct KeyedMutex(Arc<Mutex<Table>>);

type Table = HashMap<PipelineFingerprint, Entry>;

/// Holds the mutex of a key.
#[derive(Debug)]
pub(crate) struct KeyedGuard {
    // Dropped before the user, so that the key gets no second mutex while this one is held.
    _guard: OwnedMutexGuard<()>,
    _user: User,
}

impl KeyedMutex {
    /// Waits for the mutex of a key.
    pub(crate) async fn lock(&self, key: &PipelineFingerprint) -> KeyedGuard {
        let (user, lock) = self.add_user(&mut lock(&self.0), key);
        KeyedGuard {
            _guard: lock.lock_owned().await,
            _user: user,
        }
    }

    /// The mutex of a key, if nobody holds it or waits for it.
    pub(crate) fn try_lock(&self, key: &PipelineFingerprint) -> Option<KeyedGuard> {
        let mut table = lock(&self.0);
        if table.contains_key(key) {
            return None;
        }
        let (user, free) = self.add_user(&mut table, key);
        // Dropping a user locks the table.
        drop(table);
        Some(KeyedGuard {
            _guard: free.try_lock_owned().ok()?,
            _user: user,
        })
    }

    fn add_user(&self, table: &mut Table, key: &PipelineFingerprint) -> (User, Lock) {
        let entry = table.entry(*key).or_default();
        entry.users += 1;
        let user = User {
            key: *key,
            key_locks: Self(Arc::clone(&self.0)),
        };
        (user, Arc::clone(&entry.lock))
    }
}

/// Holds the mutex of a key, or waits for it. The last user removes the mutex.
#[derive(Debug)]
struct User {
    key: PipelineFingerprint,
    key_locks: KeyedMutex,
}

impl Drop for User {
    fn drop(&mut self) {
        let mut table = lock(&self.key_locks.0);
        if let Some(entry) = table.get_mut(&self.key) {
            entry.users -= 1;
            if entry.users == 0 {
                table.remove(&self.key);
            }
        }
    }
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
    async fn the_lock_of_a_key_is_exclusive_and_leaves_no_entry() {
        let key_locks = KeyedMutex::default();
        let first = key_locks.lock(&ONE).await;
        assert!(key_locks.try_lock(&ONE).is_none());
        drop(key_locks.try_lock(&OTHER).expect("another key is free"));
        {
            let mut second = pin!(key_locks.lock(&ONE));
            let mut gives_up = Box::pin(key_locks.lock(&ONE));
            assert!(poll!(&mut second).is_pending());
            assert!(poll!(&mut gives_up).is_pending());
            drop(first);
            drop(gives_up);
            let second = second.await;
            assert!(key_locks.try_lock(&ONE).is_none());
            drop(second);
        }
        assert!(key_locks.try_lock(&ONE).is_some());
        assert!(lock(&key_locks.0).is_empty());
    }

    #[tokio::test]
    async fn the_last_waiter_that_gives_up_leaves_no_entry() {
        let key_locks = KeyedMutex::default();
        let first = key_locks.lock(&ONE).await;
        let mut gives_up = Box::pin(key_locks.lock(&ONE));
        assert!(poll!(&mut gives_up).is_pending());
        drop(first);
        drop(gives_up);
        assert!(lock(&key_locks.0).is_empty());
    }

    #[tokio::test]
    async fn a_guard_that_is_half_dropped_keeps_the_key_no_longer() {
        let key_locks = KeyedMutex::default();
        let first = key_locks.lock(&ONE).await;
        // As between two steps of the drop of another guard.
        let left = Arc::clone(&lock(&key_locks.0)[&ONE].lock);
        drop(first);
        assert!(key_locks.try_lock(&ONE).is_some());
        drop(left);
        assert!(lock(&key_locks.0).is_empty());
    }
}
