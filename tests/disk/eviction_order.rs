//! Entries are evicted in the order that the settings name, and that by compile time saves more of it
//! than the order of last use.

use crate::support::{Random, entry, folder, is_long, key, names};
use pipeline_cache::disk::EvictionOrder;
use pipeline_cache::{
    Artifact, ArtifactMetadata, DiskCache, DiskCacheBuilder, PipelineCacheStore as _,
};
use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

fn by_time_saved() -> DiskCacheBuilder {
    DiskCache::builder().eviction_order(EvictionOrder::LeastTimeSaved)
}

async fn opened(settings: DiskCacheBuilder, root: &Path) -> DiskCache {
    settings.root(root).open().await.unwrap()
}

fn artifact(bytes: usize, compile_time: Option<Duration>) -> Artifact {
    let metadata = match compile_time {
        Some(time) => ArtifactMetadata::new().with_compile_time(time),
        None => ArtifactMetadata::new(),
    };
    Artifact::with_metadata(vec![7; bytes], metadata)
}

fn set_age(root: &Path, number: u64, age: Duration) {
    let file = File::open(entry(root, &key(number))).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

async fn kept(cache: &DiskCache, of: u64) -> Vec<u64> {
    let mut kept = Vec::new();
    for number in 0..of {
        if cache.contains(&key(number)).await.unwrap() {
            kept.push(number);
        }
    }
    kept
}

/// What is kept of entries with these sizes in bytes, compile times in milliseconds and ages in hours.
async fn kept_of(settings: DiskCacheBuilder, entries: &[(usize, Option<u64>, u32)]) -> Vec<u64> {
    let folder = folder();
    let unbounded = opened(DiskCache::builder(), folder.path()).await;
    for (number, (bytes, compile_time, hours)) in (0..).zip(entries) {
        let artifact = artifact(*bytes, compile_time.map(Duration::from_millis));
        unbounded.put(&key(number), artifact).await.unwrap();
        set_age(folder.path(), number, HOUR * *hours);
    }
    let bounded = opened(settings, folder.path()).await;
    bounded.trim().await.unwrap();
    kept(&bounded, entries.len() as u64).await
}

#[tokio::test]
async fn what_saves_least_for_its_bytes_goes_first() {
    let entries = [
        (10_000, Some(500), 0),
        (10_000, Some(5), 0),
        (10_000, Some(50), 0),
        // As much in all as the first, and a tenth of it for a byte.
        (100_000, Some(500), 0),
    ];
    let settings = by_time_saved().max_entries(2);
    assert_eq!(kept_of(settings, &entries).await, [0, 3]);
    let settings = by_time_saved().max_entries(1);
    assert_eq!(kept_of(settings, &entries).await, [0]);
    let settings = DiskCache::builder().max_entries(1);
    assert_ne!(
        kept_of(settings, &[entries[1], (10_000, Some(500), 1)]).await,
        [1]
    );
}

#[tokio::test]
async fn what_is_not_used_for_long_goes_whatever_it_took() {
    let entries = [
        (10_000, Some(50), 0),
        (10_000, Some(500), 8),
        (10_000, Some(500), 11),
    ];
    let settings = by_time_saved().max_entries(2);
    assert_eq!(kept_of(settings.clone(), &entries).await, [0, 1]);
    assert_eq!(kept_of(settings.max_entries(1), &entries).await, [1]);
}

#[tokio::test]
async fn what_is_too_old_goes_before_all_others() {
    let entries = [
        (10_000, Some(1), 0),
        (10_000, Some(60_000), 49),
        (10_000, Some(2), 47),
    ];
    let settings = by_time_saved().max_age(HOUR * 48);
    assert_eq!(kept_of(settings, &entries).await, [0, 2]);
}

#[tokio::test]
async fn an_unknown_compile_time_counts_as_a_usual_one() {
    let entries = [
        (1_000_000, None, 0),
        (1_000_000, Some(110), 0),
        (1_000_000, Some(90), 0),
    ];
    let settings = by_time_saved();
    assert_eq!(
        kept_of(settings.clone().max_entries(2), &entries).await,
        [0, 1]
    );
    assert_eq!(kept_of(settings.max_entries(1), &entries).await, [1]);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_harms_no_other() {
    let folder = folder();
    let unbounded = opened(DiskCache::builder(), folder.path()).await;
    for number in 0..3 {
        unbounded
            .put(&key(number), artifact(100, Some(HOUR)))
            .await
            .unwrap();
    }
    std::fs::write(entry(folder.path(), &key(3)), "torn").unwrap();
    std::fs::write(entry(folder.path(), &key(4)), "").unwrap();
    let cache = opened(by_time_saved().max_entries(2), folder.path()).await;
    cache.trim().await.unwrap();
    assert_eq!(kept(&cache, 3).await.len(), 2);
    assert_eq!(cache.trim().await.unwrap().scanned, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_evict_in_this_order_in_the_background() {
    let folder = folder();
    let cache = opened(by_time_saved().max_entries(16), folder.path()).await;
    for number in 0..100 {
        let compile_time = if number < 8 {
            HOUR
        } else {
            Duration::from_micros(1)
        };
        cache
            .put(&key(number), artifact(100, Some(compile_time)))
            .await
            .unwrap();
    }
    cache.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(kept(&cache, 8).await.len(), 8);
    let entries = names(folder.path());
    assert!(entries.iter().filter(|name| name.ends_with(".bin")).count() < 24);
}

/// A program of the trace.
#[derive(Clone, Copy)]
struct Compiled {
    bytes: u64,
    time: Duration,
}

/// What real compilers took: see the head of the file.
fn compiled() -> Vec<Compiled> {
    let rows = include_str!("compile_times.csv").lines();
    let rows = rows.filter(|row| !row.starts_with('#')).map(|row| {
        let [_, bytes, micros] = row.split(',').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        Compiled {
            bytes: bytes.parse().unwrap(),
            time: Duration::from_micros(micros.parse().unwrap()),
        }
    });
    rows.collect()
}

/// Which program each lookup is for: the n-th most popular 1/n^skew times as often as the first.
fn lookups(programs: usize, count: usize, skew: f64, random: &mut Random) -> Vec<usize> {
    let mut popular: Vec<_> = (0..programs).collect();
    for at in (1..programs).rev() {
        popular.swap(at, random.below(at as u64 + 1) as usize);
    }
    let weights: Vec<_> = (1..=programs)
        .map(|rank| (rank as f64).powf(-skew))
        .collect();
    let sum: f64 = weights.iter().sum();
    let draw = |_| {
        let mut left = random.below(1 << 30) as f64 / f64::from(1 << 30) * sum;
        let rank = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        popular[rank.unwrap_or(programs - 1)]
    };
    (0..count).map(draw).collect()
}

/// The files are an eighth as large as they were, so that this does not take long.
const SHRINK: u64 = 8;

/// The compile time that a folder of so many bytes saves, where a lookup comes once a minute.
async fn saved(
    programs: &[Compiled],
    lookups: &[usize],
    max_bytes: u64,
    order: EvictionOrder,
) -> Duration {
    const MINUTE: Duration = Duration::from_secs(60);
    let folder = folder();
    let unbounded = opened(DiskCache::builder(), folder.path()).await;
    let bounded = DiskCache::builder()
        .eviction_order(order)
        .max_bytes(max_bytes);
    let bounded = opened(bounded, folder.path()).await;
    let (mut saved, mut held) = (Duration::ZERO, 0);
    let mut used = vec![None; programs.len()];
    for (minute, &number) in (0_u32..).zip(lookups) {
        let program = programs[number];
        let key_of = key(number as u64);
        used[number] = Some(minute);
        if unbounded.get(&key_of).await.unwrap().is_some() {
            saved += program.time;
            continue;
        }
        let payload = (program.bytes / SHRINK).saturating_sub(160).max(1);
        let compiled = artifact(payload as usize, Some(program.time));
        unbounded.put(&key_of, compiled).await.unwrap();
        held += std::fs::metadata(entry(folder.path(), &key_of))
            .unwrap()
            .len();
        if held <= max_bytes {
            continue;
        }
        // As old as if the minutes had passed.
        for (number, used) in used.iter().enumerate() {
            let Some(used) = used else { continue };
            if let Ok(file) = File::open(entry(folder.path(), &key(number as u64))) {
                let age = MINUTE * (minute - used);
                file.set_modified(SystemTime::now() - age).unwrap();
            }
        }
        let report = bounded.trim().await.unwrap();
        held = report.scanned_bytes - report.removed_bytes;
    }
    saved
}

/// Both orders on the same traces, at four sizes of the folder. With `--nocapture` it prints the table;
/// with `PIPELINE_CACHE_LONG_TESTS` it takes eight traces for each of three skews of the popularity.
#[tokio::test(flavor = "multi_thread")]
async fn it_saves_more_compile_time_than_the_order_of_last_use() {
    let (traces, skews) = if is_long() {
        (8, &[0.6, 0.9, 1.2][..])
    } else {
        (2, &[0.6][..])
    };
    let programs = compiled();
    let total: u64 = programs.iter().map(|program| program.bytes / SHRINK).sum();
    println!("skew  folder  last use  time saved  ratio");
    for &skew in skews {
        let mut product: f64 = 1.0;
        for percent in [5, 10, 20, 40] {
            let max_bytes = total * percent / 100;
            let (mut by_use, mut by_time) = (0.0, 0.0);
            for trace in 1..=traces {
                let mut random = Random(0x1234_5678_9abc_def1 * trace);
                let lookups = lookups(programs.len(), 1_000, skew, &mut random);
                let saved = |order| saved(&programs, &lookups, max_bytes, order);
                by_use += saved(EvictionOrder::LeastRecentlyUsed).await.as_secs_f64();
                by_time += saved(EvictionOrder::LeastTimeSaved).await.as_secs_f64();
            }
            let ratio = by_time / by_use;
            product *= ratio;
            println!("{skew:>4} {percent:>5} % {by_use:>7.1} s {by_time:>9.1} s {ratio:>6.2}");
        }
        let mean = product.powf(0.25);
        println!("{skew:>4} mean {mean:>29.2}");
        if skew < 1.0 {
            assert!(mean > 1.1, "skew {skew}: {mean}");
        }
    }
}
