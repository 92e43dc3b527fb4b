//! Buffers that hold a structure of one member.
//!
//! SPIR-V wants a structure in each buffer, so that whoever writes it makes one around what is
//! none, which the reader keeps. Immediates are no buffers, and keep theirs: not every back end
//! takes them without.

use naga::{AddressSpace, Expression, Function, Handle, Module, Type, TypeInner};

use super::super::wire::{Construct as _, Listing, each_operand};
use super::blocks;

/// Takes the structure away wherever nothing but its member is used.
pub(super) fn unwrap(module: &mut Module) {
    let mut inner: Vec<_> = module
        .global_variables
        .iter()
        .map(|(_, global)| match global.space {
            AddressSpace::Uniform | AddressSpace::Storage { access: _ } => {
                only_member(module, global.ty)
            }
            _ => None,
        })
        .collect();
    if inner.iter().all(Option::is_none) {
        return;
    }
    let functions = module.functions.iter().map(|(_, function)| function);
    let mains = module.entry_points.iter().map(|main| &main.function);
    functions
        .chain(mains)
        .for_each(|function| keep_used(function, &mut inner));
    for ((_, global), inner) in module.global_variables.iter_mut().zip(&inner) {
        global.ty = inner.unwrap_or(global.ty);
    }
    let functions = module.functions.iter_mut().map(|(_, function)| function);
    let mains = module
        .entry_points
        .iter_mut()
        .map(|main| &mut main.function);
    functions
        .chain(mains)
        .for_each(|function| use_members(function, &inner));
}

/// The type of the one member of a structure that is no larger than it, so that a pipeline asks
/// for as large a buffer.
fn only_member(module: &Module, ty: Handle<Type>) -> Option<Handle<Type>> {
    let TypeInner::Struct { ref members, span } = module.types[ty].inner else {
        return None;
    };
    let [member] = &**members else { return None };
    let size = module.types[member.ty].inner.try_size(module.to_ctx());
    let is_all = member.offset == 0 && size == Some(span);
    is_all.then_some(member.ty)
}

/// Forgets the variables of which a function uses more than the member.
fn keep_used(function: &Function, inner: &mut [Option<Handle<Type>>]) {
    let expressions = &function.expressions;
    let mut whole = |handle: Handle<Expression>| {
        if let Expression::GlobalVariable(global) = expressions[handle] {
            inner[global.index()] = None;
        }
    };
    for (_, expression) in expressions.iter() {
        if !matches!(expression, Expression::AccessIndex { base: _, index: 0 }) {
            each_operand(expression, &mut whole);
        }
    }
    blocks::each_leaf(&function.body, &mut |leaf| {
        leaf.statement()
            .write(&mut Listing(|operand, _| whole(operand)));
    });
}

fn use_members(function: &mut Function, inner: &[Option<Handle<Type>>]) {
    let expressions = &mut function.expressions;
    let mut left_out = vec![false; expressions.len()];
    let handles: Vec<_> = expressions.iter().map(|(handle, _)| handle).collect();
    for handle in handles {
        let Expression::AccessIndex { base, index: 0 } = expressions[handle] else {
            continue;
        };
        // The member of a member has this one as its base, which is none of the variables' uses.
        if left_out[base.index()] {
            continue;
        }
        if let Expression::GlobalVariable(global) = expressions[base] {
            if inner[global.index()].is_some() {
                expressions[handle] = Expression::GlobalVariable(global);
                left_out[handle.index()] = true;
            }
        }
    }
    if left_out.contains(&true) {
        blocks::evaluate_without(&mut function.body, &left_out);
    }
}
