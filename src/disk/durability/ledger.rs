//! What has been put and is not yet known to be durable.
//!
//! After a failed sync the kernel may drop the unwritten data and call the page clean: the next
//! sync of that file succeeds and means nothing. So an entry whose sync failed is *doubted*, and
//! the next flush writes it anew from what can still be read and verified.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

use crate::key::PipelineFingerprint;

/// What a crash of the machine could still take back.
///
/// ```
/// use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, PipelineFingerprint};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let cache = DiskCache::new(folder.path()).await?;
/// let key = PipelineFingerprint::from_bytes([1; 32]);
/// cache.put(&key, Artifact::new("code")).await?;
/// assert_eq!(cache.durability_report().pending_flushes, 1);
///
/// cache.flush().await?;
/// assert!(cache.durability_report().durable);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskCacheDurabilityReport {
    /// Entries that a put of this cache has stored, and no flush has made durable since.
    pub pending_flushes: u64,
    /// Whether there are none.
    pub durable: bool,
}

/// The entries that await a flush. Bounded by its users: see [`Ledger::reserve`].
#[derive(Debug, Default)]
pub(in crate::disk) struct Ledger {
    state: Mutex<State>,
    /// Told when there may be a place more.
    pub(in crate::disk) released: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<PipelineFingerprint, Pending>,
    /// Places for the entries of puts that are under way.
    reserved: usize,
    accepted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    /// Which accepted put it was, so that a flush does not settle one that came after it.
    stamp: u64,
    /// How often its sync failed. Where that is not 0, the entry is doubted.
    refused: u32,
}

/// An entry that a flush is to make durable.
#[derive(Debug, Clone, Copy)]
pub(in crate::disk) struct Due {
    pub(in crate::disk) key: PipelineFingerprint,
    pub(in crate::disk) refused: u32,
    stamp: u64,
}

impl Ledger {
    /// A put was accepted: with a file of its own, or because a whole entry was there already.
    pub(in crate::disk) fn accept(&self, key: PipelineFingerprint, new_file: bool) {
        let mut state = self.lock();
        let stamp = state.accepted;
        state.accepted += 1;
        let pending = state
            .pending
            .entry(key)
            .or_insert(Pending { stamp, refused: 0 });
        pending.stamp = stamp;
        if new_file {
            pending.refused = 0;
        }
    }

    /// A place for one more entry, where fewer than so many are pending or have one.
    pub(in crate::disk) fn reserve(&self, most: usize) -> bool {
        let mut state = self.lock();
        let free = state.pending.len() + state.reserved < most;
        state.reserved += usize::from(free);
        free
    }

    /// Gives a place back.
    pub(in crate::disk) fn release(&self) {
        self.lock().reserved -= 1;
        self.released.notify_waiters();
    }

    /// The entry was removed, or is lost; whether it was pending.
    pub(in crate::disk) fn forget(&self, key: &PipelineFingerprint) -> bool {
        let was_pending = self.lock().pending.remove(key).is_some();
        self.released.notify_waiters();
        was_pending
    }

    /// All that was accepted so far and is not settled; what was refused most often comes last.
    pub(in crate::disk) fn due(&self) -> Vec<Due> {
        let state = self.lock();
        let due = state.pending.iter().map(|(key, pending)| Due {
            key: *key,
            refused: pending.refused,
            stamp: pending.stamp,
        });
        let mut due: Vec<_> = due.collect();
        drop(state);
        due.sort_unstable_by_key(|due| due.refused);
        due
    }

    /// These are durable, or gone.
    pub(in crate::disk) fn settle(&self, flushed: &[Due]) {
        let mut state = self.lock();
        for due in flushed {
            if state
                .pending
                .get(&due.key)
                .is_some_and(|p| p.stamp == due.stamp)
            {
                state.pending.remove(&due.key);
            }
        }
        drop(state);
        self.released.notify_waiters();
    }

    /// The medium refused to sync these, or they were found corrupt. One that was put again
    /// meanwhile may be doubted without need, which costs a write.
    pub(in crate::disk) fn suspect<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a PipelineFingerprint>,
    ) {
        let mut state = self.lock();
        for key in keys {
            if let Some(pending) = state.pending.get_mut(key) {
                pending.refused = pending.refused.saturating_add(1);
            }
        }
    }

    pub(in crate::disk) fn len(&self) -> usize {
        self.lock().pending.len()
    }

    pub(in crate::disk) fn report(&self) -> DiskCacheDurabilityReport {
        let pending = self.len();
        DiskCacheDurabilityReport {
            pending_flushes: pending as u64,
            durable: pending == 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock can panic halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

    #[test]
    fn a_put_during_a_flush_waits_for_the_next() {
        let ledger = Ledger::default();
        ledger.accept(KEY, true);
        let due = ledger.due();
        ledger.accept(KEY, false);
        ledger.settle(&due);
        assert_eq!(ledger.len(), 1);
        ledger.settle(&ledger.due());
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn doubt_lasts_until_the_entry_is_written_anew() {
        let doubted = |ledger: &Ledger| ledger.due()[0].refused > 0;
        let ledger = Ledger::default();
        ledger.accept(KEY, true);
        assert!(!doubted(&ledger));
        ledger.suspect([&KEY]);
        assert!(doubted(&ledger));
        ledger.accept(KEY, false);
        assert!(doubted(&ledger), "the same file is there");
        ledger.accept(KEY, true);
        assert!(!doubted(&ledger));
    }

    #[test]
    fn what_is_removed_is_neither_pending_nor_doubted() {
        let ledger = Ledger::default();
        ledger.accept(KEY, true);
        assert!(ledger.forget(&KEY));
        ledger.suspect([&KEY]);
        assert!(!ledger.forget(&KEY));
        assert!(ledger.report().durable);
    }

    /// No put under way need give back its place for one to be free.
    #[tokio::test]
    async fn whoever_waits_for_a_place_is_told_of_each() {
        let gives: [fn(&Ledger); 2] = [|l| assert!(l.forget(&KEY)), |l| l.settle(&l.due())];
        for give in gives {
            let ledger = Ledger::default();
            ledger.accept(KEY, true);
            let mut released = std::pin::pin!(ledger.released.notified());
            released.as_mut().enable();
            assert!(!ledger.reserve(1));
            assert!(futures::poll!(&mut released).is_pending());
            give(&ledger);
            assert!(ledger.reserve(1));
            assert!(futures::poll!(&mut released).is_ready());
        }
    }
}
