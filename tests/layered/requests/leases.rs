//! What a tier that grants compile leases costs a request: its budget once, and never another tier's
//! lease.

use super::support::{MS, key};
use async_trait::async_trait;
use pipeline_cache::store::answer_begins;
use pipeline_cache::{
    Artifact, CompileLease, CompileLeases, CompileSource, Fetched, InMemoryPipelineCache,
    LayeredPipelineCache, LayeredPipelineCacheBuilder, Locality, PipelineCacheMetrics,
    PipelineCacheStore, PipelineFingerprint, StoreError, StoreErrorKind, StoreOperation,
};
use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How a tier answers.
#[derive(Debug, Clone, Copy)]
enum Leases {
    /// After this time.
    Granted(Duration),
    /// After this time, of which the tier says at once that another process holds it.
    Awaited(Duration),
    Hang,
    Fail,
}

#[derive(Debug, Clone, Copy)]
enum Lookups {
    Miss,
    /// The first misses, and all others hang.
    MissAndHang,
    /// The first miss is remembered.
    Remembered,
}

#[derive(Debug)]
struct Granter {
    name: &'static str,
    locality: Locality,
    leases: Leases,
    lookups: Lookups,
    asked: AtomicUsize,
    fetched: AtomicUsize,
    is_remembered: AtomicBool,
    held: Mutex<Weak<()>>,
}

impl Granter {
    fn new(name: &'static str, locality: Locality, leases: Leases, lookups: Lookups) -> Arc<Self> {
        Arc::new(Self {
            name,
            locality,
            leases,
            lookups,
            asked: AtomicUsize::new(0),
            fetched: AtomicUsize::new(0),
            is_remembered: AtomicBool::new(false),
            held: Mutex::default(),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn is_held(&self) -> bool {
        self.held.lock().unwrap().strong_count() > 0
    }
}

impl std::fmt::Display for Granter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[async_trait]
impl PipelineCacheStore for Granter {
    async fn fetch(&self, _: &PipelineFingerprint) -> Result<Fetched, StoreError> {
        let is_first = self.fetched.fetch_add(1, Ordering::SeqCst) == 0;
        match self.lookups {
            Lookups::Miss => Ok(Fetched::Miss),
            Lookups::MissAndHang if is_first => Ok(Fetched::Miss),
            Lookups::MissAndHang => pending().await,
            Lookups::Remembered if is_first => {
                self.is_remembered.store(true, Ordering::SeqCst);
                Ok(Fetched::Miss)
            }
            Lookups::Remembered if self.is_remembered.load(Ordering::SeqCst) => Ok(Fetched::Miss),
            Lookups::Remembered => Ok(Fetched::Hit(Artifact::new("of another"))),
        }
    }
    async fn put(&self, _: &PipelineFingerprint, _: Artifact) -> Result<(), StoreError> {
        Ok(())
    }
    async fn contains(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn remove(&self, _: &PipelineFingerprint) -> Result<bool, StoreError> {
        Ok(false)
    }
    fn compile_leases(&self) -> Option<&dyn CompileLeases> {
        Some(self)
    }
    fn forget_miss(&self, _: &PipelineFingerprint) {
        self.is_remembered.store(false, Ordering::SeqCst);
    }
    fn metrics(&self) -> PipelineCacheMetrics {
        PipelineCacheMetrics::default()
    }
    fn locality(&self) -> Locality {
        self.locality
    }
}

#[async_trait]
impl CompileLeases for Granter {
    async fn compile_lease(
        &self,
        _: &PipelineFingerprint,
    ) -> Result<Option<CompileLease>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.leases {
            Leases::Granted(after) => sleep(after).await,
            Leases::Awaited(time) => {
                answer_begins();
                sleep(time).await;
            }
            Leases::Hang => pending().await,
            Leases::Fail => {
                let (kind, operation) = (StoreErrorKind::Io, StoreOperation::CompileLease);
                return Err(StoreError::new(kind, self.name.to_owned(), operation));
            }
        }
        let hold = Arc::new(());
        *self.held.lock().unwrap() = Arc::downgrade(&hold);
        Ok(Some(CompileLease::new(hold)))
    }
}

fn layers() -> LayeredPipelineCacheBuilder {
    LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new())
}

async fn compile(cache: &LayeredPipelineCache) -> (CompileSource, Duration) {
    let began = Instant::now();
    let compile = || async { Ok::<_, Infallible>(Artifact::new("compiled")) };
    let compiled = cache.get_or_insert_with(&key(1), compile).await.unwrap();
    (compiled.source, began.elapsed())
}

use Locality::{Local, Network};

#[tokio::test(start_paused = true)]
async fn the_search_after_a_wait_has_the_budget_and_not_the_deadline_of_a_lookup() {
    let lease = Leases::Awaited(Duration::from_secs(5));
    let server = Granter::new("server", Network, lease, Lookups::MissAndHang);
    let cache = layers().tier(Arc::clone(&server)).build();
    let (source, took) = compile(&cache).await;
    assert_eq!(source, CompileSource::Compiled);
    assert!(
        server.fetched.load(Ordering::SeqCst) > 1,
        "it was looked for"
    );
    let most = Duration::from_secs(5) + 250 * MS + 20 * MS;
    assert!(took >= Duration::from_secs(5) && took < most, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn servers_that_hang_share_one_budget_and_none_is_asked_without() {
    let servers = ["a", "b"].map(|name| Granter::new(name, Network, Leases::Hang, Lookups::Miss));
    let with = |budget| {
        let [one, two] = servers.clone();
        layers().tier(one).tier(two).network_budget(budget).build()
    };
    let (source, took) = compile(&with(250 * MS)).await;
    assert_eq!(source, CompileSource::Compiled);
    assert!(took >= 250 * MS && took < 270 * MS, "{took:?}");
    assert_eq!((servers[0].asked(), servers[1].asked()), (1, 0));

    let (source, took) = compile(&with(Duration::ZERO)).await;
    assert_eq!(source, CompileSource::Compiled);
    assert!(took < 10 * MS, "{took:?}");
    assert_eq!((servers[0].asked(), servers[1].asked()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_took_to_grant_is_not_there_for_the_next_and_a_wait_for_a_holder_is() {
    for (lease, expected) in [
        (Leases::Granted(200 * MS), 250 * MS),
        (Leases::Awaited(3000 * MS), 3250 * MS),
    ] {
        let grants = Granter::new("a", Network, lease, Lookups::Miss);
        let hangs = Granter::new("b", Network, Leases::Hang, Lookups::Miss);
        let cache = layers().tier(grants).tier(Arc::clone(&hangs)).build();
        let (_, took) = compile(&cache).await;
        assert!(
            took >= expected && took < expected + 20 * MS,
            "{lease:?}: {took:?}"
        );
        assert_eq!(hangs.asked(), 1);
    }
}

/// The compile is shared on this machine, whatever becomes of the fleet's server.
#[tokio::test(start_paused = true)]
async fn a_server_that_fails_in_a_nested_store_costs_no_lease_of_its_folder() {
    for fault in [Leases::Fail, Leases::Hang] {
        let folder = Granter::new(
            "folder",
            Local,
            Leases::Granted(Duration::ZERO),
            Lookups::Miss,
        );
        let server = Granter::new("server", Network, fault, Lookups::Miss);
        let nested = layers().tier(Arc::clone(&folder)).tier(server).build();
        let lease = CompileLeases::compile_lease(&nested, &key(1)).await;
        let lease = lease.unwrap().unwrap();
        assert!(folder.is_held(), "{fault:?}");
        assert_eq!(nested.layered_metrics().unshared_compiles, 1);
        drop(lease);
        assert!(!folder.is_held());

        let outer = layers().tier(nested).build();
        let compile = move || async move {
            assert!(folder.is_held(), "{fault:?}");
            Ok::<_, Infallible>(Artifact::new("compiled"))
        };
        outer.get_or_insert_with(&key(1), compile).await.unwrap();
    }
    // Where no tier grants one, the store above is told.
    let server = Granter::new("server", Network, Leases::Fail, Lookups::Miss);
    let nested = layers().tier(server).build();
    let failed = CompileLeases::compile_lease(&nested, &key(1)).await;
    assert_eq!(failed.unwrap_err().kind(), StoreErrorKind::Io);
}

/// Otherwise the store above gives it up when its budget is over.
#[tokio::test(start_paused = true)]
async fn a_wait_in_a_nested_store_is_known_to_the_store_above() {
    let lease = Leases::Awaited(Duration::from_secs(5));
    let server = Granter::new("server", Network, lease, Lookups::Miss);
    let nested = LayeredPipelineCache::new([server as _]);
    let outer = layers().tier(nested).build();
    let (_, took) = compile(&outer).await;
    assert!(took >= Duration::from_secs(5), "{took:?}");
    assert_eq!(outer.layered_metrics().tiers[1].leases_granted, 1);
}

/// The holder stored the artifact in a tier that does not grant the lease.
#[tokio::test(start_paused = true)]
async fn a_miss_that_a_tier_remembers_does_not_hide_what_the_holder_stored() {
    let lease = Leases::Awaited(Duration::from_secs(1));
    for is_nested in [false, true] {
        let server = Granter::new("server", Network, lease, Lookups::Miss);
        let other = Granter::new("store", Network, Leases::Fail, Lookups::Remembered);
        let other: Arc<dyn PipelineCacheStore> = match is_nested {
            false => other,
            true => Arc::new(LayeredPipelineCache::new([other as _])),
        };
        let cache = layers().tier(server).tier(other).build();
        let (source, _) = compile(&cache).await;
        assert!(matches!(source, CompileSource::Cache(_)), "{source:?}");
        assert_eq!(cache.layered_metrics().compiles, 0);
    }
}
