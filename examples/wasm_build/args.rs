//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::build_passes::options::{Options, after_help};

const WITHOUT_CACHE: &str = "validate, compile";
const RESPELLED: &str = "\
the same modules, encoded again without names and with their functions in the
                   opposite order";

const REAL_MODULES: &str = "\
Real modules are in npm packages. In a folder of its own:
  npm install --ignore-scripts tree-sitter-wasms@0.1.13 sql.js@1.17.0 esbuild-wasm@0.28.2
  wasm_build tree-sitter-wasms sql.js/dist/sql-wasm.wasm esbuild-wasm/esbuild.wasm";

const FUNCTIONS: &str = "\
The passes that compile, and keep each function that was compiled in a cache of its own:
  functions kept   into an empty folder: every function is compiled and kept
  one function changed
                   every module with one function changed: the others come from memory
  changed, from disk
                   the same again, and they come from disk";

/// Compiles WebAssembly modules to native code through a layered cache, and past it, and shows what
/// caching did and what it cost.
#[derive(Debug, Parser)]
#[command(
    name = "wasm_build",
    arg_required_else_help = true,
    after_help = format!(
        "{REAL_MODULES}\n\n{FUNCTIONS}\n\n{}",
        after_help(WITHOUT_CACHE, RESPELLED)
    )
)]
pub(crate) struct Args {
    /// Modules in the binary format, folders to search for *.wasm (links to folders are not
    /// followed), and names of either in ./node_modules
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) options: Options,
}
