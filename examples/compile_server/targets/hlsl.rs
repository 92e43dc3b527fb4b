//! naga's writer of the high-level shading language of Direct3D.

use std::collections::BTreeMap;

use naga::Module;
use naga::back::hlsl::{
    BindingMap, Options, PipelineOptions, SamplerHeapBindTargets, ShaderModel, Writer,
};
use naga::valid::ModuleInfo;
use pipeline_cache::CompileScope;
use pipeline_cache::key::CompileScopeError;

use super::bounded::BoundedText;
use super::{BadChoice, Language, unknown_version};
use crate::naga_compiler::scope;
use crate::shader::ShaderError;

const MODELS: [(&str, ShaderModel); 12] = [
    ("5.0", ShaderModel::V5_0),
    ("5.1", ShaderModel::V5_1),
    ("6.0", ShaderModel::V6_0),
    ("6.1", ShaderModel::V6_1),
    ("6.2", ShaderModel::V6_2),
    ("6.3", ShaderModel::V6_3),
    ("6.4", ShaderModel::V6_4),
    ("6.5", ShaderModel::V6_5),
    ("6.6", ShaderModel::V6_6),
    ("6.7", ShaderModel::V6_7),
    ("6.8", ShaderModel::V6_8),
    ("6.9", ShaderModel::V6_9),
];

pub(super) fn shader_model(text: &str) -> Result<ShaderModel, BadChoice> {
    match MODELS.into_iter().find(|(name, _)| *name == text) {
        Some((_, model)) => Ok(model),
        None => Err(unknown_version(MODELS.into_iter().map(|(name, _)| name))),
    }
}

#[derive(Debug)]
pub(super) struct Hlsl {
    options: Options,
    pipeline: PipelineOptions,
}

impl Hlsl {
    pub(super) fn new(model: ShaderModel, bounds_checks: bool) -> Self {
        Self {
            options: Options {
                shader_model: model,
                // With an empty map: bindings are as the shader has them.
                fake_missing_bindings: true,
                binding_map: BindingMap::default(),
                special_constants_binding: None,
                immediates_target: None,
                sampler_heap_target: SamplerHeapBindTargets::default(),
                sampler_buffer_binding_map: BTreeMap::new(),
                dynamic_storage_buffer_offsets_targets: BTreeMap::new(),
                external_texture_binding_map: BTreeMap::new(),
                zero_initialize_workgroup_memory: true,
                restrict_indexing: bounds_checks,
                force_loop_bounding: true,
                task_dispatch_limits: None,
                mesh_shader_primitive_indices_clamp: true,
                ray_query_initialization_tracking: true,
            },
            pipeline: PipelineOptions { entry_point: None },
        }
    }

    /// The patterns name every field, as those of the SPIR-V writer do.
    pub(super) fn scope(&self) -> Result<CompileScope, CompileScopeError> {
        let Options {
            shader_model,
            binding_map,
            fake_missing_bindings,
            special_constants_binding,
            immediates_target,
            sampler_heap_target,
            sampler_buffer_binding_map,
            dynamic_storage_buffer_offsets_targets,
            external_texture_binding_map,
            zero_initialize_workgroup_memory,
            restrict_indexing,
            force_loop_bounding,
            task_dispatch_limits,
            mesh_shader_primitive_indices_clamp,
            ray_query_initialization_tracking,
        } = &self.options;
        let PipelineOptions { entry_point } = &self.pipeline;
        scope(
            format!("hlsl-{}", shader_model.to_str().replace('_', ".")),
            Language::Hlsl.capabilities(),
            &[
                ("shader-model", shader_model),
                ("binding-map", binding_map),
                ("fake-missing-bindings", fake_missing_bindings),
                ("special-constants-binding", special_constants_binding),
                ("immediates-target", immediates_target),
                ("sampler-heap-target", sampler_heap_target),
                ("sampler-buffer-binding-map", sampler_buffer_binding_map),
                (
                    "dynamic-storage-buffer-offsets-targets",
                    dynamic_storage_buffer_offsets_targets,
                ),
                ("external-texture-binding-map", external_texture_binding_map),
                (
                    "zero-initialize-workgroup-memory",
                    zero_initialize_workgroup_memory,
                ),
                ("restrict-indexing", restrict_indexing),
                ("force-loop-bounding", force_loop_bounding),
                ("task-dispatch-limits", task_dispatch_limits),
                (
                    "mesh-shader-primitive-indices-clamp",
                    mesh_shader_primitive_indices_clamp,
                ),
                (
                    "ray-query-initialization-tracking",
                    ray_query_initialization_tracking,
                ),
                ("entry-point", entry_point),
            ],
        )
    }

    pub(super) fn write(&self, module: &Module, info: &ModuleInfo) -> Result<String, ShaderError> {
        let mut text = BoundedText::default();
        let mut writer = Writer::new(&mut text, &self.options, &self.pipeline);
        let written = writer.write(module, info, None);
        match written {
            // An entry point that cannot be written is left out, and told here.
            Ok(written) => {
                let names: Result<Vec<_>, _> = written.entry_point_names.into_iter().collect();
                text.finish("HLSL", names.map(drop))
            }
            Err(error) => text.finish("HLSL", Err(error)),
        }
    }
}
