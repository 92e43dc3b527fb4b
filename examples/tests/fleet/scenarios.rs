//! Each backend with each scenario that it knows.

use crate::backend::Backend;
use crate::run::{HEAD, Scenario, run};
use std::sync::{Mutex, PoisonError};

/// A machine has room for one fleet.
static TURN: Mutex<()> = Mutex::new(());

fn is_long() -> bool {
    std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some()
}

/// Runs them one after the other, each on a server of its own. The first is what also runs without
/// `PIPELINE_CACHE_LONG_TESTS`.
fn run_all(start: impl Fn() -> Option<Backend>, scenarios: &[Scenario]) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (programs, scenarios) = match is_long() {
        true => (1000, scenarios),
        false => (60, &scenarios[..1]),
    };
    println!("{HEAD}");
    let mut rows = Vec::new();
    for scenario in scenarios {
        let Some(mut backend) = start() else {
            return;
        };
        let row = run(&mut backend, *scenario, programs);
        row.print();
        rows.push(row);
    }
    for row in rows {
        row.check();
    }
}

const ALL: [Scenario; 4] = [
    Scenario::Cold,
    Scenario::HolderKilled,
    Scenario::HolderStopped,
    Scenario::ServerFails,
];

#[test]
fn a_cold_fleet_on_a_cache_server_compiles_each_program_once() {
    run_all(|| Some(Backend::cache_server()), &ALL);
}

#[test]
fn a_cold_fleet_on_redis_compiles_each_program_once() {
    run_all(Backend::redis, &ALL);
}

#[test]
fn a_cold_fleet_on_s3_compiles_each_program_once() {
    run_all(Backend::seaweed, &ALL);
}

#[test]
fn a_fleet_outlives_the_failover_of_its_redis() {
    run_all(Backend::sentinels, &[Scenario::ServerFails]);
}

#[test]
fn a_fleet_outlives_a_network_that_loses_all_packets() {
    run_all(Backend::in_namespace, &[Scenario::ServerFails]);
}
