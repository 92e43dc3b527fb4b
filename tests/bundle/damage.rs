//! A bundle that was damaged, by accident or on purpose, serves nothing wrong.

use pipeline_cache::bundle::BundleDamage;
use pipeline_cache::{BundleCache, BundleError, Fetched, PipelineCacheStore as _};
use std::fs;

use crate::support::Small;

const ENTRY: usize = 40;
const TRAILER: usize = 56;

/// Opens these bytes as a bundle, by a file of their own.
async fn open(small: &Small, bytes: &[u8]) -> Result<BundleCache, BundleError> {
    let path = small.folder.path().join("damaged.bundle");
    fs::write(&path, bytes).unwrap();
    BundleCache::open(path).await
}

async fn damage_of(small: &Small, bytes: &[u8]) -> BundleDamage {
    match open(small, bytes).await {
        Err(BundleError::Damaged { damage, .. }) => damage,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_bundle_that_was_cut_anywhere_does_not_open() {
    let small = Small::new().await;
    for len in 0..small.bytes.len() {
        let damage = damage_of(&small, &small.bytes[..len]).await;
        let expected = match len < 16 {
            true => [BundleDamage::NotABundle, BundleDamage::Torn].contains(&damage),
            false => damage == BundleDamage::Torn,
        };
        assert!(expected, "{len} bytes: {damage:?}");
    }
    for more in [&[0][..], &[0; 56], &small.bytes] {
        let longer = [&small.bytes, more].concat();
        // A bundle behind a bundle says a length that is not that of the file.
        assert_eq!(damage_of(&small, &longer).await, BundleDamage::Torn);
    }
}

#[tokio::test]
async fn a_flipped_byte_anywhere_costs_no_more_than_its_entry() {
    let small = Small::new().await;
    let frames_end = small.bytes.len() - TRAILER - 5 * ENTRY;
    for at in 0..small.bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = small.bytes.clone();
            bytes[at] ^= flip;
            let opened = open(&small, &bytes).await;
            if !(16..frames_end).contains(&at) {
                let error = opened.expect_err("its index or its header is not the right one");
                assert!(matches!(error, BundleError::Damaged { .. }), "{at}");
                continue;
            }
            let cache = opened.unwrap();
            assert_eq!(small.served_of(&cache).await, 4, "byte {at} by {flip}");
            let (mine, aliases) = (cache.metrics(), cache.aliases().unwrap().metrics());
            let bad = mine.corrupt + mine.refused + aliases.corrupt + aliases.refused;
            assert_eq!(bad, 1, "byte {at} by {flip}");
        }
    }
}

#[tokio::test]
async fn a_damaged_entry_is_counted_at_each_lookup_and_stays() {
    let small = Small::new().await;
    let key = small.artifacts.keys().next().unwrap();
    let mut bytes = small.bytes.clone();
    bytes[16 + 150] ^= 1;
    let cache = open(&small, &bytes).await.unwrap();
    for _ in 0..3 {
        let fetched = cache.fetch(key).await.unwrap();
        assert!(matches!(fetched, Fetched::Corrupt(_)), "{fetched:?}");
    }
    let metrics = cache.metrics();
    assert_eq!(
        (metrics.corrupt, metrics.misses, metrics.lookups),
        (3, 3, 3)
    );
    assert_eq!(fs::read(cache.path()).unwrap(), bytes);
}

/// Replaces the index, with counts and a digest that match it.
fn with_index(small: &Small, artifacts: u64, change: impl Fn(&mut Vec<[u8; ENTRY]>)) -> Vec<u8> {
    let bytes = &small.bytes;
    let start = bytes.len() - TRAILER - 5 * ENTRY;
    let entries = bytes[start..bytes.len() - TRAILER].chunks_exact(ENTRY);
    let mut entries: Vec<[u8; ENTRY]> = entries.map(|e| e.try_into().unwrap()).collect();
    change(&mut entries);
    let mut forged = bytes[..start].to_vec();
    let index = entries.concat();
    forged.extend_from_slice(&index);
    let len = (forged.len() + TRAILER) as u64;
    let counts = [artifacts, entries.len() as u64 - artifacts, len];
    let counts = counts.map(u64::to_le_bytes).concat();
    let digest = blake3::hash(&[&bytes[..16], &index, &counts].concat());
    forged.extend_from_slice(&counts);
    forged.extend_from_slice(digest.as_bytes());
    forged
}

fn set_offset(entry: &mut [u8; ENTRY], offset: u64) {
    entry[32..].copy_from_slice(&offset.to_le_bytes());
}

#[tokio::test]
async fn an_index_that_is_out_of_order_does_not_open_though_its_digest_matches() {
    let small = Small::new().await;
    let same = with_index(&small, 3, |_| {});
    assert_eq!(same, small.bytes, "the forger is no worse than the writer");
    let forgeries: Vec<(&str, Vec<u8>)> = vec![
        ("reordered", with_index(&small, 3, |e| e.swap(0, 1))),
        ("a key twice", with_index(&small, 3, |e| e[1] = e[0])),
        (
            "keys reordered over their frames",
            with_index(&small, 3, |e| {
                let first = e[0];
                let second = e[1];
                e[0][..32].copy_from_slice(&second[..32]);
                e[1][..32].copy_from_slice(&first[..32]);
            }),
        ),
        (
            "overlapping frames",
            with_index(&small, 3, |e| {
                let offset = u64::from_le_bytes(e[1][32..].try_into().unwrap());
                set_offset(&mut e[1], offset - 100);
            }),
        ),
        (
            "into the header",
            with_index(&small, 3, |e| set_offset(&mut e[0], 0)),
        ),
        (
            "a gap",
            with_index(&small, 3, |e| set_offset(&mut e[0], 17)),
        ),
        (
            "huge",
            with_index(&small, 3, |e| set_offset(&mut e[4], u64::MAX)),
        ),
        (
            "huge first",
            with_index(&small, 3, |e| set_offset(&mut e[0], u64::MAX)),
        ),
        (
            "into the index",
            with_index(&small, 3, |e| {
                let len = small.bytes.len() as u64;
                set_offset(&mut e[4], len - 100);
            }),
        ),
        (
            "an entry less",
            with_index(&small, 2, |e| {
                e.remove(0);
            }),
        ),
    ];
    for (what, bytes) in forgeries {
        assert_eq!(
            damage_of(&small, &bytes).await,
            BundleDamage::BadIndex,
            "{what}"
        );
    }
}

/// Each of these opens, since an index alone cannot tell. The frames can.
#[tokio::test]
async fn an_index_that_names_other_frames_serves_none_of_them() {
    let small = Small::new().await;
    let renamed = with_index(&small, 3, |e| e[1][31] ^= 1);
    let shifted = with_index(&small, 3, |e| {
        let offset = u64::from_le_bytes(e[1][32..].try_into().unwrap());
        set_offset(&mut e[1], offset + 8);
    });
    for (bytes, right) in [(renamed, 4), (shifted, 3)] {
        let cache = open(&small, &bytes).await.unwrap();
        assert_eq!(small.served_of(&cache).await, right);
        for entry in cache.entries() {
            if !small.artifacts.contains_key(&entry.key) {
                let fetched = cache.fetch(&entry.key).await.unwrap();
                assert!(matches!(fetched, Fetched::Corrupt(_)), "{fetched:?}");
            }
        }
    }
}

#[tokio::test]
async fn counts_that_cannot_be_are_refused_before_anything_is_allocated() {
    let small = Small::new().await;
    let at = small.bytes.len() - TRAILER;
    for (artifacts, aliases) in [
        (u64::MAX, 0),
        (0, u64::MAX),
        (u64::MAX, u64::MAX),
        (pipeline_cache::bundle::MAX_ENTRIES + 1, 0),
        (1 << 40, 1),
    ] {
        let mut bytes = small.bytes.clone();
        bytes[at..at + 8].copy_from_slice(&artifacts.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&aliases.to_le_bytes());
        let damage = damage_of(&small, &bytes).await;
        assert!(
            matches!(damage, BundleDamage::TooManyEntries(_)),
            "{damage:?}"
        );
    }
    let mut bytes = small.bytes.clone();
    bytes[at..at + 8].copy_from_slice(&1_000_000_u64.to_le_bytes());
    assert_eq!(damage_of(&small, &bytes).await, BundleDamage::BadIndex);
}

#[tokio::test]
async fn what_is_no_bundle_is_said_to_be_none() {
    let small = Small::new().await;
    assert_eq!(damage_of(&small, b"").await, BundleDamage::NotABundle);
    let text = b"<html>404 not found, and a little longer than a trailer is</html>".repeat(3);
    assert_eq!(damage_of(&small, &text).await, BundleDamage::NotABundle);
    let mut later = small.bytes.clone();
    later[8] = 2;
    assert_eq!(
        damage_of(&small, &later).await,
        BundleDamage::UnknownVersion(2)
    );
    let folder = BundleCache::open(small.folder.path()).await.unwrap_err();
    assert!(matches!(folder, BundleError::NotAFile { .. }), "{folder:?}");
    let missing = BundleCache::open(small.folder.path().join("none")).await;
    assert!(matches!(missing, Err(BundleError::Io { .. })));
}
