//! What an entry point returns.

use std::collections::HashMap;

use naga::valid::FunctionInfo;
use naga::{
    Block, Expression, Function, FunctionResult, Handle, LocalVariable, Module, Span, Statement,
    TypeInner,
};

use super::blocks;
use super::copies::Copies;
use super::types::{Bindings, Bound, say_interpolation};
use super::uses::PartsOnly;

/// How many statements before a `return` are looked through for the store of an output.
const LOOK_BACK: usize = 128;

/// What follows the call in a wrapper.
pub(super) struct Outputs<'s> {
    shell: &'s Function,
    after: &'s [Statement],
    /// Whether the locations of what is returned are those of targets.
    are_targets: bool,
    /// How many expressions the code has itself.
    known: usize,
    /// The values that are returned, and their parts.
    returned: Vec<(Handle<Expression>, Vec<Handle<Expression>>)>,
}

impl<'s> Outputs<'s> {
    pub(super) const fn new(
        shell: &'s Function,
        after: &'s [Statement],
        are_targets: bool,
        known: usize,
    ) -> Self {
        Self {
            shell,
            after,
            are_targets,
            known,
            returned: Vec::new(),
        }
    }

    /// Ends a block as the wrapper ends.
    pub(super) fn close(&mut self, copies: &mut Copies<'_>, inner: &mut Function, to: &mut Block) {
        let mut value = None;
        for statement in self.after {
            match *statement {
                Statement::Emit(ref range) => {
                    for expression in range.clone() {
                        match self.stored(copies, inner, expression, to) {
                            Some(stored) => copies.set(expression, stored),
                            None => copies.evaluate(inner, expression, to),
                        }
                    }
                }
                Statement::Return { value: Some(of) } => {
                    let returned = copies.operand(inner, of, to);
                    self.note(copies, inner, of, returned, to);
                    value = Some(returned);
                }
                _ => copies.statement(inner, statement, to),
            }
        }
        to.push(Statement::Return { value }, Span::UNDEFINED);
    }

    /// The value that a load of the wrapper finds, where that is stored in the same block.
    fn stored(
        &self,
        copies: &Copies<'_>,
        inner: &Function,
        load: Handle<Expression>,
        block: &Block,
    ) -> Option<Handle<Expression>> {
        let Expression::Load { pointer } = self.shell.expressions[load] else {
            return None;
        };
        last_stored(inner, copies.local(pointer)?, block)
    }

    /// Notes the parts of what is returned: those of a structure, or else the value itself.
    fn note(
        &mut self,
        copies: &mut Copies<'_>,
        inner: &mut Function,
        of: Handle<Expression>,
        returned: Handle<Expression>,
        to: &mut Block,
    ) {
        let parts = match (&self.shell.result, &self.shell.expressions[of]) {
            (
                Some(FunctionResult { ty, binding: None }),
                Expression::Compose { ty: of, components },
            ) if of == ty => {
                let components = components.iter();
                components
                    .map(|part| copies.operand(inner, *part, to))
                    .collect()
            }
            (
                Some(FunctionResult {
                    ty: _,
                    binding: Some(_),
                }),
                _,
            ) => vec![returned],
            // A structure that is not put together here has no parts that are known.
            _ => Vec::new(),
        };
        self.returned.push((returned, parts));
    }

    /// Returns a structure whole where its parts are returned.
    pub(super) fn raise(
        self,
        module: &mut Module,
        info: &FunctionInfo,
        inner: &mut Function,
        bound: &mut Bound,
    ) {
        let mut whole = HashMap::new();
        let mut ty = None;
        for (returned, parts) in &self.returned {
            let Some(structure) = structure(inner, parts) else {
                return;
            };
            // The code was there before, unlike what was copied from the wrapper.
            let known = structure.index() < self.known;
            let of = known.then(|| info[structure].ty.handle()).flatten();
            if of.is_none() || *ty.get_or_insert(of) != of {
                return;
            }
            whole.insert(*returned, structure);
        }
        let (Some(ty), Some(bindings)) = (ty.flatten(), self.bindings(module)) else {
            return;
        };
        let Some(bound) = bound.bind(module, ty, bindings, true) else {
            return;
        };
        if bound != ty {
            let parts_only = PartsOnly::new(inner);
            let mut code = inner.clone();
            let retype = |of: &Handle<_>| parts_only.retype(&mut code, *of, bound, module);
            if !whole.values().all(retype) {
                return;
            }
            *inner = code;
        }
        let ty = bound;
        inner.result = Some(FunctionResult { ty, binding: None });
        blocks::rewrite(&mut inner.body, &mut |statement, to| {
            let statement = match statement {
                Statement::Return { value: Some(value) } => Statement::Return {
                    value: whole.get(&value).copied(),
                },
                other => other,
            };
            to.push(statement, Span::UNDEFINED);
        });
    }

    /// The bindings of what is returned, part by part.
    fn bindings(&self, module: &Module) -> Option<Bindings> {
        let FunctionResult { ty, binding } = self.shell.result.as_ref()?;
        let members = match (binding, &module.types[*ty].inner) {
            (None, TypeInner::Struct { members, span: _ }) => {
                let bindings = members.iter().map(|member| {
                    let mut binding = member.binding.clone();
                    say_interpolation(module, member.ty, binding.as_mut());
                    binding
                });
                bindings.collect()
            }
            _ => vec![binding.clone()],
        };
        Some(Bindings {
            members,
            are_targets: self.are_targets,
        })
    }
}

/// The value whose parts these are, in order.
fn structure(inner: &Function, parts: &[Handle<Expression>]) -> Option<Handle<Expression>> {
    let mut whole = None;
    for (place, part) in parts.iter().enumerate() {
        let Expression::AccessIndex { base, index } = inner.expressions[*part] else {
            return None;
        };
        if index as usize != place || *whole.get_or_insert(base) != base {
            return None;
        }
    }
    whole
}

/// The value that was stored last in a variable, if nothing but values and stores stands between.
fn last_stored(
    inner: &Function,
    local: Handle<LocalVariable>,
    block: &Block,
) -> Option<Handle<Expression>> {
    for statement in block.iter().rev().take(LOOK_BACK) {
        match *statement {
            Statement::Emit(_) => {}
            Statement::Store { pointer, value } => {
                if let Expression::LocalVariable(of) = inner.expressions[pointer] {
                    if of == local {
                        return Some(value);
                    }
                } else if root(inner, pointer) == Some(local) {
                    return None;
                }
            }
            _ => return None,
        }
    }
    None
}

/// The variable of the function that an expression points into.
fn root(inner: &Function, pointer: Handle<Expression>) -> Option<Handle<LocalVariable>> {
    let mut pointer = pointer;
    loop {
        match inner.expressions[pointer] {
            Expression::LocalVariable(local) => return Some(local),
            Expression::Access { base, index: _ } | Expression::AccessIndex { base, index: _ } => {
                pointer = base;
            }
            _ => return None,
        }
    }
}
