//! Kills, full disks and whatever else happens to a folder: what was flushed is there and right,
//! and nothing wrong is ever served.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment these run whole: 500 kills, 100,000
//! operations. Without, a share of that, in a few seconds.
#![cfg(unix)]

mod disk_support;

use disk_support::{Mount, child, entry, folder, is_child, key, names, open, skip, temporaries};
use futures::TryStreamExt as _;
use pipeline_cache::{Artifact, DiskCache, DiskCacheHealth, PipelineCacheStore, StoreErrorKind};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const ROOT: &str = "PIPELINE_CACHE_TEST_ROOT";
const ROUND: &str = "PIPELINE_CACHE_TEST_ROUND";

/// How much of a long test to do.
fn share(whole: u64, short: u64) -> u64 {
    match std::env::var_os("PIPELINE_CACHE_LONG_TESTS") {
        Some(_) => whole,
        None => short,
    }
}

/// The artifact of a key: what is served under another, or in part, shows.
fn artifact_of(number: u64, len: usize) -> Artifact {
    let mut payload = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut payload);
    Artifact::new(payload)
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    runtime.build().unwrap().block_on(future)
}

/// The numbers of a round, so that each round has keys of its own.
const KEYS_OF_A_ROUND: u64 = 1 << 32;

fn len_of(number: u64) -> usize {
    (number * 7919 % 20_000) as usize
}

/// Puts and flushes at full speed, and says what is flushed.
async fn put_and_flush() {
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let cache = open(root).await;
    let first = round * KEYS_OF_A_ROUND;
    for batch in 0.. {
        let numbers = first + batch * 8..first + (batch + 1) * 8;
        let puts = numbers.clone().map(|number| {
            let (cache, key) = (cache.clone(), key(number));
            async move { cache.put(&key, artifact_of(number, len_of(number))).await }
        });
        futures::future::try_join_all(puts).await.unwrap();
        cache.flush().await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "flushed {}", numbers.end).unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_flushed_survives_a_kill() {
    if is_child() {
        return block_on(put_and_flush());
    }
    let folder = folder();
    let root = folder.path().join("cache");
    let mut random = Random(1);
    let (mut flushed, mut unflushed) = (0, 0);
    for round in 0..share(500, 12) {
        let mut command = child("what_was_flushed_survives_a_kill");
        command.env(ROOT, &root).env(ROUND, round.to_string());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let said = std::thread::spawn(move || {
            let numbers = lines.map_while(Result::ok).filter_map(|line| {
                line.split_once("flushed ")
                    .and_then(|(_, number)| number.parse::<u64>().ok())
            });
            numbers.last()
        });
        // From before the open to well into the puts.
        std::thread::sleep(Duration::from_micros(random.below(120_000)));
        process.kill().unwrap();
        process.wait().unwrap();
        let first = round * KEYS_OF_A_ROUND;
        let end = said.join().unwrap().unwrap_or(first);
        flushed += end - first;

        block_on(async {
            let cache = open(&root).await;
            assert_eq!(temporaries(&root), [""; 0], "round {round}");
            for number in first..end + 16 {
                let got = cache.get(&key(number)).await.unwrap();
                let expected = artifact_of(number, len_of(number));
                match got {
                    Some(got) => assert_eq!(got.payload(), expected.payload()),
                    None => assert!(number >= end, "round {round}: {number} was flushed"),
                }
                unflushed +=
                    u64::from(number >= end && cache.contains(&key(number)).await.unwrap());
            }
            assert_eq!(cache.metrics().corrupt, 0, "round {round}");
        });
    }
    let whole = block_on(async {
        let cache = open(&root).await;
        let checks: Vec<_> = cache.verify().try_collect().await.unwrap();
        let is_whole = |check: &&pipeline_cache::DiskCacheVerification| {
            matches!(check.health, DiskCacheHealth::Whole)
        };
        assert_eq!(checks.iter().filter(is_whole).count(), checks.len());
        checks.len() as u64
    });
    println!("{flushed} flushed and {unflushed} unflushed entries survived, {whole} are there");
    assert_eq!(whole, flushed + unflushed);
    assert!(flushed > 0);
}

#[test]
fn a_disk_that_is_full_most_of_the_time() {
    let folder = folder();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "size=1m", "full"], folder.path()) else {
        return skip("no tmpfs");
    };
    block_on(async {
        let root = folder.path().join("cache");
        let cache = open(&root).await;
        let mut random = Random(2);
        let (mut stored, mut full) = (BTreeMap::new(), 0);
        for number in 0..4000 {
            let len = random.below(60_000) as usize;
            match cache.put(&key(number), artifact_of(number, len)).await {
                Ok(()) => drop(stored.insert(number, len)),
                Err(error) => {
                    assert_eq!(error.kind(), StoreErrorKind::StorageFull, "{error}");
                    assert!(!entry(&root, &key(number)).exists());
                    assert_eq!(cache.get(&key(number)).await.unwrap(), None);
                    full += 1;
                    // Sometimes somebody makes room.
                    if random.below(4) == 0 {
                        for _ in 0..3 {
                            if let Some((old, _)) = stored.pop_first() {
                                assert!(cache.remove(&key(old)).await.unwrap());
                            }
                        }
                    }
                }
            }
            if number % 100 == 0 {
                assert_eq!(temporaries(&root), [""; 0]);
                assert_eq!(names(&root).len(), stored.len());
                for (number, len) in &stored {
                    let got = cache.get(&key(*number)).await.unwrap().unwrap();
                    assert_eq!(got.payload(), artifact_of(*number, *len).payload());
                }
            }
        }
        assert!(
            full > 1000 && cache.metrics().puts > 300,
            "{full} {}",
            cache.metrics()
        );
        assert_eq!(cache.metrics().corrupt, 0);
        cache.clear().await.unwrap();
        cache.put(&key(0), artifact_of(0, 60_000)).await.unwrap();
        cache.flush().await.unwrap();
    });
}

/// What a model of the folder holds under a key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Whole,
    Damaged,
    /// A symbolic link.
    Unsafe,
}

#[test]
fn every_operation_answers_as_a_map_would() {
    let folder = folder();
    let root = folder.path().join("cache");
    block_on(model(&root, share(100_000, 4000)));
}

async fn model(root: &Path, operations: u64) {
    const KEYS: u64 = 40;
    let start = Instant::now();
    let mut random = Random(3);
    let mut held = BTreeMap::<u64, Held>::new();
    let mut cache = open(root).await;
    let reopen = async || {
        let settings = DiskCache::builder().root(root).max_entries(KEYS / 2);
        settings.open().await.unwrap()
    };
    for operation in 0..operations {
        let number = random.below(KEYS);
        let (key, path) = (key(number), entry(root, &key(number)));
        let len = len_of(number) / 4;
        let now = held.get(&number).copied();
        match random.below(100) {
            0..35 => {
                cache.put(&key, artifact_of(number, len)).await.unwrap();
                held.insert(number, Held::Whole);
            }
            35..70 => match (now, cache.get(&key).await) {
                (Some(Held::Whole), Ok(Some(got))) => {
                    assert_eq!(got.payload(), artifact_of(number, len).payload());
                }
                (Some(Held::Damaged), Ok(None)) => drop(held.remove(&number)),
                (None, Ok(None)) => {}
                (Some(Held::Unsafe), Err(error)) => {
                    assert_eq!(error.kind(), StoreErrorKind::UnsafeEntry);
                }
                (now, got) => panic!("operation {operation}: {now:?}, and got {got:?}"),
            },
            70..76 => match (now, cache.contains(&key).await) {
                (Some(Held::Whole | Held::Damaged), Ok(true)) | (None, Ok(false)) => {}
                (Some(Held::Unsafe), Err(_)) => {}
                (now, got) => panic!("operation {operation}: {now:?}, and contains {got:?}"),
            },
            76..86 => match (now, cache.remove(&key).await) {
                (Some(Held::Whole | Held::Damaged), Ok(true)) => drop(held.remove(&number)),
                (None, Ok(false)) => {}
                (Some(Held::Unsafe), Err(_)) => {}
                (now, got) => panic!("operation {operation}: {now:?}, and removed {got:?}"),
            },
            86..89 => {
                cache.flush().await.unwrap();
                assert!(cache.durability_report().durable);
            }
            // A bit rots.
            89..93 if now == Some(Held::Whole) => {
                let mut frame = fs::read(&path).unwrap();
                let bit = random.below(frame.len() as u64 * 8);
                frame[bit as usize / 8] ^= 1 << (bit % 8);
                fs::write(&path, frame).unwrap();
                held.insert(number, Held::Damaged);
            }
            // Somebody tidies up.
            93 => {
                let _ = fs::remove_file(&path);
                held.remove(&number);
            }
            94 => {
                let _ = fs::remove_file(&path);
                std::os::unix::fs::symlink("nowhere", &path).unwrap();
                held.insert(number, Held::Unsafe);
            }
            95 if random.below(20) == 0 => {
                fs::remove_dir_all(root).unwrap();
                fs::create_dir(root).unwrap();
                held.clear();
            }
            96 => {
                cache.close(Duration::from_secs(60)).await.unwrap();
                cache = open(root).await;
            }
            97 if random.below(5) == 0 => {
                let checks: Vec<_> = cache.verify().try_collect().await.unwrap();
                let found = checks.iter().map(|check| {
                    let held = match check.health {
                        DiskCacheHealth::Whole => Held::Whole,
                        DiskCacheHealth::Corrupt(_) => Held::Damaged,
                        _ => Held::Unsafe,
                    };
                    (check.key, held)
                });
                let model = held
                    .iter()
                    .map(|(number, held)| (disk_support::key(*number), *held));
                assert_eq!(
                    BTreeMap::from_iter(
                        found.map(|(key, held)| (key.to_hex(), format!("{held:?}")))
                    ),
                    BTreeMap::from_iter(
                        model.map(|(key, held)| (key.to_hex(), format!("{held:?}")))
                    )
                );
                held.retain(|_, held| *held != Held::Damaged);
            }
            98 if random.below(5) == 0 => {
                let bounded = reopen().await;
                let report = bounded.trim().await.unwrap();
                let left = report.scanned - report.removed;
                assert!(left <= KEYS / 2);
                for number in 0..KEYS {
                    let there = entry(root, &disk_support::key(number)).symlink_metadata();
                    if there.is_err() {
                        held.remove(&number);
                    }
                }
                let files = held.values().filter(|held| **held != Held::Unsafe).count();
                assert_eq!(files as u64, left, "nothing but what was trimmed is gone");
            }
            99 if random.below(20) == 0 => {
                let files = held.values().filter(|held| **held != Held::Unsafe).count();
                assert_eq!(cache.clear().await.unwrap(), files as u64);
                held.retain(|_, held| *held == Held::Unsafe);
            }
            _ => {}
        }
    }
    println!("{operations} operations in {:?}", start.elapsed());
    assert_eq!(temporaries(root), [""; 0]);
}
