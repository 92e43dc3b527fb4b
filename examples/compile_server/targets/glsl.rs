//! naga's writer of the OpenGL shading language. A file of it has one entry point.

use naga::Module;
use naga::back::glsl::{
    BindingMap, Options, PipelineOptions, SUPPORTED_CORE_VERSIONS, SUPPORTED_ES_VERSIONS, Version,
    Writer, WriterFlags,
};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::ModuleInfo;
use pipeline_cache::CompileScope;
use pipeline_cache::key::CompileScopeError;

use super::bounded::BoundedText;
use super::{BadChoice, Language, not_written, unknown_version};
use crate::naga_compiler::scope;
use crate::shader::ShaderError;

/// A version such as `450` or `310es`.
pub(super) fn version(text: &str) -> Result<Version, BadChoice> {
    let all = versions();
    match all.iter().find(|(name, _)| name == text) {
        Some((_, version)) => Ok(*version),
        None => Err(unknown_version(all.iter().map(|(name, _)| name))),
    }
}

fn versions() -> Vec<(String, Version)> {
    let core = SUPPORTED_CORE_VERSIONS.iter();
    let core = core.map(|version| (version.to_string(), Version::Desktop(*version)));
    let embedded = SUPPORTED_ES_VERSIONS.iter();
    let embedded = embedded.map(|version| (format!("{version}es"), Version::new_gles(*version)));
    core.chain(embedded).collect()
}

#[derive(Debug)]
pub(super) struct Glsl {
    options: Options,
    /// The only one of the module, if none is named.
    entry_point: Option<String>,
    multiview: Option<std::num::NonZeroU32>,
    policies: BoundsCheckPolicies,
}

impl Glsl {
    pub(super) fn new(version: Version, entry_point: Option<String>, bounds_checks: bool) -> Self {
        let checked = |policy| match bounds_checks {
            true => policy,
            false => BoundsCheckPolicy::Unchecked,
        };
        Self {
            options: Options {
                version,
                writer_flags: WriterFlags::ADJUST_COORDINATE_SPACE,
                binding_map: BindingMap::default(),
                zero_initialize_workgroup_memory: true,
            },
            entry_point,
            multiview: None,
            policies: BoundsCheckPolicies {
                index: checked(BoundsCheckPolicy::Restrict),
                buffer: checked(BoundsCheckPolicy::Restrict),
                image_load: checked(BoundsCheckPolicy::ReadZeroSkipWrite),
                binding_array: BoundsCheckPolicy::Unchecked,
            },
        }
    }

    /// The pattern names every field, as those of the SPIR-V writer do. The stage is that of the
    /// entry point.
    pub(super) fn scope(&self) -> Result<CompileScope, CompileScopeError> {
        let Options {
            version,
            writer_flags,
            binding_map,
            zero_initialize_workgroup_memory,
        } = &self.options;
        let name = match version {
            Version::Desktop(number) => number.to_string(),
            Version::Embedded { version, .. } => format!("{version}es"),
        };
        scope(
            format!("glsl-{name}"),
            Language::Glsl.capabilities(),
            &[
                ("version", version),
                ("writer-flags", writer_flags),
                ("binding-map", binding_map),
                (
                    "zero-initialize-workgroup-memory",
                    zero_initialize_workgroup_memory,
                ),
                ("entry-point", &self.entry_point),
                ("multiview", &self.multiview),
                ("bounds-check-policies", &self.policies),
            ],
        )
    }

    pub(super) fn write(&self, module: &Module, info: &ModuleInfo) -> Result<String, ShaderError> {
        let entry_point = match &self.entry_point {
            Some(name) => {
                let named = module.entry_points.iter().find(|entry| entry.name == *name);
                named.ok_or_else(|| not_written("GLSL", format_args!("no entry point `{name}`")))?
            }
            None => match module.entry_points.as_slice() {
                [only] => only,
                others => {
                    let count = others.len();
                    let reason = format!("it has {count} entry points: name one with ?entry=");
                    return Err(not_written("GLSL", reason));
                }
            },
        };
        let pipeline = PipelineOptions {
            shader_stage: entry_point.stage,
            entry_point: entry_point.name.clone(),
            multiview: self.multiview,
        };
        let mut text = BoundedText::default();
        let writer = Writer::new(
            &mut text,
            module,
            info,
            &self.options,
            &pipeline,
            self.policies,
        );
        let written = writer.and_then(|mut writer| writer.write());
        text.finish("GLSL", written.map(drop))
    }
}
