//! The compile pool: places for compiles and for keys, and the threads beside the runtime on which
//! both run.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::admission::PriorityBoost;
use super::permits::{Permits, Urgency};
use crate::sync::threads::Threads;

/// Keys that wait. They are short, so that only a flood gets here.
const MAX_WAITING_KEYS: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct CompilePool {
    pub(super) compiles: Arc<Permits>,
    /// Parses and keys have places of their own: a hit needs its key, and must not wait for compiles.
    keys: Arc<Permits>,
    threads: Threads,
}

impl CompilePool {
    pub(super) fn new(places: Option<usize>, max_queued: usize, stack_size: usize) -> Self {
        let places = places.unwrap_or_else(default_places);
        Self {
            compiles: Permits::new(places, max_queued),
            // One more, so that a thread has work while the next caller is woken.
            keys: Permits::new(places.saturating_add(1), MAX_WAITING_KEYS),
            threads: Threads::with_stacks_of(stack_size),
        }
    }

    /// Runs the work of a compile that holds its place. The message of its panic, if it panics.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Arc<str>> {
        self.threads.run(work).await
    }

    /// Runs a parse, or makes a key, in a place for those. It runs to its end once it has begun, and is
    /// told how long it waited for that.
    pub(super) async fn run_key<T: Send + 'static>(
        &self,
        urgency: Urgency,
        boost: &PriorityBoost,
        work: impl FnOnce(Duration) -> T + Send + 'static,
    ) -> Result<T, Arc<str>> {
        let queued = Instant::now();
        let permit = self.keys.acquire(urgency, boost);
        // That queue has no bound.
        let permit = permit.await.ok();
        let queue = queued.elapsed();
        self.threads
            .run(move || {
                let made = work(queue);
                drop(permit);
                made
            })
            .await
    }
}

/// One less than the cores, which the runtime and the threads of keys share.
fn default_places() -> usize {
    std::thread::available_parallelism()
        .map_or(1, NonZero::get)
        .saturating_sub(1)
        .max(1)
}
