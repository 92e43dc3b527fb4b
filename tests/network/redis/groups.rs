//! Servers in company: behind Sentinels, and in a cluster.

use super::{artifact, impatient, key, writing};
use crate::support::redis::{Cluster, Redis, wait_until};
use pipeline_cache::network::BreakerPolicy;
use pipeline_cache::{Fetched, PipelineCacheStore, RedisCache, StoreErrorKind};
use std::time::{Duration, Instant};

/// Puts and gets artifacts until one passes for the whole round trip.
async fn works_again(cache: &RedisCache, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    for number in 1_000_000.. {
        let put = cache.put(&key(number), artifact(number)).await;
        if put.is_ok() && matches!(cache.get(&key(number)).await, Ok(Some(_))) {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {put:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three Sentinels that know the replica of a master, and each other.
pub(super) fn sentinels_of(master: &Redis) -> [Redis; 3] {
    let sentinels = [(); 3].map(|()| Redis::sentinel(master.port, 2).unwrap());
    wait_until("the Sentinels know the replica and each other", || {
        sentinels.iter().all(|sentinel| {
            let known = sentinel.command(&["sentinel", "master", "main"]);
            let lines: Vec<_> = known.lines().collect();
            let value = |name| {
                let at = lines.iter().position(|line| *line == name);
                at.map(|at| lines[at + 1])
            };
            value("num-slaves") == Some("1") && value("num-other-sentinels") == Some("2")
        })
    });
    sentinels
}

pub(super) fn url_of(sentinels: &[Redis; 3]) -> String {
    let ports = sentinels.each_ref().map(|sentinel| sentinel.port);
    let hosts = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    format!("redis-sentinel://{hosts}/main")
}

/// The client that asks them in turn would wait a second for the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_sentinel_that_hangs_does_not_hold_up_the_others() {
    let Some(master) = Redis::start("") else {
        return;
    };
    let _replica = Redis::start(&format!("--replicaof 127.0.0.1 {}", master.port)).unwrap();
    let sentinels = sentinels_of(&master);
    sentinels[0].freeze();
    let builder = impatient().connect_timeout(Duration::from_millis(900));
    let cache = builder.build(url_of(&sentinels)).unwrap();
    works_again(&cache, "past the Sentinel").await;
    sentinels[0].thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_holds_up_neither_the_opening_nor_the_keys_of_the_others() {
    let Some(cluster) = tokio::task::spawn_blocking(Cluster::start).await.unwrap() else {
        return;
    };
    let patient = BreakerPolicy::default().min_calls(10_000);
    let builder = || {
        impatient()
            .breaker(patient)
            .connect_timeout(Duration::from_secs(8))
    };
    let before = builder().build(cluster.url()).unwrap();
    let node = writing().build(cluster.nodes[0].url()).unwrap();
    let (mut of_node, mut of_others) = (Vec::new(), Vec::new());
    for number in 0..60 {
        before.put(&key(number), artifact(number)).await.unwrap();
        match node.get(&key(number)).await {
            Ok(_) => of_node.push(number),
            Err(_) => of_others.push(number),
        }
    }
    assert!(!of_node.is_empty() && !of_others.is_empty());
    cluster.nodes[0].freeze();
    // Its check fails, and the connection is used all the same.
    before.get(&key(of_node[0])).await.unwrap_err();
    let calls = of_others.iter().map(|number| (&before, number));
    let after = builder().attempt_timeout(Duration::from_secs(20));
    let after = after.request_timeout(Duration::from_secs(20));
    let after = after.inactivity_timeout(Duration::from_secs(20));
    let after = after.build(cluster.url()).unwrap();
    for (cache, number) in calls.chain(of_others.iter().map(|number| (&after, number))) {
        let got = cache.get(&key(*number)).await.unwrap();
        assert_eq!(got, Some(artifact(*number)));
    }
    cluster.nodes[0].thaw();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_that_the_sentinels_name_is_used_also_after_a_failover() {
    let Some(mut master) = Redis::start("") else {
        return;
    };
    let replica = Redis::start(&format!("--replicaof 127.0.0.1 {}", master.port)).unwrap();
    let sentinels = sentinels_of(&master);
    let url = url_of(&sentinels);
    let cache = impatient().build(&url).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    assert_eq!(cache.get(&key(0)).await.unwrap(), Some(artifact(0)));
    assert_eq!(master.command(&["dbsize"]), "1");
    wait_until("the replica", || replica.command(&["dbsize"]) == "1");

    master.kill();
    works_again(&cache, "after a failover").await;
    // Served by the server that was the replica, with what it had.
    assert_eq!(cache.get(&key(0)).await.unwrap(), Some(artifact(0)));
    assert!(replica.command(&["role"]).starts_with("master"));

    let unknown = url.replace("/main", "/other");
    let error = impatient().build(unknown).unwrap().get(&key(0)).await;
    assert_eq!(error.unwrap_err().kind(), StoreErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_serves_from_all_its_nodes_also_after_one_dies() {
    let Some(mut cluster) = tokio::task::spawn_blocking(Cluster::start).await.unwrap() else {
        return;
    };
    let cache = impatient().build(cluster.url()).unwrap();
    for number in 0..200 {
        cache.put(&key(number), artifact(number)).await.unwrap();
        assert!(cache.contains(&key(number)).await.unwrap());
    }
    for number in 0..200 {
        assert_eq!(
            cache.get(&key(number)).await.unwrap(),
            Some(artifact(number))
        );
    }
    assert!(cache.remove(&key(199)).await.unwrap());
    let sizes = cluster.nodes.iter().map(|node| node.command(&["dbsize"]));
    assert!(sizes.filter(|size| size != "0").count() >= 3);

    // As one server, it serves the keys of one node, and says of the others what to do.
    let single = writing().build(cluster.nodes[0].url()).unwrap();
    let mut moved = 0;
    for number in 0..50 {
        match single.fetch(&key(number)).await {
            Ok(found) => assert_eq!(found, Fetched::Hit(artifact(number))),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Protocol);
                assert!(
                    format!("{error:#}").contains("redis-cluster://"),
                    "{error:#}"
                );
                moved += 1;
            }
        }
    }
    assert!((1..50).contains(&moved), "{moved}");

    wait_until("the replicas", || {
        let sizes = cluster.nodes.iter().map(|node| node.command(&["dbsize"]));
        sizes.map(|size| size.parse::<u64>().unwrap()).sum::<u64>() == 2 * 199
    });
    let master = cluster
        .nodes
        .iter()
        .position(|node| node.command(&["role"]).starts_with("master"));
    cluster.nodes[master.unwrap()].kill();
    let deadline = Instant::now() + Duration::from_secs(30);
    for number in 0..199 {
        // The keys of the other nodes are served all the while, unless the breaker is open.
        while cache.get(&key(number)).await.ok().flatten() != Some(artifact(number)) {
            assert!(Instant::now() < deadline, "{number}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    works_again(&cache, "after a master died").await;
}
