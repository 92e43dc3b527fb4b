//! How expressions are used.

use naga::{Arena, Expression, Function, Handle, LocalVariable, Module, Span, Statement, Type};

use super::super::wire::{Construct as _, Listing, each_operand};
use super::blocks;

/// Of which expressions and variables nothing but parts are used, by their number.
pub(super) struct PartsOnly {
    expressions: Vec<bool>,
    locals: Vec<bool>,
}

impl PartsOnly {
    /// What is returned does not count.
    pub(super) fn new(function: &Function) -> Self {
        let mut expressions = vec![true; function.expressions.len()];
        let mut whole = |operand: Handle<Expression>| expressions[operand.index()] = false;
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
        let locals = locals_in_parts(function, &expressions);
        Self {
            expressions,
            locals,
        }
    }

    pub(super) fn contains(&self, expression: Handle<Expression>) -> bool {
        self.expressions[expression.index()]
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
        let is_zero = init.is_none_or(|init| match expressions[init] {
            Expression::ZeroValue(_) => true,
            Expression::Constant(constant) => {
                let init = module.constants[constant].init;
                matches!(module.global_expressions[init], Expression::ZeroValue(_))
            }
            _ => false,
        });
        if !self.locals[local.index()] || !is_zero {
            return false;
        }
        let local = &mut function.local_variables[local];
        // It is zero without being told.
        (local.ty, local.init) = (to, None);
        true
    }
}

/// Of which variables nothing but parts is read and written, once those `expressions` are known of
/// which nothing but parts is used.
fn locals_in_parts(function: &Function, expressions: &[bool]) -> Vec<bool> {
    let mut locals = vec![true; function.local_variables.len()];
    let mut whole = |operand: Handle<Expression>| {
        if let Expression::LocalVariable(local) = function.expressions[operand] {
            locals[local.index()] = false;
        }
    };
    for (handle, expression) in function.expressions.iter() {
        match expression {
            Expression::AccessIndex { base: _, index: _ } => {}
            Expression::Load { pointer: _ } if expressions[handle.index()] => {}
            _ => each_operand(expression, &mut whole),
        }
    }
    blocks::each_leaf(&function.body, &mut |leaf| {
        leaf.statement()
            .write(&mut Listing(|operand, _| whole(operand)));
    });
    locals
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
