//! Ways through the statements of a function. Recursion is as deep as blocks nest, which is
//! bounded before this.

use naga::{Block, Expression, Handle, Range, Span, Statement};

use super::super::rebase::{Leaf, Shape, shape};

/// Sees each statement that nests no other and evaluates no expression.
pub(super) fn each_leaf(block: &Block, see: &mut dyn FnMut(Leaf<'_>)) {
    for statement in block {
        match shape(statement) {
            Shape::Emit(_) => {}
            Shape::Leaf(leaf) => see(leaf),
            Shape::Block(inner) => each_leaf(inner, see),
            Shape::If {
                condition: _,
                accept,
                reject,
            } => {
                each_leaf(accept, see);
                each_leaf(reject, see);
            }
            Shape::Switch { selector: _, cases } => {
                cases.iter().for_each(|case| each_leaf(&case.body, see));
            }
            Shape::Loop {
                body,
                continuing,
                break_if: _,
            } => {
                each_leaf(body, see);
                each_leaf(continuing, see);
            }
        }
    }
}

/// Writes each statement that nests no other anew, behind those before it in its block.
pub(super) fn rewrite(block: &mut Block, write: &mut dyn FnMut(Statement, &mut Block)) {
    let mut written = Block::with_capacity(block.len());
    for (mut statement, span) in std::mem::take(block).span_into_iter() {
        match &mut statement {
            Statement::Block(inner) => rewrite(inner, write),
            Statement::If {
                condition: _,
                accept,
                reject,
            } => {
                rewrite(accept, write);
                rewrite(reject, write);
            }
            Statement::Switch { selector: _, cases } => {
                for case in cases {
                    rewrite(&mut case.body, write);
                }
            }
            Statement::Loop {
                body,
                continuing,
                break_if: _,
            } => {
                rewrite(body, write);
                rewrite(continuing, write);
            }
            _ => {
                write(statement, &mut written);
                continue;
            }
        }
        written.push(statement, span);
    }
    *block = written;
}

/// Evaluates no longer what some expressions have become: arguments and variables, which stand for
/// themselves.
pub(super) fn evaluate_without(block: &mut Block, left_out: &[bool]) {
    rewrite(block, &mut |statement, to| {
        let Statement::Emit(range) = statement else {
            to.push(statement, Span::UNDEFINED);
            return;
        };
        let is_left_out = |handle: &Handle<Expression>| left_out.get(handle.index()) == Some(&true);
        if !range.clone().any(|handle| is_left_out(&handle)) {
            to.push(Statement::Emit(range), Span::UNDEFINED);
            return;
        }
        for handle in range.filter(|handle| !is_left_out(handle)) {
            emit(handle, to);
        }
    });
}

/// Whether what follows a block can be executed. A loop or a `switch` may end, and some targets go
/// on after a `discard`.
pub(super) fn goes_on(block: &Block) -> bool {
    match block.last() {
        Some(Statement::Block(inner)) => goes_on(inner),
        Some(Statement::If {
            condition: _,
            accept,
            reject,
        }) => goes_on(accept) || goes_on(reject),
        Some(last) => !last.is_terminator() || matches!(last, Statement::Kill),
        None => true,
    }
}

/// Evaluates one expression.
pub(super) fn emit(expression: Handle<Expression>, to: &mut Block) {
    let range = Range::new_from_bounds(expression, expression);
    to.push(Statement::Emit(range), Span::UNDEFINED);
}
