//! An IR of one's own, keyed by its canonical form: two spellings share one compile.

use bytes::Bytes;
use pipeline_cache::{
    Artifact, CompileScope, InMemoryPipelineCache, LayeredPipelineCache, Program, ToWire,
    Unkeyable, WireWriter,
};
use std::collections::HashMap;

/// A sum of variables, as in `sum x + y`. The names of variables mean nothing.
struct Sum(Vec<String>);

/// Each variable by the number of its first use: `x + y + x` is `0 + 1 + 0`, and so is `a + b + a`.
struct Canonical(Vec<u32>);

/// Why a source has no code. `Unkeyable` is for programs that are valid and have no key.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("a program begins with `sum`")]
    NoSum,
    #[error(transparent)]
    Unkeyable(#[from] Unkeyable),
}

impl Sum {
    fn parse(source: &Bytes) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(source);
        let terms = text.strip_prefix("sum ").ok_or(Error::NoSum)?;
        let names = terms.split('+').map(|name| name.trim().to_owned());
        Ok(Self(names.collect()))
    }
}

impl Program for Sum {
    const DOMAIN: &'static str = "example.com/sum";
    const SCHEMA: u32 = 1;
    type Canonical = Canonical;

    fn canonicalize(&self) -> Result<Canonical, Unkeyable> {
        let mut numbers = HashMap::new();
        let uses = self.0.iter().map(|name| {
            let next = numbers.len() as u32;
            *numbers.entry(name).or_insert(next)
        });
        Ok(Canonical(uses.collect()))
    }
}

impl ToWire for Canonical {
    type Program = Sum;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.seq(&self.0, |wire, number| wire.u32(*number));
    }
}

/// Makes code for a machine with a stack.
fn compile(program: &Canonical) -> String {
    let loads = program.0.iter().map(|number| format!("load {number}"));
    let adds = (1..program.0.len()).map(|_| "add".to_owned());
    loads.chain(adds).collect::<Vec<_>>().join("; ")
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cache = LayeredPipelineCache::builder().tier(InMemoryPipelineCache::new());
    let cache = cache.build();
    let scope = CompileScope::new("sum-compiler 1.0", "stack machine")?;
    for source in ["sum x + y + x", "sum a+b+a", "sum a + b + b"] {
        let compiled = cache
            .compile(&scope)
            .source("sum-parser 1.0", source, Sum::parse)
            .run(|input, _cx| Ok(Artifact::new(compile(&input.into_canonical()?))))
            .await?;
        let code = String::from_utf8_lossy(compiled.artifact.payload());
        println!("{source:14} {:9} {code}", compiled.source_label());
    }
    Ok(())
}
