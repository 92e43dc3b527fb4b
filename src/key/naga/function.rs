//! A canonical function under construction: its signature, its variables, its expressions.

use std::num::NonZeroU32;

use naga::{
    Constant, Expression, Function, FunctionArgument, FunctionResult, GlobalVariable, Handle,
    LocalVariable, Override, Statement, Type,
};

use super::context::Context;
use super::effects::Effects;
use super::filters;
use super::global_set::GlobalSet;
use super::module::ModuleBuilder;
use super::nodes::{Child, Kind};
use super::rebase::{Rebased, Refusal};
use super::rules;
use super::timing::Timing;
use super::values::{Value, Values};
use super::wire::{Construct as _, FunctionParts, Part, Target, tag};

/// How many times the expressions of its source a canonical function may have. More than real
/// shaders come to, and little enough to hold.
const MAX_COPIES: usize = 8;
/// A function of this many expressions is small, whatever it came from.
const SMALL: usize = 10_000;

pub(super) const UNAVAILABLE: Refusal = Refusal(&"an expression is used where it is not in scope");

/// The name of the expressions that keep a resource in the interface though no code reads it.
const PHONY_NAME: &str = "phony";

/// An expression of the canonical function, by its index and one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed(NonZeroU32);

impl Placed {
    #[inline]
    const fn new(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    #[inline]
    pub(super) const fn index(self) -> u32 {
        self.0.get() - 1
    }
}

/// What has become of a value.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    /// Its canonical expression, if it is in scope.
    pub(super) placed: Option<Placed>,
    /// Its canonical expression as a part of the initial value of a local. That is not evaluated
    /// by the body, which therefore cannot share it.
    constant: Option<Placed>,
    /// Whether the source has computed it in this scope.
    pub(super) computed: bool,
    /// The last look at values that came by it.
    pub(super) visit: u32,
}

/// What a function is written to. Its memory serves one function after the other.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) parts: FunctionParts,
    /// What has become of each value.
    pub(super) marks: Vec<Mark>,
    /// The index of each local of the source that has been asked for.
    locals: Vec<Option<u32>>,
}

impl Draft {
    fn clear(&mut self, values: usize, locals: usize) {
        self.parts.clear();
        self.marks.clear();
        self.marks.resize(values, Mark::default());
        self.locals.clear();
        self.locals.resize(locals, None);
    }
}

pub(super) struct FunctionBuilder<'p, 'm> {
    pub(super) module: &'p mut ModuleBuilder<'m>,
    pub(super) context: &'p Context<'p>,
    pub(super) values: &'p Values,
    pub(super) out: &'p mut Draft,
    /// The variables of the module that the function uses, itself or by what it calls.
    pub(super) globals: GlobalSet,
    /// A value is computed in each branch that needs it. Where many branches need much, that
    /// would be the product of both.
    most_expressions: usize,
}

impl<'p, 'm> FunctionBuilder<'p, 'm> {
    /// A function with the signature of its source, and nothing in it. One with a name is part of
    /// the interface.
    pub(super) fn new(
        module: &'p mut ModuleBuilder<'m>,
        context: &'p Context<'p>,
        values: &'p Values,
        out: &'p mut Draft,
        name: Option<&str>,
    ) -> Rebased<Self> {
        let Function {
            name: _,
            arguments,
            result,
            local_variables,
            expressions: _,
            named_expressions: _,
            body: _,
            diagnostic_filter_leaf,
        } = context.function;
        out.clear(values.len(), local_variables.len());
        let signature = &mut out.parts.signature;
        signature.name(name);
        signature.count(arguments.len());
        for argument in arguments {
            let FunctionArgument {
                name: _,
                ty,
                binding,
            } = argument;
            signature.name(None);
            signature.reference(module.ty(*ty)?);
            binding.as_ref().map(rules::binding).write(signature);
        }
        signature.bool(result.is_some());
        if let Some(FunctionResult { ty, binding }) = result {
            signature.reference(module.ty(*ty)?);
            binding.as_ref().map(rules::binding).write(signature);
        }
        let compares = values.live.takes_derivative();
        filters::kept(context.module, *diagnostic_filter_leaf, compares).write(signature);
        Ok(Self {
            module,
            context,
            values,
            out,
            globals: GlobalSet::default(),
            most_expressions: values.len().saturating_mul(MAX_COPIES) + SMALL,
        })
    }

    /// What a function of the source does that this one may call.
    pub(super) fn effects_of(&self, source: Handle<Function>) -> Effects {
        self.context.effects[source.index()]
    }

    /// Appends a value whose operands are all placed, and tells when it is evaluated.
    #[inline(always)]
    pub(super) fn append(&mut self, value: Value) -> Rebased<(Placed, Timing)> {
        if self.out.parts.expressions.count as usize > self.most_expressions {
            return Err(Refusal(
                &"many branches share values that would be written out in each",
            ));
        }
        let facts = self.values.facts(value);
        // `modf` and its like return a type that no expression names.
        if let Some(ty) = facts.special_type {
            self.module.ty(ty)?;
        }
        let placed = if facts.timing.is_anchored() {
            let expression = self.values.expression(self.context, facts.origin);
            self.append_expression(expression)?
        } else {
            self.copy(value, |mark| mark.placed)?
        };
        self.out.marks[value.index()].placed = Some(placed);
        Ok((placed, facts.timing))
    }

    /// Appends what a value says of itself, and refers to what has become of its operands.
    #[inline(always)]
    fn copy(
        &mut self,
        value: Value,
        become_of: impl Fn(&Mark) -> Option<Placed>,
    ) -> Rebased<Placed> {
        let node = self.values.node(value);
        for child in node.children() {
            let reference = if child.kind() == Kind::Value {
                let mark = &self.out.marks[child.index() as usize];
                become_of(mark).ok_or(UNAVAILABLE)?.index()
            } else {
                self.item(value, *child)?
            };
            self.out.parts.expressions.part.reference(reference);
        }
        let expressions = &mut self.out.parts.expressions;
        node.write_fields(&mut expressions.part);
        Ok(Placed::new(expressions.next()))
    }

    /// The index of what a value refers to that is no value.
    fn item(&mut self, value: Value, child: Child) -> Rebased<u32> {
        match child.kind() {
            // It has no other operand, so that nothing comes between the references of one
            // expression.
            Kind::Local => self.local_of(value),
            Kind::Value | Kind::Type | Kind::Constant | Kind::Override => self.module.item(child),
            Kind::Global => {
                let global = self.module.item(child)?;
                self.globals.insert(global);
                Ok(global)
            }
        }
    }

    /// Appends an expression of the source whose operands are placed.
    fn append_expression(&mut self, source: &Expression) -> Rebased<Placed> {
        // By far the most.
        if let Expression::Load { pointer } = *source {
            let value = self.values.of(pointer);
            let pointer = value.and_then(|value| self.out.marks[value.index()].placed);
            let pointer = pointer.ok_or(UNAVAILABLE)?.index();
            let expressions = &mut self.out.parts.expressions;
            expressions.part.u8(tag::LOAD);
            expressions.part.reference(pointer);
            return Ok(Placed::new(expressions.next()));
        }
        let mut to = Writer {
            module: self.module,
            values: self.values,
            marks: &self.out.marks,
            globals: &mut self.globals,
            to: &mut self.out.parts.expressions.part,
            refusal: None,
        };
        source.write(&mut to);
        to.finish()?;
        Ok(Placed::new(self.out.parts.expressions.next()))
    }

    /// Writes a statement that nests no other, and whose operands are placed.
    pub(super) fn write_statement(&mut self, source: &Statement) -> Rebased<()> {
        let mut to = Writer {
            module: self.module,
            values: self.values,
            marks: &self.out.marks,
            globals: &mut self.globals,
            to: &mut self.out.parts.body,
            refusal: None,
        };
        source.write(&mut to);
        to.finish()
    }

    /// Keeps variables of the module in the interface of the function.
    pub(super) fn pin(&mut self, globals: &[Handle<GlobalVariable>]) -> Rebased<()> {
        for global in globals {
            let placed = self.append_expression(&Expression::GlobalVariable(*global))?;
            self.name(placed, PHONY_NAME);
        }
        Ok(())
    }

    /// Gives an expression a name.
    pub(super) fn name(&mut self, placed: Placed, name: &str) {
        let named = &mut self.out.parts.named;
        named.part.reference(placed.index());
        named.part.text(name);
        named.next();
    }

    fn local_of(&mut self, value: Value) -> Rebased<u32> {
        let origin = self.values.origin(value);
        match *self.values.expression(self.context, origin) {
            Expression::LocalVariable(local) => self.local(local),
            _ => Err(UNAVAILABLE),
        }
    }

    fn local(&mut self, source: Handle<LocalVariable>) -> Rebased<u32> {
        if let Some(local) = self.out.locals[source.index()] {
            return Ok(local);
        }
        let LocalVariable { name: _, ty, init } = &self.context.function.local_variables[source];
        let ty = self.module.ty(*ty)?;
        let init = init.map(|init| self.initial_value(init)).transpose()?;
        let init = init.flatten();
        let locals = &mut self.out.parts.locals;
        locals.part.name(None);
        locals.part.reference(ty);
        locals.part.optional(init.map(Placed::index));
        let local = locals.next();
        self.out.locals[source.index()] = Some(local);
        Ok(local)
    }

    /// The initial value of a local. Without one it is zero, which therefore need not be said.
    fn initial_value(&mut self, source: Handle<Expression>) -> Rebased<Option<Placed>> {
        let root = self.values.of(source).ok_or(UNAVAILABLE)?;
        if self.values.is_zero(self.context, root) {
            return Ok(None);
        }
        let mut pending = vec![root];
        while let Some(next) = pending.last().copied() {
            let marks = &self.out.marks;
            if marks[next.index()].constant.is_none() {
                let known = pending.len();
                let operands = self.values.operands(next).rev();
                pending.extend(operands.filter(|value| marks[value.index()].constant.is_none()));
                if pending.len() > known {
                    continue;
                }
                let placed = match (self.values.timing(next), marks[next.index()].placed) {
                    (Timing::Static, Some(placed)) => placed,
                    (Timing::Static, None) => self.append(next)?.0,
                    (Timing::Pure | Timing::Anchored | Timing::Defined, _) => {
                        self.copy(next, |mark| mark.constant)?
                    }
                };
                self.out.marks[next.index()].constant = Some(placed);
            }
            pending.pop();
        }
        let constant = self.out.marks[root.index()].constant;
        constant.ok_or(UNAVAILABLE).map(Some)
    }
}

/// Writes what stands in the source, with references to what is placed.
struct Writer<'a, 'm> {
    module: &'a mut ModuleBuilder<'m>,
    values: &'a Values,
    marks: &'a [Mark],
    globals: &'a mut GlobalSet,
    to: &'a mut Part,
    /// Why something that it refers to is not there.
    refusal: Option<Refusal>,
}

impl Writer<'_, '_> {
    fn finish(self) -> Rebased<()> {
        self.refusal.map_or(Ok(()), Err)
    }

    fn refer(&mut self, reference: Rebased<u32>) {
        match reference {
            Ok(index) => self.to.reference(index),
            Err(refusal) => self.refusal = Some(refusal),
        }
    }
}

impl Target for Writer<'_, '_> {
    #[inline]
    fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
        self.to.fields(bytes);
    }

    #[inline]
    fn expression(&mut self, source: Handle<Expression>) {
        let value = self.values.of(source);
        let placed = value.and_then(|value| self.marks[value.index()].placed);
        self.refer(placed.map(Placed::index).ok_or(UNAVAILABLE));
    }

    fn ty(&mut self, source: Handle<Type>) {
        let ty = self.module.ty(source);
        self.refer(ty);
    }

    fn constant(&mut self, source: Handle<Constant>) {
        let constant = self.module.constant(source);
        self.refer(constant);
    }

    fn override_(&mut self, source: Handle<Override>) {
        let item = self.module.override_(source);
        self.refer(item);
    }

    fn global(&mut self, source: Handle<GlobalVariable>) {
        let global = self.module.global(source);
        if let Ok(global) = global {
            self.globals.insert(global);
        }
        self.refer(global);
    }

    /// An expression that names one is a value, which is copied.
    fn local(&mut self, _: Handle<LocalVariable>) {
        self.refer(Err(UNAVAILABLE));
    }

    fn function(&mut self, source: Handle<Function>) {
        let function = self.module.function(source);
        if let Ok(function) = function {
            self.globals.insert_all(self.module.globals_of(function));
        }
        self.refer(function);
    }
}
