//! The five passes, from an empty folder to another machine.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use pipeline_cache::{CompileScope, Program as _, ToWire as _};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::args::{Args, Worker};
use crate::compiler;
use crate::pass::Pass;
use crate::programs::{self, Rejected, Shader};
use crate::serve::Server;
use crate::tiers::{Promotion, Tiers};

/// All that there is to report.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    pub(crate) passes: Vec<Pass>,
    /// Programs that naga cannot print and read again.
    pub(crate) not_respelled: Vec<Rejected>,
    /// Of the last pass.
    pub(crate) promotion: Promotion,
    /// What the keys of all programs cost, which every pass pays.
    pub(crate) key_time: Duration,
}

/// What a process that ran one pass prints for the one that started it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WorkerReport {
    pass: Pass,
    promotion: Promotion,
}

/// Runs all passes in an empty folder, which the caller removes.
pub(crate) async fn run(args: &Args, shaders: &[Shader], folder: &Path) -> Result<Passes> {
    let ours = folder.join("first");
    let theirs = folder.join("another-machine");
    let mut all = Passes::default();

    this_process(&mut all, shaders, &ours).await?;

    let server = Server::start(&ours).await?;
    let fresh = Worker {
        pass: "fresh process".to_owned(),
        folder: ours,
        remote: None,
    };
    all.passes.push(fresh_process(args, &fresh).await?.pass);

    let another = Worker {
        pass: "another machine".to_owned(),
        folder: theirs,
        remote: Some(server.url()),
    };
    let report = fresh_process(args, &another).await?;
    server.shut_down().await?;
    all.passes.push(report.pass);
    all.promotion = report.promotion;
    Ok(all)
}

/// The passes that share one cache: into the empty folder, again, and in another spelling.
async fn this_process(all: &mut Passes, shaders: &[Shader], folder: &Path) -> Result<()> {
    let tiers = Tiers::open(folder, None).await?;
    let scope = compiler::scope()?;
    let (respelled, not_respelled) = programs::respell(shaders);
    all.not_respelled = not_respelled;
    for (name, shaders) in [
        ("first", shaders),
        ("memory", shaders),
        ("respelled", &respelled),
    ] {
        let pass = Pass::run(name, &tiers.cache, &scope, shaders).await;
        all.passes.push(pass);
        // What was compiled is written in the background: the next pass shall find it in its tier.
        tiers.cache.flush().await.context("not stored")?;
    }
    all.key_time = time_keys(shaders, &scope);
    tiers.close().await
}

/// How long all keys take, which each pass makes before it can look for anything. The best of a
/// few times: what else the machine does is not a cost of the keys.
fn time_keys(shaders: &[Shader], scope: &CompileScope) -> Duration {
    let once = || {
        let start = Instant::now();
        for shader in shaders {
            let canonical = shader.module.canonicalize();
            let key = canonical.map(|canonical| canonical.fingerprint().scoped(scope));
            let _ = std::hint::black_box(key);
        }
        start.elapsed()
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

/// Starts this program anew for one pass. It shares nothing with this process but the folder.
async fn fresh_process(args: &Args, worker: &Worker) -> Result<WorkerReport> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    // Its progress and its errors go where those of this process go.
    let process = Command::new(program)
        .args(worker.to_args())
        .arg("--")
        .args(&args.paths)
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
pub(crate) async fn work(worker: &Worker, shaders: &[Shader]) -> Result<WorkerReport> {
    let tiers = Tiers::open(&worker.folder, worker.remote.as_deref()).await?;
    let scope = compiler::scope()?;
    let pass = Pass::run(&worker.pass, &tiers.cache, &scope, shaders).await;
    let promotion = tiers.promotion(shaders, &scope).await?;
    tiers.close().await?;
    Ok(WorkerReport { pass, promotion })
}
