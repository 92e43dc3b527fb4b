//! What the tier promises on a server that works, and for entries that are not as they should be.

use super::groups::{sentinels_of, url_of};
use super::{artifact, key, writing};
use crate::support::certificates::certificates;
use crate::support::real_server::installed;
use crate::support::redis::{Cluster, Redis};
use futures::FutureExt as _;
use futures::future::join_all;
use pipeline_cache::testing::check_conformance;
use pipeline_cache::{
    Artifact, Fetched, FrameError, PipelineCacheStore, RedisCache, RedisCacheBuilder, SharedSecret,
    StoreError, StoreErrorKind,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn kind<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

/// Checks all that a tier promises, on the servers of a URL.
async fn conforms(url: &str, builder: impl Fn() -> RedisCacheBuilder + Send + Sync) {
    static STORES: AtomicU64 = AtomicU64::new(0);
    let new_store = || async {
        // A prefix of its own is an empty store.
        let prefix = format!("conforms-{}:", STORES.fetch_add(1, Ordering::Relaxed));
        let store = builder().key_prefix(prefix).build(url).unwrap();
        Arc::new(store) as Arc<dyn PipelineCacheStore>
    };
    check_conformance(new_store, &["hunter2"]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_conforms_on_one_server() {
    let Some(server) = Redis::start("--requirepass hunter2") else {
        return;
    };
    let url = format!("redis://:hunter2@127.0.0.1:{}", server.port);
    conforms(&url, writing).await;
    conforms(&url, || writing().compile_leases(Duration::from_secs(60))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_conforms_behind_sentinels() {
    let Some(master) = Redis::start("") else {
        return;
    };
    let _replica = Redis::start(&format!("--replicaof 127.0.0.1 {}", master.port)).unwrap();
    let sentinels = sentinels_of(&master);
    conforms(&url_of(&sentinels), writing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_conforms_in_a_cluster() {
    let Some(cluster) = tokio::task::spawn_blocking(Cluster::start).await.unwrap() else {
        return;
    };
    conforms(&cluster.url(), writing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_client_puts_another_gets_until_it_is_removed() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let one = writing().build(server.url()).unwrap();
    let other = RedisCache::new(server.url()).unwrap();
    for bytes in [0, 1, 4096, 1 << 20] {
        let (key, artifact) = (key(bytes as u64), Artifact::new(vec![7; bytes]));
        assert_eq!(other.fetch(&key).await.unwrap(), Fetched::Miss);
        assert!(!other.contains(&key).await.unwrap());
        one.put(&key, artifact.clone()).await.unwrap();
        assert!(other.contains(&key).await.unwrap());
        assert_eq!(other.get(&key).await.unwrap(), Some(artifact));
    }
    assert!(one.remove(&key(1)).await.unwrap());
    assert!(!one.remove(&key(1)).await.unwrap());
    assert_eq!(other.fetch(&key(1)).await.unwrap(), Fetched::Miss);
    assert_eq!(
        kind(other.put(&key(1), artifact(1)).await),
        Some(StoreErrorKind::ReadOnly)
    );

    // Other caches, and the aliases, are not among them.
    let elsewhere = writing().key_prefix("elsewhere:").build(server.url());
    assert_eq!(
        elsewhere.unwrap().fetch(&key(0)).await.unwrap(),
        Fetched::Miss
    );
    let aliases = one.alias_stores();
    aliases[0].put(&key(2), artifact(2)).await.unwrap();
    assert_eq!(one.fetch(&key(2)).await.unwrap(), Fetched::Miss);
    assert_eq!(aliases[0].get(&key(2)).await.unwrap(), Some(artifact(2)));
}

/// One connection serves all: a reply that nobody takes must not become that of the next request.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_lookup_leaves_no_reply_to_the_next() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = writing()
        .max_abandoned_requests(0)
        .build(server.url())
        .unwrap();
    join_all((0..64).map(|number| {
        let cache = cache.clone();
        async move { cache.put(&key(number), artifact(number)).await.unwrap() }
    }))
    .await;
    let tasks = (0..8).map(|task: u64| {
        let cache = cache.clone();
        tokio::spawn(async move {
            for round in 0..200 {
                let number = (task * 31 + round * 7) % 64;
                let dropped = cache.clone();
                // Polled once and dropped, or a moment later, while its command is under way.
                let _ = async move { dropped.get(&key(number)).await }
                    .boxed()
                    .now_or_never();
                let key_of_late = key((number + 1) % 64);
                let late = cache.get(&key_of_late);
                let _ = tokio::time::timeout(Duration::from_micros(50 * (round % 8)), late).await;
                let next = (number + 2) % 64;
                assert_eq!(cache.get(&key(next)).await.unwrap(), Some(artifact(next)));
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(cache.metrics().corrupt, 0);
    assert_eq!(cache.metrics().errors, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_above_the_limit_is_passed_over_and_costs_no_flush() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = writing().build(server.url()).unwrap();
    assert_eq!(cache.max_artifact_bytes(), 1 << 20);
    let large = Artifact::new(vec![1; 3 << 19]);
    assert_eq!(
        kind(cache.put(&key(1), large.clone()).await),
        Some(StoreErrorKind::TooLarge)
    );
    assert_eq!(
        (cache.metrics().rejected_puts, cache.metrics().puts),
        (1, 0)
    );
    cache.flush().await.unwrap();

    // An entry of somebody with a larger limit is left where it is.
    let larger = writing()
        .max_artifact_bytes(2 << 20)
        .build(server.url())
        .unwrap();
    larger.put(&key(1), large.clone()).await.unwrap();
    assert_eq!(cache.fetch(&key(1)).await.unwrap(), Fetched::Refused);
    assert!(!cache.contains(&key(1)).await.unwrap());
    assert_eq!(larger.get(&key(1)).await.unwrap(), Some(large));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_lets_go_is_a_miss() {
    let Some(server) = Redis::start("--maxmemory 3mb --maxmemory-policy allkeys-lru") else {
        return;
    };
    let time = Duration::from_secs(3600);
    let cache = writing().time_to_live(time).build(server.url()).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    let name = format!("pipeline-cache:{}", key(0));
    let left: u64 = server.command(&["pttl", &name]).parse().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    assert_eq!(server.command(&["pexpire", &name, "0"]), "1");
    assert_eq!(cache.fetch(&key(0)).await.unwrap(), Fetched::Miss);

    for number in 0..1000 {
        cache.put(&key(number), artifact(number)).await.unwrap();
    }
    let mut found = 0;
    for number in 0..1000 {
        match cache.fetch(&key(number)).await.unwrap() {
            Fetched::Hit(hit) => {
                assert_eq!(hit, artifact(number));
                found += 1;
            }
            Fetched::Miss => {}
            other => panic!("{other:?}"),
        }
    }
    assert!((1..1000).contains(&found), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_artifact_is_not_served_and_is_replaced() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let cache = writing().build(server.url()).unwrap();
    let name = |number| format!("pipeline-cache:{}", key(number));
    server.command(&[
        "set",
        &name(0),
        "somebody's text, not a frame, long enough to be one",
    ]);
    server.command(&["rpush", &name(1), "a", "b"]);
    server.command(&["hset", &name(2), "field", "value"]);
    cache.put(&key(100), artifact(100)).await.unwrap();
    server.command(&["copy", &name(100), &name(3)]);
    cache.put(&key(4), artifact(4)).await.unwrap();
    server.command(&["setrange", &name(4), "300", "another byte"]);
    server.command(&["set", &name(5), ""]);

    let reasons = [
        FrameError::TooShort(51),
        FrameError::NotAFrame,
        FrameError::NotAFrame,
        FrameError::OtherFingerprint,
        FrameError::BadPayload,
    ];
    for (number, reason) in (0..).zip(reasons) {
        assert_eq!(
            cache.fetch(&key(number)).await.unwrap(),
            Fetched::Corrupt(reason)
        );
    }
    assert_eq!(cache.fetch(&key(5)).await.unwrap(), Fetched::Miss);
    for number in [1, 2, 5] {
        assert!(!cache.contains(&key(number)).await.unwrap(), "{number}");
    }
    for number in 0..6 {
        cache.put(&key(number), artifact(number)).await.unwrap();
        assert_eq!(
            cache.get(&key(number)).await.unwrap(),
            Some(artifact(number))
        );
    }
    let metrics = cache.metrics();
    assert_eq!((metrics.corrupt, metrics.errors), (5, 0));

    // What another secret signed stays with those who have it.
    let keyed = |secret| {
        let builder = writing().shared_secret(SharedSecret::new(secret));
        builder.build(server.url()).unwrap()
    };
    assert_eq!(
        keyed("one secret of the team")
            .fetch(&key(0))
            .await
            .unwrap(),
        Fetched::Refused
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_its_rules_say_and_no_more() {
    let Some(server) = Redis::start(
        "--user default off --user writer on >hunt/er2 ~pipeline-cache:* +getrange +strlen +set +del +select \
         --user admin on >any +info --user reader on >hunter3 ~pipeline-cache:* +getrange +strlen",
    ) else {
        return;
    };
    let url = |user: &str| format!("redis://{user}@127.0.0.1:{}", server.port);
    // Another database takes a command of its own.
    let elsewhere = format!("{}/1", url("writer:hunt%2Fer2"));
    let elsewhere = writing().build(elsewhere).unwrap();
    elsewhere.put(&key(9), artifact(9)).await.unwrap();
    let unselected = RedisCache::new(format!("{}/1", url("reader:hunter3"))).unwrap();
    let refused = kind(unselected.get(&key(1)).await);
    assert_eq!(refused, Some(StoreErrorKind::PermissionDenied));
    let writer = writing().build(url("writer:hunt%2Fer2")).unwrap();
    assert_eq!(writer.fetch(&key(9)).await.unwrap(), Fetched::Miss);
    writer.put(&key(1), artifact(1)).await.unwrap();
    assert!(writer.remove(&key(1)).await.unwrap());
    writer.put(&key(1), artifact(1)).await.unwrap();
    assert!(writer.contains(&key(1)).await.unwrap());

    // Its refused writes cost it no read.
    let reader = writing().build(url("reader:hunter3")).unwrap();
    assert_eq!(reader.get(&key(1)).await.unwrap(), Some(artifact(1)));
    for number in 0..20 {
        let refused = reader.put(&key(number), artifact(number)).await;
        assert_eq!(kind(refused), Some(StoreErrorKind::PermissionDenied));
    }
    assert_eq!(reader.get(&key(1)).await.unwrap(), Some(artifact(1)));

    // Nobody, and somebody else, are told so. The wrong password is not offered again and again.
    let nobody = RedisCache::new(server.url()).unwrap();
    assert_eq!(
        kind(nobody.get(&key(1)).await),
        Some(StoreErrorKind::PermissionDenied)
    );
    let stranger = RedisCache::new(url("writer:hunter4")).unwrap();
    for _ in 0..5 {
        let error = stranger.get(&key(1)).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::PermissionDenied);
        let said = format!("{error:#} {error:?} {stranger} {stranger:?}");
        assert!(!said.contains("hunter4"), "{said}");
    }
    let stats = ["--user", "admin", "--pass", "any", "info", "errorstats"];
    let stats = server.command(&stats);
    assert!(stats.contains("errorstat_WRONGPASS:count=1"), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_checked_and_a_client_may_show_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    if certificates(folder.path()).is_none() || installed("redis-server").is_none() {
        return;
    }
    let path = folder.path().display();
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let Some(server) = Redis::start(&format!(
        "--tls-port {{port}} --port 0 --tls-cert-file {path}/server.pem --tls-key-file {path}/server.key \
         --tls-ca-cert-file {path}/ca.pem --tls-auth-clients yes"
    )) else {
        return;
    };
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let identity = [read("client.pem"), read("client.key")].concat();
    let trusting = || writing().extra_root_certificates(read("ca.pem"));
    let shown = || trusting().client_certificate(identity.clone());
    let cache = shown().build(&url).unwrap();
    cache.put(&key(1), artifact(1)).await.unwrap();
    assert_eq!(cache.get(&key(1)).await.unwrap(), Some(artifact(1)));
    conforms(&url, shown).await;

    // A server that nobody vouches for, a client without a certificate, TLS where there is none.
    let stranger = writing().build(&url).unwrap();
    assert_eq!(
        kind(stranger.get(&key(1)).await),
        Some(StoreErrorKind::Protocol)
    );
    let unknown = trusting().build(&url).unwrap();
    assert!(kind(unknown.get(&key(1)).await).is_some());
    let plain = Redis::start("").unwrap();
    let plain = format!("rediss://127.0.0.1:{}", plain.port);
    assert!(kind(trusting().build(plain).unwrap().get(&key(1)).await).is_some());
}

#[test]
fn certificates_that_are_none_are_said_when_the_tier_is_built() {
    use pipeline_cache::RedisCacheError::{InvalidClientCertificate, InvalidRootCertificate};
    let error = writing()
        .extra_root_certificates("none")
        .build("rediss://h");
    assert_eq!(error.unwrap_err(), InvalidRootCertificate);
    let error = writing().client_certificate("none").build("rediss://h");
    assert_eq!(error.unwrap_err(), InvalidClientCertificate);
}
