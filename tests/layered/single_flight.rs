//! Nobody waits for work that someone else is already doing, and nobody is stalled by whoever left.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "a clone that is turned into `dyn` on the way"
)]

use pipeline_cache::layered::Abandoned;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileError, CompileInput, CompileScope, CompileSource, InMemoryPipelineCache,
    LayeredPipelineCache, LookupSource, OpaqueProgram, PipelineCacheStore, PipelineFingerprint,
    Program, StoreErrorKind, StoreOperation, ToWire, Unkeyable, WireWriter, WritePolicy,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, Semaphore};

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);

fn artifact() -> Artifact {
    Artifact::new("code")
}

/// A compile that is counted, and waits until it is let on.
#[derive(Clone)]
struct Compiler {
    started: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    arrived: Arc<Notify>,
    gate: Arc<Semaphore>,
}

impl Compiler {
    fn new(permits: usize) -> Self {
        Self {
            started: Arc::default(),
            running: Arc::default(),
            arrived: Arc::default(),
            gate: Arc::new(Semaphore::new(permits)),
        }
    }

    async fn compile(self) -> Result<Artifact, String> {
        struct Running(Arc<AtomicUsize>, Arc<Notify>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
                self.1.notify_waiters();
            }
        }
        self.started.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&self.running), Arc::clone(&self.arrived));
        self.arrived.notify_waiters();
        self.gate.acquire().await.unwrap().forget();
        Ok(artifact())
    }

    async fn until(&self, done: impl Fn(usize, usize) -> bool) {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let now = (self.started(), self.running.load(Ordering::SeqCst));
            if done(now.0, now.1) {
                return;
            }
            arrived.await;
        }
    }

    fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }
}

/// Some ask before the search, some while it is on, some while its find is on its way up, and some
/// after: the slow tier is read once all the same, and each faster tier written once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_ask_and_the_slowest_tier_is_read_once() {
    let memory = Arc::new(InMemoryPipelineCache::new());
    let middle = Arc::new(FaultyStore::new("middle"));
    let slow = Arc::new(FaultyStore::new("slow"));
    slow.put(&KEY, artifact()).await.unwrap();
    slow.set(StoreOperation::Get, Fault::Gate);
    let cache =
        LayeredPipelineCache::new([memory.clone() as _, middle.clone() as _, slow.clone() as _]);
    let tasks: Vec<_> = (0..10_000)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get(&KEY).await })
        })
        .collect();
    slow.called(StoreOperation::Get, 1).await;
    slow.open(StoreOperation::Get, 1);
    for task in tasks {
        assert_eq!(task.await.unwrap(), Some(artifact()));
    }
    cache.flush().await.unwrap();
    assert_eq!(slow.calls(StoreOperation::Get), 1);
    assert_eq!(middle.calls(StoreOperation::Put), 1);
    assert_eq!(memory.metrics().puts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_thousand_ask_and_one_compiles() {
    let tier = Arc::new(FaultyStore::new("tier"));
    let cache = LayeredPipelineCache::new([tier.clone() as _]);
    let compiler = Compiler::new(0);
    let tasks: Vec<_> = (0..10_000)
        .map(|_| {
            let (cache, compiler) = (cache.clone(), compiler.clone());
            tokio::spawn(async move {
                cache
                    .get_or_insert_with(&KEY, || compiler.compile())
                    .await
                    .unwrap()
            })
        })
        .collect();
    compiler.until(|started, _| started == 1).await;
    compiler.gate.add_permits(10);
    let mut compiled = 0;
    for task in tasks {
        let result = task.await.unwrap();
        assert_eq!(result.artifact, artifact());
        compiled += usize::from(result.source == CompileSource::Compiled);
    }
    assert_eq!((compiler.started(), compiled), (1, 1));
    cache.flush().await.unwrap();
    assert_eq!(tier.calls(StoreOperation::Put), 1);
}

#[tokio::test]
async fn a_dropped_caller_does_not_stall_the_others() {
    let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    let compiler = Compiler::new(0);
    let spawn = || {
        let (cache, compiler) = (cache.clone(), compiler.clone());
        tokio::spawn(async move { cache.get_or_insert_with(&KEY, || compiler.compile()).await })
    };
    let leader = spawn();
    compiler.until(|started, _| started == 1).await;
    let (second, third) = (spawn(), spawn());
    tokio::task::yield_now().await;
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());

    compiler.gate.add_permits(1);
    let result = third.await.unwrap().unwrap();
    assert_eq!(result.source, CompileSource::Joined);
    assert_eq!(compiler.started(), 1);
}

#[tokio::test]
async fn a_compile_that_is_not_to_be_kept_is_cancelled_when_the_last_caller_goes() {
    let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    let compiler = Compiler::new(0);
    let spawn = || {
        let (cache, compiler) = (cache.clone(), compiler.clone());
        tokio::spawn(async move {
            let scope = CompileScope::new("cc 1", "x86_64").unwrap();
            let request = cache.compile(&scope).key(KEY);
            request
                .when_abandoned(Abandoned::Cancel)
                .run_async(|(), _cx| compiler.compile())
                .await
        })
    };
    let callers = [spawn(), spawn(), spawn()];
    compiler.until(|started, _| started == 1).await;
    for caller in callers {
        caller.abort();
    }
    compiler.until(|_, running| running == 0).await;

    // The key is not poisoned: the next call compiles anew.
    compiler.gate.add_permits(1);
    let result = spawn().await.unwrap().unwrap();
    assert_eq!(result.source, CompileSource::Compiled);
    assert_eq!(compiler.started(), 2);
}

/// A caller that holds its place and is never polled again stalls nobody.
#[tokio::test]
async fn a_caller_that_sleeps_does_not_stall_the_others() {
    let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    let compiler = Compiler::new(0);
    let mut sleeper = Box::pin(cache.get_or_insert_with(&KEY, {
        let compiler = compiler.clone();
        move || compiler.compile()
    }));
    assert!(futures::poll!(&mut sleeper).is_pending());
    compiler.gate.add_permits(1);
    let other = compiler.clone();
    let result = cache
        .get_or_insert_with(&KEY, || other.compile())
        .await
        .unwrap();
    assert_eq!(result.artifact, artifact());
    assert_eq!(compiler.started(), 1);
    assert_eq!(sleeper.await.unwrap().artifact, artifact());
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {0}: no such function")]
struct SyntaxError(u32);

#[tokio::test]
async fn a_failed_compile_is_told_to_all_and_kept_by_none() {
    let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    let gate = Arc::new(Semaphore::new(0));
    let spawn = || {
        let (cache, gate) = (cache.clone(), Arc::clone(&gate));
        tokio::spawn(async move {
            cache
                .get_or_insert_with(&KEY, move || async move {
                    gate.acquire().await.unwrap().forget();
                    Err::<Artifact, _>(SyntaxError(3))
                })
                .await
        })
    };
    let callers = [spawn(), spawn(), spawn()];
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    for caller in callers {
        let error = caller.await.unwrap().unwrap_err();
        assert_eq!(error.failed(), Some(&SyntaxError(3)));
        // The cause is told once, by `source`.
        assert_eq!(error.to_string(), "the parse or compile function failed");
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "line 3: no such function");
    }
    let compile = || async { Ok::<_, Infallible>(artifact()) };
    let result = cache.get_or_insert_with(&KEY, compile).await.unwrap();
    assert_eq!(result.source, CompileSource::Compiled);
}

#[tokio::test]
async fn a_panicking_compile_is_an_error_and_poisons_nothing() {
    let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    let panicking = || async {
        if true {
            panic!("register allocator: out of luck");
        }
        Ok::<_, Infallible>(artifact())
    };
    let error = cache.get_or_insert_with(&KEY, panicking).await.unwrap_err();
    assert_eq!(
        error,
        CompileError::Panicked("register allocator: out of luck".into())
    );
    let compile = || async { Ok::<_, Infallible>(artifact()) };
    assert!(cache.get_or_insert_with(&KEY, compile).await.is_ok());
}

/// Callers whose compiles fail with different types cannot be told each other's error. They share
/// a success, and each tries for itself after a failure.
#[tokio::test]
async fn callers_with_other_error_types_share_success_and_not_failure() {
    let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    let gate = Arc::new(Semaphore::new(0));
    let failing = tokio::spawn({
        let (cache, gate) = (cache.clone(), Arc::clone(&gate));
        async move {
            cache
                .get_or_insert_with(&KEY, move || async move {
                    gate.acquire().await.unwrap().forget();
                    Err::<Artifact, _>(SyntaxError(1))
                })
                .await
        }
    });
    tokio::task::yield_now().await;
    let other = tokio::spawn({
        let cache = cache.clone();
        async move {
            let compile = || async { Ok::<_, Infallible>(artifact()) };
            cache.get_or_insert_with(&KEY, compile).await
        }
    });
    tokio::task::yield_now().await;
    gate.add_permits(1);
    assert!(failing.await.unwrap().is_err());
    assert_eq!(
        other.await.unwrap().unwrap().source,
        CompileSource::Compiled
    );
}

#[tokio::test]
async fn a_tier_that_fails_to_store_is_reported_and_costs_nothing_else() {
    let full = Arc::new(FaultyStore::new("full"));
    full.set(
        StoreOperation::Put,
        Fault::Error(StoreErrorKind::StorageFull),
    );
    let good = Arc::new(FaultyStore::new("good"));
    let cache = LayeredPipelineCache::builder()
        .tier(full)
        .tier(good.clone())
        .write_policy(WritePolicy::Through)
        .build();
    let compile = || async { Ok::<_, Infallible>(artifact()) };
    let result = cache.get_or_insert_with(&KEY, compile).await.unwrap();
    assert_eq!(result.artifact, artifact());
    assert_eq!(result.source, CompileSource::Compiled);
    let error = cache.flush().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.tier()),
        (StoreErrorKind::StorageFull, "full")
    );
    assert!(good.contains(&KEY).await.unwrap());
}

/// A put that has returned is seen by every lookup that starts after it, though a search for the
/// same key is still on its way back with a miss.
#[tokio::test]
async fn a_lookup_after_a_put_does_not_join_a_search_from_before() {
    let tier = Arc::new(FaultyStore::new("tier"));
    let slow = Arc::new(FaultyStore::new("slow"));
    slow.set(StoreOperation::Get, Fault::Gate);
    let cache = LayeredPipelineCache::new([tier.clone() as _, slow.clone() as _]);
    let before = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&KEY).await }
    });
    slow.called(StoreOperation::Get, 1).await;
    cache.put(&KEY, artifact()).await.unwrap();
    assert_eq!(cache.get(&KEY).await, Some(artifact()));
    slow.open(StoreOperation::Get, 1);
    assert_eq!(before.await.unwrap(), None);
}

#[tokio::test]
async fn a_program_is_compiled_from_its_canonical_form_and_scope() {
    let cache = LayeredPipelineCache::new([Arc::new(InMemoryPipelineCache::new()) as _]);
    let scope = CompileScope::new("cc 1", "x86_64").unwrap();
    let program = OpaqueProgram::new("text", "a");
    let compile = |input: CompileInput<OpaqueProgram>, scope: CompileScope| async move {
        let program = input.into_canonical()?;
        let text = format!("{:?} for {}", program.bytes(), scope.target());
        Ok::<_, Unkeyable>(Artifact::new(text))
    };
    let first = cache
        .get_or_compile(&program, &scope, compile)
        .await
        .unwrap();
    assert_eq!(first.source, CompileSource::Compiled);
    assert_eq!(&first.artifact.payload()[..], b"b\"a\" for x86_64");
    cache.flush().await.unwrap();
    let second = cache
        .get_or_compile(&program, &scope, compile)
        .await
        .unwrap();
    assert_eq!(second.source, CompileSource::Cache(LookupSource::Tier(0)));

    let upgraded = CompileScope::new("cc 2", "x86_64").unwrap();
    let third = cache
        .get_or_compile(&program, &upgraded, compile)
        .await
        .unwrap();
    assert_eq!(third.source, CompileSource::Compiled);
}

/// A program that has no key.
#[derive(Debug, Clone)]
struct Secretive;

impl Program for Secretive {
    const DOMAIN: &'static str = "test/secretive";
    const SCHEMA: u32 = 1;
    type Canonical = Never;

    fn canonicalize(&self) -> Result<Never, Unkeyable> {
        Err(Unkeyable::new("it keeps its meaning to itself"))
    }
}

#[derive(Debug)]
enum Never {}

impl ToWire for Never {
    type Program = Secretive;

    fn write_body(&self, _: &mut WireWriter) {
        match *self {}
    }
}

/// Its canonical form turns out to be wrong when it is looked at.
#[derive(Clone)]
struct Misread;

struct Wrong;

impl Program for Misread {
    const DOMAIN: &'static str = "tests/misread";
    const SCHEMA: u32 = 1;
    type Canonical = Wrong;

    fn canonicalize(&self) -> Result<Wrong, Unkeyable> {
        Ok(Wrong)
    }
}

impl ToWire for Wrong {
    type Program = Misread;

    fn check(&self) -> Result<(), Unkeyable> {
        Err(Unkeyable::new("it is wrong"))
    }

    fn write_body(&self, _: &mut WireWriter) {}
}

#[tokio::test]
async fn a_canonical_form_that_fails_its_check_is_not_compiled_and_its_program_is() {
    let tier = Arc::new(FaultyStore::new("tier"));
    let cache = LayeredPipelineCache::new([tier.clone() as _]);
    let scope = CompileScope::new("cc", "t").unwrap();
    let compile = |input: CompileInput<Misread>, _scope| async move {
        assert!(matches!(input, CompileInput::Unkeyable(Misread, _)));
        Ok::<_, Infallible>(artifact())
    };
    let (one, two) = tokio::join!(
        cache.get_or_compile(&Misread, &scope, compile),
        cache.get_or_compile(&Misread, &scope, compile),
    );
    for result in [one, two] {
        let result = result.unwrap();
        assert_eq!(result.artifact, artifact());
        let reason = Unkeyable::new("it is wrong");
        assert_eq!(result.source, CompileSource::Bypassed(reason));
    }
    assert_eq!(tier.calls(StoreOperation::Put), 0);
    assert!(tier.calls(StoreOperation::Get) > 0);
}

#[tokio::test]
async fn an_unkeyable_program_is_compiled_and_not_cached() {
    let tier = Arc::new(FaultyStore::new("tier"));
    let cache = LayeredPipelineCache::new([tier.clone() as _]);
    let scope = CompileScope::new("cc", "t").unwrap();
    for _ in 0..2 {
        let compile = |input: CompileInput<Secretive>, _scope| async move {
            assert!(matches!(input, CompileInput::Unkeyable(Secretive, _)));
            Ok::<_, Infallible>(artifact())
        };
        let result = cache
            .get_or_compile(&Secretive, &scope, compile)
            .await
            .unwrap();
        let reason = Unkeyable::new("it keeps its meaning to itself");
        assert_eq!(result.source, CompileSource::Bypassed(reason));
    }
    assert_eq!(tier.calls(StoreOperation::Put), 0);
    assert_eq!(tier.calls(StoreOperation::Get), 0);
    let panicking = |_: CompileInput<Secretive>, _| async {
        if true {
            panic!("no");
        }
        Ok::<_, Infallible>(artifact())
    };
    let error = cache
        .get_or_compile(&Secretive, &scope, panicking)
        .await
        .unwrap_err();
    assert_eq!(error, CompileError::Panicked("no".into()));
}
