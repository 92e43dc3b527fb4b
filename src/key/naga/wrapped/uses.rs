//! How expressions are used.

use naga::{Arena, Expression, Function, Handle, LocalVariable, Module, Span, Statement, Type};

use super::super::wire::{Construct as _, Listing, each_operand};
use super::blocks;

/// Of which expressions nothing but parts are used, by their number.
pub(super) struct PartsOnly(Vec<bool>);

impl PartsOnly {
    /// What is returned does not count.
    pub(super) fn new(function: &Function) -> Self {
        let mut parts_only = vec![true; function.expressions.len()];
        let mut whole = |operand: Handle<Expression>| parts_only[operand.index()] = false;
        for (_, expression) in function.expressions.iter() {
            match expression {
                Expression::AccessIndex { base: _, index: _ } => {}
                _ => each_operand(expression, &mut whole),
            }
        }
        blocks::each_leaf(&function.body, &mut |leaf| {
            if !matches!(leaf.statement(), Statement::Return { value: _ }) {
                leaf.statement()
                    .write(&mut Listing(|operand, _| whole(operand)));
            }
        });
        Self(parts_only)
    }

    pub(super) fn contains(&self, expression: Handle<Expression>) -> bool {
        self.0[expression.index()]
    }

    /// Lets a structure of which nothing but parts are used be of another type with the same
    /// members, or leaves it as it is.
    pub(super) fn retype(
        &self,
        function: &mut Function,
        structure: Handle<Expression>,
        to: Handle<Type>,
        module: &Module,
    ) -> bool {
        if !self.contains(structure) {
            return false;
        }
        match function.expressions[structure] {
            Expression::Compose { ref mut ty, .. } => {
                *ty = to;
                true
            }
            Expression::Load { pointer } => match function.expressions[pointer] {
                Expression::LocalVariable(local) => self.retype_local(function, local, to, module),
                _ => false,
            },
            _ => false,
        }
    }

    fn retype_local(
        &self,
        function: &mut Function,
        local: Handle<LocalVariable>,
        to: Handle<Type>,
        module: &Module,
    ) -> bool {
        let LocalVariable { ty, init, .. } = function.local_variables[local];
        if ty == to {
            return true;
        }
        let expressions = &function.expressions;
        let mut is_whole = false;
        let is_local =
            |operand| matches!(expressions[operand], Expression::LocalVariable(of) if of == local);
        for (handle, expression) in expressions.iter() {
            let is_part = match expression {
                Expression::AccessIndex { base: _, index: _ } => true,
                Expression::Load { pointer: _ } => self.contains(handle),
                _ => false,
            };
            each_operand(expression, |operand| {
                is_whole |= !is_part && is_local(operand);
            });
        }
        blocks::each_leaf(&function.body, &mut |leaf| {
            leaf.statement().write(&mut Listing(|operand, _| {
                is_whole |= is_local(operand);
            }));
        });
        let is_zero = init.is_none_or(|init| match expressions[init] {
            Expression::ZeroValue(_) => true,
            Expression::Constant(constant) => {
                let init = module.constants[constant].init;
                matches!(module.global_expressions[init], Expression::ZeroValue(_))
            }
            _ => false,
        });
        if is_whole || !is_zero {
            return false;
        }
        let local = &mut function.local_variables[local];
        // It is zero without being told.
        (local.ty, local.init) = (to, None);
        true
    }
}

/// Takes away the stores of variables that nothing reads.
pub(super) fn drop_unread(function: &mut Function, locals: &[Option<Handle<LocalVariable>>]) {
    let roots = roots(&function.expressions);
    let mut is_kept = vec![true; function.local_variables.len()];
    for local in locals.iter().flatten() {
        is_kept[local.index()] = false;
    }
    let mut keep = |operand: Handle<Expression>| {
        if let Some(local) = roots[operand.index()] {
            is_kept[local.index()] = true;
        }
    };
    for (_, expression) in function.expressions.iter() {
        match *expression {
            Expression::AccessIndex { base: _, index: _ } => {}
            Expression::Access { base: _, index } => keep(index),
            _ => each_operand(expression, &mut keep),
        }
    }
    blocks::each_leaf(&function.body, &mut |leaf| match leaf.store() {
        Some((_, value)) => keep(value),
        None => leaf
            .statement()
            .write(&mut Listing(|operand, _| keep(operand))),
    });
    blocks::rewrite(&mut function.body, &mut |statement, to| {
        if let Statement::Store { pointer, value: _ } = statement {
            let local = roots[pointer.index()];
            if local.is_some_and(|local| !is_kept[local.index()]) {
                return;
            }
        }
        to.push(statement, Span::UNDEFINED);
    });
}

/// The variable of the function that each expression points to or into.
pub(super) fn roots(expressions: &Arena<Expression>) -> Vec<Option<Handle<LocalVariable>>> {
    let mut roots: Vec<Option<Handle<LocalVariable>>> = Vec::with_capacity(expressions.len());
    for (_, expression) in expressions.iter() {
        roots.push(match *expression {
            Expression::LocalVariable(local) => Some(local),
            Expression::Access { base, index: _ } | Expression::AccessIndex { base, index: _ } => {
                roots[base.index()]
            }
            _ => None,
        });
    }
    roots
}
