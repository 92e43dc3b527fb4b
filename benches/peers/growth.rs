//! How cost grows: with the size of entries, with tasks, with the number of entries.

use pipeline_cache::{
    Artifact, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore as _,
    PipelineFingerprint,
};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vyre_runtime::pipeline_cache as vyre;

use crate::disk::{Filled, read_and_hash};
use crate::measure::{Contender, Plan};
use crate::memory::{self, key, payload, shuffled, vyre_key};
use crate::plot::{Axis, Plot, thousands};
use crate::report::Report;
use crate::runtime::Tokio;

const BY_ENTRIES: &str = "growth by entries";

pub(crate) fn cases(plan: &Plan, plots: Option<&Path>, report: &mut Report) {
    type Measure = fn(&Plan, &Tokio, &mut Report) -> Plot;
    let growths: [(&str, &str, Measure); 3] = [
        ("growth by size", "latency_by_size.svg", by_size),
        ("growth by tasks", "latency_by_tasks.svg", by_tasks),
        (BY_ENTRIES, "latency_by_entries.svg", by_entries),
    ];
    let tokio = Tokio::multi();
    for (case, file, measure) in growths {
        if !plan.wants(case) {
            continue;
        }
        let plot = measure(plan, &tokio, report);
        if let Some(folder) = plots {
            std::fs::create_dir_all(folder).expect("a folder for plots");
            plot.draw(&folder.join(file));
        }
    }
}

fn by_size(plan: &Plan, tokio: &Tokio, report: &mut Report) -> Plot {
    let mut plot = Plot::new("A hit on disk, by the size of the artifact", Axis::Bytes);
    let keys = Arc::new(shuffled(1_000, 0));
    for size in (10..=24).step_by(2).map(|power| 1_usize << power) {
        let entries = plan.count(((32 << 20) / size).clamp(4, 400));
        let folder = Filled::new(tokio, entries, size);
        let memory = in_memory(tokio, &keys, Artifact::new(payload(0, size)));
        let mut contenders = folder.hits(plan, tokio);
        contenders.push(Contender::new("ours, in memory", keys.len(), || {
            let hits = keys.iter().filter(|key| memory.peek(key).is_some());
            hits.count()
        }));
        let figures = plan.contend(contenders);
        let case = format!("growth by size: {}", Axis::Bytes.label(size as f64));
        report.case(&case, &figures, &[]);
        plot.add(size, &figures);
    }
    plot
}

/// All of the keys in memory.
fn in_memory(
    tokio: &Tokio,
    keys: &Arc<Vec<PipelineFingerprint>>,
    artifact: Artifact,
) -> Arc<InMemoryPipelineCache> {
    let room = 2 * keys.len() as u64;
    let memory = Arc::new(InMemoryPipelineCache::with_limits(room, u64::MAX));
    let (filled, keys) = (Arc::clone(&memory), Arc::clone(keys));
    tokio.run(async move {
        for key in keys.iter() {
            filled.put(key, artifact.clone()).await.expect("a put");
        }
    });
    memory
}

/// Lookups of different keys at once, each in a task of its own.
fn by_tasks(plan: &Plan, tokio: &Tokio, report: &mut Report) -> Plot {
    let axis = Axis::Count("lookups at once");
    let mut plot = Plot::new("A hit of 4 KiB, by lookups at once", axis);
    let most = plan.count(10_000);
    let folder = Filled::new(tokio, most, 4 << 10);
    let steps = [1, 10, 100, 1_000, 10_000].into_iter();
    for at_once in steps.filter(|at_once| *at_once <= most) {
        let keys = &folder.keys[..at_once.max(1_000).min(most)];
        let waves = Waves {
            tokio,
            keys: keys.into(),
            at_once,
        };
        let figures = plan.contend(waves.contenders(&folder));
        let case = format!("growth by tasks: {} at once", thousands(at_once as u64));
        report.case(&case, &figures, &[]);
        plot.add(at_once, &figures);
    }
    plot
}

/// How lookups come.
struct Waves<'a> {
    tokio: &'a Tokio,
    keys: Arc<[PipelineFingerprint]>,
    at_once: usize,
}

impl<'a> Waves<'a> {
    fn contenders(&self, folder: &'a Filled) -> Vec<Contender<'a>> {
        let layered = |memory| {
            let cache = LayeredPipelineCache::builder().shared_tier(memory);
            Arc::new(cache.tier(folder.ours.clone()).build())
        };
        let artifact = Artifact::new(payload(0, 4 << 10));
        let warm = layered(in_memory(self.tokio, &folder.keys, artifact));
        let (tokio, keys, at_once) = (self.tokio, Arc::clone(&self.keys), self.at_once);
        let ours = Contender::timed("ours, on disk", keys.len(), move || {
            // Each time with nothing in memory, so that all come from the disk.
            let cache = layered(Arc::new(InMemoryPipelineCache::new()));
            let (asked, keys) = (Arc::clone(&cache), Arc::clone(&keys));
            tokio.run(async move {
                let elapsed = waves(&keys, at_once, |key| hit(Arc::clone(&asked), key)).await;
                // Promotions are not to run on into the turn of the next.
                cache.flush().await.expect("a flush");
                elapsed
            })
        });
        vec![
            ours,
            self.contender("ours, in memory", move || {
                let cache = Arc::clone(&warm);
                move |key| hit(Arc::clone(&cache), key)
            }),
            self.contender("vyre, on disk (synchronous)", || {
                let memory = Arc::new(vyre::InMemoryPipelineCache::new());
                let disk = Arc::clone(&folder.vyre);
                let cache = Arc::new(vyre::LayeredPipelineCache::new(vec![memory, disk]));
                move |key| {
                    let cache = Arc::clone(&cache);
                    async move {
                        let cache: &dyn vyre::PipelineCacheStore = &*cache;
                        cache.get_arc(&vyre_key(&key)).is_some()
                    }
                }
            }),
            self.contender("tokio::fs::read (unverified)", || {
                let plain = folder.plain();
                move |key| {
                    let read = tokio::fs::read(plain.join(key.to_hex()));
                    async move { !read.await.expect("a read").is_empty() }
                }
            }),
            self.contender("cacache", || {
                let cached = folder.cached();
                move |key| {
                    let cached = cached.clone();
                    async move {
                        let read = cacache::read(&cached, key.to_hex()).await;
                        !read.expect("a read").is_empty()
                    }
                }
            }),
        ]
    }

    /// `open` makes what is asked in one round.
    fn contender<Get, Hit>(&self, name: &'static str, open: impl Fn() -> Get + 'a) -> Contender<'a>
    where
        Get: Fn(PipelineFingerprint) -> Hit + Send + 'static,
        Hit: Future<Output = bool> + Send + 'static,
    {
        let (tokio, keys, at_once) = (self.tokio, Arc::clone(&self.keys), self.at_once);
        Contender::timed(name, keys.len(), move || {
            let (get, keys) = (open(), Arc::clone(&keys));
            tokio.run(async move { waves(&keys, at_once, get).await })
        })
    }
}

/// The time for lookups of all keys, so many at once, each in a task of its own.
async fn waves<Hit>(
    keys: &[PipelineFingerprint],
    at_once: usize,
    get: impl Fn(PipelineFingerprint) -> Hit,
) -> Duration
where
    Hit: Future<Output = bool> + Send + 'static,
{
    let start = Instant::now();
    for wave in keys.chunks(at_once) {
        let tasks: Vec<_> = wave.iter().map(|key| tokio::spawn(get(*key))).collect();
        for task in tasks {
            assert!(task.await.expect("a task"), "all are hits");
        }
    }
    start.elapsed()
}

async fn hit(cache: Arc<LayeredPipelineCache>, key: PipelineFingerprint) -> bool {
    cache.get(&key).await.expect("a get").is_some()
}

/// How many entries there are.
fn counts(plan: &Plan) -> impl Iterator<Item = usize> {
    let most = if plan.is_quick() { 1_000 } else { 1_000_000 };
    let counts = [1_000, 10_000, 100_000, 1_000_000].into_iter();
    counts.filter(move |entries| *entries <= most)
}

fn by_entries(plan: &Plan, tokio: &Tokio, report: &mut Report) -> Plot {
    let title = "A hit in memory, and on disk (the two lines on top), by entries";
    let mut plot = Plot::new(title, Axis::Count("entries"));
    for entries in counts(plan) {
        let count = thousands(entries as u64);
        let figures = memory::figures(plan, entries, 64, 1);
        report.case(&format!("{BY_ENTRIES}: {count} in memory"), &figures, &[]);
        plot.add(entries, &figures);

        let folder = tempfile::tempdir().expect("a folder");
        fill(folder.path(), entries);
        let case = format!("{BY_ENTRIES}: open a folder of {count}");
        let start = Instant::now();
        open(tokio, folder.path());
        let first = start.elapsed().as_secs_f64() * 1e3;
        report.bound(&case, "ms for the first time", first, None);
        let again = Contender::new("ours, again", 1, || open(tokio, folder.path()));
        report.case(&case, &plan.contend(vec![again]), &[]);
        let figures = plan.contend(gets(plan, tokio, folder.path(), entries));
        report.case(&format!("{BY_ENTRIES}: {count} on disk"), &figures, &[]);
        plot.add(entries, &figures);
    }
    plot
}

/// By hand: what is measured is a folder that has grown, and not its growth.
fn fill(folder: &Path, entries: usize) {
    for number in 0..entries {
        let key = key(number);
        let frame = Artifact::new(payload(number, 200)).to_frame(&key, None);
        let path = folder.join(format!("{key}.bin"));
        std::fs::write(path, frame.expect("a frame")).expect("a write");
    }
}

fn open(tokio: &Tokio, root: &Path) -> DiskCache {
    let root = root.to_owned();
    tokio.run(async move { DiskCache::new(root).await.expect("a cache") })
}

/// Reads all over the folder, of the same files.
fn gets<'a>(plan: &Plan, tokio: &'a Tokio, root: &'a Path, entries: usize) -> Vec<Contender<'a>> {
    let keys = shuffled(entries, 1).into_iter().take(plan.count(10_000));
    let keys: Arc<[_]> = keys.collect();
    let (operations, inline) = (keys.len(), Arc::clone(&keys));
    let cache = open(tokio, root);
    vec![
        Contender::new("ours, on disk", operations, move || {
            let (cache, keys) = (cache.clone(), Arc::clone(&keys));
            tokio.run(async move {
                for key in keys.iter() {
                    assert!(cache.get(key).await.expect("a get").is_some());
                }
            });
        }),
        Contender::new("inline std::fs::read + blake3", operations, move || {
            let files = inline.iter().map(|key| root.join(format!("{key}.bin")));
            files.map(|path| read_and_hash(&path)).sum::<usize>()
        }),
    ]
}

/// What the process grows by with each entry in memory. Measured before all else, while there is no
/// memory that was freed and could be used again.
pub(crate) fn overhead(plan: &Plan, report: &mut Report) {
    if !plan.wants(BY_ENTRIES) {
        return;
    }
    let tokio = Tokio::multi();
    let mut kept = Vec::new();
    for entries in counts(plan) {
        let before = resident();
        let limits = InMemoryPipelineCache::with_limits(2 * entries as u64, u64::MAX);
        let cache = Arc::new(limits);
        let filled = Arc::clone(&cache);
        tokio.run(async move {
            for number in 0..entries {
                // Of its own: what an artifact is made of belongs to the entry, too.
                let artifact = Artifact::new(&b""[..]);
                filled.put(&key(number), artifact).await.expect("a put");
            }
        });
        let each = resident().saturating_sub(before) as f64 / entries as f64;
        kept.push(cache);
        let case = format!("{BY_ENTRIES}: memory of {}", thousands(entries as u64));
        report.bound(&case, "bytes per entry beside the payload", each, None);
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}
