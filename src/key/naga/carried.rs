//! What a loop needs that the source computed before it.

use super::function::UNAVAILABLE;
use super::live::Event;
use super::placer::Placer;
use super::rebase::Rebased;
use super::values::Value;

impl Placer<'_, '_> {
    /// What a loop needs that the source computed before it, in the order in which it needs it.
    pub(super) fn carried(&mut self, number: usize) -> Rebased<Vec<Value>> {
        let values = self.builder.values;
        let mut carried = Vec::new();
        let mut pending = Vec::new();
        self.begin_visit();
        for event in values.live.of_loop(number) {
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
                if self.computed(value) {
                    carried.push(value);
                } else {
                    pending.extend(values.operands(value).rev());
                }
            }
        }
        Ok(carried)
    }
}
