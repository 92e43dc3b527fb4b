//! What a function computes, apart from where: its expressions as a graph of values.
//!
//! naga's expressions are evaluated where an `Emit` statement names them. For an expression that
//! reads nothing but its operands that place does not matter, so such expressions are one value
//! wherever they are equal. Whatever reads memory, samples, or depends on its neighbours in
//! control flow is *anchored*: each evaluation is a value of its own, at its own place.

use std::collections::HashMap;

use naga::proc::TypeResolution;
use naga::{
    Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Type,
    TypeInner,
};

use super::context::Context;
use super::events::{Event, Events};
use super::items::Items;
use super::live::{Live, Need};
use super::nodes::{Child, Id, Kind, NodeWriter, Nodes};
use super::rebase::{Rebased, Refusal};
use super::settled;
use super::settled::Settled;
use super::timing::{Timing, timing};
use super::wire::{Construct as _, Part, Target, each_operand};

/// Begins the fields of an anchor. No expression begins so on the wire.
const ANCHOR: u8 = u8::MAX;

pub(super) const FOLLOWS: Refusal = Refusal(&"an expression uses one that follows it");

/// A value, by its number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Value(Id);

impl Value {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    const fn child(self) -> Child {
        Child::new(Kind::Value, self.0)
    }
}

/// Where the expression of a value stands. Its operands are [those of the value](Values::operands),
/// in the same order, and no handles of its own.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// In the source's function.
    Function(Handle<Expression>),
    /// Among the constant expressions of the source's module.
    Constant(Handle<Expression>),
    /// In its one spelling, which is another than the source's: an index of what was rewritten.
    Rewritten(u32),
}

/// The values of a function. Its memory serves one function after the other.
#[derive(Default)]
pub(super) struct Values {
    /// What makes values equal.
    nodes: Nodes,
    /// What else is known of each value.
    facts: Vec<Facts>,
    rewritten: Vec<Expression>,
    /// The value of each expression of the source; [missing](Child::MISSING) where nothing needs it.
    of_source: Vec<Child>,
    /// The value of each constant expression of the module that was written out.
    of_constant: Vec<Child>,
    /// Those that were, by their index.
    constants: Vec<usize>,
    /// Whether a value has been found without all that the source computes it from.
    pub(super) drops: bool,
    operands: Vec<Value>,
    /// Why each value is needed, where that is not plain.
    needed: Vec<Need>,
    /// The negations that branches ask for, by the index of what they negate.
    unless: HashMap<usize, Value>,
    /// Which expressions have been begun, where these do not follow what they need.
    begun: Vec<bool>,
    pub(super) events: Events,
    pub(super) live: Live,
    pub(super) settled: Settled,
}

#[derive(Clone, Copy)]
struct Facts {
    origin: Origin,
    timing: Timing,
    /// An expression of the source's function that has its type.
    typed: Option<Handle<Expression>>,
    /// Its type, if back ends look that up by its role.
    special_type: Option<Handle<Type>>,
}

impl Values {
    /// Reads a function of a validated module.
    pub(super) fn read(&mut self, context: &Context<'_>) -> Rebased<()> {
        self.events.read(context);
        self.settled.read(context, &mut self.events);
        self.live.read(context, &self.events, &self.settled);
        self.add_all(context)?;
        self.drops |= self.settled.is_any();
        if self.drops && self.find_needed(context) {
            // What was evaluated for nothing has no part in the order of what is left.
            self.live.renumber(context, &self.events, &self.settled);
            self.add_all(context)?;
            self.drops = true;
            self.find_needed(context);
        }
        if self.drops {
            for child in &mut self.of_source {
                let is_needed = |value: Value| self.needed[value.index()].any();
                if !known(*child).is_some_and(is_needed) {
                    *child = Child::MISSING;
                }
            }
        }
        Ok(())
    }

    fn add_all(&mut self, context: &Context<'_>) -> Rebased<()> {
        let expressions = &context.function.expressions;
        self.clear(expressions.len(), context.module.global_expressions.len());
        if self.settled.is_any() {
            self.begun.clear();
            self.begun.resize(expressions.len(), false);
        }
        for (handle, _) in expressions.iter() {
            if !self.live.contains(handle) {
            } else if self.settled.is_any() {
                self.add_after_needs(context, handle)?;
            } else {
                self.add_one(context, handle)?;
            }
        }
        let mut unless = std::mem::take(&mut self.unless);
        unless.clear();
        for index in 0..self.events.len() {
            if let Event::Unless(source) = self.events.event(index) {
                let value = self.of(source).ok_or(FOLLOWS)?;
                unless.insert(source.index(), self.not(context, source, value)?);
            }
        }
        self.unless = unless;
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
                self.add_one(context, next)?;
                pending.pop();
            } else if std::mem::replace(&mut self.begun[next.index()], true) {
                return Err(FOLLOWS);
            }
        }
        Ok(())
    }

    fn add_one(&mut self, context: &Context<'_>, handle: Handle<Expression>) -> Rebased<()> {
        let value = self.add(context, handle, &context.function.expressions[handle])?;
        self.of_source[handle.index()] = value.child();
        if !context.special.is_empty() {
            self.note_special_type(context, value, handle);
        }
        Ok(())
    }

    /// Finds the values that are needed, and whether a read or a call is not, though the source
    /// uses it.
    fn find_needed(&mut self, context: &Context<'_>) -> bool {
        let mut needed = std::mem::take(&mut self.needed);
        needed.clear();
        needed.resize(self.len(), Need::default());
        for (event, _) in self.events.iter() {
            let (value, is_used) = match event {
                Event::Use(source) | Event::Compared(source) => (self.of(source), true),
                Event::Unless(source) => (self.unless(source), true),
                Event::Evaluation(source) if self.live.is_kept(source) => (self.of(source), false),
                Event::Evaluation(_) | Event::Nothing => (None, false),
            };
            if let Some(value) = value {
                let need = &mut needed[value.index()];
                need.used |= is_used;
                need.kept |= !is_used;
            }
        }
        self.spread(context, &mut needed);
        let mut lost = false;
        for value in self.all().filter(|value| !needed[value.index()].used) {
            if let Origin::Function(source) = self.origin(value) {
                lost |= self.is_anchored(value) && self.live.lose(source);
            }
        }
        self.needed = needed;
        lost
    }

    /// Marks all that marked values are computed from.
    fn spread(&self, context: &Context<'_>, needed: &mut [Need]) {
        // The initial value of a local is constant, so that it needs no further local.
        for _ in 0..2 {
            for value in self.all().rev() {
                if !needed[value.index()].any() {
                    continue;
                }
                for operand in self.operands(value) {
                    needed[operand.index()].used = true;
                }
                let origin = self.origin(value);
                if let Expression::LocalVariable(local) = *self.expression(context, origin) {
                    let init = context.function.local_variables[local].init;
                    if let Some(init) = init.and_then(|init| self.of(init)) {
                        needed[init.index()].used = true;
                    }
                }
            }
        }
    }

    /// Removes all values, and makes room for those of some expressions.
    fn clear(&mut self, expressions: usize, constant_expressions: usize) {
        let Self {
            nodes,
            facts,
            rewritten,
            of_source,
            of_constant,
            constants,
            drops,
            operands: _,
            // They clear themselves.
            needed: _,
            unless: _,
            begun: _,
            events: _,
            live: _,
            settled: _,
        } = self;
        *drops = false;
        nodes.clear(expressions);
        facts.clear();
        facts.reserve(expressions);
        rewritten.clear();
        of_source.clear();
        of_source.resize(expressions, Child::MISSING);
        for index in constants.drain(..) {
            of_constant[index] = Child::MISSING;
        }
        of_constant.resize(constant_expressions, Child::MISSING);
    }

    /// How many operations a value takes, as a tree.
    pub(super) fn size(&self, value: Value) -> u32 {
        self.nodes.size(value.0)
    }

    /// All values, operands first.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = Value> + use<> {
        (0..self.facts.len() as Id).map(Value)
    }

    pub(super) fn len(&self) -> usize {
        self.facts.len()
    }

    /// The value of a source expression, if anything needs it.
    #[inline]
    pub(super) fn of(&self, source: Handle<Expression>) -> Option<Value> {
        known(self.of_source[source.index()])
    }

    /// The value of a constant expression of the module, if it was written out.
    pub(super) fn of_constant(&self, source: Handle<Expression>) -> Option<Value> {
        known(self.of_constant[source.index()])
    }

    /// The negation of an expression of the source, if a branch asks for it.
    pub(super) fn unless(&self, source: Handle<Expression>) -> Option<Value> {
        self.unless.get(&source.index()).copied()
    }

    /// Whether an expression that the source evaluates reads a variable for nothing. Without that
    /// read the variable may have one value.
    pub(super) fn wastes(&self) -> bool {
        self.events.iter().any(|(event, _)| match event {
            Event::Evaluation(source) => {
                self.settled.reads_open(source) && self.evaluated(source).is_none()
            }
            _ => false,
        })
    }

    /// The value of a read or a call that an expression of the source is, if anything needs it.
    pub(super) fn evaluated(&self, source: Handle<Expression>) -> Option<Value> {
        // An expression of the source can have the value of another, which is evaluated there.
        let value = self.of(source).filter(|value| self.is_anchored(*value));
        value.filter(|value| matches!(self.origin(*value), Origin::Function(of) if of == source))
    }

    /// The type of a value, if an expression of the source has it.
    pub(super) fn ty<'c>(&self, context: &Context<'c>, value: Value) -> Option<&'c TypeInner> {
        let typed = self.facts[value.index()].typed?;
        Some(context.info[typed].ty.inner_with(&context.module.types))
    }

    pub(super) fn timing(&self, value: Value) -> Timing {
        self.facts[value.index()].timing
    }

    pub(super) fn is_anchored(&self, value: Value) -> bool {
        self.timing(value).is_anchored()
    }

    pub(super) fn origin(&self, value: Value) -> Origin {
        self.facts[value.index()].origin
    }

    /// The expression of a value, whose operands are those of the value.
    pub(super) fn expression<'e>(&'e self, context: &Context<'e>, origin: Origin) -> &'e Expression {
        match origin {
            Origin::Function(source) => &context.function.expressions[source],
            Origin::Constant(source) => &context.module.global_expressions[source],
            Origin::Rewritten(index) => &self.rewritten[index as usize],
        }
    }

    /// The values that a value is computed from, in order.
    pub(super) fn operands(&self, value: Value) -> impl DoubleEndedIterator<Item = Value> {
        self.children(value)
            .iter()
            .filter_map(|child| child.value().map(Value))
    }

    /// All that a value is computed from, in order: values, locals and items of the module.
    #[inline]
    pub(super) fn children(&self, value: Value) -> &[Child] {
        self.nodes.children(value.0)
    }

    /// Writes what a value says of itself, which for an anchor is not its expression.
    #[inline]
    pub(super) fn write_fields(&self, value: Value, to: &mut Part) {
        self.nodes.write_fields(value.0, to);
    }

    /// The type of a value, if it is one that back ends look up by its role.
    pub(super) fn special_type(&self, value: Value) -> Option<Handle<Type>> {
        self.facts[value.index()].special_type
    }

    fn note_special_type(
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

    fn add(
        &mut self,
        context: &Context<'_>,
        source: Handle<Expression>,
        expression: &Expression,
    ) -> Rebased<Value> {
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = inlined(context, constant) {
                let value = self.constant_value(context, init)?;
                self.facts[value.index()].typed.get_or_insert(source);
                return Ok(value);
            }
        }
        if self.settled.is_read(source) {
            let value = self.settled_value(context, source)?;
            self.facts[value.index()].typed.get_or_insert(source);
            return Ok(value);
        }
        let mut operands = std::mem::take(&mut self.operands);
        operands.clear();
        let mut missing = false;
        each_operand(expression, |operand| match self.of(operand) {
            Some(value) => operands.push(value),
            None => missing = true,
        });
        if missing {
            return Err(FOLLOWS);
        }
        let timing = timing(expression);
        let value = match timing {
            Timing::Static | Timing::Pure => {
                match self.spelled_otherwise(context, source, expression, &operands)? {
                    Some(value) => {
                        self.facts[value.index()].typed.get_or_insert(source);
                        value
                    }
                    None => {
                        let origin = Origin::Function(source);
                        self.intern(context, expression, &operands, origin, Some(source))?
                    }
                }
            }
            Timing::Anchored | Timing::Defined => self.anchor(source, timing, &operands)?,
        };
        self.operands = operands;
        Ok(value)
    }

    /// What a variable is that has one value, or the part of it that is read.
    fn settled_value(&mut self, context: &Context<'_>, read: Handle<Expression>) -> Rebased<Value> {
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
        timing: Timing,
        operands: &[Value],
    ) -> Rebased<Value> {
        let ordinal = self.live.ordinal(source);
        let ordinal = ordinal.ok_or(Refusal(&"an expression is used and never evaluated"))?;
        let mut writer = self.nodes.writer();
        writer.fields([ANCHOR]);
        writer.fields(ordinal.to_le_bytes());
        for operand in operands {
            writer.child(operand.child());
        }
        let written = writer.finish();
        let id = self.nodes.add(written)?;
        self.note(Origin::Function(source), timing, Some(source));
        Ok(Value(id))
    }

    /// Whether the one value comes before the other.
    pub(super) fn compare(&self, context: &Context<'_>, one: Value, other: Value) -> Rebased<bool> {
        let items = Some(context.items.nodes());
        Ok(self.nodes.compare(items, one.0, other.0)?.is_lt())
    }

    /// The value of a constant expression of the module. Recursion is as deep as these nest, which
    /// is bounded before this.
    fn constant_value(
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
                    None => {
                        let origin = Origin::Constant(source);
                        self.intern(context, expression, &operands, origin, None)?
                    }
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
        let value = self.intern(context, &expression, operands, origin, typed)?;
        self.rewritten.push(expression);
        Ok(value)
    }

    fn intern(
        &mut self,
        context: &Context<'_>,
        expression: &Expression,
        operands: &[Value],
        origin: Origin,
        typed: Option<Handle<Expression>>,
    ) -> Rebased<Value> {
        let mut numbers = Numbers {
            writer: self.nodes.writer(),
            items: context.items,
            operands: operands.iter(),
        };
        expression.write(&mut numbers);
        let written = numbers.writer.finish();
        let value = Value(self.nodes.intern(Some(context.items.nodes()), written)?);
        if self.facts.len() == value.index() {
            self.note(origin, timing(expression), typed);
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

/// The value of a constant that is written out where it is used. Tables stay constants.
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
    (!is_table).then_some(constant.init)
}

fn known(value: Child) -> Option<Value> {
    (value != Child::MISSING).then_some(Value(value.index()))
}

/// Writes a value, with references as numbers.
struct Numbers<'n, 'f> {
    writer: NodeWriter<'n>,
    items: &'n Items<'f>,
    /// The operands, in the order in which the expression lists them.
    operands: std::slice::Iter<'n, Value>,
}

impl Target for Numbers<'_, '_> {
    #[inline(always)]
    fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
        self.writer.fields(bytes);
    }

    #[inline]
    fn expression(&mut self, _: Handle<Expression>) {
        let value = self.operands.next();
        self.writer
            .child(value.map_or(Child::MISSING, |value| value.child()));
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
