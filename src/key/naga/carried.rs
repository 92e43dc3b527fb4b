//! What a loop needs that the source computed before it.

use std::collections::HashSet;

use naga::{Block, Expression, Handle};

use super::place::{Placer, Value, unavailable};
use super::rebase::{Rebased, Shape, shape};
use super::timing::is_anchored;

/// What a loop needs that the source computed before it, in the order in which it needs it.
#[derive(Default)]
pub(super) struct Carried {
    seen: HashSet<Value>,
    pub(super) values: Vec<Value>,
}

impl Placer<'_, '_> {
    pub(super) fn carried_by_block(&self, block: &Block, carried: &mut Carried) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => {
                    for source in range.clone() {
                        let value = self.values.of(source);
                        if value.is_some_and(|value| is_anchored(&self.values.arena[value])) {
                            self.carry(source, carried)?;
                        }
                    }
                }
                Shape::Block(inner) => self.carried_by_block(inner, carried)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    self.carry(condition, carried)?;
                    self.carried_by_block(accept, carried)?;
                    self.carried_by_block(reject, carried)?;
                }
                Shape::Switch { selector, cases } => {
                    self.carry(selector, carried)?;
                    for case in cases {
                        self.carried_by_block(&case.body, carried)?;
                    }
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => {
                    self.carried_by_block(body, carried)?;
                    self.carried_by_block(continuing, carried)?;
                    if let Some(condition) = break_if {
                        self.carry(condition, carried)?;
                    }
                }
                Shape::Leaf(leaf) => {
                    for source in leaf.uses_and_definitions()?.0 {
                        self.carry(source, carried)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn carry(&self, source: Handle<Expression>, carried: &mut Carried) -> Rebased<()> {
        let mut pending = vec![self.values.of(source).ok_or_else(unavailable)?];
        while let Some(value) = pending.pop() {
            if self.placed[value.index()].is_some() || !carried.seen.insert(value) {
                continue;
            }
            if self.computed[value.index()] {
                carried.values.push(value);
            } else {
                pending.extend(self.values.operands(value).into_iter().rev());
            }
        }
        Ok(())
    }
}
