//! Programs of the synchronous design, keyed here: one newtype, its own canonical wire, and what its
//! cache holds can be moved.

use bytes::Bytes;
use pipeline_cache::{
    Artifact, CompileScope, DiskCache, LayeredPipelineCache, PipelineCacheStore as _,
    PipelineFingerprint, Program, ToWire, Unkeyable, WireWriter,
};
use vyre_foundation::ir::{BufferDecl, DataType, Expr, Node};
use vyre_runtime::pipeline_cache as synchronous;
use vyre_runtime::pipeline_cache::PipelineCacheStore as _;

/// A program of the synchronous design.
struct VyreProgram(vyre_foundation::ir::Program);

/// Its canonical form, as its own bytes.
struct CanonicalVyre {
    wire: Bytes,
}

impl Program for VyreProgram {
    const DOMAIN: &'static str = "vyre/0.6";
    const SCHEMA: u32 = 1;
    type Canonical = CanonicalVyre;

    fn canonicalize(&self) -> Result<CanonicalVyre, Unkeyable> {
        let wire = self.0.canonical_wire_bytes();
        let wire = wire.map_err(|error| Unkeyable::new(error.to_string()))?;
        Ok(CanonicalVyre { wire: wire.into() })
    }
}

impl ToWire for CanonicalVyre {
    type Program = VyreProgram;

    fn write_body(&self, wire: &mut WireWriter) {
        wire.bytes(&self.wire);
    }
}

impl CanonicalVyre {
    /// What the compile function compiles: the program that was keyed, and no other spelling of it.
    fn program(&self) -> Result<vyre_foundation::ir::Program, vyre_foundation::Error> {
        vyre_foundation::ir::Program::from_wire(&self.wire)
    }
}

fn program(workgroup: u32, stored: Expr) -> VyreProgram {
    let out = BufferDecl::read_write("out", 0, DataType::U32).with_count(1);
    let a = Node::let_bind("a", Expr::load("out", Expr::u32(0)));
    let body = vec![a, Node::store("out", Expr::u32(0), stored)];
    let program = vyre_foundation::ir::Program::wrapped(vec![out], [workgroup, 1, 1], body);
    VyreProgram(program)
}

fn a_plus(number: u32) -> Expr {
    Expr::add(Expr::var("a"), Expr::u32(number))
}

fn key(program: &VyreProgram) -> PipelineFingerprint {
    PipelineFingerprint::of(program).expect("it can be keyed")
}

fn their_key(program: &VyreProgram) -> synchronous::PipelineFingerprint {
    synchronous::PipelineFingerprint::of(&program.0)
}

fn scope() -> CompileScope {
    CompileScope::new("vyre 0.6.3", "spirv").expect("a scope")
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().expect("a runtime")
}

#[test]
fn spellings_that_its_canonicalizer_unites_share_a_key() {
    let other_spelling = program(1, Expr::add(Expr::u32(1), Expr::var("a")));
    let one = program(1, a_plus(1));
    assert_ne!(
        one.0.to_wire().unwrap(),
        other_spelling.0.to_wire().unwrap()
    );
    assert_eq!(their_key(&one), their_key(&other_spelling));
    assert_eq!(key(&one), key(&other_spelling));
}

#[test]
fn different_programs_have_different_keys() {
    let programs = [
        program(1, a_plus(1)),
        program(1, a_plus(2)),
        program(64, a_plus(1)),
        program(1, Expr::sub(Expr::var("a"), Expr::u32(1))),
        program(1, Expr::sub(Expr::u32(1), Expr::var("a"))),
    ];
    for (number, one) in programs.iter().enumerate() {
        for other in &programs[..number] {
            assert_ne!(key(one), key(other));
            assert_ne!(their_key(one), their_key(other));
        }
    }
}

#[test]
fn what_is_compiled_is_the_program_that_was_keyed() {
    let one = program(1, Expr::add(Expr::u32(1), Expr::var("a")));
    let canonical = one.canonicalize().unwrap();
    let compiled = VyreProgram(canonical.program().unwrap());
    assert_eq!(key(&compiled), key(&one));
    assert_eq!(their_key(&compiled), their_key(&one));
}

/// The wire is that of this release of their crate: with another one, its domain is another.
#[test]
fn the_key_is_as_it_was() {
    let expected = "4fb364c6185a390924b8887cac840d32f13a3a33966101dd10a25a9b3a93574c";
    assert_eq!(key(&program(1, a_plus(1))).to_hex(), expected);
}

/// Their files have another name and another form. Whoever has the programs can move the artifacts.
#[test]
fn artifacts_of_its_cache_can_be_moved() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = synchronous::DiskCache::new(folder.path().join("theirs")).unwrap();
    let programs = [program(1, a_plus(1)), program(1, a_plus(2))];
    for (number, program) in programs.iter().enumerate() {
        theirs.put(their_key(program), vec![number as u8; 1000]);
    }
    runtime().block_on(async {
        let ours = DiskCache::new(folder.path().join("ours")).await.unwrap();
        for program in &programs {
            let artifact = theirs.get(&their_key(program)).expect("it is there");
            let key = key(program).scoped(&scope());
            ours.put(&key, Artifact::new(artifact)).await.unwrap();
        }
        ours.flush().await.unwrap();
        let cache = LayeredPipelineCache::builder().tier(ours).build();
        for (number, program) in programs.into_iter().enumerate() {
            let scope = scope();
            let request = cache.compile(&scope).program(program);
            let found = request
                .run(|_, _| -> Result<Artifact, Unkeyable> { panic!("it was moved") })
                .await
                .unwrap();
            assert_eq!(found.artifact.payload()[..], vec![number as u8; 1000]);
        }
    });
}
