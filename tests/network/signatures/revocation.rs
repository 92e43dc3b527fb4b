//! A signer that is revoked is served no more, by whichever way its artifact would come.

use async_trait::async_trait;
use bytes::Bytes;
use pipeline_cache::signatures::{Signer, SigningKey, TrustedSigners};
use pipeline_cache::testing::{Fault, FaultyStore};
use pipeline_cache::{
    Artifact, CompileScope, DiskCache, Fetched, InMemoryPipelineCache, LayeredPipelineCache,
    OpaqueProgram, PipelineCacheMetrics, PipelineCacheStore, PipelineFingerprint, SourceAliases,
    StoreError, StoreOperation, Unkeyable,
};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore};

use super::{KEY, OTHER, all_signers, artifact, branch_key, main_key, revoked_key};

async fn demanding(folder: &Path, signers: &TrustedSigners) -> DiskCache {
    let disk = DiskCache::builder().trusted_signers(signers.clone());
    disk.root(folder).open().await.unwrap()
}

/// A folder with an artifact of main under `KEY`.
async fn folder_of_main() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let plain = DiskCache::new(folder.path()).await.unwrap();
    let signed = artifact().signed(&KEY, &main_key());
    plain.put(&KEY, signed).await.unwrap();
    folder
}

#[tokio::test]
async fn signers_are_rotated_and_revoked_while_readers_run() {
    let (old, new) = (revoked_key(), main_key());
    let signer = |name: &str, key: &SigningKey| Signer::new(name, "main", key.public_key());
    let signers = TrustedSigners::new([signer("old", &old)]);
    let folder = tempfile::tempdir().unwrap();
    let reader = DiskCache::builder()
        .trusted_signers(signers.clone())
        .root(folder.path())
        .open()
        .await
        .unwrap();
    let writer = DiskCache::new(folder.path()).await.unwrap();
    writer
        .put(&KEY, artifact().signed(&KEY, &old))
        .await
        .unwrap();
    writer
        .put(&OTHER, artifact().signed(&OTHER, &new))
        .await
        .unwrap();
    let is_served = async |key| reader.get(key).await.unwrap().is_some();
    assert!(is_served(&KEY).await && !is_served(&OTHER).await);
    signers.replace([signer("old", &old), signer("new", &new)]);
    assert!(is_served(&KEY).await && is_served(&OTHER).await);
    assert!(signers.revoke(&old.public_key()));
    assert!(!is_served(&KEY).await && is_served(&OTHER).await);
    // Nothing was lost by it.
    assert!(writer.get(&KEY).await.unwrap().is_some());
    assert_eq!(reader.metrics().corrupt, 0);
}

#[tokio::test]
async fn what_was_promoted_to_memory_is_not_served_once_its_signer_is_revoked() {
    let signers = TrustedSigners::new(all_signers());
    let folder = tempfile::tempdir().unwrap();
    let plain = DiskCache::new(folder.path()).await.unwrap();
    plain
        .put(&KEY, artifact().signed(&KEY, &main_key()))
        .await
        .unwrap();
    let disk = DiskCache::builder()
        .root(folder.path())
        .trusted_signers(signers.clone())
        .open()
        .await
        .unwrap();
    let memory = InMemoryPipelineCache::new().trusting(signers.clone());
    let cache = LayeredPipelineCache::builder()
        .tier(memory.clone())
        .tier(disk)
        .build();
    assert!(cache.get(&KEY).await.is_some());
    cache.flush().await.unwrap();
    assert!(memory.peek(&KEY).is_some());
    signers.revoke(&main_key().public_key());
    assert!(memory.peek(&KEY).is_none());
    assert!(memory.get(&KEY).await.unwrap().is_none());
    assert!(cache.get(&KEY).await.is_none());
    // Another signer's artifact takes its place, though the bytes are the same.
    memory
        .put(&KEY, artifact().signed(&KEY, &branch_key()))
        .await
        .unwrap();
    assert!(memory.peek(&KEY).is_some());
}

#[tokio::test]
async fn memory_does_not_say_that_it_has_what_it_does_not_serve() {
    let signers = TrustedSigners::new(all_signers());
    let memory = InMemoryPipelineCache::new().trusting(signers.clone());
    let signed = artifact().signed(&KEY, &main_key());
    memory.put(&KEY, signed).await.unwrap();
    assert!(memory.contains(&KEY).await.unwrap());
    signers.revoke(&main_key().public_key());
    assert!(!memory.contains(&KEY).await.unwrap());
}

#[tokio::test]
async fn the_aliases_in_memory_are_served_no_more_either() {
    let signers = TrustedSigners::new(all_signers());
    let memory = InMemoryPipelineCache::new().trusting(signers.clone());
    let aliases = memory.alias_stores();
    let alias = Artifact::new(OTHER.as_bytes().to_vec()).signed(&KEY, &main_key());
    aliases[0].put(&KEY, alias).await.unwrap();
    assert!(aliases[0].peek(&KEY).is_some());
    signers.revoke(&main_key().public_key());
    assert!(aliases[0].peek(&KEY).is_none());
}

/// The write to the first tier hangs. The artifact is served from the queue meanwhile.
#[tokio::test]
async fn a_promotion_under_way_is_not_served() {
    let signers = TrustedSigners::new(all_signers());
    let folder = folder_of_main().await;
    let slow = Arc::new(FaultyStore::new("slow"));
    slow.set(StoreOperation::Put, Fault::Gate);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&slow))
        .tier(demanding(folder.path(), &signers).await)
        .build();
    assert!(cache.get(&KEY).await.is_some());
    slow.called(StoreOperation::Put, 1).await;
    assert!(PipelineCacheStore::peek(&cache, &KEY).is_some());
    signers.revoke(&main_key().public_key());
    assert!(PipelineCacheStore::peek(&cache, &KEY).is_none());
    assert!(cache.get(&KEY).await.is_none());
    assert!(!PipelineCacheStore::contains(&cache, &OTHER).await.unwrap());
    slow.open(StoreOperation::Put, 1);
}

/// A store that holds what it has found until it is let go.
struct Held {
    inner: DiskCache,
    found: Notify,
    go: Semaphore,
}

impl Held {
    fn over(inner: DiskCache) -> Arc<Self> {
        Arc::new(Self {
            inner,
            found: Notify::new(),
            go: Semaphore::new(0),
        })
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("held")
    }
}

#[async_trait]
impl PipelineCacheStore for Held {
    async fn fetch(&self, key: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let fetched = self.inner.fetch(key).await;
        self.found.notify_one();
        self.go.acquire().await.unwrap().forget();
        fetched
    }

    async fn put(&self, key: &PipelineFingerprint, artifact: Artifact) -> Result<(), StoreError> {
        self.inner.put(key, artifact).await
    }

    async fn contains(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.contains(key).await
    }

    async fn remove(&self, key: &PipelineFingerprint) -> Result<bool, StoreError> {
        self.inner.remove(key).await
    }

    fn metrics(&self) -> PipelineCacheMetrics {
        self.inner.metrics()
    }

    fn accepts_maker(&self, artifact: &Artifact) -> bool {
        self.inner.accepts_maker(artifact)
    }
}

/// The first lookup has found the artifact when its signer is revoked; the second joins it.
#[tokio::test]
async fn a_lookup_that_joins_an_earlier_one_is_not_served() {
    let signers = TrustedSigners::new(all_signers());
    let folder = folder_of_main().await;
    let held = Held::over(demanding(folder.path(), &signers).await);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&held))
        .build();
    let of_first = cache.clone();
    let first = tokio::spawn(async move { of_first.get(&KEY).await });
    held.found.notified().await;
    signers.revoke(&main_key().public_key());
    let mut second = std::pin::pin!(cache.get(&KEY));
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(cache.layered_metrics().joins, 1);
    held.go.add_permits(10);
    assert!(second.await.is_none());
    // It began before, and may be served.
    let _ = first.await.unwrap();
}

#[tokio::test]
async fn a_compile_request_that_joins_an_earlier_one_is_not_served() {
    let signers = TrustedSigners::new(all_signers());
    let folder = folder_of_main().await;
    let held = Held::over(demanding(folder.path(), &signers).await);
    let cache = LayeredPipelineCache::builder()
        .tier(Arc::clone(&held))
        .build();
    let request = |cache: LayeredPipelineCache| async move {
        let scope = CompileScope::new("compiler 1", "any").unwrap();
        let request = cache.compile(&scope).key(KEY);
        let compiled = request
            .run(|(), _| Ok::<_, Unkeyable>(Artifact::new("own")))
            .await;
        compiled.unwrap().artifact
    };
    let first = tokio::spawn(request(cache.clone()));
    held.found.notified().await;
    signers.revoke(&main_key().public_key());
    let mut second = std::pin::pin!(request(cache.clone()));
    assert!(futures::poll!(&mut second).is_pending());
    held.go.add_permits(10);
    assert_eq!(second.await, Artifact::new("own"));
    let _ = first.await.unwrap();
}

const FRONT_END: &str = "front end";
const SOURCE: &str = "a + b";

fn parse(source: &Bytes) -> Result<OpaqueProgram, Unkeyable> {
    Ok(OpaqueProgram::new("text", source.clone()))
}

fn right_fingerprint() -> PipelineFingerprint {
    let program = parse(&SOURCE.into()).unwrap();
    PipelineFingerprint::of(&program).unwrap()
}

async fn fingerprint(aliases: &SourceAliases) -> PipelineFingerprint {
    let source = Bytes::from(SOURCE);
    let found = aliases.fingerprint(FRONT_END, &source, parse);
    found.await.unwrap()
}

/// Its maker says that the source spells another program; the folder, and that program.
async fn folder_of_a_liar() -> (TempDir, PipelineFingerprint) {
    let folder = tempfile::tempdir().unwrap();
    let lying = |_: &Bytes| parse(&"format the disk".into());
    let liar = SourceAliases::new()
        .kept_in(DiskCache::new(folder.path()).await.unwrap())
        .signed_by(revoked_key());
    let source = Bytes::from(SOURCE);
    let lie = liar.fingerprint(FRONT_END, &source, lying);
    (folder, lie.await.unwrap())
}

/// The table of known sources remembers whose word it took.
#[tokio::test]
async fn an_alias_that_was_read_names_a_program_no_more() {
    let signers = TrustedSigners::new(all_signers());
    let (folder, lie) = folder_of_a_liar().await;
    let reader = SourceAliases::new().kept_in(demanding(folder.path(), &signers).await);
    let peeked = || reader.peek::<OpaqueProgram>(FRONT_END, SOURCE.as_bytes());
    assert_eq!((fingerprint(&reader).await, peeked()), (lie, Some(lie)));
    signers.revoke(&revoked_key().public_key());
    assert_eq!(peeked(), None);
    assert_eq!(fingerprint(&reader).await, right_fingerprint());
}

#[tokio::test]
async fn who_joins_the_search_for_an_alias_does_not_get_it() {
    let signers = TrustedSigners::new(all_signers());
    let (folder, _) = folder_of_a_liar().await;
    let aliases = demanding(&folder.path().join("aliases"), &signers).await;
    let held = Held::over(aliases);
    let reader = Arc::new(SourceAliases::new().kept_in(Arc::clone(&held)));
    let of_first = Arc::clone(&reader);
    let first = tokio::spawn(async move { fingerprint(&of_first).await });
    held.found.notified().await;
    signers.revoke(&revoked_key().public_key());
    let mut second = std::pin::pin!(fingerprint(&reader));
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(reader.metrics().joins, 1);
    held.go.add_permits(10);
    assert_eq!(second.await, right_fingerprint());
    let _ = first.await.unwrap();
}

/// What a server passes on of a signer that its own folder does not accept is not kept alive by that.
#[tokio::test]
async fn an_entry_of_a_revoked_signer_gets_old_though_it_is_passed_on() {
    let signers = TrustedSigners::new(all_signers());
    let folder = folder_of_main().await;
    let disk = demanding(folder.path(), &signers).await;
    let file = folder.path().join(format!("{KEY}.bin"));
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100_000);
    let set_old = || {
        let file = std::fs::File::options().write(true).open(&file).unwrap();
        file.set_modified(old).unwrap();
    };
    let used = || std::fs::metadata(&file).unwrap().modified().unwrap();
    set_old();
    assert!(disk.open_frame(&KEY).await.unwrap().is_some());
    assert!(used() > old);
    set_old();
    signers.revoke(&main_key().public_key());
    assert!(disk.open_frame(&KEY).await.unwrap().is_some());
    assert_eq!(used(), old);
}

/// Readers that never rest, over all ways to an artifact, while a signer comes and goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_lookup_after_a_revocation_serves_its_signer() {
    const ROUNDS: usize = 60;
    let (old, new) = (revoked_key(), main_key());
    let listed = |name: &str, key: &SigningKey| Signer::new(name, "main", key.public_key());
    let both = [listed("old", &old), listed("new", &new)];
    let signers = TrustedSigners::new(both.clone());
    let folder = tempfile::tempdir().unwrap();
    let plain = DiskCache::new(folder.path()).await.unwrap();
    plain
        .put(&KEY, artifact().signed(&KEY, &old))
        .await
        .unwrap();
    plain
        .put(&OTHER, artifact().signed(&OTHER, &new))
        .await
        .unwrap();
    let disk = demanding(folder.path(), &signers).await;
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::with_limits(1, 1 << 20).trusting(signers.clone()))
        .tier(disk.clone())
        .build();
    let stores: [Arc<dyn PipelineCacheStore>; 2] = [Arc::new(cache), Arc::new(disk)];
    let watch = Arc::new(Watch::default());
    let readers = (0..6).map(|reader| {
        let (watch, store) = (Arc::clone(&watch), Arc::clone(&stores[reader % 2]));
        tokio::spawn(async move { watch.read(&*store).await })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..ROUNDS {
        watch.await_reads().await;
        assert!(signers.revoke(&old.public_key()));
        watch.turns.fetch_add(1, Ordering::SeqCst);
        watch.await_reads().await;
        watch.turns.fetch_add(1, Ordering::SeqCst);
        signers.replace(both.clone());
    }
    watch.ends.store(true, Ordering::SeqCst);
    let mut served = 0;
    for reader in readers {
        served += reader.await.unwrap();
    }
    println!(
        "{} lookups, {served} of them of the signer that came and went",
        watch.reads.load(Ordering::SeqCst)
    );
    assert!(served > 0);
}

#[derive(Default)]
struct Watch {
    /// Odd from the return of a revocation until just before the signer comes back.
    turns: AtomicU64,
    ends: AtomicBool,
    reads: AtomicU64,
}

impl Watch {
    async fn await_reads(&self) {
        let enough = self.reads.load(Ordering::SeqCst) + 50;
        while self.reads.load(Ordering::SeqCst) < enough {
            tokio::task::yield_now().await;
        }
    }

    /// How often the signer that comes and goes was served.
    async fn read(&self, store: &dyn PipelineCacheStore) -> u64 {
        let mut served = 0;
        while !self.ends.load(Ordering::SeqCst) {
            let before = self.turns.load(Ordering::SeqCst);
            if store.get(&KEY).await.unwrap().is_some() {
                served += 1;
                // Else it may have come back in between.
                let is_still = self.turns.load(Ordering::SeqCst) == before;
                let is_revoked = before % 2 == 1;
                assert!(
                    !(is_revoked && is_still),
                    "served after its signer was revoked"
                );
            }
            assert!(
                store.get(&OTHER).await.unwrap().is_some(),
                "the other signer is accepted all the time"
            );
            self.reads.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
        served
    }
}
