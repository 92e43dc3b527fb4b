//! The bad days of a remote, one after the other, on a real nginx behind a real haproxy: what a
//! lookup costs before, during and after each, as a table.
//!
//! A fault is met in three steps. While the breaker learns, a lookup costs at most its deadline.
//! Once it is open, a lookup asks nobody. When the server is well again, hits come back within the
//! probe interval.
//!
//! `PIPELINE_CACHE_LONG_TESTS=1` makes ten times as many lookups, with the deadlines and intervals
//! of the defaults' order.

use crate::support::fault_table::{SLACK, Scale, Times, scale};
use crate::support::haproxy::Haproxy;
use crate::support::nginx::Nginx;
use pipeline_cache::network::{BreakerPolicy, BreakerState, RetryPolicy};
use pipeline_cache::{
    Artifact, DiskCache, Fetched, InMemoryPipelineCache, LayeredPipelineCache, PipelineCacheStore,
    PipelineFingerprint, RemoteCache,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

pub(super) const LOCATIONS: &str = "
    location /cache/ { dav_methods PUT DELETE; create_full_put_path on; }
    location /drip/cache/ { alias $folder/www/cache/; limit_rate 1; }
";

const FAULTS: [&str; 7] = [
    "down",
    "refuses",
    "reset",
    "black-hole",
    "freezes",
    "half-503",
    "drip",
];

/// A link and what stands behind it.
pub(super) struct Site {
    pub(super) nginx: Nginx,
    pub(super) link: Haproxy,
}

impl Site {
    fn begin(&mut self, fault: &str) {
        match fault {
            "down" => self.nginx.kill(),
            "refuses" => self.link.kill(),
            // Whatever is between the client and it: the connections stay, and nothing moves.
            "freezes" => self.link.freeze(),
            fault => self.link.set_fault(fault),
        }
    }

    fn end(&mut self, fault: &str) {
        match fault {
            "down" => self.nginx.restart(),
            "refuses" => self.link.restart(),
            "freezes" => self.link.thaw(),
            _ => self.link.set_fault("none"),
        }
    }
}

pub(super) fn key(number: u64) -> PipelineFingerprint {
    PipelineFingerprint::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

pub(super) fn artifact() -> Artifact {
    Artifact::new(vec![7; 4096])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_costs_a_deadline_while_it_is_new_and_nothing_after_that() {
    let scale = scale();
    let Some(nginx) = Nginx::start(LOCATIONS) else {
        return;
    };
    let Some(link) = Haproxy::start(nginx.port()) else {
        return;
    };
    let mut site = Site { nginx, link };
    println!(
        "lookup, median / worst in ms; deadline {:?}, attempt {:?}, probe interval {:?}",
        scale.deadline, scale.attempt, scale.probe_interval
    );
    println!(
        "| fault | before | while the breaker learns | once it is open | memory hits during | disk hits during | hits back after | after |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for fault in FAULTS {
        println!("{}", day(&mut site, fault, &scale).await);
    }
}

/// A day with one fault in it, as a row of the table.
async fn day(site: &mut Site, fault: &str, scale: &Scale) -> String {
    let remote = Arc::new(remote(site, scale));
    let mut state = remote.watch_breaker();
    eventually_put(&remote, &key(0)).await;

    let mut before = Times::default();
    for _ in 0..scale.lookups {
        let got = before.take(remote.get(&key(0))).await;
        assert_eq!(got.unwrap(), Some(artifact()), "{fault}");
    }

    site.begin(fault);
    let learning = learn(&remote, fault, scale).await;
    let is_open = remote.breaker_state() != BreakerState::Closed;
    // Half of the answers are right, and a retry finds one: no reason to leave the server alone.
    assert!(is_open || fault == "half-503", "{fault}");

    let mut open = Times::default();
    let asked_before = remote.metrics().short_circuited;
    for number in 0..scale.lookups {
        let got = open.take(remote.get(&key(number))).await;
        assert!(!is_open || got.is_err(), "{fault}");
    }
    if is_open {
        let unasked = remote.metrics().short_circuited - asked_before;
        assert_eq!(unasked, scale.lookups, "{fault}: a lookup asked the server");
        assert!(
            open.median() < Duration::from_millis(1),
            "{fault}: {}",
            open.told()
        );
    } else {
        assert!(
            open.worst() < scale.deadline + SLACK,
            "{fault}: {}",
            open.told()
        );
    }
    let (memory, disk) = local_hits(&remote, scale).await;

    site.end(fault);
    let healing = Instant::now();
    // A probe that began before the end may still have to fail.
    let most = scale.probe_interval.max(scale.attempt) + SLACK;
    let closed = timeout(most, state.wait_for(|state| *state == BreakerState::Closed));
    assert!(closed.await.is_ok(), "{fault}: not healed within {most:?}");
    let healed = healing.elapsed();
    let mut after = Times::default();
    for _ in 0..scale.lookups {
        let got = after.take(remote.get(&key(0))).await;
        assert_eq!(got.unwrap(), Some(artifact()), "{fault}");
    }
    format!(
        "| {fault} | {} | {} | {} | {} | {} | {} ms | {} |",
        before.told(),
        learning.told(),
        if is_open {
            open.told()
        } else {
            format!("stays closed: {}", open.told())
        },
        memory.told(),
        disk.told(),
        healed.as_millis(),
        after.told(),
    )
}

pub(super) fn remote(site: &Site, scale: &Scale) -> RemoteCache {
    let breaker = BreakerPolicy::default()
        .min_calls(scale.min_calls)
        .probe_interval(scale.probe_interval)
        .max_pause(scale.probe_interval);
    RemoteCache::builder()
        .no_proxy()
        .writes()
        .request_timeout(scale.deadline)
        .attempt_timeout(scale.attempt)
        .inactivity_timeout(scale.attempt)
        .connect_timeout(scale.attempt)
        .retry(RetryPolicy::default().base_delay(Duration::from_millis(10)))
        .breaker(breaker)
        .build(site.link.url("/cache"))
        .unwrap()
}

/// Lookups, of what is there and of what is not, until the breaker has seen enough of it.
async fn learn(remote: &RemoteCache, fault: &str, scale: &Scale) -> Times {
    let mut learning = Times::default();
    for number in 0..20 {
        if remote.breaker_state() != BreakerState::Closed {
            break;
        }
        let asked = key(number % 2);
        let got = learning.take(remote.fetch(&asked)).await;
        // Whatever the fault: never a wrong answer.
        match got {
            Ok(Fetched::Hit(got)) => assert_eq!((number % 2, got), (0, artifact()), "{fault}"),
            Ok(Fetched::Miss) => assert_eq!(number % 2, 1, "{fault}"),
            Ok(other) => panic!("{fault}: {other:?}"),
            Err(_) => {}
        }
    }
    let worst = learning.worst();
    assert!(worst < scale.deadline + SLACK, "{fault}: {worst:?}");
    learning
}

/// What hits of the tiers above cost while the remote is ill.
async fn local_hits(remote: &Arc<RemoteCache>, scale: &Scale) -> (Times, Times) {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(InMemoryPipelineCache::new());
    let disk = DiskCache::new(folder.path()).await.unwrap();
    for number in 0..scale.lookups {
        disk.put(&key(number), artifact()).await.unwrap();
    }
    let layers: Vec<Arc<dyn PipelineCacheStore>> = vec![
        Arc::clone(&memory) as _,
        Arc::new(disk),
        Arc::clone(remote) as _,
    ];
    let cache = LayeredPipelineCache::new(layers);
    let (mut from_disk, mut from_memory) = (Times::default(), Times::default());
    for number in 0..scale.lookups {
        let got = from_disk.take(cache.get(&key(number))).await;
        assert_eq!(got.unwrap(), artifact());
    }
    cache.flush().await.unwrap();
    let lookups = remote.metrics().lookups;
    for number in 0..scale.lookups {
        let got = from_memory.take(cache.get(&key(number))).await;
        assert_eq!(got.unwrap(), artifact());
    }
    assert_eq!(
        remote.metrics().lookups,
        lookups,
        "a memory hit asked the remote"
    );
    assert!(from_memory.median() < Duration::from_millis(1));
    assert!(from_disk.worst() < scale.deadline + SLACK);
    (from_memory, from_disk)
}

/// The link may still be closing what the last fault has left.
pub(super) async fn eventually_put(remote: &RemoteCache, key: &PipelineFingerprint) {
    for _ in 0..200 {
        if remote.put(key, artifact()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the link does not work");
}
