//! The compiler, as a build knows it.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use pipeline_cache::CompileScope;
use pipeline_cache::key::wasm::{CanonicalModule, WasmModule};

use crate::build_passes::compiler::Compiler;
use crate::build_passes::own::{OwnPasses, WithOwnPasses};
use crate::build_passes::programs::Checked;
use crate::wasmtime_compiler::{self, FRONT_END, Wasmtime};
use crate::{functions, respell};

impl Compiler for Wasmtime {
    type Program = WasmModule;

    const PROVENANCE: &'static str = "pipeline-cache-tools/wasm_build";
    const LANGUAGE: &'static str = "WebAssembly";
    const RESPELLED: &'static str = "without names and with the functions in the opposite order";

    fn scope(&self) -> &CompileScope {
        &self.scope
    }

    fn front_end(&self) -> &str {
        FRONT_END
    }

    fn toolchain(&self) -> &str {
        &self.toolchain
    }

    fn parse(source: &Bytes) -> Result<WasmModule> {
        wasmtime_compiler::parse(source)
    }

    fn check(&self, name: &str, source: &Bytes) -> Result<WasmModule, String> {
        Self::parse(source).map_err(|error| format!("error: {name}: {error}"))
    }

    fn respell(&self, module: &WasmModule) -> Result<Bytes, String> {
        let respelled = respell::respell(module.bytes());
        respelled
            .map(Bytes::from)
            .map_err(|error| error.to_string())
    }

    fn compile_canonical(&self, canonical: &CanonicalModule) -> Result<Vec<u8>> {
        self.compile(canonical.bytes())
    }

    fn compile_program(&self, module: &WasmModule) -> Result<Vec<u8>> {
        self.compile(module.bytes())
    }
}

impl WithOwnPasses for Wasmtime {
    async fn own_passes(&self, programs: &[Checked<Self>], folder: &Path) -> Result<OwnPasses> {
        functions::passes(self, programs, folder).await
    }
}
