//! What happens to the expressions of a function, in the order of its body.

use std::ops::Range;

use naga::{Expression, Handle};

use super::context::Context;
use super::effects::Effects;
use super::flow::{Condition, Run, Step};
use super::rebase::Leaf;
use super::wire::{Construct as _, Listing};

/// What a statement does with an expression.
#[derive(Clone, Copy)]
pub(super) enum Event {
    /// It needs it.
    Use(Handle<Expression>),
    /// It needs its negation.
    Unless(Handle<Expression>),
    /// It hands it to a function that compares neighbours, or to the neighbours themselves.
    Compared(Handle<Expression>),
    /// It evaluates it where someone can tell: an `Emit` names it, or its result is defined.
    Evaluation(Handle<Expression>),
    /// It is not there any more.
    Nothing,
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
    /// A block further out, so that a way out takes few steps however deep blocks nest.
    jump: BlockId,
    depth: u32,
    /// How many nesting statements have begun when the last loop in it does.
    loops: u32,
}

/// A plain store.
#[derive(Clone, Copy)]
pub(super) struct Store {
    /// Its first event. The next is the last.
    pub(super) event: usize,
    pub(super) block: BlockId,
    pub(super) pointer: Handle<Expression>,
    pub(super) value: Handle<Expression>,
}

/// What the statements of a function do. Its memory serves one function after the other.
#[derive(Default)]
pub(super) struct Events {
    /// What happens to expressions, in the order of the body, and in which block.
    events: Vec<(Event, BlockId)>,
    /// The events of each statement that nests others, in the order in which these begin, and
    /// whether neighbours may part in it.
    nested: Vec<(Range<usize>, bool)>,
    /// Where calls that may discard are among the events.
    partings: Vec<usize>,
    /// How many statements so far let neighbours part.
    parted: usize,
    /// What its statements do to its neighbours, without its expressions.
    effects: Effects,
    /// The blocks, in the order in which they begin.
    blocks: Vec<BlockInfo>,
    stores: Vec<Store>,
    /// What branches ask the negation of.
    negations: Vec<Handle<Expression>>,
}

impl Events {
    /// Reads a function.
    pub(super) fn read(&mut self, context: &Context<'_>) {
        let Self {
            events,
            nested,
            partings,
            parted,
            effects,
            blocks,
            stores,
            negations,
        } = self;
        events.clear();
        nested.clear();
        partings.clear();
        *parted = 0;
        *effects = Effects::default();
        blocks.clear();
        stores.clear();
        negations.clear();
        self.new_block(context, context.flow.body, BlockId::BODY);
    }

    /// What happens, and in which block.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Event, BlockId)> {
        self.events.iter().copied()
    }

    /// Whether a loop is yet to begin in a block, where so many nesting statements have begun.
    pub(super) fn is_before_loop(&self, block: BlockId, nested: usize) -> bool {
        self.blocks[block.index()].loops as usize > nested
    }

    /// Whether neighbours may part, for good or for as long as a branch takes.
    pub(super) fn parts(&self) -> bool {
        self.parted > 0 || !self.nested.is_empty()
    }

    /// What happens in a statement that nests others. These are counted from 0, in the order in
    /// which they begin.
    pub(super) fn of_nested(&self, number: usize) -> &[(Event, BlockId)] {
        &self.events[self.range_of_nested(number)]
    }

    /// Where that stands among all events.
    pub(super) fn range_of_nested(&self, number: usize) -> Range<usize> {
        let events = self.nested.get(number).map(|(events, _)| events.clone());
        events.unwrap_or_default()
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

    /// What the statements do to neighbours, whatever the expressions do.
    pub(super) const fn effects(&self) -> Effects {
        self.effects
    }

    pub(super) fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    pub(super) fn depth(&self, block: BlockId) -> u32 {
        self.blocks[block.index()].depth
    }

    /// The innermost block that holds both.
    pub(super) fn common(&self, one: BlockId, two: BlockId) -> BlockId {
        let depth = self.depth(one).min(self.depth(two));
        let (mut one, mut two) = (self.around(one, depth), self.around(two, depth));
        while one != two {
            let (a, b) = (&self.blocks[one.index()], &self.blocks[two.index()]);
            // Blocks of one depth jump to one depth.
            (one, two) = if a.jump == b.jump {
                (a.outer, b.outer)
            } else {
                (a.jump, b.jump)
            };
        }
        one
    }

    /// The block of a depth around a block that is as deep or deeper.
    fn around(&self, block: BlockId, depth: u32) -> BlockId {
        let mut block = block;
        while self.depth(block) > depth {
            let BlockInfo { outer, jump, .. } = self.blocks[block.index()];
            block = if self.depth(jump) < depth {
                outer
            } else {
                jump
            };
        }
        block
    }

    /// Where a block in another one jumps to: as far as the two jumps before it together, if these
    /// are of one length. That makes ways of logarithmic length.
    fn jump_from(&self, outer: BlockId) -> BlockId {
        let first = self.blocks[outer.index()].jump;
        let second = self.blocks[first.index()].jump;
        let is_even =
            self.depth(outer) - self.depth(first) == self.depth(first) - self.depth(second);
        if is_even { second } else { outer }
    }

    fn new_block(&mut self, context: &Context<'_>, block: Run, outer: BlockId) {
        let id = BlockId::new(self.blocks.len());
        let (depth, jump) = match self.blocks.get(outer.index()) {
            Some(around) => (around.depth + 1, self.jump_from(outer)),
            None => (0, BlockId::BODY),
        };
        self.blocks.push(BlockInfo {
            outer,
            jump,
            depth,
            loops: 0,
        });
        self.block(context, block, id);
        let loops = self.blocks[id.index()].loops;
        let around = &mut self.blocks[outer.index()].loops;
        *around = loops.max(*around);
    }

    /// Recursion is as deep as blocks nest, which is bounded before this.
    fn block(&mut self, context: &Context<'_>, block: Run, id: BlockId) {
        for step in context.flows.steps(block) {
            match *step {
                Step::Emit {
                    range: _,
                    evaluated,
                } => {
                    let evaluated = context.flows.evaluated(evaluated).iter();
                    let events = evaluated.map(|handle| (Event::Evaluation(*handle), id));
                    self.events.extend(events);
                }
                Step::If {
                    condition: Condition { of, is_negated },
                    accept,
                    reject,
                } => {
                    let event = if is_negated {
                        self.negations.push(of);
                        Event::Unless(of)
                    } else {
                        Event::Use(of)
                    };
                    self.events.push((event, id));
                    let number = self.begin_nested();
                    self.new_block(context, accept, id);
                    self.new_block(context, reject, id);
                    self.end_nested(number);
                }
                Step::Switch {
                    selector,
                    cases,
                    bodies,
                } => {
                    self.events.push((Event::Use(selector), id));
                    let number = self.begin_nested();
                    for case in 0..cases.len() {
                        self.new_block(context, context.flows.case_body(bodies, case), id);
                    }
                    self.end_nested(number);
                }
                Step::Loop {
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
                Step::Leaf(leaf) if leaf.store().is_some() => self.store(leaf, id),
                Step::Leaf(leaf) => {
                    let called = leaf.callee().map(|callee| context.effects[callee.index()]);
                    let called = called.unwrap_or_default();
                    if called.discards {
                        self.partings.push(self.events.len());
                    }
                    self.parted += usize::from(leaf.leaves() || called.discards);
                    let gathered = leaf.gathers();
                    self.effects.compares |= called.compares || gathered.is_some();
                    self.effects.discards |= leaf.discards() || called.discards;

                    let events = &mut self.events;
                    leaf.statement().write(&mut Listing(|handle, is_defined| {
                        let event = if is_defined {
                            Event::Evaluation(handle)
                        } else if called.compares || gathered == Some(handle) {
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

    /// A plain store is most of what nests nothing.
    fn store(&mut self, leaf: Leaf<'_>, id: BlockId) {
        if let Some((pointer, value)) = leaf.store() {
            self.stores.push(Store {
                event: self.events.len(),
                block: id,
                pointer,
                value,
            });
            let events = [pointer, value].map(|handle| (Event::Use(handle), id));
            self.events.extend_from_slice(&events);
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

    /// How many branches ask for a negation.
    pub(super) fn negations(&self) -> usize {
        self.negations.len()
    }

    /// What a branch asks the negation of.
    pub(super) fn negation(&self, number: usize) -> Handle<Expression> {
        self.negations[number]
    }

    pub(super) fn stores(&self) -> &[Store] {
        &self.stores
    }

    /// Forgets a store.
    pub(super) fn drop_store(&mut self, event: usize) {
        for (event, _) in self.events.iter_mut().skip(event).take(2) {
            *event = Event::Nothing;
        }
    }
}
