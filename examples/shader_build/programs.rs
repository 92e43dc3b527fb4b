//! Programs: WGSL parsed and checked, and the same program in another spelling.

use anyhow::Result;
use bytes::Bytes;
use naga::Module;
use naga::back::wgsl::{WriterFlags, write_string};
use naga::front::wgsl::parse_str;
use pipeline_cache::Program as _;

use crate::compiler;
use crate::progress::Progress;
use crate::sources::Source;

/// A program that compiles.
#[derive(Debug)]
pub(crate) struct Shader {
    pub(crate) name: String,
    pub(crate) text: Bytes,
    /// What the text spells.
    pub(crate) module: Module,
    /// What the compiler makes of it without any cache. All that is served is held against this.
    pub(crate) fresh: Vec<u8>,
}

/// A program that does not, and the compiler's message.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) name: String,
    pub(crate) message: String,
}

/// Parses, checks and compiles every source once, past the cache.
pub(crate) fn load(sources: Vec<Source>) -> (Vec<Shader>, Vec<Rejected>) {
    let progress = Progress::new("checking", sources.len());
    let (mut shaders, mut rejected) = (Vec::new(), Vec::new());
    for Source { name, text } in sources {
        progress.start(&name);
        match read(&name, text.into()) {
            Ok(shader) => shaders.push(shader),
            Err(message) => rejected.push(Rejected { name, message }),
        }
    }
    (shaders, rejected)
}

/// The same programs, printed back to WGSL and parsed again: other names, another layout, another
/// order. Those that naga itself cannot print or read again are told apart.
pub(crate) fn respell(shaders: &[Shader]) -> (Vec<Shader>, Vec<Rejected>) {
    let progress = Progress::new("respelling", shaders.len());
    let (mut respelled, mut rejected) = (Vec::new(), Vec::new());
    for shader in shaders {
        progress.start(&shader.name);
        match respell_one(shader) {
            Ok(shader) => respelled.push(shader),
            Err(message) => rejected.push(Rejected {
                name: shader.name.clone(),
                message,
            }),
        }
    }
    (respelled, rejected)
}

fn respell_one(shader: &Shader) -> Result<Shader, String> {
    let info = compiler::validate(&shader.module).map_err(|error| error.to_string())?;
    let text = write_string(&shader.module, &info, WriterFlags::EXPLICIT_TYPES)
        .map_err(|error| error.to_string())?;
    read(&shader.name, text.into())
}

/// Reads WGSL and checks it. The error is the compiler's message for people, with file and line.
fn parse(name: &str, text: &[u8]) -> Result<Module, String> {
    let text = std::str::from_utf8(text).map_err(|error| not_utf8(name, text, &error))?;
    let module = parse_str(text).map_err(|error| error.emit_to_string_with_path(text, name))?;
    match compiler::validate(&module) {
        Ok(_info) => Ok(module),
        Err(error) => Err(error.emit_to_string_with_path(text, name)),
    }
}

fn not_utf8(name: &str, text: &[u8], error: &std::str::Utf8Error) -> String {
    let before = &text[..error.valid_up_to()];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    format!("error: {name}:{line}: not WGSL: {error}")
}

fn read(name: &str, text: Bytes) -> Result<Shader, String> {
    let module = parse(name, &text)?;
    let fresh = compile_fresh(&module).map_err(|error| format!("error: {name}: {error:#}"))?;
    Ok(Shader {
        name: name.to_owned(),
        text,
        module,
        fresh,
    })
}

/// Compiles the canonical form, as the cache does; a module that has none, as it is.
fn compile_fresh(module: &Module) -> Result<Vec<u8>> {
    match module.canonicalize() {
        Ok(canonical) => compiler::compile_canonical(&canonical),
        Err(_unkeyable) => compiler::compile_module(module),
    }
}
