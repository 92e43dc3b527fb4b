//! Shaders as they come back from SPIR-V.

use naga::Module;
use naga::back::spv::{Options, WriterFlags, ZeroInitializeWorkgroupMemoryMode};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// The SPIR-V of a shader and no more: naga's writer can add the guards that WGSL promises, which
/// are code of their own to whoever reads it.
pub(crate) fn bare() -> Options<'static> {
    Options {
        flags: WriterFlags::empty(),
        zero_initialize_workgroup_memory: ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        ..guarded()
    }
}

/// The SPIR-V that naga writes unless it is told otherwise.
pub(crate) fn guarded() -> Options<'static> {
    Options {
        lang_version: (1, 3),
        ..Options::default()
    }
}

/// A shader that is written as SPIR-V and read again: none where naga does not write it, or does
/// not find valid what it reads.
pub(crate) fn round_trip(module: &Module, options: &Options<'_>) -> Option<Module> {
    let info = validate(module)?;
    let write = || naga::back::spv::write_vec(module, &info, options, None);
    // naga's writer panics on some of what it does not support.
    let words = std::panic::catch_unwind(std::panic::AssertUnwindSafe(write));
    read(&words.ok()?.ok()?)
}

/// Reads SPIR-V, as it is.
pub(crate) fn read(words: &[u32]) -> Option<Module> {
    let options = naga::front::spv::Options {
        adjust_coordinate_space: false,
        ..Default::default()
    };
    let read = || naga::front::spv::Frontend::new(words.iter().copied(), &options).parse();
    let module = std::panic::catch_unwind(read).ok()?.ok()?;
    validate(&module)?;
    Some(module)
}

fn validate(module: &Module) -> Option<naga::valid::ModuleInfo> {
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(module)
        .ok()
}
