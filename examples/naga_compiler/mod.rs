//! naga as a compiler: what pins it, and the scope of what it writes.

pub(crate) mod spirv;

use std::fmt::Debug;

use naga::valid::{Capabilities, ValidationFlags};
use pipeline_cache::key::CompileScopeError;
use pipeline_cache::{CompileScope, LockedCrates, locked_crates};

pub(crate) const VALIDATION: ValidationFlags = ValidationFlags::all();

/// The compiler, from the files that pin it: an upgraded naga is another scope, and so can never
/// be served what the old one made.
pub(crate) const NAGA: LockedCrates =
    locked_crates!("../../Cargo.lock", ["../Cargo.toml"], ["naga"]);

/// The scope of a writer: the compiler, the target, how modules are validated, and every option.
pub(crate) fn scope(
    target: impl Into<String>,
    capabilities: Capabilities,
    options: &[(&str, &dyn Debug)],
) -> Result<CompileScope, CompileScopeError> {
    let scope = CompileScope::new(NAGA.to_string(), target)?
        .option("validation", format!("{VALIDATION:?}"))
        .option("validation-capabilities", format!("{capabilities:?}"));
    Ok(options.iter().fold(scope, |scope, (name, value)| {
        scope.option(*name, format!("{value:?}"))
    }))
}
