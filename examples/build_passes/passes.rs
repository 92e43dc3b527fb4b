//! The passes, from no cache at all to another machine.

use std::path::{Path, PathBuf, absolute};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::compiler::Compiler;
use super::options::{Options, Worker};
use super::own::WithOwnPasses;
use super::pass::Pass;
use super::programs::{self, Checked, Fresh, Rejected};
use super::serve::Server;
use super::sources::Source;
use super::tiers::{Promotion, Remote, Tiers};

/// All that there is to report.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    pub(crate) passes: Vec<Pass>,
    /// Programs that cannot be written in another spelling.
    pub(crate) not_respelled: Vec<Rejected>,
    /// Of the pass on another machine.
    pub(crate) promotion: Promotion,
    /// What is to be said of the compiler's own passes.
    pub(crate) notes: Vec<String>,
}

/// What a process that ran one pass prints for the one that started it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerReport {
    pass: Pass,
    promotion: Promotion,
    /// What came of the prefetch before it.
    prefetch: Option<String>,
}

/// Runs all passes in an empty folder, which the caller removes.
pub(crate) async fn run<C: WithOwnPasses>(
    options: &Options,
    paths: &[PathBuf],
    compiler: &Arc<C>,
    programs: &[Checked<C>],
    folder: &Path,
) -> Result<Passes> {
    let ours = folder.join("first");
    let mut all = Passes::default();

    this_process(&mut all, options, compiler, programs, &ours).await?;

    let fresh = folder.join("fresh.json");
    std::fs::write(&fresh, serde_json::to_vec(&programs::fresh(programs))?)?;

    let server = Server::start(&ours).await?;
    let again = Worker {
        pass: "fresh process".to_owned(),
        folder: ours,
        fresh: fresh.clone(),
        remote: None,
        aliases: false,
        run: None,
    };
    all.passes.push(fresh_process(paths, &again).await?.pass);

    let run = options.prefetch.as_deref().map(absolute).transpose()?;
    let prefetched = run.map(|run| ("another, prefetched", "another-prefetched", true, Some(run)));
    let others = [
        ("another machine", "another-machine", false, None),
        ("another, aliases", "another-with-aliases", true, None),
    ];
    for (pass, machine, aliases, run) in others.into_iter().chain(prefetched) {
        let another = Worker {
            pass: pass.to_owned(),
            folder: folder.join(machine),
            fresh: fresh.clone(),
            remote: Some(server.url()),
            aliases,
            run,
        };
        let report = fresh_process(paths, &another).await?;
        all.passes.push(report.pass);
        if !aliases {
            all.promotion = report.promotion;
        }
        all.notes.extend(report.prefetch);
    }
    server.shut_down().await?;

    let own = compiler.own_passes(programs, &folder.join("own")).await?;
    all.passes.extend(own.passes);
    all.notes.extend(own.notes);
    all.compare();
    Ok(all)
}

impl Passes {
    /// Holds the total of every pass against the first, which has no cache.
    fn compare(&mut self) {
        let totals = self.passes.iter().map(|pass| pass.figures.total_ms);
        let without = totals.take(1).sum::<f64>();
        for pass in &mut self.passes {
            let total = pass.figures.total_ms;
            pass.figures.speed_up = if total > 0.0 { without / total } else { 0.0 };
        }
    }
}

/// The pass without a cache, and those that share one: into the empty folder, again, and in another spelling.
async fn this_process<C: Compiler>(
    all: &mut Passes,
    options: &Options,
    compiler: &Arc<C>,
    programs: &[Checked<C>],
    folder: &Path,
) -> Result<()> {
    let tiers = Tiers::open(folder, &**compiler, None).await?;
    let (respelled, not_respelled) = programs::respell(&**compiler, programs);
    all.not_respelled = not_respelled;
    all.passes
        .push(Pass::without_cache("without cache", &**compiler, programs).await);
    for (name, programs) in [
        ("first", programs),
        ("memory", programs),
        ("respelled", &respelled),
    ] {
        let pass = Pass::with_cache(name, &tiers, compiler, programs).await;
        all.passes.push(pass);
        // What was compiled is written in the background: the next pass shall find it in its tier.
        tiers.flush().await?;
        if name == "first" {
            tiers.save_run(options.record.as_deref()).await?;
        }
    }
    tiers.close().await
}

/// Starts this program anew for one pass. It shares nothing with this process but the folder.
async fn fresh_process(paths: &[PathBuf], worker: &Worker) -> Result<WorkerReport> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    // Its progress and its errors go where those of this process go.
    let process = Command::new(program)
        .args(worker.to_args())
        .arg("--")
        .args(paths)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start a fresh process")?;
    let output = process.wait_with_output().await?;
    if !output.status.success() {
        bail!("the fresh process failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the fresh process gave no report")
}

/// The other end of [`fresh_process`].
pub(crate) async fn work<C: Compiler>(
    worker: &Worker,
    compiler: &Arc<C>,
    sources: Vec<Source>,
) -> Result<WorkerReport> {
    let fresh = std::fs::read(&worker.fresh).context("the other process gave no hashes")?;
    let fresh: Fresh = serde_json::from_slice(&fresh)?;
    let programs = programs::load_checked(&**compiler, sources, &fresh);
    let remote = worker.remote.as_deref().map(|url| Remote {
        url,
        aliases: worker.aliases,
    });
    let tiers = Tiers::open(&worker.folder, &**compiler, remote).await?;
    let prefetch = match &worker.run {
        Some(run) => Some(tiers.prefetch(run).await?),
        None => None,
    };
    let pass = Pass::with_cache(&worker.pass, &tiers, compiler, &programs).await;
    let promotion = tiers.promotion(&**compiler, &programs).await?;
    tiers.close().await?;
    Ok(WorkerReport {
        pass,
        promotion,
        prefetch,
    })
}
