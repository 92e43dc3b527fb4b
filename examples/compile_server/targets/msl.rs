//! naga's writer of the Metal shading language.

use naga::Module;
use naga::back::msl::{EntryPointResourceMap, Options, PipelineOptions, Writer};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use pipeline_cache::CompileScope;
use pipeline_cache::key::CompileScopeError;

use super::Language;
use super::bounded::BoundedText;
use crate::naga_compiler::scope;
use crate::shader::ShaderError;

pub(super) const VERSIONS: &[(u8, u8)] = &[
    (1, 0),
    (1, 1),
    (1, 2),
    (2, 0),
    (2, 1),
    (2, 2),
    (2, 3),
    (2, 4),
    (3, 0),
    (3, 1),
    (3, 2),
    (4, 0),
];

#[derive(Debug)]
pub(super) struct Msl {
    options: Options,
    pipeline: PipelineOptions,
}

impl Msl {
    pub(super) fn new(version: (u8, u8), bounds_checks: bool) -> Self {
        let checked = |policy| match bounds_checks {
            true => policy,
            false => BoundsCheckPolicy::Unchecked,
        };
        Self {
            options: Options {
                lang_version: version,
                per_entry_point_map: EntryPointResourceMap::default(),
                inline_samplers: Vec::new(),
                spirv_cross_compatibility: false,
                // With an empty map: bindings are numbered.
                fake_missing_bindings: true,
                bounds_check_policies: BoundsCheckPolicies {
                    index: checked(BoundsCheckPolicy::Restrict),
                    buffer: checked(BoundsCheckPolicy::Restrict),
                    image_load: checked(BoundsCheckPolicy::ReadZeroSkipWrite),
                    binding_array: BoundsCheckPolicy::Unchecked,
                },
                zero_initialize_workgroup_memory: true,
                force_loop_bounding: true,
                task_dispatch_limits: None,
                mesh_shader_primitive_indices_clamp: true,
                emit_int_div_checks: true,
                ray_query_initialization_tracking: true,
            },
            pipeline: PipelineOptions {
                entry_point: None,
                allow_and_force_point_size: false,
                vertex_pulling_transform: false,
                vertex_buffer_mappings: Vec::new(),
                binding_array_length_map: naga::FastHashMap::default(),
            },
        }
    }

    /// The patterns name every field, as those of the SPIR-V writer do.
    pub(super) fn scope(&self) -> Result<CompileScope, CompileScopeError> {
        let Options {
            lang_version,
            per_entry_point_map,
            inline_samplers,
            spirv_cross_compatibility,
            fake_missing_bindings,
            bounds_check_policies,
            zero_initialize_workgroup_memory,
            force_loop_bounding,
            task_dispatch_limits,
            mesh_shader_primitive_indices_clamp,
            emit_int_div_checks,
            ray_query_initialization_tracking,
        } = &self.options;
        let PipelineOptions {
            entry_point,
            allow_and_force_point_size,
            vertex_pulling_transform,
            vertex_buffer_mappings,
            binding_array_length_map,
        } = &self.pipeline;
        let (major, minor) = lang_version;
        scope(
            format!("msl-{major}.{minor}"),
            Language::Msl.capabilities(),
            &[
                ("lang-version", lang_version),
                ("per-entry-point-map", per_entry_point_map),
                ("inline-samplers", inline_samplers),
                ("spirv-cross-compatibility", spirv_cross_compatibility),
                ("fake-missing-bindings", fake_missing_bindings),
                ("bounds-check-policies", bounds_check_policies),
                (
                    "zero-initialize-workgroup-memory",
                    zero_initialize_workgroup_memory,
                ),
                ("force-loop-bounding", force_loop_bounding),
                ("task-dispatch-limits", task_dispatch_limits),
                (
                    "mesh-shader-primitive-indices-clamp",
                    mesh_shader_primitive_indices_clamp,
                ),
                ("emit-int-div-checks", emit_int_div_checks),
                (
                    "ray-query-initialization-tracking",
                    ray_query_initialization_tracking,
                ),
                ("entry-point", entry_point),
                ("allow-and-force-point-size", allow_and_force_point_size),
                ("vertex-pulling-transform", vertex_pulling_transform),
                ("vertex-buffer-mappings", vertex_buffer_mappings),
                ("binding-array-length-map", binding_array_length_map),
            ],
        )
    }

    pub(super) fn write(&self, module: &Module, info: &ModuleInfo) -> Result<String, ShaderError> {
        let mut writer = Writer::new(BoundedText::default());
        let written = writer.write(module, info, &self.options, &self.pipeline);
        let text = writer.finish();
        match written {
            // An entry point that cannot be written is left out, and told here.
            Ok(written) => {
                let names: Result<Vec<_>, _> = written.entry_point_names.into_iter().collect();
                text.finish("MSL", names.map(drop))
            }
            Err(error) => text.finish("MSL", Err(error)),
        }
    }
}
