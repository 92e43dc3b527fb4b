//! The layered store under load: many lookups at once, and many for one key.

use async_trait::async_trait;
use pipeline_cache::{
    Artifact, CompileSource, DiskCache, Fetched, InMemoryPipelineCache, LayeredPipelineCache,
    PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, StoreError,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vyre_runtime::pipeline_cache as vyre;
use vyre_runtime::pipeline_cache::PipelineCacheStore as _;

use crate::measure::{Contender, Plan};
use crate::memory::{key, payload, vyre_key};
use crate::report::Report;
use crate::runtime::Tokio;

const LOOKUPS: usize = 1000;
/// What a lookup in the slowest tier waits, as one in another building does.
const FAR: Duration = Duration::from_millis(1);

pub(crate) fn cases(plan: &Plan, report: &mut Report) {
    if plan.wants("layered_fan") {
        fan(plan, report);
    }
    if plan.wants("stampede") {
        stampede(plan, report);
    }
}

/// A tier that answers after a while, in our contract.
#[derive(Debug)]
struct Far(InMemoryPipelineCache);

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("far")
    }
}

#[async_trait]
impl PipelineCacheStore for Far {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        tokio::time::sleep(FAR).await;
        self.0.fetch(key).await
    }
    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.0.put(key, artifact).await
    }
    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.0.contains(key).await
    }
    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.0.remove(key).await
    }
    fn metrics(&self) -> PipelineCacheMetrics {
        self.0.metrics()
    }
}

/// The same in the contract of the design that went before.
struct FarVyre(vyre::InMemoryPipelineCache);

impl vyre::PipelineCacheStore for FarVyre {
    fn get(&self, key: &vyre::PipelineFingerprint) -> Option<Vec<u8>> {
        thread::sleep(FAR);
        self.0.get(key)
    }
    fn put(&self, key: vyre::PipelineFingerprint, artifact: Vec<u8>) {
        self.0.put(key, artifact);
    }
}

/// A thousand lookups at once on two threads, each a hit in one of memory, disk and a tier that
/// is a millisecond away.
fn fan(plan: &Plan, report: &mut Report) {
    let tokio = Tokio::multi();
    let lookups = plan.count(LOOKUPS);
    let figures = plan.contend(vec![
        Contender::timed("ours", 1, || {
            let folder = tempfile::tempdir().expect("a folder");
            let root = folder.path().to_owned();
            tokio.run(async move {
                let memory = Arc::new(InMemoryPipelineCache::new());
                let disk = Arc::new(DiskCache::new(root).await.expect("a cache"));
                let far = Arc::new(Far(InMemoryPipelineCache::new()));
                let tiers: [Arc<dyn PipelineCacheStore>; 3] = [memory, disk, far];
                for number in 0..lookups {
                    let artifact = Artifact::new(payload(number, 4 << 10));
                    tiers[number * 7 % 3]
                        .put(&key(number), artifact)
                        .await
                        .expect("a put");
                }
                let cache = Arc::new(LayeredPipelineCache::new(tiers.to_vec()));
                let start = Instant::now();
                let tasks: Vec<_> = (0..lookups)
                    .map(|number| {
                        let cache = Arc::clone(&cache);
                        tokio::spawn(async move { cache.get(&key(number)).await })
                    })
                    .collect();
                for task in tasks {
                    assert!(task.await.expect("a task").expect("a get").is_some());
                }
                start.elapsed()
            })
        }),
        Contender::timed("vyre, on two threads", 1, || {
            let folder = tempfile::tempdir().expect("a folder");
            let tiers: [Arc<dyn vyre::PipelineCacheStore>; 3] = [
                Arc::new(vyre::InMemoryPipelineCache::new()),
                Arc::new(vyre::DiskCache::new(folder.path()).expect("a cache")),
                Arc::new(FarVyre(vyre::InMemoryPipelineCache::new())),
            ];
            for number in 0..lookups {
                let bytes = payload(number, 4 << 10).to_vec();
                tiers[number * 7 % 3].put(vyre_key(&key(number)), bytes);
            }
            let cache = vyre::LayeredPipelineCache::new(tiers.to_vec());
            let next = AtomicUsize::new(0);
            let start = Instant::now();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        loop {
                            let number = next.fetch_add(1, Ordering::Relaxed);
                            if number >= lookups {
                                break;
                            }
                            assert!(cache.get_arc(&vyre_key(&key(number))).is_some());
                        }
                    });
                }
            });
            start.elapsed()
        }),
    ]);
    let goals = [("vyre, on two threads", 0.25)];
    report.case("layered_fan, 1,000 lookups", &figures, &goals);
}

/// Ten thousand tasks that want one key, and a compile of 50 ms.
fn stampede(plan: &Plan, report: &mut Report) {
    let tokio = Tokio::multi();
    let tasks = if plan.is_quick() { 100 } else { 10_000 };
    let mut waits = Vec::new();
    for round in 0..if plan.is_quick() { 1 } else { 5 } {
        let wait = tokio.run(async move {
            let memory = Arc::new(InMemoryPipelineCache::new());
            let cache = Arc::new(LayeredPipelineCache::new(vec![memory as _]));
            let compiles = Arc::new(AtomicUsize::new(0));
            let start = Instant::now();
            let tasks: Vec<_> = (0..tasks)
                .map(|_| {
                    let (cache, compiles) = (Arc::clone(&cache), Arc::clone(&compiles));
                    tokio::spawn(async move {
                        let compile = async move || {
                            compiles.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                            Ok::<_, StoreError>(Artifact::new("code"))
                        };
                        let compiled = cache.get_or_insert_with(&key(round), compile).await;
                        let source = compiled.expect("an artifact").source;
                        (start.elapsed(), matches!(source, CompileSource::Compiled))
                    })
                })
                .collect();
            let mut longest = Duration::ZERO;
            for task in tasks {
                longest = longest.max(task.await.expect("a task").0);
            }
            assert_eq!(compiles.load(Ordering::Relaxed), 1, "one compile");
            longest
        });
        waits.push(wait);
    }
    waits.sort();
    let median = waits[waits.len() / 2].as_secs_f64() * 1e3;
    let most = (!plan.is_quick()).then_some(60.0);
    report.bound("stampede", "last of 10,000 answered, ms", median, most);
}
