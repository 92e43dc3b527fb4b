//! How large a function is.

use naga::{Expression, Function, Handle};

use super::super::wire::{Construct as _, Listing, each_operand};
use super::blocks;

/// How much memory a function takes: its expressions, its statements, and the operands of both.
pub(super) fn of(function: &Function) -> usize {
    let mut size = function.expressions.len();
    for (_, expression) in function.expressions.iter() {
        each_operand(expression, |_| size += 1);
    }
    blocks::each_leaf(&function.body, &mut |leaf| {
        size += 1;
        let operand = |_: Handle<Expression>, _| size += 1;
        leaf.statement().write(&mut Listing(operand));
    });
    size
}
