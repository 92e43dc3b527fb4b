//! The part of the command line that is the same whatever is compiled.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// The help below the options. The passes differ in what a compiler does without a cache, and in
/// how programs are respelled.
pub(crate) fn after_help(without_cache: &str, respelled: &str) -> String {
    format!(
        "\
The passes:
  without cache    {without_cache}: what a compiler without a cache does. The speed-up of
                   the other passes is against this one
  first            into an empty folder: everything is compiled
  memory           the same again: the spellings are known, and everything is in memory
  respelled        {respelled}: what the canonical form unites is parsed for its
                   key, and needs no compile
  fresh process    another process on the same folder: spellings and artifacts are on disk
  another machine  another process on an empty folder, with the first one's folder behind an HTTP
                   server on 127.0.0.1: everything is parsed for its key, comes from the remote
                   tier, and is promoted to disk and memory in the background
  another, aliases the same, and the server has the known spellings too: nothing is parsed
  another, prefetched
                   only with --prefetch: the same, after a prefetch, whose time is not in it

The times are from source to artifact: hash, parse, key, lookup, and the compile where no tier
has the artifact. Reading the files is not in them. The programs of a pass run one after the other.

Every artifact that the cache returns is compared, by hash, with a fresh compile of the same program.

Exit codes:
  0  all programs were compiled, and all artifacts were right
  1  a program is not valid (the others are done all the same, and nothing is cached for it), or
     an artifact differed from a fresh compile
  2  bad arguments, a path that cannot be read, a folder without programs, or a cache folder or
     process that cannot be used"
    )
}

/// The options.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where to make the run's own, empty folder, which is removed at the end. Nothing else in
    /// here is touched [default: one named for this program in pipeline-cache's folder of the
    /// user's cache]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Leave the run's folder in place, and say where it is
    #[arg(long)]
    pub(crate) keep: bool,

    /// Print the figures as one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,

    /// Save what the first pass asks the cache for, as a recorded run
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,

    /// Add a pass on another machine that has prefetched this recorded run. It may be the FILE of
    /// --record
    #[arg(long, value_name = "FILE")]
    pub(crate) prefetch: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) worker: Option<Worker>,
}

/// What this program tells itself when it starts a fresh process: to run one pass.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[arg(
        long = "worker-pass",
        hide = true,
        required = false,
        requires = "folder"
    )]
    pub(crate) pass: String,
    #[arg(
        long = "worker-folder",
        hide = true,
        required = false,
        requires = "pass"
    )]
    pub(crate) folder: PathBuf,
    #[arg(
        long = "worker-fresh",
        hide = true,
        required = false,
        requires = "pass"
    )]
    pub(crate) fresh: PathBuf,
    #[arg(long = "worker-remote", hide = true, requires = "pass")]
    pub(crate) remote: Option<String>,
    #[arg(long = "worker-aliases", hide = true, requires = "remote")]
    pub(crate) aliases: bool,
    #[arg(long = "worker-prefetch", hide = true, requires = "remote")]
    pub(crate) run: Option<PathBuf>,
}

impl Worker {
    pub(crate) fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![
            "--worker-pass".into(),
            self.pass.clone().into(),
            "--worker-folder".into(),
            self.folder.clone().into(),
            "--worker-fresh".into(),
            self.fresh.clone().into(),
        ];
        if let Some(url) = &self.remote {
            args.extend(["--worker-remote".into(), url.into()]);
        }
        if self.aliases {
            args.push("--worker-aliases".into());
        }
        if let Some(run) = &self.run {
            args.extend(["--worker-prefetch".into(), run.into()]);
        }
        args
    }
}
