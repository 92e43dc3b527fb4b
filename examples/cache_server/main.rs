//! A team's cache in one command.
//!
//! ```text
//! cache_server --cache-dir /var/cache/team --tokens tokens.txt --listen 0.0.0.0:8420
//! ```
//!
//! | path | what is there |
//! |---|---|
//! | `/artifacts/<64 hex digits>.bin` | artifacts: the base URL of a `RemoteCache` is `/artifacts` |
//! | `/artifacts/batch` | many artifacts in one answer, see `batches` |
//! | `/artifacts/leases/<64 hex digits>` | compile leases, see `leases` |
//! | `/ccache/…` | blobs of ccache: `remote_storage = http://host:8420/ccache` |
//! | `/sccache/…` | blobs of sccache: `SCCACHE_WEBDAV_ENDPOINT=http://host:8420/sccache/` |
//! | `/status`, `/` | a page for people |
//! | `/metrics` | for Prometheus |
//! | `/healthz` | 200 while the server takes requests; it needs no token |
//!
//! Every artifact is verified against the key in its path before it is stored.

mod access;
mod access_log;
mod args;
mod artifacts;
mod batches;
mod blobs;
mod blocking;
mod command_line;
#[path = "../completions/mod.rs"]
mod completions;
mod config;
mod dav;
mod exchange;
mod exposition;
mod files;
mod folder;
mod foreign;
mod help;
mod http_error;
#[path = "../http_server/mod.rs"]
mod http_server;
mod input;
mod leases;
mod log;
mod metrics;
mod open_store;
mod permits;
mod prometheus;
mod recent;
mod reload;
#[path = "../secret_files/mod.rs"]
mod secret_files;
mod shards;
mod site;
mod status;
mod store;
mod store_metrics;
#[path = "../store_url/mod.rs"]
mod store_url;
mod sweep;
mod tls;
mod uploads;
#[path = "../variables/mod.rs"]
mod variables;

use std::env::VarError;
use std::io::{self, Write as _};
use std::iter;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use pipeline_cache::{DiskCache, PipelineCacheStore as _, TrustedKeys};
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

use access::{Access, TokenSource};
use access_log::AccessLog;
use args::Args;
use artifacts::Artifacts;
use command_line::TOKENS;
use foreign::Foreign;
use http_server::connection::Timeouts;
use http_server::connections::Connections;
use http_server::console::{self, announce, say};
use http_server::listener::Listener;
use http_server::signals;
use leases::Leases;
use metrics::Metrics;
use open_store::{Listing, OpenStore, StoreSettings};
use permits::Permits;
use reload::{Hangups, Reload};
use site::Site;
use store::StoreLimits;
use tls::Tls;
use uploads::Uploads;

/// It gives memory back to the system once it is free, from all threads. The one of glibc keeps most
/// of what a burst of uploads has taken.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long a power loss can take back what was stored.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);

/// How long what is stored may take to be made durable at the end, however long the rest took.
const DISK_FLUSH: Duration = Duration::from_secs(5);

/// How long the access log, or what was said, may take to be written to its end.
const LOG_FLUSH: Duration = Duration::from_secs(5);

/// How many lines to the operator may wait. Where there are as many, they say the same.
const CONSOLE_LINES: usize = 256;

/// A file, a folder or an address could not be used. The next start may find it, as once a disk is
/// mounted.
const UNAVAILABLE: u8 = 1;

/// A setting is bad. It will be at the next start. The exit code of clap.
const BAD_SETTING: u8 = 2;

/// Not all that was under way at the end could be finished.
const CUT_SHORT: u8 = 3;

/// Threads for file system calls. Each has a stack and a cache of the allocator; more of them than
/// a disk has in its queue make nothing faster.
const BLOCKING_THREADS: usize = 32;

fn main() -> ExitCode {
    let args = match command_line::read(std::env::args_os().collect()) {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cache_server: {error:#}");
            return exit_code(&error);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(serve(args));
            // A thread that hangs in a system call, as on a lost file system, is not waited for.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "cache_server: cannot start a runtime: {error}"
            );
            ExitCode::from(UNAVAILABLE)
        }
    }
}

/// Whether another start may do better: an init system tries again then.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    ExitCode::from(match causes.next().map(io::Error::kind) {
        // What is in a file stays in it.
        None | Some(io::ErrorKind::InvalidData) => BAD_SETTING,
        Some(_) => UNAVAILABLE,
    })
}

async fn serve(args: Args) -> ExitCode {
    if let Err(error) = console::start("cache_server", CONSOLE_LINES) {
        let _ = writeln!(io::stderr(), "cache_server: {error}");
        return ExitCode::from(UNAVAILABLE);
    }
    let code = match run(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(CUT_SHORT),
        Err(error) => {
            say(format_args!("{error:#}"));
            exit_code(&error)
        }
    };
    console::finish(LOG_FLUSH).await;
    code
}

/// Whether all that was under way at the end could be finished.
async fn run(args: Args) -> Result<bool> {
    // Before anything that takes long: a signal that comes early would end the process.
    let hangups = Hangups::new()?;
    let args = Arc::new(args);
    let tls = Tls::open(&args)?;
    let metrics = Arc::new(Metrics::default());
    let (log, last_line) = match args.no_access_log {
        true => (AccessLog::off(Arc::clone(&metrics)), None),
        false => {
            let (log, last_line) = AccessLog::start(Arc::clone(&metrics))?;
            (log, Some(last_line))
        }
    };
    let disk = open_disk(&args).await?;
    let artifacts = Artifacts::new(disk.clone(), args.anonymous.role().is_some());
    let (artifacts, listing) = over_store(artifacts, &args)?;
    let site = Arc::new(Site {
        artifacts,
        ccache: open_foreign(&args, "ccache").await?,
        sccache: open_foreign(&args, "sccache").await?,
        leases: Leases::new(args.max_leases, args.max_lease_waits),
        uploads: open_uploads(&args).await?,
        access: Access::new(args.anonymous.role(), &tokens(&args)?)?,
        log,
        metrics: Arc::clone(&metrics),
        permits: Permits::new(args.max_requests, args.inactivity),
        work: TaskTracker::new(),
    });
    let socket = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen at {}", args.listen))?;
    let told = signals::stop(CUT_SHORT)?;
    let stop = async {
        told.await;
        site.leases.stop();
    };
    let (scheme, about_tls) = match &tls {
        Some(_) => ("https", ""),
        None => ("http", "; no TLS: see --tls-cert, or put a proxy in front"),
    };
    let url = format!("{scheme}://{}", socket.local_addr()?);
    announce(format_args!(
        "listening on {url}; artifacts: {url}/artifacts, ccache: {url}/ccache, sccache: \
         {url}/sccache, status: {url}/status, metrics: {url}/metrics, health: {url}/healthz{about_tls}"
    ));
    let flushing = tokio::spawn(keep_durable(disk.clone()));
    let wait = args.store_timeout;
    let checking = listing.map(|listing| tokio::spawn(open_store::check(listing, wait)));
    let timeouts = Timeouts {
        head: args.head_timeout,
        idle: args.idle,
        inactivity: args.inactivity,
    };
    let listener = Listener {
        socket,
        tls: tls.as_ref().map(Tls::acceptor),
        connections: Arc::new(Connections::new(
            args.max_connections,
            timeouts,
            Arc::clone(&metrics.connections),
        )),
        drain: args.drain,
        work: site.work.clone(),
    };
    let reload = Reload {
        args: Arc::clone(&args),
        site: Arc::clone(&site),
        tls,
    };
    let reloading = tokio::spawn(reload.at_each(hangups));
    let drained = listener.serve(site::router(Arc::clone(&site)), stop).await;
    flushing.abort();
    reloading.abort();
    if let Some(checking) = checking {
        checking.abort();
    }
    let left = drained.unwrap_or_default().max(DISK_FLUSH);
    let stored = close_store(&site.artifacts, left).await;
    let closed = match disk.close(left).await {
        Ok(()) => true,
        Err(error) => {
            say(format_args!("{error:#}"));
            false
        }
    };
    // It holds the site as well.
    let _ = reloading.await;
    drop(site);
    if let Some(last_line) = last_line {
        // A reader of the log that stands still is not waited for.
        let _ = timeout(LOG_FLUSH, last_line).await;
    }
    Ok(drained.is_some() && stored && closed)
}

async fn open_disk(args: &Args) -> Result<DiskCache> {
    let mut disk = DiskCache::builder()
        .root(args.cache_dir.join("artifacts"))
        .max_artifact_bytes(args.max_artifact)
        .max_bytes(args.max_bytes);
    if let Some(keys) = trusted_keys(args)? {
        disk = disk.trusted_keys(keys);
    }
    Ok(disk.open().await?)
}

/// The secrets of uploads. Any of them will do. Only what goes to an object store is signed anew.
fn trusted_keys(args: &Args) -> Result<Option<TrustedKeys>> {
    secret_files::trusted_keys(&args.secret_file, input::read)
}

/// The artifacts over the object store, and what is in that, where there is one.
fn over_store(artifacts: Artifacts, args: &Args) -> Result<(Artifacts, Option<Listing>)> {
    let Some(url) = &args.store else {
        return Ok((artifacts, None));
    };
    store_url::check(url).context("cannot use --store")?;
    let keys = trusted_keys(args)?;
    let OpenStore { store, listing } = open_store::open(StoreSettings {
        url,
        wait: args.store_timeout,
        requests: args.store_requests,
        max_artifact: args.max_artifact,
        keys: keys.clone(),
    })?;
    log::start()?;
    let limits = StoreLimits {
        wait: args.store_timeout,
        max_artifact: args.max_artifact,
        lookups: args.store_requests,
        keys,
    };
    Ok((artifacts.over(store, limits), Some(listing)))
}

/// Whether the store has all that was uploaded, or the folder remembers what it lacks.
async fn close_store(artifacts: &Artifacts, deadline: Duration) -> bool {
    let Some(report) = artifacts.close_store(deadline).await else {
        return true;
    };
    let remembered = report.kept_intents;
    if remembered > 0 {
        say(format_args!(
            "{remembered} artifacts are not in the object store yet: the next start offers them"
        ));
    }
    let left = report.unfinished_writes.saturating_sub(remembered);
    if left > 0 {
        say(format_args!(
            "{left} artifacts are in the folder and not in the object store: upload them with \
             cachectl push --all"
        ));
    }
    left == 0
}

async fn open_foreign(args: &Args, name: &str) -> Result<Foreign> {
    let root = args.cache_dir.join(name);
    let (max_bytes, max_blob) = (args.max_foreign_bytes, args.max_foreign_blob);
    let opened = blocking::run(move || Foreign::open(root, max_bytes, max_blob)).await;
    opened.with_context(|| format!("cannot open the folder of {name}"))
}

async fn open_uploads(args: &Args) -> Result<Uploads> {
    let folder = args.cache_dir.join("uploads");
    let (memory, inactivity) = (args.upload_memory, args.inactivity);
    let opened = blocking::run(move || Uploads::open(folder, memory, inactivity)).await;
    opened.context("cannot open the folder of uploads")
}

/// The tokens of the environment and those of the file.
fn tokens(args: &Args) -> Result<Vec<TokenSource>> {
    let variable = format!("the variable {TOKENS}");
    let text = match std::env::var(TOKENS) {
        Err(VarError::NotUnicode(_)) => bail!("{variable} is not UTF-8"),
        text => text.unwrap_or_default(),
    };
    let mut sources = vec![TokenSource::new(variable, &text)];
    if let Some(file) = &args.tokens {
        let source = TokenSource::new(file.display().to_string(), &input::read(file)?);
        ensure!(!source.is_empty(), "{} holds no token", file.display());
        sources.push(source);
    }
    Ok(sources)
}

async fn keep_durable(disk: DiskCache) {
    let mut ticks = interval(FLUSH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Aliases are not flushed with the artifacts beside them.
        for disk in iter::once(&disk).chain(disk.aliases()) {
            if let Err(error) = disk.flush().await {
                say(error);
            }
        }
    }
}
