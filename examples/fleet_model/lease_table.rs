//! The compile leases of a server, with a time to live: by the server's clock, and in its memory.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::network::lock;
use crate::workload::ProgramId;

/// Of a lease that is not renewed: the example in the documentation of `RedisCache`.
pub(crate) const TIME_TO_LIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct LeaseTable(Mutex<HashMap<ProgramId, Entry>>);

#[derive(Debug, Default)]
struct Entry {
    held: Option<Held>,
    ended: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    holder: u64,
    until: Duration,
}

impl LeaseTable {
    /// Whether the holder has it now. Granted also to one who has it already.
    pub(crate) fn acquire(&self, program: ProgramId, holder: u64, now: Duration) -> bool {
        let mut leases = lock(&self.0);
        let entry = leases.entry(program).or_default();
        let is_free = entry
            .held
            .is_none_or(|held| held.until <= now || held.holder == holder);
        if is_free {
            let until = now + TIME_TO_LIVE;
            entry.held = Some(Held { holder, until });
        }
        is_free
    }

    /// Whether the holder had it, and has it for its whole time again.
    pub(crate) fn renew(&self, program: ProgramId, holder: u64, now: Duration) -> bool {
        let mut leases = lock(&self.0);
        let held = leases
            .get_mut(&program)
            .and_then(|lease| lease.held.as_mut());
        match held {
            Some(held) if held.holder == holder && held.until > now => {
                held.until = now + TIME_TO_LIVE;
                true
            }
            _ => false,
        }
    }

    /// Ends it, unless another has it. Returns how many are told so.
    pub(crate) fn release(&self, program: ProgramId, holder: u64) -> usize {
        let mut leases = lock(&self.0);
        match leases.get_mut(&program) {
            Some(entry) if entry.held.is_some_and(|held| held.holder == holder) => {
                entry.held = None;
                entry.ended.notify_waiters();
                // A watch has two references, and the table has one.
                (Arc::strong_count(&entry.ended) - 1) / 2
            }
            _ => 0,
        }
    }

    /// Learns when a lease of this program ends.
    pub(crate) fn watch(&self, program: ProgramId) -> Arc<Notify> {
        Arc::clone(&lock(&self.0).entry(program).or_default().ended)
    }
}

/// Announcements in the order in which their watches began, so that a run can be repeated.
pub(crate) struct Watch {
    ended: Arc<Notify>,
    next: Pin<Box<OwnedNotified>>,
}

impl Watch {
    pub(crate) fn new(ended: Arc<Notify>) -> Self {
        let next = Box::pin(Arc::clone(&ended).notified_owned());
        Self { ended, next }
    }

    pub(crate) async fn changed(&mut self) {
        self.next.as_mut().await;
        self.next = Box::pin(Arc::clone(&self.ended).notified_owned());
    }
}
