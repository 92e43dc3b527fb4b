//! The bad days of Redis servers, one after the other: what a lookup costs before, during and after
//! each, as a table.
//!
//! A fault of a server is met in three steps, as that of a remote is. While the breaker learns, a
//! lookup costs at most its deadline. Once it is open, a lookup asks nobody. When the server is well
//! again, hits come back. A slow server is used as it is. A master that is lost is replaced by others,
//! and each lookup until then costs a deadline at most.
//!
//! `PIPELINE_CACHE_LONG_TESTS=1` makes ten times as many lookups, with the deadlines and intervals
//! of the defaults' order.

use super::groups::{sentinels_of, url_of};
use super::{artifact, key, writing};
use crate::support::fault_table::{SLACK, Scale, Times, scale};
use crate::support::faulty_link::{FaultyLink, LinkFault};
use crate::support::redis::{Cluster, Redis, wait_until};
use pipeline_cache::network::{BreakerPolicy, BreakerState, RetryPolicy};
use pipeline_cache::{Fetched, PipelineCacheStore, RedisCache};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// For others to take the place of a master that is lost.
const FAILOVER: Duration = Duration::from_secs(60);

const HEAD: &str = "| fault | before | while the breaker learns | once it is open | hits back after | after |\n|---|---|---|---|---|---|";

struct Site {
    server: Redis,
    link: FaultyLink,
}

impl Site {
    fn begin(&mut self, fault: &str) {
        match fault {
            "down" => self.server.kill(),
            "refuses" => self.link.set(LinkFault::Refuses),
            "hangs" => self.link.set(LinkFault::Hangs),
            "frozen" => self.server.freeze(),
            _ => self.link.set(LinkFault::Slow(Duration::from_millis(20))),
        }
    }

    async fn end(&mut self, fault: &str) {
        match fault {
            "down" => self.server.restart(),
            "frozen" => self.server.thaw(),
            _ => self.link.set(LinkFault::None),
        }
        if fault == "down" {
            // It keeps nothing.
            let filling = writing().build(self.server.url()).unwrap();
            filling.put(&key(0), artifact(0)).await.unwrap();
        }
    }
}

fn tier(url: &str, scale: &Scale) -> RedisCache {
    let breaker = BreakerPolicy::default()
        .min_calls(scale.min_calls)
        .probe_interval(scale.probe_interval)
        .max_pause(scale.probe_interval);
    writing()
        .request_timeout(scale.deadline)
        .attempt_timeout(scale.attempt)
        .inactivity_timeout(scale.attempt)
        .connect_timeout(scale.attempt)
        .retry(RetryPolicy::default().base_delay(Duration::from_millis(10)))
        .breaker(breaker)
        .build(url)
        .unwrap()
}

async fn hits(tier: &RedisCache, scale: &Scale, fault: &str) -> Times {
    let mut times = Times::default();
    for _ in 0..scale.lookups {
        let got = times.take(tier.get(&key(0))).await;
        assert_eq!(got.unwrap(), Some(artifact(0)), "{fault}");
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_a_server_costs_a_deadline_while_it_is_new_and_nothing_after_that() {
    let scale = scale();
    let Some(server) = Redis::start("") else {
        return;
    };
    let link = FaultyLink::to(server.port).await;
    let mut site = Site { server, link };
    println!(
        "lookup, median / worst in ms; deadline {:?}, attempt {:?}, probe interval {:?}\n{HEAD}",
        scale.deadline, scale.attempt, scale.probe_interval
    );
    for fault in ["down", "refuses", "hangs", "frozen", "slow"] {
        println!("{}", day(&mut site, fault, &scale).await);
    }
}

/// A day with one fault in it, as a row of the table.
async fn day(site: &mut Site, fault: &str, scale: &Scale) -> String {
    let url = format!("redis://127.0.0.1:{}", site.link.port);
    let tier = tier(&url, scale);
    tier.put(&key(0), artifact(0)).await.unwrap();
    let before = hits(&tier, scale, fault).await;

    site.begin(fault);
    let mut learning = Times::default();
    for number in 0..20 {
        if tier.breaker_state() != BreakerState::Closed {
            break;
        }
        // Whatever the fault: never a wrong answer.
        match learning.take(tier.fetch(&key(number % 2))).await {
            Ok(Fetched::Hit(got)) => assert_eq!((number % 2, got), (0, artifact(0)), "{fault}"),
            Ok(Fetched::Miss) => assert_eq!(number % 2, 1, "{fault}"),
            Ok(other) => panic!("{fault}: {other:?}"),
            Err(_) => {}
        }
    }
    assert!(learning.worst() < scale.deadline + SLACK, "{fault}");
    let is_open = tier.breaker_state() != BreakerState::Closed;
    assert_eq!(is_open, fault != "slow", "{fault}");
    let open = open_lookups(&tier, scale, fault).await;

    site.end(fault).await;
    let healing = Instant::now();
    let mut state = tier.watch_breaker();
    // A probe that began before the end may still have to fail.
    let most = scale.probe_interval.max(scale.attempt) + SLACK;
    let closed = timeout(most, state.wait_for(|state| *state == BreakerState::Closed));
    assert!(closed.await.is_ok(), "{fault}: not healed within {most:?}");
    let healed = healing.elapsed();
    let after = hits(&tier, scale, fault).await;
    row(fault, [&before, &learning, &open, &after], healed)
}

/// What lookups cost while the breaker is open. Those of a slow server are hits.
async fn open_lookups(tier: &RedisCache, scale: &Scale, fault: &str) -> Times {
    if fault == "slow" {
        return hits(tier, scale, fault).await;
    }
    let mut open = Times::default();
    let asked_before = tier.metrics().short_circuited;
    for number in 0..scale.lookups {
        open.take(tier.get(&key(number))).await.unwrap_err();
    }
    let unasked = tier.metrics().short_circuited - asked_before;
    assert_eq!(unasked, scale.lookups, "{fault}: a lookup asked the server");
    assert!(open.median() < Duration::from_millis(1), "{fault}");
    open
}

fn row(fault: &str, [before, learning, open, after]: [&Times; 4], healed: Duration) -> String {
    format!(
        "| {fault} | {} | {} | {} | {} ms | {} |",
        before.told(),
        learning.told(),
        open.told(),
        healed.as_millis(),
        after.told(),
    )
}

/// What lookups cost from the loss of a master on, until they are hits again.
async fn until_others_serve(tier: &RedisCache, scale: &Scale, fault: &str) -> (Times, Times) {
    let (mut asked, mut unasked) = (Times::default(), Times::default());
    let lost = Instant::now();
    loop {
        let is_closed = tier.breaker_state() == BreakerState::Closed;
        let times = match is_closed {
            true => &mut asked,
            false => &mut unasked,
        };
        // A miss is that of a replica that has not got it yet.
        if let Ok(Some(got)) = times.take(tier.get(&key(0))).await {
            assert_eq!(got, artifact(0), "{fault}");
            break;
        }
        assert!(lost.elapsed() < FAILOVER, "{fault}: not served by others");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(asked.worst() < scale.deadline + SLACK, "{fault}");
    (asked, unasked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_lost_costs_deadlines_until_others_serve_its_keys() {
    let scale = scale();
    let Some(mut master) = Redis::start("") else {
        return;
    };
    println!("until others serve: while the breaker learns, and once it is open\n{HEAD}");
    let replica = Redis::start(&format!("--replicaof 127.0.0.1 {}", master.port)).unwrap();
    let sentinels = sentinels_of(&master);
    let of_sentinels = tier(&url_of(&sentinels), &scale);
    of_sentinels.put(&key(0), artifact(0)).await.unwrap();
    wait_until("the replica", || replica.command(&["dbsize"]) == "1");
    let fault = "fail-over of Sentinel";
    let before = hits(&of_sentinels, &scale, fault).await;
    master.kill();
    let lost = Instant::now();
    let (asked, unasked) = until_others_serve(&of_sentinels, &scale, fault).await;
    let served = lost.elapsed();
    let after = hits(&of_sentinels, &scale, fault).await;
    println!(
        "{}",
        row(fault, [&before, &asked, &unasked, &after], served)
    );

    let cluster = tokio::task::spawn_blocking(Cluster::start).await.unwrap();
    let mut cluster = cluster.unwrap();
    let of_cluster = tier(&cluster.url(), &scale);
    of_cluster.put(&key(0), artifact(0)).await.unwrap();
    wait_until("the replica of the key", || {
        let sizes = cluster.nodes.iter().map(|node| node.command(&["dbsize"]));
        sizes.filter(|size| size == "1").count() == 2
    });
    let fault = "cluster node lost";
    let before = hits(&of_cluster, &scale, fault).await;
    let holds_it = |node: &&mut Redis| {
        node.command(&["dbsize"]) == "1" && node.command(&["role"]).starts_with("master")
    };
    cluster.nodes.iter_mut().find(holds_it).unwrap().kill();
    let lost = Instant::now();
    let (asked, unasked) = until_others_serve(&of_cluster, &scale, fault).await;
    let served = lost.elapsed();
    let after = hits(&of_cluster, &scale, fault).await;
    println!(
        "{}",
        row(fault, [&before, &asked, &unasked, &after], served)
    );
}
