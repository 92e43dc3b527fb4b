//! A bundle whose writing was interrupted is continued, and comes out as if it had not been.

use futures::future::poll_immediate;
use pipeline_cache::bundle::{self, BundleSummary, PackOptions};
use pipeline_cache::{
    Artifact, BundleCache, BundleError, BundleWriter, DiskCache, PipelineCacheStore as _,
    PipelineFingerprint,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;

use crate::support::{Entries, Small, artifact, entries, frame, key};

fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// A writer that was dropped closes its file in the background, and is in the way until then.
async fn create(path: &Path) -> BundleWriter {
    loop {
        match BundleWriter::create(path).await {
            Err(BundleError::Busy { .. }) => tokio::task::yield_now().await,
            created => return created.unwrap(),
        }
    }
}

async fn write_again(small: &Small) -> BundleSummary {
    fs::remove_file(&small.path).unwrap();
    let mut writer = create(&small.path).await;
    for (key, artifact) in &small.artifacts {
        writer.add(key, frame(key, artifact)).await.unwrap();
    }
    for (key, alias) in &small.aliases {
        writer.add_alias(key, frame(key, alias)).await.unwrap();
    }
    assert!(!small.path.exists(), "before it is complete");
    let summary = writer.finish().await.unwrap();
    assert_eq!(fs::read(&small.path).unwrap(), small.bytes);
    assert!(!partial(&small.path).exists());
    summary
}

#[tokio::test]
async fn after_a_cut_anywhere_only_what_is_missing_is_written() {
    let small = Small::new().await;
    // Where the header, each frame and the whole end.
    let mut ends = vec![0, 16];
    for (key, artifact) in small.artifacts.iter().chain(&small.aliases) {
        ends.push(ends.last().unwrap() + frame(key, artifact).len());
    }
    ends.push(small.bytes.len());
    // Each cut costs a sync of the disk.
    let around = ends
        .iter()
        .flat_map(|end: &usize| [end.saturating_sub(1), *end, end + 1]);
    let between = (0..=small.bytes.len()).step_by(11);
    let cuts: BTreeSet<usize> = around.chain(between).collect();
    for cut in cuts.into_iter().filter(|cut| *cut <= small.bytes.len()) {
        fs::write(partial(&small.path), &small.bytes[..cut]).unwrap();
        let summary = write_again(&small).await;
        let kept = *ends.iter().rfind(|end| **end <= cut).unwrap();
        assert_eq!(summary.kept_bytes, kept as u64, "cut at {cut}");
        assert_eq!(summary.bytes, small.bytes.len() as u64);
    }
}

#[tokio::test]
async fn what_was_left_is_not_believed() {
    let small = Small::new().await;
    let mut left: Vec<Vec<u8>> = Vec::new();
    for at in (0..small.bytes.len()).step_by(23) {
        let mut bytes = small.bytes.clone();
        bytes[at] ^= 0x10;
        left.push(bytes);
    }
    left.push([&small.bytes[..], &[7; 3000]].concat());
    left.push(vec![0; 5000]);
    left.push(b"something else".repeat(500));
    // Of other entries: one came, one went, one changed.
    for others in [entries(1..=4, 20), entries(2..=3, 20), entries(1..=3, 21)] {
        let other = Small::new().await;
        crate::support::write(&other.path, &others, &other.aliases).await;
        left.push(fs::read(&other.path).unwrap());
    }
    for bytes in left {
        fs::write(partial(&small.path), bytes).unwrap();
        write_again(&small).await;
    }
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_what_the_next_one_continues() {
    let small = Small::new().await;
    // Larger than what is written in one call, so that there is something to keep.
    let large: Entries = entries(1..=4, 300_000);
    let path = small.folder.path().join("large.bundle");
    crate::support::write(&path, &large, &small.aliases).await;
    let expected = fs::read(&path).unwrap();
    let mut most_kept = 0;
    for added in 0..=4 {
        fs::remove_file(&path).unwrap();
        let mut writer = create(&path).await;
        for (key, artifact) in large.iter().take(added) {
            writer.add(key, frame(key, artifact)).await.unwrap();
        }
        drop(writer);
        assert!(!path.exists());
        let mut writer = create(&path).await;
        for (key, artifact) in &large {
            writer.add(key, frame(key, artifact)).await.unwrap();
        }
        for (key, alias) in &small.aliases {
            writer.add_alias(key, frame(key, alias)).await.unwrap();
        }
        most_kept = writer.finish().await.unwrap().kept_bytes.max(most_kept);
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
    assert!(most_kept > 300_000, "{most_kept}");
}

/// Begins to add an artifact and drops the call as soon as some of its bytes are in the file. Whether it was
/// dropped before it was done.
async fn add_in_part(
    writer: &mut BundleWriter,
    (key, artifact): (&PipelineFingerprint, &Artifact),
    staged: &Path,
) -> bool {
    let len = || fs::metadata(staged).unwrap().len();
    // What was added before may be buffered, and comes first.
    let before = len() + 16;
    let mut add = pin!(writer.add(key, frame(key, artifact)));
    loop {
        if let Some(added) = poll_immediate(&mut add).await {
            added.unwrap();
            return false;
        }
        if len() > before {
            return true;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_dropped_call_has_added_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.bundle");
    let large = entries(1..=8, 1_500_000);
    crate::support::write(&path, &large, &Entries::new()).await;
    let expected = fs::read(&path).unwrap();
    let half = &expected[..expected.len() / 2];
    for left in [&[][..], half, &expected] {
        fs::write(partial(&path), left).unwrap();
        let mut writer = create(&path).await;
        let mut dropped = 0;
        for entry in &large {
            let (key, artifact) = entry;
            // Where there is something to compare, before that is done.
            let polled = poll_immediate(pin!(writer.add(key, frame(key, artifact)))).await;
            if polled.is_some() {
                continue;
            }
            if add_in_part(&mut writer, entry, &partial(&path)).await {
                dropped += 1;
                writer.add(key, frame(key, artifact)).await.unwrap();
            }
        }
        // One poll may do it all, where the pool is faster than this task.
        assert!(
            dropped > 0 || !left.is_empty(),
            "none was dropped in the middle"
        );
        writer.finish().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
}

#[tokio::test]
async fn a_second_writer_is_refused_and_harms_nothing() {
    let small = Small::new().await;
    let mut writer = create(&small.path).await;
    for (key, artifact) in &small.artifacts {
        writer.add(key, frame(key, artifact)).await.unwrap();
        let second = BundleWriter::create(&small.path).await;
        assert!(
            matches!(second, Err(BundleError::Busy { .. })),
            "{second:?}"
        );
    }
    for (key, alias) in &small.aliases {
        writer.add_alias(key, frame(key, alias)).await.unwrap();
    }
    let whole = BundleCache::open(&small.path).await;
    assert_eq!(
        whole.unwrap().metrics().entries,
        3,
        "the old one until then"
    );
    writer.finish().await.unwrap();
    // One after it begins anew, and not in the finished file.
    let third = create(&small.path).await;
    assert_eq!(fs::read(&small.path).unwrap(), small.bytes);
    drop(third);
    assert_eq!(fs::read(&small.path).unwrap(), small.bytes);
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_under_the_name_of_the_staged_file_is_not_followed() {
    let small = Small::new().await;
    let victim = small.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, partial(&small.path)).unwrap();
    let refused = BundleWriter::create(&small.path).await;
    assert!(
        matches!(refused, Err(BundleError::NotAFile { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read(victim).unwrap(), b"precious");
}

#[tokio::test]
async fn a_pack_that_was_dropped_anywhere_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let cache = DiskCache::new(folder.path().join("cache")).await.unwrap();
    for number in 0..12 {
        cache
            .put(&key(number), artifact(number, 100_000))
            .await
            .unwrap();
        let aliases = cache.aliases().unwrap();
        aliases
            .put(&key(number), artifact(number, 32))
            .await
            .unwrap();
    }
    let options = PackOptions::default();
    let whole = folder.path().join("whole.bundle");
    bundle::pack(&cache, &whole, &options, |_| {})
        .await
        .unwrap();
    let expected = fs::read(&whole).unwrap();
    for stop in [1, 3, 11, 12, 13, 23, 24] {
        let path = folder.path().join(format!("{stop}.bundle"));
        let (reached, is_reached) = tokio::sync::oneshot::channel();
        let mut reached = Some(reached);
        let pack = bundle::pack(&cache, &path, &options, |at| {
            assert_eq!(at.of, 24);
            if at.done == stop {
                let _ = reached.take().map(|reached| reached.send(()));
            }
        });
        tokio::select! {
            biased;
            _ = is_reached => {}
            packed = pack => assert!(packed.is_ok()),
        }
        let _ = loop {
            match bundle::pack(&cache, &path, &options, |_| {}).await {
                Err(BundleError::Busy { .. }) => tokio::task::yield_now().await,
                packed => break packed.unwrap(),
            }
        };
        assert_eq!(fs::read(&path).unwrap(), expected, "stopped at {stop}");
    }
}
