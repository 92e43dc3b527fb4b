//! Where a function's values are computed.
//!
//! The body is walked in order. Anchored values stay where they are. A pure value is computed
//! right before the first statement that needs it, once for as long as it stays in scope. Four
//! things move that place:
//!
//! - Derivatives: what the source computed before neighbours in control flow may part, by a
//!   `discard` or in a branch, is computed before it still if these are compared by it later.
//! - Branches: what several of them need is computed before them, if it is
//!   [large and harmless](super::shared).
//! - A loop: what was computed before it is computed before it still, so that no work moves into
//!   a loop. It is work that was done there already.
//! - A `continuing` block: it can be reached by a `continue` that skipped part of the body, so
//!   that it shares no pure value with the body.

use naga::{Block, Expression, GlobalVariable, Handle, SwitchCase};

use super::context::Context;
use super::effects::Effects;
use super::function::{FunctionBuilder, Placed};
use super::global_set::GlobalSet;
use super::live::BlockId;
use super::module::ModuleBuilder;
use super::placer::Placer;
use super::rebase::{Rebased, Shape, shape};
use super::scratch::FunctionScratch;
use super::wire::{Construct as _, Target as _, tag};

/// Builds the canonical form of a function in the scratch. One with a name is part of the interface.
/// `pinned` lists the variables of the module that stay in the interface though no code is left that
/// uses them, by those that are used.
pub(super) fn function(
    module: &mut ModuleBuilder<'_>,
    scratch: &mut FunctionScratch,
    context: Context<'_>,
    name: Option<&str>,
    pinned: impl FnOnce(&mut ModuleBuilder<'_>, &GlobalSet) -> Rebased<Vec<Handle<GlobalVariable>>>,
) -> Rebased<(GlobalSet, Effects)> {
    let FunctionScratch {
        values,
        draft,
        shared,
        compared,
    } = scratch;
    values.read(context)?;
    shared.read(context, values);
    compared.read(context, values);
    let builder = FunctionBuilder::new(module, context, values, draft, name)?;
    let mut placer = Placer::new(builder, shared, compared);
    placer.block(&context.function.body)?;
    let mut builder = placer.builder;
    let pinned = pinned(builder.module, &builder.globals)?;
    builder.pin(&pinned)?;
    Ok((builder.globals, values.live.effects()))
}

impl Placer<'_, '_> {
    /// A block in a scope of its own. Recursion is as deep as blocks nest, which is bounded.
    fn block(&mut self, block: &Block) -> Rebased<()> {
        let id = self.next_block();
        let scope = self.scope();
        let open = self.enter();
        self.block_statements(block, id)?;
        self.leave(open);
        self.forget(scope);
        Ok(())
    }

    /// A `Block` statement only delimits scopes, and handles need none: it is flattened.
    fn block_statements(&mut self, block: &Block, id: BlockId) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => self.emit(range, id)?,
                Shape::Block(inner) => self.block_statements(inner, id)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    let condition = self.operand(condition)?;
                    let number = self.next_nested();
                    self.place_before(number, id)?;
                    self.begin(tag::IF).reference(condition.index());
                    self.block(accept)?;
                    self.block(reject)?;
                }
                Shape::Switch { selector, cases } => self.switch(selector, cases, id)?,
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => self.loop_(body, continuing, break_if, id)?,
                Shape::Leaf(leaf) => {
                    let callee = leaf.callee();
                    if callee.is_some_and(|callee| self.builder.effects_of(callee).discards) {
                        let number = self.next_parting();
                        self.place_parting(self.builder.values.live.at_parting(number))?;
                    }
                    self.leaf(leaf.statement())?;
                }
            }
        }
        Ok(())
    }

    /// Places what belongs before a statement that nests others.
    fn place_before(&mut self, number: usize, id: BlockId) -> Rebased<()> {
        match self.builder.values.live.parts_in(number) {
            Some(event) => self.place_parting(event)?,
            None => self.place_compared(number)?,
        }
        self.place_shared(number, id)
    }

    fn switch(
        &mut self,
        selector: Handle<Expression>,
        cases: &[SwitchCase],
        id: BlockId,
    ) -> Rebased<()> {
        let selector = self.operand(selector)?;
        let number = self.next_nested();
        self.place_before(number, id)?;
        let body = self.begin(tag::SWITCH);
        body.reference(selector.index());
        body.count(cases.len());
        for case in cases {
            let SwitchCase {
                value,
                body,
                fall_through,
            } = case;
            value.write(self.body());
            self.block(body)?;
            self.body().bool(*fall_through);
        }
        Ok(())
    }

    fn loop_(
        &mut self,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
        id: BlockId,
    ) -> Rebased<()> {
        let number = self.next_nested();
        self.place_before(number, id)?;
        self.place_carried(number)?;
        self.begin(tag::LOOP);

        let scope = self.scope();
        let open = self.enter();
        let inner = self.next_block();
        self.block_statements(body, inner)?;
        self.leave(open);
        self.forget_pure(scope);
        let open = self.enter();
        let inner = self.next_block();
        self.block_statements(continuing, inner)?;
        let break_if = break_if.map(|source| self.operand(source)).transpose()?;
        self.leave(open);
        self.forget(scope);
        self.body().optional(break_if.map(Placed::index));
        Ok(())
    }
}
