//! Threads for work that computes: beside the runtime, so that its blocking pool, which reads files,
//! never queues behind them.
//!
//! Whoever starts work bounds it: a thread is made for all work that finds none idle. Work never runs
//! on a smaller stack than it was promised, since a stack that overflows ends the process.

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
pub(crate) struct Threads {
    shared: Arc<Shared>,
    stack_size: usize,
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
    /// Threads whose stacks have so many bytes.
    pub(crate) fn with_stacks_of(stack_size: usize) -> Self {
        Self {
            shared: Arc::default(),
            stack_size,
        }
    }

    /// Runs the work on a thread. It runs to its end, also when the future is dropped.
    ///
    /// The message of its panic, if it panics, or that there is no thread for it.
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
            // The work was dropped, which a running thread does not do.
            Err(_) => Err(Arc::from("no thread could be started for it")),
        }
    }

    fn start(&self, work: Work) {
        {
            let mut queue = self.shared.lock();
            if queue.idle > queue.work.len() {
                queue.work.push_back(work);
                self.shared.wake.notify_one();
                return;
            }
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("pipeline-compile".to_owned());
        let thread = thread.stack_size(self.stack_size);
        if let Err(error) = thread.spawn(move || shared.work(work)) {
            let stack_size = self.stack_size;
            tracing::warn!(%error, stack_size, "no thread for a compile, which fails");
        }
    }
}

impl Shared {
    /// What a thread does: this work, other work while there is some, and a little longer.
    fn work(&self, mut work: Work) {
        loop {
            work();
            let mut queue = self.lock();
            queue.idle += 1;
            let waited = self
                .wake
                .wait_timeout_while(queue, IDLE, |queue| queue.work.is_empty());
            let (mut queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
            match queue.work.pop_front() {
                Some(next) => work = next,
                None => return,
            }
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
            .field("stack_size", &self.stack_size)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[tokio::test]
    async fn work_runs_at_once_however_much_there_is() {
        let threads = Threads::with_stacks_of(1 << 20);
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

    /// Recurses so deep, with frames of a kilobyte at least.
    fn recurse(depth: usize) -> u8 {
        let frame = std::hint::black_box([1; 1024]);
        match depth {
            0 => frame[0],
            _ => recurse(depth - 1) | std::hint::black_box(&frame)[depth % 1024],
        }
    }

    #[tokio::test]
    async fn work_has_the_stack_it_was_promised() {
        let threads = Threads::with_stacks_of(64 << 20);
        assert_eq!(threads.run(|| recurse(16_000)).await, Ok(1));
    }

    #[tokio::test]
    async fn work_without_a_thread_fails_and_the_next_is_tried_again() {
        // No address space is so large.
        let threads = Threads::with_stacks_of(1 << 60);
        for _ in 0..2 {
            let error = threads.run(|| 1).await.unwrap_err();
            assert_eq!(&*error, "no thread could be started for it");
        }
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_the_thread() {
        let threads = Threads::with_stacks_of(1 << 20);
        let panicking = || -> u8 { std::panic::resume_unwind(Box::new("no")) };
        assert_eq!(threads.run(panicking).await, Err(Arc::from("no")));
        assert_eq!(threads.run(|| 1).await, Ok(1));
    }
}
