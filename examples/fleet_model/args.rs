//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

use crate::outage::{Down, Outage};
use crate::server_kind::ServerKind;

#[path = "../http_server/arguments.rs"]
#[expect(dead_code, reason = "the servers use the rest")]
mod arguments;

use arguments::{positive_seconds, seconds};

/// A model of a fleet of machines that share a cache: the library's layered store on each of them,
/// over modelled disks, networks and servers, on a clock that runs as fast as the model computes.
///
/// The same seed gives the same numbers.
#[derive(Debug, Parser)]
#[command(name = "fleet_model", verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All machines start within a few seconds, with all caches empty, as after an upgrade of the compiler
    Rollout(Rollout),
    /// A rollout in which the remote is down for a while
    Outage(OutageArgs),
    /// Four processes on a real remote, and the model of them beside it
    Real(RealArgs),
    /// One of these processes
    #[command(hide = true)]
    Member,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Rollout {
    /// Fleets of so many machines
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=20_000),
        default_value = "10,100,1000,10000")]
    pub(crate) machines: Vec<u32>,
    /// Servers that they share
    #[arg(
        long,
        value_name = "KIND,…",
        value_delimiter = ',',
        default_value = "cache_server"
    )]
    pub(crate) remote: Vec<ServerKind>,
    #[command(flatten)]
    pub(crate) site: Site,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct OutageArgs {
    /// How many machines the fleet has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000), default_value = "1000")]
    pub(crate) machines: u32,
    /// The server that they share
    #[arg(long, value_name = "KIND", default_value = "cache_server")]
    pub(crate) remote: ServerKind,
    /// When the outage begins
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) at: Duration,
    /// How long it lasts
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "60")]
    pub(crate) lasts: Duration,
    /// What the remote does meanwhile
    #[arg(long, value_name = "HOW", default_value = "hangs")]
    pub(crate) down: Down,
    #[command(flatten)]
    pub(crate) site: Site,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl OutageArgs {
    pub(crate) fn outage(&self) -> Outage {
        Outage {
            at: self.at,
            lasts: self.lasts,
            down: self.down,
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RealArgs {
    #[command(flatten)]
    pub(crate) server: RealServer,
    /// How many processes share it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64), default_value = "4")]
    pub(crate) processes: u32,
    /// Acquires no compile leases
    #[arg(long)]
    pub(crate) no_leases: bool,
    /// Compiles at a time in each process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), default_value = "4")]
    pub(crate) compile_places: u16,
    #[command(flatten)]
    pub(crate) load: Load,
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, ClapArgs, Serialize, Deserialize)]
#[group(required = true, multiple = false)]
pub(crate) struct RealServer {
    /// A Redis server that may be written to. Needs a build with the feature redis
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// The artifacts of a cache_server, as in http://127.0.0.1:8420/artifacts. The token that may write
    /// is read from CACHE_TOKEN
    #[arg(long, value_name = "URL")]
    pub(crate) remote: Option<String>,
}

/// The machines and their network.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Site {
    /// Machines on one edge, where there are edges
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), default_value = "100")]
    pub(crate) edge_of: u32,
    /// From a machine to the server that it asks, one way
    #[arg(long, value_name = "MS", value_parser = number, default_value = "0.25")]
    pub(crate) latency_ms: f64,
    /// What the network of each machine carries
    #[arg(long, value_name = "GBIT/S", value_parser = number, default_value = "1")]
    pub(crate) gigabits: f64,
    /// Compiles at a time on each machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), default_value = "4")]
    pub(crate) compile_places: u16,
}

/// What is asked for.
#[derive(Debug, Clone, ClapArgs, Serialize, Deserialize)]
pub(crate) struct Load {
    /// How many programs there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000), default_value = "1000")]
    pub(crate) programs: u32,
    /// The exponent of Zipf's law: the program in place n is asked for 1/n^EXPONENT times as often as
    /// the first
    #[arg(long, value_name = "EXPONENT", value_parser = number, default_value = "1")]
    pub(crate) zipf: f64,
    /// Requests a second of each machine, at random times
    #[arg(long, value_name = "N", value_parser = number, default_value = "1")]
    pub(crate) rate: f64,
    /// How long there are requests
    #[arg(long, value_name = "SECONDS", value_parser = number, default_value = "20")]
    pub(crate) seconds: f64,
    /// The time within which the machines start
    #[arg(long, value_name = "SECONDS", value_parser = number, default_value = "1")]
    pub(crate) start_within: f64,
    /// The median of the compile times, which are log-normal
    #[arg(long, value_name = "MS", value_parser = number, default_value = "185")]
    pub(crate) compile_ms: f64,
    /// Their sigma: the standard deviation of the logarithm
    #[arg(long, value_name = "SIGMA", value_parser = number, default_value = "0.8")]
    pub(crate) compile_sigma: f64,
    /// The median of the sizes of artifacts, which are log-normal and at most 1 MiB
    #[arg(long, value_name = "KIB", value_parser = number, default_value = "128")]
    pub(crate) artifact_kib: f64,
    /// Their sigma
    #[arg(long, value_name = "SIGMA", value_parser = number, default_value = "1")]
    pub(crate) artifact_sigma: f64,
    /// The number that all random choices follow from
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) seed: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Output {
    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Draws plots into this folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) plots: Option<PathBuf>,
}

/// One fleet.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) machines: usize,
    pub(crate) remote: ServerKind,
    pub(crate) leases: bool,
    /// How many machines have an edge in front of the remote, if any have.
    pub(crate) edge_of: Option<usize>,
    pub(crate) latency: Duration,
    pub(crate) gigabits: f64,
    pub(crate) compile_places: usize,
    pub(crate) outage: Option<Outage>,
}

impl Site {
    pub(crate) fn fleet(&self, machines: u32, remote: ServerKind) -> Fleet {
        Fleet {
            machines: machines as usize,
            remote,
            leases: false,
            edge_of: None,
            latency: Duration::from_secs_f64(self.latency_ms / 1e3),
            gigabits: self.gigabits,
            compile_places: self.compile_places.into(),
            outage: None,
        }
    }
}

/// A quantity: above nothing, and no more than a million.
pub(crate) fn number(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && number <= 1e6 => Ok(number),
        _ => Err("not a number above 0 and up to 1000000".to_owned()),
    }
}
