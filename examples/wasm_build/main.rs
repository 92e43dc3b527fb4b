//! Compiles WebAssembly modules to native code past the cache and through it, and shows what
//! caching did and what it cost: `cargo run --release -p pipeline-cache-tools --features wasmtime
//! --example wasm_build -- --help`.
//!
//! The passes and their report are in `../build_passes`; `../wasmtime_compiler` names the scope of the keys.

mod args;
#[path = "../build_passes/mod.rs"]
mod build_passes;
mod change;
mod compiler;
#[path = "../function_store/mod.rs"]
mod function_store;
mod functions;
mod packages;
mod respell;
#[path = "../wasmtime_compiler/mod.rs"]
mod wasmtime_compiler;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use args::Args;
use build_passes::Build;
use build_passes::sources::read_files;
use wasmtime_compiler::Wasmtime;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    build_passes::exit_code(run(&args)).await
}

async fn run(args: &Args) -> Result<u8> {
    let paths = packages::find(&args.paths)?;
    let build = Build {
        compiler: Wasmtime::new()?,
        sources: read_files(&paths, "wasm")?,
        own: None,
        paths: &paths,
        options: &args.options,
    };
    build.run().await
}
