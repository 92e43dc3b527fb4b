//! What a run records, how it is kept in a file, and what a file that is no such run can do.
#![expect(
    clippy::clone_on_ref_ptr,
    reason = "a clone that is turned into `dyn` on the way"
)]

use super::requests::support::{FRONT_END, SyntaxError, Words, scope};
use bytes::Bytes;
use futures::{FutureExt as _, poll};
use pipeline_cache::layered::{RecordedKey, RecordedKind, RecordedRun, RecordedRunError};
use pipeline_cache::testing::FaultyStore;
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileScope, InMemoryPipelineCache, LayeredPipelineCache,
    LayeredPipelineCacheBuilder, PipelineCacheStore as _, PipelineFingerprint, SourceAliases,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const MS: Duration = Duration::from_millis(1);

fn key(n: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn artifact(bytes: usize, compile_time: Duration) -> Artifact {
    let metadata = ArtifactMetadata::new().with_compile_time(compile_time);
    Artifact::with_metadata(vec![7; bytes], metadata)
}

fn recording() -> LayeredPipelineCacheBuilder {
    LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .record_run()
}

async fn run_of(cache: &LayeredPipelineCache) -> RecordedRun {
    cache.recorded_run().await.expect("it records")
}

/// A run that used these keys, in this order, each with this many bytes.
async fn run_with(keys: impl IntoIterator<Item = (u64, usize)>) -> RecordedRun {
    let cache = recording().build();
    for (n, bytes) in keys {
        let made = artifact(bytes, u32::try_from(n).unwrap() * MS);
        cache.put(&key(n), made).await.unwrap();
        cache.get(&key(n)).await.unwrap();
    }
    run_of(&cache).await
}

fn find(run: &RecordedRun, key: PipelineFingerprint) -> RecordedKey {
    let mut keys = run.keys().iter();
    *keys.find(|recorded| recorded.key == key).unwrap()
}

#[tokio::test]
async fn a_run_has_its_keys_in_the_order_of_first_use_with_what_each_costs() {
    let cache = recording().build();
    assert_eq!(cache.get(&key(3)).await, None);
    cache.put(&key(1), artifact(10, 5 * MS)).await.unwrap();
    for _ in 0..3 {
        cache.get(&key(1)).await.unwrap();
    }
    let compiled = cache
        .get_or_insert_with(&key(2), || async {
            Ok::<_, std::convert::Infallible>(Artifact::new(vec![7; 20]))
        })
        .await
        .unwrap();
    // What was missed is put later.
    cache.put(&key(3), artifact(30, 7 * MS)).await.unwrap();
    // What is never asked for is not recorded.
    cache.put(&key(4), artifact(40, MS)).await.unwrap();

    let run = run_of(&cache).await;
    let keys: Vec<_> = run.keys().iter().map(|recorded| recorded.key).collect();
    assert_eq!(keys, [key(3), key(1), key(2)]);
    let costs: Vec<_> = run
        .keys()
        .iter()
        .map(|recorded| (recorded.uses, recorded.bytes, recorded.compile_time))
        .collect();
    let measured = compiled.artifact.metadata().compile_time();
    assert!(measured.is_some());
    assert_eq!(
        costs,
        [
            (1, Some(30), Some(7 * MS)),
            (3, Some(10), Some(5 * MS)),
            (1, Some(20), measured)
        ]
    );
    assert_eq!((run.bytes(), run.not_kept()), (60, 0));
    assert_eq!(run.compile_time(), 12 * MS + measured.unwrap());
}

#[tokio::test]
async fn every_kind_of_request_is_recorded_once() {
    let lower = Arc::new(FaultyStore::new("lower"));
    for n in 0..4 {
        lower.put(&key(n), artifact(1, MS)).await.unwrap();
    }
    let cache = recording().shared_tier(lower.clone() as _).build();
    cache.get(&key(0)).await.unwrap();
    let many = cache.lookup_many([key(1)], &Default::default());
    futures::StreamExt::collect::<Vec<_>>(many).await;
    let as_tier: &dyn pipeline_cache::PipelineCacheStore = &cache;
    as_tier.fetch(&key(2)).await.unwrap();
    let wanted = key(3);
    let insert = cache.get_or_insert_with(&wanted, || async { Err("not needed") });
    insert.await.unwrap();
    cache.flush().await.unwrap();
    as_tier.peek(&key(2)).unwrap();

    let run = run_of(&cache).await;
    let uses: Vec<_> = run.keys().iter().map(|recorded| recorded.uses).collect();
    assert_eq!(uses, [1, 1, 2, 1]);
}

#[tokio::test]
async fn a_cache_that_was_not_asked_to_records_nothing() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .build();
    cache.get(&key(1)).await;
    assert_eq!(cache.recorded_run().await, None);
}

#[tokio::test]
async fn keys_beyond_the_bound_are_counted_and_not_kept() {
    let cache = recording().max_recorded_keys(10).build();
    for n in 0..15 {
        cache.get(&key(n)).await;
        cache.get(&key(0)).await;
    }
    let run = run_of(&cache).await;
    assert_eq!(run.keys().len(), 10);
    assert!(
        run.keys()
            .iter()
            .map(|recorded| recorded.key)
            .eq((0..10).map(key))
    );
    assert_eq!(run.keys()[0].uses, 16);
    assert_eq!(run.not_kept(), 5);
}

async fn compile(cache: &LayeredPipelineCache, scope: &CompileScope, source: &'static str) {
    cache
        .compile(scope)
        .source(FRONT_END, source, |source: &Bytes| {
            let text = String::from_utf8_lossy(source);
            Ok::<_, SyntaxError>(Words(text.split(' ').map(str::to_owned).collect()))
        })
        .run(|_input, _cx| Ok(Artifact::new("code")))
        .await
        .unwrap();
}

#[tokio::test]
async fn sources_are_recorded_where_a_store_keeps_their_aliases_and_nowhere_else() {
    let scope = scope();
    for is_kept in [true, false] {
        let mut aliases = SourceAliases::new();
        if is_kept {
            aliases = aliases.kept_in(FaultyStore::new("aliases"));
        }
        let cache = recording().source_aliases(aliases).build();
        for source in ["a b", "b a", "a b"] {
            compile(&cache, &scope, source).await;
        }
        let run = run_of(&cache).await;
        let of_kind = |kind| {
            let keys = run
                .keys()
                .iter()
                .filter(move |recorded| recorded.kind == kind);
            keys.map(|recorded| recorded.uses).collect::<Vec<_>>()
        };
        assert_eq!(of_kind(RecordedKind::Artifact), [3]);
        match is_kept {
            true => assert_eq!(of_kind(RecordedKind::SourceAlias), [2, 1]),
            false => assert!(of_kind(RecordedKind::SourceAlias).is_empty()),
        }
        // The first that was asked for, and what a parse of it took.
        if is_kept {
            assert_eq!(run.keys()[0].kind, RecordedKind::SourceAlias);
            assert_eq!(run.keys()[0].bytes, Some(32));
            assert!(run.keys()[0].compile_time.is_some());
        }
    }
}

fn file(name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[tokio::test]
async fn a_saved_run_comes_back_and_the_last_that_was_saved_stays() {
    let (folder, path) = file("build.run");
    let cache = recording().build();
    cache.get(&key(9)).await;
    let unknown = run_of(&cache).await;
    for run in [
        run_with([(1, 10), (2, 0)]).await,
        unknown,
        RecordedRun::default(),
    ] {
        run.save(&path).await.unwrap();
        assert_eq!(RecordedRun::load(&path).await.unwrap(), run);
        assert_eq!(names(&folder), ["build.run"]);
    }
}

#[tokio::test]
async fn a_save_that_fails_or_is_dropped_leaves_a_whole_run() {
    let (folder, path) = file("build.run");
    let old = run_with([(1, 10)]).await;
    let new = run_with((0..2_000).map(|n| (n, 1))).await;
    let missing = folder.path().join("missing/build.run");
    let error = new.save(&missing).await.unwrap_err();
    assert!(matches!(error, RecordedRunError::Io { .. }), "{error}");
    assert!(error.to_string().contains("missing"), "{error}");

    for polls in 0.. {
        old.save(&path).await.unwrap();
        let mut save = Box::pin(new.save(&path));
        let mut is_done = false;
        for _ in 0..polls {
            // Between the polls the pool makes progress, or not: each is a moment to go.
            is_done = is_done || poll!(&mut save).is_ready();
            tokio::task::yield_now().await;
        }
        drop(save);
        let now = RecordedRun::load(&path).await.unwrap();
        assert!(now == old || now == new);
        if is_done || polls > 10_000 {
            break;
        }
    }
}

/// The form is fixed: a run that another release has saved is read.
#[tokio::test]
async fn the_form_of_the_file_is_as_it_was() {
    let (_folder, path) = file("golden.run");
    let cache = recording().max_recorded_keys(1).build();
    let key = PipelineFingerprint::from_bytes([0xab; 32]);
    cache.put(&key, artifact(0x1234, MS)).await.unwrap();
    cache.get(&key).await.unwrap();
    cache.get(&self::key(1)).await;
    run_of(&cache).await.save(&path).await.unwrap();

    let mut expected = b"\x89PC-RUN\n\x01\0\0\0".to_vec();
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]); // not kept
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]); // keys
    expected.extend([0xab; 32]);
    expected.push(0); // an artifact
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]); // uses
    expected.extend([0x34, 0x12, 0, 0, 0, 0, 0, 0]); // bytes
    expected.extend(1_000_000_u64.to_le_bytes()); // nanoseconds
    let checksum = blake3::hash(&expected);
    expected.extend(checksum.as_bytes());
    assert_eq!(fs::read(&path).unwrap(), expected);
}

async fn load_bytes(path: &Path, bytes: &[u8]) -> Result<RecordedRun, RecordedRunError> {
    fs::write(path, bytes).unwrap();
    RecordedRun::load(path).await
}

fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&bytes);
    bytes.extend(checksum.as_bytes());
    bytes
}

#[tokio::test]
async fn a_torn_or_altered_file_is_an_error() {
    let (_folder, path) = file("torn.run");
    run_with([(1, 10), (2, 20)])
        .await
        .save(&path)
        .await
        .unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        let error = load_bytes(&path, &whole[..length]).await.unwrap_err();
        let is_expected = match length {
            0..12 => matches!(error, RecordedRunError::NotARun { .. }),
            _ => matches!(error, RecordedRunError::Damaged { .. }),
        };
        assert!(is_expected, "{length}: {error}");
    }
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 0x20;
        let error = load_bytes(&path, &altered).await.unwrap_err();
        let is_expected = match at {
            0..8 => matches!(error, RecordedRunError::NotARun { .. }),
            8..12 => matches!(error, RecordedRunError::OtherVersion { .. }),
            _ => matches!(error, RecordedRunError::Damaged { .. }),
        };
        assert!(is_expected, "{at}: {error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    let error = load_bytes(&path, &longer).await.unwrap_err();
    assert!(matches!(error, RecordedRunError::Damaged { .. }), "{error}");
    assert!(load_bytes(&path, &whole).await.is_ok());
}

/// A checksum keeps out accidents. Whoever writes a file on purpose writes a right one.
#[tokio::test]
async fn a_hostile_file_costs_neither_memory_nor_a_panic() {
    let (folder, path) = file("hostile.run");
    let head = |count: u64| {
        let mut bytes = b"\x89PC-RUN\n\x01\0\0\0".to_vec();
        bytes.extend(u64::MAX.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes
    };
    for count in [1, 1 << 20, u64::MAX / 57, u64::MAX] {
        let error = load_bytes(&path, &with_checksum(head(count))).await;
        let error = error.unwrap_err();
        assert!(matches!(error, RecordedRunError::Damaged { .. }), "{error}");
    }
    let mut more_than_it_says = head(1);
    more_than_it_says.extend([0; 2 * 57]);
    let error = load_bytes(&path, &with_checksum(more_than_it_says)).await;
    assert!(matches!(error, Err(RecordedRunError::Damaged { .. })));
    let mut strange_kind = head(1);
    strange_kind.extend([9; 57]);
    let error = load_bytes(&path, &with_checksum(strange_kind)).await;
    assert!(matches!(error, Err(RecordedRunError::Damaged { .. })));

    // The largest numbers there are, and one key twice.
    let mut largest = head(2);
    for _ in 0..2 {
        largest.extend([9; 32]);
        largest.push(0);
        for _ in 0..3 {
            largest.extend((u64::MAX - 1).to_le_bytes());
        }
    }
    let run = load_bytes(&path, &with_checksum(largest)).await.unwrap();
    assert_eq!((run.bytes(), run.not_kept()), (u64::MAX, u64::MAX));
    assert_eq!(run.merge(&run).keys().len(), 2);
    assert_eq!(run.most_valuable_first().len(), 2);
    assert!(run.compile_time() > Duration::from_secs(1));

    for (what, bytes) in [
        ("empty", &b""[..]),
        ("text", b"#!/bin/sh\necho a script that is longer\n"),
    ] {
        let error = load_bytes(&path, bytes).await.unwrap_err();
        assert!(
            matches!(error, RecordedRunError::NotARun { .. }),
            "{what}: {error}"
        );
    }
    // No blocks are taken for it, and no more of it is read than the largest run has.
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = RecordedRun::load(&path).await.unwrap_err();
    assert!(
        matches!(error, RecordedRunError::TooLarge { .. }),
        "{error}"
    );

    let error = RecordedRun::load(folder.path()).await.unwrap_err();
    assert!(
        matches!(error, RecordedRunError::NotAFile { .. }),
        "{error}"
    );
    let error = RecordedRun::load(folder.path().join("none")).await;
    assert!(matches!(error, Err(RecordedRunError::Io { .. })));
}

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_is_not_waited_for() {
    let (_folder, path) = file("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let error = RecordedRun::load(&path).await.unwrap_err();
    assert!(
        matches!(error, RecordedRunError::NotAFile { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn two_runs_are_merged_to_one_with_what_the_newer_knows() {
    let monday = run_with([(1, 10), (2, 20)]).await;
    let cache = recording().build();
    cache.get(&key(3)).await;
    cache.put(&key(2), artifact(25, 9 * MS)).await.unwrap();
    cache.get(&key(2)).await.unwrap();
    cache.get(&key(1)).await;
    let tuesday = run_of(&cache).await;

    let both = monday.merge(&tuesday);
    let keys: Vec<_> = both.keys().iter().map(|recorded| recorded.key).collect();
    assert_eq!(keys, [key(1), key(2), key(3)]);
    let of = |n| {
        let recorded = find(&both, key(n));
        (recorded.uses, recorded.bytes, recorded.compile_time)
    };
    assert_eq!(of(1), (2, Some(10), Some(MS)));
    assert_eq!(of(2), (2, Some(25), Some(9 * MS)));
    assert_eq!(of(3), (1, None, None));
}

#[tokio::test]
async fn the_order_of_value_is_by_time_for_each_byte_and_what_is_unknown_comes_last() {
    let cache = recording()
        .source_aliases(SourceAliases::new().kept_in(FaultyStore::new("aliases")))
        .build();
    cache.get(&key(1)).await;
    cache
        .put(&key(2), Artifact::new("of unknown time"))
        .await
        .unwrap();
    for (n, bytes, time) in [
        (3, 1_000, MS),
        (4, 10, MS),
        (5, 1_000, 50 * MS),
        (6, 100, 10 * MS),
    ] {
        cache.put(&key(n), artifact(bytes, time)).await.unwrap();
    }
    for n in 2..7 {
        cache.get(&key(n)).await.unwrap();
    }
    compile(&cache, &scope(), "a").await;

    let run = run_of(&cache).await;
    let ordered = run.most_valuable_first();
    assert_eq!(ordered[0].kind, RecordedKind::SourceAlias);
    let known: Vec<_> = ordered[1..].iter().map(|recorded| recorded.key).collect();
    let expected = [4, 6, 5, 3].map(key);
    // The compile of the test takes as long as it takes.
    let known: Vec<_> = known
        .into_iter()
        .filter(|key| expected.contains(key))
        .collect();
    assert_eq!(known, expected);
    let last: Vec<_> = ordered[ordered.len() - 2..]
        .iter()
        .map(|recorded| recorded.key)
        .collect();
    assert_eq!(last, [key(1), key(2)]);
}

/// Two threads and a hundred keys: no use is lost, and a run may be taken meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_use_is_lost_while_others_record() {
    let cache = recording().build();
    for n in 0..100 {
        cache.put(&key(n), artifact(1, MS)).await.unwrap();
    }
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for n in (0..100).cycle().take(10_000) {
                    cache.get(&key(n)).now_or_never().flatten().unwrap();
                }
            })
        })
        .collect();
    assert!(run_of(&cache).await.keys().len() <= 100);
    for task in tasks {
        task.await.unwrap();
    }
    let run = run_of(&cache).await;
    assert_eq!(
        run.keys().iter().map(|recorded| recorded.uses).sum::<u64>(),
        40_000
    );
}
