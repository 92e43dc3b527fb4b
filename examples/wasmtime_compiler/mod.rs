//! The compiler: wasmtime's, ahead of time, its options, and the scope that names them.

use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use anyhow::{Result, anyhow, ensure};
use bytes::Bytes;
use cranelift_codegen::settings;
use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{CompileScope, LockedCrates, locked_crates};
use wasmtime::{CacheStore, Config, Engine, Inlining, OptLevel, Strategy, WasmBacktraceDetails};

/// The front end, for known spellings.
pub(crate) const FRONT_END: &str = "the WebAssembly binary format";

/// The first bytes of a module. A component has others.
const HEADER: &[u8] = b"\0asm\x01\0\0\0";

/// The compiler, from the files that pin it. wasmtime names the versions of its own parts, and
/// Cargo chooses those of the code generator.
const COMPILER: LockedCrates = locked_crates!(
    "../../Cargo.lock",
    ["../Cargo.toml"],
    ["wasmtime", "cranelift-codegen", "regalloc2"]
);

/// wasmtime, from WebAssembly to the machine code of this machine.
#[derive(Debug)]
pub(crate) struct Wasmtime {
    engine: Engine,
    /// Asked for each function before it is compiled.
    functions: Option<Arc<dyn CacheStore>>,
    pub(crate) scope: CompileScope,
    /// Its name and version, for people.
    pub(crate) toolchain: String,
}

impl Wasmtime {
    pub(crate) fn new() -> Result<Self> {
        let engine = engine(&config())?;
        Ok(Self {
            scope: scope(&engine)?,
            engine,
            functions: None,
            toolchain: format!(
                "wasmtime {}",
                COMPILER.version("wasmtime").unwrap_or_default()
            ),
        })
    }

    /// The same compiler, which asks a store for each function before it compiles it.
    pub(crate) fn with_functions(&self, functions: Arc<dyn CacheStore>) -> Self {
        Self {
            engine: self.engine.clone(),
            functions: Some(functions),
            scope: self.scope.clone(),
            toolchain: self.toolchain.clone(),
        }
    }

    pub(crate) fn compile(&self, module: &[u8]) -> Result<Vec<u8>> {
        let engine = match &self.functions {
            None => self.engine.clone(),
            Some(functions) => function_engine(Arc::clone(functions))?,
        };
        engine.precompile_module(module).map_err(with_causes)
    }
}

/// A module is parsed where its key is made: this is all that there is to do before.
pub(crate) fn parse(source: &Bytes) -> Result<WasmModule> {
    ensure!(
        source.starts_with(HEADER),
        "not a WebAssembly module in the binary format"
    );
    Ok(WasmModule::new(source.clone()))
}

const STRATEGY: Strategy = Strategy::Cranelift;
const OPT_LEVEL: OptLevel = OptLevel::Speed;
const INLINING: Inlining = Inlining::No;
/// By default a variable of the environment decides.
const BACKTRACE_DETAILS: WasmBacktraceDetails = WasmBacktraceDetails::Disable;
/// The bytes of memory images of which an artifact may hold a copy that is mostly zeros. It is no
/// part of the compatibility hash: an engine loads either form.
const DENSE_IMAGE_BYTES: u64 = 16 << 20;

/// Every option that is set here and changes the artifact is in the [`scope`]. The others have the
/// values that this version of wasmtime gives them.
fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(STRATEGY)
        .cranelift_opt_level(OPT_LEVEL)
        .compiler_inlining(INLINING)
        .wasm_backtrace_details(BACKTRACE_DETAILS)
        .memory_guaranteed_dense_image_size(DENSE_IMAGE_BYTES)
        // It changes no artifact.
        .parallel_compilation(true);
    config
}

/// All that is not the program and changes the artifact.
fn scope(engine: &Engine) -> Result<CompileScope> {
    let host = cranelift_native::builder().map_err(|error| anyhow!(error))?;
    let host = host.finish(settings::Flags::new(settings::builder()))?;
    let flags = host.isa_flags();
    let features = flags.iter().filter(|flag| flag.as_bool() == Some(true));
    let features: Vec<_> = features.map(|flag| flag.name).collect();

    let options: [(&str, &dyn Debug); 5] = [
        ("strategy", &STRATEGY),
        ("cranelift-opt-level", &OPT_LEVEL),
        ("inlining", &INLINING),
        ("backtrace-details", &BACKTRACE_DETAILS),
        ("dense-image-bytes", &DENSE_IMAGE_BYTES),
    ];
    let scope = CompileScope::new(COMPILER.to_string(), host.triple().to_string())?
        .option("host-features", features.join(" "))
        // It covers target, host and most options, those that are not set here among them.
        .option("compatibility", compatibility(engine));
    Ok(options.into_iter().fold(scope, |scope, (name, value)| {
        scope.option(name, format!("{value:?}"))
    }))
}

/// An engine for one module, on one thread. The key that wasmtime gives a function depends on what
/// was compiled before with the same buffers: with two threads, up to a sixth of the functions of a
/// module had another key the next time.
fn function_engine(functions: Arc<dyn CacheStore>) -> Result<Engine> {
    let mut config = config();
    config.parallel_compilation(false);
    let config = config.enable_incremental_compilation(functions);
    engine(config.map_err(with_causes)?)
}

fn engine(config: &Config) -> Result<Engine> {
    Engine::new(config).map_err(with_causes)
}

/// What artifacts must share with the engine that loads them, as 64 hex digits.
fn compatibility(engine: &Engine) -> String {
    struct Blake3(blake3::Hasher);

    impl Hasher for Blake3 {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        /// Nobody asks for the short form.
        fn finish(&self) -> u64 {
            0
        }
    }

    let mut hasher = Blake3(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.0.finalize().to_string()
}

/// wasmtime's error and what caused it, on one line.
fn with_causes(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}
