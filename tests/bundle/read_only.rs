//! A bundle is a tier that takes no writes.

use futures::executor::block_on;
use futures::future::poll_immediate;
use pipeline_cache::layered::CompileSource;
use pipeline_cache::{
    Artifact, BundleCache, BundleError, BundleWriter, CompileScope, DiskCache, Fetched,
    InMemoryPipelineCache, LayeredPipelineCache, OpaqueProgram, PipelineCacheStore, StoreErrorKind,
    Unkeyable,
};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Entries, Small, artifact, entries, key, write};

#[cfg(feature = "testing")]
#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    use pipeline_cache::testing::check_conformance;

    let small = Small::new().await;
    let path = &small.path;
    let secret = || pipeline_cache::SharedSecret::new("hunter2");
    let new_store = || async {
        let cache = BundleCache::builder().shared_secret(secret()).open(path);
        Arc::new(cache.await.unwrap()) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(new_store, &["hunter2"]).await.unwrap();
}

#[tokio::test]
async fn writes_are_refused_and_change_nothing() {
    let small = Small::new().await;
    let cache = BundleCache::open(&small.path).await.unwrap();
    let aliases = cache.alias_stores().remove(0);
    for store in [&cache as &dyn PipelineCacheStore, &*aliases] {
        assert!(!store.is_writable());
        for key in [key(1), key(11), key(99)] {
            let put = store.put(&key, Artifact::new("x")).await.unwrap_err();
            let removal = store.remove(&key).await.unwrap_err();
            for error in [put, removal] {
                assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
                assert!(error.tier().starts_with("bundle("), "{error}");
            }
        }
        store.flush().await.unwrap();
        store.close(Duration::from_secs(9)).await.unwrap();
    }
    assert_eq!(small.served_of(&cache).await, 5);
    assert_eq!(std::fs::read(&small.path).unwrap(), small.bytes);
}

#[tokio::test]
async fn it_counts_and_lists() {
    let small = Small::new().await;
    let cache = BundleCache::open(&small.path).await.unwrap();
    assert_eq!(
        cache.to_string(),
        format!("bundle({})", small.path.display())
    );
    assert_eq!(small.served_of(&cache).await, 5);
    let metrics = cache.metrics();
    let counted = (metrics.lookups, metrics.hits, metrics.misses);
    assert_eq!(counted, (5, 3, 2));
    let listed: Vec<_> = cache.entries().collect();
    assert!(
        listed
            .iter()
            .map(|entry| &entry.key)
            .eq(small.artifacts.keys())
    );
    let bytes: u64 = listed.iter().map(|entry| entry.bytes).sum();
    assert_eq!((metrics.entries, metrics.cached_bytes), (3, bytes));
    let aliases = cache.aliases().unwrap();
    assert_eq!(aliases.metrics().entries, 2);
    for key in small.artifacts.keys() {
        assert!(cache.contains(key).await.unwrap());
        assert!(!aliases.contains(key).await.unwrap());
    }
}

#[tokio::test]
async fn artifacts_of_every_size_are_served_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sizes.bundle");
    let sizes = [
        0,
        1,
        4096,
        65_536,
        65_537,
        67_000,
        1 << 20,
        (1 << 20) + 5_000,
        3 << 20,
    ];
    let artifacts: Entries = sizes
        .iter()
        .enumerate()
        .map(|(n, len)| (key(n as u64), artifact(n as u64, *len)))
        .collect();
    write(&path, &artifacts, &Entries::new()).await;
    let cache = BundleCache::open(&path).await.unwrap();
    for (key, artifact) in &artifacts {
        let found = cache.get(key).await.unwrap().unwrap();
        assert_eq!(found.payload(), artifact.payload());
        assert_eq!(found.metadata(), artifact.metadata());
    }
    assert_eq!(cache.metrics().hits, sizes.len() as u64);
}

/// With room for one operation: one that was lost would block all others.
#[tokio::test]
async fn dropped_lookups_hold_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.bundle");
    let artifacts = entries(1..=2, 3 << 20);
    write(&path, &artifacts, &Entries::new()).await;
    let cache = BundleCache::builder().max_concurrent_operations(1);
    let cache = cache.open(&path).await.unwrap();
    for (key, artifact) in &artifacts {
        for polls in 1..4 {
            let mut never_polled_again = Box::pin(cache.fetch(key));
            let _ = poll_immediate(&mut never_polled_again).await;
            {
                let mut dropped = pin!(cache.fetch(key));
                for _ in 0..polls {
                    let _ = poll_immediate(&mut dropped).await;
                    tokio::task::yield_now().await;
                }
            }
            assert_eq!(cache.get(key).await.unwrap().as_ref(), Some(artifact));
        }
    }
}

#[test]
fn outside_of_a_runtime_it_says_so() {
    let opened = block_on(BundleCache::open("nowhere"));
    assert!(matches!(opened, Err(BundleError::NoRuntime)));
    let created = block_on(BundleWriter::create("nowhere"));
    assert!(matches!(created, Err(BundleError::NoRuntime)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let small = runtime.block_on(Small::new());
    let cache = runtime.block_on(BundleCache::open(&small.path)).unwrap();
    drop(runtime);
    let key = small.artifacts.keys().next().unwrap();
    let fetched = block_on(cache.fetch(key));
    assert_eq!(fetched.unwrap_err().kind(), StoreErrorKind::NoRuntime);
}

#[tokio::test]
async fn before_a_disk_tier_its_hits_go_to_memory_alone() {
    let small = Small::new().await;
    let disk = DiskCache::new(small.folder.path().join("disk"))
        .await
        .unwrap();
    let memory = InMemoryPipelineCache::new();
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(BundleCache::open(&small.path).await.unwrap())
        .tier(disk.clone())
        .build();
    for (key, artifact) in &small.artifacts {
        assert_eq!(cache.get(key).await.as_ref(), Some(artifact));
    }
    let own = key(99);
    cache.put(&own, Artifact::new("own")).await.unwrap();
    cache.flush().await.unwrap();
    for key in small.artifacts.keys() {
        assert!(memory.peek(key).is_some());
        assert_eq!(disk.get(key).await.unwrap(), None);
    }
}

/// A damaged entry of a bundle is compiled again, and the new one found elsewhere from then on.
#[tokio::test]
async fn a_damaged_entry_is_made_good_by_the_tiers_beside_it() {
    let small = Small::new().await;
    let mut bytes = small.bytes.clone();
    bytes[16 + 150] ^= 1;
    std::fs::write(&small.path, bytes).unwrap();
    let disk = DiskCache::new(small.folder.path().join("disk"))
        .await
        .unwrap();
    let bundle = BundleCache::open(&small.path).await.unwrap();
    let cache = LayeredPipelineCache::builder()
        .tier(bundle.clone())
        .tier(disk.clone())
        .build();
    let (key, artifact) = small.artifacts.first_key_value().unwrap();
    let compiles = Arc::new(AtomicU64::new(0));
    for _ in 0..2 {
        let (counted, artifact_made) = (Arc::clone(&compiles), artifact.clone());
        let made = cache.get_or_insert_with(key, move || async move {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(artifact_made)
        });
        assert_eq!(made.await.unwrap().artifact, *artifact);
        cache.flush().await.unwrap();
    }
    assert_eq!(compiles.load(Ordering::Relaxed), 1);
    assert!(matches!(bundle.fetch(key).await, Ok(Fetched::Corrupt(_))));
}

/// What another machine needs the aliases for.
#[tokio::test]
async fn a_known_spelling_in_a_bundle_is_not_parsed_again() {
    let folder = tempfile::tempdir().unwrap();
    let scope = CompileScope::new("upper-caser 1.0", "ascii").unwrap();
    let path = folder.path().join("shipped.bundle");
    let mut parsed = Vec::new();
    for is_first in [true, false] {
        let builder = LayeredPipelineCache::builder().keep_aliases();
        let disk = DiskCache::new(folder.path().join("disk")).await.unwrap();
        let cache = match is_first {
            true => builder.tier(disk.clone()).build(),
            false => builder
                .tier(BundleCache::open(&path).await.unwrap())
                .build(),
        };
        let parses = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&parses);
        let compiled = cache
            .compile(&scope)
            .source("parser 1.0", "hello", move |text: &bytes::Bytes| {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Unkeyable>(OpaqueProgram::new("text", text.clone()))
            })
            .run(|input, _cx| {
                let program = input.into_canonical()?;
                Ok(Artifact::new(program.bytes().to_ascii_uppercase()))
            })
            .await
            .unwrap();
        assert_eq!(&compiled.artifact.payload()[..], b"HELLO");
        assert_eq!(compiled.source == CompileSource::Compiled, is_first);
        cache.flush().await.unwrap();
        if is_first {
            let options = pipeline_cache::bundle::PackOptions::default();
            let pack = pipeline_cache::bundle::pack(&disk, &path, &options, |_| {});
            let written = pack.await.unwrap().written;
            assert_eq!((written.entries, written.aliases), (1, 1));
        }
        parsed.push(parses.load(Ordering::Relaxed));
    }
    assert_eq!(parsed, [1, 0]);
}
