//! Threads for work that computes: beside the runtime, so that its blocking pool, which reads files,
//! never queues behind them.
//!
//! Whoever starts work bounds it: a thread is made for all work that finds none idle.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

use super::single_flight::panic_message;

/// How long a thread without work is kept.
const IDLE: Duration = Duration::from_secs(5);

type Work = Box<dyn FnOnce() + Send>;

/// The threads of one pool.
#[derive(Default)]
pub(crate) struct Threads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Work that no thread has begun.
    work: VecDeque<Work>,
    /// Threads that wait for work, also those that were woken and do not run yet.
    idle: usize,
}

impl Threads {
    /// Runs the work on a thread. It runs to its end, also when the future is dropped.
    ///
    /// The message of its panic, if it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Arc<str>> {
        let (sender, result) = oneshot::channel();
        self.start(Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            // Nobody may be left to be told.
            let _ = sender.send(result.map_err(|panic| panic_message(&*panic)));
        }));
        match result.await {
            Ok(result) => result,
            // The work was dropped, which the threads do not do.
            Err(_) => Err(Arc::from("the thread of the work ended")),
        }
    }

    fn start(&self, work: Work) {
        {
            let mut queue = self.shared.lock();
            queue.work.push_back(work);
            if queue.idle >= queue.work.len() {
                self.shared.wake.notify_one();
                return;
            }
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("pipeline-compile".to_owned());
        if let Err(error) = thread.spawn(move || shared.work()) {
            tracing::warn!(%error, "no thread for a compile: it runs on the blocking pool of the runtime");
            let shared = Arc::clone(&self.shared);
            super::blocking::detach(move || shared.work_once());
        }
    }
}

impl Shared {
    /// What a thread does: works while there is work, and a little longer.
    fn work(&self) {
        loop {
            self.work_once();
            let mut queue = self.lock();
            queue.idle += 1;
            let waited = self
                .wake
                .wait_timeout_while(queue, IDLE, |queue| queue.work.is_empty());
            let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
            if queue.work.is_empty() {
                return;
            }
        }
    }

    fn work_once(&self) {
        let work = self.lock().work.pop_front();
        if let Some(work) = work {
            work();
        }
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.shared.lock();
        f.debug_struct("Threads")
            .field("idle", &queue.idle)
            .field("waiting", &queue.work.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[tokio::test]
    async fn work_runs_at_once_however_much_there_is() {
        let threads = Threads::default();
        for _ in 0..20 {
            let barrier = Arc::new(Barrier::new(4));
            let runs = (0..4).map(|number| {
                let barrier = Arc::clone(&barrier);
                threads.run(move || {
                    barrier.wait();
                    number
                })
            });
            let results = futures::future::join_all(runs).await;
            assert_eq!(results, (0..4).map(Ok).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_the_thread() {
        let threads = Threads::default();
        let panicking = || -> u8 { std::panic::resume_unwind(Box::new("no")) };
        assert_eq!(threads.run(panicking).await, Err(Arc::from("no")));
        assert_eq!(threads.run(|| 1).await, Ok(1));
    }
}
