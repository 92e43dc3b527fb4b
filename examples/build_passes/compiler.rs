//! What a build needs to know of its compiler.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use pipeline_cache::{ArtifactMetadata, CompileScope, Program};

/// A compiler, with all that decides what it makes.
pub(crate) trait Compiler: fmt::Debug + Send + Sync + 'static {
    /// What is parsed, keyed and compiled.
    type Program: Program<Canonical: Send + Sync> + fmt::Debug + Send + Sync;

    /// Who makes these artifacts. What another machine serves must say the same.
    const PROVENANCE: &'static str;

    /// What the sources are written in.
    const LANGUAGE: &'static str;

    /// How another spelling of a program differs.
    const RESPELLED: &'static str;

    /// All that is not the program and changes the artifact.
    fn scope(&self) -> &CompileScope;

    /// The front end, for known spellings: what decides what a source means.
    fn front_end(&self) -> &str;

    /// The compiler's name and version, for people.
    fn toolchain(&self) -> &str;

    /// Reads a source, and does not check it.
    fn parse(source: &Bytes) -> Result<Self::Program>;

    /// Reads a source and checks it. The error is a message for people, with the name of the
    /// program in it.
    fn check(&self, name: &str, source: &Bytes) -> Result<Self::Program, String>;

    /// Writes a program in another spelling. The error is a message for people.
    fn respell(&self, program: &Self::Program) -> Result<Bytes, String>;

    /// The artifact of a canonical form.
    fn compile_canonical(
        &self,
        canonical: &<Self::Program as Program>::Canonical,
    ) -> Result<Vec<u8>>;

    /// The artifact of a program as it is, which is checked first.
    fn compile_program(&self, program: &Self::Program) -> Result<Vec<u8>>;

    /// What is kept beside an artifact.
    fn metadata(&self, compile_time: Duration) -> ArtifactMetadata {
        ArtifactMetadata::new()
            .with_provenance(Self::PROVENANCE)
            .with_device(self.scope().target())
            .with_toolchain(self.toolchain())
            .with_compile_time(compile_time)
    }
}
