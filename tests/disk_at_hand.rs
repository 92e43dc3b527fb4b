//! What the kernel has in its caches is read without a hop, and nothing else is: a worker never
//! waits for a disk.
#![cfg(target_os = "linux")]

mod disk_support;

use disk_support::{
    ROLE, ROOT, artifact, assert_success, block_on, can_trace, child, entry, folder, is_child, key,
    open, skip,
};
use pipeline_cache::{DiskCache, PipelineCacheStore as _, PipelineFingerprint};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

const SMALL: usize = 64 * 1024;

/// What a lookup comes to while nothing can be done on the blocking pool. `None` where it waits for
/// the pool; then it is let in, and must succeed.
fn without_the_pool(root: &Path, key: PipelineFingerprint) -> Option<Option<usize>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cache = open(root).await;
        let (release, gate) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let get = async { cache.get(&key).await.unwrap().map(|got| got.len()) };
        let mut get = std::pin::pin!(get);
        let mut answer = None;
        for _ in 0..100 {
            match futures::poll!(&mut get) {
                std::task::Poll::Ready(got) => {
                    answer = Some(got);
                    break;
                }
                std::task::Poll::Pending => tokio::task::yield_now().await,
            }
        }
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        if answer.is_none() {
            assert!(get.await.is_some() || !entry(root, &key).exists());
        }
        answer
    })
}

fn filled(root: &Path, len: usize) {
    block_on(async {
        let cache = open(root).await;
        cache.put(&key(1), artifact(len)).await.unwrap();
        cache.close(Duration::from_secs(60)).await.unwrap();
    });
}

#[test]
fn a_small_entry_in_the_page_cache_is_read_on_the_worker() {
    for len in [0, 1, 4096, SMALL] {
        let folder = folder();
        filled(folder.path(), len);
        assert_eq!(without_the_pool(folder.path(), key(1)), Some(Some(len)));
    }
}

#[test]
fn a_known_absence_is_told_on_the_worker() {
    let folder = folder();
    filled(folder.path(), 10);
    let missing = entry(folder.path(), &key(2));
    // The kernel knows of an absence once somebody has asked.
    assert!(!missing.exists());
    assert_eq!(without_the_pool(folder.path(), key(2)), Some(None));
}

#[test]
fn a_large_entry_is_read_on_the_pool() {
    let folder = folder();
    filled(folder.path(), SMALL + 4096);
    assert_eq!(without_the_pool(folder.path(), key(1)), None);
}

#[test]
fn a_damaged_entry_is_dealt_with_on_the_pool() {
    let folder = folder();
    filled(folder.path(), 1000);
    let entry = entry(folder.path(), &key(1));
    let mut frame = fs::read(&entry).unwrap();
    *frame.last_mut().unwrap() ^= 1;
    fs::write(&entry, frame).unwrap();
    assert_eq!(without_the_pool(folder.path(), key(1)), None);
    assert!(!entry.exists(), "it was set aside");
}

#[test]
fn what_is_no_regular_file_is_left_to_the_pool() {
    let folder = folder();
    let entry = entry(folder.path(), &key(1));
    fs::create_dir(&entry).unwrap();
    let get = std::panic::catch_unwind(|| without_the_pool(folder.path(), key(1)));
    assert!(get.is_err(), "it fails, after the pool was asked");
}

#[test]
fn what_the_kernel_would_have_to_wait_for_is_read_on_the_pool() {
    if is_child() {
        let root = std::env::var_os(ROOT).unwrap();
        assert_eq!(without_the_pool(Path::new(&root), key(1)), None);
        return;
    }
    if !can_trace() {
        return skip("no strace");
    }
    let folder = folder();
    filled(folder.path(), 4096);
    // The name is not in the caches, the pages are not, and the same of kernels and file systems
    // that cannot tell.
    for call in [
        "openat2:error=EAGAIN",
        "openat2:error=ENOSYS",
        "preadv2:error=EAGAIN",
        "preadv2:error=EOPNOTSUPP",
    ] {
        let name = call.split(':').next().unwrap();
        let log = folder.path().join("calls");
        let test = child("what_the_kernel_would_have_to_wait_for_is_read_on_the_pool");
        let mut traced = Command::new("strace");
        traced
            .args(["-f", "-qq", "-e"])
            .arg(format!("trace={name}"))
            .arg("-e")
            .arg(format!("inject={call}"))
            .arg("-o")
            .arg(&log)
            .arg(test.get_program())
            .args(test.get_args());
        let output = traced.env(ROLE, "child").env(ROOT, folder.path()).output();
        assert_success(&output.unwrap());
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("(INJECTED)"), "{call}: {log}");
    }
}

/// A small frame whose payload unpacks to more than may be unpacked on a worker.
#[cfg(all(feature = "zstd", feature = "remote-cache"))]
#[test]
fn a_compressed_entry_is_unpacked_on_the_pool() {
    let payload = vec![0; 1 << 20];
    let stored = zstd::bulk::compress(&payload, 3).unwrap();
    assert!(stored.len() < SMALL);
    let folder = folder();
    let whole = pipeline_cache::Artifact::new(payload);
    let frame = compressed(&key(1), &whole, &stored);
    block_on(async {
        let cache = open(folder.path()).await;
        cache.put_frame(&key(1), frame.into()).await.unwrap();
    });
    assert_eq!(without_the_pool(folder.path(), key(1)), None);
}

/// The frame of an artifact that is stored in another form; see the format.
#[cfg(all(feature = "zstd", feature = "remote-cache"))]
fn compressed(
    key: &PipelineFingerprint,
    artifact: &pipeline_cache::Artifact,
    stored: &[u8],
) -> Vec<u8> {
    let mut frame = b"\x89pcf\r\n\x1a\n\x01\0\x02\0\0\0\0\0".to_vec();
    frame.extend_from_slice(&(stored.len() as u64).to_le_bytes());
    frame.extend_from_slice(&(artifact.len() as u64).to_le_bytes());
    frame.extend_from_slice(key.as_bytes());
    frame.extend_from_slice(artifact.digest());
    let tag = blake3::hash(&frame);
    frame.extend_from_slice(tag.as_bytes());
    frame.extend_from_slice(stored);
    frame
}

#[tokio::test]
async fn a_task_that_reads_much_lets_others_run() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(SMALL)).await.unwrap();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..100 {
        assert!(cache.get(&key(1)).await.unwrap().is_some());
    }
    other.abort();
    // 100 reads of 20 us each: others wait for no more than ten of them.
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns >= 10, "{turns} turns");
}

/// Its last use is recorded behind the caller's back, even where the reader does not own the file.
#[tokio::test]
async fn a_use_after_a_long_while_is_recorded() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(10)).await.unwrap();
    let file = File::open(entry(folder.path(), &key(1))).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 3600);
    file.set_modified(long_ago).unwrap();
    assert!(cache.get(&key(1)).await.unwrap().is_some());
    close(&cache).await;
    let used = file.metadata().unwrap().modified().unwrap();
    assert!(used.elapsed().unwrap() < Duration::from_secs(60));

    let a_while_ago = SystemTime::now() - Duration::from_secs(30 * 60);
    file.set_modified(a_while_ago).unwrap();
    assert!(cache.get(&key(1)).await.unwrap().is_some());
    close(&cache).await;
    assert_eq!(file.metadata().unwrap().modified().unwrap(), a_while_ago);
}

async fn close(cache: &DiskCache) {
    cache.close(Duration::from_secs(60)).await.unwrap();
}
