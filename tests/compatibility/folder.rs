//! A folder as a whole: entries, source aliases, intents of writes, and the count of a bounded
//! folder. What a release left, later ones go on with.

use bytes::Bytes;
use futures::TryStreamExt as _;
use pipeline_cache::disk::DiskCacheHealth;
use pipeline_cache::layered::RecordedRun;
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileSource, DiskCache, LayeredPipelineCache, PipelineCacheStore,
    PipelineFingerprint,
};
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::keys::{Expression, scope};
use crate::versions;

const FRONT_END: &str = "expression parser 1.0";
const SOURCE: &str = "1  +  2";
const PROGRAM: &[u8] = b"1 + 2";
/// The tier that an intent is for.
const REMOTE: &str = "remote(http://cache.example.com/artifacts)";
/// An entry whose file was damaged.
const DAMAGED: PipelineFingerprint = PipelineFingerprint::from_bytes([0xdd; 32]);

/// What a compile makes of the program.
pub(crate) fn artifact() -> Artifact {
    let time = Duration::from_millis(1500);
    let metadata = ArtifactMetadata::new().with_compile_time(time);
    Artifact::with_metadata("three", metadata)
}

pub(crate) fn compiled_key() -> PipelineFingerprint {
    let program = Expression(Bytes::from_static(PROGRAM));
    let key = PipelineFingerprint::of(&program).unwrap();
    key.scoped(&scope())
}

/// The key of the alias, as its file is named.
pub(crate) async fn alias_key() -> PipelineFingerprint {
    let folder = tempfile::tempdir().unwrap();
    record(folder.path()).await;
    let mut names = versions::tree(&folder.path().join("aliases")).into_keys();
    let name = names.find(|name| name.ends_with(".bin")).unwrap();
    name.trim_end_matches(".bin").parse().unwrap()
}

/// Compiles the source, or finds it: where it came from, and how often it was parsed.
pub(crate) async fn compile(cache: &LayeredPipelineCache) -> (CompileSource, u32) {
    let parsed = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = Arc::clone(&parsed);
    let parse = move |_: &Bytes| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok::<_, Infallible>(Expression(Bytes::from_static(PROGRAM)))
    };
    let scope = scope();
    let request = cache.compile(&scope).source(FRONT_END, SOURCE, parse);
    let compiled = request.run(|_, _| Ok::<_, Infallible>(artifact())).await;
    let compiled = compiled.unwrap();
    assert_eq!(compiled.artifact, artifact());
    assert_eq!(compiled.key, Some(compiled_key()));
    cache.flush().await.unwrap();
    (
        compiled.source,
        parsed.load(std::sync::atomic::Ordering::SeqCst),
    )
}

async fn open(folder: &Path) -> DiskCache {
    let builder = DiskCache::builder().root(folder).max_bytes(1 << 30);
    builder.open().await.unwrap()
}

/// Compiles twice on a folder.
pub(crate) async fn record(folder: &Path) -> RecordedRun {
    let disk = open(folder).await;
    let builder = LayeredPipelineCache::builder().tier(disk);
    let cache = builder.keep_aliases().record_run().build();
    compile(&cache).await;
    compile(&cache).await;
    let run = cache.recorded_run().await.unwrap();
    cache.close(Duration::from_secs(60)).await;
    run
}

#[cfg_attr(
    not(all(feature = "zstd", feature = "object-store")),
    expect(dead_code, reason = "needs all features")
)]
pub(crate) async fn write(version: &Path) {
    let folder = version.join("folder");
    record(&folder).await;
    let disk = open(&folder).await;
    for sample in crate::frames::samples() {
        if sample.keys.is_none() {
            let key = sample.key();
            disk.put(&key, sample.artifact.clone()).await.unwrap();
        }
    }
    let intents = disk.write_intents().unwrap();
    intents.add(REMOTE, &[compiled_key()]).await.unwrap();
    fs::write(folder.join(format!("{DAMAGED}.bin")), "damaged").unwrap();
    assert_eq!(disk.get(&DAMAGED).await.unwrap(), None);
    disk.flush().await.unwrap();
    disk.close(Duration::from_secs(60)).await.unwrap();
    // What is in it is of a process that lives.
    for staging in [".staging", "aliases/.staging"] {
        let _ = fs::remove_dir_all(folder.join(staging));
    }
}

#[tokio::test]
async fn folders_of_earlier_releases_are_gone_on_with() {
    for version in versions::all() {
        let place = version.display();
        let copied = tempfile::tempdir().unwrap();
        versions::copy(&version.join("folder"), copied.path());
        let before = versions::tree(copied.path());

        let disk = open(copied.path()).await;
        let builder = LayeredPipelineCache::builder().tier(disk.clone());
        let cache = builder.keep_aliases().build();
        let (source, parsed) = compile(&cache).await;
        assert!(
            matches!(source, CompileSource::Cache(_)),
            "{place}: {source:?}"
        );
        assert_eq!(parsed, 0, "{place}: the alias is not known");
        let intents = disk.write_intents().unwrap();
        let intents = intents.list(REMOTE).await.unwrap().keys;
        assert_eq!(intents, [compiled_key()], "{place}");

        for sample in crate::frames::samples() {
            if sample.keys.is_none() {
                let served = disk.get(&sample.key()).await.unwrap();
                assert_eq!(served, Some(sample.artifact.clone()), "{place}");
            }
        }
        let checks: Vec<_> = disk.verify().try_collect().await.unwrap();
        assert!(checks.len() >= 5, "{place}");
        for check in checks {
            let is_whole = matches!(check.health, DiskCacheHealth::Whole);
            assert!(is_whole, "{place}: {check:?}");
        }
        // Nothing was written anew, and what was set aside goes with the next trim.
        let report = disk.trim().await.unwrap();
        assert_eq!(report.removed, 0, "{place}: {report:?}");
        cache.close(Duration::from_secs(60)).await;
        let mut expected = before;
        assert!(expected.remove(&format!("{DAMAGED}.corrupt")).is_some());
        let mut after = versions::tree(copied.path());
        after.retain(|name, _| !name.contains(".staging/"));
        for files in [&mut expected, &mut after] {
            assert!(files.remove(".usage").is_some(), "{place}");
        }
        assert_eq!(after, expected, "{place}");
    }
}
