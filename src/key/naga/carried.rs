//! What a statement that nests others needs before it.
//!
//! It is found among the values that may be needed, by when they are used. Only where that does not
//! tell are all events in the statement looked at, which costs a look at each event for each of the
//! statements around it.

use super::events::{BlockId, Event};
use super::placer::Placer;
use super::rebase::Rebased;
use super::uses::{Uses, Within, each_compared, needed};
use super::values::Value;

impl Placer<'_, '_> {
    /// Places what a nesting statement in `block` shares with others, or within itself.
    pub(super) fn place_shared(&mut self, number: usize, block: BlockId) -> Rebased<()> {
        let shared = self.shared;
        let candidates = shared.at(block).iter().map(|(_, value)| *value);
        if candidates.len() == 0 {
            return Ok(());
        }
        let wanted = self.used_in(number, candidates, self.needed);
        let wanted = wanted
            .unwrap_or_else(|| self.needed_in(number, |_, value| shared.is_home(value, block)));
        self.place_all(wanted)
    }

    /// Places what a loop needs that the source computed before it. What it computed before the
    /// loop around it has been looked at there.
    pub(super) fn place_carried(&mut self, number: usize) -> Rebased<()> {
        let candidates = self.computed_since(self.looked.at_loop);
        let wanted = self.used_in(number, candidates, self.needed);
        let wanted = wanted.unwrap_or_else(|| self.needed_in(number, Self::computed));
        self.place_all(wanted)
    }

    /// Places what the source has computed before neighbours in control flow take the branches of
    /// a statement, and what they are compared by in these: what they have not computed by then
    /// is not there to compare.
    pub(super) fn place_compared(&mut self, number: usize) -> Rebased<()> {
        if !self.builder.values.live.effects().compares {
            return Ok(());
        }
        let candidates = self.computed_since(self.settled.max(self.looked.at_nesting));
        let wanted = self.used_in(number, candidates, self.compared);
        let wanted = wanted.unwrap_or_else(|| self.compared_in(number));
        self.place_all(wanted)
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
        self.place_all(wanted)?;
        self.settle();
        Ok(())
    }

    fn place_all(&mut self, wanted: Vec<Value>) -> Rebased<()> {
        for value in wanted {
            self.place(value)?;
        }
        Ok(())
    }

    /// Those candidates that the events in a nesting statement use, in the order in which they do.
    /// None if that is not known, or takes longer than to look at the events.
    ///
    /// A value that is placed has all placed that it is computed from, so that nobody needs a
    /// candidate for it alone; but not in a `continuing` block, which keeps the reads of the body
    /// and nothing else of it.
    fn used_in(
        &self,
        number: usize,
        candidates: impl Iterator<Item = Value>,
        uses: &Uses,
    ) -> Option<Vec<Value>> {
        if self.looked.is_continuing {
            return None;
        }
        let events = self.builder.values.events.range_of_nested(number);
        let mut used = Vec::new();
        for (count, value) in candidates.enumerate() {
            if count > events.len() {
                return None;
            }
            if self.placed(value).is_none() {
                match uses.within(value, &events) {
                    Within::Never => {}
                    Within::First => used.push(value),
                    Within::Again => return None,
                }
            }
        }
        used.sort_by_key(|value| uses.order(*value));
        Some(used)
    }

    /// The values of some kind that events in a nesting statement need, in the order in which they
    /// need them. What these are computed from is not among them.
    fn needed_in(&mut self, number: usize, is_wanted: impl Fn(&Self, Value) -> bool) -> Vec<Value> {
        let values = self.builder.values;
        self.found_in(number, is_wanted, |event, see| {
            needed(values, event).into_iter().for_each(see);
        })
    }

    /// The values that the source has computed and that neighbours are compared by in a nesting
    /// statement.
    fn compared_in(&mut self, number: usize) -> Vec<Value> {
        let (context, values) = (self.builder.context, self.builder.values);
        self.found_in(number, Self::computed, |event, see| {
            each_compared(context, values, event, see);
        })
    }

    fn found_in(
        &mut self,
        number: usize,
        is_wanted: impl Fn(&Self, Value) -> bool,
        each_root: impl Fn(Event, &mut dyn FnMut(Value)),
    ) -> Vec<Value> {
        self.begin_visit();
        let mut found = Vec::new();
        let mut pending = std::mem::take(self.pending);
        for (event, _) in self.builder.values.events.of_nested(number) {
            each_root(*event, &mut |root| {
                self.below(root, &is_wanted, &mut found, &mut pending);
            });
        }
        *self.pending = pending;
        found
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
