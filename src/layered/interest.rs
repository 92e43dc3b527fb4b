//! Who waits for a compile, and what becomes of it when nobody does any more.

use std::sync::Arc;
use tokio::sync::watch;

use super::metrics::CompileCounters;

/// The callers that wait for one compile.
#[derive(Debug)]
pub(super) struct Interest {
    callers: watch::Sender<Callers>,
    counters: Arc<CompileCounters>,
}

#[derive(Debug, Default)]
struct Callers {
    /// Whether there was one at all.
    any: bool,
    waiting: usize,
    /// Whether the compile goes on without callers.
    kept: bool,
    cancelled: bool,
    ended: bool,
}

impl Callers {
    const fn is_abandoned(&self) -> bool {
        self.any && self.waiting == 0 && !self.ended
    }
}

/// One caller. Its drop ends its wait.
#[derive(Debug)]
pub(super) struct Caller {
    interest: Arc<Interest>,
    /// Whether nobody waited when this caller came.
    pub(super) found_abandoned: bool,
}

/// The compile itself. Its drop is the end of the compile.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Interest>);

impl Interest {
    pub(super) fn new(counters: Arc<CompileCounters>) -> Arc<Self> {
        Arc::new(Self {
            callers: watch::Sender::default(),
            counters,
        })
    }

    /// Another caller. With `keep`, the compile goes on when it has gone.
    pub(super) fn join(self: &Arc<Self>, keep: bool) -> Caller {
        let mut found_abandoned = false;
        self.update(|callers| {
            found_abandoned = callers.is_abandoned();
            callers.any = true;
            callers.waiting += 1;
            callers.kept |= keep;
        });
        Caller {
            interest: Arc::clone(self),
            found_abandoned,
        }
    }

    /// Ends the interest with its drop.
    pub(super) fn under_way(self: &Arc<Self>) -> UnderWay {
        UnderWay(Arc::clone(self))
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.callers.borrow().waiting > 0
    }

    /// Waits until nobody waits.
    pub(super) async fn abandoned(&self) {
        let mut callers = self.callers.subscribe();
        // Cannot fail: this holds the sender.
        let _ = callers.wait_for(Callers::is_abandoned).await;
    }

    /// Waits until the last caller has gone and none of them wanted the compile to be kept. From
    /// then on it cannot be kept.
    pub(super) async fn cancelled(&self) {
        let mut callers = self.callers.subscribe();
        loop {
            // As in `abandoned`.
            let _ = callers
                .wait_for(|callers| callers.is_abandoned() && !callers.kept)
                .await;
            if self.cancel() {
                return;
            }
        }
    }

    fn cancel(&self) -> bool {
        self.callers.send_if_modified(|callers| {
            callers.cancelled |= callers.is_abandoned() && !callers.kept;
            callers.cancelled
        })
    }

    /// Makes the compile go on without callers, unless it is cancelled already.
    pub(super) fn keep(&self) -> bool {
        let mut is_kept = false;
        self.callers.send_if_modified(|callers| {
            callers.kept |= !callers.cancelled;
            // Not `kept`: a caller who wants it kept may have come when it was too late.
            is_kept = !callers.cancelled;
            false
        });
        is_kept
    }

    /// Changes the callers, and counts a compile that this leaves or takes up again.
    fn update(&self, change: impl FnOnce(&mut Callers)) {
        self.callers.send_modify(|callers| {
            let was_abandoned = callers.is_abandoned();
            change(callers);
            match (was_abandoned, callers.is_abandoned()) {
                (false, true) => self.counters.abandoned.add(1),
                (true, false) => self.counters.abandoned.add(-1),
                (false, false) | (true, true) => {}
            }
        });
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.interest.update(|callers| callers.waiting -= 1);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.update(|callers| callers.ended = true);
    }
}
