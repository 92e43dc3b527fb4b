//! The compiler: naga's SPIR-V writer, its options, and the scope that names every one of them.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use naga::back::spv::{self, Options, WriterFlags, ZeroInitializeWorkgroupMemoryMode};
use naga::back::wgsl;
use naga::front::wgsl::parse_str;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{ModuleInfo, ValidationError, ValidationFlags, Validator};
use naga::{Module, WithSpan};
use pipeline_cache::key::CompileScopeError;
use pipeline_cache::key::naga::CanonicalModule;
use pipeline_cache::{CompileScope, LockedCrates, locked_crates};

use crate::build_passes::compiler::Compiler;
use crate::build_passes::own::WithOwnPasses;

/// What is compiled for.
const TARGET: &str = "spirv-1.3";

const VALIDATION: ValidationFlags = ValidationFlags::all();

/// The compiler, from the files that pin it: an upgraded naga is another scope, and so can never
/// be served what the old one made.
const NAGA: LockedCrates = locked_crates!("../../Cargo.lock", ["../Cargo.toml"], ["naga"]);

/// naga, from WGSL to SPIR-V.
#[derive(Debug)]
pub(crate) struct Naga {
    scope: CompileScope,
    front_end: String,
    toolchain: String,
}

impl Naga {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            scope: scope()?,
            front_end: format!("{NAGA} wgsl, without options"),
            toolchain: format!("naga {}", NAGA.version("naga").unwrap_or_default()),
        })
    }
}

impl Compiler for Naga {
    type Program = Module;

    const PROVENANCE: &'static str = "pipeline-cache-examples/shader_build";
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
        write_spirv(canonical.module(), canonical.info()?)
    }

    fn compile_program(&self, module: &Module) -> Result<Vec<u8>> {
        write_spirv(module, &validate(module)?)
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

/// SPIR-V of a module, as little-endian bytes.
fn write_spirv(module: &Module, info: &ModuleInfo) -> Result<Vec<u8>> {
    let words = spv::write_vec(module, info, &options(), None)
        .context("naga cannot write this module as SPIR-V")?;
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

/// Every option has a value here and not by default: some defaults differ between debug and
/// release builds, and all may differ between versions.
fn options() -> Options<'static> {
    Options {
        lang_version: (1, 3),
        flags: WriterFlags::LABEL_VARYINGS | WriterFlags::CLAMP_FRAG_DEPTH,
        // With an empty map: bindings are as the shader has them.
        fake_missing_bindings: true,
        binding_map: spv::BindingMap::default(),
        capabilities: None,
        bounds_check_policies: BoundsCheckPolicies {
            index: BoundsCheckPolicy::Restrict,
            buffer: BoundsCheckPolicy::Restrict,
            image_load: BoundsCheckPolicy::ReadZeroSkipWrite,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: ZeroInitializeWorkgroupMemoryMode::Polyfill,
        force_loop_bounding: true,
        ray_query_initialization_tracking: true,
        trace_ray_argument_validation: true,
        use_storage_input_output_16: false,
        debug_info: None,
        task_dispatch_limits: None,
        mesh_shader_primitive_indices_clamp: true,
        emit_int_div_checks: true,
    }
}

/// All that is not the program and changes the artifact.
///
/// The pattern names every field, so that an option which a later naga adds does not compile
/// until it is named in the scope.
fn scope() -> Result<CompileScope, CompileScopeError> {
    let Options {
        lang_version,
        flags,
        fake_missing_bindings,
        binding_map,
        capabilities,
        bounds_check_policies,
        zero_initialize_workgroup_memory,
        force_loop_bounding,
        ray_query_initialization_tracking,
        trace_ray_argument_validation,
        use_storage_input_output_16,
        debug_info,
        task_dispatch_limits,
        mesh_shader_primitive_indices_clamp,
        emit_int_div_checks,
    } = options();
    let options: [(&str, &dyn std::fmt::Debug); 17] = [
        ("validation", &VALIDATION),
        ("validation-capabilities", &spv::supported_capabilities()),
        ("lang-version", &lang_version),
        ("flags", &flags),
        ("fake-missing-bindings", &fake_missing_bindings),
        ("binding-map", &binding_map),
        ("capabilities", &capabilities),
        ("bounds-check-policies", &bounds_check_policies),
        (
            "zero-initialize-workgroup-memory",
            &zero_initialize_workgroup_memory,
        ),
        ("force-loop-bounding", &force_loop_bounding),
        (
            "ray-query-initialization-tracking",
            &ray_query_initialization_tracking,
        ),
        (
            "trace-ray-argument-validation",
            &trace_ray_argument_validation,
        ),
        ("use-storage-input-output-16", &use_storage_input_output_16),
        ("debug-info", &debug_info.is_some()),
        ("task-dispatch-limits", &task_dispatch_limits),
        (
            "mesh-shader-primitive-indices-clamp",
            &mesh_shader_primitive_indices_clamp,
        ),
        ("emit-int-div-checks", &emit_int_div_checks),
    ];
    let scope = CompileScope::new(NAGA.to_string(), TARGET)?;
    Ok(options.into_iter().fold(scope, |scope, (name, value)| {
        scope.option(name, format!("{value:?}"))
    }))
}
