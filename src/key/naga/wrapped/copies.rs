//! What stands in a wrapper, written into the function that it wraps.

use naga::{Block, Expression, Function, Handle, LocalVariable, Span, Statement};

use super::blocks;

/// What has become of an argument of the wrapper.
#[derive(Clone, Copy)]
pub(super) enum Argument {
    /// The argument of that number.
    Whole(u32),
    /// A part of it.
    Part(u32, u32),
}

/// Writes what stands in the wrapper into the function.
pub(super) struct Copies<'s> {
    pub(super) shell: &'s Function,
    arguments: &'s [Argument],
    lifted: &'s [Option<Handle<LocalVariable>>],
    /// What has become of each expression of the wrapper.
    copied: Vec<Option<Handle<Expression>>>,
    /// What has become of each variable of the wrapper.
    locals: Vec<Handle<LocalVariable>>,
}

impl<'s> Copies<'s> {
    pub(super) fn new(
        shell: &'s Function,
        arguments: &'s [Argument],
        lifted: &'s [Option<Handle<LocalVariable>>],
        inner: &mut Function,
    ) -> Self {
        Self {
            shell,
            arguments,
            lifted,
            copied: vec![None; shell.expressions.len()],
            locals: copied_locals(shell, inner),
        }
    }
}

/// Copies the variables of a wrapper, whose initial values refer to nothing in it.
fn copied_locals(shell: &Function, inner: &mut Function) -> Vec<Handle<LocalVariable>> {
    let locals = shell.local_variables.iter().map(|(_, local)| {
        let mut local = local.clone();
        local.init = local.init.map(|init| {
            let init = shell.expressions[init].clone();
            inner.expressions.append(init, Span::UNDEFINED)
        });
        inner.local_variables.append(local, Span::UNDEFINED)
    });
    locals.collect()
}

impl Copies<'_> {
    /// The variable of the function that an expression of the wrapper is.
    pub(super) fn local(&self, expression: Handle<Expression>) -> Option<Handle<LocalVariable>> {
        match self.shell.expressions[expression] {
            Expression::GlobalVariable(global) => self.lifted[global.index()],
            Expression::LocalVariable(local) => Some(self.locals[local.index()]),
            _ => None,
        }
    }

    /// Lets an expression of the wrapper be one of the function.
    pub(super) fn set(&mut self, expression: Handle<Expression>, value: Handle<Expression>) {
        self.copied[expression.index()] = Some(value);
    }

    /// Writes a statement other than a `return`.
    pub(super) fn statement(
        &mut self,
        inner: &mut Function,
        statement: &Statement,
        to: &mut Block,
    ) {
        match *statement {
            Statement::Emit(ref range) => {
                range.clone().for_each(|it| self.evaluate(inner, it, to));
            }
            Statement::Store { pointer, value } => {
                let pointer = self.operand(inner, pointer, to);
                let value = self.operand(inner, value, to);
                to.push(Statement::Store { pointer, value }, Span::UNDEFINED);
            }
            _ => {}
        }
    }

    pub(super) fn evaluate(
        &mut self,
        inner: &mut Function,
        expression: Handle<Expression>,
        to: &mut Block,
    ) {
        let mut copy = self.shell.expressions[expression].clone();
        let mut replace = |operand: &mut Handle<Expression>| {
            *operand = self.operand(inner, *operand, to);
        };
        match &mut copy {
            Expression::AccessIndex { base, index: _ } => replace(base),
            Expression::Load { pointer } => replace(pointer),
            Expression::Compose { ty: _, components } => components.iter_mut().for_each(replace),
            Expression::As { expr, .. } | Expression::Unary { op: _, expr } => replace(expr),
            // A wrapper evaluates nothing else.
            _ => {}
        }
        let copy = inner.expressions.append(copy, Span::UNDEFINED);
        blocks::emit(copy, to);
        self.set(expression, copy);
    }

    /// What has become of an operand: of what was evaluated, what it is now.
    pub(super) fn operand(
        &mut self,
        inner: &mut Function,
        operand: Handle<Expression>,
        to: &mut Block,
    ) -> Handle<Expression> {
        if let Some(copied) = self.copied[operand.index()] {
            return copied;
        }
        let expression = match self.shell.expressions[operand] {
            Expression::FunctionArgument(argument) => match self.arguments[argument as usize] {
                Argument::Whole(place) => Expression::FunctionArgument(place),
                Argument::Part(place, index) => {
                    let base = Expression::FunctionArgument(place);
                    let base = inner.expressions.append(base, Span::UNDEFINED);
                    let part = Expression::AccessIndex { base, index };
                    let part = inner.expressions.append(part, Span::UNDEFINED);
                    blocks::emit(part, to);
                    self.set(operand, part);
                    return part;
                }
            },
            ref other => match self.local(operand) {
                Some(local) => Expression::LocalVariable(local),
                None => other.clone(),
            },
        };
        let copied = inner.expressions.append(expression, Span::UNDEFINED);
        self.set(operand, copied);
        copied
    }
}
