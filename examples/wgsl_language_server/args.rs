//! What the language server is told on its command line, each with its default.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::filter::Targets;

use crate::arguments::{count, positive_seconds, size};

/// Checks WGSL while it is typed, through a layered cache, for any editor that speaks the language
/// server protocol on the standard input and output.
///
/// What the editor gets:
///
///   diagnostics    what naga says of each version, from this machine alone
///   hover          the key of the module, and for each target whether it is compiled already
///   code lenses    "Compile to SPIR-V", "... MSL", "... HLSL"
///   commands       wgsl.compile (URI, "spirv" | "msl" | "hlsl"): writes the file and opens it
///                  wgsl.status: what the cache has done so far, as JSON
///   messages       when the remote cache is out, and when it is back
///
/// The shaders of the workspace are checked in the background, so that the first look at each is
/// answered from the cache.
#[derive(Debug, Parser)]
#[command(
    name = "wgsl_language_server",
    version = env!("TOOLS_VERSION"),
    verbatim_doc_comment
)]
pub(crate) struct Args {
    /// Where artifacts and known spellings are kept [default: the user's cache folder]
    #[arg(long, visible_alias = "dir", value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// A cache to share with others, such as the /artifacts of a cache_server. Its writers decide
    /// what is served. A token for it is taken from the variable WGSL_REMOTE_TOKEN
    #[arg(long, value_name = "URL")]
    pub(crate) remote: Option<String>,
    /// Write what was compiled to the remote as well: never what is only being typed
    #[arg(long, requires = "remote")]
    pub(crate) remote_writes: bool,
    /// The most bytes of artifacts in memory
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "32M")]
    pub(crate) memory: u64,
    /// The most bytes of artifacts on disk; the least recently used ones are evicted
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "1G")]
    pub(crate) max_bytes: u64,
    /// The largest source that is checked
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "512K")]
    pub(crate) max_source: u64,
    /// The most shaders of the workspace that are checked in the background
    #[arg(long, value_name = "N", value_parser = count, default_value = "10000")]
    pub(crate) max_files: usize,
    /// How many compiles run at once [default: as many as there are cores, and at least two]
    #[arg(long, value_name = "N", value_parser = count)]
    pub(crate) compile_places: Option<usize>,
    /// The seconds after which a compile is given up
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "60")]
    pub(crate) compile_limit: Duration,
    /// Where compiled shaders are written [default: a folder that goes with the server]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Check without the cache, to compare. Nothing is checked in the background then
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// What is logged to the standard error: levels, as in warn or info,pipeline_cache=debug
    #[arg(long, value_name = "LEVELS", default_value = "warn")]
    pub(crate) log: Targets,
    /// Ignored: editors pass it to choose the transport, and there is no other
    #[arg(long, hide = true)]
    pub(crate) stdio: bool,
}
