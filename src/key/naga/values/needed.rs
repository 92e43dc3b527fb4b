//! Which values are needed, by their one spelling.

use naga::Expression;

use super::{Origin, Values};
use crate::key::naga::context::Context;
use crate::key::naga::events::Event;
use crate::key::naga::live::Need;

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
        self.spread(context, &mut needed);
        let mut lost = false;
        for value in self.all().filter(|value| !needed[value.index()].used) {
            if let Origin::Function(source) = self.origin(value) {
                lost |= self.is_anchored(value) && self.live.lose(source);
            }
        }
        self.needed = needed;
        lost
    }

    /// Marks all that marked values are computed from.
    fn spread(&self, context: &Context<'_>, needed: &mut [Need]) {
        // The initial value of a local is constant, so that it needs no further local.
        for _ in 0..2 {
            for value in self.all().rev() {
                if !needed[value.index()].any() {
                    continue;
                }
                for operand in self.operands(value) {
                    needed[operand.index()].used = true;
                }
                let origin = self.origin(value);
                if let Expression::LocalVariable(local) = *self.expression(context, origin) {
                    let init = context.function.local_variables[local].init;
                    if let Some(init) = init.and_then(|init| self.of(init)) {
                        needed[init.index()].used = true;
                    }
                }
            }
        }
    }

    /// Whether an expression that the source evaluates reads a variable for nothing. Without that
    /// read the variable may have one value.
    pub(in super::super) fn wastes(&self) -> bool {
        self.events.iter().any(|(event, _)| match event {
            Event::Evaluation(source) => {
                self.settled.reads_open(source) && self.evaluated(source).is_none()
            }
            _ => false,
        })
    }
}
