//! Recorded runs: what a release recorded, later ones prefetch.

use pipeline_cache::layered::{RecordedKind, RecordedRun};
use std::path::Path;
use std::time::Duration;

use crate::folder::{alias_key, artifact, compiled_key};
use crate::versions;

const NAME: &str = "build.run";

#[cfg_attr(
    not(all(feature = "zstd", feature = "object-store")),
    expect(dead_code, reason = "needs all features")
)]
pub(crate) async fn write(version: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let run = crate::folder::record(folder.path()).await;
    run.save(version.join(NAME)).await.unwrap();
}

/// The bytes before and after that time, which is the last number of the first key. The checksum at
/// the end covers it.
#[cfg_attr(
    not(all(feature = "zstd", feature = "object-store")),
    expect(dead_code, reason = "needs all features")
)]
pub(crate) fn without_parse_time(file: &[u8]) -> Vec<u8> {
    [&file[..77], &file[85..file.len() - 32]].concat()
}

#[tokio::test]
async fn runs_of_earlier_releases_are_loaded() {
    let alias = alias_key().await;
    for version in versions::all() {
        let run = RecordedRun::load(version.join(NAME)).await.unwrap();
        let [first, second] = run.keys() else {
            panic!("{run:?}");
        };
        assert_eq!((first.key, first.kind), (alias, RecordedKind::SourceAlias));
        assert_eq!(first.bytes, Some(32));
        assert_eq!(second.key, compiled_key());
        assert_eq!(second.kind, RecordedKind::Artifact);
        assert_eq!(second.uses, 2);
        assert_eq!(second.bytes, Some(artifact().len() as u64));
        assert_eq!(second.compile_time, Some(Duration::from_millis(1500)));
    }
}
