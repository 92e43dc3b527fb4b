//! Which expressions of a function are needed, and in which order its body evaluates them.

use naga::{Arena, Expression, Function, Handle};

use super::context::Context;
use super::effects::Effects;
use super::events::{Event, Events};
use super::filters;
use super::kept::is_evaluation_kept;
use super::settled::Settled;
use super::wire::each_operand;

/// Why an expression is needed.
#[derive(Clone, Copy, Default)]
pub(super) struct Need {
    /// A statement or a needed expression uses it.
    pub(super) used: bool,
    /// It is evaluated where someone can tell.
    pub(super) kept: bool,
    /// What uses it has another spelling, which does not.
    lost: bool,
}

impl Need {
    pub(super) const fn any(self) -> bool {
        self.used | self.kept
    }
}

/// What the statements of a function ask for. Its memory serves one function after the other.
#[derive(Default)]
pub(super) struct Live {
    effects: Effects,
    /// Whether the function compares neighbours itself.
    takes_derivative: bool,
    /// Which expressions are needed, and why.
    live: Vec<Need>,
    /// The ordinal of each anchor that is needed, in the order in which the body evaluates them.
    /// Those that nothing uses are counted apart, so that the others do not depend on them.
    ordinals: Vec<Option<u32>>,
    /// What is yet to be spread. Empty between two functions.
    pending: Vec<Handle<Expression>>,
}

impl Live {
    /// Reads a function.
    pub(super) fn read(&mut self, context: &Context<'_>, events: &Events, settled: &Settled) {
        let expressions = &context.function.expressions;
        self.live.clear();
        self.live.resize(expressions.len(), Need::default());
        for (event, _) in events.iter() {
            match event {
                Event::Nothing => {}
                Event::Use(handle) | Event::Unless(handle) | Event::Compared(handle) => {
                    self.live[handle.index()].used = true;
                }
                Event::Evaluation(handle) => {
                    self.live[handle.index()].kept |=
                        is_evaluation_kept(context.module, context.function, context.info, handle);
                }
            }
        }
        self.spread(context.function, settled);
        self.number_anchors(expressions, events, settled);
    }

    pub(super) fn contains(&self, expression: Handle<Expression>) -> bool {
        let need = self.live[expression.index()];
        need.any() || need.lost
    }

    /// Whether an expression is evaluated where someone can tell.
    pub(super) fn is_kept(&self, expression: Handle<Expression>) -> bool {
        self.live[expression.index()].kept
    }

    /// Whether anything uses an expression.
    pub(super) fn is_used(&self, expression: Handle<Expression>) -> bool {
        self.live[expression.index()].used
    }

    /// Notes that nothing uses an expression after all. Returns whether that is new.
    pub(super) fn lose(&mut self, expression: Handle<Expression>) -> bool {
        let need = &mut self.live[expression.index()];
        need.lost |= need.used;
        std::mem::take(&mut need.used)
    }

    /// Numbers the anchors that are used anew.
    pub(super) fn renumber(&mut self, context: &Context<'_>, events: &Events, settled: &Settled) {
        self.number_anchors(&context.function.expressions, events, settled);
    }

    /// The ordinal of an anchor that is needed.
    pub(super) fn ordinal(&self, expression: Handle<Expression>) -> Option<u32> {
        self.ordinals[expression.index()]
    }

    fn number_anchors(
        &mut self,
        expressions: &Arena<Expression>,
        events: &Events,
        settled: &Settled,
    ) {
        self.takes_derivative = false;
        self.ordinals.clear();
        self.ordinals.resize(expressions.len(), None);
        let (mut next, mut unused) = (0, u32::MAX);
        for (event, _) in events.iter() {
            let Event::Evaluation(handle) = event else {
                continue;
            };
            let index = handle.index();
            if settled.is_read(handle) {
                // It is where the value of the variable is.
                continue;
            }
            let need = self.live[index];
            if need.any() {
                self.takes_derivative |= filters::takes_derivative(&expressions[handle]);
            }
            if self.ordinals[index].is_none() {
                if need.used {
                    self.ordinals[index] = Some(next);
                    next += 1;
                } else {
                    self.ordinals[index] = Some(unused);
                    unused -= 1;
                }
            }
        }
        self.effects = events.effects();
        self.effects.compares |= self.takes_derivative;
    }

    pub(super) const fn effects(&self) -> Effects {
        self.effects
    }

    /// Whether the function takes a derivative itself, rather than by what it calls.
    pub(super) const fn takes_derivative(&self) -> bool {
        self.takes_derivative
    }

    /// Marks all that the marked expressions are computed from.
    fn spread(&mut self, function: &Function, settled: &Settled) {
        for (handle, expression) in function.expressions.iter().rev() {
            if self.live[handle.index()].any() {
                match origin(function, settled, handle, expression) {
                    Below::Operands => {
                        each_operand(expression, |operand| self.live[operand.index()].used = true);
                    }
                    Below::Value(Some(value)) => {
                        let is_known = self.live[value.index()].any();
                        self.live[value.index()].used = true;
                        if value > handle && !is_known {
                            self.pending.push(value);
                        }
                    }
                    Below::Value(None) => {}
                }
            }
        }
        // Only the value of a variable can stand behind what reads it.
        while let Some(handle) = self.pending.pop() {
            let expression = &function.expressions[handle];
            let mut mark = |below: Handle<Expression>| {
                let need = &mut self.live[below.index()];
                if !need.any() {
                    self.pending.push(below);
                }
                need.used = true;
            };
            match origin(function, settled, handle, expression) {
                Below::Operands => each_operand(expression, mark),
                Below::Value(value) => {
                    value.into_iter().for_each(&mut mark);
                }
            }
        }
    }
}

/// What an expression is computed from.
enum Below {
    Operands,
    /// The value of a variable, or its initial value, if it is not zero.
    Value(Option<Handle<Expression>>),
}

#[inline(always)]
fn origin(
    function: &Function,
    settled: &Settled,
    handle: Handle<Expression>,
    expression: &Expression,
) -> Below {
    match *expression {
        Expression::Load { pointer: _ } if settled.is_read(handle) => {
            Below::Value(settled.value_of(handle))
        }
        // The initial value is constant, so that it needs no further local.
        Expression::LocalVariable(local) => Below::Value(function.local_variables[local].init),
        _ => Below::Operands,
    }
}
