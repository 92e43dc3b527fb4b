//! What a function computes, apart from where: its expressions as a graph of values.
//!
//! naga's expressions are evaluated where an `Emit` statement names them. For an expression that
//! reads nothing but its operands that place does not matter, so such expressions are one value
//! wherever they are equal. Whatever reads memory, samples, or depends on its neighbours in
//! control flow is *anchored*: each evaluation is a value of its own, at its own place.

use std::collections::HashMap;

use naga::proc::TypeResolution;
use naga::{
    Arena, Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Span,
    Type, TypeInner,
};

use super::context::Context;
use super::live::{Walk, live};
use super::nodes::{Child, Id, Nodes};
use super::rebase;
use super::rebase::{Operands, Rebased, Refusal, each_operand};
use super::rules;
use super::timing::{Timing, is_anchored, timing};
use super::wire;
use super::wire::References;
use crate::key::WireWriter;

/// Begins the fields of an anchor. No expression begins so on the wire.
const ANCHOR: u8 = u8::MAX;

/// A value: a handle of [`Values::arena`].
pub(super) type Value = Handle<Expression>;

/// The values of a function.
pub(super) struct Values<'f> {
    /// One expression a value, operands first. Operands are handles of this arena; all other
    /// handles are the source module's.
    pub(super) arena: Arena<Expression>,
    /// What makes values equal, by their index.
    nodes: Nodes,
    handles: Vec<Value>,
    timings: Vec<Timing>,
    /// The type of the values that have one which back ends look up by its role.
    special_types: Vec<(Value, Handle<Type>)>,
    /// The value of each expression of the source; none where nothing needs it.
    of_source: Vec<Option<Value>>,
    /// The value of each constant that was written out, by its number.
    of_constant: HashMap<Id, Value>,
    context: Context<'f>,
}

impl<'f> Values<'f> {
    /// Reads a function of a validated module.
    pub(super) fn new(context: Context<'f>) -> Rebased<Self> {
        let expressions = &context.function.expressions;
        let mut walk = Walk::default();
        walk.block(&context.function.body)?;
        let live = live(&context, &walk);
        let turns = turns(context, &walk, &live);
        let mut values = Self {
            arena: Arena::new(),
            nodes: Nodes::default(),
            handles: Vec::with_capacity(expressions.len()),
            timings: Vec::with_capacity(expressions.len()),
            special_types: Vec::new(),
            of_source: vec![None; expressions.len()],
            of_constant: HashMap::new(),
            context,
        };
        for (handle, expression) in expressions.iter() {
            if live[handle.index()] {
                let value = values.add(expression, turns[handle.index()])?;
                values.of_source[handle.index()] = Some(value);
                if !context.special.is_empty() {
                    values.note_special_type(value, handle);
                }
            }
        }
        Ok(values)
    }

    /// The value of a source expression, if anything needs it.
    pub(super) fn of(&self, source: Handle<Expression>) -> Option<Value> {
        self.of_source[source.index()]
    }

    pub(super) fn timing(&self, value: Value) -> Timing {
        self.timings[value.index()]
    }

    pub(super) fn is_anchored(&self, value: Value) -> bool {
        match self.timing(value) {
            Timing::Static | Timing::Pure => false,
            Timing::Anchored | Timing::Defined => true,
        }
    }

    /// The values that a value is computed from, in order.
    pub(super) fn operands(&self, value: Value) -> impl DoubleEndedIterator<Item = Value> {
        // An index of the arena is a number of a node.
        let children = self.nodes.children(value.index() as Id).iter();
        children.filter_map(|child| match child {
            Child::Node(id) => self.handles.get(*id as usize).copied(),
            Child::Item(_) => None,
        })
    }

    /// The type of a value, if it is one that back ends look up by its role.
    pub(super) fn special_type(&self, value: Value) -> Option<Handle<Type>> {
        let mut known = self.special_types.iter();
        known.find(|(of, _)| *of == value).map(|(_, ty)| *ty)
    }

    fn note_special_type(&mut self, value: Value, source: Handle<Expression>) {
        if let TypeResolution::Handle(ty) = self.context.info[source].ty {
            if self.context.special.contains(ty) && self.special_type(value).is_none() {
                self.special_types.push((value, ty));
            }
        }
    }

    fn add(&mut self, expression: &Expression, turn: Option<u64>) -> Rebased<Value> {
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = self.inlined(constant) {
                return self.constant_value(init);
            }
        }
        let of_source = &self.of_source;
        let copy = rebase::expression(
            &mut Operands(|operand: Handle<Expression>| {
                of_source[operand.index()].ok_or(Refusal("an expression uses one that follows it"))
            }),
            expression,
        )?;
        let timing = timing(&copy);
        match timing {
            Timing::Static | Timing::Pure => {
                let copy = self.normalize(copy, expression)?;
                self.intern(copy)
            }
            Timing::Anchored | Timing::Defined => {
                // An anchor is known by its turn among the anchors of the function.
                let turn = turn.ok_or(Refusal("an expression is used and never evaluated"))?;
                self.nodes.add(|wire, children| {
                    wire.u8(ANCHOR);
                    wire.u64(turn);
                    each_operand(&copy, |value| {
                        children.push(Child::Node(value.index() as Id))
                    });
                })?;
                Ok(self.append(copy, timing))
            }
        }
    }

    /// The one spelling of a value.
    fn normalize(&self, copy: Expression, source: &Expression) -> Rebased<Expression> {
        match copy {
            Expression::Binary { op, left, right } => {
                if let Some(value) = rules::exact_value(op, &self.arena[left], &self.arena[right]) {
                    return Ok(value);
                }
                let (op, turned) = rules::turned(op);
                let (left, right) = if turned { (right, left) } else { (left, right) };
                let swap = left != right
                    && rules::is_commutative(op)
                    && self.is_exact(source)
                    && self.compare(right, left)?;
                let (left, right) = if swap { (right, left) } else { (left, right) };
                Ok(Expression::Binary { op, left, right })
            }
            // An expression without a rule is its own one spelling, whatever it is.
            other => Ok(rules::normalize(other)),
        }
    }

    /// Whether the one value comes before the other.
    fn compare(&self, one: Value, other: Value) -> Rebased<bool> {
        let items = Some(self.context.items.nodes());
        let (one, other) = (one.index() as Id, other.index() as Id);
        Ok(self.nodes.compare(items, one, other)?.is_lt())
    }

    /// Whether the operands may change places, as far as their types tell.
    fn is_exact(&self, source: &Expression) -> bool {
        let Expression::Binary { op: _, left, right } = *source else {
            return false;
        };
        let inner = |handle: Handle<Expression>| {
            self.context.info[handle]
                .ty
                .inner_with(&self.context.module.types)
        };
        rules::is_exact(inner(left)) && inner(left) == inner(right)
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
    /// is bounded before this.
    fn constant_value(&mut self, source: Handle<Expression>) -> Rebased<Value> {
        let expression = &self.context.module.global_expressions[source];
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = self.inlined(constant) {
                return self.constant_value(init);
            }
        }
        let number = self.context.items.expression(source);
        if let Some(value) = self.of_constant.get(&number) {
            return Ok(*value);
        }
        let copy = rebase::expression(
            &mut Operands(|operand: Handle<Expression>| self.constant_value(operand)),
            expression,
        )?;
        let value = self.intern(copy)?;
        self.of_constant.insert(number, value);
        Ok(value)
    }

    fn intern(&mut self, expression: Expression) -> Rebased<Value> {
        let context = self.context;
        let mut missing = false;
        let id = self
            .nodes
            .intern(Some(context.items.nodes()), |wire, children| {
                let mut references = Numbers {
                    context,
                    children,
                    missing: &mut missing,
                };
                wire::expression(wire, &mut references, &expression);
            })?;
        if missing {
            return Err(Refusal("an item refers to one that follows it"));
        }
        if let Some(value) = self.handles.get(id as usize) {
            return Ok(*value);
        }
        let timing = timing(&expression);
        Ok(self.append(expression, timing))
    }

    fn append(&mut self, expression: Expression, timing: Timing) -> Value {
        let value = self.arena.append(expression, Span::UNDEFINED);
        self.handles.push(value);
        self.timings.push(timing);
        value
    }
}

/// The turn of each anchor that is needed, in the order in which the body evaluates them.
fn turns(context: Context<'_>, walk: &Walk, live: &[bool]) -> Vec<Option<u64>> {
    let expressions = &context.function.expressions;
    let mut turns = vec![None; expressions.len()];
    let mut next = 0;
    for handle in &walk.order {
        let turn = &mut turns[handle.index()];
        if live[handle.index()] && turn.is_none() && is_anchored(&expressions[*handle]) {
            *turn = Some(next);
            next += 1;
        }
    }
    turns
}

/// References of values, as their numbers.
struct Numbers<'n, 'f> {
    context: Context<'f>,
    children: &'n mut Vec<Child>,
    missing: &'n mut bool,
}

impl References for Numbers<'_, '_> {
    fn ty(&mut self, _: &mut WireWriter, handle: Handle<Type>) {
        self.children
            .push(Child::Item(self.context.items.ty(handle)));
    }

    fn expression(&mut self, _: &mut WireWriter, handle: Handle<Expression>) {
        self.children.push(Child::Node(handle.index() as Id));
    }

    fn constant(&mut self, _: &mut WireWriter, handle: Handle<Constant>) {
        let id = self.context.items.constant(handle);
        self.children.push(Child::Item(id));
    }

    fn override_(&mut self, _: &mut WireWriter, handle: Handle<Override>) {
        match self.context.items.override_(handle) {
            Ok(id) => self.children.push(Child::Item(id)),
            Err(_) => *self.missing = true,
        }
    }

    fn global(&mut self, _: &mut WireWriter, handle: Handle<GlobalVariable>) {
        let id = self.context.items.global(handle);
        self.children.push(Child::Item(id));
    }

    /// By index: locals differ by nothing else. No operand that is sorted holds one.
    fn local(&mut self, wire: &mut WireWriter, handle: Handle<LocalVariable>) {
        wire.u64(handle.index() as u64);
    }

    /// Only results of calls name a function, and these are anchored.
    fn function(&mut self, wire: &mut WireWriter, handle: Handle<Function>) {
        wire.u64(handle.index() as u64);
    }
}
