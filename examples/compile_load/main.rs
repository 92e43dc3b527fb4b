//! Loads one or more `compile_server`s with real shaders and shows what they answer: `cargo run
//! --release -p pipeline-cache-tools --example compile_load -- --help`.
//!
//! `clients.rs` sends the requests, `tally.rs` counts the answers and holds them against each
//! other.

mod args;
#[path = "../build_passes"]
mod build_passes {
    pub(crate) mod sources;
}
mod clients;
mod mix;
#[path = "../naga_compiler/mod.rs"]
#[expect(dead_code, reason = "nothing is compiled here")]
mod naga_compiler;
mod report;
mod spellings;
mod tally;
#[path = "../shader_build/sources.rs"]
mod vello;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use args::Args;
use build_passes::sources::read_files;
use mix::Mix;
use report::Report;

/// Some request failed, or some answer is wrong.
const FAULTS: u8 = 1;
/// Nothing could be measured. Also what clap exits with.
const FAILED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => FAULTS.into(),
        Err(error) => {
            let _ = writeln!(io::stderr(), "compile_load: {error:#}");
            FAILED.into()
        }
    }
}

/// Whether every request was answered, and rightly.
async fn run(args: Args) -> Result<bool> {
    let sources = match args.paths.as_slice() {
        [] => vello::vello(),
        paths => read_files(paths, "wgsl")?,
    };
    let mix = Mix::new(&sources, args.spellings, args.zipf)?;
    let (tally, elapsed) = clients::run(&args, mix).await?;
    let report = Report::new(&args, sources.len(), &tally, elapsed);
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
    }
    Ok(report.is_clean())
}
