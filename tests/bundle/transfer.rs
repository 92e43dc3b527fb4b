//! What goes from a disk cache into a bundle, and from there into another.

use pipeline_cache::bundle::{self, PackOptions};
use pipeline_cache::{BundleCache, DiskCache, FrameError, PipelineCacheStore as _, SharedSecret};
use std::fs;
use std::path::Path;

use crate::support::{Small, artifact, frame, key};

async fn filled(root: &Path) -> DiskCache {
    let cache = DiskCache::new(root).await.unwrap();
    for number in 0..10 {
        cache
            .put(&key(number), artifact(number, 200))
            .await
            .unwrap();
        let aliases = cache.aliases().unwrap();
        aliases
            .put(&key(number + 50), artifact(number, 32))
            .await
            .unwrap();
    }
    cache
}

#[tokio::test]
async fn what_was_packed_is_what_is_unpacked() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = filled(&folder.path().join("theirs")).await;
    let before = theirs.metrics();
    let path = folder.path().join("all.bundle");
    let options = PackOptions::default();
    let mut seen = Vec::new();
    let packed = bundle::pack(&theirs, &path, &options, |at| seen.push(at.done)).await;
    let packed = packed.unwrap();
    assert_eq!((packed.written.entries, packed.written.aliases), (10, 10));
    assert_eq!(
        (packed.missing, packed.damaged, packed.not_judged),
        (0, 0, 0)
    );
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    assert_eq!(theirs.metrics(), before, "it is no lookup");

    let ours = DiskCache::new(folder.path().join("ours")).await.unwrap();
    let shipped = BundleCache::open(&path).await.unwrap();
    let unpacked = bundle::unpack(&shipped, &ours, |at| assert_eq!(at.of, 20));
    let unpacked = unpacked.await.unwrap();
    assert_eq!((unpacked.stored, unpacked.kept), (20, 0));
    for number in 0..10 {
        let found = ours.get(&key(number)).await.unwrap().unwrap();
        assert_eq!(found, artifact(number, 200));
        assert_eq!(found.metadata(), artifact(number, 200).metadata());
        let alias = ours.aliases().unwrap().get(&key(number + 50)).await;
        assert_eq!(alias.unwrap(), Some(artifact(number, 32)));
    }
    assert!(ours.durability_report().durable);
    assert!(ours.aliases().unwrap().durability_report().durable);
    let again = bundle::unpack(&shipped, &ours, |_| {}).await.unwrap();
    assert_eq!((again.stored, again.kept), (0, 20));
    let back = folder.path().join("back.bundle");
    bundle::pack(&ours, &back, &options, |_| {}).await.unwrap();
    assert_eq!(fs::read(back).unwrap(), fs::read(path).unwrap());
}

#[tokio::test]
async fn aliases_can_be_left_out_and_missing_keys_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let cache = filled(&folder.path().join("cache")).await;
    let path = folder.path().join("some.bundle");
    let options = PackOptions::default()
        .keys([3, 4, 77].map(key))
        .without_aliases();
    let packed = bundle::pack(&cache, &path, &options, |_| {}).await.unwrap();
    assert_eq!((packed.written.entries, packed.written.aliases), (2, 0));
    assert_eq!(packed.missing, 1);
}

#[tokio::test]
async fn what_is_damaged_or_cannot_be_judged_is_left_out_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    let cache = filled(&root).await;
    let entry = |number: u64| root.join(format!("{}.bin", key(number)));
    let mut torn = fs::read(entry(1)).unwrap();
    torn.pop();
    fs::write(entry(1), &torn).unwrap();
    let keyed = artifact(2, 200).to_frame(&key(2), Some(&SharedSecret::new("s").into()));
    fs::write(entry(2), keyed.unwrap()).unwrap();
    fs::remove_file(entry(3)).unwrap();
    fs::create_dir(entry(3)).unwrap();
    let path = folder.path().join("rest.bundle");
    let options = PackOptions::default();
    let packed = bundle::pack(&cache, &path, &options, |_| {});
    let packed = packed.await.unwrap();
    assert_eq!(packed.written.entries, 7);
    assert_eq!((packed.damaged, packed.not_judged), (2, 1));
    assert_eq!(fs::read(entry(1)).unwrap(), torn, "a verify sets it aside");
}

#[tokio::test]
async fn what_the_cache_does_not_accept_is_not_unpacked() {
    let small = Small::new().await;
    let mut bytes = small.bytes.clone();
    bytes[16 + 150] ^= 1;
    fs::write(&small.path, bytes).unwrap();
    let shipped = BundleCache::open(&small.path).await.unwrap();
    let ours = DiskCache::builder().root(small.folder.path().join("ours"));
    let plain = ours.clone().open().await.unwrap();
    let report = bundle::unpack(&shipped, &plain, |_| {}).await.unwrap();
    assert_eq!((report.stored, report.damaged), (4, 1));

    let demanding = small.folder.path().join("demanding");
    let demanding = ours.root(demanding).shared_secret(SharedSecret::new("s"));
    let demanding = demanding.open().await.unwrap();
    let report = bundle::unpack(&shipped, &demanding, |_| {}).await.unwrap();
    assert_eq!(
        (report.stored, report.damaged, report.not_judged),
        (0, 0, 5)
    );
    for key in small.artifacts.keys() {
        assert_eq!(demanding.get(key).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_stored_form_is_handed_out_as_it_is() {
    let small = Small::new().await;
    let cache = BundleCache::open(&small.path).await.unwrap();
    for (key, artifact) in &small.artifacts {
        let stored = cache.frame(key).await.unwrap();
        assert_eq!(stored, Some(frame(key, artifact)));
    }
    let alias = small.aliases.keys().next().unwrap();
    assert_eq!(cache.frame(alias).await.unwrap(), None);
    let whole = pipeline_cache::Artifact::from_frame(
        alias,
        &cache
            .aliases()
            .unwrap()
            .frame(alias)
            .await
            .unwrap()
            .unwrap(),
        None,
        100,
    );
    assert_eq!(whole, Ok(small.aliases[alias].clone()));
    assert_ne!(whole, Err(FrameError::BadTag));
    assert_eq!(cache.metrics().lookups, 0);
}
