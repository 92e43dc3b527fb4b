//! What a statement that nests others needs before it.

use super::function::UNAVAILABLE;
use super::live::{BlockId, Event};
use super::placer::Placer;
use super::rebase::Rebased;
use super::values::Value;

impl Placer<'_, '_> {
    /// Places what a nesting statement in `block` shares with others, or within itself.
    pub(super) fn place_shared(&mut self, number: usize, block: BlockId) -> Rebased<()> {
        if self.shared.is_any_at(block) {
            let shared = self.shared;
            for value in self.needed(number, |_, value| shared.is_home(value, block))? {
                self.place(value)?;
            }
        }
        Ok(())
    }

    /// Places what a loop needs that the source computed before it.
    pub(super) fn place_carried(&mut self, number: usize) -> Rebased<()> {
        for value in self.needed(number, Self::computed)? {
            self.place(value)?;
        }
        Ok(())
    }

    /// The values of some kind that a nesting statement needs, in the order in which it needs
    /// them. What these are computed from is not among them.
    fn needed(
        &mut self,
        number: usize,
        is_wanted: impl Fn(&Self, Value) -> bool,
    ) -> Rebased<Vec<Value>> {
        let values = self.builder.values;
        let mut needed = Vec::new();
        let mut pending = Vec::new();
        self.begin_visit();
        for (event, _) in values.live.of_nested(number) {
            pending.extend(match *event {
                Event::Use(source) => Some(values.of(source).ok_or(UNAVAILABLE)?),
                Event::Evaluation(source) => {
                    let value = values.of(source);
                    value.filter(|value| values.is_anchored(*value))
                }
            });
            while let Some(value) = pending.pop() {
                if self.placed(value).is_some() || !self.first_visit(value) {
                    continue;
                }
                if is_wanted(self, value) {
                    needed.push(value);
                } else {
                    pending.extend(values.operands(value).rev());
                }
            }
        }
        Ok(needed)
    }
}
