//! A model of fleets of 10 to 10,000 machines that share a cache: `cargo run --release -p
//! pipeline-cache-tools --example fleet_model -- rollout`.
//!
//! `machine.rs` runs the library's layered store. `clock.rs`, `memory.rs`, `disk.rs`, `network.rs`,
//! `server.rs` and `remote.rs` are what is modelled around it. `real/` holds the model against processes.
//! `plots/` has what `rollout --plots` and `outage --seconds 90 --plots` draw; the guide of the library
//! has the tables, under "At scale".

mod args;
mod breaker;
mod chart;
mod clock;
mod disk;
mod lease_table;
mod leases;
mod machine;
mod memory;
mod network;
mod outage;
mod outcome;
mod plots;
mod programs;
mod real;
mod remote;
mod report;
mod scenario;
mod server;
mod server_kind;
mod tally;
mod workload;

use anyhow::Result;
use clap::Parser as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use args::{Args, Command, Fleet, OutageArgs, Output, Rollout};
use outcome::Outcome;
use report::Table;

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "fleet_model: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Rollout(args) => rollout(&args),
        Command::Outage(args) => outage(&args),
        Command::Real(args) => real::compare(&args),
        Command::Member => real::member::take_part(),
    }
}

fn rollout(args: &Rollout) -> Result<()> {
    let mut outcomes = Vec::new();
    for &remote in &args.remote {
        for &machines in &args.machines {
            let fleet = args.site.fleet(machines, remote);
            for leases in [false, true] {
                for edge_of in [None, Some(args.site.edge_of as usize)] {
                    let is_possible = !leases || remote.grants_leases();
                    if is_possible {
                        let fleet = Fleet {
                            leases,
                            edge_of,
                            ..fleet.clone()
                        };
                        outcomes.push(scenario::run(&args.load, &fleet)?);
                    }
                }
            }
        }
    }
    if let Some(folder) = &args.output.plots {
        plots::of_rollouts(&outcomes, folder)?;
    }
    print(&args.output, &outcomes)
}

fn outage(args: &OutageArgs) -> Result<()> {
    let mut outcomes = Vec::new();
    for leases in [false, true] {
        let fleet = Fleet {
            leases: leases && args.remote.grants_leases(),
            outage: Some(args.outage()),
            ..args.site.fleet(args.machines, args.remote)
        };
        outcomes.push(scenario::run(&args.load, &fleet)?);
    }
    if let Some(folder) = &args.output.plots {
        plots::of_outages(&outcomes, &args.outage(), folder)?;
    }
    print(&args.output, &outcomes)
}

fn print(output: &Output, outcomes: &[Outcome]) -> Result<()> {
    let mut out = io::stdout().lock();
    if output.json {
        serde_json::to_writer(&mut out, outcomes)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", Table(outcomes))?;
    }
    Ok(())
}
