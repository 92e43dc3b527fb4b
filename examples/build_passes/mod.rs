//! Builds programs past a cache and through it, and shows what caching did and what it cost: the
//! part of `shader_build` that is the same whatever is compiled.
//!
//! For the cache itself see `tiers.rs`, which builds it, and `request.rs`, which calls it. Each
//! program brings its `Compiler`, which names the scope of the keys.

pub(crate) mod compiler;
pub(crate) mod options;
pub(crate) mod own;
pub(crate) mod pass;
mod passes;
pub(crate) mod programs;
mod progress;
mod report;
mod request;
mod serve;
pub(crate) mod sources;
pub(crate) mod tiers;
mod times;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use pipeline_cache::DiskCache;
use tempfile::TempDir;

use self::compiler::Compiler;
use self::options::{Options, Worker};
use self::own::WithOwnPasses;
use self::passes::Passes;
use self::programs::Checked;
use self::sources::Source;

/// All programs are valid and all artifacts are right.
const DONE: u8 = 0;
/// Some program is not valid, or some artifact is wrong.
const WRONG: u8 = 1;
/// It could not be done at all. Also what clap exits with.
const FAILED: u8 = 2;
/// What shells report of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Does all the work of `main`: what a build ends with is the program's exit code.
pub(crate) async fn exit_code(build: impl Future<Output = Result<u8>>) -> ExitCode {
    tokio::select! {
        // In this order: signals are handled as ever until there is something to clean up.
        biased;
        done = build => match done {
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

/// What is to be built.
#[derive(Debug)]
pub(crate) struct Build<'a, C> {
    pub(crate) compiler: C,
    pub(crate) sources: Vec<Source>,
    /// What the programs are, for people, where they are not those of the caller.
    pub(crate) own: Option<&'static str>,
    /// Where the sources were read from. A fresh process is given the same.
    pub(crate) paths: &'a [PathBuf],
    pub(crate) options: &'a Options,
}

impl<C: WithOwnPasses> Build<'_, C> {
    /// Runs all passes and reports them; or, in a process that another one started, its one pass.
    pub(crate) async fn run(self) -> Result<u8> {
        let compiler = Arc::new(self.compiler);
        if let Some(worker) = &self.options.worker {
            return work(worker, &compiler, self.sources).await;
        }
        let all = self.sources.len();
        let (programs, rejected) = programs::load(&*compiler, self.sources);
        if !rejected.is_empty() {
            report::rejected(&mut io::stderr().lock(), &rejected, all)?;
        }

        let passes = if programs.is_empty() {
            Passes::default()
        } else {
            in_empty_folder(self.options, self.paths, &compiler, &programs).await?
        };
        report::complaints(&mut io::stderr().lock(), &passes.passes)?;

        let count = programs.len();
        let mut out = io::stdout().lock();
        if self.options.json {
            report::json(&mut out, count, &passes)?;
        } else if count > 0 {
            let of = match self.own {
                Some(own) => format!("The {count} {own}"),
                None if count == 1 => "1 program".to_owned(),
                None => format!("{count} programs"),
            };
            report::table(&mut out, &of, &*compiler, &passes)?;
        }
        out.flush()?;

        let right = passes.passes.iter().all(|pass| pass.faults.is_empty());
        Ok(if right && rejected.is_empty() {
            DONE
        } else {
            WRONG
        })
    }
}

/// Runs one pass for the process that started this one.
async fn work<C: Compiler>(worker: &Worker, compiler: &Arc<C>, sources: Vec<Source>) -> Result<u8> {
    let report = passes::work(worker, compiler, sources).await?;
    serde_json::to_writer(io::stdout().lock(), &report)?;
    Ok(DONE)
}

/// Runs all passes in a folder of this run's own, so that the first of them finds nothing. The
/// folder is removed on every way out, unless it is to be kept.
async fn in_empty_folder<C: WithOwnPasses>(
    options: &Options,
    paths: &[PathBuf],
    compiler: &Arc<C>,
    programs: &[Checked<C>],
) -> Result<Passes> {
    let parent = cache_dir(options).await?;
    let folder = empty_folder(&parent)
        .with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    let passes = passes::run(options, paths, compiler, programs, folder.path()).await;
    let path = folder.path().to_owned();
    if options.keep {
        eprintln!("The artifacts are in {}", folder.keep().display());
    } else if let Err(error) = folder.close() {
        eprintln!("warning: cannot remove {}: {error}", path.display());
    }
    passes
}

fn empty_folder(parent: &Path) -> io::Result<TempDir> {
    std::fs::create_dir_all(parent)?;
    tempfile::Builder::new().prefix("run-").tempdir_in(parent)
}

async fn cache_dir(options: &Options) -> Result<PathBuf> {
    if let Some(folder) = &options.cache_dir {
        return Ok(folder.clone());
    }
    let user_cache = DiskCache::in_user_cache()
        .await
        .context("no folder to cache in; name one with --cache-dir")?;
    Ok(user_cache.root().join(env!("CARGO_BIN_NAME")))
}

/// Whether it is only that nobody reads the output any more, as under `| head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
