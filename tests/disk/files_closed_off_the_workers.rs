//! Closing a file may wait, as on a network file system: the runtime's workers close none of the
//! folder's, however a call ends.

use crate::support::{
    ROLE, ROOT, artifact, assert_success, can_trace, child, folder, is_child, key, skip,
};
use futures::{StreamExt as _, poll};
use pipeline_cache::{CompileLeases as _, DiskCache, PipelineCacheStore};
use std::fs;
use std::path::PathBuf;
use std::pin::pin;
use std::process::Command;
use std::time::Duration;

/// Nothing is there. Whoever looks for it is a worker.
const MARK: &str = "/a-worker-looks-for-this";

/// Lets a call get so far, and leaves.
async fn leave_after<T>(steps: usize, call: impl Future<Output = T>) {
    let mut call = pin!(call);
    for _ in 0..steps {
        if poll!(&mut call).is_ready() {
            return;
        }
        // What the call waits for is done by the time this is: there is one thread for both.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    }
}

async fn work(root: PathBuf) {
    assert!(fs::metadata(MARK).is_err());
    let cache = DiskCache::builder().root(root).max_entries(600);
    let cache = cache.compile_locks().open().await.unwrap();
    // More than a listing looks at in one step.
    for number in 0..700 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    cache.trim().await.unwrap();
    for steps in 0..8 {
        leave_after(steps, cache.trim()).await;
        leave_after(steps, cache.clear()).await;
        leave_after(steps, cache.flush()).await;
        leave_after(steps, cache.compile_lease(&key(1))).await;
        leave_after(steps, cache.get(&key(1))).await;
        leave_after(steps, cache.open_frame(&key(1))).await;
        leave_after(steps, cache.put(&key(2000), artifact(10))).await;
        leave_after(steps, cache.entries().count()).await;
    }
    drop(cache.entries().next().await);
    // Read on the worker, in slices: left before the first, and before the last.
    cache.put(&key(3000), artifact(1024 * 1024)).await.unwrap();
    for steps in [1, 2] {
        let get = async {
            cache.get(&key(3000)).await.unwrap();
            panic!("it takes more than {steps} turns");
        };
        leave_after::<()>(steps, get).await;
    }
    cache.close(Duration::from_secs(60)).await.unwrap();
}

#[test]
fn the_workers_close_no_file() {
    if is_child() {
        let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).enable_all().build();
        return runtime.unwrap().block_on(work(root));
    }
    let folder = folder();
    let root = folder.path().canonicalize().unwrap().join("cache");
    let log = folder.path().join("calls");
    let test = child(module_path!(), "the_workers_close_no_file");
    let mut traced = Command::new("strace");
    traced.args([
        "-f",
        "--seccomp-bpf",
        "-qq",
        "-y",
        "-e",
        "trace=close,statx",
        "-o",
    ]);
    traced
        .arg(&log)
        .arg(test.get_program())
        .args(test.get_args());
    match traced.env(ROLE, "child").env(ROOT, &root).output() {
        Ok(output) if can_trace() => assert_success(&output),
        _ => return skip("no strace"),
    }
    let log = fs::read_to_string(log).unwrap();
    let mark = log.lines().find(|line| line.contains(MARK)).unwrap();
    let worker = mark.split(' ').next().unwrap();
    let root = root.to_str().unwrap();
    let closed = |line: &&str| line.contains("close(") && line.contains(root);
    let (by_worker, by_others): (Vec<_>, Vec<_>) = log
        .lines()
        .filter(closed)
        .partition(|line| line.split(' ').next() == Some(worker));
    assert_eq!(by_worker, [""; 0]);
    let large = format!("{}.bin>", key(3000));
    for file in ["cache>", ".staging/trim>", ".compile", &large] {
        let closes = by_others.iter().filter(|line| line.contains(file));
        assert!(closes.count() > 1, "{file}");
    }
}
