//! Which expressions of a function are needed, and in which order its body evaluates them.

use std::ops::Range;

use naga::{Arena, Block, Expression, Handle, LocalVariable};

use super::context::Context;
use super::effects::Effects;
use super::filters;
use super::module::is_interface;
use super::rebase::{Shape, shape};
use super::timing::{Timing, timing};
use super::wire::{Construct as _, Listing, each_operand};

/// What a statement does with an expression.
#[derive(Clone, Copy)]
pub(super) enum Event {
    /// It needs it.
    Use(Handle<Expression>),
    /// It hands it to a function that compares neighbours.
    Compared(Handle<Expression>),
    /// It evaluates it where someone can tell: an `Emit` names it, or its result is defined.
    Evaluation(Handle<Expression>),
}

/// A block, by its number among those of the body. Plain blocks are part of the one around them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct BlockId(u32);

impl BlockId {
    /// The body itself.
    pub(super) const BODY: Self = Self(0);

    /// The block of a number. Each takes a statement, of which memory holds fewer than `u32` does.
    pub(super) const fn new(number: usize) -> Self {
        Self(number as u32)
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a block stands.
#[derive(Clone, Copy)]
pub(super) struct BlockInfo {
    /// The block around it. The body stands in itself.
    outer: BlockId,
    depth: u32,
    /// How many nesting statements have begun when the last loop in it does.
    loops: u32,
}

/// What the statements of a function ask for. Its memory serves one function after the other.
#[derive(Default)]
pub(super) struct Live {
    /// What happens to expressions, in the order of the body, and in which block.
    events: Vec<(Event, BlockId)>,
    /// The events of each statement that nests others, in the order in which these begin, and
    /// whether neighbours may part in it.
    nested: Vec<(Range<usize>, bool)>,
    /// Where calls that may discard are among the events.
    partings: Vec<usize>,
    /// How many statements so far let neighbours part.
    parted: usize,
    effects: Effects,
    /// Whether the function compares neighbours itself.
    takes_derivative: bool,
    /// The blocks, in the order in which they begin.
    blocks: Vec<BlockInfo>,
    /// Which expressions are needed: by a statement, or because they are evaluated where someone
    /// can tell.
    live: Vec<bool>,
    /// The ordinal of each anchor that is needed, in the order in which the body evaluates them.
    ordinals: Vec<Option<u32>>,
    locals: Vec<Handle<LocalVariable>>,
}

impl Live {
    /// Reads a function.
    pub(super) fn read(&mut self, context: Context<'_>) {
        let expressions = &context.function.expressions;
        self.events.clear();
        self.nested.clear();
        self.partings.clear();
        self.parted = 0;
        self.effects = Effects::default();
        self.takes_derivative = false;
        self.blocks.clear();
        self.locals.clear();
        self.live.clear();
        self.live.resize(expressions.len(), false);
        self.new_block(context, &context.function.body, BlockId::BODY);
        for (event, _) in &self.events {
            let (Event::Use(handle) | Event::Compared(handle) | Event::Evaluation(handle)) = *event;
            self.live[handle.index()] |= match *event {
                Event::Use(_) | Event::Compared(_) => true,
                Event::Evaluation(_) => is_kept(context, handle),
            };
        }
        self.spread(expressions);
        // The initial values of locals are constant, so that they need no further locals.
        let mut any = false;
        for local in &self.locals {
            if let Some(init) = context.function.local_variables[*local].init {
                any |= !std::mem::replace(&mut self.live[init.index()], true);
            }
        }
        if any {
            self.spread(expressions);
        }
        self.number_anchors(expressions);
    }

    pub(super) fn contains(&self, expression: Handle<Expression>) -> bool {
        self.live[expression.index()]
    }

    /// The ordinal of an anchor that is needed.
    pub(super) fn ordinal(&self, expression: Handle<Expression>) -> Option<u32> {
        self.ordinals[expression.index()]
    }

    fn number_anchors(&mut self, expressions: &Arena<Expression>) {
        self.ordinals.clear();
        self.ordinals.resize(expressions.len(), None);
        let mut next = 0;
        for (event, _) in &self.events {
            let Event::Evaluation(handle) = *event else {
                continue;
            };
            let index = handle.index();
            if self.live[index] {
                self.takes_derivative |= filters::takes_derivative(&expressions[handle]);
                if self.ordinals[index].is_none() {
                    self.ordinals[index] = Some(next);
                    next += 1;
                }
            }
        }
        self.effects.compares |= self.takes_derivative;
    }

    /// What happens, and in which block.
    pub(super) fn events(&self) -> impl Iterator<Item = (Event, BlockId)> {
        self.events.iter().copied()
    }

    /// Whether a loop is yet to begin in a block, where so many nesting statements have begun.
    pub(super) fn is_before_loop(&self, block: BlockId, nested: usize) -> bool {
        self.blocks[block.index()].loops as usize > nested
    }

    /// What happens in a statement that nests others. These are counted from 0, in the order in
    /// which they begin.
    pub(super) fn of_nested(&self, number: usize) -> &[(Event, BlockId)] {
        let events = self.nested.get(number).map(|(events, _)| events.clone());
        &self.events[events.unwrap_or_default()]
    }

    /// The first event in a statement that nests others, if neighbours may part for good in it.
    pub(super) fn parts_in(&self, number: usize) -> Option<usize> {
        let (events, parts) = self.nested.get(number)?;
        parts.then_some(events.start)
    }

    /// The event at which a call may discard. These are counted from 0, in their order.
    pub(super) fn at_parting(&self, number: usize) -> usize {
        let event = self.partings.get(number).copied();
        event.unwrap_or(self.events.len())
    }

    /// Whether neighbours may part for good.
    pub(super) const fn parts(&self) -> bool {
        self.parted > 0
    }

    pub(super) const fn effects(&self) -> Effects {
        self.effects
    }

    /// Whether the function takes a derivative itself, rather than by what it calls.
    pub(super) const fn takes_derivative(&self) -> bool {
        self.takes_derivative
    }

    pub(super) fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    pub(super) fn depth(&self, block: BlockId) -> u32 {
        self.blocks[block.index()].depth
    }

    /// The innermost block that holds both.
    pub(super) fn common(&self, one: BlockId, two: BlockId) -> BlockId {
        let (mut one, mut two) = (one, two);
        while one != two {
            let (a, b) = (self.blocks[one.index()], self.blocks[two.index()]);
            if a.depth >= b.depth {
                one = a.outer;
            }
            if b.depth >= a.depth {
                two = b.outer;
            }
        }
        one
    }

    fn new_block(&mut self, context: Context<'_>, block: &Block, outer: BlockId) {
        let id = BlockId::new(self.blocks.len());
        let depth = self
            .blocks
            .get(outer.index())
            .map_or(0, |outer| outer.depth + 1);
        let loops = 0;
        self.blocks.push(BlockInfo {
            outer,
            depth,
            loops,
        });
        self.block(context, block, id);
        let loops = self.blocks[id.index()].loops;
        let around = &mut self.blocks[outer.index()].loops;
        *around = loops.max(*around);
    }

    /// Recursion is as deep as blocks nest, which is bounded before this.
    fn block(&mut self, context: Context<'_>, block: &Block, id: BlockId) {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => {
                    for handle in range.clone() {
                        if timing(&context.function.expressions[handle]).is_anchored() {
                            self.events.push((Event::Evaluation(handle), id));
                        }
                    }
                }
                Shape::Block(inner) => self.block(context, inner, id),
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    self.events.push((Event::Use(condition), id));
                    let number = self.begin_nested();
                    self.new_block(context, accept, id);
                    self.new_block(context, reject, id);
                    self.end_nested(number);
                }
                Shape::Switch { selector, cases } => {
                    self.events.push((Event::Use(selector), id));
                    let number = self.begin_nested();
                    for case in cases {
                        self.new_block(context, &case.body, id);
                    }
                    self.end_nested(number);
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => {
                    let number = self.begin_nested();
                    self.blocks[id.index()].loops = self.nested.len() as u32;
                    self.new_block(context, body, id);
                    let inner = BlockId::new(self.blocks.len());
                    self.new_block(context, continuing, id);
                    let condition = break_if.map(Event::Use);
                    self.events.extend(condition.map(|event| (event, inner)));
                    self.end_nested(number);
                }
                Shape::Leaf(leaf) => {
                    let called = leaf.callee().map(|callee| context.effects[callee.index()]);
                    let called = called.unwrap_or_default();
                    if called.discards {
                        self.partings.push(self.events.len());
                    }
                    self.parted += usize::from(leaf.leaves() || called.discards);
                    self.effects.compares |= called.compares;
                    self.effects.discards |= leaf.discards() || called.discards;
                    let events = &mut self.events;
                    leaf.statement().write(&mut Listing(|handle, is_defined| {
                        let event = if is_defined {
                            Event::Evaluation(handle)
                        } else if called.compares {
                            Event::Compared(handle)
                        } else {
                            Event::Use(handle)
                        };
                        events.push((event, id));
                    }));
                }
            }
        }
    }

    fn begin_nested(&mut self) -> (usize, usize) {
        let start = self.events.len();
        self.nested.push((start..start, false));
        (self.nested.len() - 1, self.parted)
    }

    fn end_nested(&mut self, (number, parted): (usize, usize)) {
        let (events, parts) = &mut self.nested[number];
        events.end = self.events.len();
        *parts = self.parted > parted;
    }

    /// Marks all that the marked expressions are computed from.
    fn spread(&mut self, expressions: &Arena<Expression>) {
        for (handle, expression) in expressions.iter().rev() {
            if self.live[handle.index()] {
                each_operand(expression, |operand| self.live[operand.index()] = true);
                if let Expression::LocalVariable(local) = *expression {
                    self.locals.push(local);
                }
            }
        }
    }
}

/// Whether an evaluation that nobody uses is kept.
///
/// A load from memory that only the shader sees is not, nor is a derivative. All else either names
/// a resource, which is part of the interface of the pipeline, or is not worth a rule.
fn is_kept(context: Context<'_>, handle: Handle<Expression>) -> bool {
    let expression = &context.function.expressions[handle];
    if timing(expression) == Timing::Defined {
        return true;
    }
    if let Expression::Load { pointer } = *expression {
        let pointer = context.info[pointer].ty.inner_with(&context.module.types);
        return pointer.pointer_space().is_none_or(is_interface);
    }
    !matches!(
        expression,
        Expression::Derivative {
            axis: _,
            ctrl: _,
            expr: _,
        }
    )
}
