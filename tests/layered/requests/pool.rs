//! Compiles run in a bounded pool beside the runtime, interactive before background.

use super::support::{
    FRONT_END, Gate, MS, SyntaxError, Words, key, memory, scope, stays_pending, until,
};
use bytes::Bytes;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileContext, CompileError, CompileSource, DiskCache, InMemoryPipelineCache,
    LayeredPipelineCache, LookupPriority, PipelineCacheStore as _, PipelineFingerprint,
    StoreOperation,
};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn numbered(number: u32) -> PipelineFingerprint {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    PipelineFingerprint::from_bytes(bytes)
}

/// Starts a request that notes its name when it is compiled.
fn start(
    cache: &LayeredPipelineCache,
    number: u32,
    priority: LookupPriority,
    order: &Arc<Mutex<Vec<u32>>>,
) -> tokio::task::JoinHandle<Duration> {
    let (cache, order) = (cache.clone(), Arc::clone(order));
    tokio::spawn(async move {
        let scope = scope();
        let request = cache.compile(&scope).key(numbered(number));
        let compiled = request.priority(priority).run(move |(), _| {
            order.lock().unwrap().push(number);
            Ok::<_, Infallible>(Artifact::new("code"))
        });
        compiled.await.unwrap().times.queue
    })
}

/// A compile that holds the one place until the gate is opened.
async fn hold(cache: &LayeredPipelineCache, gate: &Gate) -> tokio::task::JoinHandle<()> {
    let (cache, at) = (cache.clone(), gate.clone());
    let held = tokio::spawn(async move {
        let scope = scope();
        let request = cache.compile(&scope).key(key(200));
        let compiled = request.run(move |(), _| {
            at.wait();
            Ok::<_, Infallible>(Artifact::new("code"))
        });
        compiled.await.unwrap();
    });
    gate.until_arrived(1).await;
    held
}

/// A prefetch of a thousand programs is queued, and then a user asks: the user is next.
#[tokio::test]
async fn an_interactive_compile_does_not_queue_behind_a_prefetch() {
    let (cache, gate, order) = (memory(), Gate::default(), Arc::default());
    let held = hold(&cache, &gate).await;
    let mut requests: Vec<_> = (0..1_000)
        .map(|number| start(&cache, number, LookupPriority::Background, &order))
        .collect();
    until_queued(&cache, 1_000).await;
    requests.push(start(&cache, 5_000, LookupPriority::Interactive, &order));
    until_queued(&cache, 1_001).await;
    // Somebody joins the last of the prefetch: it moves up, behind the user.
    requests.push(start(&cache, 999, LookupPriority::Interactive, &order));
    let joins = || cache.layered_metrics().joins == 1;
    until(joins).await;
    tokio::task::yield_now().await;
    gate.open(1);
    held.await.unwrap();
    for request in requests {
        request.await.unwrap();
    }
    let order = order.lock().unwrap();
    assert_eq!(order[..3], [5_000, 999, 0]);
    assert_eq!(order.len(), 1_001);
}

async fn until_queued(cache: &LayeredPipelineCache, queued: u64) {
    until(|| cache.layered_metrics().queued_compiles >= queued).await;
}

#[tokio::test]
async fn a_full_queue_is_told_in_band_to_all_who_wait_for_the_compile() {
    let slow = Arc::new(FaultyStore::new("slow"));
    let cache = LayeredPipelineCache::builder()
        .shared_tier(Arc::<FaultyStore>::clone(&slow))
        .compile_places(1)
        .max_queued_compiles(1)
        .build();
    let (gate, order) = (Gate::default(), Arc::default());
    let held = hold(&cache, &gate).await;
    let queued = start(&cache, 1, LookupPriority::Background, &order);
    until_queued(&cache, 1).await;
    let scope = scope();
    let refused = || {
        let request = cache.compile(&scope).key(numbered(2));
        let request = request.priority(LookupPriority::Background);
        request.run(|(), _| Ok::<_, Infallible>(Artifact::new("code")))
    };
    // The second comes while the first is searched for.
    slow.set(StoreOperation::Get, Fault::Gate);
    let (mut first, mut second) = (Box::pin(refused()), Box::pin(refused()));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    slow.set(StoreOperation::Get, Fault::None);
    slow.open(StoreOperation::Get, 1);
    assert_eq!(first.await.unwrap_err(), CompileError::Overloaded);
    assert_eq!(second.await.unwrap_err(), CompileError::Overloaded);
    assert_eq!(cache.layered_metrics().overloaded, 1);
    // The other priority has a queue of its own.
    let interactive = start(&cache, 3, LookupPriority::Interactive, &order);
    until_queued(&cache, 2).await;
    gate.open(1);
    held.await.unwrap();
    queued.await.unwrap();
    interactive.await.unwrap();
    refused().await.unwrap();
}

#[tokio::test]
async fn no_more_compiles_run_at_a_time_than_there_are_places() {
    let cache = LayeredPipelineCache::builder().compile_places(3).build();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Gate::default();
    let requests = (0..30).map(|number| {
        let (cache, gate) = (cache.clone(), gate.clone());
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        tokio::spawn(async move {
            let scope = scope();
            let count = move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.wait();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Artifact::new("code"))
            };
            let request = cache.compile(&scope).key(numbered(number));
            // Both forms, under the same bound.
            match number % 2 {
                0 => request.run(move |(), _| count()).await.unwrap(),
                _ => {
                    let count = || tokio::task::spawn_blocking(count);
                    let compile = |(), _| async { count().await.unwrap() };
                    request.run_async(compile).await.unwrap()
                }
            }
        })
    });
    let requests: Vec<_> = requests.collect();
    gate.until_arrived(3).await;
    gate.open(30);
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

/// The runtime has one thread for blocking calls, all places of the pool are held, for compiles and for
/// keys, and hundreds of compiles wait: files are read all the same.
#[test]
fn disk_hits_do_not_queue_behind_compiles() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskCache::new(folder.path()).await.unwrap();
        let artifact = Artifact::new(vec![7; 3 << 20]);
        disk.put(&key(1), artifact.clone()).await.unwrap();
        let cache = LayeredPipelineCache::builder()
            .tier(disk)
            .compile_places(1)
            .build();
        let (gate, order) = (Gate::default(), Arc::default());
        let held = hold(&cache, &gate).await;
        let requests: Vec<_> = (0..600)
            .map(|number| start(&cache, number, LookupPriority::Interactive, &order))
            .collect();
        until_queued(&cache, 600).await;
        let parses = ["one", "two"].map(|source| {
            let (cache, gate) = (cache.clone(), gate.clone());
            tokio::spawn(async move {
                let parse = move |_: &Bytes| {
                    gate.wait();
                    Err::<Words, _>(SyntaxError("held".to_owned()))
                };
                let scope = scope();
                let request = cache.compile(&scope).source(FRONT_END, source, parse);
                request.run(|_, _| unreachable!()).await.unwrap_err();
            })
        });
        gate.until_arrived(3).await;
        // None of the compiles and parses can end before this.
        let scope = scope();
        let request = cache.compile(&scope).key(key(1));
        let never = |(), _: &_| Err::<Artifact, _>("compiled");
        assert_eq!(request.run(never).await.unwrap().artifact, artifact);
        assert_eq!(cache.get(&key(1)).await, Some(artifact));
        gate.open(3);
        held.await.unwrap();
        for parse in parses {
            parse.await.unwrap();
        }
        for request in requests {
            request.await.unwrap();
        }
    });
}

/// Measures: run it alone, in a release build, on a machine that does nothing else. That a hit waits for
/// no place and no thread of the compiles, `disk_hits_do_not_queue_behind_compiles` holds.
#[test]
#[ignore = "a measurement"]
fn compiles_leave_disk_hits_under_three_times_their_idle_time() {
    if cfg!(debug_assertions) {
        println!("skipped: measure a release build");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let disk = DiskCache::new(folder.path()).await.unwrap();
        let artifact = Artifact::new(vec![7; 3 << 20]);
        disk.put(&key(1), artifact).await.unwrap();
        let cache = LayeredPipelineCache::builder()
            .tier(disk)
            .compile_places(1)
            .build();
        let median = async || {
            let mut times = Vec::new();
            for _ in 0..100 {
                let start = Instant::now();
                assert!(cache.get(&key(1)).await.is_some());
                times.push(start.elapsed());
            }
            times.sort();
            times[50]
        };
        let idle = median().await;
        for number in 0..600 {
            let cache = cache.clone();
            tokio::spawn(async move {
                let scope = scope();
                let request = cache.compile(&scope).key(numbered(number));
                let compile = |(), _: &_| {
                    let end = Instant::now() + 20 * MS;
                    while Instant::now() < end {
                        std::hint::spin_loop();
                    }
                    Ok::<_, Infallible>(Artifact::new("code"))
                };
                request.run(compile).await.unwrap();
            });
        }
        until_queued(&cache, 500).await;
        let loaded = median().await;
        println!("idle {idle:?}, beside 600 compiles {loaded:?}");
        assert!(cache.layered_metrics().queued_compiles > 0);
        assert!(
            loaded < 3 * idle,
            "{loaded:?} beside compiles, {idle:?} idle"
        );
    });
}

/// Both come before the search has begun. It has the priority of the user all the same.
#[tokio::test(start_paused = true)]
async fn a_search_that_a_user_joins_before_it_begins_does_not_wait_for_background_searches() {
    use pipeline_cache::testing::{Fault, FaultyStore};
    use pipeline_cache::{LookupOptions, StoreOperation};

    let disk = Arc::new(FaultyStore::new("disk"));
    disk.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&disk))
        .max_searches(1)
        .build();
    let background = LookupOptions::new().priority(LookupPriority::Background);
    let prefetched = key(1);
    let mut prefetch = Box::pin(cache.lookup(&prefetched, &background));
    assert!(futures::poll!(&mut prefetch).is_pending());
    disk.called(StoreOperation::Get, 1).await;
    let scope = scope();
    let request = |priority| {
        let request = cache.compile(&scope).key(key(2)).priority(priority);
        request.run_async(|(), _| async { Ok::<_, Infallible>(Artifact::new("code")) })
    };
    let mut first = Box::pin(request(LookupPriority::Background));
    let mut user = Box::pin(request(LookupPriority::Interactive));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut user).is_pending());
    let searches = disk.called(StoreOperation::Get, 2);
    tokio::time::timeout(Duration::from_secs(1), searches)
        .await
        .unwrap();
    disk.open(StoreOperation::Get, 10);
    assert_eq!(user.await.unwrap().source, CompileSource::Joined);
}

/// The network answers while a compile is on a thread. Nobody compiles the key a second time beside
/// it, not even after the artifact was removed.
#[tokio::test]
async fn a_key_is_not_compiled_twice_at_once_though_the_first_compile_was_outrun() {
    use pipeline_cache::StoreOperation;
    use pipeline_cache::testing::{Fault, FaultyStore};

    let remote = Arc::new(FaultyStore::new("remote").network());
    remote.put(&key(1), Artifact::new("stored")).await.unwrap();
    remote.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&remote))
        .compile_places(2)
        .build();
    let (scope, gate) = (scope(), Gate::default());
    let compile = |gate: Gate| {
        move |(), _: &_| {
            gate.wait();
            Ok::<_, Infallible>(Artifact::new("compiled"))
        }
    };
    let raced = cache.compile(&scope).key(key(1)).race(Duration::ZERO);
    let mut raced = Box::pin(raced.run(compile(gate.clone())));
    while gate.arrived() == 0 {
        assert!(futures::poll!(&mut raced).is_pending());
        tokio::task::yield_now().await;
    }
    remote.open(StoreOperation::Get, 1);
    assert!(matches!(
        raced.await.unwrap().source,
        CompileSource::Cache(_)
    ));
    cache.flush().await.unwrap();
    remote.set(StoreOperation::Get, Fault::None);
    assert!(cache.remove(&key(1)).await.unwrap());

    let again = cache.compile(&scope).key(key(1));
    let mut again = Box::pin(again.run(compile(gate.clone())));
    stays_pending(&mut again).await;
    assert_eq!(gate.arrived(), 1, "one compile at a time");
    gate.open(2);
    assert_eq!(again.await.unwrap().artifact, Artifact::new("compiled"));
    assert_eq!(gate.arrived(), 2);
}

/// The compile is on a thread, which outlives its runtime. The key waits for it on the next runtime, and
/// no place is lost.
#[test]
fn a_runtime_that_is_shut_down_under_a_compile_leaves_the_key_and_the_pool_in_order() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let (cache, gate) = (memory(), Gate::default());
    let compile = |gate: Gate| {
        move |(), _: &_| {
            gate.wait();
            Ok::<_, Infallible>(Artifact::new("code"))
        }
    };
    let first = runtime();
    first.block_on(async {
        let scope = scope();
        let request = cache.compile(&scope).key(key(1)).deadline(MS);
        let told = request.run(compile(gate.clone())).await;
        assert!(matches!(told, Err(CompileError::DeadlineExceeded(_))));
        gate.until_arrived(1).await;
    });
    first.shutdown_background();
    runtime().block_on(async {
        let scope = scope();
        let request = cache.compile(&scope).key(key(1));
        let mut next = Box::pin(request.run(compile(gate.clone())));
        stays_pending(&mut next).await;
        assert_eq!(gate.arrived(), 1, "one compile at a time");
        gate.open(2);
        assert_eq!(next.await.unwrap().source, CompileSource::Compiled);
        assert_eq!(gate.arrived(), 2);
        until(|| cache.layered_metrics().running_compiles == 0).await;
    });
}

/// Recurses with frames of a kilobyte at least.
fn recurse(depth: usize) -> u8 {
    let frame = std::hint::black_box([1; 1024]);
    match depth {
        0 => frame[0],
        _ => recurse(depth - 1) | std::hint::black_box(&frame)[depth % 1024],
    }
}

#[tokio::test]
async fn parses_and_compiles_have_a_deep_stack() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .compile_stack_size(96 << 20)
        .build();
    let scope = scope();
    // In a debug build a frame is larger, and sometimes twice as large.
    let parse = |text: &Bytes| {
        recurse(24_000);
        Ok::<_, SyntaxError>(Words(vec![String::from_utf8_lossy(text).into_owned()]))
    };
    let request = cache.compile(&scope).source(FRONT_END, "one", parse);
    let compiled = request.run(|_, _| {
        recurse(24_000);
        Ok(Artifact::new("code"))
    });
    assert_eq!(compiled.await.unwrap().source, CompileSource::Compiled);
}

#[tokio::test]
async fn without_a_thread_a_compile_fails_and_a_hit_is_a_hit() {
    let memory = InMemoryPipelineCache::new();
    memory
        .put(&numbered(1), Artifact::new("code"))
        .await
        .unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(memory)
        // No address space is so large.
        .compile_stack_size(1 << 60)
        .build();
    let scope = scope();
    let request = async |number| {
        let request = cache.compile(&scope).key(numbered(number));
        let compile = |(), _: &CompileContext| Ok::<_, Infallible>(Artifact::new("code"));
        request.run(compile).await
    };
    let error = request(2).await.unwrap_err();
    assert!(matches!(error, CompileError::Panicked(_)), "{error:?}");
    assert!(error.to_string().contains("no thread"), "{error}");
    assert!(request(1).await.is_ok());
}
