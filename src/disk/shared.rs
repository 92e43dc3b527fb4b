//! What every part of a disk tier uses: its folder, its counters, its locks and limits, and whether
//! it is closed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::task::TaskTracker;

use super::directory::Directory;
use super::error::Fault;
use super::failure_log::FailureLog;
use crate::artifact::FrameError;
use crate::key::PipelineFingerprint;
use crate::store::metrics::StoreCounters;
use crate::store::runtime::require_runtime;
use crate::store::{StoreError, StoreErrorKind, StoreOperation};
use crate::sync::blocking;
use crate::sync::keyed_mutex::KeyedMutex;
use crate::sync::operations::Operations;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) directory: Directory,
    pub(super) counters: StoreCounters,
    /// The limit on operations that callers ask for.
    pub(super) operations: Operations,
    /// One writer per key at a time.
    pub(super) key_locks: KeyedMutex,
    /// What a close waits for: writes, and work in the background.
    pub(super) tasks: TaskTracker,
    closed: AtomicBool,
    /// Whether an entry of another reader was found and logged.
    met_foreign: AtomicBool,
    failed_reads: FailureLog,
    failed_puts: FailureLog,
}

impl Shared {
    pub(super) fn new(directory: Directory, max_concurrent_operations: usize) -> Self {
        Self {
            directory,
            counters: StoreCounters::default(),
            operations: Operations::new(max_concurrent_operations),
            key_locks: KeyedMutex::default(),
            tasks: TaskTracker::new(),
            closed: AtomicBool::new(false),
            met_foreign: AtomicBool::new(false),
            failed_reads: FailureLog::new(),
            failed_puts: FailureLog::new(),
        }
    }

    /// From now on, writes are refused.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.tasks.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn check_open(&self, operation: StoreOperation) -> Result<(), StoreError> {
        if self.is_closed() {
            return Err(self.error(StoreErrorKind::Closed, operation));
        }
        Ok(())
    }

    /// An error outside of a tokio runtime: everything here runs on its pool or as its task.
    pub(super) fn require_runtime(&self, operation: StoreOperation) -> Result<(), StoreError> {
        require_runtime(|| self.to_string(), operation)
    }

    /// Runs work of the tier's own, one call after the other, which takes no permit from callers.
    pub(super) async fn run_in_background<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let shared = Arc::clone(self);
        blocking::blocking(move || work(&shared)).await
    }

    /// The public form of a failure, which is traced here and nowhere else.
    pub(super) fn failed(
        &self,
        operation: StoreOperation,
        key: Option<&PipelineFingerprint>,
        fault: Fault,
    ) -> StoreError {
        let error = fault.into_store_error(self.to_string(), operation);
        match (error.kind(), self.failure_log(operation)) {
            // Logged when the first one was found.
            (StoreErrorKind::Foreign, _) => {
                let key = key.map(tracing::field::display);
                tracing::debug!(key, error = %format_args!("{error:#}"), "put refused");
            }
            (_, Some(log)) => log.failed(key, &error),
            (_, None) => {
                let key = key.map(tracing::field::display);
                tracing::warn!(key, error = %format_args!("{error:#}"), "disk tier operation failed");
            }
        }
        error
    }

    /// Notes that an operation went well, which ends a trouble that was logged.
    #[inline]
    pub(super) fn succeeded(&self, operation: StoreOperation) {
        if let Some(log) = self.failure_log(operation) {
            log.succeeded(self, operation);
        }
    }

    /// Of operations that programs call all the time.
    const fn failure_log(&self, operation: StoreOperation) -> Option<&FailureLog> {
        match operation {
            StoreOperation::Get | StoreOperation::Contains => Some(&self.failed_reads),
            StoreOperation::Put => Some(&self.failed_puts),
            _ => None,
        }
    }

    /// Logs an entry of another reader. Where there is one there are many, so only the first is a
    /// warning.
    pub(super) fn log_foreign(&self, key: &PipelineFingerprint, why: FrameError) {
        const MESSAGE: &str = "entry refused and left in place: it may be another reader's";
        if self.met_foreign.swap(true, Ordering::Relaxed) {
            tracing::debug!(tier = %self, %key, reason = %why, "{MESSAGE}");
        } else {
            tracing::warn!(tier = %self, %key, reason = %why, "{MESSAGE}; further ones are logged at debug level");
        }
    }

    /// An error that is not a failure of the medium.
    pub(super) fn error(&self, kind: StoreErrorKind, operation: StoreOperation) -> StoreError {
        StoreError::new(kind, self.to_string(), operation)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk({})", self.directory.root.display())
    }
}
