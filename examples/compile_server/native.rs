//! WebAssembly to the machine code of this machine, by wasmtime. Of a module that has changed, only the
//! functions that differ are compiled.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::layered::{CloseReport, Compiled};
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileError, CompileInput, DiskCache, InMemoryPipelineCache,
    LayeredPipelineCache,
};
use tokio::runtime::Handle;

use crate::compile::Wish;
use crate::function_store::FunctionStore;
use crate::shader::ShaderError;
use crate::site::PROVENANCE;
use crate::wasmtime_compiler::{self, FRONT_END, Wasmtime};

/// The most functions in memory, and their bytes.
const FUNCTIONS: u64 = 1 << 20;
const FUNCTION_BYTES: u64 = 64 << 20;

/// Functions that may wait to be written. A compile would wait for those beyond.
const MAX_UNWRITTEN: usize = 1 << 16;
const MAX_UNWRITTEN_BYTES: u64 = 64 << 20;

/// How long a compile waits for one function. It is local, and compiles in a few milliseconds.
const DEADLINE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(crate) struct Native {
    compiler: Arc<Wasmtime>,
    /// The functions that are kept.
    functions: LayeredPipelineCache,
}

impl Native {
    /// Keeps functions in memory and in this folder, up to so many bytes there. They are of no use to
    /// other machines than those of this kind, and many: no remote is asked for them.
    pub(crate) async fn open(folder: &Path, max_bytes: u64) -> Result<Option<Self>> {
        let disk = DiskCache::builder().root(folder).max_bytes(max_bytes);
        let disk = disk.open().await;
        let disk = disk.with_context(|| format!("cannot open {}", folder.display()))?;
        let functions = LayeredPipelineCache::builder()
            .tier(InMemoryPipelineCache::with_limits(
                FUNCTIONS,
                FUNCTION_BYTES,
            ))
            .tier(disk)
            .background_limits(MAX_UNWRITTEN, MAX_UNWRITTEN_BYTES)
            // The compiler has all cores.
            .background_concurrency(1)
            .build();
        let compiler = Wasmtime::new()?;
        let (runtime, scope) = (Handle::current(), &compiler.scope);
        let store = FunctionStore::new(functions.clone(), scope, runtime, DEADLINE)?;
        Ok(Some(Self {
            compiler: Arc::new(compiler.with_functions(Arc::new(store))),
            functions,
        }))
    }

    pub(crate) async fn compile(
        &self,
        cache: &LayeredPipelineCache,
        wish: Wish,
    ) -> Result<Compiled, CompileError<ShaderError>> {
        let compiler = Arc::clone(&self.compiler);
        cache
            .compile(&self.compiler.scope)
            .source(FRONT_END, wish.source, parse)
            .deadline(wish.deadline)
            .priority(wish.priority)
            .remember_failures(true)
            .run(move |input, _cx| write(&compiler, &input))
            .await
    }

    pub(crate) async fn close(&self, limit: Duration) -> CloseReport {
        self.functions.close(limit).await
    }
}

fn parse(source: &Bytes) -> Result<WasmModule, ShaderError> {
    wasmtime_compiler::parse(source).map_err(|error| ShaderError::new(error.to_string()))
}

/// Compiles, on a thread of the compile pool, which may wait for functions.
fn write(compiler: &Wasmtime, input: &CompileInput<WasmModule>) -> Result<Artifact, ShaderError> {
    let began = Instant::now();
    let module = match input {
        CompileInput::Canonical(canonical) => canonical.bytes(),
        CompileInput::Unkeyable(module, _) | CompileInput::PassedBy(module) => module.bytes(),
    };
    let code = compiler.compile(module);
    let code = code.map_err(|error| ShaderError::new(format!("{error:#}")))?;
    let metadata = ArtifactMetadata::new()
        .with_provenance(PROVENANCE)
        .with_device(compiler.scope.target())
        .with_toolchain(&compiler.toolchain)
        .with_compile_time(began.elapsed());
    Ok(Artifact::with_metadata(code, metadata))
}
