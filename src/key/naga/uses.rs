//! When the values of a function are used, and when neighbours in control flow are compared by them.

use std::ops::Range;

use naga::Expression;

use super::context::Context;
use super::events::Event;
use super::filters;
use super::values::{Value, Values};

/// When values are used, themselves or as a part of others, by the events of a kind. Its memory
/// serves one function after the other.
#[derive(Default)]
pub(super) struct Uses {
    uses: Vec<Use>,
    /// What is yet to be numbered. Empty between two values.
    pending: Vec<Value>,
}

#[derive(Clone, Copy, Default)]
struct Use {
    /// The first event that uses the value.
    first: usize,
    /// How many events there are up to the last one that does. None if it is 0.
    end: usize,
    /// The order in which values are first used, whatever the order of the source.
    order: usize,
}

/// Whether a value is used by some of the events.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// By none of them.
    Never,
    /// By one of them, and by none before them.
    First,
    /// By events before them. Whether by one of them is not known.
    Again,
}

impl Uses {
    /// Finds what neighbours are compared by. Where they never part there is nothing to know.
    pub(super) fn read_compared(&mut self, context: &Context<'_>, values: &Values) {
        self.uses.clear();
        if values.live.effects().compares && values.events.parts() {
            self.read(values, |event, see| {
                each_compared(context, values, event, see);
            });
        }
    }

    /// Finds what is used at all, if that `counts`.
    pub(super) fn read_needed(&mut self, values: &Values, counts: bool) {
        self.uses.clear();
        if counts {
            self.read(values, |event, see| {
                needed(values, event).into_iter().for_each(see);
            });
        }
    }

    fn read(&mut self, values: &Values, each_root: impl Fn(Event, &mut dyn FnMut(Value))) {
        self.uses.resize(values.len(), Use::default());
        let mut next = 0;
        for (index, (event, _)) in values.events.iter().enumerate() {
            each_root(event, &mut |root| {
                self.uses[root.index()].end = index + 1;
                self.number(values, root, index, &mut next);
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
    fn number(&mut self, values: &Values, root: Value, event: usize, next: &mut usize) {
        let mut following = Some(root);
        while let Some(value) = following {
            let known = &mut self.uses[value.index()];
            if known.order == 0 {
                *next += 1;
                (known.order, known.first) = (*next, event);
                let children = values.children(value).iter().rev();
                self.pending
                    .extend(children.filter_map(|child| Value::of(*child)));
            }
            following = self.pending.pop();
        }
    }

    /// Whether a value is used by an event of this index or a later one.
    pub(super) fn is_after(&self, value: Value, event: usize) -> bool {
        self.of(value).end > event
    }

    /// Whether a value is used by some of the events.
    pub(super) fn within(&self, value: Value, events: &Range<usize>) -> Within {
        let Use { first, end, .. } = self.of(value);
        if end <= events.start || first >= events.end {
            Within::Never
        } else if first >= events.start {
            Within::First
        } else {
            Within::Again
        }
    }

    /// The place of a value in the order in which values are first used.
    pub(super) fn order(&self, value: Value) -> usize {
        self.of(value).order
    }

    fn of(&self, value: Value) -> Use {
        self.uses.get(value.index()).copied().unwrap_or_default()
    }
}

/// The value that an event needs.
pub(super) fn needed(values: &Values, event: Event) -> Option<Value> {
    match event {
        Event::Nothing => None,
        Event::Unless(source) => values.unless(source),
        Event::Use(source) | Event::Compared(source) => values.of(source),
        Event::Evaluation(source) => values.evaluated(source),
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
