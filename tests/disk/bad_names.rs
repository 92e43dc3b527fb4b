//! A name in the folder that cannot be dealt with is passed over, and told of when the others are
//! done.

use crate::support::{
    ROLE, ROOT, artifact, assert_success, block_on, can_trace, child, entry, folder, is_child, key,
    open, run, skip,
};
use futures::{StreamExt as _, TryStreamExt as _};
use pipeline_cache::{DiskCache, PipelineCacheStore, StoreErrorKind, StoreOperation};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

/// A file that not even its owner may remove.
struct Stays(PathBuf);

impl Stays {
    fn new(path: PathBuf) -> Option<Self> {
        let stays = run("chattr", &["+i", path.to_str().unwrap()]);
        stays.then_some(Self(path))
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        run("chattr", &["-i", self.0.to_str().unwrap()]);
    }
}

/// Ten entries, the first of which is the oldest, and much else.
async fn fill(root: &Path) {
    let cache = open(root).await;
    for number in 0..10 {
        cache.put(&key(number), artifact(10)).await.unwrap();
        let file = File::open(entry(root, &key(number))).unwrap();
        let ago = Duration::from_secs(36_000 - number * 3600);
        file.set_modified(SystemTime::now() - ago).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"\xff\xfe.bin")), "").unwrap();
    fs::create_dir(entry(root, &key(50))).unwrap();
    fs::create_dir(entry(root, &key(5)).with_extension("corrupt")).unwrap();
    fs::write(entry(root, &key(51)).with_extension("corrupt"), "").unwrap();
    cache.close(Duration::from_secs(60)).await.unwrap();
}

fn kept(root: &Path) -> Vec<u64> {
    let is_kept = |number: &u64| entry(root, &key(*number)).is_file();
    (0..100).filter(is_kept).collect()
}

/// Two of the files stay whatever one does.
fn two_stay(root: &Path) -> Option<[Stays; 2]> {
    let corrupt = entry(root, &key(51)).with_extension("corrupt");
    Some([Stays::new(entry(root, &key(0)))?, Stays::new(corrupt)?])
}

#[tokio::test]
async fn a_trim_goes_on() {
    let folder = folder();
    fill(folder.path()).await;
    let Some(_stay) = two_stay(folder.path()) else {
        return skip("no immutable files");
    };
    let cache = DiskCache::builder().root(folder.path()).max_entries(3);
    let cache = cache.open().await.unwrap();
    let error = cache.trim().await.unwrap_err();
    assert_eq!(error.operation(), StoreOperation::Trim);
    assert_eq!(error.kind(), StoreErrorKind::PermissionDenied);
    assert!(
        format!("{error:#}").ends_with("; and 1 more failed"),
        "{error}"
    );
    assert_eq!(kept(folder.path()), [0, 8, 9]);
    assert_eq!(cache.metrics().evictions, 7);
}

#[tokio::test]
async fn trims_in_the_background_go_on() {
    let folder = folder();
    fill(folder.path()).await;
    let Some(_stay) = two_stay(folder.path()) else {
        return skip("no immutable files");
    };
    let cache = DiskCache::builder().root(folder.path()).max_entries(16);
    let cache = cache.open().await.unwrap();
    for round in 1..10 {
        for number in 0..40 {
            let key = key(round * 1000 + number);
            cache.put(&key, artifact(10)).await.unwrap();
        }
        let patience = Instant::now();
        let entries = || {
            let names = fs::read_dir(folder.path())
                .unwrap()
                .map(|file| file.unwrap());
            names
                .filter(|file| file.file_type().unwrap().is_file())
                .count()
        };
        // Two of the files are no entries.
        while entries() > 16 + 2 {
            assert!(patience.elapsed() < Duration::from_secs(8));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(entry(folder.path(), &key(0)).exists());
}

#[tokio::test]
async fn a_clear_goes_on() {
    let folder = folder();
    fill(folder.path()).await;
    let Some(stay) = two_stay(folder.path()) else {
        return skip("no immutable files");
    };
    let cache = open(folder.path()).await;
    let error = cache.clear().await.unwrap_err();
    assert_eq!(error.operation(), StoreOperation::Clear);
    assert_eq!(error.kind(), StoreErrorKind::PermissionDenied);
    assert_eq!(kept(folder.path()), [0]);
    drop(stay);
    assert_eq!(cache.clear().await.unwrap(), 1);
    assert!(entry(folder.path(), &key(50)).is_dir());
}

#[tokio::test]
async fn a_folder_in_the_place_of_what_was_set_aside_keeps_no_entry() {
    let folder = folder();
    fill(folder.path()).await;
    let cache = open(folder.path()).await;
    assert!(cache.remove(&key(5)).await.unwrap());
    assert_eq!(kept(folder.path()).len(), 9);
}

/// The kernel is made to say that nobody may look at one of the files.
#[test]
fn what_cannot_be_looked_at_is_passed_over() {
    const TEST: &str = "what_cannot_be_looked_at_is_passed_over";
    if is_child() {
        let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
        return block_on(async {
            let cache = open(&root).await;
            let entries: Vec<_> = cache.entries().collect().await;
            let failed = entries.iter().filter(|entry| entry.is_err()).count();
            assert_eq!((entries.len(), failed), (10, 1));
            let all: Result<Vec<_>, _> = cache.entries().try_collect().await;
            assert_eq!(all.unwrap_err().operation(), StoreOperation::List);

            let bounded = DiskCache::builder().root(&root).max_entries(3);
            let bounded = bounded.open().await.unwrap();
            let error = bounded.trim().await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::PermissionDenied);
            assert_eq!(bounded.metrics().evictions, 6);
            cache.clear().await.unwrap_err();
        });
    }
    let folder = folder();
    block_on(fill(folder.path()));
    let test = child(module_path!(), TEST);
    let name = format!("{}.bin", key(4));
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-P", &name]);
    traced.args(["-e", "inject=statx,newfstatat:error=EACCES"]);
    traced.arg(test.get_program()).args(test.get_args());
    traced.env(ROLE, "child").env(ROOT, folder.path());
    match traced.output() {
        Ok(output) if can_trace() => assert_success(&output),
        _ => return skip("no strace"),
    }
    assert_eq!(kept(folder.path()), [4]);
}
