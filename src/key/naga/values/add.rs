//! Adds the values of a function's expressions.

use naga::proc::TypeResolution;
use naga::{
    Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Type,
    TypeInner,
};

use super::{FOLLOWS, Facts, Origin, Value, Values};
use crate::key::naga::context::Context;
use crate::key::naga::items::Items;
use crate::key::naga::nodes::{Child, Kind, NodeWriter, Written};
use crate::key::naga::rebase::{Rebased, Refusal};
use crate::key::naga::settled;
use crate::key::naga::timing::{Timing, timing};
use crate::key::naga::wire::{Construct as _, Target, each_operand, tag};

impl Values {
    pub(super) fn add_all(&mut self, context: &Context<'_>) -> Rebased<()> {
        let expressions = &context.function.expressions;
        self.clear(expressions.len(), context.module.global_expressions.len());
        if self.settled.is_any() {
            self.begun.clear();
            self.begun.resize(expressions.len(), false);
        }
        let is_any = self.settled.is_any();
        for (handle, expression) in expressions.iter() {
            if !self.live.contains(handle) || is_any && self.of(handle).is_some() {
                continue;
            }
            if is_any && matches!(expression, Expression::Load { pointer: _ }) {
                let value = self.settled.value_of(handle);
                if let Some(value) = value.filter(|value| self.of(*value).is_none()) {
                    self.add_after_needs(context, value)?;
                }
            }
            self.add_one(context, handle, expression)?;
        }
        self.unless.clear();
        for index in 0..self.events.negations() {
            let source = self.events.negation(index);
            let value = self.of(source).ok_or(FOLLOWS)?;
            let not = self.not(context, source, value)?;
            self.unless.push((source, not));
        }
        self.unless.sort_by_key(|(source, _)| *source);
        Ok(())
    }

    /// Adds an expression, and before it all that it needs: what a variable is need not stand
    /// before its reads.
    fn add_after_needs(
        &mut self,
        context: &Context<'_>,
        expression: Handle<Expression>,
    ) -> Rebased<()> {
        let mut pending = vec![expression];
        while let Some(next) = pending.last().copied() {
            if self.of(next).is_some() {
                pending.pop();
                continue;
            }
            let known = pending.len();
            let mut need = |needed: Handle<Expression>| {
                if self.of(needed).is_none() {
                    pending.push(needed);
                }
            };
            if !self.settled.is_read(next) {
                each_operand(&context.function.expressions[next], &mut need);
            } else if let Some(value) = self.settled.value_of(next) {
                need(value);
            }
            if pending.len() == known {
                self.add_early(context, next)?;
                pending.pop();
            } else if std::mem::replace(&mut self.begun[next.index()], true) {
                return Err(FOLLOWS);
            }
        }
        Ok(())
    }

    fn add_early(&mut self, context: &Context<'_>, handle: Handle<Expression>) -> Rebased<()> {
        self.add_one(context, handle, &context.function.expressions[handle])
    }

    #[inline(always)]
    fn add_one(
        &mut self,
        context: &Context<'_>,
        handle: Handle<Expression>,
        expression: &Expression,
    ) -> Rebased<()> {
        let value = self.add(context, handle, expression)?;
        self.of_source[handle.index()] = value.child();
        if !context.special.is_empty() {
            self.note_special_type(context, value, handle);
        }
        Ok(())
    }

    pub(super) fn note_special_type(
        &mut self,
        context: &Context<'_>,
        value: Value,
        source: Handle<Expression>,
    ) {
        if let TypeResolution::Handle(ty) = context.info[source].ty {
            if context.special.contains(ty) {
                self.facts[value.index()].special_type.get_or_insert(ty);
            }
        }
    }

    #[inline(always)]
    fn add(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        expression: &Expression,
    ) -> Rebased<Value> {
        if let Some(value) = self.spelled_otherwise(context, source, expression)? {
            self.facts[value.index()].typed.get_or_insert(source);
            return Ok(value);
        }
        let timing = timing(expression);
        if timing.is_anchored() {
            return self.anchor(source, expression, timing);
        }
        let of_source = &self.of_source;
        let mut numbers = Numbers {
            writer: self.nodes.writer(),
            items: context.items,
            operand: |operand: Handle<Expression>| of_source[operand.index()],
        };
        expression.write(&mut numbers);
        let written = numbers.writer.finish();
        self.intern(
            context,
            written,
            (Origin::Function(source), timing),
            Some(source),
        )
    }

    /// The value of the use of a constant, if it is written out there.
    pub(super) fn use_of_constant(
        &mut self,
        context: &Context<'_>,
        constant: Handle<Constant>,
    ) -> Rebased<Option<Value>> {
        let init = inlined(context, constant);
        init.map(|init| self.constant_value(context, init))
            .transpose()
    }

    /// What a variable is that has one value, or the part of it that is read.
    pub(super) fn settled_value(
        &mut self,
        context: &Context<'_>,
        read: Handle<Expression>,
    ) -> Rebased<Value> {
        let (local, path) = settled::path(context, read).ok_or(FOLLOWS)?;
        let mut value = match self.settled.value_of(read) {
            Some(value) => self.of(value).ok_or(FOLLOWS)?,
            None => {
                let ty = context.function.local_variables[local].ty;
                match self.zero(context, (ty, read), None)? {
                    Some(zero) => zero,
                    None => self.rewritten(context, Expression::ZeroValue(ty), &[], None)?,
                }
            }
        };
        for index in path.into_iter().rev() {
            value = self.access(context, read, value, index)?;
        }
        Ok(value)
    }

    /// An anchor is known by its ordinal among the anchors of the function.
    fn anchor(
        &mut self,
        source: Handle<Expression>,
        expression: &Expression,
        timing: Timing,
    ) -> Rebased<Value> {
        let ordinal = self.live.ordinal(source);
        let ordinal = ordinal.ok_or(Refusal(&"an expression is used and never evaluated"))?;
        let mut writer = self.nodes.writer();
        writer.fields([tag::ANCHOR]);
        writer.fields(ordinal.to_le_bytes());
        let mut see = |operand: Handle<Expression>| {
            writer.child(self.of_source[operand.index()]);
        };
        match *expression {
            Expression::Load { pointer } => see(pointer),
            _ => each_operand(expression, see),
        }
        let written = writer.finish();
        let value = Value(self.nodes.add(written)?);
        self.note(Origin::Function(source), timing, Some(source));
        self.anchors.push((value, source));
        Ok(value)
    }

    /// The value of a constant expression of the module. Recursion is as deep as these nest, which
    /// is bounded before this.
    pub(super) fn constant_value(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
    ) -> Rebased<Value> {
        if let Some(value) = self.of_constant(source) {
            return Ok(value);
        }
        let expression = &context.module.global_expressions[source];
        let value = match *expression {
            Expression::Constant(constant) if inlined(context, constant).is_some() => {
                self.constant_value(context, context.module.constants[constant].init)?
            }
            _ => {
                let mut sources = Vec::new();
                each_operand(expression, |operand| sources.push(operand));
                let operands = sources
                    .into_iter()
                    .map(|operand| self.constant_value(context, operand))
                    .collect::<Rebased<Vec<_>>>()?;
                match self.constant_otherwise(context, source, expression, &operands)? {
                    Some(value) => value,
                    None => self.write(
                        context,
                        expression,
                        &operands,
                        Origin::Constant(source),
                        None,
                    )?,
                }
            }
        };
        self.of_constant[source.index()] = value.child();
        self.constants.push(source.index());
        Ok(value)
    }

    /// The value of an expression that is written as no source has it.
    pub(super) fn rewritten(
        &mut self,
        context: &Context<'_>,
        expression: Expression,
        operands: &[Value],
        typed: Option<Handle<Expression>>,
    ) -> Rebased<Value> {
        let origin = Origin::Rewritten(self.rewritten.len() as u32);
        let value = self.write(context, &expression, operands, origin, typed)?;
        self.rewritten.push(expression);
        Ok(value)
    }

    /// The value of an expression with other operands than its own.
    fn write(
        &mut self,
        context: &Context<'_>,
        expression: &Expression,
        operands: &[Value],
        origin: Origin,
        typed: Option<Handle<Expression>>,
    ) -> Rebased<Value> {
        let mut operands = operands.iter();
        let mut numbers = Numbers {
            writer: self.nodes.writer(),
            items: context.items,
            operand: |_| {
                let value = operands.next();
                value.map_or(Child::MISSING, |value| value.child())
            },
        };
        expression.write(&mut numbers);
        let written = numbers.writer.finish();
        self.intern(context, written, (origin, timing(expression)), typed)
    }

    #[inline]
    fn intern(
        &mut self,
        context: &Context<'_>,
        written: Written,
        (origin, timing): (Origin, Timing),
        typed: Option<Handle<Expression>>,
    ) -> Rebased<Value> {
        let value = Value(self.nodes.intern(Some(context.items.nodes()), written)?);
        if self.facts.len() == value.index() {
            self.note(origin, timing, typed);
        } else if let Some(typed) = typed {
            self.facts[value.index()].typed.get_or_insert(typed);
        }
        Ok(value)
    }

    fn note(&mut self, origin: Origin, timing: Timing, typed: Option<Handle<Expression>>) {
        self.facts.push(Facts {
            origin,
            timing,
            typed,
            special_type: None,
        });
    }
}

/// The value of a constant that is written out where it is used. Tables stay constants, but those
/// without a name, which back ends write out themselves.
fn inlined(context: &Context<'_>, constant: Handle<Constant>) -> Option<Handle<Expression>> {
    let constant = &context.module.constants[constant];
    let is_table = matches!(
        context.module.types[constant.ty].inner,
        TypeInner::Array {
            base: _,
            size: _,
            stride: _
        } | TypeInner::Struct {
            members: _,
            span: _
        }
    );
    (!is_table || constant.name.is_none()).then_some(constant.init)
}

/// Writes a value, with references as numbers.
struct Numbers<'n, 'f, F> {
    writer: NodeWriter<'n>,
    items: &'n Items<'f>,
    /// The number of each operand, in the order in which the expression lists them.
    operand: F,
}

impl<F: FnMut(Handle<Expression>) -> Child> Target for Numbers<'_, '_, F> {
    #[inline(always)]
    fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
        self.writer.fields(bytes);
    }

    #[inline(always)]
    fn expression(&mut self, handle: Handle<Expression>) {
        self.writer.child((self.operand)(handle));
    }

    fn ty(&mut self, handle: Handle<Type>) {
        let id = self.items.ty(handle);
        self.writer.child(Child::new(Kind::Type, id));
    }

    fn constant(&mut self, handle: Handle<Constant>) {
        let id = self.items.constant(handle);
        self.writer.child(Child::new(Kind::Constant, id));
    }

    fn override_(&mut self, handle: Handle<Override>) {
        let id = self.items.override_(handle);
        let child = id.map_or(Child::MISSING, |id| Child::new(Kind::Override, id));
        self.writer.child(child);
    }

    fn global(&mut self, handle: Handle<GlobalVariable>) {
        let id = self.items.global(handle);
        self.writer.child(Child::new(Kind::Global, id));
    }

    fn local(&mut self, handle: Handle<LocalVariable>) {
        self.writer
            .child(Child::new(Kind::Local, handle.index() as u32));
    }

    /// Only results of calls name a function, and these are anchored.
    fn function(&mut self, _: Handle<Function>) {
        self.writer.child(Child::MISSING);
    }
}
