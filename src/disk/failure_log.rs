//! Logs failures of reads and puts: the first of a trouble as a warning, and its end. On a full disk
//! every put fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::key::PipelineFingerprint;
use crate::store::{StoreError, StoreOperation};
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

    pub(super) fn failed(&self, key: Option<&PipelineFingerprint>, error: &StoreError) {
        self.is_troubled.store(true, Ordering::Relaxed);
        let key = key.map(tracing::field::display);
        let error = format!("{error:#}");
        if self.trouble.failed() {
            tracing::warn!(
                key,
                error,
                "disk tier operation failed; further failures are logged at debug level until \
                 operations succeed again"
            );
        } else {
            tracing::debug!(key, error, "disk tier operation failed");
        }
    }

    #[inline]
    pub(super) fn succeeded(&self, tier: &dyn std::fmt::Display, operation: StoreOperation) {
        if !self.is_troubled.load(Ordering::Relaxed) {
            return;
        }
        if let Some(Ended { failed, lasted }) = self.trouble.succeeded() {
            self.is_troubled.store(false, Ordering::Relaxed);
            tracing::info!(%tier, %operation, failed, ?lasted, "disk tier operations succeed again");
        }
    }
}
