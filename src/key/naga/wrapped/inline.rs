//! The body of the function that an entry point wraps, in its place.

use std::collections::BTreeSet;

use naga::valid::ModuleInfo;
use naga::{
    Binding, Block, BuiltIn, Constant, Expression, Function, FunctionArgument, GlobalVariable,
    Handle, LocalVariable, Module, ShaderStage, Span, Statement, Type,
};

use super::super::wire::{Construct as _, Listing};
use super::copies::{Argument, Copies};
use super::outputs::Outputs;
use super::types::{Bindings, Bound, say_interpolation};
use super::uses::{PartsOnly, drop_unread, roots};
use super::{Wrapper, blocks, is_private, root, size};

/// What follows the call is written before each `return`: how much that may come to, beside the
/// [size](size::of) of the function. More than real shaders come to, and little enough to hold.
const MAX_COPIES: usize = 8;
/// So much is little, however small the function is.
const FEW: usize = 10_000;

pub(super) struct Inlining<'m> {
    module: &'m mut Module,
    info: &'m ModuleInfo,
    bound: Bound,
}

/// A structure that is made of arguments.
#[derive(Clone, Copy)]
struct Structure {
    made: Handle<Expression>,
    ty: Handle<Type>,
    /// How many arguments it takes.
    count: u32,
}

impl<'m> Inlining<'m> {
    pub(super) fn new(module: &'m mut Module, info: &'m ModuleInfo) -> Self {
        let bound = Bound::new(module);
        Self {
            module,
            info,
            bound,
        }
    }

    pub(super) fn finish(self) {
        self.bound.finish(self.module);
    }

    /// Puts the body of the function that an entry point wraps into the entry point, if it does
    /// not grow too large.
    pub(super) fn inline(&mut self, entry: usize, wrapper: &Wrapper) -> bool {
        let mut shell = std::mem::take(&mut self.module.entry_points[entry].function);
        let are_targets = self.module.entry_points[entry].stage == ShaderStage::Fragment;
        self.say_interpolation(&mut shell, are_targets);
        let callee = wrapper.callee;
        let inner = &self.module.functions[callee];
        let mut returns = 1;
        blocks::each_leaf(&inner.body, &mut |leaf| {
            returns += usize::from(leaf.is_plain_return());
        });
        let most = FEW.max(size::of(inner).saturating_mul(MAX_COPIES));
        if size::of(&shell).saturating_mul(returns) > most {
            self.module.entry_points[entry].function = shell;
            return false;
        }
        let mut inner = std::mem::take(self.module.functions.get_mut(callee));
        let info = &self.info[callee];
        let known = inner.expressions.len();
        let lifted = self.lift(&shell, &mut inner);
        let arguments = self.arguments(&shell, wrapper, &mut inner, &lifted);
        let mut body = Block::new();
        let mut copies = Copies::new(&shell, &arguments, &lifted, &mut inner);
        for statement in &shell.body[..wrapper.call] {
            copies.statement(&mut inner, statement, &mut body);
        }
        let mut code = std::mem::take(&mut inner.body);
        let mut outputs = Outputs::new(&shell, &shell.body[wrapper.call + 1..], are_targets, known);
        blocks::rewrite(&mut code, &mut |statement, to| match statement {
            Statement::Return { value: None } => outputs.close(&mut copies, &mut inner, to),
            statement => to.push(statement, Span::UNDEFINED),
        });
        if blocks::goes_on(&code) {
            outputs.close(&mut copies, &mut inner, &mut code);
        }
        body.append(&mut code);
        inner.body = body;
        inner.name = shell.name.clone();
        inner.result = shell.result.clone();
        drop_unread(&mut inner, &lifted);
        outputs.raise(self.module, info, &mut inner, &mut self.bound);
        self.module.entry_points[entry].function = inner;
        true
    }

    fn say_interpolation(&mut self, shell: &mut Function, are_targets: bool) {
        for argument in &mut shell.arguments {
            say_interpolation(self.module, argument.ty, argument.binding.as_mut());
        }
        if let Some(result) = &mut shell.result {
            say_interpolation(self.module, result.ty, result.binding.as_mut());
            if result.binding.is_none() {
                self.bound
                    .say_interpolation(self.module, result.ty, are_targets);
            }
        }
    }

    /// Makes variables of the function of the private ones that nothing it calls uses, for the inputs and
    /// outputs of the wrapper. Gives them by the index of the private variable.
    fn lift(
        &mut self,
        shell: &Function,
        inner: &mut Function,
    ) -> Vec<Option<Handle<LocalVariable>>> {
        let mut lifted = vec![None; self.module.global_variables.len()];
        let passed: BTreeSet<_> = shell.expressions.iter().filter_map(global).collect();
        let mut callees = BTreeSet::new();
        blocks::each_leaf(&inner.body, &mut |leaf| callees.extend(leaf.callee()));
        let is_shared = |global: Handle<GlobalVariable>| {
            callees.iter().any(|it| !self.info[*it][global].is_empty())
        };
        let own = passed
            .into_iter()
            .filter(|global| is_private(self.module, *global) && !is_shared(*global));
        for global in own.collect::<Vec<_>>() {
            let GlobalVariable { ty, init, .. } = self.module.global_variables[global];
            let init = match init.map(|init| self.constant(init, ty)) {
                None => None,
                Some(Some(init)) => {
                    let init = Expression::Constant(init);
                    Some(inner.expressions.append(init, Span::UNDEFINED))
                }
                // An override is not known before the pipeline is.
                Some(None) => continue,
            };
            let local = LocalVariable {
                name: None,
                ty,
                init,
            };
            lifted[global.index()] = Some(inner.local_variables.append(local, Span::UNDEFINED));
        }
        for (_, expression) in inner.expressions.iter_mut() {
            if let Expression::GlobalVariable(global) = *expression {
                if let Some(local) = lifted[global.index()] {
                    *expression = Expression::LocalVariable(local);
                }
            }
        }
        lifted
    }

    /// A constant of an initial value, unless an override stands in it.
    fn constant(&mut self, init: Handle<Expression>, ty: Handle<Type>) -> Option<Handle<Constant>> {
        if let Expression::Constant(constant) = self.module.global_expressions[init] {
            return Some(constant);
        }
        if !self.module.overrides.is_empty() {
            return None;
        }
        let constant = Constant {
            name: None,
            ty,
            init,
        };
        Some(self.module.constants.append(constant, Span::UNDEFINED))
    }

    /// The arguments of the function: those of the wrapper, and where the code begins with a
    /// structure of some of them in order, one that is that structure.
    fn arguments(
        &mut self,
        shell: &Function,
        wrapper: &Wrapper,
        inner: &mut Function,
        lifted: &[Option<Handle<LocalVariable>>],
    ) -> Vec<Argument> {
        let inputs = Self::inputs(shell, wrapper, inner, lifted);
        let whole = self.structures(shell, inner, &inputs);
        let mut left_out = vec![false; inner.expressions.len()];
        let mut become_of = Vec::with_capacity(shell.arguments.len());
        while let Some(argument) = shell.arguments.get(become_of.len()) {
            let place = inner.arguments.len() as u32;
            let Some(Structure { made, ty, count }) = whole[become_of.len()] else {
                become_of.push(Argument::Whole(place));
                inner.arguments.push(argument.clone());
                continue;
            };
            become_of.extend((0..count).map(|part| Argument::Part(place, part)));
            inner.arguments.push(FunctionArgument {
                name: None,
                ty,
                binding: None,
            });
            inner.expressions[made] = Expression::FunctionArgument(place);
            left_out[made.index()] = true;
        }
        if left_out.contains(&true) {
            blocks::evaluate_without(&mut inner.body, &left_out);
        }
        become_of
    }

    /// The argument that each variable of the function holds from its begin to its end, by the
    /// index of the variable.
    fn inputs(
        shell: &Function,
        wrapper: &Wrapper,
        inner: &Function,
        lifted: &[Option<Handle<LocalVariable>>],
    ) -> Vec<Option<u32>> {
        let mut inputs = vec![None; inner.local_variables.len()];
        let mut stored = vec![0; inner.local_variables.len()];
        for statement in &shell.body[..wrapper.call] {
            let Statement::Store { pointer, value } = *statement else {
                continue;
            };
            // A store to a part of it is one of it.
            let root = root(shell, pointer);
            let local = global((root, &shell.expressions[root]));
            let Some(local) = local.and_then(|global| lifted[global.index()]) else {
                continue;
            };
            stored[local.index()] += 1;
            if let Expression::FunctionArgument(argument) = shell.expressions[value] {
                inputs[local.index()] = Some(argument).filter(|_| root == pointer);
            }
        }
        let roots = roots(&inner.expressions);
        blocks::each_leaf(&inner.body, &mut |leaf| {
            leaf.statement()
                .write(&mut Listing(|operand: Handle<_>, _| {
                    if let Some(local) = roots[operand.index()] {
                        stored[local.index()] += 1;
                    }
                }));
        });
        for (input, stored) in inputs.iter_mut().zip(stored) {
            *input = input.filter(|_| stored == 1);
        }
        inputs
    }

    /// The structures that are made of arguments in order, by the first of them.
    fn structures(
        &mut self,
        shell: &Function,
        inner: &Function,
        inputs: &[Option<u32>],
    ) -> Vec<Option<Structure>> {
        let mut structures = vec![None; shell.arguments.len()];
        let mut taken = vec![false; shell.arguments.len()];
        let parts_only = PartsOnly::new(inner);
        for (handle, expression) in inner.expressions.iter() {
            let Expression::Compose { ty, ref components } = *expression else {
                continue;
            };
            let argument = |component: &Handle<Expression>| {
                let Expression::Load { pointer } = inner.expressions[*component] else {
                    return None;
                };
                let Expression::LocalVariable(local) = inner.expressions[pointer] else {
                    return None;
                };
                inputs[local.index()].map(|argument| argument as usize)
            };
            let Some(first) = components.first().and_then(argument) else {
                continue;
            };
            let all = first..first + components.len();
            if !components.iter().map(argument).eq(all.clone().map(Some))
                || taken[all.clone()].contains(&true)
            {
                continue;
            }
            let parts = &shell.arguments[all.clone()];
            let or_copy = parts_only.contains(handle);
            if !or_copy && parts.iter().any(is_corrected) {
                continue;
            }
            let bindings = Bindings {
                members: parts.iter().map(|part| part.binding.clone()).collect(),
                are_targets: false,
            };
            let bound = self.bound.bind(self.module, ty, bindings, or_copy);
            if let Some(ty) = bound {
                structures[first] = Some(Structure {
                    made: handle,
                    ty,
                    count: components.len() as u32,
                });
                taken[all].fill(true);
            }
        }
        structures
    }
}

/// Whether what is read of an argument is not what the device gives: Direct3D counts vertices and
/// instances from 0 and no workgroups, which naga makes up for wherever such an argument itself is
/// read, and not in a structure that is handed on.
const fn is_corrected(argument: &FunctionArgument) -> bool {
    matches!(
        argument.binding,
        Some(Binding::BuiltIn(
            BuiltIn::VertexIndex | BuiltIn::InstanceIndex | BuiltIn::NumWorkGroups
        ))
    )
}

/// The private variable that an expression is.
const fn global(
    (_, expression): (Handle<Expression>, &Expression),
) -> Option<Handle<GlobalVariable>> {
    match *expression {
        Expression::GlobalVariable(global) => Some(global),
        _ => None,
    }
}
