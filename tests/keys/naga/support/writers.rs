//! naga's back ends, as judges of whether a module can be compiled.

use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

pub(crate) fn validate(module: &Module) -> ModuleInfo {
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(module)
        .unwrap()
}

/// A valid module, to be read.
pub(crate) fn wgsl(module: &Module) -> String {
    let flags = naga::back::wgsl::WriterFlags::empty();
    naga::back::wgsl::write_string(module, &validate(module), flags).unwrap()
}

pub(crate) type Writer = fn(&Module, &ModuleInfo) -> Result<(), String>;

/// naga's back ends, each as permissive as it can be.
pub(crate) fn writers() -> [(&'static str, Writer); 5] {
    fn text<E: ToString>(error: E) -> String {
        error.to_string()
    }
    [
        ("spirv", |module, info| {
            let options = naga::back::spv::Options {
                lang_version: (1, 5),
                ..Default::default()
            };
            naga::back::spv::write_vec(module, info, &options, None)
                .map(drop)
                .map_err(text)
        }),
        ("wgsl", |module, info| {
            let flags = naga::back::wgsl::WriterFlags::empty();
            let source = naga::back::wgsl::write_string(module, info, flags).map_err(text)?;
            let module = naga::front::wgsl::parse_str(&source).map_err(text)?;
            validate(&module);
            Ok(())
        }),
        ("msl", |module, info| {
            let options = naga::back::msl::Options {
                fake_missing_bindings: true,
                lang_version: (3, 1),
                ..Default::default()
            };
            naga::back::msl::write_string(module, info, &options, &Default::default())
                .map(drop)
                .map_err(text)
        }),
        ("hlsl", |module, info| {
            let options = naga::back::hlsl::Options {
                shader_model: naga::back::hlsl::ShaderModel::V6_6,
                ..Default::default()
            };
            let pipeline = Default::default();
            let mut out = String::new();
            naga::back::hlsl::Writer::new(&mut out, &options, &pipeline)
                .write(module, info, None)
                .map(drop)
                .map_err(text)
        }),
        ("glsl", |module, info| {
            let options = naga::back::glsl::Options {
                version: naga::back::glsl::Version::Desktop(450),
                ..Default::default()
            };
            for entry in &module.entry_points {
                let pipeline = naga::back::glsl::PipelineOptions {
                    shader_stage: entry.stage,
                    entry_point: entry.name.clone(),
                    multiview: None,
                };
                let policies = naga::proc::BoundsCheckPolicies::default();
                let mut out = String::new();
                naga::back::glsl::Writer::new(
                    &mut out, module, info, &options, &pipeline, policies,
                )
                .map_err(text)?
                .write()
                .map_err(text)?;
            }
            Ok(())
        }),
    ]
}

/// How many back ends take the canonical form: all that take the module itself.
pub(crate) fn compiled(name: &str, module: &Module, canonical: (&Module, &ModuleInfo)) -> usize {
    let info = validate(module);
    let mut compiled = 0;
    for (target, write) in writers() {
        // Writers panic on some of what they do not support, whatever module it stands in.
        let write = |module, info| {
            let write = std::panic::AssertUnwindSafe(|| write(module, info));
            std::panic::catch_unwind(write).unwrap_or_else(|_| Err("panic".into()))
        };
        let before: Result<(), String> = write(module, &info);
        let after = write(canonical.0, canonical.1);
        assert_eq!(
            before.is_ok(),
            after.is_ok(),
            "{name} {target} {before:?} {after:?}"
        );
        compiled += usize::from(after.is_ok());
    }
    compiled
}
