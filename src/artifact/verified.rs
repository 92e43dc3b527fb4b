//! What was verified: hashes that stand for a signature and all that it covers.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most that is remembered. What is forgotten costs another verification.
pub(super) const MAX_VERIFIED: usize = 65_536;

/// Enough that a few dozen threads rarely meet in one; a power of two.
const SHARDS: usize = 64;

/// The most in each half of a shard.
const HALF: usize = MAX_VERIFIED / SHARDS / 2;

/// What a signature was verified for. Each hash covers the key, the digest, whether there are parts, the
/// metadata, the signer and the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verified {
    /// A frame, by its tag: to check a frame is to make this hash, so that none is made for this.
    Frame([u8; 32]),
    /// An artifact, however it is stored.
    Artifact([u8; 32]),
}

/// What was verified lately.
#[derive(Debug)]
pub(super) struct VerifiedSet {
    shards: Box<[Mutex<Shard>]>,
}

/// A full half becomes the old one, in place of what was there. What is looked up in the old half moves
/// to the other, so that what is in use stays.
#[derive(Debug, Default)]
struct Shard {
    new: HashSet<Verified>,
    old: HashSet<Verified>,
}

impl VerifiedSet {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    pub(super) fn contains(&self, verified: &Verified) -> bool {
        let mut shard = self.shard(verified);
        if shard.new.contains(verified) {
            return true;
        }
        let is_old = shard.old.contains(verified);
        if is_old {
            shard.insert(*verified);
        }
        is_old
    }

    pub(super) fn insert(&self, verified: Verified) {
        self.shard(&verified).insert(verified);
    }

    /// No code panics while it holds the lock.
    fn shard(&self, verified: &Verified) -> MutexGuard<'_, Shard> {
        let (Verified::Frame([first, ..]) | Verified::Artifact([first, ..])) = verified;
        let shard = &self.shards[usize::from(*first) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn insert(&mut self, verified: Verified) {
        if self.new.len() >= HALF {
            self.old = std::mem::take(&mut self.new);
        }
        self.new.insert(verified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: usize) -> Verified {
        Verified::Frame(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn len(set: &VerifiedSet) -> usize {
        let shards = set.shards.iter().map(|shard| shard.lock().unwrap());
        shards.map(|shard| shard.new.len() + shard.old.len()).sum()
    }

    #[test]
    fn the_set_is_bounded_and_keeps_what_is_in_use() {
        let set = VerifiedSet::new();
        set.insert(frame(0));
        for number in 1..3 * MAX_VERIFIED {
            set.insert(frame(number));
            assert!(set.contains(&frame(0)));
        }
        assert!(set.contains(&frame(3 * MAX_VERIFIED - 1)));
        assert!(!set.contains(&frame(1)), "it was not in use");
        assert!(len(&set) <= MAX_VERIFIED);
    }

    #[test]
    fn a_frame_stands_for_no_artifact() {
        let set = VerifiedSet::new();
        set.insert(Verified::Frame([1; 32]));
        assert!(set.contains(&Verified::Frame([1; 32])));
        assert!(!set.contains(&Verified::Artifact([1; 32])));
    }
}
