//! What a loop needs that the source computed before it.

use naga::{Block, Expression, Handle};

use super::function::UNAVAILABLE;
use super::placer::Placer;
use super::rebase::{Listing, Rebased, Shape, shape};
use super::values::Value;

impl Placer<'_, '_> {
    /// What a loop needs that the source computed before it, in the order in which it needs it.
    pub(super) fn carried(
        &mut self,
        body: &Block,
        continuing: &Block,
        break_if: Option<Handle<Expression>>,
    ) -> Rebased<Vec<Value>> {
        self.begin_visit();
        let mut carried = Carried {
            placer: self,
            values: Vec::new(),
            pending: Vec::new(),
            uses: Vec::new(),
        };
        carried.block(body)?;
        carried.block(continuing)?;
        break_if.map_or(Ok(()), |condition| carried.operand(condition))?;
        Ok(carried.values)
    }
}

struct Carried<'c, 'p, 'm> {
    placer: &'c mut Placer<'p, 'm>,
    values: Vec<Value>,
    pending: Vec<Value>,
    uses: Vec<Handle<Expression>>,
}

impl Carried<'_, '_, '_> {
    /// Recursion is as deep as blocks nest, which is bounded.
    fn block(&mut self, block: &Block) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => {
                    let values = self.placer.builder.values;
                    for source in range.clone() {
                        let value = values.of(source);
                        if let Some(value) = value.filter(|value| values.is_anchored(*value)) {
                            self.value(value);
                        }
                    }
                }
                Shape::Block(inner) => self.block(inner)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    self.operand(condition)?;
                    self.block(accept)?;
                    self.block(reject)?;
                }
                Shape::Switch { selector, cases } => {
                    self.operand(selector)?;
                    for case in cases {
                        self.block(&case.body)?;
                    }
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => {
                    self.block(body)?;
                    self.block(continuing)?;
                    break_if.map_or(Ok(()), |condition| self.operand(condition))?;
                }
                Shape::Leaf(leaf) => {
                    let mut uses = std::mem::take(&mut self.uses);
                    leaf.rebase(&mut Listing {
                        uses: &mut uses,
                        definitions: &mut Vec::new(),
                    })?;
                    for source in uses.drain(..) {
                        self.operand(source)?;
                    }
                    self.uses = uses;
                }
            }
        }
        Ok(())
    }

    fn operand(&mut self, source: Handle<Expression>) -> Rebased<()> {
        let value = self.placer.builder.values.of(source).ok_or(UNAVAILABLE)?;
        self.value(value);
        Ok(())
    }

    fn value(&mut self, value: Value) {
        let values = self.placer.builder.values;
        self.pending.push(value);
        while let Some(value) = self.pending.pop() {
            if self.placer.placed(value).is_some() || !self.placer.first_visit(value) {
                continue;
            }
            if self.placer.computed[value.index()] {
                self.values.push(value);
            } else {
                self.pending.extend(values.operands(value).rev());
            }
        }
    }
}
