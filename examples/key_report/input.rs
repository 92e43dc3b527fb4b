//! Files as programs: what is in them, and the parts of its key.

use anyhow::{Context as _, Result};
use pipeline_cache::explain::KeyParts;
use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{CompileScope, OpaqueProgram};
use std::path::Path;

/// A file that has a key.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) format: &'static str,
    pub(crate) parts: KeyParts,
}

/// The first bytes of a WebAssembly module.
const WASM: &[u8] = b"\0asm";
/// The first word of a SPIR-V module, in either order of bytes.
const SPIRV: [[u8; 4]; 2] = [0x0723_0203_u32.to_le_bytes(), 0x0723_0203_u32.to_be_bytes()];

/// Reads a file and takes its key apart. Parts that were kept have their scope already.
pub(crate) fn read(path: &Path, scope: Option<&CompileScope>) -> Result<Input> {
    let bytes = std::fs::read(path).context("cannot be read")?;
    let kept = std::str::from_utf8(&bytes).ok();
    if let Some(parts) = kept.and_then(|text| text.parse().ok()) {
        return Ok(Input {
            name: path.display().to_string(),
            format: "kept parts",
            parts,
        });
    }
    let (format, parts) = program(path, bytes)?;
    Ok(Input {
        name: path.display().to_string(),
        format,
        parts: match scope {
            Some(scope) => parts.scoped(scope),
            None => parts,
        },
    })
}

fn program(path: &Path, bytes: Vec<u8>) -> Result<(&'static str, KeyParts)> {
    if bytes.starts_with(WASM) {
        return Ok(("WebAssembly", KeyParts::of(&WasmModule::new(bytes))?));
    }
    if SPIRV.iter().any(|magic| bytes.starts_with(magic)) {
        let options = naga::front::spv::Options::default();
        let module = naga::front::spv::parse_u8_slice(&bytes, &options)?;
        return Ok(("SPIR-V", KeyParts::of(&module)?));
    }
    let extension = path.extension().and_then(|name| name.to_str());
    if extension == Some("wgsl") {
        let source = String::from_utf8(bytes).context("WGSL is UTF-8")?;
        let module = naga::front::wgsl::parse_str(&source)
            .map_err(|error| anyhow::anyhow!(error.emit_to_string(&source)))?;
        return Ok(("WGSL", KeyParts::of(&module)?));
    }
    let format = extension.unwrap_or("bytes").to_owned();
    Ok((
        "opaque bytes",
        KeyParts::of(&OpaqueProgram::new(format, bytes))?,
    ))
}
