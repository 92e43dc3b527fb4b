//! One flight per key: work that many wait for and nobody has to drive.
//!
//! A flight with company runs as a task of its own, so a waiter that is dropped, or is never polled,
//! holds nobody up. One that was boarded alone is driven by its leader, which saves the task; as
//! soon as somebody joins, it becomes a task. It lives while anyone waits: when the last waiter is
//! given up the work is dropped.

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

/// How a flight ended.
pub(crate) enum Outcome<T> {
    /// With a result, which every waiter is handed.
    Landed(T),
    /// With a panic, whose message every waiter is handed.
    Crashed(Arc<str>),
    /// Not at all: the runtime it ran on was shut down.
    Lost,
}

impl<T: Clone> Clone for Outcome<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Landed(value) => Self::Landed(value.clone()),
            Self::Crashed(message) => Self::Crashed(Arc::clone(message)),
            Self::Lost => Self::Lost,
        }
    }
}

/// The flights under way, by key. `P` is what a flight shows of itself before it lands.
pub(crate) struct SingleFlight<K, P, T> {
    table: Arc<Table<K, P, T>>,
}

type Table<K, P, T> = Mutex<HashMap<K, Arc<Flight<P, T>>>>;

/// Who else is aboard, and what is known so far.
struct Flight<P, T> {
    progress: P,
    state: Mutex<State<T>>,
}

struct State<T> {
    outcome: Option<Outcome<T>>,
    /// Seats taken and not yet given up. At zero the flight is over, and nobody can join it.
    seats: usize,
    next_waiter: u64,
    waiters: HashMap<u64, Waker>,
    /// The work while the leader drives it, but for the moments in which he does.
    solo: Option<Solo>,
    /// The work once it is a task.
    task: Option<AbortHandle>,
}

/// The work of a flight that is not a task yet, and where it becomes one.
struct Solo {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    runtime: Handle,
}

/// A caller's place on a flight: a future of its outcome.
pub(crate) struct Waiter<P, T> {
    flight: Arc<Flight<P, T>>,
    waiter: u64,
    /// Whether this caller started the flight.
    pub(crate) leads: bool,
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

    /// Joins the flight for this key, or starts it with the work that `start` makes, as a task.
    ///
    /// Must be called on a tokio runtime; the flight is a task of it.
    pub(crate) fn join<F>(&self, key: K, start: impl FnOnce() -> (P, F)) -> Waiter<P, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let waiter = self.join_driven(key, start);
        let solo = waiter.flight.lock().solo.take();
        waiter.flight.launch(solo);
        waiter
    }

    /// As [`join`](Self::join), and work that is started is the caller's to drive, by polling
    /// his waiter, as long as nobody else is aboard.
    pub(crate) fn join_driven<F>(&self, key: K, start: impl FnOnce() -> (P, F)) -> Waiter<P, T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let runtime = Handle::current();
        let (waiter, solo) = {
            let mut table = lock(&self.table);
            match table.get(&key).and_then(Flight::join) {
                Some(joined) => joined,
                None => {
                    let (progress, work) = start();
                    let flight = Arc::new(Flight::new(progress));
                    flight.lock().solo = Some(Solo {
                        work: Box::pin(self.completion_guard(key, &flight).run(work)),
                        runtime,
                    });
                    table.insert(key, Arc::clone(&flight));
                    return Waiter {
                        flight,
                        waiter: 0,
                        leads: true,
                    };
                }
            }
        };
        // Outside the lock: a runtime that is shutting down drops the task, and with it the
        // completion_guard, right here.
        waiter.flight.launch(solo);
        waiter
    }

    fn completion_guard(&self, key: K, flight: &Arc<Flight<P, T>>) -> CompletionGuard<K, P, T> {
        CompletionGuard {
            table: Arc::clone(&self.table),
            key,
            flight: Arc::clone(flight),
        }
    }

    /// Takes the flight for this key off the table: those aboard stay, and whoever comes from now
    /// on starts anew. Returns what the flight shows of itself.
    pub(crate) fn detach(&self, key: &K) -> Option<P> {
        let flight = lock(&self.table).remove(key)?;
        Some(flight.progress.clone())
    }
}

impl<P, T> Flight<P, T> {
    /// A flight with its leader aboard.
    fn new(progress: P) -> Self {
        Self {
            progress,
            state: Mutex::new(State {
                outcome: None,
                seats: 1,
                next_waiter: 1,
                waiters: HashMap::new(),
                solo: None,
                task: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock(&self.state)
    }

    /// A waiter, and the work if that is now to be launched.
    fn join(self: &Arc<Self>) -> Option<(Waiter<P, T>, Option<Solo>)> {
        let mut state = self.lock();
        if state.seats == 0 || state.outcome.is_some() {
            return None;
        }
        state.seats += 1;
        let waiter = state.next_waiter;
        state.next_waiter += 1;
        let waiter = Waiter {
            flight: Arc::clone(self),
            waiter,
            leads: false,
        };
        Some((waiter, state.solo.take()))
    }

    /// Makes a task of the work. The caller has a waiter.
    fn launch(&self, solo: Option<Solo>) {
        if let Some(Solo { work, runtime }) = solo {
            let task = runtime.spawn(work);
            self.lock().task = Some(task.abort_handle());
        }
    }

    /// Drives the work, if it is the caller's to drive. Whoever joins meanwhile leaves it to him
    /// to launch it.
    fn drive(&self, context: &mut Context<'_>) {
        let Some(mut solo) = self.lock().solo.take() else {
            return;
        };
        if solo.work.as_mut().poll(context).is_ready() {
            return;
        }
        let joined = {
            let mut state = self.lock();
            if state.seats > 1 {
                Some(solo)
            } else {
                state.solo = Some(solo);
                None
            }
        };
        self.launch(joined);
    }

    /// Ends the flight, unless it has ended.
    fn end(&self, outcome: Outcome<T>) {
        let waiters = {
            let mut state = self.lock();
            if state.outcome.is_some() {
                return;
            }
            state.outcome = Some(outcome);
            std::mem::take(&mut state.waiters)
        };
        for waker in waiters.into_values() {
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
        self.flight.drive(context);
        let mut state = self.flight.lock();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        let waker = state
            .waiters
            .entry(self.waiter)
            .or_insert_with(|| context.waker().clone());
        waker.clone_from(context.waker());
        Poll::Pending
    }
}

impl<P, T> Drop for Waiter<P, T> {
    /// The last one to leave ends the flight.
    fn drop(&mut self) {
        // The work is dropped once the lock is free: its completion_guard takes it.
        let (task, _solo) = {
            let mut state = self.flight.lock();
            state.waiters.remove(&self.waiter);
            state.seats -= 1;
            if state.seats > 0 {
                return;
            }
            (state.task.take(), state.solo.take())
        };
        if let Some(task) = task {
            task.abort();
        }
    }
}

/// Owned by the work of a flight: whichever way that ends, the flight leaves the table and its
/// waiters are told.
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
            Ok(value) => Outcome::Landed(value),
            Err(panic) => Outcome::Crashed(panic_message(&*panic)),
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
        self.flight.end(Outcome::Lost);
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

/// What a panic said, where it said it in text.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> Arc<str> {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        Arc::from(*text)
    } else if let Some(text) = panic.downcast_ref::<String>() {
        Arc::from(text.as_str())
    } else {
        Arc::from("a panic without a message")
    }
}
