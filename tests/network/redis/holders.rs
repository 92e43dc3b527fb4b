//! What becomes of a lease whose holder is killed, or stopped.

use super::leases::{
    FOR_EVER, LEASE, compile, eventually, granting, granting_for, lease, lease_key, machine,
};
use super::{artifact, key};
use crate::support::redis::Redis;
use crate::support::signals::signal;
use pipeline_cache::{CompileSource, PipelineCacheStore};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const URL: &str = "PIPELINE_CACHE_TEST_REDIS";
/// The time to live of its leases, in milliseconds.
const TIME: &str = "PIPELINE_CACHE_TEST_LEASE";

/// Another process, which holds the lease of a key and stores the artifact when it is told to.
struct Holder {
    child: Child,
    commands: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Holder {
    fn start(server: &Redis, time: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "redis::holders::another_process", "--nocapture"])
            .env(URL, server.url())
            .env(TIME, time.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            commands: child.stdin.take().unwrap(),
            said: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// The next it says.
    fn says(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "it has ended");
            if let Some((_, said)) = line.trim_end().split_once('@') {
                return said.to_owned();
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What that process does. No test of its own.
#[tokio::test(flavor = "multi_thread")]
async fn another_process() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let time = std::env::var(TIME).unwrap().parse().unwrap();
    let cache = granting_for(&url, Duration::from_millis(time));
    let held = lease(&cache, 1).await;
    println!("@held");
    let told = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    assert_ne!(told.await.unwrap().unwrap(), 0);
    eventually("it has noticed", || cache.metrics().expired_leases == 1).await;
    cache.put(&key(1), artifact(1)).await.unwrap();
    drop(held);
    cache.close(FOR_EVER).await.unwrap();
    println!("@stored, expired {}", cache.metrics().expired_leases);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_killed_loses_its_lease() {
    let Some(server) = Redis::start("") else {
        return;
    };
    let mut holder = Holder::start(&server, LEASE);
    assert_eq!(holder.says(), "held");
    let redis = granting(&server.url());
    let cache = machine(redis.clone());
    let waiting = {
        let cache = cache.clone();
        tokio::spawn(async move { compile(&cache, 1).await })
    };
    eventually("it waits", || redis.metrics().awaited_compiles == 1).await;
    signal(&holder.child, "KILL");
    // The server ends it when its time is over, which here is soon.
    assert!(!waiting.is_finished());
    assert_eq!(server.command(&["pexpire", &lease_key(1), "100"]), "1");
    assert_eq!(waiting.await.unwrap(), CompileSource::Compiled);
    let metrics = cache.layered_metrics();
    assert_eq!(
        (metrics.tiers[1].leases_granted, metrics.unshared_compiles),
        (1, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_is_stopped_and_goes_on_notices_and_does_no_harm() {
    let Some(server) = Redis::start("") else {
        return;
    };
    // It may as well lose it before it is stopped.
    let mut holder = Holder::start(&server, Duration::from_secs(2));
    assert_eq!(holder.says(), "held");
    signal(&holder.child, "STOP");
    let cache = machine(granting(&server.url()));
    assert_eq!(compile(&cache, 1).await, CompileSource::Compiled);
    cache.flush().await.unwrap();
    // The next holder of the key keeps its lease when the first goes on and releases its own.
    assert!(granting(&server.url()).remove(&key(1)).await.unwrap());
    let next = granting(&server.url());
    let held = lease(&next, 1).await;
    signal(&holder.child, "CONT");
    writeln!(holder.commands, "store").unwrap();
    assert_eq!(holder.says(), "stored, expired 1");
    assert_eq!(server.command(&["exists", &lease_key(1)]), "1");
    assert_eq!(next.get(&key(1)).await.unwrap(), Some(artifact(1)));
    drop(held);
    assert_eq!(next.metrics().expired_leases, 0);
}
