//! What the memory tier holds: the one place a read looks.
//!
//! A sharded map behind short locks. Which artifacts stay in it is decided elsewhere, by the
//! [`policy`](super::policy); a read that never asks the policy costs a tenth of one that does.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Artifact, PipelineFingerprint};

/// Enough that a few dozen threads rarely meet in one; a power of two.
const SHARDS: usize = 64;

/// Hits on one entry that are all told to the policy, before sampling starts.
const TOLD_AT_FIRST: u64 = 4;

/// After that, one hit in so many is told.
const TOLD_EVERY: u64 = 8;

#[derive(Debug)]
pub(super) struct Index {
    shards: Box<[Shard]>,
    entries: AtomicU64,
    bytes: AtomicU64,
}

/// On cache lines of its own, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<ShardState>);

#[derive(Debug, Default)]
struct ShardState {
    entries: HashMap<PipelineFingerprint, Entry, BuildHasherDefault<PassThrough>>,
    /// Counted under the lock that a hit holds anyway, so no counter is shared by all threads.
    hits: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    artifact: Artifact,
    stored: Instant,
    hits: u64,
}

impl Entry {
    pub(super) fn cost(&self) -> u64 {
        cost(&self.artifact)
    }

    pub(super) fn age(&self) -> Duration {
        self.stored.elapsed()
    }
}

/// What an artifact takes of the budget of bytes.
pub(super) fn cost(artifact: &Artifact) -> u64 {
    artifact.len() as u64 + artifact.metadata().text_bytes() as u64
}

/// A hit, and whether the policy should be told of it.
pub(super) struct Hit {
    pub(super) artifact: Artifact,
    pub(super) tell_policy: bool,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &PipelineFingerprint) -> MutexGuard<'_, ShardState> {
        // The hash of the maps is the front of the key, so the shard is chosen by its end.
        let last = key.as_bytes()[PipelineFingerprint::LEN - 1];
        self.shards[usize::from(last) % SHARDS].lock()
    }

    pub(super) fn get(&self, key: &PipelineFingerprint) -> Option<Hit> {
        let mut shard = self.shard(key);
        let entry = shard.entries.get_mut(key)?;
        entry.hits += 1;
        let hit = Hit {
            artifact: entry.artifact.clone(),
            tell_policy: entry.hits <= TOLD_AT_FIRST || entry.hits % TOLD_EVERY == 0,
        };
        shard.hits += 1;
        Some(hit)
    }

    pub(super) fn contains(&self, key: &PipelineFingerprint) -> bool {
        self.shard(key).entries.contains_key(key)
    }

    /// Whether this very artifact is held.
    pub(super) fn holds(&self, key: &PipelineFingerprint, artifact: &Artifact) -> bool {
        let shard = self.shard(key);
        let entry = shard.entries.get(key);
        entry.is_some_and(|entry| {
            entry.artifact == *artifact && entry.artifact.metadata() == artifact.metadata()
        })
    }

    pub(super) fn insert(&self, key: &PipelineFingerprint, artifact: Artifact) {
        let entry = Entry {
            artifact,
            stored: Instant::now(),
            hits: 0,
        };
        let cost = entry.cost();
        let mut shard = self.shard(key);
        let old = shard.entries.insert(*key, entry);
        // Added before anything is taken away, so that the sums never wrap below zero.
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(cost, Ordering::Relaxed);
        if let Some(old) = &old {
            self.subtract(old);
        }
        // The old artifact may be large to free: not under the lock.
        drop(shard);
    }

    pub(super) fn remove(&self, key: &PipelineFingerprint) -> Option<Entry> {
        let mut shard = self.shard(key);
        let entry = shard.entries.remove(key)?;
        self.subtract(&entry);
        Some(entry)
    }

    fn subtract(&self, entry: &Entry) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(entry.cost(), Ordering::Relaxed);
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn hits(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().hits).sum()
    }
}

impl Shard {
    /// No code panics while it holds the lock; if some did, the map would still be whole.
    fn lock(&self) -> MutexGuard<'_, ShardState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hash of a fingerprint is its first eight bytes: they are uniform already.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct PassThrough(u64);

impl Hasher for PassThrough {
    /// The last write counts. An array writes its length first and its bytes then.
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn the_hash_is_the_front_of_the_key() {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&7u64.to_le_bytes());
        let key = PipelineFingerprint::from_bytes(bytes);
        assert_eq!(
            BuildHasherDefault::<PassThrough>::default().hash_one(key),
            7
        );
    }

    #[test]
    fn sums_follow_inserts_replacements_and_removals() {
        let index = Index::new();
        let key = PipelineFingerprint::from_bytes([1; 32]);
        index.insert(&key, Artifact::new(vec![0; 10]));
        index.insert(&key, Artifact::new(vec![0; 4]));
        assert_eq!((index.entries(), index.bytes()), (1, 4));
        assert!(index.remove(&key).is_some());
        assert!(index.remove(&key).is_none());
        assert_eq!((index.entries(), index.bytes()), (0, 0));
    }
}
