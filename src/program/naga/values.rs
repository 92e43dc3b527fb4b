//! What a function computes, apart from where: its expressions as a graph of values.
//!
//! naga's expressions are evaluated where an `Emit` statement names them. For an expression that
//! reads nothing but its operands that place does not matter, so such expressions are one value
//! wherever they are equal. Whatever reads memory, samples, or depends on its neighbours in
//! control flow is *anchored*: each evaluation is a value of its own, at its own place.

use std::collections::{HashMap, HashSet};

use naga::proc::TypeResolution;
use naga::valid::FunctionInfo;
use naga::{
    Arena, Block, Constant, Expression, Function, GlobalVariable, Handle, LocalVariable, Module,
    Override, Span, Type, TypeInner,
};

use super::digest::{Digest, Digests, digest_of};
use super::module::{ModuleBuilder, is_interface};
use super::rebase::{self, Operands, Rebased, Shape, operands, shape};
use super::rules;
use super::wire::{self, References};
use crate::program::{Unkeyable, WireWriter};

/// When an expression is evaluated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Timing {
    /// Before the function starts; it needs no `Emit`.
    Static,
    /// Whenever its operands are there.
    Pure,
    /// Where its `Emit` stands.
    Anchored,
    /// By the statement that defines it.
    Defined,
}

/// Tells when an expression is evaluated.
pub(super) const fn timing(expression: &Expression) -> Timing {
    match *expression {
        Expression::Literal(_)
        | Expression::Constant(_)
        | Expression::Override(_)
        | Expression::ZeroValue(_)
        | Expression::FunctionArgument(_)
        | Expression::GlobalVariable(_)
        | Expression::LocalVariable(_) => Timing::Static,
        // The size of an image and the length of an array do not change while a shader runs.
        Expression::Compose {
            ty: _,
            components: _,
        }
        | Expression::Access { base: _, index: _ }
        | Expression::AccessIndex { base: _, index: _ }
        | Expression::Splat { size: _, value: _ }
        | Expression::Swizzle {
            size: _,
            vector: _,
            pattern: _,
        }
        | Expression::ImageQuery { image: _, query: _ }
        | Expression::Unary { op: _, expr: _ }
        | Expression::Binary {
            op: _,
            left: _,
            right: _,
        }
        | Expression::Select {
            condition: _,
            accept: _,
            reject: _,
        }
        | Expression::Relational {
            fun: _,
            argument: _,
        }
        | Expression::Math {
            fun: _,
            arg: _,
            arg1: _,
            arg2: _,
            arg3: _,
        }
        | Expression::As {
            expr: _,
            kind: _,
            convert: _,
        }
        | Expression::ArrayLength(_) => Timing::Pure,
        Expression::Load { pointer: _ }
        | Expression::ImageSample {
            image: _,
            sampler: _,
            gather: _,
            coordinate: _,
            array_index: _,
            offset: _,
            level: _,
            depth_ref: _,
            clamp_to_edge: _,
        }
        | Expression::ImageLoad {
            image: _,
            coordinate: _,
            array_index: _,
            sample: _,
            level: _,
        }
        | Expression::Derivative {
            axis: _,
            ctrl: _,
            expr: _,
        }
        | Expression::RayQueryVertexPositions {
            query: _,
            committed: _,
        }
        | Expression::RayQueryGetIntersection {
            query: _,
            committed: _,
        }
        | Expression::CooperativeLoad {
            columns: _,
            rows: _,
            role: _,
            data: _,
        }
        | Expression::CooperativeMultiplyAdd { a: _, b: _, c: _ } => Timing::Anchored,
        Expression::CallResult(_)
        | Expression::AtomicResult {
            ty: _,
            comparison: _,
        }
        | Expression::WorkGroupUniformLoadResult { ty: _ }
        | Expression::RayQueryProceedResult
        | Expression::SubgroupBallotResult
        | Expression::SubgroupOperationResult { ty: _ } => Timing::Defined,
    }
}

/// Whether each evaluation is a value of its own.
pub(super) fn is_anchored(expression: &Expression) -> bool {
    match timing(expression) {
        Timing::Static | Timing::Pure => false,
        Timing::Anchored | Timing::Defined => true,
    }
}

/// The values of a function.
pub(super) struct Values<'f> {
    /// One expression a value, operands first. Operands are handles of this arena; all other
    /// handles are the source module's.
    pub(super) arena: Arena<Expression>,
    digests: Vec<Digest>,
    interned: HashMap<Digest, Handle<Expression>>,
    /// The type that naga knows each value to have, where the source tells.
    types: HashMap<Handle<Expression>, Handle<Type>>,
    /// The value of each expression of the source; none where nothing needs it.
    of_source: Vec<Option<Handle<Expression>>>,
    context: Context<'f>,
}

/// What values are made from.
#[derive(Clone, Copy)]
pub(super) struct Context<'f> {
    pub(super) module: &'f Module,
    pub(super) digests: &'f Digests<'f>,
    pub(super) function: &'f Function,
    pub(super) info: &'f FunctionInfo,
}

impl<'f> Values<'f> {
    /// Reads a function of a validated module.
    pub(super) fn new(context: Context<'f>) -> Rebased<Self> {
        let mut walk = Walk::default();
        walk.block(&context.function.body)?;
        let live = live(&context, &walk)?;
        let mut anchors = HashMap::new();
        for handle in walk.order {
            if live[handle.index()] && is_anchored(&context.function.expressions[handle]) {
                let next = anchors.len() as u64;
                anchors.entry(handle).or_insert(next);
            }
        }
        let mut values = Self {
            arena: Arena::new(),
            digests: Vec::new(),
            interned: HashMap::new(),
            types: HashMap::new(),
            of_source: vec![None; context.function.expressions.len()],
            context,
        };
        for (handle, expression) in context.function.expressions.iter() {
            if live[handle.index()] {
                let value = values.add(handle, expression, &anchors)?;
                values.of_source[handle.index()] = Some(value);
                if let TypeResolution::Handle(ty) = context.info[handle].ty {
                    values.types.entry(value).or_insert(ty);
                }
            }
        }
        Ok(values)
    }

    /// The value of a source expression, if anything needs it.
    pub(super) fn of(&self, source: Handle<Expression>) -> Option<Handle<Expression>> {
        self.of_source[source.index()]
    }

    /// The values that a value is computed from, in order.
    pub(super) fn operands(&self, value: Handle<Expression>) -> Vec<Handle<Expression>> {
        operands(&self.arena[value])
    }

    /// The type of a value, if it is one that back ends look up by its role.
    pub(super) fn special_type(
        &self,
        value: Handle<Expression>,
        module: &ModuleBuilder<'_>,
    ) -> Option<Handle<Type>> {
        let ty = self.types.get(&value).copied();
        ty.filter(|ty| module.is_special(*ty))
    }

    fn add(
        &mut self,
        source: Handle<Expression>,
        expression: &Expression,
        anchors: &HashMap<Handle<Expression>, u64>,
    ) -> Rebased<Handle<Expression>> {
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = self.inlined(constant) {
                return self.constant_value(init);
            }
        }
        let of_source = &self.of_source;
        let copy = rebase::expression(
            &mut Operands(|operand: Handle<Expression>| {
                of_source[operand.index()]
                    .ok_or_else(|| Unkeyable::new("an expression uses one that follows it"))
            }),
            expression,
        )?;
        match timing(&copy) {
            Timing::Static | Timing::Pure => {
                let sortable = self.is_sortable(expression);
                let copy = rules::normalize(copy, sortable, |value| self.digests[value.index()]);
                self.intern(copy)
            }
            Timing::Anchored | Timing::Defined => {
                // An anchor is known by its turn among the anchors of the function.
                let turn = anchors.get(&source).copied();
                let digest = digest_of(|wire| wire.option(turn, WireWriter::u64));
                Ok(self.append(copy, digest))
            }
        }
    }

    /// Whether the operands may change places, as far as their types tell.
    fn is_sortable(&self, expression: &Expression) -> bool {
        let Expression::Binary { op: _, left, right } = *expression else {
            return false;
        };
        let inner = |handle: Handle<Expression>| self.context.info[handle].ty.inner_with(&self.context.module.types);
        inner(left) == inner(right) && rules::is_exact(inner(left))
    }

    /// The value of a constant that is written out where it is used. Tables stay constants.
    fn inlined(&self, constant: Handle<Constant>) -> Option<Handle<Expression>> {
        let constant = &self.context.module.constants[constant];
        let is_table = matches!(
            self.context.module.types[constant.ty].inner,
            TypeInner::Array {
                base: _,
                size: _,
                stride: _
            } | TypeInner::Struct {
                members: _,
                span: _
            }
        );
        (!is_table).then_some(constant.init)
    }

    /// The value of a constant expression of the module. Recursion is as deep as these nest, which
    /// the module's digests bound.
    fn constant_value(&mut self, source: Handle<Expression>) -> Rebased<Handle<Expression>> {
        let expression = &self.context.module.global_expressions[source];
        if let Expression::Constant(constant) = *expression {
            if let Some(init) = self.inlined(constant) {
                return self.constant_value(init);
            }
        }
        let copy = rebase::expression(
            &mut Operands(|operand: Handle<Expression>| self.constant_value(operand)),
            expression,
        )?;
        self.intern(copy)
    }

    fn intern(&mut self, expression: Expression) -> Rebased<Handle<Expression>> {
        let digest = digest_of(|wire| wire::expression(wire, self, &expression));
        self.context.digests.complete()?;
        if let Some(value) = self.interned.get(&digest) {
            return Ok(*value);
        }
        let value = self.append(expression, digest);
        self.interned.insert(digest, value);
        Ok(value)
    }

    fn append(&mut self, expression: Expression, digest: Digest) -> Handle<Expression> {
        self.digests.push(digest);
        self.arena.append(expression, Span::UNDEFINED)
    }
}

/// What the statements of a function ask for.
#[derive(Default)]
struct Walk {
    /// Operands of statements.
    roots: Vec<Handle<Expression>>,
    /// Anchored and defined expressions in the order in which the body names them.
    order: Vec<Handle<Expression>>,
    /// All expressions that some `Emit` names.
    emitted: HashSet<Handle<Expression>>,
}

impl Walk {
    /// Recursion is as deep as blocks nest, which is bounded before this.
    fn block(&mut self, block: &Block) -> Rebased<()> {
        for statement in block {
            match shape(statement) {
                Shape::Emit(range) => {
                    self.order.extend(range.clone());
                    self.emitted.extend(range.clone());
                }
                Shape::Block(inner) => self.block(inner)?,
                Shape::If {
                    condition,
                    accept,
                    reject,
                } => {
                    self.roots.push(condition);
                    self.block(accept)?;
                    self.block(reject)?;
                }
                Shape::Switch { selector, cases } => {
                    self.roots.push(selector);
                    for case in cases {
                        self.block(&case.body)?;
                    }
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if,
                } => {
                    self.block(body)?;
                    self.block(continuing)?;
                    self.roots.extend(break_if);
                }
                Shape::Leaf(leaf) => {
                    let (uses, defines) = leaf.uses_and_definitions()?;
                    self.roots.extend(uses);
                    self.order.extend(defines);
                }
            }
        }
        Ok(())
    }
}

/// Which expressions are needed: by a statement, or because they are evaluated where someone can
/// tell.
fn live(context: &Context<'_>, walk: &Walk) -> Rebased<Vec<bool>> {
    let expressions = &context.function.expressions;
    let mut live = vec![false; expressions.len()];
    for root in &walk.roots {
        live[root.index()] = true;
    }
    for handle in &walk.order {
        live[handle.index()] |= match timing(&expressions[*handle]) {
            Timing::Static | Timing::Pure => false,
            Timing::Anchored => is_kept(context, *handle),
            Timing::Defined => true,
        };
    }
    let mut locals = Vec::new();
    spread(expressions, &mut live, &mut locals);
    // The initial values of locals are constant, so that they need no further locals.
    for local in locals {
        if let Some(init) = context.function.local_variables[local].init {
            live[init.index()] = true;
        }
    }
    spread(expressions, &mut live, &mut Vec::new());
    let stray = |(handle, expression): (Handle<Expression>, &Expression)| {
        live[handle.index()]
            && timing(expression) == Timing::Anchored
            && !walk.emitted.contains(&handle)
    };
    if expressions.iter().any(stray) {
        return Err(Unkeyable::new("an expression is used and never evaluated"));
    }
    Ok(live)
}

/// Marks all that the marked expressions are computed from.
fn spread(
    expressions: &Arena<Expression>,
    live: &mut [bool],
    locals: &mut Vec<Handle<LocalVariable>>,
) {
    for (handle, expression) in expressions.iter().rev() {
        if live[handle.index()] {
            for operand in operands(expression) {
                live[operand.index()] = true;
            }
            if let Expression::LocalVariable(local) = *expression {
                locals.push(local);
            }
        }
    }
}

/// Whether an evaluation that nobody uses is kept.
///
/// A load from memory that only the shader sees is not, nor is a derivative. All else either names
/// a resource, which is part of the interface of the pipeline, or is not worth a rule.
fn is_kept(context: &Context<'_>, handle: Handle<Expression>) -> bool {
    let expression = &context.function.expressions[handle];
    if let Expression::Load { pointer } = *expression {
        let pointer = context.info[pointer].ty.inner_with(&context.module.types);
        return pointer.pointer_space().is_none_or(is_interface);
    }
    !matches!(
        expression,
        Expression::Derivative {
            axis: _,
            ctrl: _,
            expr: _,
        }
    )
}

impl References for Values<'_> {
    fn ty(&self, wire: &mut WireWriter, handle: Handle<Type>) {
        wire.bytes(&self.context.digests.ty(handle));
    }

    fn expression(&self, wire: &mut WireWriter, handle: Handle<Expression>) {
        wire.bytes(&self.digests[handle.index()]);
    }

    fn constant(&self, wire: &mut WireWriter, handle: Handle<Constant>) {
        wire.bytes(&self.context.digests.constant(handle));
    }

    fn override_(&self, wire: &mut WireWriter, handle: Handle<Override>) {
        wire.bytes(&self.context.digests.override_(handle));
    }

    fn global(&self, wire: &mut WireWriter, handle: Handle<GlobalVariable>) {
        wire.bytes(&self.context.digests.global(handle));
    }

    /// By index: locals differ by nothing else. No operand that is sorted holds one.
    fn local(&self, wire: &mut WireWriter, handle: Handle<LocalVariable>) {
        wire.u64(handle.index() as u64);
    }

    /// Only results of calls name a function, and these are anchored.
    fn function(&self, wire: &mut WireWriter, handle: Handle<Function>) {
        wire.u64(handle.index() as u64);
    }
}
