//! Puts values where they are computed, in the scopes of a function's blocks.

use naga::{Expression, Handle, Range, Statement};

use super::events::BlockId;
use super::flow::Run;
use super::function::{FunctionBuilder, Placed, UNAVAILABLE};
use super::rebase::{Rebased, Refusal};
use super::shared::Shared;
use super::timing::Timing;
use super::uses::Uses;
use super::values::Value;
use super::wire::{Construct as _, Listing, Part, Target as _, tag};

/// How deep the recursion over an expression may go.
const MAX_RECURSION: usize = 32;

/// The name of what is evaluated though nothing uses it: back ends that write text leave out what
/// has no name.
const KEPT_NAME: &str = "kept";

/// What ends with the scope it happened in.
#[derive(Clone, Copy)]
pub(super) enum Entry {
    Placed(Value),
    Computed(Value),
}

pub(super) struct Placer<'p, 'm> {
    pub(super) builder: FunctionBuilder<'p, 'm>,
    /// The expressions that the next `Emit` names.
    open: Option<(Placed, Placed)>,
    /// How many statements there are in the block that is open.
    statements: u32,
    journal: &'p mut Vec<Entry>,
    pub(super) shared: &'p Shared,
    pub(super) needed: &'p Uses,
    pub(super) compared: &'p Uses,
    /// How much of the journal was there when neighbours last might part.
    pub(super) settled: usize,
    pub(super) looked: Looked,
    /// How many nesting statements have begun, and how many blocks.
    nested: usize,
    blocks: usize,
    /// How many calls that may discard there were.
    partings: usize,
    /// What is yet to be looked at. Empty between two looks.
    pub(super) pending: &'p mut Vec<Value>,
    /// How many [looks](Self::begin_visit) at values there were.
    visit: u32,
    /// Whether what was left out leaves more to leave out.
    pub(super) again: bool,
}

/// How much of the journal was there when the statements around were looked at. What they need of
/// it is placed.
#[derive(Clone, Copy, Default)]
pub(super) struct Looked {
    /// The statement around that nests this one.
    pub(super) at_nesting: usize,
    /// The loop around.
    pub(super) at_loop: usize,
    /// Whether a `continuing` block is around.
    pub(super) is_continuing: bool,
}

/// A block that has begun: where the number of its statements stands, and how many the block around
/// it holds so far.
pub(super) struct OpenBlock {
    start: usize,
    outer: u32,
}

/// The start of a scope: what was placed in it is forgotten at its end.
#[derive(Clone, Copy)]
pub(super) struct Scope(usize);

impl<'p, 'm> Placer<'p, 'm> {
    pub(super) fn new(
        builder: FunctionBuilder<'p, 'm>,
        shared: &'p Shared,
        (needed, compared): (&'p Uses, &'p Uses),
        (journal, pending): (&'p mut Vec<Entry>, &'p mut Vec<Value>),
    ) -> Self {
        journal.clear();
        pending.clear();
        Self {
            builder,
            open: None,
            statements: 0,
            journal,
            shared,
            needed,
            compared,
            settled: 0,
            looked: Looked::default(),
            nested: 0,
            blocks: 0,
            partings: 0,
            pending,
            visit: 0,
            again: false,
        }
    }

    /// Evaluates what is anchored, and notes the rest as computed.
    pub(super) fn emit(
        &mut self,
        range: &Range<Expression>,
        evaluated: Run,
        block: BlockId,
    ) -> Rebased<()> {
        let values = self.builder.values;
        // What was computed matters where a loop begins or neighbours may part.
        let is_before_loop = values.events.is_before_loop(block, self.nested);
        if !is_before_loop && !values.live.effects().compares {
            for source in self.builder.context.flows.evaluated(evaluated) {
                self.evaluate_here(*source)?;
            }
            return Ok(());
        }
        for source in range.clone() {
            let Some(value) = values.of(source) else {
                continue;
            };
            match values.timing(value) {
                Timing::Anchored | Timing::Defined => self.evaluate_here(source)?,
                Timing::Pure if !self.computed(value) => {
                    self.builder.out.marks[value.index()].computed = true;
                    self.journal.push(Entry::Computed(value));
                }
                // What was arithmetic in the source can be a literal here.
                Timing::Pure | Timing::Static => {}
            }
        }
        Ok(())
    }

    /// Evaluates an expression of the source, if it is not the value of another, which is evaluated
    /// there.
    fn evaluate_here(&mut self, source: Handle<Expression>) -> Rebased<()> {
        if let Some(value) = self.builder.values.evaluated(source) {
            let placed = self.evaluate(value)?;
            if !self.builder.values.live.is_used(source) {
                self.builder.name(placed, KEPT_NAME);
            }
        }
        Ok(())
    }

    /// Evaluates an anchored value, here and now.
    ///
    /// One that is in scope already could be evaluated anew only in the next of two plain blocks,
    /// which are one scope here. What was computed from it before would then be stale.
    fn evaluate(&mut self, value: Value) -> Rebased<Placed> {
        if self.placed(value).is_some() {
            return Err(Refusal(&"two blocks evaluate one expression"));
        }
        for operand in self.builder.values.operands(value) {
            self.place(operand)?;
        }
        self.compute(value)
    }

    /// Makes a value available here, and all that it is computed from before it.
    #[inline]
    pub(super) fn place(&mut self, value: Value) -> Rebased<Placed> {
        match self.placed(value) {
            Some(placed) => Ok(placed),
            None => self.place_below(value, 0),
        }
    }

    /// Places a value by recursion, which is quick, to a depth that any stack holds.
    fn place_below(&mut self, value: Value, depth: usize) -> Rebased<Placed> {
        if depth == MAX_RECURSION {
            return self.place_far(value);
        }
        let node = self.builder.values.node(value);
        // An anchored value is evaluated where it stands and nowhere else.
        if node.tag() == tag::ANCHOR {
            return Err(UNAVAILABLE);
        }
        for child in node.children() {
            if let Some(operand) = Value::of(*child) {
                if self.placed(operand).is_none() {
                    self.place_below(operand, depth + 1)?;
                }
            }
        }
        self.compute(value)
    }

    /// Places a value that hangs deep in an expression, without recursion.
    fn place_far(&mut self, value: Value) -> Rebased<Placed> {
        let values = self.builder.values;
        let mut pending = vec![value];
        while let Some(next) = pending.last().copied() {
            if self.placed(next).is_none() {
                if values.is_anchored(next) {
                    return Err(UNAVAILABLE);
                }
                let known = pending.len();
                let operands = values.operands(next).rev();
                pending.extend(operands.filter(|operand| self.placed(*operand).is_none()));
                if pending.len() > known {
                    continue;
                }
                self.compute(next)?;
            }
            pending.pop();
        }
        self.placed(value).ok_or(UNAVAILABLE)
    }

    pub(super) fn placed(&self, value: Value) -> Option<Placed> {
        self.builder.out.marks[value.index()].placed
    }

    /// Whether the source has computed the value in this scope.
    pub(super) fn computed(&self, value: Value) -> bool {
        self.builder.out.marks[value.index()].computed
    }

    /// Appends a value whose operands are all there.
    fn compute(&mut self, value: Value) -> Rebased<Placed> {
        let (handle, timing) = self.builder.append(value)?;
        match timing {
            Timing::Static => {}
            Timing::Pure | Timing::Anchored => {
                self.name_in_emit(handle);
                self.journal.push(Entry::Placed(value));
            }
            Timing::Defined => self.journal.push(Entry::Placed(value)),
        }
        Ok(handle)
    }

    /// The number of a nesting statement that begins here.
    pub(super) fn next_nested(&mut self) -> usize {
        self.nested += 1;
        self.nested - 1
    }

    /// The number of a call that may discard.
    pub(super) fn next_parting(&mut self) -> usize {
        self.partings += 1;
        self.partings - 1
    }

    /// The block that begins here.
    pub(super) fn next_block(&mut self) -> BlockId {
        self.blocks += 1;
        BlockId::new(self.blocks - 1)
    }

    /// Begins to look at values: none has been [seen](Self::first_visit).
    pub(super) fn begin_visit(&mut self) {
        self.visit += 1;
    }

    /// Whether a value is seen for the first time since the last beginning.
    pub(super) fn first_visit(&mut self, value: Value) -> bool {
        std::mem::replace(&mut self.builder.out.marks[value.index()].visit, self.visit)
            != self.visit
    }
}

/// Scopes and statements.
impl Placer<'_, '_> {
    pub(super) fn scope(&self) -> Scope {
        Scope(self.journal.len())
    }

    /// Begins a block in the one that is open.
    pub(super) fn enter(&mut self) -> OpenBlock {
        let body = self.body();
        let start = body.fields.len();
        // How many statements it holds is known at its end.
        body.u32(0);
        let outer = std::mem::take(&mut self.statements);
        OpenBlock { start, outer }
    }

    /// Whether the block that is open holds no statement so far.
    pub(super) const fn is_idle(&self) -> bool {
        self.statements == 0 && self.open.is_none()
    }

    /// Ends a block.
    pub(super) fn leave(&mut self, block: OpenBlock) {
        self.flush();
        let statements = std::mem::replace(&mut self.statements, block.outer);
        self.body().fill_in(block.start, statements);
    }

    /// Begins a statement that nests others. The rest of it is up to the caller.
    pub(super) fn begin(&mut self, tag: u8) -> &mut Part {
        self.flush();
        self.statements += 1;
        let body = self.body();
        body.u8(tag);
        body
    }

    /// Where statements are written.
    pub(super) const fn body(&mut self) -> &mut Part {
        &mut self.builder.out.parts.body
    }

    /// Places a statement that nests no other, and before it all that it needs.
    pub(super) fn leaf(&mut self, statement: &Statement) -> Rebased<()> {
        // By far the most.
        if let Statement::Store { pointer, value } = *statement {
            let (pointer, value) = (self.operand(pointer)?, self.operand(value)?);
            let body = self.begin(tag::STORE);
            body.reference(pointer.index());
            body.reference(value.index());
            return Ok(());
        }
        let mut result = Ok(());
        statement.write(&mut Listing(|source, is_defined| {
            if result.is_ok() {
                let placed = if is_defined {
                    self.definition(source)
                } else {
                    self.operand(source)
                };
                result = placed.map(drop);
            }
        }));
        result?;
        self.flush();
        self.statements += 1;
        self.builder.write_statement(statement)
    }

    /// Ends the `Emit` that is being gathered.
    pub(super) fn flush(&mut self) {
        if let Some((first, last)) = self.open.take() {
            self.statements += 1;
            let body = self.body();
            body.fields([tag::EMIT, 1]);
            body.reference(first.index());
            body.reference(last.index());
        }
    }

    /// Extends the `Emit` that is being gathered; a gap in the arena starts another.
    fn name_in_emit(&mut self, handle: Placed) {
        match self.open {
            Some((first, last)) if last.index() + 1 == handle.index() => {
                self.open = Some((first, handle));
            }
            Some(_) | None => {
                self.flush();
                self.open = Some((handle, handle));
            }
        }
    }

    /// What the source has computed in this scope since the journal was of a length.
    pub(super) fn computed_since(&self, length: usize) -> impl Iterator<Item = Value> {
        let entries = self.journal[length..].iter();
        entries.filter_map(|entry| match *entry {
            Entry::Computed(value) => Some(value),
            Entry::Placed(_) => None,
        })
    }

    /// Notes that a nesting statement has been looked at, before what it nests. Returns what to
    /// go back to behind it.
    pub(super) fn look_into(&mut self, is_loop: bool) -> Looked {
        let around = self.looked;
        self.looked.at_nesting = self.journal.len();
        if is_loop {
            self.looked.at_loop = self.journal.len();
        }
        around
    }

    /// Notes that all that is computed so far has been looked at.
    pub(super) fn settle(&mut self) {
        self.settled = self.journal.len();
    }

    /// Forgets what was placed and computed in a scope.
    pub(super) fn forget(&mut self, scope: Scope) {
        self.settled = self.settled.min(scope.0);
        let marks = &mut self.builder.out.marks;
        for entry in &self.journal[scope.0..] {
            match *entry {
                Entry::Placed(value) => marks[value.index()].placed = None,
                Entry::Computed(value) => marks[value.index()].computed = false,
            }
        }
        self.journal.truncate(scope.0);
    }

    /// Forgets the pure values that were placed in a scope.
    pub(super) fn forget_pure(&mut self, scope: Scope) {
        self.settled = self.settled.min(scope.0);
        for entry in &self.journal[scope.0..] {
            if let Entry::Placed(value) = *entry {
                if !self.builder.values.is_anchored(value) {
                    self.builder.out.marks[value.index()].placed = None;
                }
            }
        }
    }
}

/// References of the source's statements.
impl Placer<'_, '_> {
    pub(super) fn operand(&mut self, source: Handle<Expression>) -> Rebased<Placed> {
        let value = self.builder.values.of(source).ok_or(UNAVAILABLE)?;
        self.place(value)
    }

    fn definition(&mut self, source: Handle<Expression>) -> Rebased<Placed> {
        let value = self.builder.values.of(source).ok_or(UNAVAILABLE)?;
        self.evaluate(value)
    }
}
