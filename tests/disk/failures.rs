//! A disk that is full, read-only or out of reach: a typed error, nothing half-written, and all is
//! well again when the disk is.

use crate::captured_trace::{capture, captured};
use crate::support::{
    Mount, artifact, assert_success, child, entry, folder, is_child, key, names, open, skip,
    temporaries,
};
use pipeline_cache::{BundleCache, BundleWriter, PipelineCacheStore, StoreErrorKind};
use std::fs;
use std::process::Command;
use std::time::Duration;

#[tokio::test]
async fn a_full_disk() {
    let folder = folder();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "size=256k", "full"], folder.path())
    else {
        return skip("no tmpfs");
    };
    let cache = open(folder.path()).await;
    cache.put(&key(0), artifact(10)).await.unwrap();
    // Larger than one write of the file, and one that fails in its only write.
    for len in [1 << 20, 250_000] {
        fs::write(folder.path().join("ballast"), vec![1; 100_000]).unwrap();
        for round in 1..3 {
            let error = cache.put(&key(1), artifact(len)).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::StorageFull, "{error}");
            assert_eq!(temporaries(folder.path()), [""; 0], "round {round}");
            assert!(!entry(folder.path(), &key(1)).exists());
        }
        fs::remove_file(folder.path().join("ballast")).unwrap();
    }
    assert_eq!(cache.metrics().put_errors, 4);
    assert_eq!(cache.get(&key(1)).await.unwrap(), None);
    assert_eq!(cache.get(&key(0)).await.unwrap(), Some(artifact(10)));
    cache.put(&key(1), artifact(100_000)).await.unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(100_000)));
}

/// Every put fails, and an operator is to see other lines too.
#[tokio::test]
async fn a_full_disk_is_logged_where_it_begins_and_where_it_ends() {
    let folder = folder();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "size=256k", "full"], folder.path())
    else {
        return skip("no tmpfs");
    };
    let cache = open(folder.path()).await;
    capture();
    for n in 0..20 {
        cache.put(&key(n), artifact(1 << 20)).await.unwrap_err();
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    for n in 20..22 {
        cache.put(&key(n), artifact(10)).await.unwrap();
    }
    let trace = captured();
    let lines = |level: &str, of: &str| {
        let lines = trace.lines().filter(|line| line.starts_with(level));
        lines.filter(|line| line.contains(of)).count()
    };
    assert_eq!(lines("WARN", "disk tier operation failed"), 1, "{trace}");
    assert_eq!(lines("DEBUG", "disk tier operation failed"), 19, "{trace}");
    assert_eq!(
        lines("INFO", "disk tier operations succeed again"),
        1,
        "{trace}"
    );
}

/// A server reads entries as files, and never as artifacts.
#[tokio::test]
async fn reads_of_any_kind_begin_and_end_a_trouble() {
    let folder = folder();
    let root = folder.path().join("cache");
    let cache = open(&root).await;
    cache.put(&key(0), artifact(10)).await.unwrap();
    let aside = folder.path().join("aside");
    capture();
    for _ in 0..2 {
        fs::rename(&root, &aside).unwrap();
        fs::write(&root, "no folder").unwrap();
        for _ in 0..3 {
            cache.open_frame(&key(0)).await.unwrap_err();
        }
        fs::remove_file(&root).unwrap();
        fs::rename(&aside, &root).unwrap();
        tokio::time::pause();
        // Once a minute at most.
        tokio::time::advance(Duration::from_secs(61)).await;
        tokio::time::resume();
        assert!(cache.open_frame(&key(0)).await.unwrap().is_some());
    }
    let trace = captured();
    let lines = |level: &str, of: &str| {
        let lines = trace.lines().filter(|line| line.starts_with(level));
        lines.filter(|line| line.contains(of)).count()
    };
    assert_eq!(lines("WARN", "disk tier operation failed"), 2, "{trace}");
    assert_eq!(lines("DEBUG", "disk tier operation failed"), 4, "{trace}");
    assert_eq!(
        lines("INFO", "disk tier operations succeed again"),
        2,
        "{trace}"
    );
}

/// The trap of files that report a failed write only at the next call: a write that is the last
/// one, and small.
#[tokio::test]
async fn a_disk_that_fills_up_with_the_last_byte() {
    let folder = folder();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "size=64k", "full"], folder.path()) else {
        return skip("no tmpfs");
    };
    let cache = open(folder.path()).await;
    cache.put(&key(0), artifact(10)).await.unwrap();
    let ballast = folder.path().join("ballast");
    let mut room = 64 * 1024;
    while fs::write(&ballast, vec![1; room]).is_err() {
        room -= 1024;
    }
    let error = cache.put(&key(1), artifact(10)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::StorageFull, "{error}");
    let error = cache.put(&key(2), artifact(5000)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::StorageFull, "{error}");
    fs::remove_file(&ballast).unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), None);
    assert_eq!(cache.metrics().corrupt, 0);
    cache.put(&key(1), artifact(10)).await.unwrap();
}

#[tokio::test]
async fn a_read_only_folder() {
    let folder = folder();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "ro"], folder.path()) else {
        return skip("no tmpfs");
    };
    let remount = |mode: &str| {
        let mut command = Command::new("mount");
        command
            .args(["-o", &format!("remount,{mode}")])
            .arg(folder.path());
        assert!(command.status().unwrap().success());
    };
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    fs::write(entry(folder.path(), &key(2)), "torn").unwrap();
    cache
        .close(std::time::Duration::from_secs(60))
        .await
        .unwrap();
    drop(cache);
    remount("ro");

    // A folder that nobody can write is still a cache, as one in an image is.
    let cache = open(folder.path()).await;
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(10)));
    assert_eq!(cache.get(&key(2)).await.unwrap(), None);
    assert_eq!(cache.metrics().corrupt, 1);
    let error = cache.put(&key(2), artifact(10)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly, "{error}");
    let error = cache.remove(&key(1)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::ReadOnly, "{error}");

    remount("rw");
    cache.put(&key(2), artifact(10)).await.unwrap();
    assert_eq!(cache.get(&key(2)).await.unwrap(), Some(artifact(10)));
}

/// The limit of open files counts for a whole process, so it is another one that runs into it.
#[test]
fn too_many_open_files() {
    if !is_child() {
        let test = child(module_path!(), "too_many_open_files");
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 40; exec \"$0\" \"$@\""]);
        limited.arg(test.get_program()).args(test.get_args());
        limited.env(crate::support::ROLE, "child");
        return assert_success(&limited.output().unwrap());
    }
    // One thread does the work in order: what a put has yet to close is closed before the hoarding.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let folder = folder();
        let cache = open(folder.path()).await;
        cache.put(&key(1), artifact(10)).await.unwrap();

        assert!(cache.contains(&key(1)).await.unwrap());
        let mut hoard = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            hoard.push(file);
        }
        for error in [
            cache.get(&key(1)).await.map(drop).unwrap_err(),
            cache.put(&key(2), artifact(10)).await.unwrap_err(),
            cache.flush().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), StoreErrorKind::Io, "{error}");
            assert!(
                format!("{error:#}").contains("Too many open files"),
                "{error}"
            );
        }
        assert_eq!(cache.durability_report().pending_flushes, 1);

        drop(hoard);
        assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(10)));
        cache.put(&key(2), artifact(10)).await.unwrap();
        cache.flush().await.unwrap();
        assert_eq!(temporaries(folder.path()), [""; 0]);
        assert_eq!(names(folder.path()).len(), 2);
    });
}

/// Permissions stop everybody but root, so another user tries.
#[test]
fn a_folder_that_may_not_be_written() {
    const ROOT: &str = "PIPELINE_CACHE_TEST_ROOT";
    if !is_child() {
        let folder = folder();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let cache = pipeline_cache::DiskCache::builder()
                .root(folder.path())
                .allow_other_users();
            let cache = cache.open().await.unwrap();
            cache.put(&key(1), artifact(10)).await.unwrap();
            cache
                .close(std::time::Duration::from_secs(60))
                .await
                .unwrap();
        });
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();

        // The test binary may be where that user cannot go.
        let binary = folder.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
        let test = child(module_path!(), "a_folder_that_may_not_be_written");
        let mut other_user = Command::new("setpriv");
        other_user.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        other_user.arg(&binary).args(test.get_args());
        other_user
            .env(crate::support::ROLE, "child")
            .env(ROOT, folder.path());
        match other_user.output() {
            Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
                return assert_success(&output);
            }
            _ => return skip("cannot become another user"),
        }
    }
    let root = std::env::var_os(ROOT).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cache = open(std::path::PathBuf::from(root)).await;
        assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(10)));
        let error = cache.put(&key(2), artifact(10)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::PermissionDenied, "{error}");
        let error = cache.remove(&key(1)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::PermissionDenied, "{error}");
    });
}

/// A write that failed is told when it fails: what follows it is not taken for a whole bundle.
#[tokio::test]
async fn a_bundle_on_a_disk_that_is_full_for_a_while() {
    let folder = folder();
    let Some(_mount) = Mount::new(&["-t", "tmpfs", "-o", "size=1m", "full"], folder.path()) else {
        return skip("no tmpfs");
    };
    let ballast = folder.path().join("ballast");
    fs::write(&ballast, vec![1; 700_000]).unwrap();
    let path = folder.path().join("a.bundle");
    let mut writer = BundleWriter::create(&path).await.unwrap();
    let mut keys: Vec<_> = (0..7).map(key).collect();
    keys.sort();
    let mut failures = 0;
    for key in &keys {
        let frame = artifact(100_000).to_frame(key, None).unwrap();
        while writer.add(key, frame.clone()).await.is_err() {
            failures += 1;
            assert_eq!(failures, 1);
            fs::remove_file(&ballast).unwrap();
        }
    }
    assert_eq!(failures, 1);
    writer.finish().await.unwrap();
    let bundle = BundleCache::open(&path).await.unwrap();
    for key in &keys {
        assert_eq!(bundle.get(key).await.unwrap(), Some(artifact(100_000)));
    }
}
