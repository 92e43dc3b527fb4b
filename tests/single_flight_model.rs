//! The single flight under a model checker, in every order of its steps that the scheduler tries.
//! A failure prints a seed that replays it: `SHUTTLE_SEED=… cargo test --test single_flight_model`.
//!
//! In a process of its own: the source under test is built a second time, on the model checker.

/// The source of the single flight, with the primitives of the model checker.
#[path = "../src/sync"]
#[expect(dead_code, reason = "the model does not use all that a flight offers")]
mod sync {
    mod shim {
        pub(super) use crate::Handle;
        pub(super) use shuttle::future::AbortHandle;
        pub(super) use shuttle::sync::{Mutex, MutexGuard};
    }

    pub(crate) mod single_flight;
}

use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use shuttle::scheduler::RandomScheduler;
use std::cell::Cell;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use sync::single_flight::{Outcome, SingleFlight, Waiter};

thread_local! {
    /// Tasks of flights that are not yet dropped. The checker runs an execution on one thread.
    static TASKS: Cell<usize> = const { Cell::new(0) };
    /// Whether work goes on without waiters.
    static KEPT: Cell<bool> = const { Cell::new(false) };
}

/// A task that is counted until everything in it is dropped.
struct Counted<F> {
    work: Pin<Box<F>>,
    _until_dropped: OneTask,
}

struct OneTask;

impl Drop for OneTask {
    fn drop(&mut self) {
        TASKS.set(TASKS.get() - 1);
    }
}

impl<F: Future> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.work.as_mut().poll(context)
    }
}

/// Stands for a runtime.
struct Handle;

impl Handle {
    fn current() -> Self {
        Self
    }

    fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        TASKS.set(TASKS.get() + 1);
        spawn(Counted {
            work: Box::pin(work),
            _until_dropped: OneTask,
        })
    }
}

/// Orders tried for each test.
const ORDERS: usize = 500;

type Flights = SingleFlight<u8, (), u32>;

/// Work that counts how often it was started, and may be held up.
#[derive(Clone, Default)]
struct Work {
    started: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
    held_up: Arc<AtomicBool>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Work {
    /// Work with this many awaits in it.
    fn run(&self, steps: usize) -> impl Future<Output = u32> + Send + use<> {
        let work = self.clone();
        async move {
            work.started.fetch_add(1, Ordering::SeqCst);
            let others = work.running.fetch_add(1, Ordering::SeqCst);
            work.most_at_once.fetch_max(others + 1, Ordering::SeqCst);
            let _running = Running(Arc::clone(&work.running));
            for _ in 0..steps {
                yield_now().await;
            }
            while work.held_up.load(Ordering::SeqCst) {
                yield_now().await;
            }
            7
        }
    }

    fn join(&self, flights: &Flights, steps: usize) -> Waiter<(), u32> {
        join(flights, || ((), self.run(steps)))
    }
}

fn join<F>(flights: &Flights, start: impl FnOnce() -> ((), F)) -> Waiter<(), u32>
where
    F: Future<Output = u32> + Send + 'static,
{
    match KEPT.get() {
        true => flights.join_kept(1, start),
        false => flights.join(1, start),
    }
}

fn done(outcome: Outcome<u32>) -> u32 {
    match outcome {
        Outcome::Done(value) => value,
        Outcome::Panicked(message) => panic!("the work panicked: {message}"),
        Outcome::Aborted => panic!("the work was aborted"),
    }
}

/// Checks it with work that ends with its last waiter, and with work that goes on.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    for kept in [false, true] {
        let test = Arc::clone(&test);
        check_each_order(move || {
            KEPT.set(kept);
            test();
        });
    }
}

fn check_each_order(test: impl Fn() + Send + Sync + 'static) {
    let seed = std::env::var("SHUTTLE_SEED").ok();
    let scheduler = match seed.and_then(|seed| seed.parse().ok()) {
        Some(seed) => RandomScheduler::new_from_seed(seed, 1),
        None => RandomScheduler::new(ORDERS),
    };
    shuttle::Runner::new(scheduler, shuttle::Config::new()).run(move || {
        TASKS.set(0);
        test();
        // An aborted task unwinds by itself, and must come to its end.
        while TASKS.get() > 0 {
            shuttle::thread::yield_now();
        }
    });
}

/// Polls so many times and then drops the waiter.
async fn give_up_after(waiter: Waiter<(), u32>, polls: usize) -> Option<u32> {
    let mut waiter = pin!(waiter);
    for _ in 0..polls {
        if let Poll::Ready(outcome) = futures::poll!(&mut waiter) {
            return Some(done(outcome));
        }
        yield_now().await;
    }
    None
}

#[test]
fn every_waiter_gets_the_outcome() {
    check(|| {
        let (flights, work) = (Arc::new(Flights::new()), Work::default());
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (flights, work) = (Arc::clone(&flights), work.clone());
                spawn(async move { done(work.join(&flights, 2).await) })
            })
            .collect();
        for task in tasks {
            assert_eq!(block_on(task).unwrap(), 7);
        }
        assert_eq!(work.running.load(Ordering::SeqCst), 0);
        assert_eq!(work.most_at_once.load(Ordering::SeqCst), 1);
    });
}

/// The leader gives up after each number of polls in turn, before and after others have joined.
#[test]
fn a_leader_that_gives_up_stalls_no_waiter() {
    for polls in 0..5 {
        check(move || {
            let (flights, work) = (Arc::new(Flights::new()), Work::default());
            let leader = work.join(&flights, 3);
            let leader = spawn(give_up_after(leader, polls));
            let followers: Vec<_> = (0..2)
                .map(|_| {
                    let (flights, work) = (Arc::clone(&flights), work.clone());
                    spawn(async move { done(work.join(&flights, 3).await) })
                })
                .collect();
            for follower in followers {
                assert_eq!(block_on(follower).unwrap(), 7);
            }
            block_on(leader).unwrap();
        });
    }
}

/// A flight that has a follower when its leader gives up goes on, for the follower and for any who
/// join later.
#[test]
fn a_flight_with_a_follower_is_not_started_again() {
    for polls in 0..3 {
        check(move || {
            let (flights, work) = (Arc::new(Flights::new()), Work::default());
            work.held_up.store(true, Ordering::SeqCst);
            let leader = work.join(&flights, 1);
            let follower = work.join(&flights, 1);
            let leader = spawn(give_up_after(leader, polls));
            let follower = spawn(async move { done(follower.await) });
            block_on(leader).unwrap();
            let late = work.join(&flights, 1);
            work.held_up.store(false, Ordering::SeqCst);
            assert_eq!(done(block_on(late)), 7);
            assert_eq!(block_on(follower).unwrap(), 7);
            assert_eq!(work.started.load(Ordering::SeqCst), 1);
        });
    }
}

/// All give up: the work is dropped though it is held up, and the next caller does not wait for it,
/// not even while it is being dropped.
#[test]
fn when_the_last_waiter_gives_up_the_work_ends_and_the_next_starts_anew() {
    check_each_order(|| {
        KEPT.set(false);
        let flights = Arc::new(Flights::new());
        let (endless, next) = (Work::default(), Work::default());
        endless.held_up.store(true, Ordering::SeqCst);
        let waiters: Vec<_> = (0..2)
            .map(|polls| spawn(give_up_after(endless.join(&flights, 0), polls)))
            .collect();
        for waiter in waiters {
            assert_eq!(block_on(waiter).unwrap(), None);
        }
        assert_eq!(done(block_on(next.join(&flights, 1))), 7);
    });
}

/// All give up, and the work of a kept flight goes on to its end. Whoever comes meanwhile joins it;
/// whoever comes later starts anew. Two never run at once.
#[test]
fn a_kept_flight_outlives_its_waiters_and_is_joined_by_whoever_comes() {
    for late_polls in 0..3 {
        check_each_order(move || {
            KEPT.set(true);
            let (flights, work) = (Arc::new(Flights::new()), Work::default());
            work.held_up.store(true, Ordering::SeqCst);
            let waiters: Vec<_> = (0..3)
                .map(|polls| spawn(give_up_after(work.join(&flights, 0), polls)))
                .collect();
            for waiter in waiters {
                assert_eq!(block_on(waiter).unwrap(), None);
            }
            // Nobody waits, and the work is held up: the next caller joins it, and gives up as well.
            let late = spawn(give_up_after(work.join(&flights, 0), late_polls));
            assert_eq!(block_on(late).unwrap(), None);
            let last = work.join(&flights, 0);
            work.held_up.store(false, Ordering::SeqCst);
            assert_eq!(done(block_on(last)), 7);
            assert_eq!(work.started.load(Ordering::SeqCst), 1);
            assert_eq!(done(block_on(work.join(&flights, 1))), 7);
            assert_eq!(work.started.load(Ordering::SeqCst), 2);
            assert_eq!(work.most_at_once.load(Ordering::SeqCst), 1);
        });
    }
}

/// The work of a kept flight ends while its last waiter goes and another comes.
#[test]
fn a_kept_flight_that_ends_while_its_callers_change_answers_each() {
    for polls in 0..4 {
        check_each_order(move || {
            KEPT.set(true);
            let (flights, work) = (Arc::new(Flights::new()), Work::default());
            let first = spawn(give_up_after(work.join(&flights, 2), polls));
            let second = {
                let (flights, work) = (Arc::clone(&flights), work.clone());
                spawn(async move { done(work.join(&flights, 2).await) })
            };
            assert_eq!(block_on(second).unwrap(), 7);
            block_on(first).unwrap();
            assert_eq!(work.most_at_once.load(Ordering::SeqCst), 1);
            while work.running.load(Ordering::SeqCst) > 0 {
                shuttle::thread::yield_now();
            }
        });
    }
}

/// A put or a removal takes the flight off the table while some wait for it and others come.
#[test]
fn a_detached_flight_ends_and_newcomers_start_another() {
    check(|| {
        let flights = Arc::new(Flights::new());
        let (before, after) = (Work::default(), Work::default());
        let early = before.join(&flights, 3);
        let detach = {
            let flights = Arc::clone(&flights);
            spawn(async move { flights.detach(&1).is_some() })
        };
        let detached = block_on(detach).unwrap();
        let late = after.join(&flights, 1);
        assert_eq!(done(block_on(early)), 7);
        assert_eq!(done(block_on(late)), 7);
        // A caller that came after the detachment does not get what was found before it.
        if detached {
            assert_eq!(after.started.load(Ordering::SeqCst), 1);
        }
        assert!(
            flights.detach(&1).is_none(),
            "a flight was left on the table"
        );
    });
}

#[test]
fn a_panic_is_told_to_all_and_poisons_nothing() {
    check(|| {
        let flights = Arc::new(Flights::new());
        let panicking = || {
            join(&flights, || {
                let panic = async {
                    yield_now().await;
                    // Not `panic!`, which would print its message some thousand times.
                    std::panic::resume_unwind(Box::new("out of registers"));
                };
                ((), panic)
            })
        };
        let waiters = [panicking(), panicking()];
        for waiter in waiters {
            match block_on(waiter) {
                Outcome::Panicked(message) => assert_eq!(&*message, "out of registers"),
                Outcome::Done(_) | Outcome::Aborted => panic!("it did not panic"),
            }
        }
        assert_eq!(done(block_on(Work::default().join(&flights, 1))), 7);
    });
}

/// Work that is ready at its first poll needs no task. Work that is not goes on without its leader
/// being polled at all.
#[test]
fn work_that_waits_is_a_task_from_its_first_poll() {
    check(|| {
        let (flights, work) = (Arc::new(Flights::new()), Work::default());
        let leader = work.join(&flights, 0);
        assert_eq!(TASKS.get(), 0, "the work was ready at once");
        assert_eq!(done(block_on(leader)), 7);
        assert_eq!(TASKS.get(), 0);
    });
    for polls in 0..3 {
        check(move || {
            let (flights, work) = (Arc::new(Flights::new()), Work::default());
            work.held_up.store(true, Ordering::SeqCst);
            let mut idle = work.join(&flights, 1);
            assert_eq!(TASKS.get(), 1);
            for _ in 0..polls {
                let poll = block_on(async { futures::poll!(&mut idle) });
                assert!(poll.is_pending());
            }
            work.held_up.store(false, Ordering::SeqCst);
            while work.running.load(Ordering::SeqCst) > 0 {
                shuttle::thread::yield_now();
            }
            assert_eq!(done(block_on(idle)), 7);
            assert_eq!(work.started.load(Ordering::SeqCst), 1);
        });
    }
}
