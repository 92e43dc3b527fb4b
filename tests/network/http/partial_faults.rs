//! Faults that concern some requests only: those of impatient callers, those for absent entries, or
//! writes. What they cost before, during and after, as a table, on a real nginx behind a real
//! haproxy. See `faults` for its scale.

use super::faults::{LOCATIONS, Site, artifact, eventually_put, key, remote};
use crate::support::fault_table::{SLACK, Scale, Times, scale};
use crate::support::haproxy::Haproxy;
use crate::support::nginx::Nginx;
use pipeline_cache::network::BreakerState;
use pipeline_cache::{PipelineCacheStore, RemoteCache, StoreErrorKind};
use std::time::{Duration, Instant};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_some_requests_costs_the_others_nothing() {
    let Some(nginx) = Nginx::start(LOCATIONS) else {
        return;
    };
    let Some(link) = Haproxy::start(nginx.port()) else {
        return;
    };
    let (site, scale) = (Site { nginx, link }, scale());
    println!("calls, median / worst in ms");
    println!(
        "| fault | before | while the breaker learns | once it is open | lookups of others during | back after |"
    );
    println!("|---|---|---|---|---|---|");
    for deadline in [50, 200, 900] {
        let deadline = Duration::from_millis(deadline);
        println!("{}", impatient_callers(&site, deadline, &scale).await);
    }
    println!("{}", forbidden_for_absent(&site, &scale).await);
    for fault in ["writes-429", "writes-500"] {
        println!("{}", refused_writes(&site, fault, &scale).await);
    }
}

async fn hits(remote: &RemoteCache, scale: &Scale) -> Times {
    let mut hits = Times::default();
    for _ in 0..scale.lookups {
        let got = hits.take(remote.get(&key(0))).await;
        assert_eq!(got.unwrap(), Some(artifact()));
    }
    hits
}

/// Lookups whose callers leave before the remote's own limits are over.
async fn impatient_callers(site: &Site, deadline: Duration, scale: &Scale) -> String {
    let remote = remote(site, scale);
    eventually_put(&remote, &key(0)).await;
    let before = hits(&remote, scale).await;
    site.link.set_fault("black-hole");
    let mut learning = Times::default();
    let began = Instant::now();
    while remote.breaker_state() == BreakerState::Closed {
        let asked = key(0);
        let lookup = timeout(deadline, remote.get(&asked));
        let got = learning.take(lookup).await;
        assert!(!matches!(got, Ok(Ok(_))), "nothing comes through");
        let most = Duration::from_secs(1) + 10 * deadline + SLACK;
        assert!(began.elapsed() < most, "{deadline:?}: never learnt");
    }
    let mut open = Times::default();
    for _ in 0..scale.lookups {
        open.take(remote.get(&key(0))).await.unwrap_err();
    }
    assert!(open.median() < Duration::from_millis(1), "{}", open.told());
    site.link.set_fault("none");
    let healing = Instant::now();
    let mut state = remote.watch_breaker();
    let most = scale.probe_interval.max(scale.attempt) + SLACK;
    let closed = timeout(most, state.wait_for(|state| *state == BreakerState::Closed));
    assert!(closed.await.is_ok(), "not healed within {most:?}");
    let back = healing.elapsed();
    hits(&remote, scale).await;
    format!(
        "| black-hole, callers wait {deadline:?} | {} | {} in {} lookups | {} | | {} ms |",
        before.told(),
        learning.told(),
        learning.0.len(),
        open.told(),
        back.as_millis(),
    )
}

async fn forbidden_for_absent(site: &Site, scale: &Scale) -> String {
    let remote = remote(site, scale);
    eventually_put(&remote, &key(0)).await;
    let before = hits(&remote, scale).await;
    site.link.set_fault("absent-403");
    let mut refused = Times::default();
    for number in 1..=scale.lookups {
        let error = refused.take(remote.get(&key(number))).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::PermissionDenied);
        assert_eq!(remote.breaker_state(), BreakerState::Closed);
    }
    let during = hits(&remote, scale).await;
    site.link.set_fault("none");
    let healing = Instant::now();
    assert_eq!(remote.get(&key(1)).await.unwrap(), None);
    format!(
        "| 403 for absent | {} | {} | stays closed | {} | {} ms |",
        before.told(),
        refused.told(),
        during.told(),
        healing.elapsed().as_millis(),
    )
}

async fn refused_writes(site: &Site, fault: &str, scale: &Scale) -> String {
    let remote = remote(site, scale);
    eventually_put(&remote, &key(0)).await;
    let mut before = Times::default();
    for _ in 0..scale.lookups {
        before.take(remote.put(&key(0), artifact())).await.unwrap();
    }
    site.link.set_fault(fault);
    let mut learning = Times::default();
    while remote.write_breaker_state() == BreakerState::Closed {
        let put = learning.take(remote.put(&key(0), artifact())).await;
        assert_eq!(put.unwrap_err().kind(), StoreErrorKind::Unavailable);
    }
    assert!(learning.worst() < scale.deadline + SLACK);
    let mut open = Times::default();
    for _ in 0..scale.lookups {
        open.take(remote.put(&key(0), artifact()))
            .await
            .unwrap_err();
    }
    assert!(open.median() < Duration::from_millis(1), "{}", open.told());
    let during = hits(&remote, scale).await;
    assert_eq!(remote.metrics().breaker_opened, 0, "{fault}");
    site.link.set_fault("none");
    let healing = Instant::now();
    let most = scale.probe_interval + SLACK;
    let written = timeout(most, eventually_put(&remote, &key(0))).await;
    assert!(written.is_ok(), "{fault}: not healed within {most:?}");
    format!(
        "| {fault} | {} | {} | {} | {} | {} ms |",
        before.told(),
        learning.told(),
        open.told(),
        during.told(),
        healing.elapsed().as_millis(),
    )
}
