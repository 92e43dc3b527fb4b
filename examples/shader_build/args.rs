//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::build_passes::options::{Options, after_help};

const WITHOUT_CACHE: &str = "parse, validate, write";
const RESPELLED: &str = "\
the same programs, printed back to WGSL by naga and parsed again, so that names,
                   layout and order differ";

/// Compiles shaders from WGSL to SPIR-V through a layered cache, and past it, and shows what
/// caching did and what it cost.
#[derive(Debug, Parser)]
#[command(name = "shader_build", after_help = after_help(WITHOUT_CACHE, RESPELLED))]
pub(crate) struct Args {
    /// WGSL files, and folders to search for *.wgsl; links to folders are not followed. Without
    /// any: the 23 compute shaders of vello
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) options: Options,
}
