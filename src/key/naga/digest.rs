//! A digest of each module-level item, in its own words: no name, no index, no order.
//!
//! Digests order operands and find duplicates. They are made in one sweep over types and constant
//! expressions, which a valid module lists after all that they refer to.

use std::cell::Cell;
use std::collections::HashMap;

use naga::{
    ArraySize, Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Module,
    Override, Type, TypeInner,
};

use super::special::SpecialRoles;
use super::wire;
use super::wire::References;
use super::{MAX_NESTING, too_deep};
use crate::key::{Unkeyable, WireWriter};

/// Stands for what is described: two items with one digest are one item, as two programs with
/// one fingerprint are one program.
pub(super) type Digest = [u8; 32];

/// The digest of what `write` writes.
pub(super) fn digest_of(write: impl FnOnce(&mut WireWriter)) -> Digest {
    let mut wire = WireWriter::collecting();
    write(&mut wire);
    *blake3::hash(&wire.into_vec()).as_bytes()
}

/// A digest and how deep the item nests.
#[derive(Clone, Copy)]
struct Entry {
    digest: Digest,
    depth: usize,
}

/// The digests of a module's items, by their index.
pub(super) struct Digests<'m> {
    module: &'m Module,
    types: Vec<Entry>,
    expressions: Vec<Entry>,
    globals: Vec<Digest>,
    /// The deepest item that was referred to since [`entry`](Self::entry) last looked.
    depth: Cell<usize>,
    /// Set when something refers to what is not listed before it.
    missing: Cell<bool>,
}

impl<'m> Digests<'m> {
    /// Digests all items of a validated module.
    pub(super) fn new(module: &'m Module, special: &SpecialRoles) -> Result<Self, Unkeyable> {
        let mut digests = Self {
            module,
            types: Vec::with_capacity(module.types.len()),
            expressions: Vec::with_capacity(module.global_expressions.len()),
            globals: Vec::with_capacity(module.global_variables.len()),
            depth: Cell::new(0),
            missing: Cell::new(false),
        };
        for (handle, ty) in module.types.iter() {
            // An array whose length is overridable needs the expression of its length first.
            let end = pending_length(module, &ty.inner).map_or(0, |init| init.index() + 1);
            digests.expressions_up_to(end)?;
            let named = special.contains(handle);
            let entry = digests.entry(|wire, refs| {
                wire.option(ty.name.as_deref().filter(|_| named), WireWriter::str);
                wire::type_inner(wire, refs, &ty.inner, named);
            })?;
            digests.types.push(entry);
        }
        digests.expressions_up_to(module.global_expressions.len())?;
        digests.globals = digest_globals(module);
        Ok(digests)
    }

    pub(super) fn ty(&self, handle: Handle<Type>) -> Digest {
        self.note(self.types.get(handle.index()))
    }

    pub(super) fn global_expression(&self, handle: Handle<Expression>) -> Digest {
        self.note(self.expressions.get(handle.index()))
    }

    pub(super) fn global(&self, handle: Handle<GlobalVariable>) -> Digest {
        let digest = self.globals.get(handle.index());
        self.missing.set(self.missing.get() || digest.is_none());
        digest.copied().unwrap_or_default()
    }

    /// A constant is its value: what it is called does not count.
    pub(super) fn constant(&self, handle: Handle<Constant>) -> Digest {
        self.global_expression(self.module.constants[handle].init)
    }

    /// An override is how a pipeline sets it and what it is otherwise. Its type is a scalar and
    /// so refers to nothing.
    pub(super) fn override_(&self, handle: Handle<Override>) -> Digest {
        let Override { name, id, ty, init } = &self.module.overrides[handle];
        digest_of(|wire| {
            wire.option(name.as_deref(), WireWriter::str);
            wire.option(*id, WireWriter::u16);
            wire::type_inner(wire, self, &self.module.types[*ty].inner, false);
            wire.option(*init, |wire, init| {
                wire.bytes(&self.global_expression(init));
            });
        })
    }

    /// An error if any digest was asked for that is not there.
    pub(super) fn complete(&self) -> Result<(), Unkeyable> {
        if self.missing.get() {
            return Err(Unkeyable::new("an item refers to one that follows it"));
        }
        Ok(())
    }

    fn expressions_up_to(&mut self, end: usize) -> Result<(), Unkeyable> {
        let done = self.expressions.len();
        for (_, expression) in self.module.global_expressions.iter().skip(done) {
            if self.expressions.len() >= end {
                break;
            }
            let entry = if let Expression::Constant(constant) = *expression {
                // Inlined: the use of a constant is its value.
                let digest = self.constant(constant);
                self.finish(digest)?
            } else {
                self.entry(|wire, refs| wire::expression(wire, refs, expression))?
            };
            self.expressions.push(entry);
        }
        Ok(())
    }

    fn entry(&self, write: impl FnOnce(&mut WireWriter, &Self)) -> Result<Entry, Unkeyable> {
        let digest = digest_of(|wire| write(wire, self));
        self.finish(digest)
    }

    /// The entry of an item whose references have just been noted.
    fn finish(&self, digest: Digest) -> Result<Entry, Unkeyable> {
        self.complete()?;
        let depth = self.depth.take() + 1;
        if depth > MAX_NESTING {
            return Err(too_deep("types and constants"));
        }
        Ok(Entry { digest, depth })
    }

    fn note(&self, entry: Option<&Entry>) -> Digest {
        self.missing.set(self.missing.get() || entry.is_none());
        entry.map_or_else(Digest::default, |entry| {
            self.depth.set(self.depth.get().max(entry.depth));
            entry.digest
        })
    }
}

/// A resource is where it is bound. What is not bound, and what is bound where another is, is told
/// apart by its place among its likes.
fn digest_globals(module: &Module) -> Vec<Digest> {
    let mut alike = HashMap::<Digest, u64>::new();
    let of_global = |(_, global): (Handle<GlobalVariable>, &GlobalVariable)| {
        let head = digest_of(|wire| wire::global_head(wire, global));
        let rank = alike.entry(head).or_default();
        *rank += 1;
        digest_of(|wire| {
            wire.bytes(&head);
            wire.u64(*rank);
        })
    };
    module.global_variables.iter().map(of_global).collect()
}

fn pending_length(module: &Module, inner: &TypeInner) -> Option<Handle<Expression>> {
    let (TypeInner::Array {
        base: _,
        size,
        stride: _,
    }
    | TypeInner::BindingArray { base: _, size }) = inner
    else {
        return None;
    };
    match *size {
        ArraySize::Pending(length) => module.overrides[length].init,
        ArraySize::Constant(_) | ArraySize::Dynamic => None,
    }
}

impl References for Digests<'_> {
    fn ty(&self, wire: &mut WireWriter, handle: Handle<Type>) {
        wire.bytes(&self.ty(handle));
    }

    fn expression(&self, wire: &mut WireWriter, handle: Handle<Expression>) {
        wire.bytes(&self.global_expression(handle));
    }

    fn constant(&self, wire: &mut WireWriter, handle: Handle<Constant>) {
        wire.bytes(&self.constant(handle));
    }

    fn override_(&self, wire: &mut WireWriter, handle: Handle<Override>) {
        wire.bytes(&self.override_(handle));
    }

    fn global(&self, wire: &mut WireWriter, handle: Handle<GlobalVariable>) {
        wire.bytes(&self.global(handle));
    }

    /// A constant expression refers to no local: naga has refused it.
    fn local(&self, _: &mut WireWriter, _: Handle<LocalVariable>) {
        self.missing.set(true);
    }

    /// A constant expression calls no function: naga has refused it.
    fn function(&self, _: &mut WireWriter, _: Handle<Function>) {
        self.missing.set(true);
    }
}
