//! What is refused before naga's validator sees it.
//!
//! The validator recurses over blocks, and follows a few handles that it has not checked.

use naga::{ArraySize, Block, Expression, Function, Handle, Module, Override, Type, TypeInner};

use super::MAX_NESTING;
use super::rebase::{Rebased, Refusal, Shape, shape};
use super::wire::each_operand;

/// How deep a module nests. Refuses those that could exhaust the stack or hold a handle into
/// nowhere.
pub(super) fn check(module: &Module) -> Rebased<usize> {
    for entry in &module.entry_points {
        if let Some(payload) = entry.incoming_ray_payload {
            if module.global_variables.try_get(payload).is_err() {
                return Err(Refusal(&"an entry point's payload is missing"));
            }
        }
    }
    let blocks = block_depth(module)?;
    Ok(blocks.max(item_depth(module)?))
}

fn block_depth(module: &Module) -> Rebased<usize> {
    let functions = module.functions.iter().map(|(_, function)| function);
    let mains = module.entry_points.iter().map(|entry| &entry.function);
    let mut pending = Vec::new();
    let mut deepest = 0;
    for Function { body, .. } in functions.chain(mains) {
        pending.push((body, 1));
        deepest = deepest.max(nesting(&mut pending)?);
    }
    Ok(deepest)
}

/// Iterates, because it is what makes recursion safe for all that follows.
fn nesting(pending: &mut Vec<(&Block, usize)>) -> Rebased<usize> {
    let mut deepest = 0;
    while let Some((block, depth)) = pending.pop() {
        if depth > MAX_NESTING {
            return Err(Refusal(&"blocks nest deeper than 1000"));
        }
        deepest = deepest.max(depth);
        let depth = depth + 1;
        for statement in block {
            match shape(statement) {
                Shape::Emit(_) | Shape::Leaf(_) => {}
                Shape::Block(inner) => pending.push((inner, depth)),
                Shape::If {
                    condition: _,
                    accept,
                    reject,
                } => {
                    pending.push((accept, depth));
                    pending.push((reject, depth));
                }
                Shape::Switch { selector: _, cases } => {
                    pending.extend(cases.iter().map(|case| (&case.body, depth)));
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if: _,
                } => {
                    pending.push((body, depth));
                    pending.push((continuing, depth));
                }
            }
        }
    }
    Ok(deepest)
}

/// How deep types and constants nest in each other. What refers to a later item is refused by
/// naga; here it counts as if it nested in nothing.
fn item_depth(module: &Module) -> Rebased<usize> {
    let mut depths = Depths {
        module,
        types: Vec::with_capacity(module.types.len()),
        expressions: Vec::with_capacity(module.global_expressions.len()),
    };
    let mut deepest = 0;
    for (_, expression) in module.global_expressions.iter() {
        let depth = 1 + depths.below_expression(expression);
        depths.expressions.push(depth);
        deepest = deepest.max(depth);
    }
    for (_, ty) in module.types.iter() {
        let depth = 1 + depths.below_type(&ty.inner);
        depths.types.push(depth);
        deepest = deepest.max(depth);
    }
    // A constant can be of the deepest type, and a type as long as the deepest constant.
    let deepest = deepest.saturating_mul(2);
    if deepest > 2 * MAX_NESTING {
        return Err(Refusal(&"types and constants nest deeper than 1000"));
    }
    Ok(deepest)
}

struct Depths<'m> {
    module: &'m Module,
    types: Vec<usize>,
    expressions: Vec<usize>,
}

impl Depths<'_> {
    fn ty(&self, handle: Handle<Type>) -> usize {
        self.types.get(handle.index()).copied().unwrap_or(0)
    }

    fn expression(&self, handle: Handle<Expression>) -> usize {
        self.expressions.get(handle.index()).copied().unwrap_or(0)
    }

    fn override_(&self, handle: Handle<Override>) -> usize {
        let item = self.module.overrides.try_get(handle).ok();
        let init = item.and_then(|item| item.init);
        1 + init.map_or(0, |init| self.expression(init))
    }

    fn below_expression(&self, expression: &Expression) -> usize {
        let mut deepest = 0;
        each_operand(expression, |operand| {
            deepest = deepest.max(self.expression(operand));
        });
        match *expression {
            Expression::Constant(constant) => {
                let constant = self.module.constants.try_get(constant);
                constant.map_or(0, |constant| self.expression(constant.init))
            }
            Expression::Override(item) => self.override_(item),
            _ => deepest,
        }
    }

    fn below_type(&self, inner: &TypeInner) -> usize {
        let size = |size: ArraySize| match size {
            ArraySize::Pending(length) => self.override_(length),
            ArraySize::Constant(_) | ArraySize::Dynamic => 0,
        };
        match *inner {
            TypeInner::Pointer { base, space: _ } => self.ty(base),
            TypeInner::Array {
                base,
                size: of,
                stride: _,
            }
            | TypeInner::BindingArray { base, size: of } => self.ty(base).max(size(of)),
            TypeInner::Struct {
                ref members,
                span: _,
            } => {
                let members = members.iter().map(|member| self.ty(member.ty));
                members.max().unwrap_or(0)
            }
            TypeInner::Scalar(_)
            | TypeInner::Vector { size: _, scalar: _ }
            | TypeInner::Matrix {
                columns: _,
                rows: _,
                scalar: _,
            }
            | TypeInner::CooperativeMatrix {
                columns: _,
                rows: _,
                scalar: _,
                role: _,
            }
            | TypeInner::Atomic(_)
            | TypeInner::ValuePointer {
                size: _,
                scalar: _,
                space: _,
            }
            | TypeInner::Image {
                dim: _,
                arrayed: _,
                class: _,
            }
            | TypeInner::Sampler { comparison: _ }
            | TypeInner::AccelerationStructure { vertex_return: _ }
            | TypeInner::RayQuery { vertex_return: _ } => 0,
        }
    }
}
