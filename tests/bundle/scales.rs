//! A bundle may be large: opening it reads its index, and no frame.

use pipeline_cache::{BundleCache, BundleWriter, Fetched, PipelineCacheStore as _};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::support::{artifact, frame, key};

/// Writes a bundle of so many artifacts, each of so many bytes.
pub(crate) async fn write_many(path: &Path, number: u64, len: usize) {
    let mut numbers: Vec<u64> = (0..number).collect();
    numbers.sort_unstable_by_key(|number| key(*number));
    let mut writer = BundleWriter::create(path).await.unwrap();
    for number in numbers {
        let key = key(number);
        let frame = frame(&key, &artifact(number, len));
        writer.add(&key, frame).await.unwrap();
    }
    writer.finish().await.unwrap();
}

#[tokio::test]
async fn a_hundred_thousand_entries_are_listed_and_served() {
    const ENTRIES: u64 = 100_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("many.bundle");
    write_many(&path, ENTRIES, 64).await;
    let cache = BundleCache::open(&path).await.unwrap();
    assert_eq!(cache.metrics().entries, ENTRIES);
    assert_eq!(cache.entries().count() as u64, ENTRIES);
    for number in (0..ENTRIES).step_by(97) {
        let found = cache.get(&key(number)).await.unwrap();
        assert_eq!(found, Some(artifact(number, 64)));
        assert_eq!(cache.get(&key(number + ENTRIES)).await.unwrap(), None);
    }
}

/// One frame of 64 GiB that is a hole in the file: whoever read it would take minutes, or more memory
/// than there is.
#[tokio::test]
async fn opening_reads_no_frame() {
    const FRAME: u64 = 64 << 30;
    let file = tempfile::NamedTempFile::new().unwrap();
    let header = b"\x89pcb\r\n\x1a\n\x01\0\0\0\0\0\0\0";
    let index = [key(1).as_bytes().as_slice(), &16_u64.to_le_bytes()].concat();
    let len = 16 + FRAME + 40 + 24 + 32;
    let counts = [1, 0, len].map(u64::to_le_bytes).concat();
    let digest = blake3::hash(&[&header[..], &index, &counts].concat());
    let mut out = file.as_file();
    out.write_all(header).unwrap();
    out.seek(SeekFrom::Start(16 + FRAME)).unwrap();
    let end = [index, counts, digest.as_bytes().to_vec()].concat();
    out.write_all(&end).unwrap();
    let cache = BundleCache::open(file.path()).await.unwrap();
    assert_eq!(cache.metrics().entries, 1);
    let fetched = cache.fetch(&key(1)).await.unwrap();
    assert!(matches!(fetched, Fetched::Corrupt(_)), "{fetched:?}");
    assert_eq!(
        cache.frame(&key(1)).await.unwrap_err().kind(),
        pipeline_cache::StoreErrorKind::TooLarge
    );
}
