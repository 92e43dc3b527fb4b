//! One folder, two releases.

use super::{artifact, frames, key};
use crate::folder::{alias_key, compile, compiled_key};
use crate::versions::tree;
use futures::TryStreamExt as _;
use pipeline_cache::bundle::{self, PackOptions};
use pipeline_cache::disk::DiskCacheHealth;
use pipeline_cache::{
    BundleCache, CompileSource, DiskCache, Fetched, LayeredPipelineCache, PipelineCacheStore,
    StoreErrorKind,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

async fn open(folder: &Path) -> DiskCache {
    let builder = DiskCache::builder().root(folder).max_bytes(1 << 30);
    builder.compile_locks().open().await.unwrap()
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The files of others: not those of this release's own counts and locks.
fn theirs(folder: &TempDir, before: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let mut files = tree(folder.path());
    files.retain(|name, _| before.contains_key(name));
    files
}

#[tokio::test]
async fn entries_of_a_later_release_are_misses_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (program, alias) = (compiled_key(), alias_key().await);
    let kinds = frames(&program);
    for (number, (_, frame)) in (1..).zip(frames(&program)) {
        let of_key = frames(&key(number)).swap_remove(usize::from(number) - 1).1;
        write(folder.path(), &format!("{}.bin", key(number)), &of_key);
        // One that is compiled, too.
        write(folder.path(), &format!("{program}.bin"), &frame);
    }
    write(
        folder.path(),
        &format!("aliases/{alias}.bin"),
        &frames(&alias)[0].1,
    );
    let before = tree(folder.path());
    assert_eq!(before.len(), kinds.len() + 2);

    let disk = open(folder.path()).await;
    for (number, (what, _)) in (1..).zip(&kinds) {
        let key = key(number);
        let refused = disk.metrics().refused;
        assert_eq!(disk.fetch(&key).await.unwrap(), Fetched::Refused, "{what}");
        let many = disk.fetch_many(&[key]).await;
        assert!(matches!(many[..], [Ok(Fetched::Refused)]), "{what}");
        assert_eq!(disk.metrics().refused, refused + 2, "{what}");
        let put = disk.put(&key, artifact()).await.unwrap_err();
        assert_eq!(put.kind(), StoreErrorKind::Foreign, "{what}");
    }

    // A compile whose key and alias a later release has: it is compiled, and not stored.
    let builder = LayeredPipelineCache::builder().tier(disk.clone());
    let cache = builder.keep_aliases().build();
    let (source, parsed) = compile(&cache).await;
    assert!(matches!(source, CompileSource::Compiled), "{source:?}");
    assert_eq!(parsed, 1);
    assert!(disk.aliases().unwrap().metrics().refused >= 1);

    let checks: Vec<_> = disk.verify().try_collect().await.unwrap();
    assert_eq!(checks.len(), kinds.len() + 1);
    for check in checks {
        let is_foreign = matches!(check.health, DiskCacheHealth::Foreign(_));
        assert!(is_foreign, "{check:?}");
    }
    let entries: Vec<_> = disk.entries().try_collect().await.unwrap();
    assert!(entries.iter().all(|entry| entry.foreign.is_some()));
    let packed = tempfile::tempdir().unwrap();
    let path = packed.path().join("all.bundle");
    let options = PackOptions::default();
    let report = bundle::pack(&disk, &path, &options, |_| {});
    let report = report.await.unwrap();
    assert_eq!(report.written.entries, 0);
    assert_eq!(report.not_judged, kinds.len() as u64 + 2);
    disk.flush().await.unwrap();
    assert_eq!(disk.trim().await.unwrap().removed, 0);
    let metrics = disk.metrics();
    assert_eq!((metrics.corrupt, metrics.errors), (0, 0));
    cache.close(Duration::from_secs(60)).await;
    assert_eq!(theirs(&folder, &before), before);
    let names: Vec<_> = tree(folder.path()).into_keys().collect();
    assert!(
        !names.iter().any(|name| name.ends_with(".corrupt")),
        "{names:?}"
    );
}

/// Whoever unpacks a bundle of this release next to entries of a later one keeps both.
#[tokio::test]
async fn an_unpacked_bundle_replaces_no_entry_of_a_later_release() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.bundle");
    let mut writer = pipeline_cache::BundleWriter::create(&path).await.unwrap();
    for number in [1, 2] {
        let frame = artifact().to_frame(&key(number), None).unwrap();
        writer.add(&key(number), frame).await.unwrap();
    }
    writer.finish().await.unwrap();
    let name = format!("{}.bin", key(1));
    let later = frames(&key(1)).swap_remove(0).1;
    let cache = folder.path().join("cache");
    write(&cache, &name, &later);
    let disk = open(&cache).await;
    let bundle = BundleCache::open(&path).await.unwrap();
    let report = bundle::unpack(&bundle, &disk, |_| {}).await.unwrap();
    assert_eq!((report.stored, report.kept), (1, 1));
    assert_eq!(fs::read(cache.join(name)).unwrap(), later);
    assert_eq!(disk.get(&key(2)).await.unwrap(), Some(artifact()));
}

/// A later release may keep more beside the entries than this one knows.
#[tokio::test]
async fn files_of_unknown_names_stay_whatever_is_done_to_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let digest = "0123456789abcdef0123456789abcdef";
    let names = [
        format!("{}.bin2", key(1)),
        format!("{}.meta", key(1)),
        key(1).to_hex(),
        "index.v2".to_owned(),
        ".usage3".to_owned(),
        ".lock-v2".to_owned(),
        format!("v2/{}.bin", key(1)),
        format!("{}/{}.bin", &key(1).to_hex()[..2], key(1)),
        format!("aliases2/{}.bin", key(1)),
        format!("aliases/{}.alias2", key(1)),
        "aliases/index.v2".to_owned(),
        "intents/index.v2".to_owned(),
        format!("intents/{digest}/later"),
        format!("leases/{}", key(1)),
        ".staging/later.v2".to_owned(),
        format!(".staging/{}.compile2", key(1)),
    ];
    for name in &names {
        write(folder.path(), name, name.as_bytes());
    }
    let before = tree(folder.path());
    assert_eq!(before.len(), names.len());
    for _ in 0..2 {
        let disk = open(folder.path()).await;
        for number in 1..10 {
            disk.put(&key(number), artifact()).await.unwrap();
            assert_eq!(disk.get(&key(number)).await.unwrap(), Some(artifact()));
        }
        let checks: Vec<_> = disk.verify().try_collect().await.unwrap();
        assert_eq!(checks.len(), 9);
        disk.flush().await.unwrap();
        disk.trim().await.unwrap();
        assert_eq!(disk.clear().await.unwrap(), 9);
        disk.close(Duration::from_secs(60)).await.unwrap();
        assert_eq!(theirs(&folder, &before), before);
    }
}

/// The bounds of a folder hold whatever is in it, and an operator who clears it means all of it.
#[tokio::test]
async fn bounds_and_clear_count_the_entries_of_a_later_release() {
    let folder = tempfile::tempdir().unwrap();
    for number in 1..=7 {
        let later = frames(&key(number)).swap_remove(0).1;
        write(folder.path(), &format!("{}.bin", key(number)), &later);
    }
    let builder = DiskCache::builder().root(folder.path()).max_entries(4);
    let disk = builder.open().await.unwrap();
    assert_eq!(disk.trim().await.unwrap().removed, 3);
    assert_eq!(disk.clear().await.unwrap(), 4);
}
