//! Compiles shaders from WGSL to SPIR-V past the cache and through it, and shows what caching did
//! and what it cost: `cargo run --release -p pipeline-cache-examples --example shader_build -- --help`.
//!
//! For the cache itself see `tiers.rs`, which builds it, `request.rs`, which calls it, and
//! `compiler.rs`, which names the scope of the keys.

mod args;
mod compiler;
mod pass;
mod passes;
mod programs;
mod progress;
mod report;
mod request;
mod serve;
mod sources;
mod tiers;
mod times;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use pipeline_cache::DiskCache;
use tempfile::TempDir;

use args::{Args, Worker};
use passes::Passes;
use programs::Shader;

/// All programs are valid and all artifacts are right.
const DONE: u8 = 0;
/// Some program is not valid, or some artifact is wrong.
const WRONG: u8 = 1;
/// It could not be done at all. Also what clap exits with.
const FAILED: u8 = 2;
/// What shells report of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

// It asks for one program at a time, so a second worker would only be one more thread to wake.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    tokio::select! {
        // In this order: signals are handled as ever until there is something to clean up.
        biased;
        done = run(&args) => match done {
            Ok(code) => code.into(),
            Err(error) if is_closed_pipe(&error) => DONE.into(),
            Err(error) => {
                eprintln!("error: {error:#}");
                FAILED.into()
            }
        },
        // The run has been dropped, and its folder with it. What may still be writing is not
        // waited for: there is nothing left to write to.
        () = interrupted() => std::process::exit(INTERRUPTED),
    }
}

/// Waits until somebody wants this program to end: the run's folder must not stay behind then.
#[cfg(unix)]
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => signal.recv().await,
            // This signal goes on ending the program at once.
            Err(_) => std::future::pending().await,
        }
    };
    let [interrupt, terminate, hangup] = kinds.map(wait);
    tokio::select! {
        _ = interrupt => {}
        _ = terminate => {}
        _ = hangup => {}
    }
}

/// Waits until somebody wants this program to end: the run's folder must not stay behind then.
#[cfg(not(unix))]
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending().await
    }
}

async fn run(args: &Args) -> Result<u8> {
    let sources = sources::read(&args.paths)?;
    let all = sources.len();
    let (shaders, rejected) = programs::load(sources);
    if let Some(worker) = &args.worker {
        return work(worker, &shaders).await;
    }
    if !rejected.is_empty() {
        report::rejected(&mut io::stderr().lock(), &rejected, all)?;
    }

    let passes = if shaders.is_empty() {
        Passes::default()
    } else {
        in_empty_folder(args, &shaders).await?
    };
    report::complaints(&mut io::stderr().lock(), &passes.passes)?;
    show(args, shaders.len(), &passes)?;

    let right = passes.passes.iter().all(|pass| pass.faults.is_empty());
    Ok(if right && rejected.is_empty() {
        DONE
    } else {
        WRONG
    })
}

/// Runs one pass for the process that started this one.
async fn work(worker: &Worker, shaders: &[Shader]) -> Result<u8> {
    let report = passes::work(worker, shaders).await?;
    serde_json::to_writer(io::stdout().lock(), &report)?;
    Ok(DONE)
}

/// Runs all passes in a folder of this run's own, so that the first of them finds nothing. The
/// folder is removed on every way out, unless it is to be kept.
async fn in_empty_folder(args: &Args, shaders: &[Shader]) -> Result<Passes> {
    let parent = cache_dir(args).await?;
    let folder = empty_folder(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    let passes = passes::run(args, shaders, folder.path()).await;
    let path = folder.path().to_owned();
    if args.keep {
        eprintln!("The artifacts are in {}", folder.keep().display());
    } else if let Err(error) = folder.close() {
        eprintln!("warning: cannot remove {}: {error}", path.display());
    }
    passes
}

fn empty_folder(parent: &std::path::Path) -> io::Result<TempDir> {
    std::fs::create_dir_all(parent)?;
    tempfile::Builder::new().prefix("run-").tempdir_in(parent)
}

async fn cache_dir(args: &Args) -> Result<PathBuf> {
    if let Some(folder) = &args.cache_dir {
        return Ok(folder.clone());
    }
    let user_cache = DiskCache::in_user_cache()
        .await
        .context("no folder to cache in; name one with --cache-dir")?;
    Ok(user_cache.root().join("shader_build"))
}

fn show(args: &Args, programs: usize, passes: &Passes) -> Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        report::json(&mut out, programs, passes)?;
    } else if programs > 0 {
        let of = match args.paths.as_slice() {
            [] => format!("The {programs} shaders of vello"),
            _ if programs == 1 => "1 program".to_owned(),
            _ => format!("{programs} programs"),
        };
        report::table(&mut out, &of, passes)?;
    }
    out.flush()?;
    Ok(())
}

/// Whether it is only that nobody reads the output any more, as under `| head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
