//! What several branches share, and where it is computed for all of them.
//!
//! A pure value is computed where it is needed. Where that is in several branches it would be
//! computed in each. A value of a few operations is; a larger one is computed once, before the
//! first statement that holds such a branch, in the innermost block that holds them all. Some of
//! that may be for nothing, so it must be harmless: nothing that a target leaves undefined for
//! some operands is computed where the source may not have come to it.

use naga::{BinaryOperator, Expression, ScalarKind};

use super::context::Context;
use super::events::{BlockId, Event};
use super::rules;
use super::timing::Timing;
use super::values::{Value, Values};
use super::wire::tag;

/// A value of no more operations is computed in each branch.
const SMALL: u32 = 8;

/// Where the values of a function are shared. Its memory serves one function after the other.
#[derive(Default)]
pub(super) struct Shared {
    places: Vec<Place>,
    /// The values that are shared, by the number of their block.
    homes: Vec<(BlockId, Value)>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// The innermost block that holds all uses.
    home: BlockId,
    /// Whether there are any.
    is_used: bool,
    /// Whether these are in several blocks.
    is_split: bool,
    /// Whether it is a part of a value that may be shared, or is one.
    is_asked_for: bool,
    /// The innermost block that one of the reads and calls below it stands in.
    defined: BlockId,
    is_harmful: bool,
    is_shared: bool,
}

impl Shared {
    /// Finds what is shared in a function.
    pub(super) fn read(&mut self, context: &Context<'_>, values: &Values) {
        self.places.clear();
        self.homes.clear();
        if values.events.blocks().len() < 3 {
            return;
        }
        if values.largest() <= SMALL {
            return;
        }
        self.places.resize(values.len(), Place::default());
        self.note_events(values);
        if self.spread_uses(values) {
            self.spread_definitions(context, values);
            self.homes.sort_by_key(|(home, _)| home.index());
        }
    }

    /// Whether a value is computed in a block for all that is nested in it.
    pub(super) fn is_home(&self, value: Value, block: BlockId) -> bool {
        let place = self.places.get(value.index());
        place.is_some_and(|place| place.is_shared && place.home == block)
    }

    /// Whether any value is shared.
    pub(super) fn is_any(&self) -> bool {
        !self.homes.is_empty()
    }

    /// The values that are computed in a block for all that is nested in it.
    pub(super) fn at(&self, block: BlockId) -> &[(BlockId, Value)] {
        let end_of = |before: usize| {
            self.homes
                .partition_point(|(home, _)| home.index() < before)
        };
        &self.homes[end_of(block.index())..end_of(block.index() + 1)]
    }

    /// Notes the blocks in which values are used and evaluated.
    fn note_events(&mut self, values: &Values) {
        for (event, block) in values.events.iter() {
            match event {
                Event::Nothing => {}
                Event::Unless(source) => {
                    if let Some(value) = values.unless(source) {
                        self.used(values, value, block);
                    }
                }
                Event::Use(source) | Event::Compared(source) => {
                    if let Some(value) = values.of(source) {
                        self.used(values, value, block);
                    }
                }
                Event::Evaluation(source) => {
                    if let Some(value) = values.evaluated(source) {
                        self.places[value.index()].defined = block;
                        for operand in values.operands(value) {
                            self.used(values, operand, block);
                        }
                    }
                }
            }
        }
    }

    /// Small values are not shared, and all that a larger one is a part of is larger.
    #[inline]
    fn used(&mut self, values: &Values, value: Value, block: BlockId) {
        if values.size(value) <= SMALL {
            return;
        }
        let place = &mut self.places[value.index()];
        if !place.is_used {
            (place.home, place.is_used) = (block, true);
        } else if place.home != block {
            place.home = values.events.common(place.home, block);
            place.is_split = true;
        }
    }

    /// Takes uses down to what is used. Whether any value may be shared.
    fn spread_uses(&mut self, values: &Values) -> bool {
        let mut is_any = false;
        for value in values.all().rev() {
            let Place {
                home,
                is_used,
                is_split,
                is_asked_for,
                ..
            } = self.places[value.index()];
            if !is_used && !is_asked_for {
                continue;
            }
            let node = values.node(value);
            // What a read or a call uses is among the events.
            if node.tag() == tag::ANCHOR {
                continue;
            }
            let is_asked_for = is_asked_for || is_split;
            self.places[value.index()].is_asked_for = is_asked_for;
            is_any |= is_asked_for;
            for operand in node.children().iter().filter_map(|child| Value::of(*child)) {
                if is_used {
                    self.used(values, operand, home);
                }
                let place = &mut self.places[operand.index()];
                place.is_split |= is_split;
                place.is_asked_for |= is_asked_for;
            }
        }
        is_any
    }

    /// Takes definitions up to what is made of them, and finds what is shared.
    fn spread_definitions(&mut self, context: &Context<'_>, values: &Values) {
        let events = &values.events;
        for value in values.all() {
            if !self.places[value.index()].is_asked_for || values.timing(value) != Timing::Pure {
                continue;
            }
            let mut defined = BlockId::BODY;
            let mut is_harmful = !is_harmless(context, values, value);
            for operand in values.operands(value) {
                let below = self.places[operand.index()];
                is_harmful |= below.is_harmful;
                if below.defined != defined && events.depth(below.defined) > events.depth(defined) {
                    defined = below.defined;
                }
            }
            let place = &mut self.places[value.index()];
            place.defined = defined;
            place.is_harmful = is_harmful;
            if place.is_used {
                let home = place.home;
                place.is_shared = place.is_split
                    && values.size(value) > SMALL
                    && !is_harmful
                    && events.common(home, defined) == defined;
                if place.is_shared {
                    self.homes.push((home, value));
                }
            }
        }
    }
}

/// Whether an operation is defined for all operands, on all targets, so that it may be computed
/// for nothing.
fn is_harmless(context: &Context<'_>, values: &Values, value: Value) -> bool {
    let origin = values.origin(value);
    match *values.expression(context, origin) {
        Expression::Binary {
            op,
            left: _,
            right: _,
        } => match op {
            // Integers by zero.
            BinaryOperator::Divide | BinaryOperator::Modulo => {
                let ty = values.operands(value).next();
                let ty = ty.and_then(|operand| values.ty(context, operand));
                ty.is_some_and(|ty| !rules::is_exact(ty))
            }
            BinaryOperator::Add
            | BinaryOperator::Subtract
            | BinaryOperator::Multiply
            | BinaryOperator::Equal
            | BinaryOperator::NotEqual
            | BinaryOperator::Less
            | BinaryOperator::LessEqual
            | BinaryOperator::Greater
            | BinaryOperator::GreaterEqual
            | BinaryOperator::And
            | BinaryOperator::ExclusiveOr
            | BinaryOperator::InclusiveOr
            | BinaryOperator::LogicalAnd
            | BinaryOperator::LogicalOr
            | BinaryOperator::ShiftLeft
            | BinaryOperator::ShiftRight => true,
        },
        Expression::As {
            expr: _,
            kind,
            convert,
        } => match kind {
            // Out of range.
            ScalarKind::Sint | ScalarKind::Uint => convert.is_none(),
            ScalarKind::Float
            | ScalarKind::Bool
            | ScalarKind::AbstractInt
            | ScalarKind::AbstractFloat => true,
        },
        Expression::Literal(_)
        | Expression::Constant(_)
        | Expression::Override(_)
        | Expression::ZeroValue(_)
        | Expression::FunctionArgument(_)
        | Expression::GlobalVariable(_)
        | Expression::LocalVariable(_)
        | Expression::Compose {
            ty: _,
            components: _,
        }
        | Expression::AccessIndex { base: _, index: _ }
        | Expression::Splat { size: _, value: _ }
        | Expression::Swizzle {
            size: _,
            vector: _,
            pattern: _,
        }
        | Expression::Unary { op: _, expr: _ }
        | Expression::Select {
            condition: _,
            accept: _,
            reject: _,
        }
        | Expression::Relational {
            fun: _,
            argument: _,
        }
        | Expression::Math {
            fun: _,
            arg: _,
            arg1: _,
            arg2: _,
            arg3: _,
        }
        | Expression::ArrayLength(_) => true,
        // What is out of bounds, and all that is no pure value. A list of what is harmless, so
        // that what is new is not.
        _ => false,
    }
}
