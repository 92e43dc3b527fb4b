//! The answer tells in band where an artifact came from, what each tier did, and what each step took.

use super::support::{FRONT_END, Front, MS, key, memory, scope};
use pipeline_cache::layered::TierOutcome;
use pipeline_cache::testing::FaultyStore;
use pipeline_cache::{
    Artifact, CompileSource, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore as _,
    StoreOperation,
};
use std::convert::Infallible;
use std::sync::Arc;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

#[tokio::test]
async fn the_answer_names_the_tier_and_no_second_request_is_needed() {
    let remote = Arc::new(FaultyStore::new("remote(https://cache.example/x)").network());
    remote.put(&key(1), Artifact::new("stored")).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .tier(Arc::clone(&remote))
        .build();
    let scope = scope();
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run(|(), _| Err::<Artifact, _>("no")).await.unwrap();
    assert_eq!(
        compiled.tier_name(),
        Some("remote(https://cache.example/x)")
    );
    let tiers: Vec<_> = compiled.tiers().collect();
    assert_eq!((tiers[0].name, tiers.len()), ("memory", 2));
    assert!(matches!(tiers[0].outcome, TierOutcome::Miss));
    assert!(matches!(tiers[1].outcome, TierOutcome::Hit));
    assert_eq!(remote.calls(StoreOperation::Get), 1);

    let line = compiled.to_string();
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(
        line.contains("from remote(https://cache.example/x), 6 bytes"),
        "{line}"
    );
    // The header tells no URL.
    let timing = compiled.timing();
    assert!(timing.contains(", remote;desc=\"hit\";dur="), "{timing}");
    assert!(!timing.contains("example"), "{timing}");

    // A hit that needs no search is told in the same form.
    cache.flush().await.unwrap();
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run(|(), _| Err::<Artifact, _>("no")).await.unwrap();
    assert_eq!(compiled.tier_name(), Some("memory"));
    assert!(compiled.timing().contains("memory;desc=\"hit\""));
}

#[tokio::test]
async fn the_answer_tells_what_each_step_took() {
    let (cache, front, scope) = (memory(), Front::default(), scope());
    let request = cache.compile(&scope);
    let request = request.source(FRONT_END, "a b", front.parse());
    let compiled = request.run(front.compile()).await.unwrap();
    let times = compiled.times;
    for time in [
        times.hash,
        times.parse,
        times.key,
        times.lookup,
        times.compile,
    ] {
        assert!(!time.is_zero(), "{times:?}");
    }
    let timing = compiled.timing();
    for step in ["hash;dur=", "parse;dur=", "key;dur=", "compile;dur="] {
        assert!(timing.contains(step), "{timing}");
    }
    // The time of the compile is kept with the artifact.
    let kept = compiled.artifact.metadata().compile_time();
    assert_eq!(kept, Some(times.compile));
    cache.flush().await.unwrap();
    let known = cache.compile(&scope);
    let known = known.source(FRONT_END, "a b", front.parse());
    let known = known.run(front.compile()).await.unwrap();
    let times = known.times;
    assert!(times.parse.is_zero() && times.key.is_zero() && times.compile.is_zero());
}

/// Notes the name of each span that it knows.
#[derive(Debug, Default)]
struct Spans(std::sync::OnceLock<&'static Metadata<'static>>);

thread_local! {
    static ENTERED: std::cell::RefCell<Vec<u64>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.name() == "handler"
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        self.0.get_or_init(|| attributes.metadata());
        Id::from_u64(7)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }
    fn current_span(&self) -> Current {
        match is_in_span() {
            true => Current::new(Id::from_u64(7), self.0.get().unwrap()),
            false => Current::none(),
        }
    }
    fn exit(&self, _: &Id) {
        let _ = ENTERED.with_borrow_mut(Vec::pop);
    }
}

fn is_in_span() -> bool {
    ENTERED.with_borrow(|entered| entered.last() == Some(&7))
}

#[tokio::test]
async fn the_callers_span_is_there_in_the_compile() {
    let _subscriber = tracing::subscriber::set_default(Spans::default());
    let (cache, scope) = (memory(), scope());
    let span = tracing::info_span!("handler");
    let in_span = async {
        let request = cache.compile(&scope).key(key(1));
        let run =
            request.run(|(), _| Ok::<_, Infallible>(Artifact::new(vec![u8::from(is_in_span())])));
        let request = cache.compile(&scope).key(key(2));
        let run_async = request.run_async(|(), _| async {
            tokio::time::sleep(MS).await;
            Ok::<_, Infallible>(Artifact::new(vec![u8::from(is_in_span())]))
        });
        (run.await.unwrap(), run_async.await.unwrap())
    };
    let (run, run_async) = tracing::Instrument::instrument(in_span, span).await;
    assert_eq!(&run.artifact.payload()[..], [1]);
    assert_eq!(&run_async.artifact.payload()[..], [1]);
    assert_eq!(run.source, CompileSource::Compiled);
}
