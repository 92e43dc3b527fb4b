//! What a flush promises: what it covered survives a power loss, and the report says exactly what
//! no flush has covered yet.

use crate::support::{
    Mount, artifact, assert_success, child, entry, folder, is_child, key, names, open, run, skip,
};
use futures::future::join_all;
use pipeline_cache::{DiskCache, PipelineCacheStore, StoreErrorKind, StoreOperation};
use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn pending(cache: &DiskCache) -> u64 {
    let report = cache.durability_report();
    assert_eq!(report.durable, report.pending_flushes == 0);
    report.pending_flushes
}

#[tokio::test]
async fn the_report_counts_what_no_flush_has_covered() {
    let folder = folder();
    let cache = open(folder.path()).await;
    assert_eq!(pending(&cache), 0);
    for number in 0..20 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    assert_eq!(pending(&cache), 20);
    cache.put(&key(0), artifact(10)).await.unwrap();
    assert_eq!(pending(&cache), 20, "an entry is pending once");
    cache.remove(&key(0)).await.unwrap();
    assert_eq!(pending(&cache), 19, "what is gone awaits nothing");
    cache.flush().await.unwrap();
    assert_eq!(pending(&cache), 0);
    assert_eq!(cache.metrics().flushes, 1);

    // Another process may have written that entry and not flushed it.
    cache.put(&key(1), artifact(10)).await.unwrap();
    assert_eq!(pending(&cache), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_report_is_exact_after_concurrent_puts_and_flushes() {
    let folder = folder();
    let cache = open(folder.path()).await;
    let tasks = (0..200).map(|number| {
        let cache = cache.clone();
        tokio::spawn(async move {
            cache.put(&key(number), artifact(10)).await.unwrap();
            if number % 10 == 0 {
                cache.flush().await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    cache.flush().await.unwrap();
    assert_eq!(pending(&cache), 0);
}

#[tokio::test]
async fn what_failed_to_flush_stays_pending() {
    let parent = folder();
    let (root, moved) = (parent.path().join("cache"), parent.path().join("moved"));
    let cache = open(&root).await;
    for number in 0..5 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    fs::rename(&root, &moved).unwrap();
    fs::write(&root, "").unwrap();
    for failed in 1..3 {
        let error = cache.flush().await.unwrap_err();
        assert_eq!(error.operation(), StoreOperation::Flush);
        assert_eq!(pending(&cache), 5);
        assert_eq!(cache.metrics().flush_errors, failed);
    }
    fs::remove_file(&root).unwrap();
    fs::rename(&moved, &root).unwrap();
    cache.flush().await.unwrap();
    assert_eq!(pending(&cache), 0);
}

/// A runtime with one thread for what waits, which can be kept busy.
fn narrow() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.max_blocking_threads(1).enable_all();
    runtime.build().unwrap()
}

#[test]
fn a_dropped_flush_loses_nothing() {
    narrow().block_on(async {
        let folder = folder();
        let cache = open(folder.path()).await;
        for number in 0..50 {
            cache.put(&key(number), artifact(10)).await.unwrap();
        }
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        {
            let mut flush = std::pin::pin!(cache.flush());
            assert!(futures::poll!(&mut flush).is_pending());
        }
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        assert_eq!(pending(&cache), 50);
        cache.flush().await.unwrap();
        assert_eq!(pending(&cache), 0);
    });
}

#[tokio::test]
async fn what_awaits_a_flush_is_bounded() {
    let folder = folder();
    let cache = DiskCache::builder()
        .root(folder.path())
        .max_pending_flushes(8)
        .open()
        .await
        .unwrap();
    for number in 0..100 {
        cache.put(&key(number), artifact(10)).await.unwrap();
        assert!(pending(&cache) <= 8, "{number}");
    }
    assert!(cache.metrics().flushes > 0);
    cache.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(pending(&cache), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_awaits_a_flush_is_bounded_among_many_puts() {
    const PUTS: u64 = 400;
    let folder = folder();
    let cache = DiskCache::builder().root(folder.path());
    let cache = cache.max_pending_flushes(8).open().await.unwrap();
    let puts = (0..PUTS).map(|number| {
        let cache = cache.clone();
        tokio::spawn(async move {
            cache.put(&key(number), artifact(10)).await.unwrap();
            pending(&cache)
        })
    });
    for put in join_all(puts).await {
        assert!(put.unwrap() <= 8);
    }
    cache.close(Duration::from_secs(60)).await.unwrap();
    assert_eq!(names(folder.path()).len() as u64, PUTS);
}

/// A medium that fails is not asked again by every put.
#[tokio::test(start_paused = true)]
async fn puts_start_no_flush_on_a_medium_that_refuses_to_sync() {
    let parent = folder();
    let (root, moved) = (parent.path().join("cache"), parent.path().join("moved"));
    let cache = DiskCache::builder().root(&root).max_pending_flushes(8);
    let cache = cache.open().await.unwrap();
    for number in 0..3 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    let hide = || {
        fs::rename(&root, &moved).unwrap();
        fs::write(&root, "").unwrap();
    };
    let show = || {
        fs::remove_file(&root).unwrap();
        fs::rename(&moved, &root).unwrap();
    };
    hide();
    let why = cache.flush().await.unwrap_err();
    show();
    // They go on, as long as there is room.
    for number in 3..8 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    assert_eq!(pending(&cache), 8);
    // Then they say why there is none.
    for number in 8..100 {
        let error = cache.put(&key(number), artifact(10)).await.unwrap_err();
        assert_eq!(error.operation(), StoreOperation::Put);
        assert!(format!("{error:#}").contains(&why.to_string()), "{error}");
    }
    assert_eq!(cache.metrics().flush_errors, 1, "nobody tried");
    assert_eq!(pending(&cache), 8);

    // The pause grows.
    hide();
    let mut tried = 1;
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        tokio::time::advance(Duration::from_secs(seconds) - Duration::from_millis(10)).await;
        cache.put(&key(8), artifact(10)).await.unwrap_err();
        assert_eq!(cache.metrics().flush_errors, tried, "{seconds}");
        tokio::time::advance(Duration::from_millis(20)).await;
        cache.put(&key(8), artifact(10)).await.unwrap_err();
        tried += 1;
        assert_eq!(cache.metrics().flush_errors, tried, "{seconds}");
    }
    // It is over with the first flush that succeeds.
    show();
    cache.put(&key(8), artifact(10)).await.unwrap_err();
    cache.flush().await.unwrap();
    for number in 8..100 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
}

/// What the medium refuses is not written again and again.
#[test]
fn a_medium_that_refuses_everything_is_asked_for_little() {
    const TEST: &str = "a_medium_that_refuses_everything_is_asked_for_little";
    const ENTRIES: u64 = 200;
    const FLUSHES: u64 = 5;
    if is_child() {
        let root = PathBuf::from(std::env::var_os(crate::support::ROOT).unwrap());
        return crate::support::block_on(async {
            let cache = open(root).await;
            for number in 0..ENTRIES {
                cache.put(&key(number), artifact(10)).await.unwrap();
            }
            for _ in 0..FLUSHES {
                let error = cache.flush().await.unwrap_err();
                assert_eq!(error.kind(), StoreErrorKind::Io);
                assert_eq!(pending(&cache), ENTRIES);
            }
            for number in 0..ENTRIES {
                assert!(cache.get(&key(number)).await.unwrap().is_some());
            }
        });
    }
    // The data is refused, or the names.
    for (refused, again) in [("fdatasync", 32), ("fsync", 16)] {
        let folder = folder();
        let log = folder.path().join("calls");
        let test = child(module_path!(), TEST);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-e", "trace=fdatasync,fsync", "-o"]);
        traced.arg(&log);
        traced.args(["-e", &format!("inject={refused}:error=EIO")]);
        traced.arg(test.get_program()).args(test.get_args());
        traced
            .env(crate::support::ROLE, "child")
            .env(crate::support::ROOT, folder.path().join("cache"));
        match traced.output() {
            Ok(output) if crate::support::can_trace() => assert_success(&output),
            _ => return skip("no strace"),
        }
        let log = fs::read_to_string(log).unwrap();
        let calls = log.lines().filter(|line| line.contains("fdatasync("));
        let calls = calls.count() as u64;
        // Each once, and then no more than are tried at once.
        assert!(calls >= ENTRIES, "{refused}: {calls}");
        let most = ENTRIES + (FLUSHES - 1) * again;
        assert!(calls <= most, "{refused}: {calls}");
    }
}

/// Runs a test in a process that cannot open these names.
fn without_permission_to_open(test: &str, root: &Path, refused: &[&Path]) {
    let test = child(module_path!(), test);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-e", "trace=openat"]);
    traced.args(["-e", "inject=openat:error=EACCES"]);
    for name in refused {
        traced.arg("-P").arg(name);
    }
    traced.arg("-o").arg(root.with_extension("calls"));
    traced.arg(test.get_program()).args(test.get_args());
    traced.env(crate::support::ROLE, "child");
    traced.env(crate::support::ROOT, root);
    match traced.output() {
        Ok(output) if crate::support::can_trace() => assert_success(&output),
        _ => skip("no strace"),
    }
}

/// On a medium that is well.
#[test]
fn an_entry_that_cannot_be_synced_keeps_no_other_from_being_put() {
    const TEST: &str = "an_entry_that_cannot_be_synced_keeps_no_other_from_being_put";
    if is_child() {
        let root = PathBuf::from(std::env::var_os(crate::support::ROOT).unwrap());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        // No pause is ever over.
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        return runtime.block_on(async {
            let cache = DiskCache::builder().root(root).max_pending_flushes(8);
            let cache = cache.open().await.unwrap();
            for number in 0..100 {
                cache.put(&key(number), artifact(10)).await.unwrap();
                // At times it is all there is to flush.
                if number % 20 == 0 {
                    cache.flush().await.unwrap_err();
                    assert_eq!(pending(&cache), 1);
                }
            }
        });
    }
    let folder = folder();
    let root = folder.path().join("cache");
    without_permission_to_open(TEST, &root, &[&entry(&root, &key(0))]);
}

#[test]
fn a_flush_tells_of_entries_and_of_the_folder() {
    const TEST: &str = "a_flush_tells_of_entries_and_of_the_folder";
    if is_child() {
        let root = PathBuf::from(std::env::var_os(crate::support::ROOT).unwrap());
        return crate::support::block_on(async {
            let cache = open(&root).await;
            for number in 0..3 {
                cache.put(&key(number), artifact(10)).await.unwrap();
            }
            let error = format!("{:#}", cache.flush().await.unwrap_err());
            let entry = entry(&root, &key(0));
            assert!(error.contains(entry.to_str().unwrap()), "{error}");
            assert!(error.contains("and 1 more failed"), "{error}");
            assert_eq!(pending(&cache), 3);
        });
    }
    let folder = folder();
    let root = folder.path().join("cache");
    without_permission_to_open(TEST, &root, &[&root, &entry(&root, &key(0))]);
}

#[tokio::test]
async fn a_closed_cache_is_durable_and_takes_no_more() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    for _ in 0..2 {
        cache.close(Duration::from_secs(60)).await.unwrap();
        assert_eq!(pending(&cache), 0);
        assert_eq!(names(folder.path()), [format!("{}.bin", key(1))]);
    }
    let error = cache.put(&key(2), artifact(10)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed);
    let error = cache.remove(&key(1)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed);
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(10)));
    assert_eq!(cache.metrics().put_errors, 1);
}

#[test]
fn a_close_that_takes_too_long_says_so() {
    narrow().block_on(async {
        let folder = folder();
        let cache = open(folder.path()).await;
        cache.put(&key(1), artifact(10)).await.unwrap();
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let late = cache.close(Duration::from_millis(5)).await.unwrap_err();
        assert_eq!(late.kind(), StoreErrorKind::TimedOut);
        assert_eq!(pending(&cache), 1, "given up, and said so");
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        cache.close(Duration::from_secs(60)).await.unwrap();
        assert_eq!(pending(&cache), 0);
    });
}

/// A close that a put does not see coming waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_put_that_races_a_close_is_durable_or_refused() {
    for _ in 0..50 {
        let folder = folder();
        let cache = open(folder.path()).await;
        let puts = (0..8).map(|number| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.put(&key(number), artifact(10)).await })
        });
        let puts: Vec<_> = puts.collect();
        cache.close(Duration::from_secs(60)).await.unwrap();
        assert_eq!(pending(&cache), 0);
        let stored = names(folder.path())
            .iter()
            .filter(|n| n.ends_with(".bin"))
            .count();
        let mut accepted = 0;
        for put in puts {
            match put.await.unwrap() {
                Ok(()) => accepted += 1,
                Err(error) => assert_eq!(error.kind(), StoreErrorKind::Closed),
            }
        }
        assert_eq!(stored, accepted, "nothing was stored after the close");
    }
}

/// Not every file system needs the names synced, so a power loss cannot show it on each.
#[test]
fn a_flush_syncs_data_and_then_names() {
    const ROOT: &str = "PIPELINE_CACHE_TEST_ROOT";
    if is_child() {
        let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(async {
            let cache = open(root.join("new/folder")).await;
            for number in 0..3 {
                cache.put(&key(number), artifact(10)).await.unwrap();
            }
            cache.flush().await.unwrap();
        });
    }
    let folder = folder();
    let root = folder.path().canonicalize().unwrap();
    let log = root.join("calls");
    let test = child(module_path!(), "a_flush_syncs_data_and_then_names");
    let mut traced = Command::new("strace");
    traced.args([
        "-f",
        "-y",
        "-e",
        "trace=/^(fsync|fdatasync|rename.*)$",
        "-o",
    ]);
    traced
        .arg(&log)
        .arg(test.get_program())
        .args(test.get_args());
    match traced
        .env(crate::support::ROLE, "child")
        .env(ROOT, &root)
        .output()
    {
        Ok(output) if log.exists() => assert_success(&output),
        _ => return skip("no strace"),
    }
    let log = fs::read_to_string(log).unwrap();
    // Where a call is in the log, by its name and the end of what it was called on.
    let calls = |call: &str, path: &Path| -> Vec<usize> {
        let path = format!("{}>", path.display());
        let lines = log.lines().enumerate();
        let calls = lines.filter(|(_, line)| line.contains(call) && line.contains(&path));
        calls.map(|(number, _)| number).collect()
    };
    let cache = root.join("new/folder");
    let names = calls(" fsync(", &cache);
    assert_eq!(names.len(), 1, "{log}");
    for number in 0..3 {
        let data = calls(" fdatasync(", &entry(&cache, &key(number)));
        assert_eq!(data.len(), 1, "{log}");
        assert!(data[0] < names[0], "{log}");
    }
    for parent in [&root, &root.join("new")] {
        assert_eq!(calls(" fsync(", parent).len(), 1, "{log}");
    }
}

/// A file system on a device whose medium is a file, so that the medium can be looked at behind
/// the system's back.
struct Device {
    _file_system: Mount,
    _medium: Mount,
    folder: tempfile::TempDir,
}

impl Device {
    /// The medium has `size` bytes; the device claims to have 64 MiB.
    fn new(file_system: &str, size: &str) -> Option<Self> {
        let folder = folder();
        let medium = folder.path().join("medium");
        fs::create_dir(&medium).unwrap();
        fs::create_dir(folder.path().join("cache")).unwrap();
        let options = format!("size={size}");
        let medium_mount = Mount::new(&["-t", "tmpfs", "-o", &options, "medium"], &medium)?;
        let image = medium.join("image");
        let file = fs::File::create(&image).unwrap();
        file.set_len(64 << 20).unwrap();
        let image = image.to_str().unwrap();
        if !run(
            &format!("mkfs.{file_system}"),
            &["-q", "-b", "4096", "-N", "1024", image],
        ) {
            return None;
        }
        let at = folder.path().join("cache");
        let file_system = Mount::new(&["-t", file_system, "-o", "loop", image], &at)?;
        // A loop device calls a request of which only a part was written a success: no parts, then.
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts
            .lines()
            .find(|line| line.split(' ').nth(1) == at.to_str())
            .unwrap();
        let device = mount
            .split(' ')
            .next()
            .unwrap()
            .replace("/dev", "/sys/block");
        fs::write(format!("{device}/queue/max_sectors_kb"), "4").unwrap();
        Some(Self {
            _file_system: file_system,
            _medium: medium_mount,
            folder,
        })
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    /// What a machine would find after losing power now.
    fn after_power_loss(&self) -> (tempfile::TempDir, Mount) {
        let after = folder();
        let image = after.path().join("image");
        fs::copy(self.root().join("medium/image"), &image).unwrap();
        let at = after.path().join("cache");
        fs::create_dir(&at).unwrap();
        let mount = Mount::new(&["-o", "loop", image.to_str().unwrap()], &at);
        (after, mount.expect("the journal can be replayed"))
    }
}

#[tokio::test]
async fn a_flush_survives_a_power_loss() {
    // The second has no journal that would save names along with the data.
    for file_system in ["ext4", "ext2"] {
        let Some(device) = Device::new(file_system, "80m") else {
            return skip("no loop devices");
        };
        let cache = open(device.root().join("cache/new/folder")).await;
        for number in 0..30 {
            cache.put(&key(number), artifact(20_000)).await.unwrap();
        }
        cache.flush().await.unwrap();
        // An entry that is durable stays so while it is put again.
        cache.put(&key(0), artifact(20_000)).await.unwrap();
        cache.put(&key(100), artifact(20_000)).await.unwrap();

        let (after, mount) = device.after_power_loss();
        let survivor = open(after.path().join("cache/new/folder")).await;
        for number in 0..30 {
            let got = survivor.get(&key(number)).await.unwrap();
            assert_eq!(got, Some(artifact(20_000)), "{number} on {file_system}");
        }
        // What was not flushed is there whole or not at all.
        let unflushed = survivor.get(&key(100)).await.unwrap();
        assert!(unflushed.is_none_or(|got| got == artifact(20_000)));
        drop((survivor, mount));
    }
}

/// The kernel forgets data that it failed to write, and the next sync of the same file succeeds.
#[tokio::test]
async fn an_entry_whose_sync_failed_is_written_again() {
    const ENTRIES: u64 = 300;
    const LEN: usize = 40_000;
    // The device claims more than its medium holds. A file system with a journal would give itself
    // up.
    let Some(device) = Device::new("ext2", "8m") else {
        return skip("no loop devices");
    };
    let root = device.root().join("cache/entries");
    let cache = open(&root).await;
    // Names and inodes get their place on the medium, so that only data can fail.
    for number in 0..ENTRIES + 50 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    cache.flush().await.unwrap();
    for number in 0..ENTRIES + 50 {
        cache.remove(&key(number)).await.unwrap();
    }

    for number in 0..ENTRIES {
        cache.put(&key(number), artifact(LEN)).await.unwrap();
    }
    let error = cache.flush().await.unwrap_err();
    let kinds = [StoreErrorKind::Io, StoreErrorKind::StorageFull];
    assert!(kinds.contains(&error.kind()), "{error}");
    let failed = pending(&cache);
    assert!((1..ENTRIES).contains(&failed), "{failed} did not fit");

    // The medium has room again, as after a cable is put back.
    let medium = device.root().join("medium");
    let medium = medium.to_str().unwrap();
    assert!(run("mount", &["-o", "remount,size=100m", medium]));
    // A kernel short of memory has let go of what it failed to write. Such a loss is told, once.
    let told = cache.flush().await.err();
    if let Some(error) = &told {
        assert!(error.source().unwrap().to_string().contains("was lost"));
        cache.flush().await.unwrap();
    }
    assert_eq!(pending(&cache), 0);

    let (after, mount) = device.after_power_loss();
    let survivor = open(after.path().join("cache/entries")).await;
    let mut lost = 0;
    for number in 0..ENTRIES {
        match survivor.get(&key(number)).await.unwrap() {
            Some(got) => assert_eq!(got, artifact(LEN), "{number}"),
            None => lost += 1,
        }
    }
    assert_eq!(lost > 0, told.is_some(), "{lost} lost, {told:?}");
    assert!(lost < failed, "none of {failed} was written anew");
    drop((survivor, mount));
}
