//! An entry that this reader's settings keep it from reading is somebody else's good entry: a miss,
//! counted as refused, and left where it is.

use crate::support::{artifact, entry, folder, key, names, open};
use futures::TryStreamExt as _;
use pipeline_cache::disk::DiskCacheHealth;
use pipeline_cache::{
    Artifact, DiskCache, DiskCacheBuilder, Fetched, InMemoryPipelineCache, LayeredPipelineCache,
    LookupPolicy, PipelineCacheStore, SharedSecret, StoreErrorKind, TrustedKeys,
};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn secret(text: &str) -> SharedSecret {
    SharedSecret::new(text)
}

type Settings = fn(DiskCacheBuilder) -> DiskCacheBuilder;

async fn open_with(root: &Path, settings: Settings) -> DiskCache {
    settings(DiskCache::builder().root(root))
        .open()
        .await
        .unwrap()
}

/// A writer, and a reader whose settings keep it from reading what the writer stored.
const STRANGERS: [(&str, Settings, Settings); 6] = [
    ("a smaller limit", |c| c, |c| c.max_artifact_bytes(1000)),
    // Larger than any frame of the reader: it does not even read it whole.
    ("a far smaller limit", |c| c, |c| c.max_artifact_bytes(10)),
    (
        "another secret",
        |c| c.shared_secret(secret("theirs")),
        |c| c.shared_secret(secret("ours")),
    ),
    (
        "a secret that was dropped",
        |c| c.shared_secret(secret("old")),
        |c| c.trusted_keys(TrustedKeys::new(secret("new")).also_accepting(secret("newer"))),
    ),
    ("no secret", |c| c.shared_secret(secret("theirs")), |c| c),
    ("a secret", |c| c, |c| c.shared_secret(secret("ours"))),
];

const LEN: usize = 100_000;

/// As a later release may write it: of these bytes only the check is known.
fn of_a_later_version(frame: &mut [u8]) {
    frame[8] = 2;
    let check = blake3::hash(&frame[..104]);
    frame[104..112].copy_from_slice(&check.as_bytes()[..8]);
}

#[tokio::test]
async fn a_reader_with_other_settings_leaves_an_entry_to_its_owner() {
    for (what, theirs, ours) in STRANGERS {
        let folder = folder();
        let owner = open_with(folder.path(), theirs).await;
        let reader = open_with(folder.path(), ours).await;
        owner.put(&key(1), artifact(LEN)).await.unwrap();
        let before = fs::read(entry(folder.path(), &key(1))).unwrap();

        assert_eq!(
            reader.fetch(&key(1)).await.unwrap(),
            Fetched::Refused,
            "{what}"
        );
        let frame = reader.open_frame(&key(1)).await.unwrap();
        drop(frame);
        let metrics = reader.metrics();
        assert_eq!((metrics.corrupt, metrics.errors), (0, 0), "{what}");
        assert!(metrics.refused >= 1, "{what}");
        assert_eq!(metrics.lookups, metrics.hits + metrics.misses, "{what}");
        let checks: Vec<_> = reader.verify().try_collect().await.unwrap();
        let [check] = &checks[..] else {
            panic!("{what}: {checks:?}");
        };
        assert!(
            matches!(check.health, DiskCacheHealth::Foreign(why) if why.is_foreign()),
            "{what}: {check:?}"
        );
        reader.flush().await.unwrap();
        reader.trim().await.unwrap();

        assert_eq!(names(folder.path()), [format!("{}.bin", key(1))], "{what}");
        let after = fs::read(entry(folder.path(), &key(1))).unwrap();
        assert!(before == after, "{what}");
        assert_eq!(
            owner.get(&key(1)).await.unwrap(),
            Some(artifact(LEN)),
            "{what}"
        );
    }
}

#[tokio::test]
async fn an_entry_of_a_later_version_is_left_and_a_flipped_version_is_damage() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(24)).await.unwrap();
    let path = entry(folder.path(), &key(1));
    let good = fs::read(&path).unwrap();

    let mut later = good.clone();
    of_a_later_version(&mut later);
    fs::write(&path, &later).unwrap();
    assert_eq!(cache.fetch(&key(1)).await.unwrap(), Fetched::Refused);
    assert_eq!(fs::read(&path).unwrap(), later);

    let mut flipped = good;
    flipped[8] ^= 2;
    fs::write(&path, &flipped).unwrap();
    let found = cache.fetch(&key(1)).await.unwrap();
    assert!(matches!(found, Fetched::Corrupt(_)), "{found:?}");
    assert!(!path.exists());
}

/// What the owner signed, and then one bit of the header or the metadata changed.
#[tokio::test]
async fn a_flipped_bit_of_an_own_signed_entry_is_damage() {
    let folder = folder();
    let settings: Settings = |c| c.shared_secret(secret("ours"));
    let cache = open_with(folder.path(), settings).await;
    cache.put(&key(1), artifact(24)).await.unwrap();
    let path = entry(folder.path(), &key(1));
    let good = fs::read(&path).unwrap();
    for byte in 0..good.len() {
        let mut bad = good.clone();
        bad[byte] ^= 1 << (byte % 8);
        fs::write(&path, &bad).unwrap();
        let found = cache.fetch(&key(1)).await.unwrap();
        assert!(
            matches!(found, Fetched::Corrupt(_)),
            "byte {byte}: {found:?}"
        );
        assert!(!path.exists(), "byte {byte}");
    }
}

/// The header of a large entry is read before it is judged.
#[tokio::test]
async fn what_is_too_large_and_no_frame_is_damage() {
    let folder = folder();
    let cache = open_with(folder.path(), |c| c.max_artifact_bytes(1000)).await;
    let path = entry(folder.path(), &key(1));
    let owner = open(folder.path()).await;
    owner.put(&key(2), artifact(LEN)).await.unwrap();
    let other_key = fs::read(entry(folder.path(), &key(2))).unwrap();
    let torn = &other_key[..LEN];
    for (what, content) in [
        ("zeros", &vec![0; LEN][..]),
        ("another key's", &other_key),
        ("torn", torn),
    ] {
        fs::write(&path, content).unwrap();
        let found = cache.fetch(&key(1)).await.unwrap();
        assert!(matches!(found, Fetched::Corrupt(_)), "{what}: {found:?}");
        assert!(!path.exists(), "{what}");
    }
    fs::write(entry(folder.path(), &key(2)), torn).unwrap();
    let found = cache.fetch(&key(2)).await.unwrap();
    assert!(matches!(found, Fetched::Corrupt(_)), "{found:?}");
}

/// Whoever could read the old entry can read the new one.
#[tokio::test]
async fn a_put_replaces_what_was_only_too_large() {
    let folder = folder();
    let owner = open(folder.path()).await;
    owner.put(&key(1), artifact(LEN)).await.unwrap();
    let reader = open_with(folder.path(), |c| c.max_artifact_bytes(1000)).await;
    reader.put(&key(1), artifact(24)).await.unwrap();
    assert_eq!(reader.get(&key(1)).await.unwrap(), Some(artifact(24)));
    assert_eq!(owner.get(&key(1)).await.unwrap(), Some(artifact(24)));
}

/// Two owners who cannot read each other's entries do not take turns at replacing them.
#[tokio::test]
async fn a_put_replaces_no_entry_that_its_owner_uses() {
    for (what, theirs, ours) in STRANGERS.into_iter().skip(2) {
        let folder = folder();
        let owner = open_with(folder.path(), theirs).await;
        let other = open_with(folder.path(), ours).await;
        owner.put(&key(1), artifact(LEN)).await.unwrap();
        for _ in 0..3 {
            let error = other.put(&key(1), artifact(LEN)).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Foreign, "{what}: {error}");
            assert!(!error.is_transient());
        }
        assert_eq!(other.metrics().rejected_puts, 3, "{what}");
        other.flush().await.unwrap();
        assert!(other.durability_report().durable, "{what}");
        assert_eq!(
            owner.get(&key(1)).await.unwrap(),
            Some(artifact(LEN)),
            "{what}"
        );

        // The owner has gone, or dropped the secret.
        let path = entry(folder.path(), &key(1));
        let unused = SystemTime::now() - DAY - Duration::from_secs(60);
        fs::File::open(&path).unwrap().set_modified(unused).unwrap();
        other.put(&key(1), artifact(LEN)).await.unwrap();
        assert_eq!(
            other.get(&key(1)).await.unwrap(),
            Some(artifact(LEN)),
            "{what}"
        );
    }
}

/// Or a server that passes it on would keep it for ever.
#[tokio::test]
async fn to_pass_a_foreign_frame_on_is_not_to_use_it() {
    for (what, theirs, ours) in STRANGERS.into_iter().skip(2) {
        let folder = folder();
        let owner = open_with(folder.path(), theirs).await;
        let server = open_with(folder.path(), ours).await;
        owner.put(&key(1), artifact(LEN)).await.unwrap();
        let unused = SystemTime::now() - 2 * DAY;
        let file = fs::File::open(entry(folder.path(), &key(1))).unwrap();
        file.set_modified(unused).unwrap();
        assert!(
            server.open_frame(&key(1)).await.unwrap().is_some(),
            "{what}"
        );
        assert_eq!(
            file.metadata().unwrap().modified().unwrap(),
            unused,
            "{what}"
        );
        server.put(&key(1), artifact(LEN)).await.unwrap();
        assert!(server.get(&key(1)).await.unwrap().is_some(), "{what}");
    }
}

/// The tier below can read the artifact, and the one above refuses what it has.
#[tokio::test]
async fn a_promotion_does_not_overwrite_a_foreign_entry() {
    for (what, theirs, ours) in STRANGERS {
        let (folder, below) = (folder(), folder());
        let owner = open_with(folder.path(), theirs).await;
        owner.put(&key(1), artifact(LEN)).await.unwrap();
        let before = fs::read(entry(folder.path(), &key(1))).unwrap();
        let disk = Arc::new(open_with(folder.path(), ours).await);
        let lower = Arc::new(open(below.path()).await);
        let small = Artifact::new("code");
        lower.put(&key(1), small.clone()).await.unwrap();
        let memory = Arc::new(InMemoryPipelineCache::new());
        let tiers: [Arc<dyn PipelineCacheStore>; 3] =
            [Arc::clone(&memory) as _, Arc::clone(&disk) as _, lower];
        let cache = LayeredPipelineCache::builder()
            .tiers(tiers)
            .lookup_policy(LookupPolicy::Sequential)
            .build();
        assert_eq!(cache.get(&key(1)).await, Some(small.clone()), "{what}");
        cache.flush().await.unwrap();
        assert_eq!(memory.get(&key(1)).await.unwrap(), Some(small), "{what}");
        let after = fs::read(entry(folder.path(), &key(1))).unwrap();
        assert!(before == after, "{what}");
        assert_eq!(disk.metrics().puts, 0, "{what}");
    }
}
