//! The cache and what it could be compared with, side by side in one run.
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml --bin peers
//! cargo run --release --manifest-path benches/Cargo.toml --bin peers -- --only disk --json
//! ```
//!
//! Rounds are interleaved (A B C A B C …), so that what else the machine does meets all alike. Trust
//! the ratios; times are of the machine and the day.

mod compile;
mod disk;
mod growth;
mod keys;
mod layered;
mod measure;
mod memory;
mod plot;
mod redis;
mod remote;
mod report;
mod runtime;
mod stall;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

use measure::Plan;
use report::{Form, Report};

#[derive(Debug, Parser)]
#[command(about = "Measures the cache beside its peers")]
struct Options {
    /// Only the cases whose name has this in it
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// A round of each, to see that all work; the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// One table in Markdown, goals that are missed in bold
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// A WebAssembly module to fingerprint
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
    /// Draw how cost grows as SVG files in this folder
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let plan = Plan::new(options.only.as_deref(), options.quick);
    let form = match (options.json, options.markdown) {
        (true, _) => Form::Json,
        (_, true) => Form::Markdown,
        _ => Form::Text,
    };
    let mut report = Report::new(form);
    growth::overhead(&plan, &mut report);
    memory::cases(&plan, &mut report);
    disk::cases(&plan, &mut report);
    layered::cases(&plan, &mut report);
    remote::cases(&plan, &mut report);
    redis::cases(&plan, &mut report);
    stall::cases(&plan, &mut report);
    keys::cases(&plan, options.wasm.as_deref(), &mut report);
    compile::cases(&plan, &mut report);
    growth::cases(&plan, options.plots.as_deref(), &mut report);
    report.finish();
    ExitCode::SUCCESS
}
