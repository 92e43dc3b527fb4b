//! Whatever stands in a tier, only what an accepted signer made for this key is served from it.

use crate::support::scripted_http::{ScriptedServer, answer};
use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileScope, DiskCache, Fetched, FrameError,
    InMemoryPipelineCache, LayeredPipelineCache, ObjectStoreCache, OpaqueProgram,
    PipelineCacheStore, PipelineFingerprint, RemoteCache, SharedSecret, StoreErrorKind, Trust,
    Unkeyable,
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
        ArtifactMetadata::new().with_provenance("ci"),
    )
}

fn poison() -> Artifact {
    Artifact::with_metadata(vec![0x66; 3000], artifact().metadata().clone())
}

fn frame(artifact: &Artifact) -> Vec<u8> {
    artifact.to_frame(&KEY, None).unwrap().into()
}

/// Whoever can write to the tier can make the check and the tag of a frame.
fn seal(frame: &mut [u8]) {
    let check = blake3::hash(&frame[..104]);
    frame[104..112].copy_from_slice(&check.as_bytes()[..8]);
    let metadata = 144 + u32::from_le_bytes(frame[12..16].try_into().unwrap()) as usize;
    let tag = blake3::hash(&[&frame[..112], &frame[144..metadata]].concat());
    frame[112..144].copy_from_slice(tag.as_bytes());
}

/// The frame of `artifact` with the signature that stands in another frame.
fn with_signature_of(artifact: &Artifact, signed: &[u8]) -> Vec<u8> {
    let mut forged = frame(&artifact.signed(&KEY, &main_key()));
    forged[144..240].copy_from_slice(&signed[144..240]);
    seal(&mut forged);
    forged
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Served,
    /// Forged: nobody can use it.
    Corrupt,
    /// Somebody else's entry.
    Refused,
}

fn attacks() -> Vec<(&'static str, Vec<u8>, Expected)> {
    use Expected::{Corrupt, Refused, Served};
    let good = frame(&artifact().signed(&KEY, &main_key()));
    let other = artifact().signed(&OTHER, &main_key());
    let mut of_other_key = other.to_frame(&OTHER, None).unwrap().to_vec();
    of_other_key[32..64].copy_from_slice(KEY.as_bytes());
    seal(&mut of_other_key);
    let mut named = frame(&poison().signed(&KEY, &signing_key(9)));
    named[144..176].copy_from_slice(main_key().public_key().as_bytes());
    seal(&mut named);
    let mut small_order = frame(&poison().signed(&KEY, &signing_key(9)));
    small_order[144..240].fill(0);
    small_order[144] = 1;
    small_order[176] = 1;
    seal(&mut small_order);
    let mut edited = good.clone();
    edited[245] ^= 1;
    seal(&mut edited);
    let mut stripped = good.clone();
    stripped[10] &= !8;
    seal(&mut stripped);
    let mut short = frame(&poison());
    short[10] |= 8;
    seal(&mut short);
    vec![
        ("signed on main", good.clone(), Served),
        ("not signed (downgrade)", frame(&poison()), Refused),
        ("says that it is not signed (downgrade)", stripped, Refused),
        ("says it is signed, and is not", short, Corrupt),
        (
            "forged signer: a key of his own",
            frame(&poison().signed(&KEY, &signing_key(9))),
            Refused,
        ),
        ("forged signer: names main's key", named, Corrupt),
        ("forged signer: a key of small order", small_order, Refused),
        (
            "replay of a revoked signer",
            frame(&artifact().signed(&KEY, &revoked_key())),
            Refused,
        ),
        (
            "a branch poisons main",
            frame(&poison().signed(&KEY, &branch_key())),
            Refused,
        ),
        (
            "main's signature over other bytes",
            with_signature_of(&poison(), &good),
            Corrupt,
        ),
        ("main's artifact of another key", of_other_key, Corrupt),
        ("main's artifact, metadata edited", edited, Corrupt),
        (
            "made with a shared secret",
            poison()
                .to_frame(&KEY, Some(&SharedSecret::new("s").into()))
                .unwrap()
                .into(),
            Refused,
        ),
    ]
}

async fn over_http(frame: &[u8]) -> Fetched {
    let server = ScriptedServer::always(answer("200 OK", frame));
    let remote = RemoteCache::builder()
        .no_proxy()
        .trust(Trust::Signed(signers()))
        .build(server.url())
        .unwrap();
    remote.fetch(&KEY).await.unwrap()
}

async fn in_an_object_store(frame: &[u8]) -> Fetched {
    let objects = Arc::new(InMemory::new());
    let name = Path::from(format!("{KEY}.bin"));
    objects.put(&name, frame.to_vec().into()).await.unwrap();
    let cache = ObjectStoreCache::builder()
        .trust(Trust::Signed(signers()))
        .build_on(objects, "");
    cache.fetch(&KEY).await.unwrap()
}

async fn on_disk(frame: &[u8]) -> Fetched {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::builder()
        .trusted_signers(signers())
        .root(folder.path())
        .open()
        .await
        .unwrap();
    std::fs::write(folder.path().join(format!("{KEY}.bin")), frame).unwrap();
    let fetched = cache.fetch(&KEY).await.unwrap();
    // A foreign entry stays; a forged one makes room.
    let stays = folder.path().join(format!("{KEY}.bin")).exists();
    assert_eq!(stays, !matches!(fetched, Fetched::Corrupt(_)));
    fetched
}

#[tokio::test]
async fn nothing_that_an_attacker_made_is_served_from_any_tier() {
    println!(
        "{:<40} {:>9} {:>9} {:>9}",
        "attack", "http", "objects", "disk"
    );
    for (attack, frame, expected) in attacks() {
        let fetched = [
            over_http(&frame).await,
            in_an_object_store(&frame).await,
            on_disk(&frame).await,
        ];
        let found = fetched.map(|fetched| match fetched {
            Fetched::Hit(served) => {
                assert_eq!(served, artifact(), "{attack}");
                Expected::Served
            }
            Fetched::Corrupt(_) => Expected::Corrupt,
            Fetched::Refused => Expected::Refused,
            other => panic!("{attack}: {other:?}"),
        });
        let [http, objects, disk] = found.map(|found| format!("{found:?}"));
        println!("{attack:<40} {http:>9} {objects:>9} {disk:>9}");
        assert_eq!(found, [expected; 3], "{attack}");
    }
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

#[tokio::test]
async fn signers_are_rotated_and_revoked_while_readers_run() {
    let (old, new) = (revoked_key(), main_key());
    let signer = |name: &str, key: &SigningKey| Signer::new(name, "main", key.public_key());
    let signers = TrustedSigners::new([signer("old", &old)]);
    let folder = tempfile::tempdir().unwrap();
    let reader = DiskCache::builder()
        .trusted_signers(signers.clone())
        .root(folder.path())
        .open()
        .await
        .unwrap();
    let writer = DiskCache::new(folder.path()).await.unwrap();
    writer
        .put(&KEY, artifact().signed(&KEY, &old))
        .await
        .unwrap();
    writer
        .put(&OTHER, artifact().signed(&OTHER, &new))
        .await
        .unwrap();
    let is_served = async |key| reader.get(key).await.unwrap().is_some();
    assert!(is_served(&KEY).await && !is_served(&OTHER).await);
    signers.replace([signer("old", &old), signer("new", &new)]);
    assert!(is_served(&KEY).await && is_served(&OTHER).await);
    assert!(signers.revoke(&old.public_key()));
    assert!(!is_served(&KEY).await && is_served(&OTHER).await);
    // Nothing was lost by it.
    assert!(writer.get(&KEY).await.unwrap().is_some());
    assert_eq!(reader.metrics().corrupt, 0);
}

/// A frame as it is read by a reader that demands nothing, and as one that was not signed is.
#[tokio::test]
async fn readers_that_demand_nothing_read_signed_entries() {
    let signed = frame(&artifact().signed(&KEY, &main_key()));
    let read = Artifact::from_frame(&KEY, &Bytes::from(signed), None, 1 << 20).unwrap();
    assert_eq!(read, artifact());
    assert_eq!(read.metadata(), artifact().metadata());
}

#[tokio::test]
async fn what_was_promoted_to_memory_is_not_served_once_its_signer_is_revoked() {
    let signers = TrustedSigners::new(all_signers());
    let folder = tempfile::tempdir().unwrap();
    let plain = DiskCache::new(folder.path()).await.unwrap();
    plain
        .put(&KEY, artifact().signed(&KEY, &main_key()))
        .await
        .unwrap();
    let disk = DiskCache::builder()
        .root(folder.path())
        .trusted_signers(signers.clone())
        .open()
        .await
        .unwrap();
    let memory = InMemoryPipelineCache::new().trusting(signers.clone());
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(disk)
        .build();
    assert!(cache.get(&KEY).await.is_some());
    cache.flush().await.unwrap();
    assert!(memory.peek(&KEY).is_some());
    signers.revoke(&main_key().public_key());
    assert!(memory.peek(&KEY).is_none());
    assert!(memory.get(&KEY).await.unwrap().is_none());
    assert!(cache.get(&KEY).await.is_none());
    // Another signer's artifact takes its place, though the bytes are the same.
    memory
        .put(&KEY, artifact().signed(&KEY, &branch_key()))
        .await
        .unwrap();
    assert!(memory.peek(&KEY).is_some());
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
