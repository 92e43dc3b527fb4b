//! Compiles shaders from WGSL to SPIR-V past the cache and through it, and shows what caching did
//! and what it cost: `cargo run --release -p pipeline-cache-tools --example shader_build -- --help`.
//!
//! The passes and their report are in `../build_passes`; `../naga_compiler` names the scope of the keys.

mod args;
#[path = "../build_passes/mod.rs"]
mod build_passes;
mod compiler;
#[path = "../naga_compiler/mod.rs"]
mod naga_compiler;
mod sources;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use args::Args;
use build_passes::Build;
use build_passes::sources::read_files;
use compiler::Naga;

// It asks for one program at a time, so a second worker would only be one more thread to wake.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    build_passes::exit_code(run(&args)).await
}

async fn run(args: &Args) -> Result<u8> {
    let (sources, own) = match args.paths.as_slice() {
        [] => (sources::vello(), Some("shaders of vello")),
        paths => (read_files(paths, "wgsl")?, None),
    };
    let build = Build {
        compiler: Naga::new()?,
        sources,
        own,
        paths: &args.paths,
        options: &args.options,
    };
    build.run().await
}
