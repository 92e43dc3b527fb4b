//! The same entries make the same bytes, and these stay what they are.

use pipeline_cache::bundle::{self, PackOptions};
use pipeline_cache::{
    Artifact, BundleError, BundleWriter, DiskCache, PipelineCacheStore as _, PipelineFingerprint,
};
use std::time::{Duration, SystemTime};

use crate::support::{Small, artifact, entries, frame, key, write};

#[tokio::test]
async fn the_order_and_the_time_of_making_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let mut bundles = Vec::new();
    for round in 0..3 {
        let cache = DiskCache::new(folder.path().join(format!("{round}")));
        let cache = cache.await.unwrap();
        let mut numbers: Vec<u64> = (0..40).collect();
        numbers.rotate_left(round * 13);
        if round == 1 {
            numbers.reverse();
        }
        for number in numbers {
            let artifact = artifact(number, 100 + number as usize);
            cache.put(&key(number), artifact.clone()).await.unwrap();
            let aliases = cache.aliases().unwrap();
            aliases.put(&key(number + 100), artifact).await.unwrap();
            // As if it were made on another day.
            let path = cache.root().join(format!("{}.bin", key(number)));
            let file = std::fs::File::options().write(true).open(path).unwrap();
            let day = Duration::from_secs(86_400) * (round as u32 * 100 + number as u32);
            file.set_modified(SystemTime::now() - day).unwrap();
        }
        let path = folder.path().join(format!("a name of its own {round}"));
        let options = PackOptions::default();
        let pack = bundle::pack(&cache, &path, &options, |_| {});
        assert_eq!(pack.await.unwrap().written.entries, 40);
        bundles.push(std::fs::read(path).unwrap());
    }
    assert_eq!(bundles[0], bundles[1]);
    assert_eq!(bundles[0], bundles[2]);
}

#[tokio::test]
async fn keys_may_be_given_in_any_order_and_twice() {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(folder.path().join("cache")).await.unwrap();
    for number in 0..10 {
        cache.put(&key(number), artifact(number, 50)).await.unwrap();
    }
    let mut bundles = Vec::new();
    for numbers in [vec![3, 1, 7], vec![7, 3, 3, 1, 7]] {
        let options = PackOptions::default().keys(numbers.into_iter().map(key));
        let path = folder.path().join("bundle");
        let pack = bundle::pack(&cache, &path, &options, |_| {});
        assert_eq!(pack.await.unwrap().written.entries, 3);
        bundles.push(std::fs::read(path).unwrap());
    }
    assert_eq!(bundles[0], bundles[1]);
    let path = folder.path().join("by hand");
    write(&path, &entries([1, 3, 7], 50), &entries([], 0)).await;
    assert_eq!(bundles[0], std::fs::read(path).unwrap());
}

/// Made apart from the library: whoever changes the form must raise its version.
#[tokio::test]
async fn the_form_is_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("golden.bundle");
    let [one, two, three] = [1, 2, 3].map(|n| PipelineFingerprint::from_bytes([n; 32]));
    let (a, b) = (Artifact::new("code"), Artifact::new("more code"));
    let alias = Artifact::new(vec![7; 32]);
    let frames = [frame(&one, &a), frame(&three, &b), frame(&two, &alias)];
    let mut writer = BundleWriter::create(&path).await.unwrap();
    writer.add(&one, frames[0].clone()).await.unwrap();
    writer.add(&three, frames[1].clone()).await.unwrap();
    writer.add_alias(&two, frames[2].clone()).await.unwrap();
    let summary = writer.finish().await.unwrap();
    let bytes = std::fs::read(&path).unwrap();

    let mut expected = b"\x89pcb\r\n\x1a\n\x01\0\0\0\0\0\0\0".to_vec();
    let mut index = Vec::new();
    for (key, frame) in [one, three, two].iter().zip(&frames) {
        index.extend_from_slice(key.as_bytes());
        index.extend_from_slice(&(expected.len() as u64).to_le_bytes());
        expected.extend_from_slice(frame);
    }
    let mut counts = Vec::new();
    let len = expected.len() + index.len() + 24 + 32;
    for number in [2, 1, len as u64] {
        counts.extend_from_slice(&number.to_le_bytes());
    }
    let digest = blake3::hash(&[&expected[..16], &index, &counts].concat());
    expected.extend_from_slice(&index);
    expected.extend_from_slice(&counts);
    expected.extend_from_slice(digest.as_bytes());
    assert_eq!(bytes, expected);
    assert_eq!((summary.entries, summary.aliases), (2, 1));
    assert_eq!(summary.bytes, len as u64);
}

#[tokio::test]
async fn what_is_out_of_order_or_no_frame_is_refused_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.bundle");
    let small = Small::new().await;
    let mut writer = BundleWriter::create(&path).await.unwrap();
    let mut last = None;
    for (key, artifact) in &small.artifacts {
        let whole = frame(key, artifact);
        let other = small.aliases.keys().next().unwrap();
        for bad in [
            whole.slice(..whole.len() - 1),
            whole.slice(..100),
            whole.slice(1..),
            bytes::Bytes::new(),
            frame(other, artifact),
        ] {
            let refused = writer.add(key, bad).await;
            assert!(matches!(refused, Err(BundleError::NotItsFrame { key: of }) if of == *key));
        }
        writer.add(key, whole.clone()).await.unwrap();
        for again in [Some(*key), last].into_iter().flatten() {
            let refused = writer.add(&again, whole.clone()).await;
            assert!(matches!(refused, Err(BundleError::OutOfOrder { .. })));
        }
        last = Some(*key);
    }
    for (key, alias) in &small.aliases {
        writer.add_alias(key, frame(key, alias)).await.unwrap();
    }
    let max = PipelineFingerprint::from_bytes([0xff; 32]);
    let late = writer.add(&max, frame(&max, &Artifact::new("x"))).await;
    assert!(matches!(late, Err(BundleError::OutOfOrder { .. })));
    writer.finish().await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), small.bytes);
}
