//! The flight protocol under a model checker, in every order of its steps that the scheduler comes
//! upon. A failure prints a seed that replays it: `SHUTTLE_SEED=… cargo test --test single_flight_model`.
//!
//! In a process of its own: the source under test is built a second time, on the model checker.

/// The flight's own source, with the model checker's primitives under it.
#[path = "../src/sync"]
#[expect(dead_code, reason = "the model needs a part of what a flight offers")]
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
    /// Tasks of flights that are not quite gone. The checker runs an execution on one thread.
    static TASKS: Cell<usize> = const { Cell::new(0) };
    /// Whether flights begin with their leader alone, who drives them.
    static ALONE: Cell<bool> = const { Cell::new(false) };
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

/// What stands for a runtime.
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

type Board = SingleFlight<u8, (), u32>;

/// Counts the flights that started and those that are under way, and may hold them in the air.
#[derive(Clone, Default)]
struct Tower {
    started: Arc<AtomicUsize>,
    under_way: Arc<AtomicUsize>,
    at_once: Arc<AtomicUsize>,
    held: Arc<AtomicBool>,
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Tower {
    /// A flight with some awaits in it.
    fn flight(&self, steps: usize) -> impl Future<Output = u32> + Send + use<> {
        let tower = self.clone();
        async move {
            tower.started.fetch_add(1, Ordering::SeqCst);
            let others = tower.under_way.fetch_add(1, Ordering::SeqCst);
            tower.at_once.fetch_max(others + 1, Ordering::SeqCst);
            let _under_way = UnderWay(Arc::clone(&tower.under_way));
            for _ in 0..steps {
                yield_now().await;
            }
            while tower.held.load(Ordering::SeqCst) {
                yield_now().await;
            }
            7
        }
    }

    fn join(&self, join: &Board, steps: usize) -> Waiter<(), u32> {
        start(join, || ((), self.flight(steps)))
    }
}

fn start<F>(join: &Board, start: impl FnOnce() -> ((), F)) -> Waiter<(), u32>
where
    F: Future<Output = u32> + Send + 'static,
{
    match ALONE.get() {
        true => join.join_driven(1, start),
        false => join.join(1, start),
    }
}

fn landed(outcome: Outcome<u32>) -> u32 {
    match outcome {
        Outcome::Landed(value) => value,
        Outcome::Crashed(message) => panic!("crashed: {message}"),
        Outcome::Lost => panic!("lost"),
    }
}

/// Checks it with flights that are tasks from the start, and with flights that are not.
fn check(test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    for alone in [false, true] {
        let test = Arc::clone(&test);
        check_each_order(move || {
            ALONE.set(alone);
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

/// Polls so many times and then lets go.
async fn give_up_after(waiter: Waiter<(), u32>, polls: usize) -> Option<u32> {
    let mut waiter = pin!(waiter);
    for _ in 0..polls {
        if let Poll::Ready(outcome) = futures::poll!(&mut waiter) {
            return Some(landed(outcome));
        }
        yield_now().await;
    }
    None
}

#[test]
fn all_who_wait_are_told() {
    check(|| {
        let (join, tower) = (Arc::new(Board::new()), Tower::default());
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (join, tower) = (Arc::clone(&join), tower.clone());
                spawn(async move { landed(tower.join(&join, 2).await) })
            })
            .collect();
        for task in tasks {
            assert_eq!(block_on(task).unwrap(), 7);
        }
        assert_eq!(tower.under_way.load(Ordering::SeqCst), 0);
        assert_eq!(tower.at_once.load(Ordering::SeqCst), 1);
    });
}

/// The leader leaves after each number of polls in turn, before and after others have come.
#[test]
fn a_leader_that_leaves_stalls_nobody() {
    for polls in 0..5 {
        check(move || {
            let (join, tower) = (Arc::new(Board::new()), Tower::default());
            let leader = tower.join(&join, 3);
            let leader = spawn(give_up_after(leader, polls));
            let followers: Vec<_> = (0..2)
                .map(|_| {
                    let (join, tower) = (Arc::clone(&join), tower.clone());
                    spawn(async move { landed(tower.join(&join, 3).await) })
                })
                .collect();
            for follower in followers {
                assert_eq!(block_on(follower).unwrap(), 7);
            }
            block_on(leader).unwrap();
        });
    }
}

/// A flight that has a follower aboard when its leader leaves is the one the follower lands with,
/// and any who come later while it is in the air.
#[test]
fn a_flight_that_somebody_has_joined_is_not_started_again() {
    for polls in 0..3 {
        check(move || {
            let (join, tower) = (Arc::new(Board::new()), Tower::default());
            tower.held.store(true, Ordering::SeqCst);
            let leader = tower.join(&join, 1);
            let follower = tower.join(&join, 1);
            let leader = spawn(give_up_after(leader, polls));
            let follower = spawn(async move { landed(follower.await) });
            block_on(leader).unwrap();
            let late = tower.join(&join, 1);
            tower.held.store(false, Ordering::SeqCst);
            assert_eq!(landed(block_on(late)), 7);
            assert_eq!(block_on(follower).unwrap(), 7);
            assert_eq!(tower.started.load(Ordering::SeqCst), 1);
        });
    }
}

/// Everyone leaves: the flight is dropped though nothing lets it land, and whoever comes next,
/// even before it is quite gone, is not told to wait for it.
#[test]
fn when_the_last_one_leaves_the_flight_ends_and_the_next_starts_anew() {
    check(|| {
        let join = Arc::new(Board::new());
        let (endless, next) = (Tower::default(), Tower::default());
        endless.held.store(true, Ordering::SeqCst);
        let leavers: Vec<_> = (0..2)
            .map(|polls| spawn(give_up_after(endless.join(&join, 0), polls)))
            .collect();
        for leaver in leavers {
            assert_eq!(block_on(leaver).unwrap(), None);
        }
        assert_eq!(landed(block_on(next.join(&join, 1))), 7);
    });
}

/// A put or a removal takes the flight off the table while some are aboard and others come.
#[test]
fn a_detached_flight_lands_and_newcomers_start_another() {
    check(|| {
        let join = Arc::new(Board::new());
        let (before, after) = (Tower::default(), Tower::default());
        let early = before.join(&join, 3);
        let detach = {
            let join = Arc::clone(&join);
            spawn(async move { join.detach(&1).is_some() })
        };
        let detached = block_on(detach).unwrap();
        let late = after.join(&join, 1);
        assert_eq!(landed(block_on(early)), 7);
        assert_eq!(landed(block_on(late)), 7);
        // Whoever came after the detachment is not told what was found before it.
        if detached {
            assert_eq!(after.started.load(Ordering::SeqCst), 1);
        }
        assert!(join.detach(&1).is_none(), "a flight was left on the table");
    });
}

#[test]
fn a_crash_is_told_to_all_and_poisons_nothing() {
    check(|| {
        let join = Arc::new(Board::new());
        let crashing = || {
            start(&join, || {
                let crash = async {
                    yield_now().await;
                    // Not `panic!`, which would print its message some thousand times.
                    std::panic::resume_unwind(Box::new("engine failure"));
                };
                ((), crash)
            })
        };
        let seats = [crashing(), crashing()];
        for waiter in seats {
            match block_on(waiter) {
                Outcome::Crashed(message) => assert_eq!(&*message, "engine failure"),
                Outcome::Landed(_) | Outcome::Lost => panic!("landed"),
            }
        }
        assert_eq!(landed(block_on(Tower::default().join(&join, 1))), 7);
    });
}

/// A leader who is alone does the work himself; with company he need not even be polled.
#[test]
fn a_leader_drives_a_flight_until_somebody_joins() {
    check_each_order(|| {
        ALONE.set(true);
        let (join, tower) = (Arc::new(Board::new()), Tower::default());
        let leader = tower.join(&join, 2);
        assert_eq!(TASKS.get(), 0, "nobody else is aboard");
        assert_eq!(landed(block_on(leader)), 7);
        assert_eq!(TASKS.get(), 0);
    });
    for polls in 0..3 {
        check_each_order(move || {
            ALONE.set(true);
            let (join, tower) = (Arc::new(Board::new()), Tower::default());
            tower.held.store(true, Ordering::SeqCst);
            let mut idle = tower.join(&join, 1);
            for _ in 0..polls {
                let poll = block_on(async { futures::poll!(&mut idle) });
                assert!(poll.is_pending());
            }
            let follower = tower.join(&join, 1);
            tower.held.store(false, Ordering::SeqCst);
            assert_eq!(landed(block_on(follower)), 7);
            assert_eq!(landed(block_on(idle)), 7);
            assert_eq!(tower.started.load(Ordering::SeqCst), 1);
        });
    }
}
