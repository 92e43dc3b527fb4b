//! Callers come and go: one compile of a key runs, is finished and is kept, and stalls nobody.

use super::support::{Gate, MS, key, memory, scope, until};
use pipeline_cache::layered::{Abandoned, CompileContext};
use pipeline_cache::{Artifact, CompileError, CompileSource};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Clients that time out and retry, as many do: one compile runs, the last client has its artifact, and
/// so has whoever comes later.
#[tokio::test]
async fn clients_that_time_out_and_retry_share_one_compile_that_is_kept() {
    let (cache, scope, gate) = (memory(), scope(), Gate::default());
    let compile = || {
        let gate = gate.clone();
        move |(), _: &CompileContext| {
            gate.wait();
            Ok::<_, Infallible>(Artifact::new("code"))
        }
    };
    for client in 0..20 {
        let request = cache.compile(&scope).key(key(1)).deadline(10 * MS);
        let told = request.run(compile()).await.unwrap_err();
        assert_eq!(
            told,
            CompileError::DeadlineExceeded(10 * MS),
            "client {client}"
        );
        gate.until_arrived(1).await;
    }
    let metrics = cache.layered_metrics();
    assert_eq!((metrics.compiles, metrics.running_compiles), (1, 1));
    assert_eq!(metrics.abandoned_compiles, 1);
    gate.open(1);
    // Nobody waits, and it is kept.
    until(|| cache.layered_metrics().finished_after_abandonment == 1).await;
    cache.flush().await.unwrap();
    let compiled = cache
        .compile(&scope)
        .key(key(1))
        .run(compile())
        .await
        .unwrap();
    assert!(matches!(compiled.source, CompileSource::Cache(_)));
    let metrics = cache.layered_metrics();
    assert_eq!((metrics.compiles, metrics.running_compiles), (1, 0));
    assert_eq!(metrics.abandoned_compiles, 0);
    assert_eq!(gate.arrived(), 1);
}

#[tokio::test]
async fn whoever_comes_joins_a_compile_that_nobody_waits_for() {
    let (cache, scope, gate) = (memory(), scope(), Gate::default());
    let seen = Arc::new(AtomicUsize::new(0));
    let compile = |gate: Gate, seen: Arc<AtomicUsize>| {
        move |(), cx: &CompileContext| {
            assert!(cx.is_wanted());
            seen.fetch_add(1, Ordering::SeqCst);
            cx.block_on(cx.abandoned());
            gate.wait();
            assert!(cx.is_wanted(), "somebody has come");
            Ok::<_, Infallible>(Artifact::new("code"))
        }
    };
    let request = cache.compile(&scope).key(key(1));
    let mut first = Box::pin(request.run(compile(gate.clone(), Arc::clone(&seen))));
    while seen.load(Ordering::SeqCst) == 0 {
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    drop(first);
    gate.until_arrived(1).await;
    let request = cache.compile(&scope).key(key(1));
    let mut joined = Box::pin(request.run(|(), _| Err("a second compile")));
    assert!(futures::poll!(&mut joined).is_pending());
    gate.open(1);
    assert_eq!(joined.await.unwrap().source, CompileSource::Joined);
}

/// A function on a thread cannot be stopped. It is told, and its key is not compiled beside it.
#[tokio::test]
async fn a_cancelled_compile_on_a_thread_is_told_and_may_stop() {
    let (cache, scope) = (memory(), scope());
    let request = cache.compile(&scope).key(key(1)).deadline(10 * MS);
    let request = request.when_abandoned(Abandoned::Cancel);
    let stops = |(), cx: &CompileContext| {
        while cx.is_wanted() {
            std::thread::sleep(Duration::from_micros(100));
        }
        Err::<Artifact, _>("stopped")
    };
    request.run(stops).await.unwrap_err();
    until(|| cache.layered_metrics().running_compiles == 0).await;
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run(|(), _| Ok::<_, &str>(Artifact::new("code")));
    assert!(compiled.await.is_ok());
}

/// A compile that waits for its place and is not to be kept leaves the queue with its last caller.
#[tokio::test]
async fn a_cancelled_compile_in_the_queue_is_never_begun() {
    let (cache, scope, gate) = (memory(), scope(), Gate::default());
    let at = gate.clone();
    let request = cache.compile(&scope).key(key(1));
    let mut held = Box::pin(request.run(move |(), _| {
        at.wait();
        Ok::<_, Infallible>(Artifact::new("code"))
    }));
    assert!(futures::poll!(&mut held).is_pending());
    gate.until_arrived(1).await;
    let request = cache.compile(&scope).key(key(2));
    let request = request.when_abandoned(Abandoned::Cancel);
    let mut queued = Box::pin(request.run(|(), _| Ok::<_, Infallible>(Artifact::new("code"))));
    while cache.layered_metrics().queued_compiles == 0 {
        assert!(futures::poll!(&mut queued).is_pending());
        tokio::task::yield_now().await;
    }
    drop(queued);
    until(|| cache.layered_metrics().queued_compiles == 0).await;
    gate.open(1);
    held.await.unwrap();
    assert_eq!(cache.layered_metrics().compiles, 1);
}
