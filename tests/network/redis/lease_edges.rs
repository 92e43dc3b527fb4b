//! Leases beside bad entries, remembered misses, lost replies and times without bounds.

use super::leases::{FOR_EVER, LEASE, compile, eventually, layers, lease, lease_key, machine};
use super::{artifact, key, writing};
use crate::support::redis::Redis;
use pipeline_cache::{
    CompileLease, CompileSource, LayeredPipelineCache, PipelineCacheStore, RedisCache, SharedSecret,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Waits until the machine waits for another, lets that store the artifact by `put`, and says where the
/// machine has it from.
async fn follows(
    machine: LayeredPipelineCache,
    granting: &RedisCache,
    held: CompileLease,
    put: impl Future<Output = ()>,
) -> CompileSource {
    let waiting = tokio::spawn(async move { compile(&machine, 1).await });
    eventually("it waits", || granting.metrics().awaited_compiles == 1).await;
    put.await;
    drop(held);
    waiting.await.unwrap()
}

/// Otherwise each machine compiles it, as long as the entry is there.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_the_tier_refuses_does_not_switch_off_the_lease_of_its_key() {
    for bad in ["of another team", "no frame"] {
        let Some(server) = Redis::start("") else {
            return;
        };
        let with = |secret| {
            let builder = writing().compile_leases(LEASE);
            let builder = builder.shared_secret(SharedSecret::new(secret));
            builder.build(server.url()).unwrap()
        };
        let (holder, waiter) = (with("one secret of a team"), with("one secret of a team"));
        let held = lease(&holder, 1).await;
        let name = format!("pipeline-cache:{}", key(1));
        match bad {
            "no frame" => drop(server.command(&["set", &name, "no frame"])),
            _ => {
                let other = with("another secret of others");
                other.put(&key(1), artifact(1)).await.unwrap();
            }
        }
        let put = async { holder.put(&key(1), artifact(1)).await.unwrap() };
        let source = follows(machine(waiter.clone()), &waiter, held, put).await;
        assert!(
            matches!(source, CompileSource::Cache(_)),
            "{bad}: {source:?}"
        );
    }
}

/// The artifact is too large for the tier that grants the lease, and another takes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_miss_does_not_hide_what_the_holder_stored() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let remembering = || writing().remember_misses_for(FOR_EVER);
    let granting = || {
        let builder = remembering().max_artifact_bytes(100).compile_leases(LEASE);
        builder.build(server.url()).unwrap()
    };
    let storing = || {
        let builder = remembering().key_prefix("large:");
        builder.build(server.url()).unwrap()
    };
    let (holder, waiter, store) = (granting(), granting(), storing());
    let held = lease(&holder, 1).await;
    let put = async { store.put(&key(1), artifact(1)).await.unwrap() };
    let machine = layers().tier(waiter.clone()).tier(storing()).build();
    let source = follows(machine, &waiter, held, put).await;
    assert!(matches!(source, CompileSource::Cache(_)), "{source:?}");
}

/// The first connection is cut when the server has granted the lease, and the next waits for a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_asked_for_again_by_its_holder_has_its_whole_time_again() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (is_cut, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let (cuts, opens, port) = (Arc::clone(&is_cut), Arc::clone(&gate), server.port);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        forward_until_cut(client, port, &cuts).await;
        let (client, _) = listener.accept().await.unwrap();
        opens.notified().await;
        forward_until_cut(client, port, &AtomicBool::new(false)).await;
    });
    let builder = writing().compile_leases(LEASE);
    let cache = builder.connect_timeout(FOR_EVER).build(&url).unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    is_cut.store(true, Ordering::SeqCst);
    let acquired = {
        let cache = cache.clone();
        tokio::spawn(async move { lease(&cache, 1).await })
    };
    let name = lease_key(1);
    eventually("it is granted", || {
        server.command(&["exists", &name]) == "1"
    })
    .await;
    assert_eq!(server.command(&["pexpire", &name, "20000"]), "1");
    gate.notify_one();
    let lease = acquired.await.unwrap();
    let left: u64 = server.command(&["pttl", &name]).parse().unwrap();
    assert!(left > 30_000, "{left}");
    drop(lease);
    cache.close(FOR_EVER).await.unwrap();
    assert_eq!(server.command(&["exists", &name]), "0");
}

/// A connection to a server, until a reply comes after the flag was set.
async fn forward_until_cut(mut client: TcpStream, server: u16, is_cut: &AtomicBool) {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
    let (mut said, mut replied) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            read = client.read(&mut said) => match read {
                Ok(1..) => server.write_all(&said[..read.unwrap()]).await.unwrap(),
                _ => return,
            },
            read = server.read(&mut replied) => match read {
                Ok(1..) if !is_cut.load(Ordering::SeqCst) => {
                    client.write_all(&replied[..read.unwrap()]).await.unwrap();
                }
                _ => return,
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_that_a_server_cannot_count_to_are_cut_short() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let builder = writing().time_to_live(Duration::MAX);
    let cache = builder.compile_leases(Duration::MAX).build(server.url());
    let cache = cache.unwrap();
    cache.put(&key(0), artifact(0)).await.unwrap();
    let held = lease(&cache, 1).await;
    let left = |name: &str| -> u64 { server.command(&["pttl", name]).parse().unwrap() };
    let day = 24 * 3600 * 1000;
    let of_entry = left(&format!("pipeline-cache:{}", key(0)));
    assert!(
        (99 * 365 * day..=100 * 365 * day).contains(&of_entry),
        "{of_entry}"
    );
    assert!((day / 2..=day).contains(&left(&lease_key(1))));
    drop(held);
}
