//! One run of the model: a fleet that is cold everywhere, under load, and what comes of it.

use anyhow::Result;
use pipeline_cache::{CompileScope, SourceAliases};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::args::{Fleet, Load};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::machine::{Machine, Tiers, cache};
use crate::memory::Memory;
use crate::network::Wire;
use crate::outcome::Outcome;
use crate::remote::Remote;
use crate::server::Server;
use crate::tally::Tally;
use crate::workload::{Payloads, Workload};

/// How long writes behind may take after the last answer, and after an outage.
const SETTLING: Duration = Duration::from_secs(60);

/// From an edge to its origin, one way.
const EDGE_LATENCY: Duration = Duration::from_micros(500);
const EDGE_GIGABITS: f64 = 10.0;

/// Runs on a clock of its own, on this thread.
pub(crate) fn run(load: &Load, fleet: &Fleet) -> Result<Outcome> {
    let workload = Arc::new(Workload::new(load, Payloads::Short)?);
    let tally = Arc::new(Tally::new(workload.programs.len()));
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    let missing = runtime.block_on(play(fleet, &workload, &tally))?;
    Ok(Outcome::new(fleet, &tally, missing))
}

/// Returns how many programs that were compiled are not on the remote.
async fn play(fleet: &Fleet, workload: &Arc<Workload>, tally: &Arc<Tally>) -> Result<usize> {
    let clock = Clock::modelled();
    let origin = Arc::new(Server::origin(
        clock,
        fleet.remote,
        Arc::clone(workload),
        fleet.outage,
        Arc::clone(tally),
    ));
    let scope = Arc::new(CompileScope::new("modelled compiler", "modelled target")?);
    let aliases = Arc::new(SourceAliases::new());
    let mut edge = Arc::clone(&origin);
    let mut machines = JoinSet::new();
    // They are kept until the end, with the writes that they still owe the remote.
    let mut caches = Vec::new();
    for number in 0..fleet.machines {
        if fleet.edge_of.is_some_and(|group| number % group == 0) {
            let wire = Wire::new(EDGE_LATENCY, EDGE_GIGABITS);
            let origin = Arc::clone(&origin);
            edge = Arc::new(Server::edge(clock, Arc::clone(workload), wire, origin));
        }
        let remote = Remote::new(
            clock,
            Arc::clone(workload),
            Wire::new(fleet.latency, fleet.gigabits),
            Arc::clone(&edge),
            fleet.leases && fleet.remote.grants_leases(),
        );
        let tiers: Tiers = [
            Arc::new(Memory::new(Arc::clone(workload))),
            Arc::new(Disk::new(clock, Arc::clone(workload))),
            Arc::new(remote),
        ];
        let machine = Machine {
            clock,
            workload: Arc::clone(workload),
            tally: Arc::clone(tally),
            scope: Arc::clone(&scope),
            cache: cache(clock, tiers, Arc::clone(&aliases), fleet.compile_places),
        };
        caches.push(machine.clone());
        machines.spawn(machine.run(number));
    }
    machines.join_all().await;
    let outage_ends = fleet.outage.map_or(Duration::ZERO, |outage| outage.ends());
    let settled = clock.now().max(outage_ends) + SETTLING;
    clock.sleep_until(settled).await;
    let missing = tally.with(|counts| origin.missing(&counts.compiled));
    drop(caches);
    Ok(missing)
}
