//! A shader module in its canonical form.

use std::marker::PhantomData;
use std::sync::OnceLock;

use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags};

use super::limits;
use super::validate::validate;
use super::wire;
use crate::key::{Program, ToWire, Unkeyable, WireWriter};

/// A shader module in the one form that all its spellings share.
///
/// The module holds nothing that no entry point reaches, and is what a compile function is to
/// compile. `P` is the program it was made from, [`naga::Module`] or
/// [`ValidatedModule`](super::ValidatedModule); it changes nothing of the form or of its key.
///
/// ```
/// use pipeline_cache::Program as _;
///
/// let source = "fn unused() {} @compute @workgroup_size(1) fn main() {}";
/// let canonical = naga::front::wgsl::parse_str(source)?.canonicalize()?;
/// assert!(canonical.module().functions.is_empty());
/// assert_eq!(canonical.module().entry_points[0].name, "main");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CanonicalModule<P = Module> {
    module: Module,
    info: OnceLock<Result<ModuleInfo, Unkeyable>>,
    program: PhantomData<fn() -> P>,
}

impl<P> CanonicalModule<P> {
    pub(super) const fn new(module: Module) -> Self {
        Self {
            module,
            info: OnceLock::new(),
            program: PhantomData,
        }
    }

    /// The canonical module.
    #[must_use]
    pub const fn module(&self) -> &Module {
        &self.module
    }

    /// What naga's validator finds out about [`module`](Self::module), which back ends ask for.
    ///
    /// The first call validates the module, which a hit never needs. Later calls cost nothing.
    ///
    /// # Errors
    ///
    /// [`Unkeyable`] when naga finds the canonical module invalid. The source was valid, so that
    /// this is a fault of this crate. A cache finds it by [`check`](ToWire::check), compiles the
    /// source instead and stores nothing.
    pub fn info(&self) -> Result<&ModuleInfo, Unkeyable> {
        let info = self.info.get_or_init(|| validate_canonical(&self.module));
        info.as_ref().map_err(Unkeyable::clone)
    }

    /// The module and its info, for callers that change them: `process_overrides` is one.
    ///
    /// # Errors
    ///
    /// Those of [`info`](Self::info).
    pub fn into_parts(self) -> Result<(Module, ModuleInfo), Unkeyable> {
        self.info()?;
        let info = self.info.into_inner();
        let info = info.unwrap_or_else(|| validate_canonical(&self.module))?;
        Ok((self.module, info))
    }
}

impl<P: Program<Canonical = Self>> ToWire for CanonicalModule<P> {
    type Program = P;

    /// Validates the module, by [`info`](Self::info).
    fn check(&self) -> Result<(), Unkeyable> {
        self.info().map(drop)
    }

    fn write_body(&self, wire: &mut WireWriter) {
        wire::module(wire, &self.module);
        wire::filters(wire, &self.module);
    }
}

/// The source was uniform by its filters. Of these, the canonical module has what counts, and
/// uniformity is not asked of it again.
fn validate_canonical(module: &Module) -> Result<ModuleInfo, Unkeyable> {
    let flags = ValidationFlags::all() - ValidationFlags::CONTROL_FLOW_UNIFORMITY;
    let depth = limits::check(module)?;
    validate(module, depth, flags, Capabilities::all())
        .map_err(|reason| Unkeyable::new(format!("its canonical form fails: {reason}")))
}

#[cfg(test)]
mod tests {
    use naga::{Expression, Function, Literal, Span};

    use super::*;

    #[test]
    fn a_canonical_module_that_is_not_valid_fails_its_check() {
        let canonical = |main| {
            let mut module = Module::default();
            let function = Function {
                name: Some("main".into()),
                ..main
            };
            module.functions.append(function, Span::UNDEFINED);
            CanonicalModule::<Module>::new(module)
        };
        assert_eq!(canonical(Function::default()).check(), Ok(()));
        let mut broken = Function::default();
        let literal = Expression::Literal(Literal::U32(0));
        let literal = broken.expressions.append(literal, Span::UNDEFINED);
        let value = Some(literal);
        let body = &mut broken.body;
        body.push(naga::Statement::Return { value }, Span::UNDEFINED);
        let reason = canonical(broken).check().unwrap_err();
        assert!(reason.reason().starts_with("its canonical form fails: "));
    }
}
