//! The state that compiles share, under a model checker, in every order of its steps that the scheduler
//! tries: the permits of the pool, who waits for a compile, and which keys are compiled.
//! A failure prints a seed that replays it: `SHUTTLE_SEED=… cargo test --test compile_model`.
//!
//! In a process of its own: the sources under test are built a second time, on the model checker.

/// The sources under test, with the primitives of the model checker.
#[path = "../src/layered"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the model does not use all that the sources offer"
)]
mod layered {
    mod shim {
        pub(super) use shuttle::sync::{Mutex, MutexGuard};
    }

    mod metrics {
        /// Of the counters of compiles, the one that the interest in a compile keeps.
        #[derive(Debug, Default)]
        pub(crate) struct CompileCounters {
            pub(crate) abandoned: Gauge,
        }

        #[derive(Debug, Default)]
        pub(crate) struct Gauge(std::sync::atomic::AtomicI64);

        impl Gauge {
            pub(crate) fn add(&self, amount: i64) {
                self.0
                    .fetch_add(amount, std::sync::atomic::Ordering::SeqCst);
            }

            pub(crate) fn get(&self) -> i64 {
                self.0.load(std::sync::atomic::Ordering::SeqCst)
            }
        }
    }

    mod admission;
    mod interest;
    mod permits;
    mod running;

    mod model {
        //! What the model uses of the sources, which show it to their own folder alone.

        use super::admission::PriorityBoost;
        use super::interest::{Caller, Interest, UnderWay};
        use super::metrics::CompileCounters;
        use super::permits::{Permit, Permits, QueueFull, Urgency};
        use super::running::RunningKeys;
        use pipeline_cache::PipelineFingerprint;
        use shuttle::future::{block_on, spawn, yield_now};
        use shuttle::scheduler::RandomScheduler;
        use std::pin::pin;
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
        use std::time::Duration;

        /// Orders tried for each test.
        const ORDERS: usize = 500;

        const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([1; 32]);

        fn check(test: impl Fn() + Send + Sync + 'static) {
            let seed = std::env::var("SHUTTLE_SEED").ok();
            let scheduler = match seed.and_then(|seed| seed.parse().ok()) {
                Some(seed) => RandomScheduler::new_from_seed(seed, 1),
                None => RandomScheduler::new(ORDERS),
            };
            shuttle::Runner::new(scheduler, shuttle::Config::new()).run(test);
        }

        /// What is true of a future that is ready at its first poll.
        fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
            block_on(async {
                match futures::poll!(pin!(future)) {
                    std::task::Poll::Ready(value) => Some(value),
                    std::task::Poll::Pending => None,
                }
            })
        }

        /// Polls a future so many times, with other tasks in between, and drops it.
        async fn give_up_after<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
            let mut future = pin!(future);
            for _ in 0..polls {
                if let std::task::Poll::Ready(value) = futures::poll!(&mut future) {
                    return Some(value);
                }
                yield_now().await;
            }
            None
        }

        /// Work in a bounded number of places.
        #[derive(Default)]
        struct Places {
            taken: AtomicUsize,
            most: AtomicUsize,
            done: AtomicUsize,
        }

        impl Places {
            async fn work(&self, permit: Permit) {
                let others = self.taken.fetch_add(1, Ordering::SeqCst);
                self.most.fetch_max(others + 1, Ordering::SeqCst);
                yield_now().await;
                self.taken.fetch_sub(1, Ordering::SeqCst);
                self.done.fetch_add(1, Ordering::SeqCst);
                drop(permit);
            }
        }

        /// Callers of all urgencies come, some are boosted, and some give up after each number of
        /// polls. The bound holds, everybody else is served, and all permits are back at the end.
        #[test]
        fn permits_are_bounded_and_none_is_lost() {
            for limit in [1, 2] {
                for polls in 0..4 {
                    check(move || {
                        let (permits, places) =
                            (Permits::new(limit, 10), Arc::new(Places::default()));
                        let patient = [Urgency::Background, Urgency::Interactive, Urgency::Resumed];
                        let boost = Arc::new(PriorityBoost::default());
                        let mut tasks = Vec::new();
                        for urgency in patient {
                            let (permits, places) = (Arc::clone(&permits), Arc::clone(&places));
                            let boost = Arc::clone(&boost);
                            tasks.push(spawn(async move {
                                let permit = permits.acquire(urgency, &boost).await.unwrap();
                                places.work(permit).await;
                            }));
                        }
                        for urgency in [Urgency::Background, Urgency::Interactive] {
                            let (permits, places) = (Arc::clone(&permits), Arc::clone(&places));
                            tasks.push(spawn(async move {
                                let boost = PriorityBoost::default();
                                boost.boost();
                                let acquire = permits.acquire(urgency, &boost);
                                if let Some(permit) = give_up_after(acquire, polls).await {
                                    places.work(permit.unwrap()).await;
                                }
                            }));
                        }
                        boost.boost();
                        for task in tasks {
                            block_on(task).unwrap();
                        }
                        assert_eq!(permits.taken_and_waiting(), (0, 0));
                        assert!(places.most.load(Ordering::SeqCst) <= limit);
                        assert!(places.done.load(Ordering::SeqCst) >= patient.len());
                    });
                }
            }
        }

        #[test]
        fn permits_go_to_the_resumed_then_the_interactive_then_the_background() {
            check(|| {
                let permits = Permits::new(1, 10);
                let boost = PriorityBoost::default();
                let mut held = permits.force();
                let order = [
                    Urgency::Background,
                    Urgency::Interactive,
                    Urgency::Resumed,
                    Urgency::Interactive,
                ];
                let mut waiting = order.map(|urgency| Box::pin(permits.acquire(urgency, &boost)));
                for waiting in &mut waiting {
                    assert!(ready(waiting).is_none());
                }
                assert_eq!(permits.taken_and_waiting(), (1, 4));
                for next in [2, 1, 3, 0] {
                    drop(held);
                    held = ready(&mut waiting[next]).unwrap().unwrap();
                }
                drop(held);
                assert_eq!(permits.taken_and_waiting(), (0, 0));
            });
        }

        #[test]
        fn a_boosted_background_caller_moves_up() {
            check(|| {
                let permits = Permits::new(1, 10);
                let (idle, boost) = (PriorityBoost::default(), PriorityBoost::default());
                let held = permits.force();
                let mut first = Box::pin(permits.acquire(Urgency::Background, &idle));
                let mut second = Box::pin(permits.acquire(Urgency::Background, &boost));
                assert!(ready(&mut first).is_none() && ready(&mut second).is_none());
                boost.boost();
                assert!(ready(&mut second).is_none());
                drop(held);
                assert!(ready(&mut first).is_none());
                assert!(ready(&mut second).is_some());
            });
        }

        /// A permit is given back while its next holder gives up: the one after that gets it.
        #[test]
        fn a_permit_on_its_way_to_a_caller_that_gives_up_goes_to_the_next() {
            for polls in 0..3 {
                check(move || {
                    let permits = Permits::new(1, 10);
                    let held = permits.force();
                    let waits = |polls: usize| {
                        let permits = Arc::clone(&permits);
                        async move {
                            let boost = PriorityBoost::default();
                            let acquire = permits.acquire(Urgency::Interactive, &boost);
                            give_up_after(acquire, polls).await.is_some()
                        }
                    };
                    let gone = spawn(waits(polls));
                    let next = spawn(waits(usize::MAX));
                    let back = spawn(async move { drop(held) });
                    assert!(block_on(next).unwrap());
                    block_on(back).unwrap();
                    block_on(gone).unwrap();
                    assert_eq!(permits.taken_and_waiting(), (0, 0));
                });
            }
        }

        #[test]
        fn a_full_queue_is_told_at_once_and_holds_up_no_other_urgency() {
            check(|| {
                let permits = Permits::new(1, 1);
                let boost = PriorityBoost::default();
                let held = permits.force();
                let mut background = Box::pin(permits.acquire(Urgency::Background, &boost));
                assert!(ready(&mut background).is_none());
                let full = ready(permits.acquire(Urgency::Background, &boost));
                assert_eq!(full.unwrap().unwrap_err(), QueueFull);
                let mut interactive = Box::pin(permits.acquire(Urgency::Interactive, &boost));
                assert!(ready(&mut interactive).is_none());
                drop(held);
                assert!(ready(interactive).is_some());
            });
        }

        #[test]
        fn a_forced_permit_is_paid_back_before_the_next_is_given() {
            check(|| {
                let permits = Permits::new(1, 10);
                let boost = PriorityBoost::default();
                let (held, forced) = (permits.force(), permits.force());
                let mut waiting = Box::pin(permits.acquire(Urgency::Interactive, &boost));
                assert!(ready(&mut waiting).is_none());
                drop(held);
                assert!(ready(&mut waiting).is_none());
                drop(forced);
                assert!(ready(waiting).is_some());
            });
        }

        fn interest() -> (Arc<CompileCounters>, Arc<Interest>, UnderWay) {
            let counters = Arc::new(CompileCounters::default());
            let interest = Interest::new(Arc::clone(&counters));
            let under_way = interest.under_way();
            (counters, interest, under_way)
        }

        /// The last caller goes, another comes, and the thread of the compile asks to be kept, all at
        /// once. A compile is kept or cancelled, and never both.
        #[test]
        fn a_compile_is_kept_or_cancelled_and_never_both() {
            for keeps in [false, true] {
                check(move || {
                    let (counters, interest, under_way) = interest();
                    let first = interest.join(false);
                    let cancelled = Arc::new(AtomicBool::new(false));
                    let watching = {
                        let (interest, cancelled) = (Arc::clone(&interest), Arc::clone(&cancelled));
                        spawn(async move {
                            let polls = give_up_after(interest.cancelled(), 8);
                            cancelled.store(polls.await.is_some(), Ordering::SeqCst);
                        })
                    };
                    let begins = {
                        let interest = Arc::clone(&interest);
                        spawn(async move {
                            yield_now().await;
                            interest.keep()
                        })
                    };
                    let second = {
                        let interest = Arc::clone(&interest);
                        spawn(async move {
                            let caller: Caller = interest.join(keeps);
                            yield_now().await;
                            drop(caller);
                        })
                    };
                    drop(first);
                    let is_kept = block_on(begins).unwrap();
                    block_on(second).unwrap();
                    block_on(watching).unwrap();
                    let is_cancelled = cancelled.load(Ordering::SeqCst);
                    assert!(!(is_kept && is_cancelled), "kept and cancelled");
                    assert!(is_kept || is_cancelled || !keeps, "neither");
                    assert!(!interest.is_wanted());
                    assert_eq!(counters.abandoned.get(), 1);
                    drop(under_way);
                    assert_eq!(counters.abandoned.get(), 0);
                });
            }
        }

        #[test]
        fn a_compile_is_cancelled_when_the_last_caller_goes_and_none_wants_it_kept() {
            check(|| {
                let (counters, interest, under_way) = interest();
                assert!(ready(interest.cancelled()).is_none());
                let (one, two) = (interest.join(false), interest.join(false));
                drop(one);
                assert!(ready(interest.cancelled()).is_none());
                drop(two);
                assert!(!interest.is_wanted());
                assert!(ready(interest.abandoned()).is_some());
                assert_eq!(counters.abandoned.get(), 1);
                assert!(ready(interest.cancelled()).is_some());
                assert!(!interest.keep(), "it was cancelled before");
                drop(under_way);
                assert_eq!(counters.abandoned.get(), 0);
            });
        }

        #[test]
        fn a_kept_compile_is_never_cancelled_and_may_be_wanted_again() {
            check(|| {
                let (_, interest, _under_way) = interest();
                drop((interest.join(false), interest.join(true)));
                assert!(ready(interest.cancelled()).is_none());
                let again = interest.join(false);
                assert!(interest.is_wanted());
                assert!(ready(interest.abandoned()).is_none());
                drop(again);
            });
            check(|| {
                let (_, begun, _under_way) = interest();
                let caller = begun.join(false);
                assert!(begun.keep());
                drop(caller);
                assert!(ready(begun.cancelled()).is_none());
            });
        }

        /// Callers come for one key, and some of them give up, while they wait or while they compile.
        /// One compiles at a time, everybody else gets a turn, and the key is free at the end.
        #[test]
        fn one_compile_of_a_key_runs_at_a_time_and_nobody_waits_for_ever() {
            for polls in 0..5 {
                check(move || {
                    let keys = Arc::new(RunningKeys::default());
                    let running = Arc::new(AtomicUsize::new(0));
                    let compile = || {
                        let (keys, running) = (Arc::clone(&keys), Arc::clone(&running));
                        async move {
                            loop {
                                let begun = keys.begin_or_wait(&KEY, Duration::MAX).await;
                                let Some(key) = begun.unwrap() else { continue };
                                let _running = OneOf::begin(&running);
                                key.begin();
                                yield_now().await;
                                return;
                            }
                        }
                    };
                    let gone = [polls, polls + 1].map(|polls| {
                        let compile = compile();
                        spawn(async move {
                            give_up_after(compile, polls).await;
                        })
                    });
                    let patient = [compile(), compile()].map(spawn);
                    for task in gone.into_iter().chain(patient) {
                        block_on(task).unwrap();
                    }
                    let free = ready(keys.begin_or_wait(&KEY, Duration::MAX));
                    assert!(matches!(free, Some(Ok(Some(_)))), "the key is not free");
                });
            }
        }

        /// One that runs, and no other at the same time.
        struct OneOf(Arc<AtomicUsize>);

        impl OneOf {
            fn begin(running: &Arc<AtomicUsize>) -> Self {
                let others = running.fetch_add(1, Ordering::SeqCst);
                assert_eq!(others, 0, "two compiles of one key");
                Self(Arc::clone(running))
            }
        }

        impl Drop for OneOf {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

mod key {
    pub(crate) use pipeline_cache::PipelineFingerprint;
}
