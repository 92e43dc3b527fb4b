//! Whatever stands under a key's name, or in place of the folder: nothing waits, nothing is
//! followed, nothing of others is harmed.

use crate::support::{STAGING, artifact, entry, folder, key, names, open, run, skip};
use pipeline_cache::{
    DiskCache, DiskCacheError, Fetched, FrameError, PipelineCacheStore, StoreErrorKind,
};
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// What reads and removals promise of an entry that no cache made, and whether a put replaces it.
async fn check_unsafe(what: &str, make: impl FnOnce(&Path) -> bool, replaced: bool) {
    let folder = folder();
    let cache = open(folder.path()).await;
    let path = entry(folder.path(), &key(1));
    if !make(&path) {
        return skip(what);
    }
    let before = fs::symlink_metadata(&path).unwrap().file_type();
    let checks = async {
        let error = cache.get(&key(1)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::UnsafeEntry, "{what}: {error}");
        let error = cache.contains(&key(1)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::UnsafeEntry, "{what}: {error}");
        let error = cache.remove(&key(1)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::UnsafeEntry, "{what}: {error}");
        assert_eq!(
            fs::symlink_metadata(&path).unwrap().file_type(),
            before,
            "{what}"
        );
        assert_eq!(cache.metrics().errors, 1, "{what}");

        let put = cache.put(&key(1), artifact(10)).await;
        if replaced {
            put.unwrap();
            assert_eq!(
                cache.get(&key(1)).await.unwrap(),
                Some(artifact(10)),
                "{what}"
            );
        } else {
            assert_eq!(
                put.unwrap_err().kind(),
                StoreErrorKind::UnsafeEntry,
                "{what}"
            );
            assert_eq!(
                fs::symlink_metadata(&path).unwrap().file_type(),
                before,
                "{what}"
            );
            assert_eq!(cache.metrics().put_errors, 1, "{what}");
        }
        cache.put(&key(2), artifact(10)).await.unwrap();
        cache.flush().await.unwrap();
        assert!(
            crate::support::temporaries(folder.path()).is_empty(),
            "{what}"
        );
    };
    let checked = tokio::time::timeout(Duration::from_secs(20), checks).await;
    if checked.is_err() {
        // A panic would wait for the runtime, and the runtime for what waits.
        eprintln!("{what}: something waited");
        std::process::exit(101);
    }
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused() {
    let elsewhere = folder();
    let target = elsewhere.path().join("target");
    // A whole entry, so that following the link would find the artifact.
    let cache = open(elsewhere.path()).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    fs::rename(entry(elsewhere.path(), &key(1)), &target).unwrap();
    let before = fs::read(&target).unwrap();

    check_unsafe("a link", |path| symlink(&target, path).is_ok(), true).await;
    check_unsafe(
        "a dangling link",
        |path| symlink("nowhere", path).is_ok(),
        true,
    )
    .await;
    check_unsafe("a link to itself", |path| symlink(path, path).is_ok(), true).await;
    let mkfifo = |path: &Path| run("mkfifo", &[path.to_str().unwrap()]);
    check_unsafe("a FIFO", mkfifo, true).await;
    check_unsafe("a socket", |path| UnixListener::bind(path).is_ok(), true).await;
    let mknod = |path: &Path| run("mknod", &[path.to_str().unwrap(), "c", "1", "5"]);
    check_unsafe("a device", mknod, true).await;
    check_unsafe("a folder", |path| fs::create_dir(path).is_ok(), false).await;
    let full =
        |path: &Path| fs::create_dir(path).is_ok() && fs::write(path.join("precious"), "x").is_ok();
    check_unsafe("a folder with files", full, false).await;

    assert_eq!(
        fs::read(&target).unwrap(),
        before,
        "the target of a link is never touched"
    );
}

#[tokio::test]
async fn a_flush_does_not_wait_for_what_took_an_entrys_place() {
    let folder = folder();
    let cache = open(folder.path()).await;
    for number in 0..2 {
        cache.put(&key(number), artifact(10)).await.unwrap();
        fs::remove_file(entry(folder.path(), &key(number))).unwrap();
    }
    let fifo = entry(folder.path(), &key(1));
    assert!(run("mkfifo", &[fifo.to_str().unwrap()]));
    tokio::time::timeout(Duration::from_secs(20), cache.flush())
        .await
        .unwrap()
        .unwrap();
    assert!(cache.durability_report().durable);
    assert!(fs::symlink_metadata(fifo).unwrap().file_type().is_fifo());
}

#[tokio::test]
async fn a_sparse_file_over_the_limit_is_damage_and_only_its_start_is_read() {
    let folder = folder();
    let cache = open(folder.path()).await;
    let path = entry(folder.path(), &key(1));
    // Far more than there is memory for.
    File::create(&path).unwrap().set_len(1 << 42).unwrap();
    assert!(!cache.contains(&key(1)).await.unwrap());
    let fetched = cache.fetch(&key(1)).await.unwrap();
    assert_eq!(fetched, Fetched::Corrupt(FrameError::NotAFrame));
    cache.put(&key(1), artifact(10)).await.unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(10)));
}

#[tokio::test]
async fn a_hard_link_is_verified_as_any_file() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    let backup = folder.path().join("backup");
    fs::hard_link(entry(folder.path(), &key(1)), &backup).unwrap();
    assert!(cache.get(&key(1)).await.unwrap().is_some());
    // Through the other name it changes under the reader, who notices.
    fs::write(&backup, "changed").unwrap();
    assert!(cache.get(&key(1)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_removed_folder_misses_and_the_next_put_makes_it_anew() {
    let parent = folder();
    let root = parent.path().join("cache");
    let cache = open(&root).await;
    for round in 0..2 {
        cache.put(&key(1), artifact(10)).await.unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert!(cache.get(&key(1)).await.unwrap().is_none());
        assert!(!cache.contains(&key(1)).await.unwrap());
        assert!(!cache.remove(&key(1)).await.unwrap());
        if round == 1 {
            cache.put(&key(2), artifact(10)).await.unwrap();
            fs::remove_dir_all(&root).unwrap();
        }
        cache.flush().await.unwrap();
        assert!(
            cache.durability_report().durable,
            "there is nothing left to lose"
        );
    }
    cache.put(&key(1), artifact(10)).await.unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(10)));
    let mode = fs::metadata(&root).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// As `rm cache/.*` would: the lock is gone, and an open elsewhere must not sweep this cache's
/// temporary files away.
#[tokio::test]
async fn a_removed_lock_is_made_anew() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    let locks = || {
        let mut names = names(folder.path().join(STAGING));
        names.retain(|name| name.ends_with(".lock"));
        names
    };
    let first = locks();
    assert_eq!(first.len(), 1);
    fs::remove_file(folder.path().join(STAGING).join(&first[0])).unwrap();
    cache.put(&key(2), artifact(10)).await.unwrap();
    let second = locks();
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
}

/// Neither a sweep nor a put goes where somebody else points it.
#[tokio::test]
async fn a_link_in_place_of_the_staging_folder_is_not_followed() {
    let (folder, elsewhere) = (crate::support::folder(), crate::support::folder());
    let precious = elsewhere.path().join(".1-0123456789abcdef.0.tmp");
    fs::write(&precious, "precious").unwrap();
    symlink(elsewhere.path(), folder.path().join(STAGING)).unwrap();
    let cache = open(folder.path()).await;
    let error = cache.put(&key(1), artifact(10)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Io, "{error}");
    assert_eq!(cache.get(&key(1)).await.unwrap(), None);
    assert_eq!(names(elsewhere.path()), [".1-0123456789abcdef.0.tmp"]);

    fs::remove_file(folder.path().join(STAGING)).unwrap();
    cache.put(&key(1), artifact(10)).await.unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(10)));
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_is_a_typed_failure() {
    let parent = folder();
    let root = parent.path().join("cache");
    fs::write(&root, "precious").unwrap();
    let error = DiskCache::new(&root).await.unwrap_err();
    assert!(
        matches!(error, DiskCacheError::NotAFolder { .. }),
        "{error}"
    );
    let error = DiskCache::new(root.join("below")).await.unwrap_err();
    assert!(matches!(error, DiskCacheError::Io { .. }), "{error}");
    assert_eq!(fs::read(&root).unwrap(), b"precious");

    fs::remove_file(&root).unwrap();
    let cache = open(&root).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    let moved = parent.path().join("moved");
    fs::rename(&root, &moved).unwrap();
    fs::write(&root, "precious").unwrap();
    for error in [
        cache.get(&key(1)).await.map(drop).unwrap_err(),
        cache.contains(&key(1)).await.map(drop).unwrap_err(),
        cache.put(&key(2), artifact(10)).await.unwrap_err(),
        cache.remove(&key(1)).await.map(drop).unwrap_err(),
        cache.flush().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), StoreErrorKind::Io, "{error}");
        assert!(format!("{error:#}").contains("Not a directory"), "{error}");
    }
    let metrics = cache.metrics();
    assert_eq!(
        (metrics.errors, metrics.put_errors, metrics.flush_errors),
        (1, 1, 1)
    );
    assert_eq!(fs::read(&root).unwrap(), b"precious");

    fs::remove_file(&root).unwrap();
    fs::rename(&moved, &root).unwrap();
    assert!(cache.get(&key(1)).await.unwrap().is_some());
    cache.put(&key(2), artifact(10)).await.unwrap();
    cache.flush().await.unwrap();
}

#[tokio::test]
async fn others_are_kept_out_unless_told_otherwise() {
    let parent = folder();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let cache = open(parent.path().join("a/private")).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    for name in names(cache.root()) {
        assert_eq!(mode(&cache.root().join(&name)), 0o600, "{name}");
    }
    assert_eq!(mode(cache.root()), 0o700);
    assert_eq!(mode(&cache.root().join(STAGING)), 0o700);
    assert_eq!(mode(&parent.path().join("a")), 0o700);

    let root = parent.path().join("shared");
    let cache = DiskCache::builder()
        .root(root)
        .allow_other_users()
        .open()
        .await
        .unwrap();
    cache.put(&key(1), artifact(10)).await.unwrap();
    // What the umask of this process leaves of the full modes.
    let file = parent.path().join("file");
    File::create(&file).unwrap();
    for name in names(cache.root()) {
        assert_eq!(mode(&cache.root().join(&name)), mode(&file), "{name}");
    }
    fs::create_dir(parent.path().join("dir")).unwrap();
    assert_eq!(mode(cache.root()), mode(&parent.path().join("dir")));
    assert_eq!(mode(&cache.root().join(STAGING)), mode(cache.root()));
}
