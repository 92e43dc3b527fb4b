//! A compile that asks for what waits for it is told so at once, and nobody else is held up.

use super::support::{key, memory, scope, until};
use futures::future::BoxFuture;
use pipeline_cache::layered::{Abandoned, CompileContext};
use pipeline_cache::{
    Artifact, CompileError, CompileSource, LayeredPipelineCache, PipelineFingerprint,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;

type Error = CompileError<Infallible>;

/// What an inner request was answered, as the artifact of the outer one.
fn told(answer: Result<pipeline_cache::Compiled, CompileError<Infallible>>) -> Artifact {
    match answer {
        Ok(compiled) => compiled.artifact,
        Err(CompileError::Recursive(chain)) => {
            let keys: Vec<_> = chain
                .iter()
                .map(|key| key.as_bytes()[0].to_string())
                .collect();
            Artifact::new(keys.join(">"))
        }
        Err(error) => Artifact::new(error.to_string()),
    }
}

/// Compiles the first of a chain of keys, which asks for the next, and so on.
fn chain(cx: &CompileContext, keys: &'static [u8]) -> Artifact {
    let Some((&first, rest)) = keys.split_first() else {
        return Artifact::new("end");
    };
    let request = cx.compile(cx.scope()).key(key(first));
    told(cx.block_on(request.run(|(), cx| Ok(chain(cx, rest)))))
}

async fn compile_chain(cache: &LayeredPipelineCache, keys: &'static [u8]) -> Artifact {
    let scope = scope();
    let request = cache.compile(&scope).key(key(keys[0]));
    let compiled = request.run(|(), cx| Ok::<_, Infallible>(chain(cx, &keys[1..])));
    compiled.await.unwrap().artifact
}

#[tokio::test]
async fn a_compile_that_asks_for_its_own_key_is_told_at_once() {
    let cache = memory();
    let start = Instant::now();
    assert_eq!(compile_chain(&cache, &[1, 1]).await, Artifact::new("1>1"));
    let took = start.elapsed();
    // The key works.
    let get = cache.get(&key(1)).await;
    assert_eq!(get, Some(Artifact::new("1>1")));
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn a_compile_that_asks_through_others_is_told_the_chain() {
    let cache = memory();
    let made = compile_chain(&cache, &[1, 2, 3, 1]).await;
    assert_eq!(made, Artifact::new("3>1>2>3"));
    assert_eq!(
        compile_chain(&cache, &[4, 5, 6]).await,
        Artifact::new("end")
    );
}

/// Without the context: the compile function has a clone of the cache, as it always could.
#[tokio::test]
async fn a_compile_that_asks_through_a_clone_of_the_cache_is_told_as_well() {
    let cache = memory();
    let inner = cache.clone();
    let compile = move || async move {
        let compile = || async { Ok::<_, Infallible>(Artifact::new("never")) };
        let answer = inner.get_or_insert_with(&key(1), compile).await;
        Ok::<_, Infallible>(told(answer))
    };
    let compiled = cache.get_or_insert_with(&key(1), compile).await.unwrap();
    assert_eq!(compiled.artifact, Artifact::new("1>1"));
}

/// Two compiles run, and each then asks for the other: the second to ask is told, the first waits and
/// is answered.
#[tokio::test]
async fn the_second_of_two_that_come_to_wait_for_each_other_is_told() {
    let cache = LayeredPipelineCache::builder().compile_places(2).build();
    let both_run = Arc::new(Barrier::new(2));
    let one = |own: u8, other: u8| {
        let (cache, both_run) = (cache.clone(), Arc::clone(&both_run));
        tokio::spawn(async move {
            let scope = scope();
            let request = cache.compile(&scope).key(key(own));
            let compiled = request.run_async(move |(), cx| async move {
                both_run.wait().await;
                let request = cx.compile(cx.scope()).key(key(other));
                let answer = request.run_async(|(), _| async { Ok(Artifact::new("fresh")) });
                Ok::<_, Infallible>(told(answer.await))
            });
            compiled.await.unwrap().artifact
        })
    };
    let (a, b) = (one(1, 2), one(2, 1));
    let made = [a.await.unwrap(), b.await.unwrap()];
    // One was told the chain. The other got what the told one made.
    assert_eq!(made[0], made[1]);
    let chain = [Artifact::new("1>2>1"), Artifact::new("2>1>2")];
    assert!(chain.contains(&made[0]), "{made:?}");
}

/// Compiles a chain of so many keys, each of which asks for the next before it awaits anything else.
fn deep(cx: CompileContext, left: u32) -> BoxFuture<'static, Result<Artifact, Error>> {
    Box::pin(async move {
        let Some(left) = left.checked_sub(1) else {
            return Ok(Artifact::new("end"));
        };
        let mut key = [0; 32];
        key[..4].copy_from_slice(&left.to_le_bytes());
        let request = cx
            .compile(cx.scope())
            .key(PipelineFingerprint::from_bytes(key));
        let compiled = request.run_async(move |(), cx| deep(cx, left)).await;
        Ok(compiled
            .map_err(|error| CompileError::Panicked(error.to_string().into()))?
            .artifact)
    })
}

/// However many compiles wait for one another, none runs on the stack of those that wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_long_chain_of_compiles_that_await_needs_no_deep_stack() {
    let cache = memory();
    let made = tokio::spawn(async move {
        let scope = scope();
        let request = cache.compile(&scope).key(key(255));
        let compiled = request.run_async(|(), cx| deep(cx, 500)).await;
        compiled.unwrap().artifact
    });
    assert_eq!(made.await.unwrap(), Artifact::new("end"));
}

/// One place in the pool: an outer compile gives it back while it waits.
#[tokio::test]
async fn a_compile_that_waits_for_another_gives_its_place_back() {
    let cache = memory();
    let scope = scope();
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run(|(), cx| {
        let inner = cx.compile(cx.scope()).key(key(2));
        let inner = cx.block_on(inner.run(|(), _cx| Ok(Artifact::new("inner"))))?;
        assert_eq!(inner.source, CompileSource::Compiled);
        Ok::<_, Error>(Artifact::new("outer"))
    });
    assert_eq!(compiled.await.unwrap().artifact, Artifact::new("outer"));
    let metrics = cache.layered_metrics();
    assert_eq!((metrics.compiles, metrics.running_compiles), (2, 0));
}

/// A nested request that is dropped in its wait takes no place of others for good.
#[tokio::test]
async fn a_nested_request_that_is_dropped_leaves_the_pool_in_order() {
    let cache = memory();
    let scope = scope();
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run_async(|(), cx| async move {
        let inner = cx.compile(cx.scope()).key(key(2));
        let inner = inner.when_abandoned(Abandoned::Cancel);
        let never = |(), _| std::future::pending::<Result<Artifact, Infallible>>();
        let mut inner = Box::pin(inner.run_async(never));
        assert!(futures::poll!(&mut inner).is_pending());
        drop(inner);
        Ok::<_, Infallible>(Artifact::new("outer"))
    });
    compiled.await.unwrap();
    until(|| cache.layered_metrics().running_compiles == 0).await;
    let request = cache.compile(&scope).key(key(3));
    let next = request.run(|(), _| Ok::<_, Infallible>(Artifact::new("next")));
    assert_eq!(next.await.unwrap().artifact, Artifact::new("next"));
}
