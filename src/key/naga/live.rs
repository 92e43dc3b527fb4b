//! Which expressions of a function are needed, and in which order its body evaluates them.

use std::ops::Range;

use naga::{Arena, Block, Expression, Handle, LocalVariable};

use super::context::Context;
use super::module::is_interface;
use super::rebase::{Listing, Rebased, Shape, each_operand, shape};
use super::timing::{Timing, timing};

/// What a statement does with an expression.
#[derive(Clone, Copy)]
pub(super) enum Event {
    /// It needs it.
    Use(Handle<Expression>),
    /// It evaluates it: an `Emit` names it, or its result is defined.
    Evaluation(Handle<Expression>),
}

/// What the statements of a function ask for. Its memory serves one function after the other.
#[derive(Default)]
pub(super) struct Live {
    /// What happens to expressions, in the order of the body.
    events: Vec<Event>,
    /// The events of each loop, in the order in which loops begin.
    loops: Vec<Range<usize>>,
    /// Which expressions are needed: by a statement, or because they are evaluated where someone
    /// can tell.
    live: Vec<bool>,
    /// When each expression is evaluated.
    timings: Vec<Timing>,
    locals: Vec<Handle<LocalVariable>>,
}

impl Live {
    /// Reads a function.
    pub(super) fn read(&mut self, context: Context<'_>) -> Rebased<()> {
        let expressions = &context.function.expressions;
        self.events.clear();
        self.loops.clear();
        self.locals.clear();
        self.live.clear();
        self.live.resize(expressions.len(), false);
        self.timings.clear();
        let timings = expressions.iter().map(|(_, expression)| timing(expression));
        self.timings.extend(timings);
        self.block(&context.function.body)?;
        for event in &self.events {
            match *event {
                Event::Use(handle) => self.live[handle.index()] = true,
                Event::Evaluation(handle) => {
                    self.live[handle.index()] |= match self.timings[handle.index()] {
                        Timing::Static | Timing::Pure => false,
                        Timing::Anchored => is_kept(context, handle),
                        Timing::Defined => true,
                    };
                }
            }
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
        Ok(())
    }

    pub(super) fn contains(&self, expression: Handle<Expression>) -> bool {
        self.live[expression.index()]
    }

    /// When an expression is evaluated.
    pub(super) fn timing(&self, expression: Handle<Expression>) -> Timing {
        self.timings[expression.index()]
    }

    /// What the body evaluates, in its order.
    pub(super) fn evaluations(&self) -> impl Iterator<Item = Handle<Expression>> {
        self.events.iter().filter_map(|event| match *event {
            Event::Use(_) => None,
            Event::Evaluation(handle) => Some(handle),
        })
    }

    pub(super) fn has_loops(&self) -> bool {
        !self.loops.is_empty()
    }

    /// What happens in a loop. Loops are counted from 0, in the order in which they begin.
    pub(super) fn of_loop(&self, number: usize) -> &[Event] {
        let events = self.loops.get(number).cloned();
        &self.events[events.unwrap_or_default()]
    }

    /// Recursion is as deep as blocks nest, which is bounded before this.
    fn block(&mut self, block: &Block) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => {
                    self.events.extend(range.clone().map(Event::Evaluation));
                }
                Shape::Block(inner) => self.block(inner)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    self.events.push(Event::Use(condition));
                    self.block(accept)?;
                    self.block(reject)?;
                }
                Shape::Switch { selector, cases } => {
                    self.events.push(Event::Use(selector));
                    for case in cases {
                        self.block(&case.body)?;
                    }
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => {
                    let number = self.loops.len();
                    let start = self.events.len();
                    self.loops.push(0..0);
                    self.block(body)?;
                    self.block(continuing)?;
                    self.events.extend(break_if.map(Event::Use));
                    self.loops[number] = start..self.events.len();
                }
                Shape::Leaf(leaf) => {
                    let events = &mut self.events;
                    leaf.rebase(&mut Listing(|handle, is_defined| {
                        events.push(if is_defined {
                            Event::Evaluation(handle)
                        } else {
                            Event::Use(handle)
                        });
                    }))?;
                }
            }
        }
        Ok(())
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
