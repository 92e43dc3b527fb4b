//! Where a function's values are computed.
//!
//! The body is walked in order. Anchored values stay where they are. A pure value is computed
//! right before the first statement that needs it, once for as long as it stays in scope. Four
//! things move that place:
//!
//! - Derivatives, and what is read of neighbours: what the source computed before neighbours in
//!   control flow may part, by a `discard` or in a branch, is computed before it still if these are
//!   compared by it later.
//! - Branches: what several of them need is computed before them, if it is
//!   [large and harmless](super::shared).
//! - A loop: what was computed before it is computed before it still, so that no work moves into
//!   a loop. It is work that was done there already.
//! - A `continuing` block: it can be reached by a `continue` that skipped part of the body, so
//!   that it shares no pure value with the body.

use naga::{Expression, GlobalVariable, Handle, Statement, SwitchCase};

use super::context::Context;
use super::effects::Effects;
use super::events::BlockId;
use super::flow::{Condition, Run, Step};
use super::function::{FunctionBuilder, Placed, UNAVAILABLE};
use super::global_set::GlobalSet;
use super::module::ModuleBuilder;
use super::placer::Placer;
use super::rebase::{Leaf, Rebased};
use super::scratch::FunctionScratch;
use super::wire::{Construct as _, Target as _, tag};

static RETURN: Statement = Statement::Return { value: None };

/// What is known of a canonical function.
pub(super) struct Outcome {
    /// The variables of the module that it uses.
    pub(super) globals: GlobalSet,
    /// What it does to its neighbours.
    pub(super) effects: Effects,
    /// Whether what was left out leaves more to leave out.
    pub(super) again: bool,
}

/// Builds the canonical form of a function in the scratch. One with a name is part of the interface.
/// `pinned` lists the variables of the module that stay in the interface though no code is left that
/// uses them, by those that are used.
pub(super) fn function(
    module: &mut ModuleBuilder<'_>,
    scratch: &mut FunctionScratch,
    context: &Context<'_>,
    name: Option<&str>,
    pinned: impl FnOnce(&mut ModuleBuilder<'_>, &GlobalSet) -> Rebased<Vec<Handle<GlobalVariable>>>,
) -> Rebased<Outcome> {
    let FunctionScratch {
        values,
        draft,
        shared,
        needed,
        compared,
        journal,
        pending,
    } = scratch;
    values.read(context)?;
    shared.read(context, values);
    let has_loop = values.events.is_before_loop(BlockId::BODY, 0);
    needed.read_needed(values, shared.is_any() || has_loop);
    compared.read_compared(context, values);
    let builder = FunctionBuilder::new(module, context, values, draft, name)?;
    let mut placer = Placer::new(builder, shared, (needed, compared), (journal, pending));
    let returns = context.function.result.is_none();
    placer.block(context.flow.body, returns)?;
    let again = placer.again || values.wastes();
    let mut builder = placer.builder;
    let pinned = pinned(builder.module, &builder.globals)?;
    builder.pin(&pinned)?;
    Ok(Outcome {
        globals: builder.globals,
        effects: values.live.effects(),
        again,
    })
}

impl Placer<'_, '_> {
    /// A block in a scope of its own, and whether nothing is left of it. One that `returns` is the
    /// end of a function without a result. Recursion is as deep as blocks nest, which is bounded.
    fn block(&mut self, block: Run, returns: bool) -> Rebased<bool> {
        let id = self.next_block();
        let scope = self.scope();
        let open = self.enter();
        let last = if returns { self.last(block) } else { None };
        self.block_statements(block, id, last)?;
        let is_idle = self.is_idle();
        if returns && last.is_none_or(|last| self.goes_on(block, last)) {
            self.leaf(&RETURN)?;
        }
        self.leave(open);
        self.forget(scope);
        Ok(is_idle)
    }

    /// The last step of a block of which anything is left, by its number.
    fn last(&self, block: Run) -> Option<usize> {
        let flows = self.builder.context.flows;
        let values = self.builder.values;
        flows.steps(block).iter().rposition(|step| match step {
            Step::Emit {
                range: _,
                evaluated,
            } => {
                let mut evaluated = flows.evaluated(*evaluated).iter();
                evaluated.any(|source| values.evaluated(*source).is_some())
            }
            Step::Leaf(leaf) => !self.is_dropped(*leaf),
            Step::If { .. } | Step::Switch { .. } | Step::Loop { .. } => true,
        })
    }

    /// Whether a function that ends with a step is to return after it, as naga's front ends have
    /// it. Branches return each for itself.
    fn goes_on(&self, block: Run, last: usize) -> bool {
        match self.builder.context.flows.steps(block)[last] {
            Step::If { .. } | Step::Switch { .. } => false,
            Step::Emit { .. } | Step::Loop { .. } => true,
            Step::Leaf(leaf) => !leaf.leaves(),
        }
    }

    /// Whether a statement stores to a variable that is its value.
    fn is_dropped(&self, leaf: Leaf<'_>) -> bool {
        let store = leaf.store();
        store.is_some_and(|(pointer, _)| self.builder.values.settled.drops(pointer))
    }

    /// The statements of a block. The `last` one is the end of a function without a result.
    fn block_statements(&mut self, block: Run, id: BlockId, last: Option<usize>) -> Rebased<()> {
        let flows = self.builder.context.flows;
        for (number, step) in flows.steps(block).iter().enumerate() {
            let returns = last == Some(number);
            match *step {
                Step::Emit { range, evaluated } => self.emit(range, evaluated, id)?,
                Step::If {
                    condition,
                    accept,
                    reject,
                } => {
                    let condition = self.condition(condition)?;
                    let number = self.next_nested();
                    self.place_before(number, id)?;
                    self.begin(tag::IF).reference(condition.index());
                    let around = self.look_into(false);
                    self.again |= self.block(accept, returns)?;
                    self.block(reject, returns)?;
                    self.looked = around;
                }
                Step::Switch {
                    selector,
                    cases,
                    bodies,
                } => self.switch(selector, cases, bodies, id, returns)?,
                Step::Loop {
                    body,
                    continuing,
                    break_if,
                } => self.loop_(body, continuing, break_if, id)?,
                Step::Leaf(leaf) if self.is_dropped(leaf) => {}
                Step::Leaf(leaf) => {
                    let callee = leaf.callee();
                    if callee.is_some_and(|callee| self.builder.effects_of(callee).discards) {
                        let number = self.next_parting();
                        self.place_parting(self.builder.values.events.at_parting(number))?;
                    }
                    self.leaf(leaf.statement())?;
                }
            }
        }
        Ok(())
    }

    /// What decides between branches. A literal does not, which the next round knows.
    fn condition(&mut self, condition: Condition) -> Rebased<Placed> {
        let Condition { of, is_negated } = condition;
        let values = self.builder.values;
        let value = if is_negated {
            values.unless(of)
        } else {
            values.of(of)
        };
        let value = value.ok_or(UNAVAILABLE)?;
        self.again |= values.literal(self.builder.context, value).is_some();
        self.place(value)
    }

    /// Places what belongs before a statement that nests others.
    fn place_before(&mut self, number: usize, id: BlockId) -> Rebased<()> {
        match self.builder.values.events.parts_in(number) {
            Some(event) => self.place_parting(event)?,
            None => self.place_compared(number)?,
        }
        self.place_shared(number, id)
    }

    fn switch(
        &mut self,
        selector: Handle<Expression>,
        cases: &[SwitchCase],
        bodies: u32,
        id: BlockId,
        returns: bool,
    ) -> Rebased<()> {
        let selector = self.operand(selector)?;
        let number = self.next_nested();
        self.place_before(number, id)?;
        let body = self.begin(tag::SWITCH);
        body.reference(selector.index());
        body.count(cases.len());
        let flows = self.builder.context.flows;
        let around = self.look_into(false);
        let mut is_idle = true;
        for (number, case) in cases.iter().enumerate() {
            let SwitchCase {
                value,
                body: _,
                fall_through,
            } = case;
            value.write(self.body());
            let body = flows.case_body(bodies, number);
            is_idle &= self.block(body, returns && !fall_through)?;
            self.body().bool(*fall_through);
        }
        self.looked = around;
        self.again |= is_idle;
        Ok(())
    }

    fn loop_(
        &mut self,
        body: Run,
        continuing: Run,
        break_if: Option<Handle<Expression>>,
        id: BlockId,
    ) -> Rebased<()> {
        let number = self.next_nested();
        self.place_before(number, id)?;
        self.place_carried(number)?;
        self.begin(tag::LOOP);
        let around = self.look_into(true);

        let scope = self.scope();
        let open = self.enter();
        let inner = self.next_block();
        self.block_statements(body, inner, None)?;
        self.leave(open);
        self.forget_pure(scope);
        self.looked.is_continuing = true;
        let open = self.enter();
        let inner = self.next_block();
        self.block_statements(continuing, inner, None)?;
        let break_if = break_if.map(|source| self.operand(source)).transpose()?;
        self.leave(open);
        self.forget(scope);
        self.looked = around;
        self.body().optional(break_if.map(Placed::index));
        Ok(())
    }
}
