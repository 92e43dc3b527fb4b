//! Secrets and signatures travel with the entries, and decide what is served.

use bytes::Bytes;
use pipeline_cache::{
    BundleCache, BundleWriter, Fetched, PipelineCacheStore as _, PipelineFingerprint, SharedSecret,
    TrustedKeys,
};
use std::path::PathBuf;
use tempfile::TempDir;

use crate::support::{artifact, key};

fn secret(text: &str) -> TrustedKeys {
    SharedSecret::new(text).into()
}

/// A bundle of one frame.
async fn bundle_of(key: &PipelineFingerprint, frame: Bytes) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.bundle");
    let mut writer = BundleWriter::create(&path).await.unwrap();
    writer.add(key, frame).await.unwrap();
    writer.finish().await.unwrap();
    (folder, path)
}

#[tokio::test]
async fn only_frames_of_an_accepted_secret_are_served() {
    let (key, artifact) = (key(1), artifact(1, 500));
    let ours = secret("ours");
    for (made_with, is_served) in [
        (Some(ours.clone()), true),
        (Some(secret("theirs")), false),
        (None, false),
    ] {
        let frame = artifact.to_frame(&key, made_with.as_ref()).unwrap();
        let (_folder, path) = bundle_of(&key, frame).await;
        let cache = BundleCache::builder().trusted_keys(ours.clone());
        let cache = cache.open(&path).await.unwrap();
        let fetched = cache.fetch(&key).await.unwrap();
        let expected = match is_served {
            true => Fetched::Hit(artifact.clone()),
            false => Fetched::Refused,
        };
        assert_eq!(fetched, expected);
        assert_eq!(cache.metrics().refused, u64::from(!is_served));
        assert_eq!(cache.metrics().corrupt, 0);
        let printed = format!("{cache:?} {cache}");
        assert!(!printed.contains("ours"), "{printed}");
    }
}

#[tokio::test]
async fn a_frame_that_was_forged_under_a_secret_is_not_served() {
    let key = key(1);
    let ours = secret("ours");
    let good = artifact(1, 500).to_frame(&key, Some(&ours)).unwrap();
    // The payload and the digest of another artifact, under the header of ours.
    let other = artifact(2, 500).to_frame(&key, None).unwrap();
    let mut forged = good.to_vec();
    forged[64..96].copy_from_slice(&other[64..96]);
    let check = *blake3::hash(&forged[..104]).as_bytes();
    forged[104..112].copy_from_slice(&check[..8]);
    let payload = forged.len() - 500;
    forged[payload..].copy_from_slice(&other[payload..]);
    // An unkeyed tag over all that, as whoever lacks the secret can make it.
    let mut tagged = blake3::Hasher::new();
    tagged.update(&forged[..112]).update(&forged[144..payload]);
    forged[112..144].copy_from_slice(tagged.finalize().as_bytes());
    let (_folder, path) = bundle_of(&key, forged.into()).await;
    let cache = BundleCache::builder().trusted_keys(ours);
    let cache = cache.open(&path).await.unwrap();
    let fetched = cache.fetch(&key).await.unwrap();
    assert!(matches!(fetched, Fetched::Corrupt(_)), "{fetched:?}");
}

#[tokio::test]
async fn what_is_too_large_for_the_reader_is_refused_and_not_read() {
    let (key, artifact) = (key(1), artifact(1, 300_000));
    let (_folder, path) = bundle_of(&key, artifact.to_frame(&key, None).unwrap()).await;
    let cache = BundleCache::builder().max_artifact_bytes(100_000);
    let cache = cache.open(&path).await.unwrap();
    assert_eq!(cache.fetch(&key).await.unwrap(), Fetched::Refused);
    assert!(!cache.contains(&key).await.unwrap());
    let cache = BundleCache::open(&path).await.unwrap();
    assert_eq!(cache.get(&key).await.unwrap(), Some(artifact));
}

#[cfg(feature = "signatures")]
#[tokio::test]
async fn only_artifacts_of_a_trusted_signer_are_served() {
    use pipeline_cache::Artifact;
    use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};

    let key = key(1);
    let (ci, branch) = (
        SigningKey::from_seed([1; 32]),
        SigningKey::from_seed([2; 32]),
    );
    let public = ci.public_key();
    let list = format!("ci main {public}");
    let signers = TrustedSigners::reading(["main"], Signer::parse_list(&list).unwrap());
    let plain = || Artifact::new("code");
    for (artifact, is_served) in [
        (plain().signed(&key, &ci), true),
        (plain().signed(&key, &branch), false),
        (plain(), false),
    ] {
        let frame = artifact.to_frame(&key, None).unwrap();
        let (_folder, path) = bundle_of(&key, frame).await;
        let cache = BundleCache::builder().trusted_signers(signers.clone());
        let cache = cache.open(&path).await.unwrap();
        let fetched = cache.fetch(&key).await.unwrap();
        let expected = match is_served {
            true => Fetched::Hit(artifact),
            false => Fetched::Refused,
        };
        assert_eq!(fetched, expected);
    }
    // A signature that was taken from another key's artifact.
    let other = crate::support::key(2);
    let stolen = plain().signed(&other, &ci).to_frame(&key, None).unwrap();
    let (_folder, path) = bundle_of(&key, stolen).await;
    let cache = BundleCache::builder().trusted_signers(signers);
    let cache = cache.open(&path).await.unwrap();
    let fetched = cache.fetch(&key).await.unwrap();
    assert!(matches!(fetched, Fetched::Corrupt(_)), "{fetched:?}");
}
