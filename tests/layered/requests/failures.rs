//! Failures, panics and limits are told, and remembered only where that was asked for.

use super::support::{FRONT_END, Front, Gate, MS, SyntaxError, Words, key, memory, scope, until};
use pipeline_cache::{
    Artifact, CompileError, CompileSource, Compiled, InMemoryPipelineCache, LayeredPipelineCache,
};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{advance, pause, resume};

async fn request(
    cache: &LayeredPipelineCache,
    front: &Front,
    source: &str,
    remember: bool,
) -> Result<Compiled, CompileError<SyntaxError>> {
    let scope = scope();
    cache
        .compile(&scope)
        .source(FRONT_END, source.to_owned(), front.parse())
        .remember_failures(remember)
        .run(front.compile())
        .await
}

/// An editor asks again for the same broken text, and nothing is parsed or compiled again.
#[tokio::test]
async fn a_remembered_failure_is_answered_without_a_parse_or_a_compile() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .remembered_failures(100, Duration::from_secs(60))
        .build();
    let front = Front::default();
    for broken in ["error", "unsupported"] {
        let (parses, compiles) = (front.parses(), front.compiles());
        let first = request(&cache, &front, broken, true).await.unwrap_err();
        let (parses, compiles) = (front.parses() - parses, front.compiles() - compiles);
        assert_eq!(
            (parses, compiles),
            (1, usize::from(broken == "unsupported"))
        );
        let before = (front.parses(), front.compiles());
        let again = request(&cache, &front, broken, true).await.unwrap_err();
        assert_eq!(again, first);
        assert_eq!((front.parses(), front.compiles()), before);
        // Nobody else is answered with it.
        request(&cache, &front, broken, false).await.unwrap_err();
        assert_ne!((front.parses(), front.compiles()), before);
    }
    assert_eq!(cache.layered_metrics().remembered_failures, 2);

    // Another spelling of the same program is known by its key.
    let compiles = front.compiles();
    request(&cache, &front, " unsupported ", true)
        .await
        .unwrap_err();
    assert_eq!(front.compiles(), compiles);

    // Nothing is for life.
    pause();
    advance(Duration::from_secs(61)).await;
    resume();
    let parses = front.parses();
    request(&cache, &front, "error", true).await.unwrap_err();
    assert_eq!(front.parses(), parses + 1);
}

#[tokio::test]
async fn a_remembered_failure_of_another_type_is_no_answer() {
    let cache = memory();
    let scope = scope();
    let failing = cache.compile(&scope).key(key(1)).remember_failures(true);
    let failed = failing.run(|(), _| Err::<Artifact, _>(SyntaxError("no".to_owned())));
    failed.await.unwrap_err();
    let other = cache.compile(&scope).key(key(1)).remember_failures(true);
    let compiled = other.run(|(), _| Ok::<_, Infallible>(Artifact::new("code")));
    assert_eq!(compiled.await.unwrap().source, CompileSource::Compiled);
}

/// In the parse, the canonical form, the compile function, and what that has spawned.
#[tokio::test]
async fn a_panic_anywhere_is_an_answer() {
    let (cache, scope, front) = (memory(), scope(), Front::default());
    let told = |result: Result<Compiled, CompileError<SyntaxError>>| match result {
        Err(CompileError::Panicked(message)) => message.to_string(),
        other => panic!("{other:?}"),
    };
    let parse = |_: &bytes::Bytes| -> Result<Words, SyntaxError> { panic!("in the parse") };
    let request = cache.compile(&scope).source(FRONT_END, "p", parse);
    assert_eq!(told(request.run(front.compile()).await), "in the parse");

    let request = cache.compile(&scope);
    let request = request.source(FRONT_END, "crash", front.parse());
    assert_eq!(
        told(request.run(front.compile()).await),
        "no canonical form"
    );
    let request = cache
        .compile(&scope)
        .program(Words(vec!["crash".to_owned()]));
    assert_eq!(
        told(request.run(front.compile()).await),
        "no canonical form"
    );

    let request = cache.compile(&scope).key(key(1));
    assert_eq!(told(request.run(|(), _| panic!("in run")).await), "in run");
    let request = cache.compile(&scope).key(key(2));
    let panicking = |(), _| async { panic!("in run_async") };
    assert_eq!(told(request.run_async(panicking).await), "in run_async");
    let request = cache.compile(&scope).key(key(3));
    let panicking = |(), _| async {
        let blocking = || -> Artifact { panic!("in spawn_blocking") };
        let joined = tokio::task::spawn_blocking(blocking).await;
        Ok(joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
    };
    assert_eq!(
        told(request.run_async(panicking).await),
        "in spawn_blocking"
    );

    // No place is lost, no key is poisoned.
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run(|(), _| Ok::<_, SyntaxError>(Artifact::new("code")));
    compiled.await.unwrap();
    assert_eq!(cache.layered_metrics().running_compiles, 0);
}

/// A compile that never returns: its callers are told, its place is free, and its key is not compiled
/// a second time beside it. The clock is paused: a limit passes where the runtime waits for a thread, and
/// nowhere else.
#[tokio::test(start_paused = true)]
async fn a_compile_beyond_its_limit_is_told_and_holds_no_place() {
    let cache = LayeredPipelineCache::builder()
        .compile_places(1)
        .compile_limit(30 * MS)
        .build();
    let (scope, gate) = (scope(), Gate::default());
    let stuck = |gate: Gate| {
        move |(), _: &_| {
            gate.wait();
            Ok::<_, Infallible>(Artifact::new("late"))
        }
    };
    let limit = CompileError::TimedOut(30 * MS);
    let both = futures::join!(
        cache.compile(&scope).key(key(1)).run(stuck(gate.clone())),
        cache.compile(&scope).key(key(1)).run(stuck(gate.clone())),
    );
    assert_eq!(both.0.unwrap_err(), limit);
    assert_eq!(both.1.unwrap_err(), limit);
    gate.until_arrived(1).await;
    let awaited = |number| {
        let request = cache.compile(&scope).key(key(number));
        request.run_async(|(), _| async { Ok::<_, Infallible>(Artifact::new("other")) })
    };
    // Others have the place.
    awaited(2).await.unwrap();
    assert_eq!(awaited(1).await.unwrap_err(), limit);
    assert_eq!(gate.arrived(), 1);
    // Once the thread has ended, the key can be compiled again.
    gate.open(1);
    while awaited(1).await.is_err() {
        std::thread::sleep(MS);
    }
    assert_eq!(gate.arrived(), 1);
    until(|| cache.layered_metrics().running_compiles == 0).await;
}
