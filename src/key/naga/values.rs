//! What a function computes, apart from where: its expressions as a graph of values.
//!
//! naga's expressions are evaluated where an `Emit` statement names them. For an expression that
//! reads nothing but its operands that place does not matter, so such expressions are one value
//! wherever they are equal. Whatever reads memory, samples, or depends on its neighbours in
//! control flow is *anchored*: each evaluation is a value of its own, at its own place.

use naga::proc::TypeResolution;
use naga::{
    Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Override, Type,
    TypeInner,
};

use super::context::Context;
use super::items::Items;
use super::live::Live;
use super::nodes::{Child, Id, Kind, NodeWriter, Nodes};
use super::rebase::{Rebased, Refusal};
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
}

/// Where the expression of a value stands. Its operands are handles of the same arena.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// In the source's function.
    Function(Handle<Expression>),
    /// Among the constant expressions of the source's module.
    Constant(Handle<Expression>),
    /// In the source's function, but in its one spelling: an index of what was rewritten.
    Rewritten(u32),
    /// Among the constant expressions, and rewritten as well.
    RewrittenConstant(u32),
}

impl Origin {
    /// Whether the operands are constant expressions of the module, or else the function's.
    pub(super) const fn is_constant(self) -> bool {
        match self {
            Self::Constant(_) | Self::RewrittenConstant(_) => true,
            Self::Function(_) | Self::Rewritten(_) => false,
        }
    }
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
    pub(super) live: Live,
}

#[derive(Clone, Copy)]
struct Facts {
    origin: Origin,
    timing: Timing,
    /// Its type, if back ends look that up by its role.
    special_type: Option<Handle<Type>>,
}

impl Values {
    /// Reads a function of a validated module.
    pub(super) fn read(&mut self, context: Context<'_>) -> Rebased<()> {
        let expressions = &context.function.expressions;
        self.clear(expressions.len(), context.module.global_expressions.len());
        self.live.read(context);
        for (handle, expression) in expressions.iter() {
            if self.live.contains(handle) {
                let value = self.add(context, handle, expression)?;
                self.of_source[handle.index()] = Child::new(Kind::Value, value.0);
                if !context.special.is_empty() {
                    self.note_special_type(context, value, handle);
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
            rewritten,
            of_source,
            of_constant,
            constants,
            // It clears itself.
            live: _,
        } = self;
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

    pub(super) fn timing(&self, value: Value) -> Timing {
        self.facts[value.index()].timing
    }

    pub(super) fn is_anchored(&self, value: Value) -> bool {
        self.timing(value).is_anchored()
    }

    pub(super) fn origin(&self, value: Value) -> Origin {
        self.facts[value.index()].origin
    }

    /// The expression of a value, whose operands are where it comes from.
    pub(super) fn expression<'e>(&'e self, context: Context<'e>, origin: Origin) -> &'e Expression {
        match origin {
            Origin::Function(source) => &context.function.expressions[source],
            Origin::Constant(source) => &context.module.global_expressions[source],
            Origin::Rewritten(index) | Origin::RewrittenConstant(index) => {
                &self.rewritten[index as usize]
            }
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
        context: Context<'_>,
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
        context: Context<'_>,
        source: Handle<Expression>,
        expression: &Expression,
    ) -> Rebased<Value> {
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = inlined(context, constant) {
                return self.constant_value(context, init);
            }
        }
        let timing = timing(expression);
        match timing {
            Timing::Static | Timing::Pure => {
                if let Some(rewritten) = self.rewritten(context, expression)? {
                    let origin = Origin::Rewritten(self.rewritten.len() as u32);
                    let value = self.intern(context, &rewritten, origin)?;
                    self.rewritten.push(rewritten);
                    return Ok(value);
                }
                self.intern(context, expression, Origin::Function(source))
            }
            Timing::Anchored | Timing::Defined => {
                // An anchor is known by its ordinal among the anchors of the function.
                let ordinal = self.live.ordinal(source);
                let ordinal =
                    ordinal.ok_or(Refusal(&"an expression is used and never evaluated"))?;
                let of_source = &self.of_source;
                let mut writer = self.nodes.writer();
                writer.fields([ANCHOR]);
                writer.fields(ordinal.to_le_bytes());
                each_operand(expression, |operand| {
                    writer.child(of_source[operand.index()]);
                });
                let written = writer.finish();
                let id = self.nodes.add(written)?;
                self.note(Origin::Function(source), timing);
                Ok(Value(id))
            }
        }
    }

    /// Whether the one value comes before the other.
    pub(super) fn compare(&self, context: Context<'_>, one: Value, other: Value) -> Rebased<bool> {
        let items = Some(context.items.nodes());
        Ok(self.nodes.compare(items, one.0, other.0)?.is_lt())
    }

    /// The value of a constant expression of the module. Recursion is as deep as these nest, which
    /// is bounded before this.
    fn constant_value(
        &mut self,
        context: Context<'_>,
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
                let mut operands = Vec::new();
                each_operand(expression, |operand| operands.push(operand));
                for operand in operands {
                    self.constant_value(context, operand)?;
                }
                self.constant_spelling(context, source)?
            }
        };
        self.of_constant[source.index()] = Child::new(Kind::Value, value.0);
        self.constants.push(source.index());
        Ok(value)
    }

    /// The value of a constant expression, in its one spelling, whose operands have theirs.
    fn constant_spelling(
        &mut self,
        context: Context<'_>,
        source: Handle<Expression>,
    ) -> Rebased<Value> {
        let expression = &context.module.global_expressions[source];
        if let Expression::Compose { ty, ref components } = *expression {
            let of = |operand| self.of_constant(operand);
            if let Some(rewritten) = Self::splat(context, ty, components, of)? {
                let origin = Origin::RewrittenConstant(self.rewritten.len() as u32);
                let value = self.intern(context, &rewritten, origin)?;
                self.rewritten.push(rewritten);
                return Ok(value);
            }
        }
        self.intern(context, expression, Origin::Constant(source))
    }

    fn intern(
        &mut self,
        context: Context<'_>,
        expression: &Expression,
        origin: Origin,
    ) -> Rebased<Value> {
        let Self {
            nodes,
            of_source,
            of_constant,
            ..
        } = self;
        let of_operand = if origin.is_constant() {
            of_constant
        } else {
            of_source
        };
        let mut numbers = Numbers {
            writer: nodes.writer(),
            items: context.items,
            of_operand,
        };
        expression.write(&mut numbers);
        let written = numbers.writer.finish();
        let id = nodes.intern(Some(context.items.nodes()), written)?;
        if self.facts.len() == id as usize {
            self.note(origin, timing(expression));
        }
        Ok(Value(id))
    }

    fn note(&mut self, origin: Origin, timing: Timing) {
        self.facts.push(Facts {
            origin,
            timing,
            special_type: None,
        });
    }
}

/// The value of a constant that is written out where it is used. Tables stay constants.
fn inlined(context: Context<'_>, constant: Handle<Constant>) -> Option<Handle<Expression>> {
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
    /// The value of each expression that can be an operand.
    of_operand: &'n [Child],
}

impl Target for Numbers<'_, '_> {
    #[inline(always)]
    fn fields<const N: usize>(&mut self, bytes: [u8; N]) {
        self.writer.fields(bytes);
    }

    #[inline]
    fn expression(&mut self, handle: Handle<Expression>) {
        self.writer.child(self.of_operand[handle.index()]);
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
