//! Which expressions of a function are needed, and in which order its body evaluates them.

use naga::{Arena, Block, Expression, Handle, LocalVariable};

use super::context::Context;
use super::module::is_interface;
use super::rebase::{Listing, Rebased, Shape, each_operand, shape};
use super::timing::{Timing, timing};

/// What the statements of a function ask for.
#[derive(Default)]
pub(super) struct Walk {
    /// Operands of statements.
    roots: Vec<Handle<Expression>>,
    /// What each `Emit` names and each statement defines, in the order in which the body names them.
    pub(super) order: Vec<Handle<Expression>>,
}

impl Walk {
    /// Recursion is as deep as blocks nest, which is bounded before this.
    pub(super) fn block(&mut self, block: &Block) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => {
                    self.order.extend(range.clone());
                }
                Shape::Block(inner) => self.block(inner)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    self.roots.push(condition);
                    self.block(accept)?;
                    self.block(reject)?;
                }
                Shape::Switch { selector, cases } => {
                    self.roots.push(selector);
                    for case in cases {
                        self.block(&case.body)?;
                    }
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => {
                    self.block(body)?;
                    self.block(continuing)?;
                    self.roots.extend(break_if);
                }
                Shape::Leaf(leaf) => {
                    leaf.rebase(&mut Listing {
                        uses: &mut self.roots,
                        definitions: &mut self.order,
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// Which expressions are needed: by a statement, or because they are evaluated where someone can
/// tell.
pub(super) fn live(context: &Context<'_>, walk: &Walk) -> Vec<bool> {
    let expressions = &context.function.expressions;
    let mut live = vec![false; expressions.len()];
    for root in &walk.roots {
        live[root.index()] = true;
    }
    for handle in &walk.order {
        live[handle.index()] |= match timing(&expressions[*handle]) {
            Timing::Static | Timing::Pure => false,
            Timing::Anchored => is_kept(context, *handle),
            Timing::Defined => true,
        };
    }
    let mut locals = Vec::new();
    spread(expressions, &mut live, &mut locals);
    // The initial values of locals are constant, so that they need no further locals.
    for local in locals {
        if let Some(init) = context.function.local_variables[local].init {
            live[init.index()] = true;
        }
    }
    spread(expressions, &mut live, &mut Vec::new());
    live
}

/// Marks all that the marked expressions are computed from.
fn spread(
    expressions: &Arena<Expression>,
    live: &mut [bool],
    locals: &mut Vec<Handle<LocalVariable>>,
) {
    for (handle, expression) in expressions.iter().rev() {
        if live[handle.index()] {
            each_operand(expression, |operand| live[operand.index()] = true);
            if let Expression::LocalVariable(local) = *expression {
                locals.push(local);
            }
        }
    }
}

/// Whether an evaluation that nobody uses is kept.
///
/// A load from memory that only the shader sees is not, nor is a derivative. All else either names
/// a resource, which is part of the interface of the pipeline, or is not worth a rule.
fn is_kept(context: &Context<'_>, handle: Handle<Expression>) -> bool {
    let expression = &context.function.expressions[handle];
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
