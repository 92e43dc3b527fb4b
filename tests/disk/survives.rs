//! Kills, full disks and whatever else happens to a folder: what was flushed is there and right,
//! and nothing wrong is ever served.
//!
//! With `PIPELINE_CACHE_LONG_TESTS=1` in the environment there are 500 kills; without, a share of
//! that, in a few seconds.

use crate::support::{
    Mount, ROOT, Random, artifact_of, block_on, child, entry, folder, is_child, is_long, key,
    names, open, skip, temporaries,
};
use futures::TryStreamExt as _;
use pipeline_cache::disk::{DiskCacheHealth, DiskCacheVerification};
use pipeline_cache::{PipelineCacheStore, StoreErrorKind};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

const ROUND: &str = "PIPELINE_CACHE_TEST_ROUND";

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
    for round in 0..if is_long() { 500 } else { 12 } {
        let mut command = child(module_path!(), "what_was_flushed_survives_a_kill");
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
        let is_whole =
            |check: &&DiskCacheVerification| matches!(check.health, DiskCacheHealth::Whole);
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
