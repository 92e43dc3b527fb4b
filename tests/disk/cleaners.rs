//! A cleaner of temporary files and empty folders runs beside the cache, as fast as it can: no put
//! fails, and the folder keeps its bound.

use crate::support::{STAGING, artifact, block_on, folder, key, names, on_drop};
use pipeline_cache::{DiskCache, PipelineCacheStore};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const TASKS: u64 = 8;
const PUTS: u64 = 60;
const BOUND: u64 = 40;

/// Returns how many files or folders it removed.
type Clean = fn(&Path) -> u64;

fn remove_empty_folders(root: &Path) -> u64 {
    let staging = fs::remove_dir(root.join(STAGING)).is_ok();
    u64::from(staging) + u64::from(fs::remove_dir(root).is_ok())
}

fn empty_the_staging_folder(root: &Path) -> u64 {
    let files = fs::read_dir(root.join(STAGING)).into_iter().flatten();
    let removed = files.flatten().map(|file| fs::remove_file(file.path()));
    removed.filter(Result::is_ok).count() as u64
}

fn remove_the_staging_folder(root: &Path) -> u64 {
    empty_the_staging_folder(root) + remove_empty_folders(root)
}

fn entries(root: &Path) -> u64 {
    let names = names(root);
    names.iter().filter(|name| name.ends_with(".bin")).count() as u64
}

async fn put_all(cache: &DiskCache, len: usize) {
    let tasks = (0..TASKS).map(|task| {
        let cache = cache.clone();
        tokio::spawn(async move {
            for number in 0..PUTS {
                let key = key(task * PUTS + number);
                cache.put(&key, artifact(len)).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// Leaves what the cleaner removes, and waits until it has: it runs from then on.
async fn give_work(root: &Path, left: &[&str], removed: &AtomicU64) {
    while removed.load(Ordering::SeqCst) == 0 {
        // It may remove one folder before the next stands in it.
        let _ = fs::create_dir_all(root.join(STAGING));
        for name in left {
            let _ = fs::write(root.join(STAGING).join(name), "");
        }
        tokio::task::yield_now().await;
    }
}

fn check(clean: Clean, left: &[&str], len: usize) {
    let folder = folder();
    let root = folder.path().join("cache");
    let (over, removed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                removed.fetch_add(clean(&root), Ordering::SeqCst);
            }
        });
        // Ends the cleaner however this ends.
        let _end = on_drop(|| over.store(true, Ordering::SeqCst));
        block_on(async {
            let cache = DiskCache::builder().root(&root).max_entries(BOUND);
            let cache = cache.open().await.unwrap();
            give_work(&root, left, &removed).await;
            put_all(&cache, len).await;
            cache.flush().await.unwrap();
            let patience = std::time::Instant::now();
            while entries(&root) > BOUND {
                assert!(patience.elapsed() < Duration::from_secs(30));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cache.close(Duration::from_secs(60)).await.unwrap();
            assert_eq!(cache.metrics().puts, TASKS * PUTS);
        });
    });
    let removed = removed.into_inner();
    println!(
        "{removed} files and folders removed, {} left",
        entries(&root)
    );
    let names = names(&root);
    assert!(
        names.iter().all(|name| !name.ends_with(".tmp")),
        "{names:?}"
    );
    assert!(entries(&root) > BOUND / 4, "{names:?}");
}

#[test]
fn one_that_removes_empty_folders_costs_no_put() {
    check(remove_empty_folders, &[], 1000);
}

/// The folder is empty and without a name again and again.
#[test]
fn one_that_removes_empty_folders_keeps_no_cache_from_its_first_put() {
    let folder = folder();
    let root = folder.path().join("cache");
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                remove_empty_folders(&root);
            }
        });
        let _end = on_drop(|| over.store(true, Ordering::SeqCst));
        block_on(async {
            for number in 0..100 {
                let cache = DiskCache::new(&root).await.unwrap();
                cache.put(&key(number), artifact(100)).await.unwrap();
                assert!(cache.remove(&key(number)).await.unwrap());
                cache.close(Duration::from_secs(60)).await.unwrap();
            }
        });
    });
}

#[test]
fn one_that_empties_the_staging_folder_costs_no_put() {
    check(empty_the_staging_folder, &["left"], 1000);
    check(empty_the_staging_folder, &["left"], 300_000);
}

#[test]
fn one_that_removes_the_staging_folder_costs_no_put() {
    check(remove_the_staging_folder, &[], 1000);
}

/// What a put leaves beside the entries when it is killed there is removed once it is old.
#[tokio::test]
async fn what_a_crash_left_beside_the_entries_is_removed_by_a_trim() {
    let folder = folder();
    let cache = DiskCache::builder().root(folder.path()).max_entries(10);
    let cache = cache.open().await.unwrap();
    let old = folder.path().join(".123-0123456789abcdef.0.tmp");
    let young = folder.path().join(".123-0123456789abcdef.1.tmp");
    let other = folder.path().join(".of-another.tmp");
    for (path, hours) in [(&old, 2), (&young, 0), (&other, 2)] {
        fs::write(path, "half a frame").unwrap();
        let file = fs::File::open(path).unwrap();
        let age = Duration::from_secs(3600 * hours);
        file.set_modified(std::time::SystemTime::now() - age)
            .unwrap();
    }
    let future = folder.path().join(".123-0123456789abcdef.2.tmp");
    fs::write(&future, "half a frame").unwrap();
    let file = fs::File::open(&future).unwrap();
    let ahead = std::time::SystemTime::now() + Duration::from_secs(3600 * 1000);
    file.set_modified(ahead).unwrap();
    cache.trim().await.unwrap();
    assert_eq!(
        [&old, &young, &other].map(|path| path.exists()),
        [false, true, true]
    );
    // It is dated now, so that it gets old.
    let dated = file.metadata().unwrap().modified().unwrap();
    assert!(dated < std::time::SystemTime::now() + Duration::from_secs(60));
}
