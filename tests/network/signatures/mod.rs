//! Whatever stands in a tier, only what an accepted signer made for this key is served from it.

#[cfg(all(feature = "redis", unix))]
mod attacks;
mod lower_tiers;
mod revocation;

use bytes::Bytes;
use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileScope, DiskCache, Fetched, FrameError, LayeredPipelineCache,
    OpaqueProgram, PipelineCacheStore, PipelineFingerprint, StoreErrorKind, Unkeyable,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([0x11; 32]);
const OTHER: PipelineFingerprint = PipelineFingerprint::from_bytes([0x22; 32]);

fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32])
}

fn main_key() -> SigningKey {
    signing_key(1)
}

fn branch_key() -> SigningKey {
    signing_key(2)
}

fn revoked_key() -> SigningKey {
    signing_key(3)
}

fn all_signers() -> [Signer; 3] {
    [
        Signer::new("ci", "main", main_key().public_key()),
        Signer::new("ci", "branch/fast", branch_key().public_key()),
        Signer::new("ci-2025", "main", revoked_key().public_key()),
    ]
}

/// What a reader on the main branch accepts.
fn signers() -> TrustedSigners {
    let signers = TrustedSigners::reading(["main"], all_signers());
    assert!(signers.revoke(&revoked_key().public_key()));
    signers
}

fn artifact() -> Artifact {
    Artifact::with_metadata(
        vec![0xa5; 3000],
        ArtifactMetadata::new()
            .with_provenance("ci")
            .with_compile_time(Duration::from_millis(1500)),
    )
}

fn poison() -> Artifact {
    Artifact::with_metadata(vec![0x66; 3000], artifact().metadata().clone())
}

fn frame(artifact: &Artifact) -> Vec<u8> {
    artifact.to_frame(&KEY, None).unwrap().into()
}

#[tokio::test]
async fn a_signature_stays_with_its_artifact_from_tier_to_tier() {
    let signed = artifact().signed(&KEY, &main_key());
    let folder = tempfile::tempdir().unwrap();
    // A tier that demands nothing passes it on.
    let plain = DiskCache::new(folder.path()).await.unwrap();
    plain.put(&KEY, signed.clone()).await.unwrap();
    let found = plain.get(&KEY).await.unwrap().unwrap();
    assert_eq!(found.signature(), signed.signature());
    signers().verify(&KEY, &found).unwrap();
    assert_eq!(
        signers().verify(&OTHER, &found),
        Err(FrameError::BadSignature)
    );
}

#[tokio::test]
async fn a_tier_that_demands_signatures_takes_no_other_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let disk = DiskCache::builder()
        .trusted_signers(signers())
        .root(folder.path())
        .open()
        .await
        .unwrap();
    for unacceptable in [artifact(), artifact().signed(&KEY, &branch_key())] {
        let error = disk.put(&KEY, unacceptable).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::InvalidArtifact);
    }
    assert_eq!(disk.fetch(&KEY).await.unwrap(), Fetched::Miss);
    disk.put(&KEY, artifact().signed(&KEY, &main_key()))
        .await
        .unwrap();
    assert!(disk.get(&KEY).await.unwrap().is_some());
}

/// A frame as it is read by a reader that demands nothing, and as one that was not signed is.
#[tokio::test]
async fn readers_that_demand_nothing_read_signed_entries() {
    let signed = frame(&artifact().signed(&KEY, &main_key()));
    let read = Artifact::from_frame(&KEY, &Bytes::from(signed), None, 1 << 20).unwrap();
    assert_eq!(read, artifact());
    assert_eq!(read.metadata(), artifact().metadata());
}

/// To copy somebody's artifact to a tier must not make it one's own.
#[tokio::test]
async fn a_cache_signs_what_it_makes_and_nothing_that_it_copies() {
    let (folder, signed_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let plain = DiskCache::new(folder.path()).await.unwrap();
    plain.put(&KEY, poison()).await.unwrap();
    let demanding = DiskCache::builder()
        .root(signed_folder.path())
        .trusted_signers(signers())
        .open()
        .await
        .unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(demanding.clone())
        .tier(plain)
        .signing_key(main_key())
        .build();
    assert_eq!(cache.get(&KEY).await, Some(poison()));
    let _ = cache.flush().await;
    assert_eq!(demanding.fetch(&KEY).await.unwrap(), Fetched::Miss);
    cache.put(&OTHER, artifact()).await.unwrap();
    let stored = demanding.get(&OTHER).await.unwrap().unwrap();
    let signer = stored.signature().unwrap().signer();
    assert_eq!(signer, main_key().public_key());
}

#[tokio::test]
async fn what_is_compiled_and_its_alias_are_signed() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        let disk = DiskCache::builder()
            .root(folder.path())
            .trusted_signers(signers());
        disk.open().await.unwrap()
    };
    let compiles = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let cache = LayeredPipelineCache::builder()
            .tier(open().await)
            .signing_key(main_key())
            .keep_aliases()
            .build();
        let scope = CompileScope::new("compiler 1", "any").unwrap();
        let parse = |source: &Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("text", source.clone()));
        let counted = Arc::clone(&compiles);
        let compiled = cache
            .compile(&scope)
            .source("front end 1", "a + b", parse)
            .run(move |_, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok(Artifact::new("code"))
            })
            .await
            .unwrap();
        assert_eq!(compiled.artifact, Artifact::new("code"));
        assert!(cache.close(PATIENCE).await.is_clean());
    }
    assert_eq!(compiles.load(Ordering::Relaxed), 1);
    // The alias was found, though its store demands a signature as well.
    let aliases = open().await.alias_stores();
    assert_eq!(aliases[0].metrics().refused, 0);
    let kept = std::fs::read_dir(folder.path().join("aliases")).unwrap();
    assert!(kept.count() > 0);
}
