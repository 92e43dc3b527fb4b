//! Shader modules: canonical form and key of `naga::Module`.

mod build;
mod digest;
mod limits;
mod module;
mod place;
mod rebase;
mod rules;
mod special;
mod values;
mod wire;

use naga::Module;
use naga::valid::ModuleInfo;

use super::{Program, ToWire, Unkeyable, WireWriter};

/// How deep blocks may nest in blocks, and types and constants in their like. Beyond it a module
/// is not keyed, so that no module can exhaust the stack.
pub const MAX_NESTING: usize = 128;

/// A shader module in the one form that all its spellings share.
///
/// The module is valid, holds nothing that no entry point reaches, and is what a compile function
/// is to compile; the info is what naga's back ends ask for beside it.
#[derive(Debug, Clone)]
pub struct CanonicalModule {
    module: Module,
    info: ModuleInfo,
}

impl CanonicalModule {
    /// The canonical module.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    /// What naga's validator found out about [`module`](Self::module).
    #[must_use]
    pub const fn info(&self) -> &ModuleInfo {
        &self.info
    }

    /// The module and its info, for callers that change them: `process_overrides` is one.
    #[must_use]
    pub fn into_parts(self) -> (Module, ModuleInfo) {
        (self.module, self.info)
    }
}

impl Program for Module {
    /// Names the major version of naga: another IR is another program.
    const DOMAIN: &'static str = "naga/30";
    const SCHEMA: u32 = 1;
    type Canonical = CanonicalModule;

    fn canonicalize(&self) -> Result<CanonicalModule, Unkeyable> {
        build::canonicalize(self)
    }
}

impl ToWire for CanonicalModule {
    type Program = Module;

    fn write_body(&self, wire: &mut WireWriter) {
        wire::module(wire, &self.module);
    }
}

fn too_deep(what: &str) -> Unkeyable {
    Unkeyable::new(format!("{what} nest deeper than {MAX_NESTING}"))
}
