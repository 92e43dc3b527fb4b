//! What a network tier could not take is kept in the disk tier, and offered again also by later
//! processes.

use async_trait::async_trait;
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, DiskCache, DiskCacheBuilder, Fetched, InMemoryPipelineCache, LayeredPipelineCache,
    LayeredPipelineCacheBuilder, PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint,
    SharedSecret, StoreError, StoreErrorKind, StoreOperation,
};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const DOWN: Fault = Fault::Error(StoreErrorKind::Unavailable);

fn key(number: u8) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes([number; 32])
}

fn artifact(number: u8) -> Artifact {
    Artifact::new(vec![number; 100])
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

const REMOTE: &str = "remote(https://one.example.com)";

fn remote() -> Arc<FaultyStore> {
    Arc::new(FaultyStore::new(REMOTE).network())
}

/// Takes everything but the keys of these numbers.
#[derive(Debug)]
struct Picky {
    inner: InMemoryPipelineCache,
    refused: std::ops::Range<u8>,
}

/// As behind a server to which the largest artifacts do not get in time.
fn remote_that_refuses(refused: std::ops::Range<u8>) -> Arc<FaultyStore> {
    let inner = InMemoryPipelineCache::new();
    let picky = Arc::new(Picky { inner, refused });
    Arc::new(FaultyStore::over(REMOTE, picky).network())
}

impl fmt::Display for Picky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("picky")
    }
}

#[async_trait]
impl PipelineCacheStore for Picky {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        self.inner.fetch(key).await
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        match self.refused.contains(&key.as_bytes()[0]) {
            true => Err(StoreError::new(
                StoreErrorKind::TimedOut,
                "picky",
                StoreOperation::Put,
            )),
            false => self.inner.put(key, artifact).await,
        }
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.remove(key).await
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.inner.metrics()
    }
}

fn remote_that(fault: Fault) -> Arc<FaultyStore> {
    let remote = remote();
    remote.set(StoreOperation::Put, fault);
    remote
}

async fn disk(folder: &TempDir) -> DiskCache {
    open(DiskCache::builder(), folder).await
}

async fn open(settings: DiskCacheBuilder, folder: &TempDir) -> DiskCache {
    settings.root(folder.path()).open().await.unwrap()
}

fn over(disk: &DiskCache, remote: &Arc<FaultyStore>) -> LayeredPipelineCacheBuilder {
    LayeredPipelineCache::builder()
        .tier(disk.clone())
        .tier(Arc::clone(remote))
}

async fn compile(cache: &LayeredPipelineCache, numbers: std::ops::Range<u8>) {
    for number in numbers {
        let compile = move || async move { Ok::<_, Infallible>(artifact(number)) };
        let key = key(number);
        cache.get_or_insert_with(&key, compile).await.unwrap();
    }
}

async fn stored(remote: &FaultyStore) -> usize {
    let mut stored = 0;
    for number in 0..=u8::MAX {
        if let Some(found) = remote.get(&key(number)).await.unwrap() {
            assert_eq!(found, artifact(number));
            stored += 1;
        }
    }
    stored
}

/// Waits until the remote has so many artifacts, for a minute at most.
async fn stored_within_a_minute(remote: &FaultyStore, expected: usize) {
    for _ in 0..60 {
        if stored(remote).await >= expected {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(stored(remote).await, expected);
}

async fn intents(disk: &DiskCache) -> u64 {
    let all = disk.intents().await.unwrap();
    all.iter().map(|of_tier| of_tier.intents).sum()
}

/// The folder of the intents for the only tier.
fn intents_folder(folder: &TempDir) -> PathBuf {
    let mut folders = fs::read_dir(folder.path().join("intents")).unwrap();
    folders.next().unwrap().unwrap().path()
}

fn make_older(folder: &TempDir, number: u8, by: Duration) {
    let path = intents_folder(folder).join(key(number).to_hex());
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() - by)
        .unwrap();
}

/// The keys of which there are intents.
fn intended(folder: &TempDir) -> BTreeSet<u8> {
    let names = fs::read_dir(intents_folder(folder)).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    let keys = names.filter_map(|name| name.parse::<PipelineFingerprint>().ok());
    keys.map(|key| key.as_bytes()[0]).collect()
}

/// A process that compiles these during an outage, and exits.
async fn compiled_during_an_outage(folder: &TempDir, numbers: std::ops::Range<u8>, fault: Fault) {
    let remote = remote_that(fault);
    let expected = numbers.len() as u64;
    let cache = over(&disk(folder).await, &remote).build();
    compile(&cache, numbers).await;
    let report = cache.close(Duration::from_secs(10)).await;
    assert_eq!(report.kept_intents, expected, "{report:?}");
    assert!(!report.is_clean(), "the remote has nothing");
}

#[tokio::test(start_paused = true)]
async fn what_was_compiled_during_an_outage_is_uploaded_after_a_restart() {
    for fault in [DOWN, Fault::Hang, Fault::Error(StoreErrorKind::BreakerOpen)] {
        let folder = folder();
        compiled_during_an_outage(&folder, 0..100, fault).await;
        let (disk, remote) = (disk(&folder).await, remote());
        assert_eq!(intents(&disk).await, 100);
        // Nothing is compiled and nothing looked up: the cache is only opened.
        let cache = over(&disk, &remote).build();
        stored_within_a_minute(&remote, 100).await;
        cache.flush().await.unwrap();
        assert_eq!(intents(&disk).await, 0);
        let report = cache.write_behind_report();
        assert_eq!((report.intents_taken, report.intents_dropped), (100, 0));
        assert_eq!((report.accepted, report.waiting), (0, 0));
    }
}

/// As with a kill: nothing is closed, and its runtime is gone.
#[test]
fn a_process_that_dies_during_an_outage_has_left_intents() {
    let runtime = || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap()
    };
    let folder = folder();
    let first = runtime();
    first.block_on(async {
        let cache = over(&disk(&folder).await, &remote_that(Fault::Hang)).build();
        compile(&cache, 0..100).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        std::mem::forget(cache);
    });
    drop(first);
    assert_eq!(intended(&folder).len(), 100);
    runtime().block_on(async {
        let remote = remote();
        let cache = over(&disk(&folder).await, &remote).build();
        stored_within_a_minute(&remote, 100).await;
        drop(cache);
    });
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_takes_writes_costs_no_intent() {
    let (folder, remote) = (folder(), remote());
    remote.set(
        StoreOperation::Put,
        Fault::Latency(Duration::from_millis(100)),
    );
    let cache = over(&disk(&folder).await, &remote).build();
    for number in 0..20 {
        compile(&cache, number..number + 1).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    cache.flush().await.unwrap();
    assert_eq!(cache.write_behind_report().intents_kept, 0);
    assert!(!folder.path().join("intents").exists());
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_fails_again_half_way_gets_the_rest_later() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..100, DOWN).await;
    let remote = remote_that(Fault::Gate);
    remote.open(StoreOperation::Put, 40);
    let disk = disk(&folder).await;
    let _cache = over(&disk, &remote).build();
    remote.called(StoreOperation::Put, 41).await;
    remote.set(StoreOperation::Put, DOWN);
    remote.open(StoreOperation::Put, 20);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let there = stored(&remote).await;
    assert!((40..=60).contains(&there), "{there}");
    assert_eq!(intents(&disk).await, 100 - there as u64);
    let tried = remote.calls(StoreOperation::Put);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let tries = remote.calls(StoreOperation::Put) - tried;
    assert!((6..=40).contains(&tries), "{tries} tries in a minute");
    remote.set(StoreOperation::Put, Fault::None);
    stored_within_a_minute(&remote, 100).await;
}

/// The refused ones are the oldest, and more than failures in a row say that the tier is in trouble.
#[tokio::test(start_paused = true)]
async fn entries_that_a_tier_refuses_for_ever_keep_no_other_from_it_and_are_given_up() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..50, DOWN).await;
    let hour = Duration::from_secs(60 * 60);
    (0..8).for_each(|number| make_older(&folder, number, hour));
    let remote = remote_that_refuses(0..8);
    let disk = disk(&folder).await;
    let cache = over(&disk, &remote).max_write_refusals(4).build();
    stored_within_a_minute(&remote, 42).await;
    // Of a tier that takes nothing else it is not known whose fault it is.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(intents(&disk).await, 8);
    for number in 50..70 {
        compile(&cache, number..number + 1).await;
        tokio::time::sleep(Duration::from_secs(25)).await;
    }
    assert_eq!(intents(&disk).await, 0);
    let report = cache.write_behind_report();
    assert_eq!((report.intents_taken, report.intents_dropped), (42, 8));
}

/// Its write waited for the tiers, because the background was full.
#[tokio::test(start_paused = true)]
async fn a_put_whose_caller_gave_up_during_an_outage_is_uploaded_after_it() {
    let (folder, remote) = (folder(), remote_that(Fault::Hang));
    let disk = disk(&folder).await;
    let cache = over(&disk, &remote).background_limits(1, 1 << 20).build();
    cache.put(&key(0), artifact(0)).await.unwrap();
    let key = key(1);
    let put = cache.put(&key, artifact(1));
    let patience = Duration::from_secs(2);
    tokio::time::timeout(patience, put).await.unwrap_err();
    remote.set(StoreOperation::Put, Fault::None);
    stored_within_a_minute(&remote, 2).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(intents(&disk).await, 0);
}

#[tokio::test(start_paused = true)]
async fn one_process_at_a_time_uploads_what_was_left() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..100, DOWN).await;
    let remote = remote_that(Fault::Latency(Duration::from_millis(50)));
    let (first, second) = (disk(&folder).await, disk(&folder).await);
    let caches = [&first, &second].map(|disk| over(disk, &remote).build());
    stored_within_a_minute(&remote, 100).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(intents(&first).await, 0);
    assert_eq!(remote.calls(StoreOperation::Put), 100);
    let taken = caches.map(|cache| cache.write_behind_report().intents_taken);
    assert_eq!(taken.iter().sum::<u64>(), 100);
}

/// One that is stopped, for instance.
#[tokio::test(start_paused = true)]
async fn a_process_that_claims_the_intents_for_long_keeps_no_other_from_them() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..10, DOWN).await;
    let (first, second) = (disk(&folder).await, disk(&folder).await);
    let (hangs, remote) = (remote_that(Fault::Hang), remote());
    let _first = over(&first, &hangs).write_timeout(Duration::MAX).build();
    hangs.called(StoreOperation::Put, 1).await;
    let _second = over(&second, &remote).build();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(stored(&remote).await, 0);
    stored_within_a_minute(&remote, 10).await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_intents_are_kept_within_their_bound() {
    let (folder, remote) = (folder(), remote_that(DOWN));
    let disk = open(DiskCache::builder().max_write_intents(4), &folder).await;
    let cache = over(&disk, &remote).build();
    for number in 0..10 {
        compile(&cache, number..number + 1).await;
        cache.flush().await.unwrap_err();
    }
    assert_eq!(intended(&folder), BTreeSet::from([6, 7, 8, 9]));
    let report = cache.write_behind_report();
    assert_eq!((report.intents_kept, report.intents_dropped), (10, 6));
}

#[tokio::test(start_paused = true)]
async fn old_intents_are_dropped_and_counted() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..5, DOWN).await;
    let more_than_a_week = Duration::from_secs(8 * 24 * 60 * 60);
    (0..3).for_each(|number| make_older(&folder, number, more_than_a_week));
    let remote = remote();
    let cache = over(&disk(&folder).await, &remote).build();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stored(&remote).await, 2);
    assert_eq!(cache.write_behind_report().intents_dropped, 3);
}

#[tokio::test(start_paused = true)]
async fn an_intent_whose_artifact_is_gone_is_dropped_and_counted() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..5, DOWN).await;
    for number in 0..2 {
        fs::remove_file(folder.path().join(format!("{}.bin", key(number)))).unwrap();
    }
    let (disk, remote) = (disk(&folder).await, remote());
    let cache = over(&disk, &remote).build();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stored(&remote).await, 3);
    let report = cache.write_behind_report();
    assert_eq!((report.intents_taken, report.intents_dropped), (3, 2));
    assert_eq!(intents(&disk).await, 0);
}

/// Here a file has the name of the folder, so that nobody can create it, root included.
#[tokio::test(start_paused = true)]
async fn where_no_intent_can_be_kept_puts_succeed_and_that_is_counted() {
    let (folder, remote) = (folder(), remote_that(DOWN));
    fs::write(folder.path().join("intents"), "mine").unwrap();
    let cache = over(&disk(&folder).await, &remote).build();
    compile(&cache, 0..5).await;
    cache.put(&key(5), artifact(5)).await.unwrap();
    let error = cache.flush().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let report = cache.write_behind_report();
    assert!(report.intents_failed >= 6, "{report:?}");
    assert_eq!((report.intents_kept, report.waiting), (0, 6));
    // It is offered from memory, as ever.
    remote.set(StoreOperation::Put, Fault::None);
    cache.flush().await.unwrap();
    assert_eq!(stored(&remote).await, 6);
    assert_eq!(fs::read(folder.path().join("intents")).unwrap(), b"mine");
}

#[tokio::test(start_paused = true)]
async fn a_cache_over_another_tier_leaves_the_intents() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..5, DOWN).await;
    let other = Arc::new(FaultyStore::new("remote(https://two.example.com)").network());
    let disk = disk(&folder).await;
    let cache = over(&disk, &other).build();
    tokio::time::sleep(Duration::from_secs(120)).await;
    cache.flush().await.unwrap();
    assert_eq!(other.calls(StoreOperation::Put), 0);
    let kept = disk.intents().await.unwrap();
    assert_eq!((kept.len(), kept[0].intents), (1, 5));
    assert_eq!(
        kept[0].tier.as_deref(),
        Some("remote(https://one.example.com)")
    );
}

#[tokio::test(start_paused = true)]
async fn files_of_others_among_the_intents_are_ignored_and_left() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..3, DOWN).await;
    let of_tier = intents_folder(&folder);
    let all = folder.path().join("intents");
    fs::write(of_tier.join("notes"), "mine").unwrap();
    fs::write(of_tier.join("tier"), "torn").unwrap();
    fs::create_dir(of_tier.join(key(100).to_hex())).unwrap();
    fs::create_dir(all.join("0123456789abcdef0123456789abcdef")).unwrap();
    fs::create_dir(all.join("a folder")).unwrap();
    fs::write(all.join("fedcba9876543210fedcba9876543210"), "mine").unwrap();
    let (disk, remote) = (disk(&folder).await, remote());
    let kept = disk.intents().await.unwrap();
    assert_eq!((kept.len(), kept[0].intents, &kept[0].tier), (1, 3, &None));
    let _cache = over(&disk, &remote).build();
    stored_within_a_minute(&remote, 3).await;
    disk.remove(&key(100)).await.unwrap();
    for left in [&of_tier.join("notes"), &of_tier.join(key(100).to_hex())] {
        assert!(left.exists(), "{}", left.display());
    }
    assert_eq!(fs::read_dir(&all).unwrap().count(), 4);
}

/// The name of the tier is for operators. A disk that is full takes empty files, and no name.
#[tokio::test(start_paused = true)]
async fn intents_are_kept_where_the_name_of_their_tier_cannot_be_written() {
    let folder = folder();
    let digest = &blake3::hash(REMOTE.as_bytes()).to_hex()[..32];
    let of_tier = folder.path().join("intents").join(digest);
    fs::create_dir_all(of_tier.join("tier")).unwrap();
    compiled_during_an_outage(&folder, 0..3, DOWN).await;
    assert_eq!(intended(&folder), BTreeSet::from([0, 1, 2]));
}

/// Nothing is added there either.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_link_in_the_place_of_the_folder_is_not_followed() {
    let (folder, elsewhere) = (folder(), tempfile::tempdir().unwrap());
    compiled_during_an_outage(&folder, 0..3, DOWN).await;
    let (link, moved) = (
        folder.path().join("intents"),
        elsewhere.path().join("intents"),
    );
    fs::rename(&link, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &link).unwrap();
    let (disk, remote) = (disk(&folder).await, remote());
    let cache = over(&disk, &remote).build();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stored(&remote).await, 0);
    remote.set(StoreOperation::Put, DOWN);
    compile(&cache, 3..4).await;
    cache.flush().await.unwrap_err();
    assert_eq!(intended(&folder), BTreeSet::from([0, 1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_takes_no_writes_is_owed_none() {
    let folder = folder();
    let remote = FaultyStore::new("remote").network().read_only();
    let disk = disk(&folder).await;
    let cache = over(&disk, &Arc::new(remote)).build();
    compile(&cache, 0..5).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    cache.flush().await.unwrap();
    assert!(!folder.path().join("intents").exists());
}

#[tokio::test(start_paused = true)]
async fn a_removed_key_has_no_intent() {
    let (folder, remote) = (folder(), remote_that(DOWN));
    let disk = disk(&folder).await;
    let cache = over(&disk, &remote).build();
    compile(&cache, 0..3).await;
    cache.flush().await.unwrap_err();
    cache.remove(&key(1)).await.unwrap();
    assert_eq!(intended(&folder), BTreeSet::from([0, 2]));
    assert_eq!(disk.clear().await.unwrap(), 2);
    assert_eq!(intents(&disk).await, 0);
}

/// The memory for what waits is small, and the disk is large.
#[tokio::test(start_paused = true)]
async fn what_no_longer_fits_in_memory_is_offered_from_the_disk() {
    let (folder, remote) = (folder(), remote_that(DOWN));
    let disk = disk(&folder).await;
    let cache = over(&disk, &remote).background_limits(4, 1 << 20).build();
    compile(&cache, 0..50).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let report = cache.write_behind_report();
    assert_eq!((report.waiting, report.abandoned), (4, 0));
    assert_eq!(intents(&disk).await, 50);
    remote.set(StoreOperation::Put, Fault::None);
    stored_within_a_minute(&remote, 50).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(intents(&disk).await, 0);
}

/// A flush answers for the writes of this cache, not for those of others.
#[tokio::test(start_paused = true)]
async fn a_flush_does_not_wait_for_what_others_left() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..5, DOWN).await;
    let cache = over(&disk(&folder).await, &remote_that(DOWN)).build();
    tokio::time::sleep(Duration::from_secs(10)).await;
    cache.flush().await.unwrap();
    let report = cache.close(Duration::from_secs(10)).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(intended(&folder).len(), 5);
}

/// Anybody could have put the entries there that would be uploaded with this user's credentials.
#[tokio::test(start_paused = true)]
async fn a_folder_of_many_users_keeps_intents_only_where_entries_are_signed() {
    for signed in [false, true] {
        let folder = folder();
        let mut settings = DiskCache::builder().allow_other_users();
        if signed {
            settings = settings.shared_secret(SharedSecret::new("sixteen random bytes"));
        }
        let disk = open(settings, &folder).await;
        assert_eq!(disk.write_intents().is_some(), signed);
        let cache = over(&disk, &remote_that(DOWN)).build();
        compile(&cache, 0..3).await;
        let report = cache.close(Duration::from_secs(10)).await;
        assert_eq!(report.kept_intents, if signed { 3 } else { 0 });
        assert_eq!(intents(&disk).await, if signed { 3 } else { 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_layered_store_keeps_intents_in_the_disk_below_it() {
    let (folder, remote) = (folder(), remote_that(DOWN));
    let local = LayeredPipelineCache::builder()
        .tier(pipeline_cache::InMemoryPipelineCache::new())
        .tier(disk(&folder).await)
        .build();
    let cache = LayeredPipelineCache::builder()
        .tier(local)
        .tier(Arc::clone(&remote))
        .build();
    compile(&cache, 0..3).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cache.close(Duration::from_secs(10)).await;
    assert_eq!(intended(&folder), BTreeSet::from([0, 1, 2]));
}

/// What is left for a server that is gone for good does not stay for ever.
#[tokio::test]
async fn the_intents_for_a_tier_that_is_no_longer_used_are_removed_when_the_folder_is_opened() {
    let folder = folder();
    compiled_during_an_outage(&folder, 0..3, DOWN).await;
    let of_tier = intents_folder(&folder);
    let age = Duration::from_millis(100);
    let is_there = |path: &Path| path.exists();
    open(DiskCache::builder(), &folder).await;
    assert!(is_there(&of_tier));
    tokio::time::sleep(age * 2).await;
    open(DiskCache::builder().max_write_intent_age(age), &folder).await;
    assert!(!is_there(&of_tier));
}
