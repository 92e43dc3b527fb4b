//! A shader module in its canonical form.

use std::marker::PhantomData;
use std::sync::OnceLock;

use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags};

use super::deep::with_stack;
use super::limits;
use super::shallow::name_deep_parts;
use super::validate::validate;
use super::wire;
use crate::key::{Program, ToWire, Unkeyable, WireWriter};

/// A shader module in the one form that all its spellings share. Needs the feature `naga`.
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
///
/// // For what changes the module before a back end writes it.
/// let (module, info) = canonical.into_parts()?;
/// # let _ = (module, info);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct CanonicalModule<P = Module> {
    /// The canonical form: what is hashed.
    wire: Vec<u8>,
    /// How deep the module nests, at most.
    depth: usize,
    /// What the wire reads back as: what is compiled.
    module: OnceLock<Result<Module, Unkeyable>>,
    /// What stands for a module that does not read back.
    none: Module,
    info: OnceLock<Result<ModuleInfo, Unkeyable>>,
    program: PhantomData<fn() -> P>,
}

impl<P> CanonicalModule<P> {
    pub(super) fn new(wire: Vec<u8>, depth: usize) -> Self {
        Self {
            wire,
            depth,
            module: OnceLock::new(),
            none: Module::default(),
            info: OnceLock::new(),
            program: PhantomData,
        }
    }

    /// The canonical module.
    ///
    /// The first call reads it from the bytes that the key is the hash of, which a hit never
    /// needs. Later calls cost nothing.
    ///
    /// A fault of this crate could make bytes that are not those of a module. The module is empty
    /// then, and [`info`](Self::info) says so.
    #[must_use]
    pub fn module(&self) -> &Module {
        self.read_back().unwrap_or(&self.none)
    }

    fn read_back(&self) -> Result<&Module, Unkeyable> {
        let module = self
            .module
            .get_or_init(|| read_back(&self.wire, self.depth));
        module.as_ref().map_err(Unkeyable::clone)
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
        let validate = || validate_canonical(self.read_back()?);
        let info = self.info.get_or_init(validate);
        info.as_ref().map_err(Unkeyable::clone)
    }

    /// The module and its info, for callers that change them: `process_overrides` is one.
    ///
    /// # Errors
    ///
    /// Those of [`info`](Self::info).
    pub fn into_parts(self) -> Result<(Module, ModuleInfo), Unkeyable> {
        self.info()?;
        let Self {
            wire,
            depth,
            module,
            info,
            ..
        } = self;
        let module = module.into_inner();
        let module = module.unwrap_or_else(|| read_back(&wire, depth))?;
        let info = info.into_inner();
        let info = info.unwrap_or_else(|| validate_canonical(&module))?;
        Ok((module, info))
    }
}

impl<P: Program<Canonical = Self>> ToWire for CanonicalModule<P> {
    type Program = P;

    /// Reads the module back and validates it, by [`info`](Self::info).
    fn check(&self) -> Result<(), Unkeyable> {
        self.info().map(drop)
    }

    fn write_body(&self, wire: &mut WireWriter) {
        wire.run_in_parts(&self.wire, |bytes| wire::parts(self.module(), bytes));
    }
}

/// Reads a canonical module from its wire. What is compiled is what was hashed: a module that is
/// not written as the same bytes again is not the one.
fn read_back(bytes: &[u8], depth: usize) -> Result<Module, Unkeyable> {
    let module = with_stack(depth, || wire::read_back(bytes))?;
    let mut module = module.ok_or(Unkeyable::new("its canonical form does not read back"))?;
    name_deep_parts(&mut module);
    Ok(module)
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
            CanonicalModule::<Module>::new(wire::write(&module), 1)
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

    #[test]
    fn what_is_compiled_is_what_is_hashed_or_nothing() {
        let source = "override size: u32 = 4;
            const TABLE = array(1.5, 2.5);
            @group(0) @binding(0) var<storage, read_write> data: array<f32>;
            fn scaled(x: f32, at: u32) -> f32 { return x * TABLE[at % size]; }
            @compute @workgroup_size(64)
            fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                for (var n = 0u; n < id.y; n++) {
                    if n == 3u { continue; }
                    data[n] = scaled(data[id.x], n);
                }
            }";
        let source = naga::front::wgsl::parse_str(source).unwrap();
        let sound = source.canonicalize().unwrap();
        assert_eq!(sound.check(), Ok(()));
        assert_eq!(wire::write(sound.module()), sound.wire);
        let (mut read, mut refused) = (0, 0);
        for place in 0..sound.wire.len() {
            for bit in [0x01, 0x80] {
                let mut changed = sound.wire.clone();
                changed[place] ^= bit;
                let changed = CanonicalModule::<Module>::new(changed, 1);
                if changed.read_back().is_ok() {
                    assert_eq!(wire::write(changed.module()), changed.wire);
                    read += 1;
                } else {
                    assert!(changed.module().entry_points.is_empty());
                    assert!(changed.check().is_err());
                    refused += 1;
                }
            }
        }
        // Both happen: a literal is another, a length is wrong.
        assert!(read > 100 && refused > 100, "{read} {refused}");
    }
}
