//! Single flight: concurrent callers that ask for the same key share the work for it.
//!
//! The work is polled once where it is started: what is ready at once needs no task. After that it is
//! a task of its own, so a caller that is no longer polled holds up nobody. A flight is started in one
//! of two ways:
//!
//! - [`SingleFlight::join`]: the work lives while anyone waits for it. When the last waiter is
//!   dropped, so is the work.
//! - [`SingleFlight::join_kept`]: the work goes on to its end, and may be joined, also when nobody
//!   waits for it any more.

use futures::FutureExt as _;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use super::shim::{AbortHandle, Handle, Mutex, MutexGuard};

/// How a flight ended. Every waiter gets a clone.
pub(crate) enum Outcome<T> {
    /// The work returned this value.
    Done(T),
    /// The work panicked with this message.
    Panicked(Arc<str>),
    /// The runtime that the work ran on was shut down.
    Aborted,
}

impl<T: Clone> Clone for Outcome<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Done(value) => Self::Done(value.clone()),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            Self::Aborted => Self::Aborted,
        }
    }
}

/// The flights under way, by key. `P` is what a flight shows of itself before it ends.
pub(crate) struct SingleFlight<K, P, T> {
    table: Arc<Table<K, P, T>>,
}

type Table<K, P, T> = Mutex<HashMap<K, Arc<Flight<P, T>>>>;

/// A waiter, and for the leader the work that it has to run, with the guard that must own it.
type Joined<K, P, T, F> = (Waiter<P, T>, Option<(CompletionGuard<K, P, T>, F)>);

/// One piece of work and everyone who waits for it.
struct Flight<P, T> {
    progress: P,
    state: Mutex<State<T>>,
}

struct State<T> {
    outcome: Option<Outcome<T>>,
    /// Waiters that are not yet dropped. At zero a flight that is not kept is over, and nobody can
    /// join it.
    waiters: usize,
    /// Whether the work goes on without waiters.
    kept: bool,
    next_waiter: u64,
    wakers: HashMap<u64, Waker>,
    /// The task that runs the work. `None` while the work is polled inline.
    task: Option<AbortHandle>,
}

/// One caller's wait for the outcome of a flight.
pub(crate) struct Waiter<P, T> {
    flight: Arc<Flight<P, T>>,
    id: u64,
    /// Whether this caller started the flight.
    pub(crate) is_leader: bool,
}

impl<K, P, T> SingleFlight<K, P, T>
where
    K: Copy + Eq + Hash + Send + 'static,
    P: Clone + Send + Sync + 'static,
    T: Clone + Send + 'static,
{
    pub(crate) fn new() -> Self {
        Self {
            table: Arc::default(),
        }
    }

    /// Joins the flight for this key, or starts the work that `start` makes, which is dropped with its
    /// last waiter.
    ///
    /// Panics outside of a tokio runtime.
    pub(crate) fn join<F>(&self, key: K, start: impl FnOnce() -> (P, F)) -> Waiter<P, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.join_as(key, false, start)
    }

    /// As [`join`](Self::join), but work that is started here goes on when all its waiters are dropped.
    pub(crate) fn join_kept<F>(&self, key: K, start: impl FnOnce() -> (P, F)) -> Waiter<P, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.join_as(key, true, start)
    }

    fn join_as<F>(&self, key: K, kept: bool, start: impl FnOnce() -> (P, F)) -> Waiter<P, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let runtime = Handle::current();
        let (waiter, work) = self.join_or_start(key, kept, start);
        if let Some((guard, work)) = work {
            let mut work = Box::pin(guard.run(work));
            // The task polls the work again when it starts, so no wake-up can be lost.
            if work.as_mut().now_or_never().is_none() {
                waiter.flight.spawn(&runtime, work);
            }
        }
        waiter
    }

    /// A waiter, and the work if the caller has to run it.
    ///
    /// The work is neither polled nor dropped under the lock of the table.
    fn join_or_start<F>(
        &self,
        key: K,
        kept: bool,
        start: impl FnOnce() -> (P, F),
    ) -> Joined<K, P, T, F> {
        let mut table = lock(&self.table);
        if let Some(waiter) = table.get(&key).and_then(Flight::join) {
            return (waiter, None);
        }
        let (progress, work) = start();
        let flight = Arc::new(Flight::new(progress, kept));
        table.insert(key, Arc::clone(&flight));
        let guard = CompletionGuard {
            table: Arc::clone(&self.table),
            key,
            flight: Arc::clone(&flight),
        };
        let waiter = Waiter {
            flight,
            id: 0,
            is_leader: true,
        };
        (waiter, Some((guard, work)))
    }

    /// Takes the flight for this key off the table. Its waiters still get its outcome; a later
    /// caller starts another flight. Returns what the flight shows of itself.
    pub(crate) fn detach(&self, key: &K) -> Option<P> {
        let flight = lock(&self.table).remove(key)?;
        Some(flight.progress.clone())
    }
}

impl<P, T> Flight<P, T> {
    /// A flight with one waiter, its leader.
    fn new(progress: P, kept: bool) -> Self {
        Self {
            progress,
            state: Mutex::new(State {
                outcome: None,
                waiters: 1,
                kept,
                next_waiter: 1,
                wakers: HashMap::new(),
                task: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    /// Another waiter, unless the flight is over.
    fn join(self: &Arc<Self>) -> Option<Waiter<P, T>> {
        let mut state = self.lock();
        if (state.waiters == 0 && !state.kept) || state.outcome.is_some() {
            return None;
        }
        state.waiters += 1;
        let id = state.next_waiter;
        state.next_waiter += 1;
        Some(Waiter {
            flight: Arc::clone(self),
            id,
            is_leader: false,
        })
    }

    /// Runs the work as a task. The caller holds a waiter, so the flight is not over for want of one.
    fn spawn(&self, runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
        // Without a lock: a runtime that is shutting down drops the work here, and the completion
        // guard in it takes the locks.
        let task = runtime.spawn(work);
        self.lock().task = Some(task.abort_handle());
    }

    /// Ends the flight, unless it has ended.
    fn end(&self, outcome: Outcome<T>) {
        let wakers = {
            let mut state = self.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
    }
}

impl<P, T> Waiter<P, T> {
    /// What the flight shows of itself.
    pub(crate) fn progress(&self) -> &P {
        &self.flight.progress
    }
}

impl<P, T: Clone> Future for Waiter<P, T> {
    type Output = Outcome<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.flight.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        let waker = state
            .wakers
            .entry(self.id)
            .or_insert_with(|| context.waker().clone());
        waker.clone_from(context.waker());
        Poll::Pending
    }
}

impl<P, T> Drop for Waiter<P, T> {
    /// The last waiter stops the work, unless it is kept.
    fn drop(&mut self) {
        let task = {
            let mut state = self.flight.lock();
            state.wakers.remove(&self.id);
            state.waiters -= 1;
            if state.waiters > 0 || state.kept {
                return;
            }
            state.task.take()
        };
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Owned by the work of a flight. However the work ends, even unpolled, the flight leaves the
/// table and its waiters get an outcome.
struct CompletionGuard<K: Copy + Eq + Hash, P, T> {
    table: Arc<Table<K, P, T>>,
    key: K,
    flight: Arc<Flight<P, T>>,
}

impl<K, P, T> CompletionGuard<K, P, T>
where
    K: Copy + Eq + Hash + Send,
    P: Send + Sync,
    T: Send,
{
    async fn run(self, work: impl Future<Output = T> + Send) {
        let outcome = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(value) => Outcome::Done(value),
            Err(panic) => Outcome::Panicked(panic_message(&*panic)),
        };
        self.leave_table();
        self.flight.end(outcome);
    }
}

impl<K: Copy + Eq + Hash, P, T> CompletionGuard<K, P, T> {
    /// Only if the table still holds this flight: it may have been detached, and replaced.
    fn leave_table(&self) {
        let mut table = lock(&self.table);
        let same = |flight: &Arc<Flight<P, T>>| Arc::ptr_eq(flight, &self.flight);
        if table.get(&self.key).is_some_and(same) {
            table.remove(&self.key);
        }
    }
}

impl<K: Copy + Eq + Hash, P, T> Drop for CompletionGuard<K, P, T> {
    fn drop(&mut self) {
        self.leave_table();
        self.flight.end(Outcome::Aborted);
    }
}

impl<K, P, T> fmt::Debug for SingleFlight<K, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("under_way", &lock(&self.table).len())
            .finish()
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message of a panic, if it is text.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> Arc<str> {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        Arc::from(*text)
    } else if let Some(text) = panic.downcast_ref::<String>() {
        Arc::from(text.as_str())
    } else {
        Arc::from("a panic without a message")
    }
}
