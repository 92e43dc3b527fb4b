//! A folder of a million entries opens, answers and is trimmed as one of a thousand, in little
//! memory.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment there are a million, which take 5 GB of
//! disk for some minutes, and times are held to what is promised. Without, there are 5,000, and
//! times are only printed: they are those of a machine that runs other tests as well.

use crate::support::{ROOT, block_on, child, folder, is_child, is_long, key, names, open};
use futures::StreamExt as _;
use pipeline_cache::{Artifact, DiskCache, PipelineCacheStore};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Entries of the folder that the large one is compared with.
const FEW: u64 = 1000;

/// The most resident memory of the cache, whatever it is asked.
const MEMORY: u64 = 16 << 20;

/// The p99 of gets beside a trim.
const BESIDE_A_TRIM: Duration = Duration::from_millis(5);

fn many() -> u64 {
    if is_long() { 1_000_000 } else { 5000 }
}

fn artifact_of(number: u64) -> Artifact {
    Artifact::new(number.to_le_bytes().repeat(25))
}

async fn fill(root: &Path, entries: u64) {
    let cache = &open(root).await;
    futures::stream::iter(0..entries)
        .for_each_concurrent(16, |number| async move {
            let put = async { cache.put(&key(number), artifact_of(number)).await };
            put.await.unwrap();
        })
        .await;
    cache.close(Duration::from_secs(600)).await.unwrap();
}

/// A figure of this process, in bytes.
fn memory(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// How many calls took how long. Of fixed size, so that millions of calls do not count as memory of
/// the cache.
struct Times {
    /// By tenths of a microsecond, up to 10 ms.
    counts: Vec<u32>,
    calls: u64,
    longest: Duration,
}

impl Times {
    const STEP: Duration = Duration::from_nanos(100);
    const STEPS: usize = 100_000;

    fn new() -> Self {
        Self {
            counts: vec![0; Self::STEPS + 1],
            calls: 0,
            longest: Duration::ZERO,
        }
    }

    fn add(&mut self, time: Duration) {
        let step = time.as_nanos() / Self::STEP.as_nanos();
        let step = usize::try_from(step).unwrap().min(Self::STEPS);
        self.counts[step] += 1;
        self.calls += 1;
        self.longest = self.longest.max(time);
    }

    /// What so many of a thousand calls took at most.
    fn of(&self, per_mille: u64) -> Duration {
        let mut left = self.calls * per_mille / 1000;
        for (step, count) in (1..).zip(&self.counts[..Self::STEPS]) {
            left = match left.checked_sub(u64::from(*count)) {
                None | Some(0) => return (Self::STEP * step).min(self.longest),
                Some(left) => left,
            };
        }
        self.longest
    }
}

async fn timed<T>(times: &mut Times, call: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = call.await;
    times.add(start.elapsed());
    result
}

async fn get(cache: &DiskCache, number: u64) -> bool {
    let got = cache.get(&key(number)).await.unwrap();
    assert!(got.as_ref().is_none_or(|got| *got == artifact_of(number)));
    got.is_some()
}

/// Opens both folders, some times.
async fn opens(few: &Path, many: &Path) {
    for (root, what) in [(few, FEW), (many, self::many())] {
        let mut times = Times::new();
        for _ in 0..9 {
            timed(&mut times, open(root)).await;
        }
        println!(
            "open at {what}: {:?}, at most {:?}",
            times.of(500),
            times.longest
        );
        assert!(!is_long() || times.longest < Duration::from_millis(20));
    }
}

/// Gets as many entries from both folders, by turns, so that both meet the same weather.
async fn gets(few: &Path, many: &Path) {
    let (few, many) = (open(few).await, open(many).await);
    let stride = self::many() / FEW;
    let mut times = [Times::new(), Times::new()];
    for round in 0..11 {
        for number in 0..FEW {
            // The first round is to warm up.
            if round == 0 {
                times = [Times::new(), Times::new()];
            }
            let [at_few, at_many] = &mut times;
            assert!(timed(at_few, get(&few, number)).await);
            assert!(timed(at_many, get(&many, number * stride)).await);
        }
    }
    let [at_few, at_many] = times.map(|times| times.of(500));
    let ratio = at_many.as_secs_f64() / at_few.as_secs_f64();
    println!(
        "get at {FEW}: {at_few:?}, at {}: {at_many:?}, {ratio:.2} times as long",
        self::many()
    );
    assert!(!is_long() || ratio < 1.3);
}

/// Trims half of them away, with gets beside it; the times of gets without, and of these.
async fn trim(root: &Path) -> [Times; 2] {
    let half = many() / 2;
    let cache = DiskCache::builder().root(root).max_entries(half);
    let cache = cache.open().await.unwrap();
    let mut number = 0;
    let mut next = || {
        number = (number + 7919) % many();
        number
    };
    let mut alone = Times::new();
    for _ in 0..FEW * 10 {
        timed(&mut alone, get(&cache, next())).await;
    }
    let trimming = tokio::spawn({
        let cache = cache.clone();
        async move { cache.trim().await.unwrap() }
    });
    let (mut beside, mut hits) = (Times::new(), 0_u64);
    while !trimming.is_finished() {
        hits += u64::from(timed(&mut beside, get(&cache, next())).await);
    }
    let report = trimming.await.unwrap();
    println!(
        "trim of {} in {:?}; beside it {} gets, {hits} hits",
        report.removed, report.elapsed, beside.calls,
    );
    assert_eq!((report.scanned, report.removed), (many(), many() - half));
    [alone, beside]
}

#[test]
fn a_million_entries_in_one_folder() {
    let roots = |parent: &Path| (parent.join("few"), parent.join("many"));
    if is_child() {
        let parent = PathBuf::from(std::env::var_os(ROOT).unwrap());
        let (few, many) = roots(&parent);
        return block_on(async {
            let before = memory("VmRSS");
            opens(&few, &many).await;
            gets(&few, &many).await;
            let gets = memory("VmHWM") - before;
            let times = trim(&many).await;
            let trim = memory("VmHWM") - before;
            let left = memory("VmRSS").saturating_sub(before);
            println!(
                "resident at {} entries: {gets} bytes for opens and gets, {trim} at most with the trim, {left} after it",
                self::many()
            );
            assert!(trim < MEMORY);
            let [_alone, beside] = times.map(|times| {
                let ([p50, p99], max) = ([500, 990].map(|share| times.of(share)), times.longest);
                println!("gets: {p50:?}, p99 {p99:?}, at most {max:?}");
                p99
            });
            assert!(!is_long() || beside < BESIDE_A_TRIM);
        });
    }
    let folder = folder();
    let (few, many) = roots(folder.path());
    let start = Instant::now();
    block_on(async {
        fill(&few, FEW).await;
        fill(&many, self::many()).await;
    });
    println!("put {} entries in {:?}", self::many(), start.elapsed());
    // Another process: what the puts took does not count.
    let output = child(module_path!(), "a_million_entries_in_one_folder")
        .env(ROOT, folder.path())
        .output();
    let output = output.unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    crate::support::assert_success(&output);
    let left = names(&many).len() as u64;
    assert_eq!(left, self::many() / 2);
}
