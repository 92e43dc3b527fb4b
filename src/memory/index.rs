//! What the memory tier holds: the one place a read looks.
//!
//! A sharded map behind short locks. The [`policy`](super::policy) decides which artifacts stay. A
//! read never calls it: the read notes its key, and the next put, which may have to evict, hands the
//! notes to the policy.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::artifact::Artifact;
use crate::key::{PassThrough, PipelineFingerprint};

/// Enough that a few dozen threads rarely meet in one; a power of two.
const SHARDS: usize = 64;

/// Lookups that a shard notes between two puts; of more, the latest are kept. A cache under
/// pressure has a put for every few lookups, and then all of them are noted.
const NOTES: usize = 8;

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

#[derive(Debug)]
struct ShardState {
    entries: HashMap<PipelineFingerprint, Entry, BuildHasherDefault<PassThrough>>,
    /// Counted under the lock that a lookup holds anyway, so no counter is shared by all threads.
    hits: u64,
    notes: [PipelineFingerprint; NOTES],
    /// Lookups since the notes were taken.
    noted: usize,
}

impl Default for ShardState {
    fn default() -> Self {
        Self {
            entries: HashMap::default(),
            hits: 0,
            notes: [PipelineFingerprint::from_bytes([0; 32]); NOTES],
            noted: 0,
        }
    }
}

impl ShardState {
    fn hit(
        &mut self,
        key: &PipelineFingerprint,
        serves: impl FnOnce(&Artifact) -> bool,
    ) -> Option<Artifact> {
        let entry = self.entries.get(key)?;
        if !serves(&entry.artifact) {
            return None;
        }
        let artifact = entry.artifact.clone();
        self.hits += 1;
        self.note(key);
        Some(artifact)
    }

    fn note(&mut self, key: &PipelineFingerprint) {
        self.notes[self.noted % NOTES] = *key;
        self.noted = self.noted.wrapping_add(1);
    }
}

#[derive(Debug)]
pub(super) struct Entry {
    artifact: Artifact,
    stored: Instant,
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

impl Index {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn shard(&self, key: &PipelineFingerprint) -> MutexGuard<'_, ShardState> {
        // The maps take their buckets from the low bits of the hash and their tags from the high.
        let shard = (hash(key) >> 32) as usize % SHARDS;
        self.shards[shard].lock()
    }

    /// The artifact, if it is held and may be served.
    pub(super) fn peek(
        &self,
        key: &PipelineFingerprint,
        serves: impl FnOnce(&Artifact) -> bool,
    ) -> Option<Artifact> {
        self.shard(key).hit(key, serves)
    }

    /// The artifact, if it is held and may be served. A miss is noted too: a key that was requested
    /// before it is put is worth keeping.
    pub(super) fn get(
        &self,
        key: &PipelineFingerprint,
        serves: impl FnOnce(&Artifact) -> bool,
    ) -> Option<Artifact> {
        let mut shard = self.shard(key);
        let hit = shard.hit(key, serves);
        if hit.is_none() {
            shard.note(key);
        }
        hit
    }

    /// Takes the notes of all lookups since the last time, shard by shard. No lock is held while
    /// one is handed on.
    pub(super) fn take_notes(&self, mut take: impl FnMut(&PipelineFingerprint)) {
        for shard in &self.shards {
            let (notes, noted) = {
                let mut shard = shard.lock();
                (shard.notes, std::mem::take(&mut shard.noted))
            };
            notes.iter().take(noted).for_each(&mut take);
        }
    }

    /// Whether an artifact is held that may be served.
    pub(super) fn contains(
        &self,
        key: &PipelineFingerprint,
        serves: impl FnOnce(&Artifact) -> bool,
    ) -> bool {
        let shard = self.shard(key);
        let entry = shard.entries.get(key);
        entry.is_some_and(|entry| serves(&entry.artifact))
    }

    /// Whether this very artifact is held.
    pub(super) fn holds(&self, key: &PipelineFingerprint, artifact: &Artifact) -> bool {
        let shard = self.shard(key);
        let entry = shard.entries.get(key);
        entry.is_some_and(|entry| {
            let held = &entry.artifact;
            held == artifact
                && held.metadata() == artifact.metadata()
                && held.signature() == artifact.signature()
        })
    }

    pub(super) fn insert(&self, key: &PipelineFingerprint, artifact: Artifact) {
        let entry = Entry {
            artifact,
            stored: Instant::now(),
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
        // An old artifact may be large to free: not under the lock.
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

fn hash(key: &PipelineFingerprint) -> u64 {
    BuildHasherDefault::<PassThrough>::default().hash_one(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Keys that callers number, at whichever end, spread over shards and buckets.
    #[test]
    fn numbered_keys_do_not_collide() {
        for at in [0, 12, 24] {
            let hashes: HashSet<_> = (0..10_000u64)
                .map(|n| {
                    let mut bytes = [0; 32];
                    bytes[at..at + 8].copy_from_slice(&n.to_be_bytes());
                    hash(&PipelineFingerprint::from_bytes(bytes))
                })
                .collect();
            assert_eq!(hashes.len(), 10_000);
            for bits in [0, 32, 57] {
                let some: HashSet<_> = hashes.iter().map(|hash| (hash >> bits) % 64).collect();
                assert_eq!(some.len(), 64, "from bit {bits}");
            }
        }
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
