//! Bounds how deep back ends recurse over the expressions of a canonical module.

use naga::{Expression, Function, Module};

use super::wire::each_operand;

/// How deep an expression nests in others, at most, before it is given a name.
///
/// A level takes about 22 KiB of stack in naga's writers of text, in a debug build.
const DEEPEST: usize = 32;

/// The name. Back ends make it unique.
const NAME: &str = "part";

/// Gives names to the parts of expressions that nest deeply. naga's writers keep what has a name in a
/// variable, where it is emitted, and write what has none where it is used, by recursion.
///
/// `let x1 = -x0; let x2 = -x1; …` is one deep expression in the canonical form, which has no `let`,
/// so that a module may nest deeper than its source. The names follow from the module alone, and so
/// are not on the wire.
pub(super) fn name_deep_parts(module: &mut Module) {
    for (_, function) in module.functions.iter_mut() {
        name_in(function);
    }
    for entry in &mut module.entry_points {
        name_in(&mut entry.function);
    }
}

fn name_in(function: &mut Function) {
    let Function {
        expressions,
        named_expressions,
        ..
    } = function;
    let mut depths = Vec::with_capacity(expressions.len());
    for (handle, expression) in expressions.iter() {
        let mut deepest = 0;
        each_operand(expression, |operand| {
            // An operand stands before what it is an operand of, in a valid module.
            let depth = depths.get(operand.index()).copied().unwrap_or(0);
            deepest = deepest.max(depth);
        });
        let mut depth = deepest + 1;
        if is_always_kept(expression) {
            depth = 0;
        } else if depth >= DEEPEST && may_be_kept(expression) {
            named_expressions.insert(handle, NAME.to_owned());
            depth = 0;
        }
        depths.push(depth);
    }
}

/// What every back end keeps in a variable.
const fn is_always_kept(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::Load { .. } | Expression::CallResult(_) | Expression::AtomicResult { .. }
    )
}

/// Values that are computed from others. A long chain is made of these: accesses nest as deep as types,
/// and a pointer has no variable.
const fn may_be_kept(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::Compose { .. }
            | Expression::Splat { .. }
            | Expression::Swizzle { .. }
            | Expression::Unary { .. }
            | Expression::Binary { .. }
            | Expression::Select { .. }
            | Expression::Relational { .. }
            | Expression::Math { .. }
            | Expression::As { .. }
    )
}
