//! A time in the future, which some clock once had wrong, counts as now, and is set right.

use crate::support::{artifact, entry, folder, key};
use futures::TryStreamExt as _;
use pipeline_cache::{DiskCache, DiskCacheBuilder, PipelineCacheStore, SharedSecret};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const FAR: Duration = Duration::from_secs(300 * 24 * 60 * 60);

async fn open_with(
    root: &Path,
    settings: impl FnOnce(DiskCacheBuilder) -> DiskCacheBuilder,
) -> DiskCache {
    settings(DiskCache::builder().root(root))
        .open()
        .await
        .unwrap()
}

fn date(root: &Path, number: u64, used: SystemTime) {
    let file = fs::File::open(entry(root, &key(number))).unwrap();
    file.set_modified(used).unwrap();
}

fn used(root: &Path, number: u64) -> SystemTime {
    let metadata = fs::metadata(entry(root, &key(number))).unwrap();
    metadata.modified().unwrap()
}

/// Whether a time is that of this test.
fn is_now(used: SystemTime) -> bool {
    used <= SystemTime::now() && used.elapsed().unwrap() < HOUR
}

/// Read from the page cache, in slices, on the pool, or to be sent.
#[tokio::test]
async fn a_use_sets_a_time_in_the_future_to_now() {
    for (len, ahead) in [(10, DAY), (300_000, HOUR), (3 << 20, FAR)] {
        let folder = folder();
        let cache = open_with(folder.path(), |c| c).await;
        for number in [1, 2] {
            cache.put(&key(number), artifact(len)).await.unwrap();
            date(folder.path(), number, SystemTime::now() + ahead);
        }
        assert!(cache.get(&key(1)).await.unwrap().is_some());
        assert!(cache.open_frame(&key(2)).await.unwrap().is_some());
        // Some uses are recorded in the background.
        cache.close(Duration::from_secs(60)).await.unwrap();
        for number in [1, 2] {
            assert!(
                is_now(used(folder.path(), number)),
                "{number} of {len} bytes"
            );
        }
    }
}

/// As an archive may have it that knows no times.
#[tokio::test]
async fn a_use_renews_a_time_before_the_epoch() {
    let folder = folder();
    let cache = open_with(folder.path(), |c| c).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    date(folder.path(), 1, SystemTime::UNIX_EPOCH - DAY);
    assert!(cache.get(&key(1)).await.unwrap().is_some());
    cache.close(Duration::from_secs(60)).await.unwrap();
    assert!(is_now(used(folder.path(), 1)));
}

#[tokio::test]
async fn a_trim_dates_an_entry_of_the_future_now_so_that_it_gets_old() {
    let folder = folder();
    let cache = open_with(folder.path(), |c| c.max_age(DAY)).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    date(folder.path(), 1, SystemTime::now() + FAR);
    assert_eq!(cache.trim().await.unwrap().removed, 0);
    assert!(is_now(used(folder.path(), 1)));
}

/// One that is dated in the future is no newer than those that were just used.
#[tokio::test]
async fn entries_of_the_future_are_evicted_like_others() {
    let folder = folder();
    let unbounded = open_with(folder.path(), |c| c).await;
    for number in [1, 2, 3] {
        unbounded.put(&key(number), artifact(10)).await.unwrap();
        date(folder.path(), number, SystemTime::now() + FAR);
    }
    let cache = open_with(folder.path(), |c| c.max_entries(2)).await;
    let report = cache.trim().await.unwrap();
    assert_eq!((report.scanned, report.removed), (3, 1));
    assert!(report.oldest_kept.is_some_and(is_now));
}

#[tokio::test]
async fn to_look_at_an_entry_of_the_future_is_not_to_use_it() {
    let folder = folder();
    let cache = open_with(folder.path(), |c| c).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    let ahead = SystemTime::now() + FAR;
    date(folder.path(), 1, ahead);
    let listed: Vec<_> = cache.entries().try_collect().await.unwrap();
    let shown = cache.entry(&key(1)).await.unwrap();
    for entry in listed.into_iter().chain(shown) {
        assert!(is_now(entry.last_used));
    }
    assert_eq!(used(folder.path(), 1), ahead);
}

/// Or it would be kept for its owner for ever.
#[tokio::test]
async fn a_foreign_entry_of_the_future_gets_old_too() {
    let folder = folder();
    let owner = open_with(folder.path(), |c| c).await;
    owner.put(&key(1), artifact(10)).await.unwrap();
    date(folder.path(), 1, SystemTime::now() + FAR);
    let other = open_with(folder.path(), |c| c.shared_secret(SharedSecret::new("s"))).await;
    other.put(&key(1), artifact(10)).await.unwrap_err();
    assert!(is_now(used(folder.path(), 1)));
}
