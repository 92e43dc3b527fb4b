//! naga's SPIR-V writer, its options, and the scope that names every one of them.

use anyhow::{Context as _, Result};
use naga::Module;
use naga::back::spv::{self, Options, WriterFlags, ZeroInitializeWorkgroupMemoryMode};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use pipeline_cache::CompileScope;
use pipeline_cache::key::CompileScopeError;

/// The writer, with its options.
#[derive(Debug)]
pub(crate) struct Spirv(Options<'static>);

impl Spirv {
    /// Every option has a value here and not by default: some defaults differ between debug and
    /// release builds, and all may differ between versions.
    pub(crate) fn new(version: (u8, u8), bounds_checks: bool) -> Self {
        let checked = |policy| match bounds_checks {
            true => policy,
            false => BoundsCheckPolicy::Unchecked,
        };
        Self(Options {
            lang_version: version,
            flags: WriterFlags::LABEL_VARYINGS | WriterFlags::CLAMP_FRAG_DEPTH,
            // With an empty map: bindings are as the shader has them.
            fake_missing_bindings: true,
            binding_map: spv::BindingMap::default(),
            capabilities: None,
            bounds_check_policies: BoundsCheckPolicies {
                index: checked(BoundsCheckPolicy::Restrict),
                buffer: checked(BoundsCheckPolicy::Restrict),
                image_load: checked(BoundsCheckPolicy::ReadZeroSkipWrite),
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
        })
    }

    /// All that is not the program and changes the artifact.
    ///
    /// The pattern names every field, so that an option which a later naga adds does not compile
    /// until it is named in the scope.
    pub(crate) fn scope(&self) -> Result<CompileScope, CompileScopeError> {
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
        } = &self.0;
        let (major, minor) = lang_version;
        super::scope(
            format!("spirv-{major}.{minor}"),
            spv::supported_capabilities(),
            &[
                ("lang-version", lang_version),
                ("flags", flags),
                ("fake-missing-bindings", fake_missing_bindings),
                ("binding-map", binding_map),
                ("capabilities", capabilities),
                ("bounds-check-policies", bounds_check_policies),
                (
                    "zero-initialize-workgroup-memory",
                    zero_initialize_workgroup_memory,
                ),
                ("force-loop-bounding", force_loop_bounding),
                (
                    "ray-query-initialization-tracking",
                    ray_query_initialization_tracking,
                ),
                (
                    "trace-ray-argument-validation",
                    trace_ray_argument_validation,
                ),
                ("use-storage-input-output-16", use_storage_input_output_16),
                ("debug-info", &debug_info.is_some()),
                ("task-dispatch-limits", task_dispatch_limits),
                (
                    "mesh-shader-primitive-indices-clamp",
                    mesh_shader_primitive_indices_clamp,
                ),
                ("emit-int-div-checks", emit_int_div_checks),
            ],
        )
    }

    /// SPIR-V of a module, as little-endian bytes.
    pub(crate) fn write(&self, module: &Module, info: &ModuleInfo) -> Result<Vec<u8>> {
        let words = spv::write_vec(module, info, &self.0, None)
            .context("naga cannot write this module as SPIR-V")?;
        Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
    }
}
