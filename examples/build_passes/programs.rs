//! Programs that compile, and the same programs in another spelling.

use bytes::Bytes;
use pipeline_cache::Program as _;

use super::compiler::Compiler;
use super::progress::Progress;
use super::sources::Source;

/// A program that compiles.
#[derive(Debug)]
pub(crate) struct Checked<C: Compiler> {
    pub(crate) name: String,
    pub(crate) source: Bytes,
    /// What the source spells.
    pub(crate) program: C::Program,
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
pub(crate) fn load<C: Compiler>(
    compiler: &C,
    sources: Vec<Source>,
) -> (Vec<Checked<C>>, Vec<Rejected>) {
    let progress = Progress::new("checking", sources.len());
    let (mut programs, mut rejected) = (Vec::new(), Vec::new());
    for Source { name, text } in sources {
        progress.start(&name);
        match check(compiler, &name, text.into()) {
            Ok(program) => programs.push(program),
            Err(message) => rejected.push(Rejected { name, message }),
        }
    }
    (programs, rejected)
}

/// The same programs in another spelling. Those that cannot be written or read again are told
/// apart.
pub(crate) fn respell<C: Compiler>(
    compiler: &C,
    programs: &[Checked<C>],
) -> (Vec<Checked<C>>, Vec<Rejected>) {
    let progress = Progress::new("respelling", programs.len());
    let (mut respelled, mut rejected) = (Vec::new(), Vec::new());
    for Checked { name, program, .. } in programs {
        progress.start(name);
        let again = compiler.respell(program);
        match again.and_then(|source| check(compiler, name, source)) {
            Ok(program) => respelled.push(program),
            Err(message) => rejected.push(Rejected {
                name: name.clone(),
                message,
            }),
        }
    }
    (respelled, rejected)
}

fn check<C: Compiler>(compiler: &C, name: &str, source: Bytes) -> Result<Checked<C>, String> {
    let program = compiler.check(name, &source)?;
    // The canonical form, as the cache does; a program that has none, as it is.
    let fresh = match program.canonicalize() {
        Ok(canonical) => compiler.compile_canonical(&canonical),
        Err(_unkeyable) => compiler.compile_program(&program),
    };
    Ok(Checked {
        name: name.to_owned(),
        source,
        program,
        fresh: fresh.map_err(|error| format!("error: {name}: {error:#}"))?,
    })
}
