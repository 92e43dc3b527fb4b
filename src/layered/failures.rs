//! Failures that a request asked to remember.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use crate::key::PipelineFingerprint;
use crate::store::metrics::Counter;

/// The table takes no longer time than this.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A bounded table of failures, each for a time.
pub(super) struct RememberedFailures {
    known: moka::sync::Cache<PipelineFingerprint, Failure>,
    time_to_live: Duration,
    pub(super) served: Counter,
}

#[derive(Clone)]
struct Failure {
    /// Of the type of the compile function that failed.
    error: Arc<dyn Any + Send + Sync>,
    at: Instant,
}

impl RememberedFailures {
    pub(super) fn new(failures: u64, time_to_live: Duration) -> Self {
        Self {
            known: moka::sync::Cache::builder()
                .max_capacity(failures)
                // What nobody asks for again goes as well. By the clock of the machine, and so only
                // besides what `get` does.
                .time_to_live(time_to_live.min(LONGEST))
                .build(),
            time_to_live,
            served: Counter::default(),
        }
    }

    /// The failure under a key, if it is young enough and its error has this type.
    pub(super) fn get<E: Send + Sync + 'static>(
        &self,
        key: &PipelineFingerprint,
    ) -> Option<Arc<E>> {
        let failure = self.known.get(key)?;
        if failure.at.elapsed() >= self.time_to_live {
            self.known.invalidate(key);
            return None;
        }
        let error = failure.error.downcast().ok()?;
        self.served.increment();
        Some(error)
    }

    pub(super) fn remember<E: Send + Sync + 'static>(
        &self,
        key: PipelineFingerprint,
        error: &Arc<E>,
    ) {
        let error: Arc<dyn Any + Send + Sync> = Arc::<E>::clone(error);
        let at = Instant::now();
        self.known.insert(key, Failure { error, at });
    }
}

impl fmt::Debug for RememberedFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RememberedFailures")
            .field("entries", &self.known.entry_count())
            .field("time_to_live", &self.time_to_live)
            .finish()
    }
}
