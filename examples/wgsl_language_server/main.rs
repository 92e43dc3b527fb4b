//! Checks shaders while they are typed, through one layered cache: `cargo run --release -p
//! pipeline-cache-tools --bin wgsl_language_server -- --help`.
//!
//! `session.rs` handles what the client says, `checker.rs` calls the cache for diagnostics, and
//! `module.rs` for hovers and compiles.
//!
//! # On `lsp-server`
//!
//! The types of messages are those of `lsp-server`, which rust-analyzer maintains and runs on; those of
//! the protocol are of `gen-lsp-types`, generated from its metamodel. The server handles messages in a
//! loop of its own, in the order in which they came, and drops the future of what is superseded or
//! cancelled: this is how a request to the cache learns of it.
//!
//! - `tower-lsp-server` polls up to four handlers at once, notifications among them, so that the order of
//!   edits hangs on where a handler first awaits. Four handlers that wait hold up all else, cancellations
//!   included.
//! - `async-lsp` keeps the order and drops cancelled requests. It ends with the first message that it
//!   cannot read, and its types are of 2023.
//!
//! All three take the length that a header announces on trust, which `transport.rs` does not.

mod args;
#[path = "../http_server/arguments.rs"]
mod arguments;
mod checker;
mod client;
mod findings;
mod initialize;
mod module;
#[path = "../naga_compiler/mod.rs"]
mod naga_compiler;
mod server;
mod session;
#[path = "../compile_server/shader.rs"]
#[expect(dead_code, reason = "the compile server tells more of an error")]
mod shader;
#[path = "../compile_server/targets/mod.rs"]
#[expect(dead_code, reason = "the compile server has more targets")]
mod targets;
mod text;
mod transport;
mod watch;
#[path = "../wgsl_nesting/mod.rs"]
mod wgsl_nesting;
mod workspace;

use std::env::VarError;
use std::io::{self, Write as _};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use pipeline_cache::network::BreakerPolicy;
use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache, RemoteCache};
use tokio::runtime::Builder;
use tokio::time::timeout;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use args::Args;
use checker::Checker;
use client::Client;
use server::{Out, Server};
use session::{End, Session};

/// As in the other servers: its threads give memory back while nothing is typed.
#[cfg(unix)]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The most artifacts in memory and on disk. The findings of a source that is right are two bytes, so
/// that bounds on bytes would be none.
const MEMORY_ENTRIES: u64 = 1 << 14;
const DISK_ENTRIES: u64 = 1 << 17;

/// How long writes may take at the end: editors wait for that.
const CLOSE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = Builder::new_multi_thread()
        .enable_all()
        // As in the compile pool: naga runs here where it runs without the cache.
        .thread_stack_size(64 << 20)
        .build();
    let ended = runtime.context("no runtime").and_then(|runtime| {
        let ended = runtime.block_on(run(args));
        // A check that goes on is no reason to stay.
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(End::Orderly) => ExitCode::SUCCESS,
        Ok(End::Abrupt) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "wgsl_language_server: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<End> {
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(args.log.clone())
        .with(lines)
        .try_init()?;
    let out = match &args.out {
        Some(folder) => Out::Given(std::path::absolute(folder)?),
        None => Out::Own(tempfile::tempdir().context("no folder for compiled shaders")?),
    };
    let remote = open_remote(&args)?;
    let cache = open_cache(&args, remote.clone()).await?;
    let checker = Checker::new((!args.no_cache).then(|| cache.clone()), args.max_source)?;
    let incoming = transport::read_input()?;
    let (outbox, all_written) = transport::write_output()?;
    let server = Server::new(
        Client::new(outbox),
        checker,
        cache.clone(),
        args.max_files,
        out,
    );
    let saves = server.saves.clone();
    let session = Session::new(Arc::new(server), remote);
    let end = session.run(incoming).await;
    saves.close();
    let _ = timeout(CLOSE, saves.wait()).await;
    let closed = cache.close(CLOSE).await;
    for error in &closed.errors {
        tracing::warn!(error = %format_args!("{error:#}"), "not all is kept");
    }
    // The tasks that are left hold the outbox as well: nobody waits for those.
    let _ = timeout(CLOSE, all_written).await;
    Ok(end)
}

fn open_remote(args: &Args) -> Result<Option<RemoteCache>> {
    let Some(url) = &args.remote else {
        return Ok(None);
    };
    // A person causes few requests: three that fail are enough to tell.
    let mut remote = RemoteCache::builder().breaker(
        BreakerPolicy::default()
            .min_calls(3)
            .probe_interval(Duration::from_secs(2)),
    );
    if args.remote_writes {
        remote = remote.writes();
    }
    match std::env::var("WGSL_REMOTE_TOKEN") {
        Ok(token) => remote = remote.bearer_token(token),
        Err(VarError::NotPresent) => {}
        Err(VarError::NotUnicode(_)) => bail!("WGSL_REMOTE_TOKEN is not UTF-8"),
    }
    // Without the URL, which may hold a password.
    remote.build(url).map(Some).context("cannot use --remote")
}

/// Over the tiers, or over none.
async fn open_cache(args: &Args, remote: Option<RemoteCache>) -> Result<LayeredPipelineCache> {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let mut cache = LayeredPipelineCache::builder()
        // One for the workspace, which has one compile at a time, and one for who is typing.
        .compile_places(args.compile_places.unwrap_or(cores.max(2)))
        .compile_limit(args.compile_limit)
        .keep_aliases();
    if args.no_cache {
        return Ok(cache.build());
    }
    let mut disk = DiskCache::builder()
        .max_bytes(args.max_bytes)
        .max_entries(DISK_ENTRIES);
    if let Some(folder) = &args.cache_dir {
        disk = disk.root(folder);
    }
    let memory = InMemoryPipelineCache::with_limits(MEMORY_ENTRIES, args.memory);
    cache = cache
        .tier(memory)
        .tier(disk.open().await.context("cannot open the cache folder")?);
    if let Some(remote) = remote {
        cache = cache.tier(remote);
    }
    Ok(cache.build())
}
