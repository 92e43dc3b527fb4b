//! What an operator does to a folder: list it, verify it, empty it.

use crate::support::{artifact, entry, folder, key, names, open};
use futures::{StreamExt as _, TryStreamExt as _};
use pipeline_cache::disk::{DiskCacheHealth, DiskCacheVerification};
use pipeline_cache::{
    Artifact, ArtifactMetadata, DiskCache, FrameError, PipelineCacheStore, SharedSecret,
    StoreErrorKind,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

#[tokio::test]
async fn entries_tell_key_size_metadata_and_last_use() {
    let folder = folder();
    let cache = open(folder.path()).await;
    for number in 0..700 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    // Metadata that does not come with the first read.
    let large = ArtifactMetadata::new().with_device("x".repeat(60_000));
    let large = Artifact::with_metadata("code", large);
    cache.put(&key(700), large.clone()).await.unwrap();
    fs::write(entry(folder.path(), &key(701)), "torn").unwrap();
    fs::create_dir(entry(folder.path(), &key(702))).unwrap();
    fs::write(folder.path().join("README"), "precious").unwrap();
    let before = SystemTime::now() - Duration::from_secs(7200);
    let file = fs::File::open(entry(folder.path(), &key(1))).unwrap();
    file.set_modified(before).unwrap();

    let metrics = cache.metrics();
    let entries: Vec<_> = cache.entries().try_collect().await.unwrap();
    let entries: BTreeMap<_, _> = entries
        .into_iter()
        .map(|entry| (entry.key, entry))
        .collect();
    assert_eq!(entries.len(), 702);
    for number in 0..700 {
        let found = &entries[&key(number)];
        assert_eq!(found.metadata.as_ref(), Some(artifact(10).metadata()));
        let file = fs::metadata(entry(folder.path(), &key(number))).unwrap();
        assert_eq!(found.bytes, file.len());
    }
    assert_eq!(entries[&key(700)].metadata.as_ref(), Some(large.metadata()));
    assert_eq!(entries[&key(701)].metadata, None);
    for number in [0, 700, 701] {
        let one = cache.entry(&key(number)).await.unwrap();
        assert_eq!(one.as_ref(), entries.get(&key(number)));
    }
    assert_eq!(cache.entry(&key(5000)).await.unwrap(), None);
    let error = cache.entry(&key(702)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::UnsafeEntry);
    assert_eq!(entries[&key(1)].last_used, before, "to look is not to use");
    assert_eq!(cache.metrics(), metrics);

    // Of an authenticated folder, only those with the secret are told anything.
    let secret = DiskCache::builder()
        .root(folder.path())
        .shared_secret(SharedSecret::new("secret"));
    let secret = secret.open().await.unwrap();
    let found: Vec<_> = secret.entries().try_collect().await.unwrap();
    assert!(found.iter().all(|entry| entry.metadata.is_none()));
    // And which of them may be good for somebody else.
    let found = found.iter().map(|entry| (entry.key, entry.foreign));
    let found: BTreeMap<_, _> = found.collect();
    assert_eq!(found[&key(0)], Some(FrameError::Unauthenticated));
    assert_eq!(found[&key(701)], None, "it is damaged");
}

#[tokio::test]
async fn a_folder_that_is_gone_has_no_entries() {
    let folder = folder();
    let root = folder.path().join("cache");
    let cache = open(&root).await;
    fs::remove_dir_all(&root).unwrap();
    assert!(cache.entries().next().await.is_none());
    assert!(cache.verify().next().await.is_none());
    assert_eq!(cache.clear().await.unwrap(), 0);

    fs::write(&root, "").unwrap();
    let error = cache.entries().next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Io);
    let errors: Vec<_> = cache.verify().collect().await;
    assert!(matches!(&errors[..], [Err(_)]));
    assert!(cache.clear().await.is_err());
}

#[tokio::test]
async fn verify_finds_each_damage_and_sets_it_aside() {
    let folder = folder();
    let cache = open(folder.path()).await;
    for number in 0..1000 {
        cache.put(&key(number), artifact(100)).await.unwrap();
    }
    let at = |number| entry(folder.path(), &key(number));
    let whole = fs::read(at(0)).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() - 1] ^= 1;
    fs::write(at(0), &flipped).unwrap();
    let torn = fs::read(at(1)).unwrap();
    fs::write(at(1), &torn[..200]).unwrap();
    fs::write(at(2), "").unwrap();
    fs::copy(at(4), at(3)).unwrap();
    fs::File::create(at(5)).unwrap().set_len(1 << 40).unwrap();
    fs::remove_file(at(6)).unwrap();
    std::os::unix::fs::symlink(at(7), at(6)).unwrap();
    fs::remove_file(at(8)).unwrap();
    fs::create_dir(at(8)).unwrap();

    let metrics = cache.metrics();
    let checks: Vec<DiskCacheVerification> = cache.verify().try_collect().await.unwrap();
    assert_eq!(checks.len(), 1000);
    for (number, check) in checks.iter().enumerate() {
        assert_eq!((check.verified, check.of), (number as u64 + 1, 1000));
    }
    let mut corrupt = BTreeMap::new();
    let mut unsafe_entries = BTreeSet::new();
    for check in &checks {
        match &check.health {
            DiskCacheHealth::Whole => {}
            DiskCacheHealth::Corrupt(error) => drop(corrupt.insert(check.key, *error)),
            DiskCacheHealth::Unsafe => drop(unsafe_entries.insert(check.key)),
            other => panic!("{other:?}"),
        }
    }
    let expected = [
        (0, FrameError::BadPayload),
        (1, FrameError::LengthMismatch),
        (2, FrameError::TooShort(0)),
        (3, FrameError::OtherFingerprint),
        (5, FrameError::NotAFrame),
    ];
    let expected = expected.map(|(number, error)| (key(number), error));
    assert_eq!(corrupt, BTreeMap::from(expected));
    assert_eq!(unsafe_entries, BTreeSet::from([key(6), key(8)]));
    assert_eq!(cache.metrics(), metrics, "to verify is not to look up");

    // Set aside, not deleted; and found no more.
    for number in [0, 1, 2, 3, 5] {
        assert!(at(number).with_extension("corrupt").exists());
        assert!(!cache.contains(&key(number)).await.unwrap());
    }
    assert!(at(6).is_symlink() && at(8).is_dir());
    let again: Vec<_> = cache.verify().try_collect().await.unwrap();
    assert_eq!(again.len(), 995);
    cache.put(&key(0), artifact(100)).await.unwrap();
    assert!(cache.get(&key(0)).await.unwrap().is_some());
}

#[tokio::test]
async fn clear_removes_entries_and_nothing_else() {
    let folder = folder();
    let cache = open(folder.path()).await;
    for number in 0..600 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    fs::write(entry(folder.path(), &key(0)), "torn").unwrap();
    assert!(cache.get(&key(0)).await.unwrap().is_none());
    fs::write(folder.path().join("README"), "precious").unwrap();
    fs::create_dir(entry(folder.path(), &key(1000))).unwrap();
    assert_eq!(cache.clear().await.unwrap(), 599);
    let expected = BTreeSet::from([format!("{}.bin", key(1000)), "README".to_owned()]);
    assert_eq!(BTreeSet::from_iter(names(folder.path())), expected);
    cache.flush().await.unwrap();
    cache.put(&key(1), artifact(10)).await.unwrap();
    assert_eq!(cache.clear().await.unwrap(), 1);

    cache.close(Duration::from_secs(60)).await.unwrap();
    let error = cache.clear().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed);
}

#[tokio::test]
async fn a_close_ends_a_clear() {
    const ENTRIES: usize = 400;
    let folder = folder();
    let cache = open(folder.path()).await;
    for number in 0..ENTRIES as u64 {
        fs::write(entry(folder.path(), &key(number)), "").unwrap();
    }
    let clear = tokio::spawn({
        let cache = cache.clone();
        async move { cache.clear().await }
    });
    while names(folder.path()).len() == ENTRIES {
        tokio::task::yield_now().await;
    }
    let before = names(folder.path()).len();
    cache.close(Duration::from_secs(60)).await.unwrap();
    let error = clear.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed);
    let after = names(folder.path()).len();
    assert!(after + 1 >= before && before > 1, "{before}, then {after}");
}

/// Checks under way hold nothing that a put needs.
#[tokio::test]
async fn a_put_between_two_verified_entries_does_not_wait() {
    let folder = folder();
    let cache = DiskCache::builder().root(folder.path());
    let cache = cache.max_concurrent_operations(1).open().await.unwrap();
    for number in 0..20 {
        cache.put(&key(number), artifact(10)).await.unwrap();
    }
    let patient = Duration::from_secs(30);
    let mut checks = cache.verify();
    for number in 100..120 {
        assert!(checks.try_next().await.unwrap().is_some());
        let key = key(number);
        let put = cache.put(&key, artifact(10));
        tokio::time::timeout(patient, put).await.unwrap().unwrap();
    }
}
