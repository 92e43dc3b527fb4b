//! A close and the compiles under way.

use super::support::{Gate, MS, key, memory, scope, until};
use futures::poll;
use pipeline_cache::layered::{Abandoned, CompileContext};
use pipeline_cache::{Artifact, LayeredPipelineCache};
use std::convert::Infallible;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(600);

fn held_at(
    gate: &Gate,
) -> impl FnOnce((), &CompileContext) -> Result<Artifact, Infallible> + Send + 'static + use<> {
    let gate = gate.clone();
    move |(), _| {
        gate.wait();
        Ok(Artifact::new("code"))
    }
}

/// Begins a compile that is held at the gate, and whose caller leaves at its deadline. The pool has one
/// place: only the first of several arrives.
async fn abandon(cache: &LayeredPipelineCache, number: u8, gate: &Gate) {
    let scope = scope();
    let request = cache.compile(&scope).key(key(number)).deadline(10 * MS);
    request.run(held_at(gate)).await.unwrap_err();
    gate.until_arrived(1).await;
}

/// Its caller's deadline is over. Its artifact is to be stored all the same.
#[tokio::test]
async fn a_close_waits_for_a_compile_that_nobody_waits_for() {
    let (cache, gate) = (memory(), Gate::default());
    abandon(&cache, 1, &gate).await;
    let mut close = Box::pin(cache.close(LONG));
    assert!(poll!(&mut close).is_pending(), "the compile is under way");
    // A dropped close may be called again.
    drop(close);
    let mut close = Box::pin(cache.close(LONG));
    assert!(poll!(&mut close).is_pending());
    gate.open(1);
    let report = close.await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(cache.get(&key(1)).await, Some(Artifact::new("code")));
}

#[tokio::test]
async fn a_close_says_which_compiles_had_not_ended() {
    let (cache, gate) = (memory(), Gate::default());
    abandon(&cache, 1, &gate).await;
    let report = cache.close(20 * MS).await;
    assert_eq!(report.unfinished_compiles, 1);
    assert!(!report.is_clean());
    // It goes on, and finds the tiers closed.
    gate.open(1);
    until(|| cache.layered_metrics().finished_after_abandonment == 1).await;
    assert_eq!(cache.get(&key(1)).await, None);
}

#[tokio::test]
async fn a_close_waits_for_what_begins_while_it_waits() {
    let (cache, gate) = (memory(), Gate::default());
    abandon(&cache, 1, &gate).await;
    let mut close = Box::pin(cache.close(LONG));
    assert!(poll!(&mut close).is_pending());
    abandon(&cache, 2, &gate).await;
    gate.open(1);
    until(|| cache.layered_metrics().finished_after_abandonment == 1).await;
    assert!(poll!(&mut close).is_pending(), "the second is under way");
    gate.open(1);
    assert!(close.await.is_clean());
    for number in [1, 2] {
        assert!(cache.get(&key(number)).await.is_some(), "{number}");
    }
}

#[tokio::test]
async fn a_close_does_not_wait_for_a_compile_that_is_not_to_be_kept() {
    let (cache, scope) = (memory(), scope());
    let request = cache.compile(&scope).key(key(1)).deadline(10 * MS);
    let dropped = request.when_abandoned(Abandoned::Cancel);
    let never = |(), _| std::future::pending::<Result<Artifact, Infallible>>();
    dropped.run_async(never).await.unwrap_err();
    assert!(cache.close(LONG).await.is_clean());
}
