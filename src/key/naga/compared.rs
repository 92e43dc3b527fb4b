//! What neighbours in control flow are compared by, and how long.

use naga::Expression;

use super::context::Context;
use super::events::Event;
use super::filters;
use super::values::{Value, Values};

/// Which values of a function are compared, themselves or as a part of others. Its memory serves
/// one function after the other.
#[derive(Default)]
pub(super) struct Compared {
    uses: Vec<Uses>,
}

#[derive(Clone, Copy, Default)]
struct Uses {
    /// How many events there are up to the last one that compares the value. None if it is 0.
    end: usize,
    /// The order in which values are first compared, whatever the order of the source.
    order: usize,
}

impl Compared {
    /// Reads a function. Where neighbours never part there is nothing to know.
    pub(super) fn read(&mut self, context: &Context<'_>, values: &Values) {
        self.uses.clear();
        if !values.live.effects().compares || !values.events.parts() {
            return;
        }
        self.uses.resize(values.len(), Uses::default());
        let mut next = 0;
        for (index, (event, _)) in values.events.iter().enumerate() {
            each_compared(context, values, event, |root| {
                self.uses[root.index()].end = index + 1;
                self.number(values, root, &mut next);
            });
        }
        for value in values.all().rev() {
            let end = self.uses[value.index()].end;
            for operand in values.operands(value) {
                let below = &mut self.uses[operand.index()].end;
                *below = end.max(*below);
            }
        }
    }

    /// Numbers a value and what it is computed from, each once, from 1 on.
    fn number(&mut self, values: &Values, root: Value, next: &mut usize) {
        let mut pending = vec![root];
        while let Some(value) = pending.pop() {
            let order = &mut self.uses[value.index()].order;
            if *order == 0 {
                *next += 1;
                *order = *next;
                pending.extend(values.operands(value).rev());
            }
        }
    }

    /// Whether a value is compared by an event of this index or a later one.
    pub(super) fn is_after(&self, value: Value, event: usize) -> bool {
        self.uses
            .get(value.index())
            .is_some_and(|uses| uses.end > event)
    }

    /// The place of a value in the order in which values are first compared.
    pub(super) fn order(&self, value: Value) -> usize {
        self.uses.get(value.index()).map_or(0, |uses| uses.order)
    }
}

/// Names the values that an event compares.
pub(super) fn each_compared(
    context: &Context<'_>,
    values: &Values,
    event: Event,
    mut see: impl FnMut(Value),
) {
    match event {
        Event::Use(_) | Event::Unless(_) | Event::Nothing => {}
        Event::Compared(source) => {
            if let Some(value) = values.of(source) {
                see(value);
            }
        }
        Event::Evaluation(source) => {
            let expression: &Expression = &context.function.expressions[source];
            if filters::takes_derivative(expression) {
                if let Some(value) = values.of(source) {
                    values.operands(value).for_each(see);
                }
            }
        }
    }
}
