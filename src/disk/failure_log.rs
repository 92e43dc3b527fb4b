//! When to log failures of operations that programs call all the time: where a trouble begins and
//! where it ends. On a full disk every put fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sync::trouble::{Ended, Trouble};

/// How long before a success nothing must have failed for a trouble to be over.
const QUIET: Duration = Duration::from_secs(5);

/// The failures of one kind of operation.
#[derive(Debug)]
pub(super) struct FailureLog {
    trouble: Trouble,
    /// Whether any failed, so that a success need not take the lock.
    is_troubled: AtomicBool,
}

impl FailureLog {
    pub(super) const fn new() -> Self {
        Self {
            trouble: Trouble::new(QUIET),
            is_troubled: AtomicBool::new(false),
        }
    }

    /// Counts a failure; whether it is the one to log.
    pub(super) fn failed(&self) -> bool {
        self.is_troubled.store(true, Ordering::Relaxed);
        self.trouble.failed()
    }

    /// Something went well. Returns the trouble that this ends, if its beginning was logged.
    #[inline]
    pub(super) fn succeeded(&self) -> Option<Ended> {
        if !self.is_troubled.load(Ordering::Relaxed) {
            return None;
        }
        let ended = self.trouble.succeeded()?;
        self.is_troubled.store(false, Ordering::Relaxed);
        Some(ended)
    }
}
