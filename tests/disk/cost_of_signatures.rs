//! What it costs a reader to demand signatures.

use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
use pipeline_cache::{
    Artifact, ArtifactMetadata, DiskCache, InMemoryPipelineCache, PipelineCacheStore,
    PipelineFingerprint,
};
use std::path::Path;
use std::time::{Duration, Instant};

const ENTRIES: u64 = 2_000;

fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn maker() -> SigningKey {
    SigningKey::from_seed([7; 32])
}

fn signers() -> TrustedSigners {
    TrustedSigners::new([Signer::new("ci", "main", maker().public_key())])
}

async fn fill(folder: &Path, entries: u64, len: usize, signs: bool) {
    let plain = DiskCache::new(folder).await.unwrap();
    let metadata = ArtifactMetadata::new()
        .with_provenance("ci.example.com/main")
        .with_toolchain("naga 30.0.1")
        .with_compile_time(Duration::from_millis(1500));
    for number in 0..entries {
        let mut payload = vec![7; len];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        let artifact = Artifact::with_metadata(payload, metadata.clone());
        let artifact = match signs {
            true => artifact.signed(&key(number), &maker()),
            false => artifact,
        };
        plain.put(&key(number), artifact).await.unwrap();
    }
}

async fn open(folder: &Path, demands: bool) -> DiskCache {
    let builder = DiskCache::builder().root(folder);
    let builder = match demands {
        true => builder.trusted_signers(signers()),
        false => builder,
    };
    builder.open().await.unwrap()
}

/// The median time of a hit, over all entries.
async fn hit(store: &dyn PipelineCacheStore, entries: u64) -> Duration {
    let mut times = Vec::new();
    for number in 0..entries {
        let key = key(number);
        let start = Instant::now();
        let found = store.get(&key).await.unwrap();
        times.push(start.elapsed());
        assert!(found.is_some());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// Nanoseconds of a hit without waiting, in the best of some rounds.
fn peek(memory: &InMemoryPipelineCache, key: &PipelineFingerprint) -> u128 {
    const HITS: u32 = 100_000;
    let round = || {
        let start = Instant::now();
        for _ in 0..HITS {
            assert!(memory.peek(key).is_some());
        }
        start.elapsed().as_nanos() / u128::from(HITS)
    };
    (0..20).map(|_| round()).min().unwrap_or_default()
}

/// `cargo test --release --features signatures --test disk cost_of_signatures -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_signed_hit_costs() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [plain, signed] = [folders[0].path(), folders[1].path()];
    fill(plain, ENTRIES, 4096, false).await;
    fill(signed, ENTRIES, 4096, true).await;
    println!(
        "4 KiB from disk, median of {ENTRIES}: not signed, signed and not demanded, demanded first, and after"
    );
    for _ in 0..5 {
        let (none, kept) = (open(plain, false).await, open(signed, false).await);
        let demanded = open(signed, true).await;
        let first = hit(&demanded, ENTRIES).await;
        // One after the other, so that the machine's mood is the same for all.
        let mut rounds = Vec::new();
        for _ in 0..5 {
            rounds.push([
                hit(&none, ENTRIES).await,
                hit(&kept, ENTRIES).await,
                hit(&demanded, ENTRIES).await,
            ]);
        }
        let best = |of: usize| rounds.iter().map(|round| round[of]).min().unwrap();
        println!("{:?} {:?} {first:?} {:?}", best(0), best(1), best(2));
    }

    let memory = InMemoryPipelineCache::new().trusting(signers());
    let artifact = Artifact::new(vec![7; 4096]);
    memory.put(&key(0), artifact.clone()).await.unwrap();
    let signed_one = artifact.signed(&key(1), &maker());
    memory.put(&key(1), signed_one).await.unwrap();
    let [none, demanded] = [0, 1].map(|number| peek(&memory, &key(number)));
    println!("4 KiB from memory: not signed {none} ns, signed {demanded} ns");

    const LARGE: usize = 64 << 20;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [plain, signed] = [folders[0].path(), folders[1].path()];
    fill(plain, 3, LARGE, false).await;
    fill(signed, 3, LARGE, true).await;
    for _ in 0..5 {
        let none = hit(&open(plain, false).await, 3).await;
        let demanded = hit(&open(signed, true).await, 3).await;
        println!("64 MiB from disk: not signed {none:?}, demanded first {demanded:?}");
    }
}
