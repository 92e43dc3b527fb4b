//! A canonical function under construction: its signature, its variables, its expressions.

use naga::{
    Constant, Expression, Function, FunctionArgument, FunctionResult, GlobalVariable, Handle,
    LocalVariable, Override, Span, Type,
};

use super::context::Context;
use super::effects::Effects;
use super::global_set::GlobalSet;
use super::module::ModuleBuilder;
use super::rebase;
use super::rebase::{Rebase, Rebased, Refusal};
use super::rules;
use super::timing::Timing;
use super::values::{Origin, Value, Values};

/// An expression of the canonical function.
pub(super) type Placed = Handle<Expression>;

/// How many times the expressions of its source a canonical function may have. More than real
/// shaders come to, and little enough to hold.
const MAX_COPIES: usize = 8;
/// A function of this many expressions is small, whatever it came from.
const SMALL: usize = 10_000;

pub(super) const UNAVAILABLE: Refusal = Refusal("an expression is used where it is not in scope");

/// What has become of a value.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    /// Its canonical expression, if it is in scope.
    pub(super) placed: Option<Placed>,
    /// Its canonical expression as a part of the initial value of a local. That is not evaluated
    /// by the body, which therefore cannot share it.
    constant: Option<Placed>,
    /// Whether the source has computed it in this scope.
    pub(super) computed: bool,
    /// The last look at values that came by it.
    pub(super) visit: u32,
}

pub(super) struct FunctionBuilder<'p, 'm> {
    pub(super) module: &'p mut ModuleBuilder<'m>,
    pub(super) context: Context<'p>,
    pub(super) values: &'p Values,
    pub(super) out: Function,
    /// The variables of the module that the function uses, itself or by what it calls.
    pub(super) globals: GlobalSet,
    /// What has become of each value.
    pub(super) marks: &'p mut Vec<Mark>,
    locals: Vec<Option<Handle<LocalVariable>>>,
    /// A value is computed in each branch that needs it. Where many branches need much, that
    /// would be the product of both.
    most_expressions: usize,
}

impl<'p, 'm> FunctionBuilder<'p, 'm> {
    /// A function with the signature of its source, and nothing in it.
    pub(super) fn new(
        module: &'p mut ModuleBuilder<'m>,
        context: Context<'p>,
        values: &'p Values,
        marks: &'p mut Vec<Mark>,
    ) -> Rebased<Self> {
        let Function {
            name: _,
            arguments,
            result,
            local_variables,
            expressions: _,
            named_expressions: _,
            body: _,
            diagnostic_filter_leaf: _,
        } = context.function;
        let mut out = Function::default();
        for argument in arguments {
            let FunctionArgument {
                name: _,
                ty,
                binding,
            } = argument;
            out.arguments.push(FunctionArgument {
                name: None,
                ty: module.ty(*ty)?,
                binding: binding.as_ref().map(rules::binding),
            });
        }
        if let Some(FunctionResult { ty, binding }) = result {
            out.result = Some(FunctionResult {
                ty: module.ty(*ty)?,
                binding: binding.as_ref().map(rules::binding),
            });
        }
        marks.clear();
        marks.resize(values.len(), Mark::default());
        Ok(Self {
            module,
            context,
            values,
            out,
            globals: GlobalSet::default(),
            marks,
            locals: vec![None; local_variables.len()],
            most_expressions: values.len().saturating_mul(MAX_COPIES) + SMALL,
        })
    }

    /// Appends a value whose operands are all placed.
    pub(super) fn append(&mut self, value: Value) -> Rebased<Placed> {
        if self.out.expressions.len() > self.most_expressions {
            return Err(Refusal(
                "many branches share values that would be written out in each",
            ));
        }
        // `modf` and its like return a type that no expression names.
        if let Some(ty) = self.values.special_type(value) {
            self.module.ty(ty)?;
        }
        let handle = self.copy(value, false)?;
        self.marks[value.index()].placed = Some(handle);
        Ok(handle)
    }

    /// What a function of the source does that this one may call.
    pub(super) fn effects_of(&self, source: Handle<Function>) -> Effects {
        self.context.effects[source.index()]
    }

    #[inline]
    fn copy(&mut self, value: Value, is_constant: bool) -> Rebased<Placed> {
        let values = self.values;
        let origin = values.origin(value);
        let source = values.expression(self.context, origin);
        let to = &mut FromValues {
            builder: self,
            origin,
            is_constant,
        };
        let expression = rebase::expression(to, source)?;
        Ok(self.out.expressions.append(expression, Span::UNDEFINED))
    }

    fn initial_value(&mut self, source: Handle<Expression>) -> Rebased<Placed> {
        let root = self.values.of(source).ok_or(UNAVAILABLE)?;
        let mut pending = vec![root];
        while let Some(next) = pending.last().copied() {
            if self.marks[next.index()].constant.is_none() {
                let known = pending.len();
                let operands = self.values.operands(next).rev();
                pending
                    .extend(operands.filter(|value| self.marks[value.index()].constant.is_none()));
                if pending.len() > known {
                    continue;
                }
                let handle = match (self.values.timing(next), self.marks[next.index()].placed) {
                    (Timing::Static, Some(handle)) => handle,
                    (Timing::Static, None) => self.append(next)?,
                    (Timing::Pure | Timing::Anchored | Timing::Defined, _) => {
                        self.copy(next, true)?
                    }
                };
                self.marks[next.index()].constant = Some(handle);
            }
            pending.pop();
        }
        self.marks[root.index()].constant.ok_or(UNAVAILABLE)
    }
}

/// References of the source's module, in statements and values alike.
impl FunctionBuilder<'_, '_> {
    pub(super) fn global(
        &mut self,
        source: Handle<GlobalVariable>,
    ) -> Rebased<Handle<GlobalVariable>> {
        let global = self.module.global(source)?;
        self.globals.insert(global);
        Ok(global)
    }

    pub(super) fn local(
        &mut self,
        source: Handle<LocalVariable>,
    ) -> Rebased<Handle<LocalVariable>> {
        if let Some(local) = self.locals[source.index()] {
            return Ok(local);
        }
        let LocalVariable { name: _, ty, init } = &self.context.function.local_variables[source];
        let local = LocalVariable {
            name: None,
            ty: self.module.ty(*ty)?,
            init: init.map(|init| self.initial_value(init)).transpose()?,
        };
        let handle = self.out.local_variables.append(local, Span::UNDEFINED);
        self.locals[source.index()] = Some(handle);
        Ok(handle)
    }

    pub(super) fn function(&mut self, source: Handle<Function>) -> Rebased<Handle<Function>> {
        let function = self.module.function(source)?;
        self.globals.insert_all(self.module.globals_of(function));
        Ok(function)
    }
}

/// References of values: operands are placed already.
struct FromValues<'a, 'p, 'm> {
    builder: &'a mut FunctionBuilder<'p, 'm>,
    origin: Origin,
    /// Whether the expression is part of the initial value of a local.
    is_constant: bool,
}

impl Rebase for FromValues<'_, '_, '_> {
    fn operand(&mut self, source: Handle<Expression>) -> Rebased<Placed> {
        let values = self.builder.values;
        let value = if self.origin.is_constant() {
            values.of_constant(source)
        } else {
            values.of(source)
        };
        let mark = self.builder.marks[value.ok_or(UNAVAILABLE)?.index()];
        let known = if self.is_constant {
            mark.constant
        } else {
            mark.placed
        };
        known.ok_or(UNAVAILABLE)
    }

    fn definition(&mut self, _: Handle<Expression>) -> Rebased<Placed> {
        Err(UNAVAILABLE)
    }

    fn ty(&mut self, source: Handle<Type>) -> Rebased<Handle<Type>> {
        self.builder.module.ty(source)
    }

    fn constant(&mut self, source: Handle<Constant>) -> Rebased<Handle<Constant>> {
        self.builder.module.constant(source)
    }

    fn override_(&mut self, source: Handle<Override>) -> Rebased<Handle<Override>> {
        self.builder.module.override_(source)
    }

    fn global(&mut self, source: Handle<GlobalVariable>) -> Rebased<Handle<GlobalVariable>> {
        self.builder.global(source)
    }

    fn local(&mut self, source: Handle<LocalVariable>) -> Rebased<Handle<LocalVariable>> {
        self.builder.local(source)
    }

    fn function(&mut self, source: Handle<Function>) -> Rebased<Handle<Function>> {
        self.builder.function(source)
    }
}
