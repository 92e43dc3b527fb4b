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
use crate::sync::trouble::Ended;

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
        let (key, log) = (
            key.map(tracing::field::display),
            self.failure_log(operation),
        );
        if error.kind() == StoreErrorKind::Foreign {
            // Logged when the first one was found.
            tracing::debug!(key, error = %format_args!("{error:#}"), "put refused");
        } else if log.is_some_and(|log| !log.failed()) {
            tracing::debug!(key, error = %format_args!("{error:#}"), "disk tier operation failed");
        } else if log.is_some() {
            tracing::warn!(
                key, error = %format_args!("{error:#}"),
                "disk tier operation failed; further failures are logged at debug level until \
                 operations succeed again"
            );
        } else {
            tracing::warn!(key, error = %format_args!("{error:#}"), "disk tier operation failed");
        }
        error
    }

    /// The public form of an outcome: a failure is traced, and a success ends a trouble that was.
    #[inline]
    pub(super) fn outcome<T>(
        &self,
        operation: StoreOperation,
        key: &PipelineFingerprint,
        done: Result<T, Fault>,
    ) -> Result<T, StoreError> {
        match done {
            Ok(value) => {
                self.succeeded(operation);
                Ok(value)
            }
            Err(fault) => Err(self.failed(operation, Some(key), fault)),
        }
    }

    #[inline]
    fn succeeded(&self, operation: StoreOperation) {
        let ended = self.failure_log(operation).and_then(FailureLog::succeeded);
        if let Some(Ended { failed, lasted }) = ended {
            tracing::info!(tier = %self, %operation, failed, ?lasted, "disk tier operations succeed again");
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
