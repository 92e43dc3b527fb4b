//! On a network file system an entry that another machine replaced is found stale for a moment. It is
//! opened again; and what stays stale is a miss, and no damage.

use crate::support::{
    ROLE, ROOT, artifact, assert_success, block_on, can_trace, child, entry, folder, is_child, key,
    names, open, skip,
};
use futures::TryStreamExt as _;
use pipeline_cache::{DiskCache, Fetched, PipelineCacheStore, StoreErrorKind};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const LEN: usize = 1000;

/// Whether the child is to find the entry.
const EXPECTED: &str = "PIPELINE_CACHE_TEST_EXPECTED";

/// Runs a test of this module in a process whose `calls` on the entry find it stale.
fn with_stale(test: &str, root: &Path, calls: &str, expected: bool) {
    let log = root.with_extension("calls");
    let test = child(module_path!(), test);
    let mut traced = Command::new("strace");
    let (names, _) = calls.split_once(':').unwrap();
    traced.args(["-f", "-qq", "-e", &format!("trace={names}")]);
    traced.args(["-e", &format!("inject={calls}")]);
    traced.arg("-P").arg(entry(root, &key(1)));
    traced.arg("-o").arg(&log);
    traced.arg(test.get_program()).args(test.get_args());
    traced.env(ROLE, "child").env(ROOT, root);
    traced.env(EXPECTED, if expected { "hit" } else { "miss" });
    assert_success(&traced.output().unwrap());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("ESTALE"), "{calls}: {log}");
}

async fn check(cache: &DiskCache, expected: bool) {
    let found = cache.fetch(&key(1)).await.unwrap();
    let there = expected.then(|| artifact(LEN));
    assert_eq!(found, Fetched::from(there));
    let metrics = cache.metrics();
    assert_eq!(
        (metrics.lookups, metrics.errors, metrics.corrupt),
        (1, 0, 0)
    );
    assert_eq!(metrics.misses, u64::from(!expected));
}

#[test]
fn a_stale_entry_is_opened_again_once_and_then_a_miss() {
    const TEST: &str = "a_stale_entry_is_opened_again_once_and_then_a_miss";
    if is_child() {
        let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
        let expected = std::env::var(EXPECTED).unwrap() == "hit";
        return block_on(async { check(&open(root).await, expected).await });
    }
    if !can_trace() {
        return skip("no strace");
    }
    for (calls, expected) in [
        // Counted for each thread. What is tried on the worker is then tried on the pool.
        ("openat2,openat:error=ESTALE:when=1", true),
        ("openat2,openat:error=ESTALE:when=1..2", false),
        ("preadv2,read:error=ESTALE:when=1", true),
        ("preadv2,read:error=ESTALE:when=1..2", false),
        ("statx,fstat:error=ESTALE:when=1", true),
        ("statx,fstat:error=ESTALE:when=1..2", false),
    ] {
        let folder = folder();
        let root = folder.path().join("cache");
        block_on(async {
            let cache = open(&root).await;
            cache.put(&key(1), artifact(LEN)).await.unwrap();
        });
        with_stale(TEST, &root, calls, expected);
        assert_eq!(names(&root), [format!("{}.bin", key(1))], "{calls}");
        let found = block_on(async { open(&root).await.get(&key(1)).await });
        assert_eq!(found.unwrap(), Some(artifact(LEN)), "{calls}");
    }
}

#[test]
fn what_is_stale_is_not_there_and_stays() {
    const TEST: &str = "what_is_stale_is_not_there_and_stays";
    if is_child() {
        let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
        return block_on(async {
            let cache = open(root).await;
            assert!(!cache.contains(&key(1)).await.unwrap());
            let error = cache.remove(&key(1)).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Io, "it may still be there");
            assert_eq!(cache.entry(&key(1)).await.unwrap(), None);
            assert_eq!(
                cache.verify().try_collect::<Vec<_>>().await.unwrap().len(),
                1
            );
        });
    }
    if !can_trace() {
        return skip("no strace");
    }
    let folder = folder();
    let root = folder.path().join("cache");
    block_on(async {
        let cache = open(&root).await;
        cache.put(&key(1), artifact(LEN)).await.unwrap();
        cache.put(&key(2), artifact(LEN)).await.unwrap();
    });
    with_stale(
        TEST,
        &root,
        "statx,newfstatat,lstat,openat:error=ESTALE",
        false,
    );
    let both = [key(1), key(2)].map(|key| format!("{key}.bin"));
    let mut expected = Vec::from(both);
    expected.sort();
    assert_eq!(names(&root), expected);
}
