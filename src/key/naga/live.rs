//! Which expressions of a function are needed, and in which order its body evaluates them.

use naga::{Arena, Expression, Handle, LocalVariable};

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
        self.used || self.kept
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
    locals: Vec<Handle<LocalVariable>>,
}

impl Live {
    /// Reads a function.
    pub(super) fn read(&mut self, context: &Context<'_>, events: &Events, settled: &Settled) {
        let expressions = &context.function.expressions;
        self.locals.clear();
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
        self.spread(expressions, settled);
        // The initial values of locals are constant, so that they need no further locals.
        let mut any = false;
        for local in &self.locals {
            if let Some(init) = context.function.local_variables[*local].init {
                any |= !std::mem::replace(&mut self.live[init.index()].used, true);
            }
        }
        if any {
            self.spread(expressions, settled);
        }
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
    fn spread(&mut self, expressions: &Arena<Expression>, settled: &Settled) {
        loop {
            let mut again = false;
            for (handle, expression) in expressions.iter().rev() {
                if !self.live[handle.index()].any() {
                    continue;
                }
                if let Some(value) = settled.value_of(handle) {
                    let is_new = !std::mem::replace(&mut self.live[value.index()].used, true);
                    again |= is_new && value.index() > handle.index();
                    continue;
                }
                if settled.is_read(handle) {
                    continue;
                }
                each_operand(expression, |operand| self.live[operand.index()].used = true);
                if let Expression::LocalVariable(local) = *expression {
                    self.locals.push(local);
                }
            }
            if !again {
                return;
            }
        }
    }
}
