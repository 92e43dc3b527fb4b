//! A prefetch fetches what a run used, the most valuable first, within its bounds, and never before a
//! user.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "a clone that is turned into `dyn` on the way"
)]

use super::requests::support::{FRONT_END, SyntaxError, Words, scope};
use bytes::Bytes;
use pipeline_cache::layered::{Prefetch, PrefetchReport, PrefetchState, RecordedRun};
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, ArtifactMetadata, InMemoryPipelineCache, LayeredPipelineCache,
    LayeredPipelineCacheBuilder, LookupOptions, LookupSource, PipelineCacheStore,
    PipelineFingerprint, SourceAliases, StoreErrorKind, StoreOperation, TierSelection,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const GET: StoreOperation = StoreOperation::Get;

fn key(n: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// An artifact that took so many milliseconds.
fn artifact(bytes: usize, millis: u64) -> Artifact {
    let metadata = ArtifactMetadata::new().with_compile_time(Duration::from_millis(millis));
    Artifact::with_metadata(vec![7; bytes], metadata)
}

/// A machine whose local tiers are empty, and the run of another that is to be fetched.
struct Machine {
    memory: InMemoryPipelineCache,
    disk: Arc<FaultyStore>,
    /// What the disk is made of: looks into it are not calls of the disk.
    on_disk: Arc<InMemoryPipelineCache>,
    remote: Arc<FaultyStore>,
    run: RecordedRun,
    cache: LayeredPipelineCache,
}

impl Machine {
    /// The remote has each of these: a key, its bytes and its milliseconds.
    async fn new(made: impl IntoIterator<Item = (u64, usize, u64)>) -> Self {
        Self::with(made, |cache| cache).await
    }

    async fn with(
        made: impl IntoIterator<Item = (u64, usize, u64)>,
        settings: impl FnOnce(LayeredPipelineCacheBuilder) -> LayeredPipelineCacheBuilder,
    ) -> Self {
        let remote = Arc::new(FaultyStore::new("remote").network());
        let other = LayeredPipelineCache::builder()
            .shared_tier(remote.clone() as _)
            .record_run()
            .build();
        for (n, bytes, millis) in made {
            other.put(&key(n), artifact(bytes, millis)).await.unwrap();
            other.get(&key(n)).await.unwrap();
        }
        Self::over(remote, other.recorded_run().await.unwrap(), settings)
    }

    fn over(
        remote: Arc<FaultyStore>,
        run: RecordedRun,
        settings: impl FnOnce(LayeredPipelineCacheBuilder) -> LayeredPipelineCacheBuilder,
    ) -> Self {
        let memory = InMemoryPipelineCache::new();
        let on_disk = Arc::new(InMemoryPipelineCache::new());
        let disk = Arc::new(FaultyStore::over("disk", on_disk.clone() as _));
        let cache = LayeredPipelineCache::builder()
            .tier(memory.clone())
            .shared_tier(disk.clone() as _)
            .shared_tier(remote.clone() as _);
        Self {
            memory,
            disk,
            on_disk,
            cache: settings(cache).build(),
            remote,
            run,
        }
    }

    fn prefetch(&self) -> Prefetch {
        self.cache.prefetch(&self.run)
    }

    async fn fetch(&self) -> PrefetchReport {
        adds_up(self.prefetch().start().unwrap().finish().await)
    }

    fn has(&self, n: u64) -> bool {
        self.on_disk.peek(&key(n)).is_some()
    }

    /// The calls of the remote since the run was recorded, which has asked for each key once.
    fn asked(&self) -> u64 {
        self.remote.calls(GET) - self.recorded()
    }

    async fn asked_for(&self, keys: u64) {
        self.remote.called(GET, self.recorded() + keys).await;
    }

    fn recorded(&self) -> u64 {
        self.run.keys().iter().map(|recorded| recorded.uses).sum()
    }
}

fn adds_up(report: PrefetchReport) -> PrefetchReport {
    let ends = report.fetched
        + report.already_there
        + report.missing
        + report.refused
        + report.failed
        + report.over_budget
        + report.left;
    assert_eq!(report.keys, ends, "{report:?}");
    report
}

#[tokio::test]
async fn what_a_run_used_is_then_on_the_disk_and_memory_is_left_to_users() {
    let machine = Machine::new((0..100).map(|n| (n, 10, 1))).await;
    let report = machine.fetch().await;
    assert_eq!(report.state, PrefetchState::Complete);
    assert_eq!(
        (report.fetched, report.fetched_bytes, report.left),
        (100, 1_000, 0)
    );
    assert_eq!(machine.asked(), 100);
    for n in 0..100 {
        assert!(machine.has(n) && machine.memory.peek(&key(n)).is_none());
    }
    // It was nobody's lookup.
    assert_eq!(machine.cache.layered_metrics().lookups, 0);

    let lookup = machine.cache.lookup(&key(7), &LookupOptions::new()).await;
    assert_eq!(lookup.source(), Some(LookupSource::Tier(1)));
    assert_eq!(machine.asked(), 100);
    machine.cache.flush().await.unwrap();
    assert!(machine.memory.peek(&key(7)).is_some());
}

#[tokio::test]
async fn what_is_there_is_not_fetched_again() {
    let machine = Machine::new((0..10).map(|n| (n, 10, 1))).await;
    machine.memory.put(&key(0), artifact(10, 1)).await.unwrap();
    machine.disk.put(&key(1), artifact(10, 1)).await.unwrap();
    let report = machine.fetch().await;
    assert_eq!((report.fetched, report.already_there), (8, 2));
    assert_eq!(machine.asked(), 8);
    let report = machine.fetch().await;
    assert_eq!((report.fetched, report.already_there), (0, 10));
    assert_eq!(machine.asked(), 8);
}

#[tokio::test]
async fn the_most_valuable_key_comes_first() {
    let made = [(1, 1_000, 1), (2, 10, 1), (3, 1_000, 50), (4, 100, 10)];
    let machine = Machine::new(made).await;
    machine.remote.set(GET, Fault::Gate);
    let prefetch = machine.prefetch().concurrency(1).start().unwrap();
    for (fetched, expected) in [2, 4, 3, 1].into_iter().enumerate() {
        machine.asked_for(fetched as u64 + 1).await;
        assert!(!machine.has(expected));
        assert_eq!(prefetch.progress().fetched, fetched as u64);
        machine.remote.open(GET, 1);
        // The next is asked for when this one is written.
        if fetched < 3 {
            machine.asked_for(fetched as u64 + 2).await;
            assert!(machine.has(expected), "{expected}");
        }
    }
    assert_eq!(prefetch.finish().await.fetched, 4);
}

#[tokio::test]
async fn a_key_counts_until_its_artifact_is_written() {
    let machine = Machine::new((0..2).map(|n| (n, 10, 1))).await;
    machine.disk.set(StoreOperation::Put, Fault::Gate);
    let prefetch = machine.prefetch().concurrency(1).start().unwrap();
    machine.disk.called(StoreOperation::Put, 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((prefetch.progress().fetched, machine.asked()), (0, 1));
    machine.disk.open(StoreOperation::Put, 2);
    assert_eq!(prefetch.finish().await.fetched, 2);
}

#[tokio::test]
async fn no_more_bytes_are_fetched_than_the_budget_has() {
    // By value: 1 and 2, then 3, which no longer fits, then 4, which does.
    let made = [
        (1, 400, 4_000),
        (2, 300, 2_000),
        (3, 350, 1_000),
        (4, 300, 100),
    ];
    let machine = Machine::new(made).await;
    let prefetch = machine.prefetch().max_bytes(1_000).concurrency(1);
    let report = adds_up(prefetch.start().unwrap().finish().await);
    assert_eq!((report.fetched, report.fetched_bytes), (3, 1_000));
    assert_eq!(report.over_budget, 1);
    assert!(machine.has(1) && machine.has(2) && !machine.has(3) && machine.has(4));
}

/// What fails costs no budget, and what turns out larger does.
#[tokio::test]
async fn the_budget_pays_for_what_was_fetched() {
    let made = [(1, 400, 4_000), (2, 400, 2_000), (3, 400, 10), (4, 300, 1)];
    let machine = Machine::new(made).await;
    machine.remote.remove(&key(1)).await.unwrap();
    machine.remote.remove(&key(2)).await.unwrap();
    machine.remote.put(&key(2), artifact(700, 1)).await.unwrap();
    let prefetch = machine.prefetch().max_bytes(1_000).concurrency(1);
    let report = adds_up(prefetch.start().unwrap().finish().await);
    assert_eq!(
        (report.missing, report.fetched, report.over_budget),
        (1, 2, 1)
    );
    assert_eq!(report.fetched_bytes, 1_000);
    assert!(machine.has(2) && machine.has(4));
}

#[tokio::test(start_paused = true)]
async fn the_bytes_of_a_second_are_bounded() {
    for concurrency in [1, 4] {
        let machine = Machine::new((0..50).map(|n| (n, 1_000, 1))).await;
        let begin = Instant::now();
        let prefetch = machine
            .prefetch()
            .bytes_per_second(5_000)
            .concurrency(concurrency);
        let running = prefetch.start().unwrap();
        for second in 1..=9 {
            tokio::time::sleep_until(begin + second * 1_000 * MS).await;
            let bytes = running.progress().fetched_bytes;
            let paid = u64::from(second) * 5_000;
            assert!(
                (paid - 4_000..=paid + 1_000).contains(&bytes),
                "{bytes} after {second} s"
            );
        }
        assert_eq!(running.finish().await.fetched, 50);
        // The last is not waited for.
        assert_eq!(begin.elapsed().as_secs(), 9);
    }
}

#[tokio::test]
async fn a_prefetch_that_is_dropped_asks_for_nothing_more_and_holds_up_nobody() {
    let machine = Machine::new((0..10).map(|n| (n, 10, 1))).await;
    machine.remote.set(GET, Fault::Gate);
    let prefetch = machine.prefetch().concurrency(2).start().unwrap();
    machine.asked_for(2).await;
    machine.remote.open(GET, 1);
    machine.asked_for(3).await;
    drop(prefetch);
    // On this runtime of one thread the task and its searches end in these turns.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }

    // What the searches waited for never comes. No user waits with them.
    machine.remote.set(GET, Fault::None);
    for n in 0..10 {
        assert!(machine.cache.get(&key(n)).await.is_some());
    }
    machine.cache.flush().await.unwrap();
    // One was fetched by the prefetch, two were given up, and nine are fetched for users.
    assert_eq!(machine.asked(), 3 + 9);
}

#[tokio::test]
async fn a_prefetch_that_is_cancelled_says_what_is_left() {
    let machine = Machine::new((0..10).map(|n| (n, 10, 1))).await;
    machine.remote.set(GET, Fault::Gate);
    let prefetch = machine.prefetch().concurrency(1).start().unwrap();
    machine.remote.open(GET, 3);
    machine.asked_for(4).await;
    assert_eq!(prefetch.progress().state, PrefetchState::Running);
    prefetch.cancel();
    let report = adds_up(prefetch.finish().await);
    assert_eq!(report.state, PrefetchState::Cancelled);
    assert_eq!((report.fetched, report.left), (3, 7));
}

#[tokio::test(start_paused = true)]
async fn no_key_is_asked_for_while_a_user_waits_for_a_search() {
    let machine = Machine::new((0..10).map(|n| (n, 10, 1))).await;
    machine.remote.set(GET, Fault::Gate);
    let (cache, begin) = (machine.cache.clone(), Instant::now());
    let user = tokio::spawn(async move { cache.get(&key(99)).await });
    machine.asked_for(1).await;

    let prefetch = machine.prefetch().start().unwrap();
    tokio::time::sleep(900 * MS).await;
    assert_eq!(machine.asked(), 1);
    machine.remote.set(GET, Fault::None);
    machine.remote.open(GET, 1);
    user.await.unwrap();
    assert_eq!(prefetch.finish().await.fetched, 10);
    assert!(begin.elapsed() < 1_000 * MS, "{:?}", begin.elapsed());
}

/// The bandwidth makes a key wait, and a user comes meanwhile.
#[tokio::test(start_paused = true)]
async fn a_key_that_waited_for_its_bandwidth_waits_for_users_too() {
    let machine = Machine::new((0..2).map(|n| (n, 1_000, 1))).await;
    let prefetch = machine.prefetch().concurrency(1).bytes_per_second(1_000);
    let prefetch = prefetch.start().unwrap();
    machine.asked_for(1).await;
    machine.remote.set(GET, Fault::Gate);
    let cache = machine.cache.clone();
    let user = tokio::spawn(async move { cache.get(&key(99)).await });
    machine.asked_for(2).await;
    tokio::time::sleep(1_500 * MS).await;
    assert_eq!(machine.asked(), 2);
    machine.remote.set(GET, Fault::None);
    machine.remote.open(GET, 1);
    user.await.unwrap();
    assert_eq!(prefetch.finish().await.fetched, 2);
}

/// A cache that users never leave alone is prefetched all the same, slowly.
#[tokio::test(start_paused = true)]
async fn a_search_that_does_not_end_is_waited_for_no_longer_than_was_set() {
    let machine = Machine::new((0..10).map(|n| (n, 10, 1))).await;
    machine.remote.set(GET, Fault::Gate);
    let cache = machine.cache.clone();
    let user = tokio::spawn(async move { cache.get(&key(99)).await });
    machine.asked_for(1).await;
    machine.remote.set(GET, Fault::None);

    let begin = Instant::now();
    let prefetch = machine.prefetch().concurrency(1).give_way(100 * MS);
    assert_eq!(prefetch.start().unwrap().finish().await.fetched, 10);
    // Before the local tiers are asked, and before the remote is.
    assert_eq!(begin.elapsed().as_millis() / 100, 2 * 10);
    user.abort();
}

/// All permits for searches that no user waits for are taken, and a user still has one.
#[tokio::test(start_paused = true)]
async fn a_prefetch_leaves_permits_to_users() {
    let made = (0..10).map(|n| (n, 10, 1));
    let machine = Machine::with(made, |cache| cache.max_searches(2)).await;
    machine.disk.put(&key(50), artifact(1, 1)).await.unwrap();
    machine.remote.set(GET, Fault::Gate);
    let prefetch = machine.prefetch().concurrency(64).give_way(Duration::ZERO);
    let prefetch = prefetch.start().unwrap();
    machine.asked_for(1).await;
    // The other keys come as far as they can.
    tokio::time::sleep(100 * MS).await;
    assert!(machine.cache.get(&key(50)).await.is_some());
    assert_eq!(machine.asked(), 1);
    machine.remote.set(GET, Fault::None);
    machine.remote.open(GET, 1);
    assert_eq!(prefetch.finish().await.fetched, 10);
}

#[tokio::test]
async fn a_key_that_a_user_asks_for_meanwhile_is_fetched_once_and_is_the_users() {
    let machine = Machine::new([(1, 10, 1)]).await;
    machine.remote.set(GET, Fault::Gate);
    let prefetch = machine.prefetch().start().unwrap();
    machine.asked_for(1).await;
    let wanted = key(1);
    let mut user = Box::pin(machine.cache.get(&wanted));
    assert!(futures::poll!(&mut user).is_pending());
    machine.remote.open(GET, 1);
    assert!(user.await.is_some());
    assert_eq!(prefetch.finish().await.fetched, 1);
    machine.cache.flush().await.unwrap();
    assert_eq!(machine.asked(), 1);
    // As with any other lookup.
    assert!(machine.memory.peek(&key(1)).is_some() && machine.has(1));
    assert_eq!(machine.cache.layered_metrics().lookups, 1);
}

#[tokio::test]
async fn a_key_that_fails_costs_no_other_key() {
    let machine = Machine::new((0..10).map(|n| (n, 10, 1))).await;
    machine
        .remote
        .set(GET, Fault::Sometimes(StoreErrorKind::Io, 2));
    let prefetch = machine.prefetch().concurrency(1);
    let report = adds_up(prefetch.start().unwrap().finish().await);
    assert_eq!(report.state, PrefetchState::Complete);
    assert_eq!((report.fetched, report.failed), (5, 5));

    machine.remote.set(GET, Fault::Panic);
    let report = machine.fetch().await;
    assert_eq!((report.already_there, report.failed), (5, 5));
    machine.remote.set(GET, Fault::Corrupt);
    assert_eq!(machine.fetch().await.failed, 5);
    // What cannot be written was not fetched.
    machine.remote.set(GET, Fault::None);
    machine.disk.set(
        StoreOperation::Put,
        Fault::Error(StoreErrorKind::StorageFull),
    );
    assert_eq!(machine.fetch().await.failed, 5);
    machine.disk.set(StoreOperation::Put, Fault::None);
    assert_eq!(machine.fetch().await.fetched, 5);
}

#[tokio::test]
async fn what_no_tier_has_is_missing_and_what_no_local_tier_takes_is_refused() {
    let machine = Machine::new((0..4).map(|n| (n, 10, 1))).await;
    machine.remote.remove(&key(0)).await.unwrap();
    let report = machine.fetch().await;
    assert_eq!((report.missing, report.fetched), (1, 3));

    let small = InMemoryPipelineCache::with_limits(100, 5);
    let untrusted = Arc::new(
        FaultyStore::over("untrusted", machine.remote.clone() as _)
            .network()
            .untrusted(),
    );
    let caches = [
        LayeredPipelineCache::builder()
            .tier(small)
            .shared_tier(machine.remote.clone() as _),
        LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .shared_tier(untrusted.clone() as _),
        LayeredPipelineCache::builder().shared_tier(machine.remote.clone() as _),
    ];
    for cache in caches {
        let cache = cache.build();
        let report = adds_up(cache.prefetch(&machine.run).start().unwrap().finish().await);
        assert_eq!((report.missing, report.refused), (1, 3), "{cache}");
    }
}

/// The tier is asked again now and then, and no key is given up for it.
#[tokio::test(start_paused = true)]
async fn an_open_circuit_breaker_is_waited_for() {
    let machine = Machine::new((0..100).map(|n| (n, 10, 1))).await;
    machine
        .remote
        .set(GET, Fault::Error(StoreErrorKind::BreakerOpen));
    let prefetch = machine.prefetch().start().unwrap();
    tokio::time::sleep(20_000 * MS).await;
    let report = adds_up(prefetch.progress());
    assert_eq!((report.state, report.left), (PrefetchState::Running, 100));
    assert!(machine.asked() <= 4 * 10, "{}", machine.asked());
    machine.remote.set(GET, Fault::None);
    let report = prefetch.finish().await;
    assert_eq!(
        (report.state, report.fetched),
        (PrefetchState::Complete, 100)
    );
}

#[tokio::test(start_paused = true)]
async fn a_circuit_breaker_that_stays_open_ends_the_prefetch() {
    let machine = Machine::new((0..100).map(|n| (n, 10, 1))).await;
    machine
        .remote
        .set(GET, Fault::Error(StoreErrorKind::BreakerOpen));
    let begin = Instant::now();
    let report = machine.fetch().await;
    assert_eq!((report.state, report.left), (PrefetchState::Outage, 100));
    assert!(
        (60..70).contains(&begin.elapsed().as_secs()),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_prefetch_is_in_no_recorded_run() {
    let made = (0..10).map(|n| (n, 10, 1));
    let machine = Machine::with(made, |cache| cache.record_run()).await;
    assert_eq!(machine.fetch().await.fetched, 10);
    let run = machine.cache.recorded_run().await.unwrap();
    assert!(run.keys().is_empty());
}

#[test]
fn outside_of_a_runtime_a_prefetch_is_an_error() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .build();
    let error = cache.prefetch(&RecordedRun::default()).start().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NoRuntime);
}

/// Many keys that are there leave the worker to others.
#[tokio::test]
async fn a_long_run_lets_others_run() {
    let memory = InMemoryPipelineCache::with_limits(200_000, 1 << 30);
    let cache = LayeredPipelineCache::builder()
        .tier(memory)
        .record_run()
        .build();
    for n in 0..20_000 {
        cache.put(&key(n), Artifact::new("x")).await.unwrap();
        cache.get(&key(n)).await.unwrap();
    }
    let run = cache.recorded_run().await.unwrap();
    let prefetch = cache.prefetch(&run).start().unwrap();
    let (mut longest, mut decided) = (0, 0);
    while prefetch.progress().state == PrefetchState::Running {
        tokio::task::yield_now().await;
        let now = prefetch.progress().already_there;
        longest = longest.max(now - decided);
        decided = now;
    }
    assert_eq!(prefetch.finish().await.already_there, 20_000);
    assert!(longest < 2_000, "{longest} keys without a turn for others");
}

/// The aliases of sources, on a machine with a store of its own over that of the fleet.
fn with_aliases(
    remote: &Arc<FaultyStore>,
    local: &Arc<FaultyStore>,
    cache: LayeredPipelineCacheBuilder,
) -> LayeredPipelineCacheBuilder {
    let aliases = SourceAliases::new()
        .kept_in(local.clone())
        .kept_in(remote.clone());
    cache.source_aliases(aliases)
}

#[tokio::test]
async fn a_second_machine_parses_nothing_that_the_first_has_parsed() {
    let remote_aliases = Arc::new(FaultyStore::new("remote aliases").network());
    let remote = Arc::new(FaultyStore::new("remote").network());
    let (scope, parses) = (scope(), Arc::new(AtomicUsize::new(0)));
    let compile = async |cache: &LayeredPipelineCache, tiers: TierSelection| {
        let counter = Arc::clone(&parses);
        let request = cache
            .compile(&scope)
            .source(FRONT_END, "a b", move |source: &Bytes| {
                counter.fetch_add(1, Ordering::SeqCst);
                let text = String::from_utf8_lossy(source);
                Ok::<_, SyntaxError>(Words(text.split(' ').map(str::to_owned).collect()))
            });
        let request = request.tiers(tiers);
        let compiled = request.run(|_input, _cx| Ok(Artifact::new("code"))).await;
        compiled.unwrap()
    };
    let first = LayeredPipelineCache::builder().shared_tier(remote.clone() as _);
    let local = Arc::new(FaultyStore::new("local aliases"));
    let first = with_aliases(&remote_aliases, &local, first)
        .record_run()
        .build();
    compile(&first, TierSelection::All).await;
    first.flush().await.unwrap();
    let run = first.recorded_run().await.unwrap();
    assert_eq!(parses.load(Ordering::SeqCst), 1);

    let local = Arc::new(FaultyStore::new("local aliases"));
    let asked = remote_aliases.calls(GET);
    let machine = Machine::over(remote, run, |cache| {
        with_aliases(&remote_aliases, &local, cache)
    });
    let report = machine.fetch().await;
    assert_eq!((report.keys, report.fetched), (2, 2));
    assert_eq!(report.fetched_bytes, 32 + 4);
    let again = machine.fetch().await;
    assert_eq!(
        (again.already_there, remote_aliases.calls(GET)),
        (2, asked + 1)
    );

    // The network is gone.
    machine.remote.set_all(Fault::Hang);
    remote_aliases.set_all(Fault::Hang);
    let compiled = compile(&machine.cache, TierSelection::Local).await;
    assert_eq!(compiled.tier_name(), Some("disk"));
    assert_eq!(parses.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_trouble_of_a_store_of_aliases_costs_its_aliases() {
    let remote_aliases = Arc::new(FaultyStore::new("remote aliases").network());
    let local = Arc::new(FaultyStore::new("local aliases"));
    let remote = Arc::new(FaultyStore::new("remote").network());
    let first = LayeredPipelineCache::builder().shared_tier(remote.clone() as _);
    let aliases = SourceAliases::new().kept_in(remote_aliases.clone());
    let first = first.source_aliases(aliases).record_run().build();
    let scope = scope();
    let request = first.compile(&scope).source(FRONT_END, "a", |_: &Bytes| {
        Ok::<_, SyntaxError>(Words(vec!["a".to_owned()]))
    });
    let compiled = request.run_async(|_input, _cx| async { Ok(Artifact::new("code")) });
    compiled.await.unwrap();
    first.flush().await.unwrap();
    let run = first.recorded_run().await.unwrap();

    // Not while a thread of the pool parses: the runtime would take itself for idle.
    tokio::time::pause();
    for fault in [
        Fault::Panic,
        Fault::Hang,
        Fault::Error(StoreErrorKind::Io),
        Fault::Corrupt,
    ] {
        remote_aliases.set(GET, fault);
        let machine = Machine::over(remote.clone(), run.clone(), |cache| {
            with_aliases(&remote_aliases, &local, cache)
        });
        let report = machine.fetch().await;
        assert_eq!((report.failed, report.fetched), (1, 1), "{fault:?}");
    }
    // What is there and no alias is not copied.
    remote_aliases.set(GET, Fault::Lie);
    let machine = Machine::over(remote, run, |cache| {
        with_aliases(&remote_aliases, &local, cache)
    });
    let report = machine.fetch().await;
    assert_eq!((report.refused, report.fetched), (1, 1));
    assert_eq!(local.calls(StoreOperation::Put), 0);
}
