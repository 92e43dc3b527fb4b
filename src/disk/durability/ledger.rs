//! What has been put and is not yet known to be durable.
//!
//! After a failed sync the kernel may drop the unwritten data and call the page clean: the next sync
//! of that file succeeds and means nothing. So an entry whose sync failed is *suspect*, and the next
//! flush writes it again from what can still be read and verified.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

use crate::disk::report::DiskCacheDurabilityReport;
use crate::key::PipelineFingerprint;

/// The entries that await a flush. Its users bound it, by [`Ledger::reserve`].
#[derive(Debug, Default)]
pub(in crate::disk) struct Ledger {
    state: Mutex<State>,
    /// Notified when a place may have become free.
    pub(in crate::disk) released: Notify,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<PipelineFingerprint, Pending>,
    /// Places reserved by puts that have not finished.
    reserved: usize,
    accepted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    /// The number of the accepted put, so that a flush does not settle a later one.
    generation: u64,
    /// How often its sync failed. If not 0, the entry is suspect.
    failed_syncs: u32,
}

/// An entry that a flush is to make durable.
#[derive(Debug, Clone, Copy)]
pub(in crate::disk) struct Due {
    pub(in crate::disk) key: PipelineFingerprint,
    pub(in crate::disk) failed_syncs: u32,
    generation: u64,
}

impl Ledger {
    /// A put was accepted. `new_file` is false where a whole entry was there already.
    pub(in crate::disk) fn accept(&self, key: PipelineFingerprint, new_file: bool) {
        let mut state = self.lock();
        let generation = state.accepted;
        state.accepted += 1;
        let pending = state.pending.entry(key).or_insert(Pending {
            generation,
            failed_syncs: 0,
        });
        pending.generation = generation;
        if new_file {
            pending.failed_syncs = 0;
        }
    }

    /// Reserves a place for one more entry, if fewer than `limit` are pending or reserved.
    pub(in crate::disk) fn reserve(&self, limit: usize) -> bool {
        let mut state = self.lock();
        let free = state.pending.len() + state.reserved < limit;
        state.reserved += usize::from(free);
        free
    }

    /// Gives a reserved place back.
    pub(in crate::disk) fn release(&self) {
        self.lock().reserved -= 1;
        self.released.notify_waiters();
    }

    /// The entry was removed or is lost. Returns whether it was pending.
    pub(in crate::disk) fn forget(&self, key: &PipelineFingerprint) -> bool {
        let was_pending = self.lock().pending.remove(key).is_some();
        self.released.notify_waiters();
        was_pending
    }

    /// All entries that await a flush. Those whose syncs failed most often come last.
    pub(in crate::disk) fn due(&self) -> Vec<Due> {
        let state = self.lock();
        let due = state.pending.iter().map(|(key, pending)| Due {
            key: *key,
            failed_syncs: pending.failed_syncs,
            generation: pending.generation,
        });
        let mut due: Vec<_> = due.collect();
        drop(state);
        due.sort_unstable_by_key(|due| due.failed_syncs);
        due
    }

    /// These entries are durable, or gone.
    pub(in crate::disk) fn settle(&self, flushed: &[Due]) {
        let mut state = self.lock();
        for due in flushed {
            if state
                .pending
                .get(&due.key)
                .is_some_and(|p| p.generation == due.generation)
            {
                state.pending.remove(&due.key);
            }
        }
        drop(state);
        self.released.notify_waiters();
    }

    /// A sync of these entries failed, or they were found corrupt. An entry that was put again
    /// meanwhile may become suspect without need, which costs one write.
    pub(in crate::disk) fn suspect<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a PipelineFingerprint>,
    ) {
        let mut state = self.lock();
        for key in keys {
            if let Some(pending) = state.pending.get_mut(key) {
                pending.failed_syncs = pending.failed_syncs.saturating_add(1);
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
    fn an_entry_is_suspect_until_it_is_written_again() {
        let is_suspect = |ledger: &Ledger| ledger.due()[0].failed_syncs > 0;
        let ledger = Ledger::default();
        ledger.accept(KEY, true);
        assert!(!is_suspect(&ledger));
        ledger.suspect([&KEY]);
        assert!(is_suspect(&ledger));
        ledger.accept(KEY, false);
        assert!(is_suspect(&ledger), "the same file is there");
        ledger.accept(KEY, true);
        assert!(!is_suspect(&ledger));
    }

    #[test]
    fn a_removed_entry_is_neither_pending_nor_suspect() {
        let ledger = Ledger::default();
        ledger.accept(KEY, true);
        assert!(ledger.forget(&KEY));
        ledger.suspect([&KEY]);
        assert!(!ledger.forget(&KEY));
        assert!(ledger.report().durable);
    }

    #[tokio::test]
    async fn a_waiting_put_is_notified_of_each_free_place() {
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
