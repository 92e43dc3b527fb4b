//! Compiles shaders over HTTP, through one layered cache: `cargo run --release -p
//! pipeline-cache-tools --example compile_server -- --help`.
//!
//! `compile.rs` calls the cache; `targets` and `../naga_compiler` name the scopes of its keys.

mod activity;
mod args;
mod artifact;
mod compile;
#[cfg(feature = "wasmtime")]
#[path = "../function_store/mod.rs"]
mod function_store;
#[path = "../http_server/mod.rs"]
mod http_server;
mod log;
#[path = "../naga_compiler/mod.rs"]
mod naga_compiler;
#[cfg_attr(not(feature = "wasmtime"), path = "no_native.rs")]
mod native;
mod problem;
mod remote;
mod shader;
mod site;
mod status;
mod targets;
#[cfg(feature = "otlp")]
mod traces;
mod warm_start;
#[cfg(feature = "wasmtime")]
#[path = "../wasmtime_compiler/mod.rs"]
mod wasmtime_compiler;
#[path = "../wgsl_nesting/mod.rs"]
mod wgsl_nesting;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use pipeline_cache::layered::{LATENCY_BUCKETS, MetricsExporter};
use pipeline_cache::{DiskCache, InMemoryPipelineCache, LayeredPipelineCache};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;

use activity::Activity;
use args::Args;
use http_server::connection::Timeouts;
use http_server::connections::Connections;
use http_server::console::{self, announce, say};
use http_server::counters::Gauge;
use http_server::listener::Listener;
use http_server::signals;
use native::Native;
use site::Site;
use targets::Targets;

/// The most artifacts in memory.
const MEMORY_ENTRIES: u64 = 1 << 20;

/// How many lines of the log may wait.
const LOG_LINES: usize = 4096;

/// How long the log may take to be written to its end.
const LOG_FLUSH: Duration = Duration::from_secs(5);

/// How long writes may take at the end, however long the requests took.
const CLOSE: Duration = Duration::from_secs(5);

/// How often the times of requests are summed up, which are kept one by one until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// Not all that was under way at the end could be finished.
const CUT_SHORT: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = console::start("compile_server", LOG_LINES) {
        let _ = writeln!(io::stderr(), "compile_server: {error}");
        return ExitCode::from(2);
    }
    let code = match run(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(CUT_SHORT),
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::from(2)
        }
    };
    console::finish(LOG_FLUSH).await;
    code
}

/// Whether all that was under way at the end could be finished.
async fn run(args: Args) -> Result<bool> {
    let traces = start_traces(&args)?;
    let prometheus = install_metrics()?;
    let cache = open_cache(&args).await?;
    let prefetch = warm_start::begin(&cache, args.prefetch.as_deref()).await?;
    let native = Native::open(&args.cache_dir.join("functions"), args.disk / 4).await?;
    let socket = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen at {}", args.listen))?;
    let told_to_stop = signals::stop(CUT_SHORT)?;
    let timeouts = Timeouts {
        head: args.head_timeout,
        idle: args.idle,
        inactivity: args.inactivity,
    };
    let connections = Arc::default();
    let listener = Listener {
        connections: Arc::new(Connections::new(
            args.max_connections,
            timeouts,
            Arc::clone(&connections),
        )),
        drain: args.drain,
        work: TaskTracker::new(),
        socket,
        tls: None,
    };
    let site = Arc::new(Site {
        activity: Activity::new(),
        began: Instant::now(),
        cache: cache.clone(),
        targets: Targets::default(),
        native,
        exporter: MetricsExporter::new("shaders"),
        prometheus: prometheus.clone(),
        connections,
        under_way: Gauge::default(),
        request_permits: Arc::new(Semaphore::new(args.max_requests)),
        stopping: AtomicBool::new(false),
        max_source: args.max_source,
        deadline: args.deadline,
        inactivity: args.inactivity,
    });
    let native_path = site.native.as_ref().map_or("", |_| ", /native");
    let url = format!("http://{}", listener.socket.local_addr()?);
    announce(format_args!(
        "listening on {url}; compile: {url}/compile/spirv, /msl, /hlsl, /glsl{native_path}; for \
         people: {url}/; metrics: {url}/metrics; no TLS: put a proxy in front for https"
    ));
    let upkeep = tokio::spawn(keep_up(prometheus));
    let stop = async {
        told_to_stop.await;
        site.stopping.store(true, Ordering::Relaxed);
        sleep(args.linger).await;
    };
    let drained = listener.serve(site::router(Arc::clone(&site)), stop).await;
    upkeep.abort();
    if drained.is_none() {
        say("some requests did not end in time");
    }
    warm_start::end(&cache, prefetch, args.record.as_deref()).await;
    let left = drained.unwrap_or_default().max(CLOSE);
    let mut closed = cache.close(left).await;
    if let Some(native) = &site.native {
        let functions = native.close(left).await;
        closed.unfinished_compiles += functions.unfinished_compiles;
        closed.unfinished_writes += functions.unfinished_writes;
        closed.kept_intents += functions.kept_intents;
        closed.errors.extend(functions.errors);
    }
    if !closed.is_clean() || closed.kept_intents > 0 {
        say(&closed);
    }
    finish_traces(traces).await;
    Ok(drained.is_some() && closed.is_clean())
}

#[cfg(feature = "otlp")]
type Traces = Option<traces::Traces>;
/// There are none.
#[cfg(not(feature = "otlp"))]
struct Traces;

/// Starts the log, and the traces where they are wanted.
#[cfg(feature = "otlp")]
fn start_traces(args: &Args) -> Result<Traces> {
    let traces = args.otlp.as_deref().map(traces::Traces::to).transpose()?;
    log::start(args.log.clone(), traces.as_ref().map(traces::Traces::layer))?;
    Ok(traces)
}

#[cfg(not(feature = "otlp"))]
fn start_traces(args: &Args) -> Result<Traces> {
    anyhow::ensure!(
        args.otlp.is_none(),
        "traces need a build with the feature otlp"
    );
    let none = None::<tracing_subscriber::layer::Identity>;
    log::start(args.log.clone(), none)?;
    Ok(Traces)
}

#[cfg(feature = "otlp")]
async fn finish_traces(traces: Traces) {
    if let Some(traces) = traces {
        // The last span may not be closed yet where a client does not read its answer.
        let _ = tokio::task::spawn_blocking(move || traces.finish()).await;
    }
}

#[cfg(not(feature = "otlp"))]
async fn finish_traces(_: Traces) {}

async fn open_cache(args: &Args) -> Result<LayeredPipelineCache> {
    let disk = DiskCache::builder()
        .root(&args.cache_dir)
        .max_bytes(args.disk)
        .open()
        .await
        .with_context(|| format!("cannot open {}", args.cache_dir.display()))?;
    let mut cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::with_limits(
            MEMORY_ENTRIES,
            args.memory,
        ))
        .tier(disk)
        .keep_aliases()
        .max_queued_compiles(args.max_queued)
        .compile_limit(args.compile_limit);
    if let Some(places) = args.compile_places {
        cache = cache.compile_places(places);
    }
    if args.record.is_some() {
        cache = cache.record_run();
    }
    if let Some(url) = &args.remote {
        cache = cache.shared_tier(remote::open(url)?);
    }
    Ok(cache.build())
}

fn install_metrics() -> Result<PrometheusHandle> {
    let prometheus = PrometheusBuilder::new()
        .set_buckets(&LATENCY_BUCKETS)?
        .install_recorder()?;
    describe_counter!(
        "compile_server_requests_total",
        "Requests, by the status of their answer; 499 if the client left before it."
    );
    describe_counter!(
        "compile_server_artifacts_total",
        "Artifacts answered to compile requests, by where they came from."
    );
    describe_counter!(
        "compile_server_connections_displaced_total",
        "Idle connections closed to make room for new ones."
    );
    describe_counter!(
        "compile_server_log_lines_lost_total",
        "Log lines dropped because standard error was too slow."
    );
    describe_gauge!(
        "compile_server_requests_under_way",
        "Requests being served."
    );
    describe_gauge!("compile_server_connections", "Open connections.");
    describe_histogram!(
        "compile_server_request_seconds",
        Unit::Seconds,
        "From the head of a request to the last byte of its answer."
    );
    Ok(prometheus)
}

async fn keep_up(prometheus: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        prometheus.run_upkeep();
    }
}
