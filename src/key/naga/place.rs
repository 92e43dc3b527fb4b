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

use naga::{Block, Expression, Function, Handle, Statement, SwitchCase};

use super::context::Context;
use super::effects::Effects;
use super::function::FunctionBuilder;
use super::global_set::GlobalSet;
use super::live::BlockId;
use super::module::ModuleBuilder;
use super::placer::Placer;
use super::rebase::{Rebase as _, Rebased, Shape, shape};
use super::scratch::FunctionScratch;

/// Builds the canonical form of a function, and lists the variables of the module it uses and
/// what it does to its neighbours.
pub(super) fn function(
    module: &mut ModuleBuilder<'_>,
    scratch: &mut FunctionScratch,
    context: Context<'_>,
) -> Rebased<(Function, GlobalSet, Effects)> {
    let FunctionScratch {
        values,
        marks,
        shared,
        compared,
    } = scratch;
    values.read(context)?;
    shared.read(context, values);
    compared.read(context, values);
    let builder = FunctionBuilder::new(module, context, values, marks)?;
    let mut placer = Placer::new(builder, shared, compared);
    let body = placer.block(&context.function.body)?;
    let FunctionBuilder { out, globals, .. } = placer.finish(body);
    Ok((out, globals, values.live.effects()))
}

impl Placer<'_, '_> {
    /// A block in a scope of its own. Recursion is as deep as blocks nest, which is bounded.
    fn block(&mut self, block: &Block) -> Rebased<Block> {
        let id = self.next_block();
        let scope = self.scope();
        let outer = self.enter(block);
        self.block_statements(block, id)?;
        let block = self.leave(outer);
        self.forget(scope);
        Ok(block)
    }

    /// A `Block` statement only delimits scopes, and handles need none: it is flattened.
    fn block_statements(&mut self, block: &Block, id: BlockId) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => self.emit(range)?,
                Shape::Block(inner) => self.block_statements(inner, id)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    let condition = self.operand(condition)?;
                    let number = self.next_nested();
                    self.place_before(number, id)?;
                    self.flush();
                    let accept = self.block(accept)?;
                    let reject = self.block(reject)?;
                    self.push(Statement::If {
                        condition,
                        accept,
                        reject,
                    });
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
                    let statement = leaf.rebase(self)?;
                    self.push(statement);
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
        self.flush();
        let mut placed = Vec::with_capacity(cases.len());
        for case in cases {
            let SwitchCase {
                value,
                body,
                fall_through,
            } = case;
            placed.push(SwitchCase {
                value: *value,
                body: self.block(body)?,
                fall_through: *fall_through,
            });
        }
        self.push(Statement::Switch {
            selector,
            cases: placed,
        });
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
        self.flush();

        let scope = self.scope();
        let outer = self.enter(body);
        let inner = self.next_block();
        self.block_statements(body, inner)?;
        let body = self.leave(outer);
        self.forget_pure(scope);
        let outer = self.enter(continuing);
        let inner = self.next_block();
        self.block_statements(continuing, inner)?;
        let break_if = self.optional(break_if)?;
        let continuing = self.leave(outer);
        self.forget(scope);
        self.push(Statement::Loop {
            body,
            continuing,
            break_if,
        });
        Ok(())
    }
}
