//! Which values are needed, by their one spelling.

use naga::Expression;

use super::{Value, Values};
use crate::key::naga::context::Context;
use crate::key::naga::events::Event;
use crate::key::naga::live::Need;
use crate::key::naga::nodes::Kind;

impl Values {
    /// Finds the values that are needed, and whether a read or a call is not, though the source
    /// uses it.
    pub(super) fn find_needed(&mut self, context: &Context<'_>) -> bool {
        let mut needed = std::mem::take(&mut self.needed);
        needed.clear();
        needed.resize(self.len(), Need::default());
        for (event, _) in self.events.iter() {
            let (value, is_used) = match event {
                Event::Use(source) | Event::Compared(source) => (self.of(source), true),
                Event::Unless(source) => (self.unless(source), true),
                Event::Evaluation(source) if self.live.is_kept(source) => (self.of(source), false),
                Event::Evaluation(_) | Event::Nothing => (None, false),
            };
            if let Some(value) = value {
                let need = &mut needed[value.index()];
                need.used |= is_used;
                need.kept |= !is_used;
            }
        }
        while self.spread(context, &mut needed) {}
        let mut lost = false;
        for (value, source) in &self.anchors {
            if !needed[value.index()].used {
                lost |= self.live.lose(*source);
            }
        }
        self.needed = needed;
        lost
    }

    /// Marks all that marked values are computed from. Whether the initial value of a local, which
    /// can follow the local, is newly marked.
    fn spread(&self, context: &Context<'_>, needed: &mut [Need]) -> bool {
        let mut again = false;
        for value in self.all().rev() {
            if !needed[value.index()].any() {
                continue;
            }
            for child in self.children(value) {
                match child.kind() {
                    Kind::Value => needed[child.index() as usize].used = true,
                    Kind::Local => {
                        let init = self.initial_value(context, value);
                        if let Some(init) = init.filter(|init| !needed[init.index()].used) {
                            again |= init.index() > value.index();
                            needed[init.index()].used = true;
                        }
                    }
                    Kind::Type | Kind::Constant | Kind::Override | Kind::Global => {}
                }
            }
        }
        again
    }

    /// The initial value of the local that a value points to.
    fn initial_value(&self, context: &Context<'_>, value: Value) -> Option<Value> {
        match *self.expression(context, self.origin(value)) {
            Expression::LocalVariable(local) => {
                self.of(context.function.local_variables[local].init?)
            }
            _ => None,
        }
    }

    /// Whether an expression that the source evaluates reads a variable for nothing. Without that
    /// read the variable may have one value.
    pub(in super::super) fn wastes(&self) -> bool {
        !self.settled.is_empty()
            && self.events.iter().any(|(event, _)| match event {
                Event::Evaluation(source) => {
                    self.settled.reads_open(source) && self.evaluated(source).is_none()
                }
                _ => false,
            })
    }
}
