//! Programs that compile, and the same programs in another spelling.

use std::collections::HashMap;

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
    /// The hash of what the compiler makes of it without any cache. All that is served is held
    /// against this.
    pub(crate) fresh: blake3::Hash,
}

/// Hashes of what is made of programs without any cache, by their names.
pub(crate) type Fresh = HashMap<String, String>;

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

/// The programs that another process has checked and compiled, by the hashes that it gives.
pub(crate) fn load_checked<C: Compiler>(
    compiler: &C,
    sources: Vec<Source>,
    fresh: &Fresh,
) -> Vec<Checked<C>> {
    let sources = sources.into_iter();
    let checked = sources.filter_map(|Source { name, text }| {
        let fresh = blake3::Hash::from_hex(fresh.get(&name)?).ok()?;
        let source = Bytes::from(text);
        let program = compiler.check(&name, &source).ok()?;
        Some(Checked {
            name,
            source,
            program,
            fresh,
        })
    });
    checked.collect()
}

/// What [`load_checked`] needs of the process that checked the programs.
pub(crate) fn fresh<C: Compiler>(programs: &[Checked<C>]) -> Fresh {
    let hash = |program: &Checked<C>| (program.name.clone(), program.fresh.to_string());
    programs.iter().map(hash).collect()
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

/// Parses, checks and compiles one source, past the cache.
pub(crate) fn check<C: Compiler>(
    compiler: &C,
    name: &str,
    source: Bytes,
) -> Result<Checked<C>, String> {
    let program = compiler.check(name, &source)?;
    // The canonical form, as the cache does; a program that has none, as it is.
    let fresh = match program.canonicalize() {
        Ok(canonical) => compiler.compile_canonical(&canonical),
        Err(_unkeyable) => compiler.compile_program(&program),
    };
    let fresh = fresh.map_err(|error| format!("error: {name}: {error:#}"))?;
    Ok(Checked {
        name: name.to_owned(),
        source,
        program,
        fresh: blake3::hash(&fresh),
    })
}
