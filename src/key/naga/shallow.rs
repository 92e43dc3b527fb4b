//! Bounds how deep back ends recurse over the expressions of a canonical module.

use naga::Type;
use naga::{Expression, Function, Module, TypeInner, UniqueArena};

use super::wire::each_operand;

/// How deep an expression nests in others, at most, before it is given a name.
///
/// A level takes about 22 KiB of stack in naga's writers of text, in a debug build. And they write the
/// operands of some operators twice, such as those of `%` on floats in GLSL and the level of
/// `textureDimensions` in MSL: text may grow by two to this power.
const DEEPEST: usize = 12;

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
        name_in(function, &module.types);
    }
    for entry in &mut module.entry_points {
        name_in(&mut entry.function, &module.types);
    }
}

/// What is known of an expression to those that use it.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    depth: usize,
    /// Whether it is a pointer, a texture or a sampler, which no variable can hold.
    is_place: bool,
}

fn name_in(function: &mut Function, types: &UniqueArena<Type>) {
    let mut parts: Vec<Part> = Vec::with_capacity(function.expressions.len());
    for (handle, expression) in function.expressions.iter() {
        let mut deepest = 0;
        each_operand(expression, |operand| {
            // An operand stands before what it is an operand of, in a valid module.
            let part = parts.get(operand.index()).copied().unwrap_or_default();
            deepest = deepest.max(part.depth);
        });
        let mut part = Part {
            depth: deepest + 1,
            is_place: match *expression {
                Expression::GlobalVariable(_) | Expression::LocalVariable(_) => true,
                Expression::FunctionArgument(number) => function
                    .arguments
                    .get(number as usize)
                    .is_some_and(|argument| is_place(&types[argument.ty].inner)),
                Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => {
                    parts.get(base.index()).is_some_and(|base| base.is_place)
                }
                _ => false,
            },
        };
        if is_always_kept(expression) {
            part.depth = 0;
        } else if part.depth >= DEEPEST && !part.is_place && may_be_kept(expression) {
            function.named_expressions.insert(handle, NAME.to_owned());
            part.depth = 0;
        }
        parts.push(part);
    }
}

const fn is_place(inner: &TypeInner) -> bool {
    matches!(
        inner,
        TypeInner::Pointer { .. }
            | TypeInner::ValuePointer { .. }
            | TypeInner::Image { .. }
            | TypeInner::Sampler { .. }
            | TypeInner::AccelerationStructure { .. }
            | TypeInner::RayQuery { .. }
            | TypeInner::BindingArray { .. }
    )
}

/// What every back end keeps in a variable.
const fn is_always_kept(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::Load { .. } | Expression::CallResult(_) | Expression::AtomicResult { .. }
    )
}

/// Values that are computed from others, where they are emitted.
const fn may_be_kept(expression: &Expression) -> bool {
    matches!(
        expression,
        Expression::Access { .. }
            | Expression::AccessIndex { .. }
            | Expression::Compose { .. }
            | Expression::Splat { .. }
            | Expression::Swizzle { .. }
            | Expression::Unary { .. }
            | Expression::Binary { .. }
            | Expression::Select { .. }
            | Expression::Relational { .. }
            | Expression::Math { .. }
            | Expression::As { .. }
            | Expression::Derivative { .. }
            | Expression::ImageQuery { .. }
            | Expression::ImageLoad { .. }
            | Expression::ImageSample { .. }
    )
}
