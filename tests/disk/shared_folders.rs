//! Any number of caches and processes may use one folder, and a dead one leaves nothing behind.

use crate::support::{
    STAGING, artifact, assert_success, child, folder, is_child, key, names, open, temporaries,
};
use pipeline_cache::{DiskCache, DiskCacheError, PipelineCacheStore};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

const ROOT: &str = "PIPELINE_CACHE_TEST_ROOT";

fn root_of_child() -> PathBuf {
    PathBuf::from(std::env::var_os(ROOT).unwrap())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    runtime.build().unwrap().block_on(future)
}

#[tokio::test]
async fn what_one_cache_stores_another_finds() {
    let folder = folder();
    let (a, b) = (open(folder.path()).await, open(folder.path()).await);
    a.put(&key(1), artifact(10)).await.unwrap();
    assert_eq!(b.get(&key(1)).await.unwrap(), Some(artifact(10)));
    assert!(b.remove(&key(1)).await.unwrap());
    assert_eq!(a.get(&key(1)).await.unwrap(), None);
    a.flush().await.unwrap();
    assert!(
        a.durability_report().durable,
        "what another removed awaits nothing"
    );
}

/// Keys that both processes write, read and remove, in the same order at the same time.
async fn hammer(root: &Path) {
    let cache = open(root).await;
    let expected = artifact(30_000);
    for round in 0..300_u64 {
        let key = key(round % 7);
        cache.put(&key, expected.clone()).await.unwrap();
        if let Some(got) = cache.get(&key).await.unwrap() {
            assert_eq!(got.payload(), expected.payload());
        }
        if round % 5 == 0 {
            cache.remove(&key).await.unwrap();
        }
        if round % 50 == 0 {
            // Opens sweep: what the other process is writing must outlive that.
            open(root).await;
            cache.flush().await.unwrap();
        }
    }
    assert_eq!(cache.metrics().corrupt, 0);
    cache.close(Duration::from_secs(60)).await.unwrap();
}

#[test]
fn processes_share_a_folder() {
    if is_child() {
        return block_on(hammer(&root_of_child()));
    }
    let folder = folder();
    let mut command = child(module_path!(), "processes_share_a_folder");
    command
        .env(ROOT, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let other = command.spawn().unwrap();
    block_on(hammer(folder.path()));
    assert_success(&other.wait_with_output().unwrap());
    assert_eq!(temporaries(folder.path()), [""; 0]);
}

#[test]
fn a_killed_process_leaves_nothing_past_the_next_open() {
    if is_child() {
        return block_on(async {
            let cache = open(root_of_child()).await;
            cache.put(&key(1), artifact(10)).await.unwrap();
            println!("ready");
            std::future::pending().await
        });
    }
    let folder = folder();
    let mut command = child(
        module_path!(),
        "a_killed_process_leaves_nothing_past_the_next_open",
    );
    command.env(ROOT, folder.path()).stdout(Stdio::piped());
    let mut other = command.spawn().unwrap();
    let lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(Result::ok)
            .any(|line| line.ends_with("ready"))
    );

    let staging = folder.path().join(STAGING);
    // As if the other process were in the midst of a put.
    let lock = names(&staging)
        .into_iter()
        .find(|name| name.ends_with(".lock"))
        .unwrap();
    let temporary = lock.replace(".lock", ".7.tmp");
    fs::write(staging.join(&temporary), "half").unwrap();
    // Things that look like it, and are not.
    let others = [
        ".tmp",
        "x.tmp",
        ".1-short.0.tmp",
        ".lock",
        "a.lock",
        ".1-0123456789abcdef.tmp",
    ];
    for name in others {
        fs::write(staging.join(name), "precious").unwrap();
    }
    // Left by one whose lock is gone.
    let orphan = ".1-0123456789abcdef.0.tmp";
    fs::write(staging.join(orphan), "half").unwrap();

    block_on(open(folder.path()));
    let after = names(&staging);
    assert!(
        after.contains(&temporary) && after.contains(&lock),
        "it lives: {after:?}"
    );
    assert!(!after.iter().any(|name| name == orphan), "{after:?}");

    other.kill().unwrap();
    other.wait().unwrap();
    let cache = block_on(open(folder.path()));
    let mut expected: Vec<_> = others.map(str::to_owned).into();
    expected.sort();
    assert_eq!(names(&staging), expected);
    assert_eq!(names(folder.path()), [format!("{}.bin", key(1))]);
    assert_eq!(block_on(cache.get(&key(1))).unwrap(), Some(artifact(10)));
}

#[test]
fn a_cache_that_is_dropped_leaves_only_entries() {
    let folder = folder();
    block_on(async {
        let cache = open(folder.path()).await;
        cache.put(&key(1), artifact(10)).await.unwrap();
    });
    assert_eq!(names(folder.path()), [format!("{}.bin", key(1))]);
    assert_eq!(names(folder.path().join(STAGING)), [""; 0]);
}

/// The environment belongs to the whole process, so another one has it set.
#[test]
fn the_users_cache_folder_follows_the_environment() {
    const EXPECTED: &str = "PIPELINE_CACHE_TEST_EXPECTED";
    if is_child() {
        let opened = block_on(DiskCache::in_user_cache());
        match std::env::var_os(EXPECTED) {
            Some(expected) => {
                let cache = opened.unwrap();
                assert_eq!(cache.root(), expected);
                assert!(cache.root().is_dir());
                assert_eq!(
                    cache.to_string(),
                    format!("disk({})", cache.root().display())
                );
            }
            None => assert!(matches!(opened, Err(DiskCacheError::CacheDirUnknown))),
        }
        return;
    }
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let in_home = if cfg!(target_vendor = "apple") {
        "Library/Caches"
    } else {
        ".cache"
    };
    let expect = |set: &[(&str, PathBuf)], expected: Option<PathBuf>| {
        let mut command = child(
            module_path!(),
            "the_users_cache_folder_follows_the_environment",
        );
        command.env_remove("XDG_CACHE_HOME").env_remove("HOME");
        command.envs(set.iter().cloned());
        if let Some(expected) = expected {
            command.env(EXPECTED, expected.join("pipeline-cache"));
        }
        assert_success(&command.output().unwrap());
    };
    let relative = || PathBuf::from("relative");
    expect(&[("HOME", at("a"))], Some(at("a").join(in_home)));
    expect(
        &[("HOME", at("b")), ("XDG_CACHE_HOME", relative())],
        Some(at("b").join(in_home)),
    );
    if !cfg!(target_vendor = "apple") {
        let both = [("HOME", at("c")), ("XDG_CACHE_HOME", at("x"))];
        expect(&both, Some(at("x")));
        expect(&[("XDG_CACHE_HOME", at("y"))], Some(at("y")));
    }
    expect(&[], None);
    expect(&[("HOME", relative())], None);
}
