//! What a function computes, apart from where: its expressions as a graph of values.
//!
//! naga's expressions are evaluated where an `Emit` statement names them. For an expression that
//! reads nothing but its operands that place does not matter, so such expressions are one value
//! wherever they are equal. Whatever reads memory, samples, or depends on its neighbours in
//! control flow is *anchored*: each evaluation is a value of its own, at its own place.

mod add;
mod needed;
mod spelling;
mod vectors;

use naga::{Expression, Handle, Type, TypeInner};

use super::context::Context;
use super::events::Events;
use super::live::{Live, Need};
use super::nodes::{Child, Id, Kind, NodeReader, Nodes};
use super::rebase::{Rebased, Refusal};
use super::settled::Settled;
use super::timing::Timing;

pub(super) const FOLLOWS: Refusal = Refusal(&"an expression uses one that follows it");

/// A value, by its number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Value(Id);

impl Value {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The value that a child is.
    #[inline]
    pub(super) const fn of(child: Child) -> Option<Self> {
        match child.value() {
            Some(id) => Some(Self(id)),
            None => None,
        }
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
    /// The anchored values, and where they stand.
    anchors: Vec<(Value, Handle<Expression>)>,
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
    /// The negations that branches ask for, in the order of what they negate.
    unless: Vec<(Handle<Expression>, Value)>,
    /// Which expressions have been begun, where these do not follow what they need.
    begun: Vec<bool>,
    pub(super) events: Events,
    pub(super) live: Live,
    pub(super) settled: Settled,
}

#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) origin: Origin,
    pub(super) timing: Timing,
    /// An expression of the source's function that has its type.
    typed: Option<Handle<Expression>>,
    /// Its type, if back ends look that up by its role.
    pub(super) special_type: Option<Handle<Type>>,
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

    /// Removes all values, and makes room for those of some expressions.
    fn clear(&mut self, expressions: usize, constant_expressions: usize) {
        let Self {
            nodes,
            facts,
            anchors,
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
        anchors.clear();
        rewritten.clear();
        of_source.clear();
        of_source.resize(expressions, Child::MISSING);
        for index in constants.drain(..) {
            of_constant[index] = Child::MISSING;
        }
        of_constant.resize(constant_expressions, Child::MISSING);
    }

    /// The first byte of what a value says of itself: the tag of its expression.
    #[inline]
    pub(super) fn tag(&self, value: Value) -> u8 {
        self.nodes.tag(value.0)
    }

    /// How many operations the largest value takes, as a tree.
    pub(super) fn largest(&self) -> u32 {
        self.nodes.largest()
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
        let place = self.unless.binary_search_by_key(&source, |(of, _)| *of);
        place.ok().map(|place| self.unless[place].1)
    }

    /// The value of a read or a call that an expression of the source is, if anything needs it.
    #[inline]
    pub(super) fn evaluated(&self, source: Handle<Expression>) -> Option<Value> {
        let value = self.of(source)?;
        let facts = &self.facts[value.index()];
        // An expression of the source can have the value of another, which is evaluated there.
        let is_here = matches!(facts.origin, Origin::Function(of) if of == source);
        (is_here && facts.timing.is_anchored()).then_some(value)
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
    pub(super) fn expression<'e>(
        &'e self,
        context: &Context<'e>,
        origin: Origin,
    ) -> &'e Expression {
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
            .filter_map(|child| Value::of(*child))
    }

    /// All that a value is computed from, in order: values, locals and items of the module.
    #[inline]
    pub(super) fn children(&self, value: Value) -> &[Child] {
        self.nodes.children(value.0)
    }

    /// What a value says of itself, which for an anchor is not its expression, and refers to.
    #[inline]
    pub(super) fn node(&self, value: Value) -> NodeReader<'_> {
        self.nodes.get(value.0)
    }

    /// What else is known of a value.
    #[inline]
    pub(super) fn facts(&self, value: Value) -> Facts {
        self.facts[value.index()]
    }

    /// Whether the one value comes before the other.
    pub(super) fn compare(&self, context: &Context<'_>, one: Value, other: Value) -> Rebased<bool> {
        let items = Some(context.items.nodes());
        Ok(self.nodes.compare(items, one.0, other.0)?.is_lt())
    }
}

fn known(value: Child) -> Option<Value> {
    (value != Child::MISSING).then_some(Value(value.index()))
}
