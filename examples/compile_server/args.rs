//! What the server is told on its command line, each with its default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::filter::Targets;

use crate::http_server::arguments::{count, positive_seconds, seconds, size};

/// Compiles WGSL to SPIR-V, MSL, HLSL and GLSL over HTTP, and WebAssembly to native code, each program
/// once.
///
/// Paths:
///
///   POST /compile/spirv     the body is the source; the answer is the artifact
///   POST /compile/msl       ?version=, as in 1.3, 2.4, 6.0, 450 or 310es
///   POST /compile/hlsl      ?bounds_checks=false leaves out what catches accesses out of bounds
///   POST /compile/glsl      ?entry=NAME if the shader has several entry points
///   POST /compile/native    the body is a WebAssembly module; the answer is what wasmtime loads on a
///                           machine like this one. In a build with the feature wasmtime
///   GET  /artifact/KEY      what was compiled, by the key that an answer told
///   GET  /metrics           for Prometheus
///   GET  /                  a page for people: rates, times, tiers, the last 50 requests
///   GET  /healthz           200 while the server is up
///   GET  /readyz            200 until the server is told to stop
///
/// Headers of a request:
///
///   Compile-Deadline-Ms     how many milliseconds to wait for the artifact. What was begun is
///                           finished and kept, for who asks next
///   Compile-Priority        interactive, as without this header, or background
///
/// Headers of an answer:
///
///   Artifact-Key            names the artifact. Absent for what cannot be cached
///   Artifact-Source         memory, disk, remote, write_behind, compiled, joined or bypassed
///   Server-Timing           what each step and each tier took
///
/// Errors are problem details (RFC 9457, application/problem+json). Of a shader that does not
/// compile (422) `detail` is the compiler's message, `span` the line, column, offset and length,
/// and `report` the message with the lines it is about. 503 with Retry-After: too many compiles
/// wait. 504: the deadline has passed.
///
/// TLS: the server speaks plain HTTP/1.1 and HTTP/2. Put a proxy in front of it for https and for
/// authentication.
#[derive(Debug, Parser)]
#[command(name = "compile_server", verbatim_doc_comment)]
pub(crate) struct Args {
    /// Where artifacts and known spellings are kept
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: PathBuf,
    /// The address to listen at; port 0 for one that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8430")]
    pub(crate) listen: SocketAddr,
    /// A cache to share with others, known spellings among it: the /artifacts of a cache_server, or
    /// an object store as s3://bucket/prefix, gs://…, az://… or file:///folder. Its writers decide what
    /// is served. The token for a server is taken from the variable COMPILE_SERVER_REMOTE_TOKEN, what an
    /// object store needs from variables of its own, such as AWS_ACCESS_KEY_ID and AWS_ENDPOINT
    #[arg(long, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// Save what the server was asked for when it stops, for --prefetch: cachectl manifest shows it
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Fetch what a recorded run used from the remote to the disk, beside the requests. A FILE that is
    /// not there is none yet: it may be that of --record
    #[arg(long, value_name = "FILE", requires = "remote")]
    pub(crate) prefetch: Option<PathBuf>,
    /// The most bytes of artifacts in memory
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "256M")]
    pub(crate) memory: u64,
    /// The most bytes of artifacts on disk, and a fourth of it more for functions of WebAssembly; the least recently used ones are evicted
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "10G")]
    pub(crate) disk: u64,
    /// The largest source
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "512K")]
    pub(crate) max_source: u64,
    /// How many compiles run at once [default: one less than the cores]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) compile_places: Option<usize>,
    /// How many compiles of each priority wait for a place. More are answered with 503
    #[arg(long, value_name = "N", value_parser = count, default_value = "128")]
    pub(crate) max_queued: usize,
    /// The seconds after which a compile is given up
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "60")]
    pub(crate) compile_limit: Duration,
    /// The seconds that a request waits for its artifact. A client may ask for less
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "60")]
    pub(crate) deadline: Duration,
    /// How many connections are open at once. The next one closes the connection that has been
    /// idle for the longest time
    #[arg(long, value_name = "N", value_parser = count, default_value = "1024")]
    pub(crate) max_connections: usize,
    /// How many requests are served at once
    #[arg(long, value_name = "N", value_parser = count, default_value = "512")]
    pub(crate) max_requests: usize,
    /// The seconds that the requests under way have to end once the server has stopped to accept
    /// others
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub(crate) drain: Duration,
    /// The seconds for which the server goes on to serve after it was told to stop, with /readyz
    /// at 503: until those who pass requests on to it have seen that
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "0")]
    pub(crate) linger: Duration,
    /// The seconds in which a source must arrive whole, a response body must move on by 64 KiB, and
    /// a request must find a place among those that are served at once
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "30")]
    pub(crate) inactivity: Duration,
    /// The seconds that a new connection has to send the whole head of its first request
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "10")]
    pub(crate) head_timeout: Duration,
    /// The seconds that a connection stays open between two requests
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "90")]
    pub(crate) idle: Duration,
    /// An OpenTelemetry collector, such as http://127.0.0.1:4318, which is sent a span of each request
    /// and of its steps by OTLP over HTTP. The header traceparent says which trace it is part of. What the collector
    /// asks for goes into the variable OTEL_EXPORTER_OTLP_HEADERS, and not into the URL, which is
    /// logged when spans cannot be sent
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,
    /// What is logged to the standard error: levels, as in warn or info,pipeline_cache=debug. At
    /// info there is one line for each request
    #[arg(long, value_name = "LEVELS", default_value = "info")]
    pub(crate) log: Targets,
}
