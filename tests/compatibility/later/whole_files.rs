//! Bundles and recorded runs of a later release.

use super::{artifact, frames, key};
use pipeline_cache::bundle::{self, BundleDamage};
use pipeline_cache::layered::{RecordedRun, RecordedRunError};
use pipeline_cache::{
    BundleCache, BundleError, DiskCache, Fetched, LayeredPipelineCache, PipelineCacheStore as _,
};
use std::fs;

#[tokio::test]
async fn a_bundle_of_a_later_release_is_named_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later.bundle");
    let mut bytes = b"\x89pcb\r\n\x1a\n\x02\0\0\0\0\0\0\0".to_vec();
    bytes.extend([0xee; 500]);
    fs::write(&path, &bytes).unwrap();
    let error = BundleCache::open(&path).await.unwrap_err();
    let BundleError::Damaged { damage, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*damage, BundleDamage::UnknownVersion(2));
    assert!(error.to_string().contains("version 2"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// The bundle is of this version, and an entry in it is not.
#[tokio::test]
async fn an_entry_of_a_later_release_in_a_bundle_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (what, later) in frames(&key(1)) {
        let path = folder.path().join("mixed.bundle");
        let today = artifact().to_frame(&key(2), None).unwrap();
        fs::write(&path, mixed(&[(key(1), &later), (key(2), &today)])).unwrap();
        let bundle = BundleCache::open(&path).await.unwrap();
        assert_eq!(
            bundle.fetch(&key(1)).await.unwrap(),
            Fetched::Refused,
            "{what}"
        );
        assert_eq!(bundle.metrics().refused, 1, "{what}");
        assert_eq!(
            bundle.get(&key(2)).await.unwrap(),
            Some(artifact()),
            "{what}"
        );
        let disk = DiskCache::new(folder.path().join(what)).await.unwrap();
        let report = bundle::unpack(&bundle, &disk, |_| {}).await.unwrap();
        assert_eq!(
            (report.stored, report.not_judged, report.damaged),
            (1, 1, 0),
            "{what}"
        );
        assert!(!disk.contains(&key(1)).await.unwrap(), "{what}");
    }
}

/// A bundle as it is documented, of any frames.
fn mixed(frames: &[(pipeline_cache::PipelineFingerprint, &[u8])]) -> Vec<u8> {
    let mut bytes = b"\x89pcb\r\n\x1a\n\x01\0\0\0\0\0\0\0".to_vec();
    let mut end = Vec::new();
    for (key, frame) in frames {
        end.extend_from_slice(key.as_bytes());
        end.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        bytes.extend_from_slice(frame);
    }
    let length = bytes.len() + end.len() + 24 + 32;
    for number in [frames.len() as u64, 0, length as u64] {
        end.extend_from_slice(&number.to_le_bytes());
    }
    let digest = blake3::hash(&[&bytes[..16], &end].concat());
    [bytes, end, digest.as_bytes().to_vec()].concat()
}

#[tokio::test]
async fn a_run_of_a_later_release_is_named_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("build.run");
    let cache = LayeredPipelineCache::builder().record_run().build();
    cache
        .recorded_run()
        .await
        .unwrap()
        .save(&path)
        .await
        .unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    bytes.extend([0xee; 100]);
    fs::write(&path, &bytes).unwrap();
    let error = RecordedRun::load(&path).await.unwrap_err();
    let is_named = matches!(error, RecordedRunError::OtherVersion { version: 2, .. });
    assert!(is_named, "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}
