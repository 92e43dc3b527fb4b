//! What the kernel has in its caches is read without a hop, and nothing else is: a worker never
//! waits for a disk.

use crate::support::{
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
/// As much as is read on a worker.
const LARGE: usize = 1024 * 1024;

/// What a lookup comes to while nothing can be done on the blocking pool. `None` where it waits for
/// the pool; then it is let in, and must succeed.
fn without_the_pool(root: &Path, key: PipelineFingerprint) -> Option<Option<usize>> {
    with_one_blocking_thread(async { look(&open(root).await, key).await })
}

fn with_one_blocking_thread<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work)
}

async fn look(cache: &DiskCache, key: PipelineFingerprint) -> Option<Option<usize>> {
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
        assert!(get.await.is_some() || !entry(cache.root(), &key).exists());
    }
    answer
}

fn filled(root: &Path, len: usize) {
    block_on(async {
        let cache = open(root).await;
        cache.put(&key(1), artifact(len)).await.unwrap();
        cache.close(Duration::from_secs(60)).await.unwrap();
    });
}

#[test]
fn an_entry_in_the_page_cache_is_read_on_the_worker() {
    for len in [0, 1, 4096, SMALL, SMALL + 4096, LARGE / 2, LARGE - 1, LARGE] {
        let folder = folder();
        filled(folder.path(), len);
        // A machine that is short of memory may have taken the pages back.
        let answer = (0..10).find_map(|_| without_the_pool(folder.path(), key(1)));
        assert_eq!(answer, Some(Some(len)));
    }
}

/// The folder of the aliases is made by the first of them, when the cache is open already.
#[test]
fn an_alias_in_a_new_folder_is_read_on_the_worker() {
    let folder = folder();
    let answer = with_one_blocking_thread(async {
        let cache = open(folder.path()).await;
        let aliases = cache.aliases().unwrap();
        aliases.put(&key(1), artifact(32)).await.unwrap();
        for _ in 0..10 {
            if let Some(answer) = look(aliases, key(1)).await {
                return Some(answer);
            }
        }
        None
    });
    assert_eq!(answer, Some(Some(32)));
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
fn what_is_still_larger_is_read_on_the_pool() {
    let folder = folder();
    filled(folder.path(), LARGE + 4096);
    assert_eq!(without_the_pool(folder.path(), key(1)), None);
}

#[test]
fn a_damaged_entry_is_dealt_with_on_the_pool() {
    for (len, byte) in [
        (1000, 999),
        (LARGE, 0),
        (LARGE, LARGE / 2),
        (LARGE, LARGE - 1),
    ] {
        let folder = folder();
        filled(folder.path(), len);
        let entry = entry(folder.path(), &key(1));
        let mut frame = fs::read(&entry).unwrap();
        let payload = frame.len() - len;
        frame[payload + byte] ^= 1;
        fs::write(&entry, frame).unwrap();
        assert_eq!(without_the_pool(folder.path(), key(1)), None);
        assert!(!entry.exists(), "it was set aside");
    }
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
        // Nor is one asked that is not known to answer by itself.
        "statfs:error=ENOSYS",
    ] {
        let test = child(
            module_path!(),
            "what_the_kernel_would_have_to_wait_for_is_read_on_the_pool",
        );
        let log = traced(test, folder.path(), call);
        assert!(log.contains("(INJECTED)"), "{call}: {log}");
        let asked = log.contains("openat2(");
        assert_eq!(asked, !call.starts_with("statfs"), "{log}");
    }
}

/// The system calls that open and read, of a test in which one is made to fail.
fn traced(test: Command, root: &Path, injected: &str) -> String {
    let log = root.join("calls");
    let mut traced = Command::new("strace");
    traced
        .args(["-f", "-qq", "-e"])
        .arg("trace=openat,openat2,preadv2,statfs")
        .arg("-e")
        .arg(format!("inject={injected}"))
        .arg("-o")
        .arg(&log)
        .arg(test.get_program())
        .args(test.get_args());
    let output = traced.env(ROLE, "child").env(ROOT, root).output();
    assert_success(&output.unwrap());
    fs::read_to_string(log).unwrap()
}

#[test]
fn what_was_opened_for_nothing_is_read_on_the_pool_without_being_opened_again() {
    if is_child() {
        let root = std::env::var_os(ROOT).unwrap();
        assert_eq!(without_the_pool(Path::new(&root), key(1)), None);
        return;
    }
    if !can_trace() {
        return skip("no strace");
    }
    // The first slice is in the caches and the second is not; and what is too large for slices.
    for (len, reads) in [(LARGE, 2), (LARGE + 4096, 0)] {
        let folder = folder();
        filled(folder.path(), len);
        let test = child(
            module_path!(),
            "what_was_opened_for_nothing_is_read_on_the_pool_without_being_opened_again",
        );
        let log = traced(test, folder.path(), "preadv2:error=EAGAIN:when=2");
        let name = format!("{}.bin", key(1));
        let opened = log.lines().filter(|line| line.contains(&name)).count();
        assert_eq!(opened, 1, "{log}");
        let tried = log.lines().filter(|line| line.contains("preadv2(")).count();
        assert_eq!(tried, reads, "{log}");
    }
}

/// A small frame whose payload unpacks to more than may be unpacked on a worker, and a large one,
/// which is not hashed as it is stored.
#[cfg(all(feature = "zstd", feature = "remote-cache"))]
#[test]
fn a_compressed_entry_is_unpacked_on_the_pool() {
    let (zeros, noise) = (vec![0; LARGE], artifact(LARGE / 2).payload().to_vec());
    for (payload, stored_small) in [(zeros, true), (noise, false)] {
        let stored = zstd::bulk::compress(&payload, 3).unwrap();
        assert_eq!(stored.len() < SMALL, stored_small);
        let folder = folder();
        let whole = pipeline_cache::Artifact::new(payload);
        let frame = compressed(&key(1), &whole, &stored);
        block_on(async {
            let cache = open(folder.path()).await;
            cache.put_frame(&key(1), frame.into()).await.unwrap();
        });
        assert_eq!(without_the_pool(folder.path(), key(1)), None);
    }
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
    frame.extend_from_slice(&[0; 8]);
    let check = blake3::hash(&frame);
    frame.extend_from_slice(&check.as_bytes()[..8]);
    let tag = blake3::hash(&frame);
    frame.extend_from_slice(tag.as_bytes());
    frame.extend_from_slice(stored);
    frame
}

/// How often another task had its turn while an entry was read so often.
async fn yields_to_others(len: usize, reads: usize) -> usize {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(len)).await.unwrap();
    yields_beside(reads, &cache, key(1)).await
}

async fn yields_beside(reads: usize, cache: &DiskCache, key: PipelineFingerprint) -> usize {
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let is_there = cache.contains(&key).await.unwrap();
    for _ in 0..reads {
        assert_eq!(cache.get(&key).await.unwrap().is_some(), is_there);
    }
    other.abort();
    turns.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_task_that_reads_much_lets_others_run() {
    // 100 reads of 20 us each: others wait for no more than ten of them.
    let turns = yields_to_others(SMALL, 100).await;
    assert!(turns >= 10, "{turns} turns");
    // A read of 250 us: others wait for no more than half of it.
    let turns = yields_to_others(LARGE, 10).await;
    assert!(turns >= 20, "{turns} turns");
    // And looks for what is known not to be there, of 2 us each: for no more than a few hundred.
    let folder = folder();
    let turns = yields_beside(10_000, &open(folder.path()).await, key(2)).await;
    assert!(turns >= 20, "{turns} turns");
}

/// Nobody knows when a caller takes his next turn.
#[test]
fn a_sliced_read_that_is_dropped_holds_up_no_other() {
    let folder = folder();
    filled(folder.path(), LARGE);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let builder = DiskCache::builder().root(folder.path());
        let cache = builder.max_concurrent_operations(1).open().await.unwrap();
        let key1 = key(1);
        let mut left = cache.get(&key1);
        while cache_reads(&folder) == 0 {
            assert!(futures::poll!(&mut left).is_pending());
            tokio::task::yield_now().await;
        }
        // As many as may be in the midst are, so that the next goes to the pool.
        let (release, gate) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let mut next = cache.get(&key1);
        for _ in 0..20 {
            assert!(futures::poll!(&mut next).is_pending());
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        let all = async {
            assert!(next.await.unwrap().is_some());
            cache.put(&key(2), artifact(10)).await.unwrap();
            assert!(cache.contains(&key(2)).await.unwrap());
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), all).await;
        waited.expect("they wait for the one that was left");
        assert!(left.await.unwrap().is_some());
    });
}

/// How many files of the folder this process has open to read them.
fn cache_reads(folder: &tempfile::TempDir) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = open.filter_map(|file| fs::read_link(file.path()).ok());
    targets
        .filter(|target| *target == entry(folder.path(), &key(1)))
        .count()
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
