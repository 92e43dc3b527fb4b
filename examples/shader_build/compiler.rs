//! The compiler: naga, from WGSL to SPIR-V.

use anyhow::Result;
use bytes::Bytes;
use naga::back::{spv, wgsl};
use naga::front::wgsl::parse_str;
use naga::valid::{ModuleInfo, ValidationError, Validator};
use naga::{Module, WithSpan};
use pipeline_cache::CompileScope;
use pipeline_cache::key::naga::CanonicalModule;

use crate::build_passes::compiler::Compiler;
use crate::build_passes::own::WithOwnPasses;
use crate::naga_compiler::spirv::Spirv;
use crate::naga_compiler::{NAGA, VALIDATION};

/// naga, from WGSL to SPIR-V.
#[derive(Debug)]
pub(crate) struct Naga {
    spirv: Spirv,
    scope: CompileScope,
    front_end: String,
    toolchain: String,
}

impl Naga {
    pub(crate) fn new() -> Result<Self> {
        let spirv = Spirv::new((1, 3), true);
        Ok(Self {
            scope: spirv.scope()?,
            spirv,
            front_end: format!("{NAGA} wgsl, without options"),
            toolchain: format!("naga {}", NAGA.version("naga").unwrap_or_default()),
        })
    }
}

impl Compiler for Naga {
    type Program = Module;

    const PROVENANCE: &'static str = "pipeline-cache-tools/shader_build";
    const LANGUAGE: &'static str = "WGSL";
    const RESPELLED: &'static str = "with other names and in another order";

    fn scope(&self) -> &CompileScope {
        &self.scope
    }

    fn front_end(&self) -> &str {
        &self.front_end
    }

    fn toolchain(&self) -> &str {
        &self.toolchain
    }

    fn parse(source: &Bytes) -> Result<Module> {
        Ok(parse_str(std::str::from_utf8(source)?)?)
    }

    /// The error is naga's message, with file and line.
    fn check(&self, name: &str, source: &Bytes) -> Result<Module, String> {
        let text = std::str::from_utf8(source).map_err(|error| not_utf8(name, source, &error))?;
        let module = parse_str(text).map_err(|error| error.emit_to_string_with_path(text, name))?;
        match validate(&module) {
            Ok(_info) => Ok(module),
            Err(error) => Err(error.emit_to_string_with_path(text, name)),
        }
    }

    /// Printed back to WGSL: other names, another layout, another order.
    fn respell(&self, module: &Module) -> Result<Bytes, String> {
        let info = validate(module).map_err(|error| error.to_string())?;
        let text = wgsl::write_string(module, &info, wgsl::WriterFlags::EXPLICIT_TYPES)
            .map_err(|error| error.to_string())?;
        Ok(text.into())
    }

    fn compile_canonical(&self, canonical: &CanonicalModule) -> Result<Vec<u8>> {
        self.spirv.write(canonical.module(), canonical.info()?)
    }

    fn compile_program(&self, module: &Module) -> Result<Vec<u8>> {
        self.spirv.write(module, &validate(module)?)
    }
}

impl WithOwnPasses for Naga {}

/// Checks all that naga can check, against what the SPIR-V writer can write.
fn validate(module: &Module) -> Result<ModuleInfo, Box<WithSpan<ValidationError>>> {
    let mut validator = Validator::new(VALIDATION, spv::supported_capabilities());
    validator.validate(module).map_err(Box::new)
}

fn not_utf8(name: &str, text: &[u8], error: &std::str::Utf8Error) -> String {
    let before = &text[..error.valid_up_to()];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    format!("error: {name}:{line}: not WGSL: {error}")
}
