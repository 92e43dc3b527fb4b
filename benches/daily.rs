//! What changes day by day, beside the bare parts it is made of: keys, memory hits, disk.
//!
//! `cargo bench --manifest-path benches/Cargo.toml`. Trust the ratios within one run.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pipeline_cache::{
    Artifact, CompileScope, DiskCache, InMemoryPipelineCache, LayeredPipelineCache, OpaqueProgram,
    PipelineCacheStore, PipelineFingerprint, SourceAliases, Unkeyable,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Runtime;

const KEYS: u64 = 10_000;
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

fn main() {
    divan::main();
}

fn key(n: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The keys one after the other; as hashes they lie in memory without order.
fn next_key() -> PipelineFingerprint {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    key(NEXT.fetch_add(1, Ordering::Relaxed) % KEYS)
}

mod fingerprint {
    use super::*;

    #[divan::bench(args = SIZES)]
    fn opaque(bencher: Bencher, size: usize) {
        let program = OpaqueProgram::new("bench", vec![7; size]);
        bencher
            .counter(BytesCount::new(size))
            .bench(|| PipelineFingerprint::of(black_box(&program)));
    }

    /// To be held against `bare_blake3`: a spelling seen before costs its hash.
    #[divan::bench(args = SIZES)]
    fn known_alias(bencher: Bencher, size: usize) {
        let source = bytes::Bytes::from(vec![7; size]);
        let aliases = SourceAliases::new();
        let parse =
            |source: &bytes::Bytes| Ok::<_, Unkeyable>(OpaqueProgram::new("bench", source.clone()));
        runtime()
            .block_on(aliases.fingerprint("front end", &source, parse))
            .expect("a key");
        bencher
            .counter(BytesCount::new(size))
            .bench(|| aliases.peek::<OpaqueProgram>("front end", black_box(&source)));
    }

    #[divan::bench(args = SIZES)]
    fn bare_blake3(bencher: Bencher, size: usize) {
        let bytes = vec![7; size];
        bencher
            .counter(BytesCount::new(size))
            .bench(|| blake3::hash(black_box(&bytes)));
    }

    #[divan::bench]
    fn scoped(bencher: Bencher) {
        let scope = CompileScope::new("naga 30.0.1", "spirv-1.3")
            .unwrap()
            .option("opt-level", "3");
        let bare = key(1);
        bencher.bench(|| black_box(bare).scoped(black_box(&scope)));
    }
}

mod memory_hit {
    use super::*;

    fn filled() -> InMemoryPipelineCache {
        let cache = InMemoryPipelineCache::new();
        let runtime = runtime();
        for n in 0..KEYS {
            let put = Artifact::new(vec![n as u8; 4096]);
            runtime.block_on(cache.put(&key(n), put)).expect("a put");
        }
        cache
    }

    #[divan::bench(threads = [1, 2])]
    fn peek(bencher: Bencher) {
        let cache = filled();
        bencher
            .with_inputs(next_key)
            .bench_refs(|key| cache.peek(key));
    }

    #[divan::bench(threads = [1, 2])]
    fn layered_dyn(bencher: Bencher) {
        let cache = LayeredPipelineCache::new([Arc::new(filled()) as _]);
        let cache: &dyn PipelineCacheStore = &cache;
        bencher
            .with_inputs(next_key)
            .bench_refs(|key| cache.peek(key));
    }

    /// To be held against `layered_dyn`: what it costs to record the run.
    #[divan::bench(threads = [1, 2])]
    fn layered_recorded(bencher: Bencher) {
        let builder = LayeredPipelineCache::builder().tier(filled());
        let cache: &dyn PipelineCacheStore = &builder.record_run().build();
        bencher
            .with_inputs(next_key)
            .bench_refs(|key| cache.peek(key));
    }

    #[divan::bench(threads = [1, 2])]
    fn bare_moka(bencher: Bencher) {
        let cache = moka::sync::Cache::new(KEYS * 2);
        for n in 0..KEYS {
            cache.insert(key(n), Artifact::new(vec![n as u8; 4096]));
        }
        bencher
            .with_inputs(next_key)
            .bench_refs(|key| cache.get(key));
    }
}

mod disk {
    use super::*;

    struct Folder {
        runtime: Runtime,
        root: tempfile::TempDir,
        cache: DiskCache,
    }

    impl Folder {
        fn new() -> Self {
            let runtime = runtime();
            let root = tempfile::tempdir().expect("a folder");
            let cache = runtime
                .block_on(DiskCache::new(root.path()))
                .expect("a cache");
            Self {
                runtime,
                root,
                cache,
            }
        }

        fn holding(size: usize) -> Self {
            let folder = Self::new();
            let put = folder.cache.put(&KEY, Artifact::new(vec![7; size]));
            folder.runtime.block_on(put).expect("a put");
            folder
        }

        fn file(&self) -> PathBuf {
            self.root.path().join(format!("{KEY}.bin"))
        }
    }

    const KEY: PipelineFingerprint = PipelineFingerprint::from_bytes([7; 32]);

    #[divan::bench(args = SIZES)]
    fn hit(bencher: Bencher, size: usize) {
        let folder = Folder::holding(size);
        bencher
            .counter(BytesCount::new(size))
            .bench_local(|| folder.runtime.block_on(folder.cache.get(&KEY)));
    }

    #[divan::bench(args = SIZES)]
    fn hit_bare_read_and_blake3(bencher: Bencher, size: usize) {
        let folder = Folder::holding(size);
        let file = folder.file();
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            let bytes = std::fs::read(&file).expect("the file");
            blake3::hash(&bytes)
        });
    }

    #[divan::bench(args = SIZES)]
    fn put(bencher: Bencher, size: usize) {
        let folder = Folder::new();
        let artifact = Artifact::new(vec![7; size]);
        let mut n = 0;
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            n += 1;
            let (key, artifact) = (key(n), artifact.clone());
            folder
                .runtime
                .block_on(async { folder.cache.put(&key, artifact).await })
        });
    }

    #[divan::bench(args = SIZES)]
    fn put_bare_write_and_rename(bencher: Bencher, size: usize) {
        let folder = Folder::new();
        let bytes = vec![7; size];
        let mut n = 0;
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            n += 1;
            let staged = folder.root.path().join("staged");
            std::fs::write(&staged, &bytes).expect("a write");
            std::fs::rename(&staged, folder.root.path().join(format!("{n}"))).expect("a rename");
        });
    }
}
