//! How a function under construction resolves references: from the source's statements, and from
//! values.

use naga::{Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Type};

use super::place::{Placed, Placer, Value, unavailable};
use super::rebase::{Rebase, Rebased};

/// From the source's statements.
impl Rebase for Placer<'_, '_> {
    fn operand(&mut self, source: Handle<Expression>) -> Rebased<Placed> {
        let value = self.values.of(source).ok_or_else(unavailable)?;
        self.place(value)
    }

    fn definition(&mut self, source: Handle<Expression>) -> Rebased<Placed> {
        let value = self.values.of(source).ok_or_else(unavailable)?;
        self.evaluate(value)
    }

    fn ty(&mut self, source: Handle<Type>) -> Rebased<Handle<Type>> {
        self.module.ty(source)
    }

    fn constant(&mut self, source: Handle<Constant>) -> Rebased<Handle<Constant>> {
        self.module.constant(source)
    }

    fn override_(&mut self, source: Handle<Override>) -> Rebased<Handle<Override>> {
        self.module.override_(source)
    }

    fn global(&mut self, source: Handle<GlobalVariable>) -> Rebased<Handle<GlobalVariable>> {
        self.module.global(source)
    }

    fn local(&mut self, source: Handle<LocalVariable>) -> Rebased<Handle<LocalVariable>> {
        self.local_variable(source)
    }

    fn function(&mut self, source: Handle<Function>) -> Rebased<Handle<Function>> {
        self.module.function(source)
    }
}

/// From values: operands are in place already.
pub(super) struct FromValues<'a, 'p, 'm> {
    pub(super) placer: &'a mut Placer<'p, 'm>,
    /// Whether the expression is part of the initial value of a local.
    pub(super) constants: bool,
}

impl Rebase for FromValues<'_, '_, '_> {
    fn operand(&mut self, value: Value) -> Rebased<Placed> {
        let known = if self.constants {
            &self.placer.constants
        } else {
            &self.placer.placed
        };
        known[value.index()].ok_or_else(unavailable)
    }

    fn definition(&mut self, _: Value) -> Rebased<Placed> {
        Err(unavailable())
    }

    fn ty(&mut self, source: Handle<Type>) -> Rebased<Handle<Type>> {
        self.placer.ty(source)
    }

    fn constant(&mut self, source: Handle<Constant>) -> Rebased<Handle<Constant>> {
        self.placer.constant(source)
    }

    fn override_(&mut self, source: Handle<Override>) -> Rebased<Handle<Override>> {
        self.placer.override_(source)
    }

    fn global(&mut self, source: Handle<GlobalVariable>) -> Rebased<Handle<GlobalVariable>> {
        self.placer.global(source)
    }

    fn local(&mut self, source: Handle<LocalVariable>) -> Rebased<Handle<LocalVariable>> {
        self.placer.local(source)
    }

    fn function(&mut self, source: Handle<Function>) -> Rebased<Handle<Function>> {
        self.placer.function(source)
    }
}
