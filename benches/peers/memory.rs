//! Hits in memory: the time of one, and how many there are when the working set is too large.

use bytes::Bytes;
use pipeline_cache::{
    Artifact, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore, PipelineFingerprint,
};
use rand::distr::Distribution as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};
use vyre_runtime::pipeline_cache as vyre;

use crate::measure::{Contender, Figures, Plan};
use crate::report::Report;
use crate::runtime::Tokio;

const KEYS: usize = 10_000;
const SIZE: usize = 4 << 10;

pub(crate) fn key(number: usize) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(crate) fn payload(number: usize, size: usize) -> Bytes {
    let mut bytes = vec![0; size];
    SmallRng::seed_from_u64(number as u64).fill_bytes(&mut bytes);
    bytes.into()
}

/// All keys, in an order that no prefetcher knows.
pub(crate) fn shuffled(count: usize, seed: u64) -> Vec<PipelineFingerprint> {
    let mut keys: Vec<_> = (0..count).map(key).collect();
    keys.shuffle(&mut SmallRng::seed_from_u64(seed));
    keys
}

pub(crate) fn cases(plan: &Plan, report: &mut Report) {
    for threads in [1, 2] {
        let case = format!("memory_hit, {threads} threads");
        if plan.wants(&case) {
            hits(plan, report, &case, threads);
        }
    }
    if plan.wants("memory_hit_zipf") {
        zipf(plan, report);
    }
}

/// One operation on one key, and the threads that do it.
fn contender<'a>(
    name: &str,
    threads: usize,
    keys: &'a [Vec<PipelineFingerprint>],
    get: impl Fn(&PipelineFingerprint) -> bool + Sync + 'a,
) -> Contender<'a> {
    let operations = keys[0].len();
    Contender::timed(name, operations, move || {
        let barrier = Barrier::new(threads);
        let times = thread::scope(|scope| {
            let run = |keys: &'a Vec<PipelineFingerprint>| {
                let (barrier, get) = (&barrier, &get);
                move || {
                    barrier.wait();
                    let start = Instant::now();
                    let hits = keys.iter().filter(|key| get(key)).count();
                    assert_eq!(black_box(hits), keys.len(), "all are hits");
                    start.elapsed()
                }
            };
            let handles: Vec<_> = keys.iter().map(|keys| scope.spawn(run(keys))).collect();
            let times = handles
                .into_iter()
                .map(|handle| handle.join().expect("a thread"));
            times.max()
        });
        times.unwrap_or(Duration::ZERO)
    })
}

fn hits(plan: &Plan, report: &mut Report, case: &str, threads: usize) {
    let goals = [
        ("vyre get_arc (dyn, layered)", 1.2),
        ("quick_cache", 2.0),
        ("moka::sync", 0.25),
    ];
    report.case(case, &figures(plan, KEYS, SIZE, threads), &goals);
}

/// Hits in caches that hold so many entries of this size.
pub(crate) fn figures(plan: &Plan, entries: usize, size: usize, threads: usize) -> Vec<Figures> {
    let rounds = plan.count(250_000).div_ceil(entries);
    let keys: Vec<_> = (0..threads)
        .map(|thread| shuffled(entries, thread as u64).repeat(rounds))
        .collect();
    let tokio = Tokio::multi();

    // Room for twice as many: none is to be evicted, whatever the sizes of the shards.
    let room = 2 * entries;
    let memory = Arc::new(InMemoryPipelineCache::with_limits(room as u64, u64::MAX));
    let ours: Arc<dyn PipelineCacheStore> =
        Arc::new(LayeredPipelineCache::new(vec![Arc::clone(&memory) as _]));
    let vyre = vyre::InMemoryPipelineCache::with_limits(room, usize::MAX);
    let vyre = vyre::LayeredPipelineCache::new(vec![Arc::new(vyre)]);
    let vyre: Arc<dyn vyre::PipelineCacheStore> = Arc::new(vyre);
    let quick = quick_cache::sync::Cache::<PipelineFingerprint, Artifact>::new(room);
    let moka = moka::sync::Cache::<PipelineFingerprint, Artifact>::new(room as u64);
    let foyer = foyer::CacheBuilder::new(room).build::<foyer::CacheProperties>();
    for number in 0..entries {
        let bytes = payload(number, size);
        let artifact = Artifact::new(bytes.clone());
        let (ours, put) = (Arc::clone(&ours), artifact.clone());
        tokio
            .run(async move { ours.put(&key(number), put).await })
            .expect("a put");
        vyre.put(vyre_key(&key(number)), bytes.to_vec());
        quick.insert(key(number), artifact.clone());
        moka.insert(key(number), artifact.clone());
        foyer.insert(key(number), artifact);
    }
    plan.contend(vec![
        contender("ours (dyn, layered)", threads, &keys, |key| {
            ours.peek(key).is_some()
        }),
        contender("vyre get_arc (dyn, layered)", threads, &keys, |key| {
            vyre.get_arc(&vyre_key(key)).is_some()
        }),
        contender("quick_cache", threads, &keys, |key| {
            quick.get(key).is_some()
        }),
        contender("moka::sync", threads, &keys, |key| moka.get(key).is_some()),
        contender("foyer memory", threads, &keys, |key| {
            foyer.get(key).is_some()
        }),
        contender("ours (get().await, boxed future)", threads, &keys, |key| {
            futures::executor::block_on(ours.get(key)).is_ok_and(|hit| hit.is_some())
        }),
    ])
}

pub(crate) fn vyre_key(key: &PipelineFingerprint) -> vyre::PipelineFingerprint {
    vyre::PipelineFingerprint(*key.as_bytes())
}

/// A working set of four times the budget, asked for by Zipf's law.
fn zipf(plan: &Plan, report: &mut Report) {
    let budget = KEYS / 4;
    let asks = plan.count(400_000);
    let law = rand_distr::Zipf::new(KEYS as f64, 0.9).expect("a law");
    let mut random = SmallRng::seed_from_u64(1);
    let asked: Vec<usize> = (0..asks)
        .map(|_| law.sample(&mut random) as usize)
        .collect();
    let artifacts: Vec<_> = (0..=KEYS)
        .map(|number| Artifact::new(payload(number, SIZE)))
        .collect();
    let keys: Vec<_> = (0..=KEYS).map(key).collect();
    let tokio = Tokio::current();

    let limit = (budget * SIZE) as u64;
    let ours = Arc::new(InMemoryPipelineCache::with_limits(budget as u64, limit));
    let (mut hits, mut most_bytes, mut most_entries) = (0, 0, 0);
    for &number in &asked {
        let (key, artifact) = (keys[number], artifacts[number].clone());
        let asked = Arc::clone(&ours);
        hits += usize::from(tokio.run(async move {
            let hit = asked.get(&key).await.expect("a get").is_some();
            if !hit {
                asked.put(&key, artifact).await.expect("a put");
            }
            hit
        }));
        most_bytes = most_bytes.max(ours_bytes(&ours));
        most_entries = most_entries.max(ours_entries(&ours));
    }
    let moka = moka::sync::Cache::<PipelineFingerprint, Artifact>::new(budget as u64);
    let moka_hits = asked.iter().filter(|&&number| {
        let hit = moka.get(&keys[number]).is_some();
        if !hit {
            moka.insert(keys[number], artifacts[number].clone());
        }
        hit
    });
    let moka_hits = moka_hits.count();
    let ratio = moka_hits as f64 / (hits.max(1)) as f64;
    report.line(&format!(
        "\nmemory_hit_zipf: hits of {asks}: ours {hits}, bare moka {moka_hits}; at most \
         {most_entries} entries of {budget}, {most_bytes} bytes of {limit}"
    ));
    report.bound("memory_hit_zipf", "moka's hits / ours", ratio, Some(1.01));
    let over = most_bytes as f64 / limit as f64;
    report.bound(
        "memory_hit_zipf budget",
        "most bytes held / budget",
        over,
        Some(1.0),
    );
}

fn ours_bytes(cache: &InMemoryPipelineCache) -> u64 {
    cache.metrics().cached_bytes
}

fn ours_entries(cache: &InMemoryPipelineCache) -> u64 {
    cache.metrics().entries
}
