//! No reader ever sees a part of an entry, whoever writes, removes or leaves halfway.

use crate::support::{artifact, entry, folder, key, names, open, temporaries};
use futures::future::{join_all, poll_fn};
use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore, StoreError, StoreErrorKind};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::Barrier;

const LARGE: usize = 300_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_gets_and_puts_of_one_key() {
    let folder = folder();
    let cache = open(folder.path()).await;
    let good = artifact(LARGE);
    let start = Arc::new(Barrier::new(1000));
    let tasks = (0..1000).map(|number| {
        let (cache, good, start) = (cache.clone(), good.clone(), Arc::clone(&start));
        tokio::spawn(async move {
            start.wait().await;
            if number % 2 == 0 {
                cache.put(&key(1), good).await.unwrap();
            } else if let Some(got) = cache.get(&key(1)).await.unwrap() {
                assert_eq!(got.payload(), good.payload());
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    let metrics = cache.metrics();
    assert_eq!(
        (metrics.puts, metrics.lookups, metrics.corrupt),
        (500, 500, 0)
    );
    cache.close(Duration::from_secs(60)).await.unwrap();
    drop(cache);
    assert_eq!(temporaries(folder.path()), [""; 0]);
}

/// Two caches write artifacts of very different sizes under one key, as no user may, so that a
/// mixture of the two would show.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gets_race_puts_and_removals() {
    let folder = folder();
    let caches = [open(folder.path()).await, open(folder.path()).await];
    let artifacts = [artifact(10), artifact(LARGE)];
    let start = Arc::new(Barrier::new(6));
    let mut tasks = Vec::new();
    for role in 0..6 {
        let cache = caches[role % 2].clone();
        let (artifacts, start) = (artifacts.clone(), Arc::clone(&start));
        tasks.push(tokio::spawn(async move {
            start.wait().await;
            let mut hits = 0;
            for _ in 0..150 {
                match role {
                    0 | 1 => cache.put(&key(1), artifacts[role].clone()).await.unwrap(),
                    2 => drop(cache.remove(&key(1)).await.unwrap()),
                    _ => {
                        if let Some(got) = cache.get(&key(1)).await.unwrap() {
                            assert!(artifacts.iter().any(|a| a.payload() == got.payload()));
                            hits += 1;
                        }
                    }
                }
            }
            hits
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    for cache in &caches {
        assert_eq!(cache.metrics().corrupt, 0);
    }
}

/// Polls a future so many times and drops it.
async fn poll_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = times;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // The last poll is not followed by a wait: that is where the caller leaves.
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_that_is_dropped_at_any_poll() {
    for times in 0..6 {
        let folder = folder();
        let cache = DiskCache::builder()
            .root(folder.path())
            .max_concurrent_operations(1)
            .open()
            .await
            .unwrap();
        // Others hold the only permit in turn, so that the put has something to wait for.
        let busy = (10..14).map(|other| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.put(&key(other), artifact(LARGE)).await })
        });
        let busy: Vec<_> = busy.collect();
        let finished = poll_times(cache.put(&key(1), artifact(LARGE)), times).await;
        for put in busy {
            put.await.unwrap().unwrap();
        }
        cache.close(Duration::from_secs(60)).await.unwrap();

        let stored = cache.get(&key(1)).await.unwrap();
        assert!(finished.is_none() || stored.is_some());
        assert!(
            stored.is_none_or(|got| got == artifact(LARGE)),
            "{times} polls"
        );
        let metrics = cache.metrics();
        let whole = names(folder.path())
            .iter()
            .filter(|name| name.ends_with(".bin"))
            .count();
        assert_eq!(
            metrics.puts, whole as u64,
            "{times} polls: what is there is counted"
        );
        assert!(cache.durability_report().durable);
        assert_eq!(temporaries(folder.path()), [""; 0], "{times} polls");
        drop(cache);
        open(folder.path()).await;
        assert_eq!(temporaries(folder.path()), [""; 0], "{times} polls");
    }
}

/// As above, and the put has got further before its caller leaves.
#[tokio::test]
async fn a_put_that_is_dropped_at_any_time() {
    for turns in 0..400 {
        let folder = folder();
        let cache = open(folder.path()).await;
        {
            let key = key(1);
            let mut put = pin!(cache.put(&key, artifact(100)));
            let _ = futures::poll!(&mut put);
            for _ in 0..turns * 4 {
                tokio::task::yield_now().await;
            }
        }
        cache.close(Duration::from_secs(60)).await.unwrap();
        let stored = cache.get(&key(1)).await.unwrap();
        assert_eq!(
            cache.metrics().puts,
            u64::from(stored.is_some()),
            "{turns} turns"
        );
        assert!(cache.durability_report().durable);
        assert_eq!(temporaries(folder.path()), [""; 0], "{turns} turns");
    }
}

/// The one thing that can stop a put halfway, short of the process's end.
#[test]
fn a_put_that_the_runtimes_shutdown_cuts_short() {
    for turns in (0..17).map(|power| 1 << power) {
        let folder = folder();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let cache = open(folder.path()).await;
            tokio::spawn(async move { cache.put(&key(1), artifact(LARGE)).await });
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        });
        drop(runtime);

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let cache = open(folder.path()).await;
            assert_eq!(temporaries(folder.path()), [""; 0], "{turns} turns");
            let stored = cache.get(&key(1)).await.unwrap();
            assert!(
                stored.is_none_or(|got| got == artifact(LARGE)),
                "{turns} turns"
            );
            assert_eq!(cache.metrics().corrupt, 0, "{turns} turns");
        });
    }
}

#[tokio::test]
async fn an_artifact_over_the_limit_is_refused() {
    let folder = folder();
    let cache = DiskCache::builder()
        .root(folder.path())
        .max_artifact_bytes(1000)
        .open()
        .await
        .unwrap();
    cache.put(&key(1), artifact(1000)).await.unwrap();
    let error = cache.put(&key(2), artifact(1001)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::TooLarge);
    assert!(cache.get(&key(1)).await.unwrap().is_some());
    assert!(!entry(folder.path(), &key(2)).exists());
    let metrics = cache.metrics();
    assert_eq!(
        (metrics.puts, metrics.rejected_puts, metrics.put_errors),
        (1, 1, 0)
    );
}

/// Every operation is put off while the blocking pool is busy: none is done on the worker instead,
/// but the reading of what is at hand (see `disk_at_hand.rs`).
#[test]
fn no_operation_works_on_a_runtime_worker() {
    let folder = folder();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let cache = open(folder.path()).await;
        // More than is read on a worker, be it at hand.
        cache.put(&key(1), artifact(2 << 20)).await.unwrap();

        let (release, gate) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let other = folder.path().join("other");
        let mut operations = [
            task(&cache, async |cache| cache.get(&key(1)).await.map(drop)),
            task(&cache, async |cache| cache.put(&key(2), artifact(10)).await),
            task(&cache, async |cache| {
                cache.contains(&key(1)).await.map(drop)
            }),
            task(&cache, async |cache| cache.flush().await),
            task(&cache, async |cache| cache.remove(&key(3)).await.map(drop)),
        ];
        let opening = tokio::spawn(DiskCache::new(other.clone()));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(operations.iter().all(|operation| !operation.is_finished()));
        assert!(!opening.is_finished() && !other.exists());

        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        for operation in &mut operations {
            operation.await.unwrap().unwrap();
        }
        opening.await.unwrap().unwrap();
    });
}

fn task<F>(cache: &DiskCache, operation: F) -> tokio::task::JoinHandle<Result<(), StoreError>>
where
    F: AsyncFnOnce(DiskCache) -> Result<(), StoreError> + 'static,
{
    let cache = cache.clone();
    tokio::task::spawn_local(operation(cache))
}

#[tokio::test]
async fn an_empty_artifact_is_an_artifact() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), Artifact::new("")).await.unwrap();
    assert!(cache.contains(&key(1)).await.unwrap());
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(Artifact::new("")));
}
