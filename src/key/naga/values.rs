//! What a function computes, apart from where: its expressions as a graph of values.
//!
//! naga's expressions are evaluated where an `Emit` statement names them. For an expression that
//! reads nothing but its operands that place does not matter, so such expressions are one value
//! wherever they are equal. Whatever reads memory, samples, or depends on its neighbours in
//! control flow is *anchored*: each evaluation is a value of its own, at its own place.

use std::collections::HashMap;

use naga::proc::TypeResolution;
use naga::valid::FunctionInfo;
use naga::{
    Arena, Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Module, Override,
    Span, Type, TypeInner,
};

use super::digest::{Digest, Digests, digest_of};
use super::live::{Walk, live};
use super::module::ModuleBuilder;
use super::rebase;
use super::rebase::{Operands, Rebased, operands};
use super::rules;
use super::timing::{Timing, is_anchored, timing};
use super::wire;
use super::wire::References;
use crate::key::{Unkeyable, WireWriter};

/// The values of a function.
pub(super) struct Values<'f> {
    /// One expression a value, operands first. Operands are handles of this arena; all other
    /// handles are the source module's.
    pub(super) arena: Arena<Expression>,
    digests: Vec<Digest>,
    interned: HashMap<Digest, Handle<Expression>>,
    /// The type that naga knows each value to have, where the source tells.
    types: HashMap<Handle<Expression>, Handle<Type>>,
    /// The value of each expression of the source; none where nothing needs it.
    of_source: Vec<Option<Handle<Expression>>>,
    context: Context<'f>,
}

/// What values are made from.
#[derive(Clone, Copy)]
pub(super) struct Context<'f> {
    pub(super) module: &'f Module,
    pub(super) digests: &'f Digests<'f>,
    pub(super) function: &'f Function,
    pub(super) info: &'f FunctionInfo,
}

impl<'f> Values<'f> {
    /// Reads a function of a validated module.
    pub(super) fn new(context: Context<'f>) -> Rebased<Self> {
        let mut walk = Walk::default();
        walk.block(&context.function.body)?;
        let live = live(&context, &walk);
        let mut anchors = HashMap::new();
        for handle in walk.order {
            if live[handle.index()] && is_anchored(&context.function.expressions[handle]) {
                let next = anchors.len() as u64;
                anchors.entry(handle).or_insert(next);
            }
        }
        let mut values = Self {
            arena: Arena::new(),
            digests: Vec::new(),
            interned: HashMap::new(),
            types: HashMap::new(),
            of_source: vec![None; context.function.expressions.len()],
            context,
        };
        for (handle, expression) in context.function.expressions.iter() {
            if live[handle.index()] {
                let value = values.add(handle, expression, &anchors)?;
                values.of_source[handle.index()] = Some(value);
                if let TypeResolution::Handle(ty) = context.info[handle].ty {
                    values.types.entry(value).or_insert(ty);
                }
            }
        }
        Ok(values)
    }

    /// The value of a source expression, if anything needs it.
    pub(super) fn of(&self, source: Handle<Expression>) -> Option<Handle<Expression>> {
        self.of_source[source.index()]
    }

    /// The values that a value is computed from, in order.
    pub(super) fn operands(&self, value: Handle<Expression>) -> Vec<Handle<Expression>> {
        operands(&self.arena[value])
    }

    /// The type of a value, if it is one that back ends look up by its role.
    pub(super) fn special_type(
        &self,
        value: Handle<Expression>,
        module: &ModuleBuilder<'_>,
    ) -> Option<Handle<Type>> {
        let ty = self.types.get(&value).copied();
        ty.filter(|ty| module.is_special(*ty))
    }

    fn add(
        &mut self,
        source: Handle<Expression>,
        expression: &Expression,
        anchors: &HashMap<Handle<Expression>, u64>,
    ) -> Rebased<Handle<Expression>> {
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = self.inlined(constant) {
                return self.constant_value(init);
            }
        }
        let of_source = &self.of_source;
        let copy = rebase::expression(
            &mut Operands(|operand: Handle<Expression>| {
                of_source[operand.index()]
                    .ok_or_else(|| Unkeyable::new("an expression uses one that follows it"))
            }),
            expression,
        )?;
        match timing(&copy) {
            Timing::Static | Timing::Pure => {
                let sortable = self.is_sortable(expression);
                let copy = rules::normalize(copy, &self.arena, sortable, |value| {
                    self.digests[value.index()]
                });
                self.intern(copy)
            }
            Timing::Anchored | Timing::Defined => {
                // An anchor is known by its turn among the anchors of the function.
                let turn = *anchors
                    .get(&source)
                    .ok_or_else(|| Unkeyable::new("an expression is used and never evaluated"))?;
                let digest = digest_of(|wire| {
                    wire.str("anchor");
                    wire.u64(turn);
                });
                Ok(self.append(copy, digest))
            }
        }
    }

    /// Whether the operands may change places, as far as their types tell.
    fn is_sortable(&self, expression: &Expression) -> bool {
        let Expression::Binary { op: _, left, right } = *expression else {
            return false;
        };
        let inner = |handle: Handle<Expression>| {
            self.context.info[handle]
                .ty
                .inner_with(&self.context.module.types)
        };
        inner(left) == inner(right) && rules::is_exact(inner(left))
    }

    /// The value of a constant that is written out where it is used. Tables stay constants.
    fn inlined(&self, constant: Handle<Constant>) -> Option<Handle<Expression>> {
        let constant = &self.context.module.constants[constant];
        let is_table = matches!(
            self.context.module.types[constant.ty].inner,
            TypeInner::Array {
                base: _,
                size: _,
                stride: _
            } | TypeInner::Struct {
                members: _,
                span: _
            }
        );
        (!is_table).then_some(constant.init)
    }

    /// The value of a constant expression of the module. Recursion is as deep as these nest, which
    /// the module's digests bound.
    fn constant_value(&mut self, source: Handle<Expression>) -> Rebased<Handle<Expression>> {
        let expression = &self.context.module.global_expressions[source];
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = self.inlined(constant) {
                return self.constant_value(init);
            }
        }
        let copy = rebase::expression(
            &mut Operands(|operand: Handle<Expression>| self.constant_value(operand)),
            expression,
        )?;
        self.intern(copy)
    }

    fn intern(&mut self, expression: Expression) -> Rebased<Handle<Expression>> {
        let digest = digest_of(|wire| wire::expression(wire, self, &expression));
        self.context.digests.complete()?;
        if let Some(value) = self.interned.get(&digest) {
            return Ok(*value);
        }
        let value = self.append(expression, digest);
        self.interned.insert(digest, value);
        Ok(value)
    }

    fn append(&mut self, expression: Expression, digest: Digest) -> Handle<Expression> {
        self.digests.push(digest);
        self.arena.append(expression, Span::UNDEFINED)
    }
}

impl References for Values<'_> {
    fn ty(&self, wire: &mut WireWriter, handle: Handle<Type>) {
        wire.bytes(&self.context.digests.ty(handle));
    }

    fn expression(&self, wire: &mut WireWriter, handle: Handle<Expression>) {
        wire.bytes(&self.digests[handle.index()]);
    }

    fn constant(&self, wire: &mut WireWriter, handle: Handle<Constant>) {
        wire.bytes(&self.context.digests.constant(handle));
    }

    fn override_(&self, wire: &mut WireWriter, handle: Handle<Override>) {
        wire.bytes(&self.context.digests.override_(handle));
    }

    fn global(&self, wire: &mut WireWriter, handle: Handle<GlobalVariable>) {
        wire.bytes(&self.context.digests.global(handle));
    }

    /// By index: locals differ by nothing else. No operand that is sorted holds one.
    fn local(&self, wire: &mut WireWriter, handle: Handle<LocalVariable>) {
        wire.u64(handle.index() as u64);
    }

    /// Only results of calls name a function, and these are anchored.
    fn function(&self, wire: &mut WireWriter, handle: Handle<Function>) {
        wire.u64(handle.index() as u64);
    }
}
