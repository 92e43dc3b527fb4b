//! A trim brings the folder within its bounds and harms nothing else in it.

use crate::support::{USAGE, artifact, entry, folder, key, names, open};
use pipeline_cache::{DiskCache, DiskCacheBuilder, PipelineCacheStore, StoreErrorKind};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

/// A folder of ten entries; entry 0 was used ten hours ago, entry 9 one hour ago.
async fn filled(settings: DiskCacheBuilder) -> (tempfile::TempDir, DiskCache) {
    let folder = folder();
    let unbounded = open(folder.path()).await;
    for number in 0..10 {
        unbounded.put(&key(number), artifact(1000)).await.unwrap();
        used(&unbounded, number, HOUR * (10 - number as u32));
    }
    let cache = settings.root(folder.path()).open().await.unwrap();
    (folder, cache)
}

fn used(cache: &DiskCache, number: u64, ago: Duration) {
    let file = File::open(entry(cache.root(), &key(number))).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

async fn kept(cache: &DiskCache) -> Vec<u64> {
    let mut kept = Vec::new();
    for number in 0..10 {
        if cache.contains(&key(number)).await.unwrap() {
            kept.push(number);
        }
    }
    kept
}

#[tokio::test]
async fn to_a_number_of_entries() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(3)).await;
    let report = cache.trim().await.unwrap();
    assert_eq!(kept(&cache).await, [7, 8, 9]);
    assert_eq!((report.scanned, report.removed), (10, 7));
    assert_eq!(report.removed_bytes * 10, report.scanned_bytes * 7);
    let oldest = report.oldest_kept.unwrap().elapsed().unwrap();
    assert!((HOUR * 3..HOUR * 4).contains(&oldest));
    let metrics = cache.metrics();
    assert_eq!(
        (metrics.evictions, metrics.evicted_bytes),
        (7, report.removed_bytes)
    );
    assert_eq!(
        (metrics.entries, metrics.cached_bytes),
        (3, report.scanned_bytes - report.removed_bytes)
    );

    let again = cache.trim().await.unwrap();
    assert_eq!((again.scanned, again.removed), (3, 0));
}

#[tokio::test]
async fn to_a_number_of_bytes() {
    let (_folder, probe) = filled(DiskCache::builder()).await;
    let each = fs::metadata(entry(probe.root(), &key(0))).unwrap().len();
    for (max_bytes, expected) in [(each * 4, 4), (each * 4 - 1, 3), (0, 0)] {
        let (_folder, cache) = filled(DiskCache::builder().max_bytes(max_bytes)).await;
        cache.trim().await.unwrap();
        assert_eq!(kept(&cache).await.len(), expected);
    }
}

#[tokio::test]
async fn to_an_age() {
    let settings = DiskCache::builder().max_age(HOUR * 4 + HOUR / 2);
    let (_folder, cache) = filled(settings).await;
    cache.trim().await.unwrap();
    assert_eq!(kept(&cache).await, [6, 7, 8, 9]);
}

#[tokio::test]
async fn to_no_bound_at_all() {
    let (_folder, cache) = filled(DiskCache::builder()).await;
    let report = cache.trim().await.unwrap();
    assert_eq!((report.scanned, report.removed), (10, 0));
}

#[tokio::test]
async fn the_least_recently_used_go_first() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(2)).await;
    assert!(cache.get(&key(0)).await.unwrap().is_some());
    cache.put(&key(1), artifact(1000)).await.unwrap();
    cache.trim().await.unwrap();
    assert_eq!(kept(&cache).await, [0, 1]);
}

#[tokio::test]
async fn what_is_no_entry_stays_and_what_was_set_aside_goes() {
    let (folder, cache) = filled(DiskCache::builder().max_entries(0)).await;
    fs::write(entry(folder.path(), &key(0)), "torn").unwrap();
    assert!(cache.get(&key(0)).await.unwrap().is_none());
    let upper = format!("{}.bin", key(1).to_hex().to_uppercase());
    let others = ["README", "x.bin", "a.corrupt", &upper];
    for name in others {
        fs::write(folder.path().join(name), "precious").unwrap();
    }
    fs::create_dir(entry(folder.path(), &key(20))).unwrap();
    std::os::unix::fs::symlink("README", entry(folder.path(), &key(21))).unwrap();
    cache.close(Duration::from_secs(60)).await.unwrap();
    drop(cache);

    let cache = DiskCache::builder().root(folder.path()).max_entries(0);
    let cache = cache.open().await.unwrap();
    let report = cache.trim().await.unwrap();
    assert_eq!(
        (report.scanned, report.removed, report.oldest_kept),
        (9, 9, None)
    );
    let mut expected: Vec<_> = others.map(str::to_owned).into();
    expected.extend([20, 21].map(|number| format!("{}.bin", key(number))));
    expected.sort();
    assert_eq!(names(folder.path()), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn others_go_on_meanwhile() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(5)).await;
    let putting = tokio::spawn({
        let cache = cache.clone();
        async move {
            for number in 0..300 {
                cache.put(&key(number % 20), artifact(1000)).await.unwrap();
                assert!(cache.get(&key(number % 20)).await.is_ok());
            }
        }
    });
    let other = open(cache.root()).await;
    while !putting.is_finished() {
        cache.trim().await.unwrap();
        other.trim().await.unwrap();
    }
    putting.await.unwrap();
    cache.trim().await.unwrap();
    let left = names(cache.root())
        .iter()
        .filter(|name| name.ends_with(".bin"))
        .count();
    // Several that trim at once may remove a little more than one would.
    assert!((1..=5).contains(&left), "{left}");
    assert_eq!(cache.metrics().corrupt, 0);
}

#[tokio::test]
async fn a_closed_cache_trims_no_more() {
    let (_folder, cache) = filled(DiskCache::builder().max_entries(5)).await;
    cache.close(Duration::from_secs(60)).await.unwrap();
    let error = cache.trim().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed);
    assert_eq!(kept(&cache).await.len(), 10);
}

/// Waits until it holds; the background has no other way to tell.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let patience = std::time::Instant::now();
    while !holds().await {
        assert!(patience.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn entries(cache: &DiskCache) -> usize {
    let names = names(cache.root());
    names.iter().filter(|name| name.ends_with(".bin")).count()
}

#[tokio::test]
async fn puts_start_trims_in_the_background() {
    let settings = DiskCache::builder().max_entries(80);
    let (_folder, cache) = filled(settings).await;
    for number in 10..500 {
        cache.put(&key(number), artifact(1000)).await.unwrap();
    }
    eventually("within its bound", async || entries(&cache) <= 75).await;
    cache.close(Duration::from_secs(60)).await.unwrap();
    // It stops at the low-water mark, by the count.
    assert!(entries(&cache) >= 70 - 8);
    // Those that were used least recently went.
    for number in 0..10 {
        assert!(!cache.contains(&key(number)).await.unwrap());
    }
    assert!(cache.contains(&key(499)).await.unwrap());
    // The count is an estimate: a put that falls into a listing may be counted twice until the
    // next one, and is never left out.
    let (counted, there) = (cache.metrics().entries, entries(&cache) as u64);
    assert!(
        (there..=there + 8).contains(&counted),
        "{counted} for {there}"
    );
}

#[tokio::test]
async fn what_others_stored_counts() {
    let folder = folder();
    let bounded = async || {
        let settings = DiskCache::builder().root(folder.path()).max_bytes(100_000);
        settings.open().await.unwrap()
    };
    let caches = [bounded().await, bounded().await];
    for number in 0..1000 {
        let cache = &caches[number as usize % 2];
        cache.put(&key(number), artifact(1000)).await.unwrap();
    }
    eventually("within the bound", async || entries(&caches[0]) < 90).await;
    for cache in &caches {
        cache.close(Duration::from_secs(60)).await.unwrap();
    }
    // The low-water mark is at 76, less what the count errs by.
    assert!(entries(&caches[0]) >= 50);

    // One that knows nothing of bounds, and then one put of one that does.
    let unbounded = open(folder.path()).await;
    for number in 0..200 {
        unbounded.put(&key(number), artifact(1000)).await.unwrap();
    }
    fs::remove_file(folder.path().join(USAGE)).unwrap();
    let cache = bounded().await;
    cache.put(&key(5000), artifact(1000)).await.unwrap();
    eventually("within the bound", async || entries(&cache) < 90).await;
}

#[tokio::test]
async fn age_alone_starts_a_trim() {
    let settings = DiskCache::builder().max_age(HOUR * 4 + HOUR / 2);
    let (_folder, cache) = filled(settings).await;
    cache.put(&key(100), artifact(10)).await.unwrap();
    eventually("the old ones go", async || {
        kept(&cache).await == [6, 7, 8, 9]
    })
    .await;
}

/// Or the bound could be passed until the next scan, an hour later.
#[tokio::test]
async fn to_remove_what_was_never_counted_does_not_hide_what_is_there() {
    const MAX: u64 = 100_000;
    for (len, files) in [(1 << 40, 1), (MAX / 2 + 1, 1), (MAX / 3, 5)] {
        let folder = folder();
        let cache = DiskCache::builder().root(folder.path()).max_bytes(MAX);
        let cache = cache.open().await.unwrap();
        for number in 0..8 {
            cache.put(&key(number), artifact(10_000)).await.unwrap();
        }
        cache.trim().await.unwrap();
        let stored = cache.metrics().cached_bytes;
        assert!(stored > 80_000);
        for number in 10..10 + files {
            let file = File::create(entry(folder.path(), &key(number))).unwrap();
            file.set_len(len).unwrap();
            assert!(cache.remove(&key(number)).await.unwrap());
        }
        // Counted at once, or by a scan.
        cache.put(&key(9), artifact(10)).await.unwrap();
        let what = format!("{files} of {len} bytes");
        eventually(&what, async || cache.metrics().cached_bytes > stored).await;
    }
}

#[tokio::test]
async fn nonsense_in_the_count_is_counted_anew() {
    let (folder, cache) = filled(DiskCache::builder().max_entries(5)).await;
    let usage = folder.path().join(USAGE);
    let nonsense = [&b""[..], b"pcusage1", &[255; 40], &[0; 5000]];
    for (round, nonsense) in (1..).zip(nonsense) {
        fs::write(&usage, nonsense).unwrap();
        let cache = DiskCache::builder().root(folder.path()).max_entries(5);
        let cache = cache.open().await.unwrap();
        for number in 0..10 {
            cache
                .put(&key(100 * round + number), artifact(10))
                .await
                .unwrap();
        }
        eventually("within its bound", async || entries(&cache) <= 5).await;
        cache.close(Duration::from_secs(60)).await.unwrap();
    }
    drop(cache);
    // Nor does a link lead a count astray.
    fs::remove_file(&usage).unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    std::os::unix::fs::symlink(&precious, &usage).unwrap();
    let cache = DiskCache::builder().root(folder.path()).max_entries(5);
    let cache = cache.open().await.unwrap();
    for number in 0..10 {
        cache.put(&key(1000 + number), artifact(10)).await.unwrap();
    }
    eventually("within its bound", async || entries(&cache) <= 5).await;
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
}

/// The lock of another process on a file of the housekeeping.
fn locked_elsewhere(root: &Path, name: &str) -> File {
    let lock = File::create(root.join(".staging").join(name)).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    lock
}

/// Returns when nothing is left to be done but to wait: only then does a clock that stands still
/// move on.
async fn idle(time: Duration) {
    tokio::time::sleep(time).await;
}

async fn bounded(root: &Path, entries: u64) -> DiskCache {
    let settings = DiskCache::builder().root(root).max_entries(entries);
    settings.open().await.unwrap()
}

/// A folder whose count is there, of one entry.
async fn counted() -> tempfile::TempDir {
    let folder = folder();
    let counter = bounded(folder.path(), 100).await;
    counter.put(&key(0), artifact(10)).await.unwrap();
    eventually("a count", async || counter.metrics().entries > 0).await;
    counter.close(Duration::from_secs(60)).await.unwrap();
    fs::remove_file(folder.path().join(".staging/trim")).unwrap();
    folder
}

#[tokio::test(start_paused = true)]
async fn one_lists_at_a_time() {
    let folder = counted().await;
    let cache = bounded(folder.path(), 100).await;
    let lock = locked_elsewhere(folder.path(), "trim");
    for number in 1..96 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    idle(HOUR).await;
    assert_eq!(entries(&cache), 96);
    drop(lock);
    cache.put(&key(96), artifact(10)).await.unwrap();
    eventually("within its bound", async || entries(&cache) <= 88).await;
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_just_being_written_is_waited_for() {
    let folder = counted().await;
    let cache = bounded(folder.path(), 100).await;
    let usage = folder.path().join(USAGE);
    let lock = File::open(&usage).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    cache.put(&key(1), artifact(10)).await.unwrap();
    idle(Duration::from_millis(5)).await;
    drop(lock);
    idle(HOUR).await;
    assert_eq!(cache.metrics().entries, 2);
    let listed = folder.path().join(".staging/trim").exists();
    assert!(!listed, "there was no need to");

    // One who does not let go of it is not waited for.
    let cache = bounded(folder.path(), 1).await;
    let lock = File::open(&usage).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for number in 2..10 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    idle(HOUR).await;
    assert!(entries(&cache) <= 1);
}

/// As one does whose process is stopped.
#[tokio::test]
async fn one_that_stands_still_is_not_waited_for_past_the_bound() {
    let folder = folder();
    fs::create_dir(folder.path().join(".staging")).unwrap();
    let _lock = locked_elsewhere(folder.path(), "trim");
    let settings = DiskCache::builder().root(folder.path()).max_entries(5);
    let cache = settings.open().await.unwrap();
    for number in 0..50 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    eventually("within its bound", async || entries(&cache) <= 5).await;
}
