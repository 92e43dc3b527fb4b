//! An object store tier on a real distributed store: SeaweedFS through its S3 gateway, well and on
//! its bad days.
//!
//! `PIPELINE_CACHE_LONG_TESTS=1` runs the cluster test at its full size: 2,000 artifacts, longer
//! faults.

use crate::support::seaweed::{ACCESS_KEY, BUCKET, Cluster, SECRET_KEY, Single, TURN};
use futures::future::join_all;
use pipeline_cache::network::BreakerPolicy;
use pipeline_cache::testing::check_conformance;
use pipeline_cache::{
    Artifact, Fetched, ObjectStoreCache, ObjectStoreCacheBuilder, PipelineCacheStore,
    PipelineFingerprint, StoreErrorKind,
};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(super) fn builder(endpoint: &str) -> ObjectStoreCacheBuilder {
    ObjectStoreCache::builder()
        .store_option("aws_endpoint", endpoint)
        .store_option("aws_allow_http", "true")
        .store_option("aws_region", "us-east-1")
        .store_option("aws_access_key_id", ACCESS_KEY)
        .store_option("aws_secret_access_key", SECRET_KEY)
        .writes()
}

pub(super) fn open(builder: ObjectStoreCacheBuilder, prefix: &str) -> ObjectStoreCache {
    builder.build(format!("s3://{BUCKET}/{prefix}")).unwrap()
}

fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// What belongs under a key, and under no other.
fn artifact(number: u64) -> Artifact {
    let mut payload = vec![0; 500 + (number * 7919 % 40_000) as usize];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"payload").update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut payload);
    Artifact::new(payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_conforms_on_s3() {
    let _turn = TURN.lock().await;
    let Some(server) = tokio::task::spawn_blocking(Single::start).await.unwrap() else {
        return;
    };
    let endpoint = &server.endpoint();
    let stores = AtomicU64::new(0);
    let on_s3 = || async {
        // A prefix of its own is an empty store.
        let prefix = format!("conforms/{}", stores.fetch_add(1, Ordering::Relaxed));
        let builder = builder(endpoint).max_artifact_bytes(4 << 20);
        Arc::new(open(builder, &prefix)) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(on_s3, &[SECRET_KEY]).await.unwrap();

    // What one client puts another gets, large enough to be split by the store, too.
    let (one, other) = (
        open(builder(endpoint), "team"),
        open(builder(endpoint), "team"),
    );
    for bytes in [0, 1, 4096, 9 << 20] {
        let artifact = Artifact::new(vec![7; bytes]);
        let key = key(bytes as u64);
        one.put(&key, artifact.clone()).await.unwrap();
        assert!(other.contains(&key).await.unwrap());
        assert_eq!(other.get(&key).await.unwrap(), Some(artifact));
    }
    assert!(one.remove(&key(1)).await.unwrap());
    assert!(!one.remove(&key(1)).await.unwrap());
    assert_eq!(other.fetch(&key(1)).await.unwrap(), Fetched::Miss);

    // The wrong key of the store is said as such, and not repeated.
    let stranger = builder(endpoint).store_option("aws_secret_access_key", "hunter2");
    let refused = open(stranger, "team").get(&key(0)).await.unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::PermissionDenied);
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
}

/// How long a lookup may take, all retries included, and what a loaded machine may add to it.
const DEADLINE: Duration = Duration::from_secs(3);
const SLACK: Duration = Duration::from_secs(1);
const TASKS: u64 = 64;

struct Load {
    gateways: Vec<ObjectStoreCache>,
    artifacts: Vec<Artifact>,
    stop: AtomicBool,
    /// Keys whose put was answered with success.
    accepted: Mutex<Vec<bool>>,
    hits: AtomicU64,
    misses: AtomicU64,
    failures: AtomicU64,
    puts: AtomicU64,
    lookups: Mutex<Vec<Duration>>,
    /// The most by which a timer was late.
    late: Mutex<Duration>,
}

impl Load {
    /// Reads and writes artifacts at random until told to stop.
    async fn run(self: Arc<Self>, task: u64) {
        let mut state = task.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        while !self.stop.load(Ordering::Relaxed) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = state % self.artifacts.len() as u64;
            let gateway = &self.gateways[(state >> 32) as usize % self.gateways.len()];
            if state >> 40 & 3 == 0 {
                self.put(gateway, number).await;
            } else {
                self.get(gateway, number).await;
            }
            // Whoever is answered at once by an open breaker lets others run.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn artifact(&self, number: u64) -> Artifact {
        self.artifacts[number as usize].clone()
    }

    /// Finds out by how much timers are late: what the machine takes from everybody.
    async fn watch_the_clock(self: Arc<Self>) {
        const TICK: Duration = Duration::from_millis(20);
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            tokio::time::sleep(TICK).await;
            let late = began.elapsed().saturating_sub(TICK);
            let mut latest = self.late.lock().unwrap();
            *latest = late.max(*latest);
        }
    }

    async fn put(&self, gateway: &ObjectStoreCache, number: u64) -> bool {
        let put = gateway
            .put(&key(number), self.artifact(number))
            .await
            .is_ok();
        if put {
            self.puts.fetch_add(1, Ordering::Relaxed);
            self.accepted.lock().unwrap()[number as usize] = true;
        }
        put
    }

    async fn get(&self, gateway: &ObjectStoreCache, number: u64) {
        let began = Instant::now();
        let got = gateway.get(&key(number)).await;
        let took = began.elapsed();
        self.lookups.lock().unwrap().push(took);
        let count = match got {
            Ok(Some(got)) => {
                assert!(
                    got.payload() == self.artifacts[number as usize].payload(),
                    "a wrong artifact"
                );
                &self.hits
            }
            Ok(None) => &self.misses,
            Err(_) => &self.failures,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// A line of the table, whose lookups all ended in time: their deadline, and as much as the
    /// machine kept them from running at the few points where they wait.
    fn tell(&self, phase: &str) {
        let mut lookups = std::mem::take(&mut *self.lookups.lock().unwrap());
        lookups.sort_unstable();
        let worst = lookups.last().copied().unwrap_or_default();
        let median = lookups.get(lookups.len() / 2).copied().unwrap_or_default();
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        println!(
            "{phase:>28}: {:>6} hits {:>6} misses {:>6} failures {:>6} puts; lookups: median {:>8.2} ms, worst {:>8.2} ms",
            take(&self.hits),
            take(&self.misses),
            take(&self.failures),
            take(&self.puts),
            median.as_secs_f64() * 1e3,
            worst.as_secs_f64() * 1e3,
        );
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        assert!(
            worst < DEADLINE + SLACK + 4 * late,
            "{phase}: a lookup took {worst:?}, where timers were at most {late:?} late"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_servers_gives_no_wrong_answer_and_none_too_late() {
    let _turn = TURN.lock().await;
    let long = std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some();
    let (artifacts, phase) = if long {
        (2000, Duration::from_secs(20))
    } else {
        (100, Duration::from_secs(1))
    };
    let Some(mut cluster) = tokio::task::spawn_blocking(Cluster::start).await.unwrap() else {
        return;
    };
    let gateway = |endpoint: &String| {
        let breaker = BreakerPolicy::default().probe_interval(Duration::from_millis(500));
        let builder = builder(endpoint).request_timeout(DEADLINE).breaker(breaker);
        open(builder.attempt_timeout(Duration::from_secs(1)), "team")
    };
    let load = Arc::new(Load {
        gateways: cluster.endpoints().iter().map(gateway).collect(),
        artifacts: (0..artifacts).map(artifact).collect(),
        stop: AtomicBool::new(false),
        accepted: Mutex::new(vec![false; artifacts as usize]),
        hits: AtomicU64::new(0),
        misses: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        puts: AtomicU64::new(0),
        lookups: Mutex::default(),
        late: Mutex::default(),
    });
    // Half of them are there when the trouble begins.
    for number in 0..artifacts / 2 {
        assert!(
            eventually(Duration::from_secs(60), || load
                .put(&load.gateways[0], number))
            .await,
            "the cluster took no artifact"
        );
    }
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| tokio::spawn(Arc::clone(&load).run(task)))
        .collect();
    let clock = tokio::spawn(Arc::clone(&load).watch_the_clock());
    tokio::time::sleep(phase).await;
    load.tell("well");

    cluster.volumes[0].kill();
    tokio::time::sleep(phase).await;
    load.tell("a volume server killed");

    let leader = cluster.leader().expect("the masters have a leader");
    cluster.masters[leader].kill();
    tokio::time::sleep(phase).await;
    load.tell("and the leader killed");

    cluster.volumes[1].freeze();
    tokio::time::sleep(phase).await;
    load.tell("and a volume server frozen");

    cluster.volumes[1].thaw();
    cluster.volumes[0].restart();
    cluster.masters[leader].restart();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.wait_for_volumes();
        cluster
    });
    let cluster = cluster.await.unwrap();
    tokio::time::sleep(phase).await;
    load.tell("healed");
    load.stop.store(true, Ordering::Relaxed);
    for ended in join_all(tasks.into_iter().chain([clock])).await {
        ended.unwrap();
    }

    // Whatever the cluster has accepted at any time is there, through either gateway.
    let accepted = load.accepted.lock().unwrap().clone();
    let mut readable = 0;
    for number in (0..artifacts).filter(|&number| accepted[number as usize]) {
        for gateway in &load.gateways {
            let there = || async {
                let got = gateway.get(&key(number)).await.ok().flatten();
                got.is_some_and(|got| got.payload() == load.artifact(number).payload())
            };
            assert!(
                eventually(Duration::from_secs(60), there).await,
                "{number} is lost"
            );
        }
        readable += 1;
    }
    println!("{readable} of {artifacts} artifacts were accepted, and all of them are readable");
    assert!(readable >= artifacts / 2);
    for gateway in &load.gateways {
        assert_eq!(gateway.metrics().corrupt, 0);
    }
    drop(cluster);
}

/// Whether it comes true within a time, asked again and again.
async fn eventually<F>(within: Duration, is_true: impl Fn() -> F + Send) -> bool
where
    F: Future<Output = bool> + Send,
{
    let deadline = Instant::now() + within;
    loop {
        if is_true().await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
