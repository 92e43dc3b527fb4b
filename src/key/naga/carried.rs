//! What a statement that nests others needs before it.

use super::compared::each_compared;
use super::events::{BlockId, Event};
use super::function::UNAVAILABLE;
use super::placer::Placer;
use super::rebase::Rebased;
use super::values::Value;

impl Placer<'_, '_> {
    /// Places what a nesting statement in `block` shares with others, or within itself.
    pub(super) fn place_shared(&mut self, number: usize, block: BlockId) -> Rebased<()> {
        if self.shared.is_any_at(block) {
            let shared = self.shared;
            let events = self.builder.values.events.of_nested(number);
            for value in self.needed(events, |_, value| shared.is_home(value, block))? {
                self.place(value)?;
            }
        }
        Ok(())
    }

    /// Places what a loop needs that the source computed before it.
    pub(super) fn place_carried(&mut self, number: usize) -> Rebased<()> {
        let events = self.builder.values.events.of_nested(number);
        for value in self.needed(events, Self::computed)? {
            self.place(value)?;
        }
        Ok(())
    }

    /// Places what the source has computed before neighbours in control flow take the branches of
    /// a statement, and what they are compared by in these: what they have not computed by then
    /// is not there to compare.
    pub(super) fn place_compared(&mut self, number: usize) -> Rebased<()> {
        let values = self.builder.values;
        if !values.live.effects().compares {
            return Ok(());
        }
        self.begin_visit();
        let context = self.builder.context;
        let mut found = Vec::new();
        let mut pending = std::mem::take(self.pending);
        for (event, _) in values.events.of_nested(number) {
            each_compared(context, values, *event, |root| {
                self.below(root, Self::computed, &mut found, &mut pending);
            });
        }
        *self.pending = pending;
        for value in found {
            self.place(value)?;
        }
        Ok(())
    }

    /// Places what the source has computed before neighbours may part for good, at an event, and
    /// what they are compared by later: a target may stop those that have discarded.
    ///
    /// What was computed in this scope before the last parting has been looked at then.
    pub(super) fn place_parting(&mut self, event: usize) -> Rebased<()> {
        let compared = self.compared;
        let is_wanted =
            |value: &Value| self.placed(*value).is_none() && compared.is_after(*value, event);
        let mut wanted: Vec<_> = self
            .computed_since(self.settled)
            .filter(is_wanted)
            .collect();
        wanted.sort_by_key(|value| compared.order(*value));
        for value in wanted {
            self.place(value)?;
        }
        self.settle();
        Ok(())
    }

    /// The values of some kind that events need, in the order in which they need them. What these
    /// are computed from is not among them.
    fn needed(
        &mut self,
        events: &[(Event, BlockId)],
        is_wanted: impl Fn(&Self, Value) -> bool,
    ) -> Rebased<Vec<Value>> {
        let values = self.builder.values;
        let mut needed = Vec::new();
        self.begin_visit();
        let mut pending = std::mem::take(self.pending);
        for (event, _) in events {
            let root = match *event {
                Event::Nothing => continue,
                Event::Unless(source) => values.unless(source).ok_or(UNAVAILABLE)?,
                Event::Use(source) | Event::Compared(source) => {
                    values.of(source).ok_or(UNAVAILABLE)?
                }
                Event::Evaluation(source) => match values.evaluated(source) {
                    Some(value) => value,
                    None => continue,
                },
            };
            self.below(root, &is_wanted, &mut needed, &mut pending);
        }
        *self.pending = pending;
        Ok(needed)
    }

    /// Finds the values of some kind among a root and all that it is computed from. What is
    /// `pending` is nothing, before and after.
    fn below(
        &mut self,
        root: Value,
        is_wanted: impl Fn(&Self, Value) -> bool,
        found: &mut Vec<Value>,
        pending: &mut Vec<Value>,
    ) {
        let values = self.builder.values;
        let mut next = Some(root);
        while let Some(value) = next {
            if self.placed(value).is_none() && self.first_visit(value) {
                if is_wanted(self, value) {
                    found.push(value);
                } else {
                    for child in values.children(value).iter().rev() {
                        pending.extend(Value::of(*child));
                    }
                }
            }
            next = pending.pop();
        }
    }
}
