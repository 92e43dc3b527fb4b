//! A cache says what it saves, and one that costs more than it saves can be passed by.

use super::support::{FRONT_END, Front, key, memory, scope};
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileScope, CompileSource, Compiled, InMemoryPipelineCache,
    LayeredPipelineCache, PipelineFingerprint,
};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The compile function says how long it took, so that the clock of a busy machine decides nothing.
#[tokio::test]
async fn hits_save_the_time_of_their_compile_by_tier_and_scope() {
    const TOOK: Duration = Duration::from_secs(3_600);
    let (cache, front, scope) = (memory(), Front::default(), scope());
    let request = || {
        let request = cache.compile(&scope).source(FRONT_END, "a", front.parse());
        request.run(|_, _| {
            let metadata = ArtifactMetadata::new().with_compile_time(TOOK);
            Ok(Artifact::with_metadata("code", metadata))
        })
    };
    let cost = |compiled: &Compiled| {
        let times = &compiled.times;
        (times.hash + times.key + times.lookup).as_nanos() as i64
    };
    let missed = cost(&request().await.unwrap());
    cache.flush().await.unwrap();
    let before = cache.layered_metrics();
    assert_eq!(before.scopes[0].saved_nanos, -missed);
    let mut saved = 0;
    for _ in 0..3 {
        saved += TOOK.as_nanos() as i64 - cost(&request().await.unwrap());
    }
    let metrics = cache.layered_metrics();
    let scope = &metrics.scopes[0];
    assert_eq!((&*scope.compiler, &*scope.target), ("cc 1", "x86_64"));
    assert_eq!((scope.requests, scope.hits), (4, 3));
    assert_eq!(metrics.tiers[0].saved_nanos, saved);
    assert_eq!(scope.saved_nanos, saved - missed);
    assert_eq!(
        (metrics.compile_time.count, metrics.queue_time.count),
        (1, 1)
    );
}

/// What the pool measures is what is stored.
#[tokio::test]
async fn the_time_of_a_compile_is_kept_with_its_artifact() {
    let (cache, scope) = (memory(), scope());
    let request = cache.compile(&scope).key(key(1));
    let compiled = request.run(|(), _| Ok::<_, Infallible>(Artifact::new("code")));
    let compiled = compiled.await.unwrap();
    let kept = compiled.artifact.metadata().compile_time();
    assert_eq!(kept, Some(compiled.times.compile));
}

/// Each program is new, so that the cache costs and saves nothing.
#[tokio::test]
async fn a_scope_that_costs_more_than_it_saves_is_passed_by_where_that_was_asked_for() {
    for passes_by in [false, true] {
        let cache = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::new())
            .pass_by_losing_scopes(passes_by)
            .build();
        let (front, scope) = (Front::default(), scope());
        for number in 0..1_001 {
            let request = cache.compile(&scope);
            let request = request.source(FRONT_END, number.to_string(), front.parse());
            let compiled = request.run(front.compile()).await.unwrap();
            let is_passed_by = compiled.source == CompileSource::PassedBy;
            assert_eq!(is_passed_by, passes_by && number == 1_000, "{number}");
        }
        let passed_by = cache.layered_metrics().scopes[0].passed_by;
        assert_eq!(passed_by, u64::from(passes_by));
    }
}

/// Counts the warnings that a cache costs more than it saves, by compiler.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut |field: &Field, value: &dyn fmt::Debug| {
            text += &format!("{field}={value:?} ");
        });
        if text.contains("the cache costs more than it saves") {
            self.0.lock().unwrap().push(text);
        }
    }

    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Two scopes lose with every request, for twice as long as it takes to see that, and one gains.
#[tokio::test]
async fn a_scope_that_loses_is_warned_of_once_and_one_that_gains_is_not() {
    const REQUESTS: u32 = 2_100;
    let warnings = Warnings::default();
    let _default = tracing::subscriber::set_default(warnings.clone());
    let cache = memory();
    let scope = |compiler: &str| CompileScope::new(compiler, "x").unwrap();
    let gains = scope("gains");
    for (number, scope) in [scope("loses"), scope("loses too"), gains]
        .iter()
        .enumerate()
    {
        for request in 0..REQUESTS {
            let gains = scope.compiler() == "gains";
            let mut bytes = [number as u8; 32];
            bytes[1..5].copy_from_slice(&if gains { 0 } else { request }.to_le_bytes());
            let key = PipelineFingerprint::from_bytes(bytes);
            let compile = |(), _| async {
                let hour = Duration::from_secs(3_600);
                let metadata = ArtifactMetadata::new().with_compile_time(hour);
                Ok::<_, Infallible>(Artifact::with_metadata("code", metadata))
            };
            cache
                .compile(scope)
                .key(key)
                .run_async(compile)
                .await
                .unwrap();
        }
    }
    let warnings = warnings.0.lock().unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for compiler in ["\"loses\"", "\"loses too\""] {
        let of_scope = |text: &&String| text.contains(&format!("compiler={compiler}"));
        assert_eq!(warnings.iter().filter(of_scope).count(), 1, "{warnings:?}");
    }
}
