//! Whatever became of a stored file, a reader gets a miss that is counted, and the next put heals it.

use crate::support::{artifact, entry, folder, key, names, open};
use pipeline_cache::{
    Artifact, DiskCache, Fetched, FrameError, PipelineCacheStore, PipelineFingerprint,
    SharedSecret, StoreErrorKind, TrustedKeys,
};
use std::fs;

/// Puts `bytes` in place of the entry and checks all that is promised of a corrupt one.
async fn check(
    cache: &DiskCache,
    key: &PipelineFingerprint,
    good: &Artifact,
    bytes: &[u8],
    what: &str,
) {
    fs::write(entry(cache.root(), key), bytes).unwrap();
    let before = cache.metrics();

    let fetched = cache.fetch(key).await.unwrap();
    assert!(
        matches!(fetched, Fetched::Corrupt(_)),
        "{what}: {fetched:?}"
    );
    let after = cache.metrics();
    assert_eq!(after.corrupt, before.corrupt + 1, "{what}");
    assert_eq!(after.misses, before.misses + 1, "{what}");
    assert_eq!(after.hits, before.hits, "{what}");

    // It was set aside: nothing contradicts anything.
    assert!(!cache.contains(key).await.unwrap(), "{what}");
    assert_eq!(cache.fetch(key).await.unwrap(), Fetched::Miss, "{what}");
    assert_eq!(
        names(cache.root())
            .iter()
            .filter(|n| n.ends_with(".corrupt"))
            .count(),
        1
    );

    cache.put(key, good.clone()).await.unwrap();
    let healed = cache.get(key).await.unwrap().expect(what);
    assert_eq!(healed.payload(), good.payload(), "{what}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere() {
    let folder = folder();
    let cache = open(folder.path()).await;
    let (key, good) = (key(1), artifact(24));
    cache.put(&key, good.clone()).await.unwrap();
    let whole = fs::read(entry(cache.root(), &key)).unwrap();
    for byte in 0..whole.len() {
        let mut bad = whole.clone();
        bad[byte] ^= 1 << (byte % 8);
        check(&cache, &key, &good, &bad, &format!("byte {byte}")).await;
    }
}

#[tokio::test]
async fn any_other_length() {
    let folder = folder();
    let cache = open(folder.path()).await;
    let (key, good) = (key(1), artifact(24));
    cache.put(&key, good.clone()).await.unwrap();
    let whole = fs::read(entry(cache.root(), &key)).unwrap();
    for len in 0..whole.len() {
        check(&cache, &key, &good, &whole[..len], &format!("{len} bytes")).await;
    }
    let mut long = whole.clone();
    long.push(0);
    check(&cache, &key, &good, &long, "a byte more").await;
}

#[tokio::test]
async fn another_keys_file() {
    let folder = folder();
    let cache = open(folder.path()).await;
    let good = artifact(24);
    cache.put(&key(1), good.clone()).await.unwrap();
    let other = fs::read(entry(cache.root(), &key(1))).unwrap();
    check(&cache, &key(2), &good, &other, "another key's").await;
    assert!(cache.get(&key(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn another_secrets_file() {
    let folder = folder();
    let plain = open(folder.path()).await;
    let authenticated = DiskCache::builder()
        .root(folder.path())
        .shared_secret(SharedSecret::new("secret"))
        .open()
        .await
        .unwrap();
    plain.put(&key(1), artifact(24)).await.unwrap();
    assert_eq!(
        authenticated.fetch(&key(1)).await.unwrap(),
        Fetched::Refused
    );

    // And a put does not take the unsigned entry for its own.
    let error = authenticated.put(&key(1), artifact(24)).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Foreign);
    assert_eq!(authenticated.get(&key(1)).await.unwrap(), None);

    // What claims to be signed with the secret, and is not, is forged.
    let mut forged = fs::read(entry(plain.root(), &key(1))).unwrap();
    authenticated.put(&key(2), artifact(24)).await.unwrap();
    let signed = fs::read(entry(plain.root(), &key(2))).unwrap();
    forged[10] = signed[10];
    forged[96..104].copy_from_slice(&signed[96..104]);
    let check = blake3::hash(&forged[..104]);
    forged[104..112].copy_from_slice(&check.as_bytes()[..8]);
    fs::write(entry(plain.root(), &key(1)), forged).unwrap();
    let found = authenticated.fetch(&key(1)).await.unwrap();
    assert_eq!(found, Fetched::Corrupt(FrameError::BadTag));
    authenticated.put(&key(1), artifact(24)).await.unwrap();
    assert!(authenticated.get(&key(1)).await.unwrap().is_some());
}

/// First all readers accept the new secret, then writers sign with it, then the old one is dropped.
#[tokio::test]
async fn a_secret_is_replaced_while_its_entries_are_in_use() {
    let folder = folder();
    let (old, new) = (SharedSecret::new("old"), SharedSecret::new("new"));
    let open = async |keys: TrustedKeys| {
        let settings = DiskCache::builder().root(folder.path());
        settings.trusted_keys(keys).open().await.unwrap()
    };
    let before = open(old.clone().into()).await;
    let during = open(TrustedKeys::new(new.clone()).also_accepting(old)).await;
    let after = open(new.into()).await;
    before.put(&key(1), artifact(24)).await.unwrap();
    during.put(&key(2), artifact(24)).await.unwrap();
    for number in [1, 2] {
        assert!(during.get(&key(number)).await.unwrap().is_some());
    }
    assert!(after.get(&key(2)).await.unwrap().is_some());
    assert_eq!(after.fetch(&key(1)).await.unwrap(), Fetched::Refused);
}

#[tokio::test]
async fn a_put_heals_what_no_reader_has_met() {
    let folder = folder();
    let cache = open(folder.path()).await;
    cache.put(&key(1), artifact(24)).await.unwrap();
    fs::write(entry(cache.root(), &key(1)), "torn").unwrap();
    cache.put(&key(1), artifact(24)).await.unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(24)));
    assert_eq!(cache.metrics().corrupt, 0);
}

#[tokio::test]
async fn a_removal_takes_what_was_set_aside_too() {
    let folder = folder();
    let cache = open(folder.path()).await;
    fs::write(entry(cache.root(), &key(1)), "torn").unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), None);
    assert_eq!(names(folder.path()), [format!("{}.corrupt", key(1))]);
    assert!(!cache.remove(&key(1)).await.unwrap());
    assert_eq!(names(folder.path()), [""; 0]);
}

/// What is replaced between two looks at it is there for both.
#[test]
fn one_that_heals_while_its_frame_is_opened_is_found() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // What waits is done in the order in which it was asked for.
    let runtime = runtime.max_blocking_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let folder = folder();
        let cache = open(folder.path()).await;
        cache.put(&key(1), artifact(10)).await.unwrap();
        let entry = entry(folder.path(), &key(1));
        let healed = folder.path().join("healed");
        fs::rename(&entry, &healed).unwrap();
        fs::write(&entry, "torn").unwrap();

        let key = key(1);
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || gate.recv());
        let mut frame = std::pin::pin!(cache.open_frame(&key));
        assert!(futures::poll!(&mut frame).is_pending());
        let heals = tokio::task::spawn_blocking(move || fs::rename(&healed, &entry));
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        let frame = frame.await.unwrap().expect("it is whole by now");
        assert_eq!(
            frame.len(),
            fs::metadata(crate::support::entry(folder.path(), &key))
                .unwrap()
                .len()
        );
        heals.await.unwrap().unwrap();
        let metrics = cache.metrics();
        assert_eq!((metrics.lookups, metrics.hits, metrics.corrupt), (1, 1, 0));
    });
}
