//! The keys that are being compiled. A compile on a thread cannot be stopped, and outlives its flight
//! when another answer came first: until it ends, its key is not compiled again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::shim::{Mutex, MutexGuard};
use crate::key::PipelineFingerprint;

type Table = Mutex<HashMap<PipelineFingerprint, Arc<State>>>;

#[derive(Debug, Default)]
pub(super) struct RunningKeys(Arc<Table>);

#[derive(Debug, Default)]
struct State {
    /// When the compile had its place in the pool.
    begun: OnceLock<Instant>,
    ended: CancellationToken,
}

/// A key that is being compiled, or is about to be. Its drop ends that.
#[derive(Debug)]
pub(super) struct RunningKey {
    table: Arc<Table>,
    key: PipelineFingerprint,
    state: Arc<State>,
}

/// A compile of the key has run for longer than the limit.
#[derive(Debug)]
pub(super) struct Overdue;

impl RunningKeys {
    /// Begins to compile a key, if nobody does. Else waits until that compile has ended, and returns
    /// `None`: what it made may be in the cache.
    pub(super) async fn begin_or_wait(
        &self,
        key: &PipelineFingerprint,
        limit: Duration,
    ) -> Result<Option<RunningKey>, Overdue> {
        let other = {
            let mut table = lock(&self.0);
            match table.entry(*key) {
                Entry::Occupied(other) => Arc::clone(other.get()),
                Entry::Vacant(vacant) => {
                    let state = Arc::clone(vacant.insert(Arc::default()));
                    return Ok(Some(RunningKey {
                        table: Arc::clone(&self.0),
                        key: *key,
                        state,
                    }));
                }
            }
        };
        loop {
            let begun = other.begun.get().copied();
            let until = begun.unwrap_or_else(Instant::now).checked_add(limit);
            let ended = async {
                match until {
                    Some(until) => timeout_at(until, other.ended.cancelled()).await,
                    None => {
                        other.ended.cancelled().await;
                        Ok(())
                    }
                }
            };
            match ended.await {
                Ok(()) => return Ok(None),
                Err(_) if begun.is_some() => return Err(Overdue),
                // It began meanwhile.
                Err(_) => {}
            }
        }
    }
}

impl RunningKey {
    /// The compile has its place in the pool: its time runs.
    pub(super) fn begin(&self) {
        self.state.begun.get_or_init(Instant::now);
    }
}

impl Drop for RunningKey {
    fn drop(&mut self) {
        lock(&self.table).remove(&self.key);
        self.state.ended.cancel();
    }
}

/// No code panics while it holds this lock.
fn lock(table: &Table) -> MutexGuard<'_, HashMap<PipelineFingerprint, Arc<State>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}
