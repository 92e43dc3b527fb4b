//! One construct copied from one module to another, with every reference translated.
//!
//! Each pattern names all variants and all fields, so that a new one upstream fails to compile
//! here instead of being carried over with a stale reference.

use naga::{
    AtomicFunction, Block, Constant, CooperativeData, Expression, Function, GatherMode,
    GlobalVariable, Handle, ImageQuery, LocalVariable, Override, Range, RayPipelineFunction,
    RayQueryFunction, SampleLevel, Statement, SwitchCase, Type,
};

use crate::program::Unkeyable;

/// The result of a translation.
pub(super) type Rebased<T> = Result<T, Unkeyable>;

/// Where the references of a construct go.
///
/// Operands are asked for in the order in which the construct lists them, and what a statement
/// defines after all that it uses.
pub(super) trait Rebase {
    fn operand(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>>;
    fn definition(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>>;
    fn ty(&mut self, handle: Handle<Type>) -> Rebased<Handle<Type>>;
    fn constant(&mut self, handle: Handle<Constant>) -> Rebased<Handle<Constant>>;
    fn override_(&mut self, handle: Handle<Override>) -> Rebased<Handle<Override>>;
    fn global(&mut self, handle: Handle<GlobalVariable>) -> Rebased<Handle<GlobalVariable>>;
    fn local(&mut self, handle: Handle<LocalVariable>) -> Rebased<Handle<LocalVariable>>;
    fn function(&mut self, handle: Handle<Function>) -> Rebased<Handle<Function>>;

    fn optional(
        &mut self,
        handle: Option<Handle<Expression>>,
    ) -> Rebased<Option<Handle<Expression>>> {
        handle.map(|handle| self.operand(handle)).transpose()
    }
}

type Handles = Vec<Handle<Expression>>;

/// Everything that is no expression keeps its handle.
macro_rules! keep_items {
    () => {
        keep_items! {
            ty: Type,
            constant: Constant,
            override_: Override,
            global: GlobalVariable,
            local: LocalVariable,
            function: Function,
        }
    };
    ($($name:ident: $type:ident,)+) => {
        $(fn $name(&mut self, handle: Handle<$type>) -> Rebased<Handle<$type>> {
            Ok(handle)
        })+
    };
}

/// Translates operands alone.
pub(super) struct Operands<F>(pub(super) F);

impl<F> Rebase for Operands<F>
where
    F: FnMut(Handle<Expression>) -> Rebased<Handle<Expression>>,
{
    fn operand(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        (self.0)(handle)
    }

    fn definition(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        Ok(handle)
    }

    keep_items!();
}

/// Translates nothing, and lists the expressions that it sees.
#[derive(Default)]
struct Listing {
    uses: Handles,
    definitions: Handles,
}

impl Rebase for Listing {
    fn operand(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        self.uses.push(handle);
        Ok(handle)
    }

    fn definition(&mut self, handle: Handle<Expression>) -> Rebased<Handle<Expression>> {
        self.definitions.push(handle);
        Ok(handle)
    }

    keep_items!();
}

/// The operands of an expression, in order.
pub(super) fn operands(source: &Expression) -> Handles {
    let mut listing = Listing::default();
    // A listing refuses no handle.
    let _ = expression(&mut listing, source);
    listing.uses
}

/// Copies an expression.
pub(super) fn expression(to: &mut impl Rebase, source: &Expression) -> Rebased<Expression> {
    Ok(match *source {
        Expression::Literal(value) => Expression::Literal(value),
        Expression::Constant(handle) => Expression::Constant(to.constant(handle)?),
        Expression::Override(handle) => Expression::Override(to.override_(handle)?),
        Expression::ZeroValue(ty) => Expression::ZeroValue(to.ty(ty)?),
        Expression::Compose { ty, ref components } => Expression::Compose {
            ty: to.ty(ty)?,
            components: components
                .iter()
                .map(|part| to.operand(*part))
                .collect::<Rebased<_>>()?,
        },
        Expression::Access { base, index } => Expression::Access {
            base: to.operand(base)?,
            index: to.operand(index)?,
        },
        Expression::AccessIndex { base, index } => Expression::AccessIndex {
            base: to.operand(base)?,
            index,
        },
        Expression::Splat { size, value } => Expression::Splat {
            size,
            value: to.operand(value)?,
        },
        Expression::Swizzle {
            size,
            vector,
            pattern,
        } => Expression::Swizzle {
            size,
            vector: to.operand(vector)?,
            pattern,
        },
        Expression::FunctionArgument(position) => Expression::FunctionArgument(position),
        Expression::GlobalVariable(handle) => Expression::GlobalVariable(to.global(handle)?),
        Expression::LocalVariable(handle) => Expression::LocalVariable(to.local(handle)?),
        Expression::Load { pointer } => Expression::Load {
            pointer: to.operand(pointer)?,
        },
        Expression::ImageSample {
            image,
            sampler,
            gather,
            coordinate,
            array_index,
            offset,
            level,
            depth_ref,
            clamp_to_edge,
        } => Expression::ImageSample {
            image: to.operand(image)?,
            sampler: to.operand(sampler)?,
            gather,
            coordinate: to.operand(coordinate)?,
            array_index: to.optional(array_index)?,
            offset: to.optional(offset)?,
            level: sample_level(to, level)?,
            depth_ref: to.optional(depth_ref)?,
            clamp_to_edge,
        },
        Expression::ImageLoad {
            image,
            coordinate,
            array_index,
            sample,
            level,
        } => Expression::ImageLoad {
            image: to.operand(image)?,
            coordinate: to.operand(coordinate)?,
            array_index: to.optional(array_index)?,
            sample: to.optional(sample)?,
            level: to.optional(level)?,
        },
        Expression::ImageQuery { image, query } => Expression::ImageQuery {
            image: to.operand(image)?,
            query: image_query(to, query)?,
        },
        Expression::Unary { op, expr } => Expression::Unary {
            op,
            expr: to.operand(expr)?,
        },
        Expression::Binary { op, left, right } => Expression::Binary {
            op,
            left: to.operand(left)?,
            right: to.operand(right)?,
        },
        Expression::Select {
            condition,
            accept,
            reject,
        } => Expression::Select {
            condition: to.operand(condition)?,
            accept: to.operand(accept)?,
            reject: to.operand(reject)?,
        },
        Expression::Derivative { axis, ctrl, expr } => Expression::Derivative {
            axis,
            ctrl,
            expr: to.operand(expr)?,
        },
        Expression::Relational { fun, argument } => Expression::Relational {
            fun,
            argument: to.operand(argument)?,
        },
        Expression::Math {
            fun,
            arg,
            arg1,
            arg2,
            arg3,
        } => Expression::Math {
            fun,
            arg: to.operand(arg)?,
            arg1: to.optional(arg1)?,
            arg2: to.optional(arg2)?,
            arg3: to.optional(arg3)?,
        },
        Expression::As {
            expr,
            kind,
            convert,
        } => Expression::As {
            expr: to.operand(expr)?,
            kind,
            convert,
        },
        Expression::CallResult(handle) => Expression::CallResult(to.function(handle)?),
        Expression::AtomicResult { ty, comparison } => Expression::AtomicResult {
            ty: to.ty(ty)?,
            comparison,
        },
        Expression::WorkGroupUniformLoadResult { ty } => {
            Expression::WorkGroupUniformLoadResult { ty: to.ty(ty)? }
        }
        Expression::ArrayLength(array) => Expression::ArrayLength(to.operand(array)?),
        Expression::RayQueryVertexPositions { query, committed } => {
            Expression::RayQueryVertexPositions {
                query: to.operand(query)?,
                committed,
            }
        }
        Expression::RayQueryProceedResult => Expression::RayQueryProceedResult,
        Expression::RayQueryGetIntersection { query, committed } => {
            Expression::RayQueryGetIntersection {
                query: to.operand(query)?,
                committed,
            }
        }
        Expression::SubgroupBallotResult => Expression::SubgroupBallotResult,
        Expression::SubgroupOperationResult { ty } => {
            Expression::SubgroupOperationResult { ty: to.ty(ty)? }
        }
        Expression::CooperativeLoad {
            columns,
            rows,
            role,
            data,
        } => Expression::CooperativeLoad {
            columns,
            rows,
            role,
            data: cooperative_data(to, data)?,
        },
        Expression::CooperativeMultiplyAdd { a, b, c } => Expression::CooperativeMultiplyAdd {
            a: to.operand(a)?,
            b: to.operand(b)?,
            c: to.operand(c)?,
        },
    })
}

fn sample_level(to: &mut impl Rebase, level: SampleLevel) -> Rebased<SampleLevel> {
    Ok(match level {
        SampleLevel::Auto => SampleLevel::Auto,
        SampleLevel::Zero => SampleLevel::Zero,
        SampleLevel::Exact(level) => SampleLevel::Exact(to.operand(level)?),
        SampleLevel::Bias(bias) => SampleLevel::Bias(to.operand(bias)?),
        SampleLevel::Gradient { x, y } => SampleLevel::Gradient {
            x: to.operand(x)?,
            y: to.operand(y)?,
        },
    })
}

fn image_query(to: &mut impl Rebase, query: ImageQuery) -> Rebased<ImageQuery> {
    Ok(match query {
        ImageQuery::Size { level } => ImageQuery::Size {
            level: to.optional(level)?,
        },
        ImageQuery::NumLevels => ImageQuery::NumLevels,
        ImageQuery::NumLayers => ImageQuery::NumLayers,
        ImageQuery::NumSamples => ImageQuery::NumSamples,
    })
}

fn cooperative_data(to: &mut impl Rebase, data: CooperativeData) -> Rebased<CooperativeData> {
    let CooperativeData {
        pointer,
        stride,
        row_major,
    } = data;
    Ok(CooperativeData {
        pointer: to.operand(pointer)?,
        stride: to.operand(stride)?,
        row_major,
    })
}

/// A statement by what holds it together: what it nests, or that it nests nothing.
pub(super) enum Shape<'a> {
    Emit(&'a Range<Expression>),
    Block(&'a Block),
    If {
        condition: Handle<Expression>,
        accept: &'a Block,
        reject: &'a Block,
    },
    Switch {
        selector: Handle<Expression>,
        cases: &'a [SwitchCase],
    },
    Loop {
        body: &'a Block,
        continuing: &'a Block,
        break_if: Option<Handle<Expression>>,
    },
    /// A statement that [`Leaf::rebase`] copies.
    Leaf(Leaf<'a>),
}

/// A statement that nests no other.
pub(super) struct Leaf<'a>(&'a Statement);

/// Tells what a statement nests.
pub(super) fn shape(statement: &Statement) -> Shape<'_> {
    match *statement {
        Statement::Emit(ref range) => Shape::Emit(range),
        Statement::Block(ref block) => Shape::Block(block),
        Statement::If {
            condition,
            ref accept,
            ref reject,
        } => Shape::If {
            condition,
            accept,
            reject,
        },
        Statement::Switch {
            selector,
            ref cases,
        } => Shape::Switch { selector, cases },
        Statement::Loop {
            ref body,
            ref continuing,
            break_if,
        } => Shape::Loop {
            body,
            continuing,
            break_if,
        },
        Statement::Break
        | Statement::Continue
        | Statement::Return { value: _ }
        | Statement::Kill
        | Statement::ControlBarrier(_)
        | Statement::MemoryBarrier(_)
        | Statement::Store {
            pointer: _,
            value: _,
        }
        | Statement::ImageStore {
            image: _,
            coordinate: _,
            array_index: _,
            value: _,
        }
        | Statement::Atomic {
            pointer: _,
            fun: _,
            value: _,
            result: _,
        }
        | Statement::ImageAtomic {
            image: _,
            coordinate: _,
            array_index: _,
            fun: _,
            value: _,
        }
        | Statement::WorkGroupUniformLoad {
            pointer: _,
            result: _,
        }
        | Statement::Call {
            function: _,
            arguments: _,
            result: _,
        }
        | Statement::RayQuery { query: _, fun: _ }
        | Statement::RayPipelineFunction(_)
        | Statement::SubgroupBallot {
            result: _,
            predicate: _,
        }
        | Statement::SubgroupGather {
            mode: _,
            argument: _,
            result: _,
        }
        | Statement::SubgroupCollectiveOperation {
            op: _,
            collective_op: _,
            argument: _,
            result: _,
        }
        | Statement::CooperativeStore { target: _, data: _ } => Shape::Leaf(Leaf(statement)),
    }
}

impl Leaf<'_> {
    /// The function this statement calls.
    pub(super) const fn callee(&self) -> Option<Handle<Function>> {
        if let Statement::Call {
            function,
            arguments: _,
            result: _,
        } = *self.0
        {
            Some(function)
        } else {
            None
        }
    }

    /// The operands of the statement, in order, and the expressions it defines.
    pub(super) fn uses_and_definitions(&self) -> Rebased<(Handles, Handles)> {
        let mut listing = Listing::default();
        self.rebase(&mut listing)?;
        Ok((listing.uses, listing.definitions))
    }

    /// Copies the statement.
    pub(super) fn rebase(&self, to: &mut impl Rebase) -> Rebased<Statement> {
        Ok(match *self.0 {
            Statement::Emit(_)
            | Statement::Block(_)
            | Statement::If {
                condition: _,
                accept: _,
                reject: _,
            }
            | Statement::Switch {
                selector: _,
                cases: _,
            }
            | Statement::Loop {
                body: _,
                continuing: _,
                break_if: _,
            } => return Err(Unkeyable::new("a statement that nests others is no leaf")),
            Statement::Break => Statement::Break,
            Statement::Continue => Statement::Continue,
            Statement::Return { value } => Statement::Return {
                value: to.optional(value)?,
            },
            Statement::Kill => Statement::Kill,
            Statement::ControlBarrier(barrier) => Statement::ControlBarrier(barrier),
            Statement::MemoryBarrier(barrier) => Statement::MemoryBarrier(barrier),
            Statement::Store { pointer, value } => Statement::Store {
                pointer: to.operand(pointer)?,
                value: to.operand(value)?,
            },
            Statement::ImageStore {
                image,
                coordinate,
                array_index,
                value,
            } => Statement::ImageStore {
                image: to.operand(image)?,
                coordinate: to.operand(coordinate)?,
                array_index: to.optional(array_index)?,
                value: to.operand(value)?,
            },
            Statement::Atomic {
                pointer,
                fun,
                value,
                result,
            } => Statement::Atomic {
                pointer: to.operand(pointer)?,
                fun: atomic_function(to, fun)?,
                value: to.operand(value)?,
                result: defined(to, result)?,
            },
            Statement::ImageAtomic {
                image,
                coordinate,
                array_index,
                fun,
                value,
            } => Statement::ImageAtomic {
                image: to.operand(image)?,
                coordinate: to.operand(coordinate)?,
                array_index: to.optional(array_index)?,
                fun: atomic_function(to, fun)?,
                value: to.operand(value)?,
            },
            Statement::WorkGroupUniformLoad { pointer, result } => {
                Statement::WorkGroupUniformLoad {
                    pointer: to.operand(pointer)?,
                    result: to.definition(result)?,
                }
            }
            Statement::Call {
                function,
                ref arguments,
                result,
            } => Statement::Call {
                function: to.function(function)?,
                arguments: arguments
                    .iter()
                    .map(|argument| to.operand(*argument))
                    .collect::<Rebased<_>>()?,
                result: defined(to, result)?,
            },
            Statement::RayQuery { query, ref fun } => Statement::RayQuery {
                query: to.operand(query)?,
                fun: ray_query(to, fun)?,
            },
            Statement::RayPipelineFunction(RayPipelineFunction::TraceRay {
                acceleration_structure,
                descriptor,
                payload,
            }) => Statement::RayPipelineFunction(RayPipelineFunction::TraceRay {
                acceleration_structure: to.operand(acceleration_structure)?,
                descriptor: to.operand(descriptor)?,
                payload: to.operand(payload)?,
            }),
            Statement::SubgroupBallot { result, predicate } => {
                let predicate = to.optional(predicate)?;
                Statement::SubgroupBallot {
                    result: to.definition(result)?,
                    predicate,
                }
            }
            Statement::SubgroupGather {
                mode,
                argument,
                result,
            } => Statement::SubgroupGather {
                mode: gather_mode(to, mode)?,
                argument: to.operand(argument)?,
                result: to.definition(result)?,
            },
            Statement::SubgroupCollectiveOperation {
                op,
                collective_op,
                argument,
                result,
            } => Statement::SubgroupCollectiveOperation {
                op,
                collective_op,
                argument: to.operand(argument)?,
                result: to.definition(result)?,
            },
            Statement::CooperativeStore { target, data } => Statement::CooperativeStore {
                target: to.operand(target)?,
                data: cooperative_data(to, data)?,
            },
        })
    }
}

fn defined(
    to: &mut impl Rebase,
    result: Option<Handle<Expression>>,
) -> Rebased<Option<Handle<Expression>>> {
    result.map(|result| to.definition(result)).transpose()
}

fn atomic_function(to: &mut impl Rebase, function: AtomicFunction) -> Rebased<AtomicFunction> {
    Ok(match function {
        AtomicFunction::Add => AtomicFunction::Add,
        AtomicFunction::Subtract => AtomicFunction::Subtract,
        AtomicFunction::And => AtomicFunction::And,
        AtomicFunction::ExclusiveOr => AtomicFunction::ExclusiveOr,
        AtomicFunction::InclusiveOr => AtomicFunction::InclusiveOr,
        AtomicFunction::Min => AtomicFunction::Min,
        AtomicFunction::Max => AtomicFunction::Max,
        AtomicFunction::Exchange { compare } => AtomicFunction::Exchange {
            compare: to.optional(compare)?,
        },
    })
}

fn ray_query(to: &mut impl Rebase, function: &RayQueryFunction) -> Rebased<RayQueryFunction> {
    Ok(match *function {
        RayQueryFunction::Initialize {
            acceleration_structure,
            descriptor,
        } => RayQueryFunction::Initialize {
            acceleration_structure: to.operand(acceleration_structure)?,
            descriptor: to.operand(descriptor)?,
        },
        RayQueryFunction::Proceed { result } => RayQueryFunction::Proceed {
            result: to.definition(result)?,
        },
        RayQueryFunction::GenerateIntersection { hit_t } => {
            RayQueryFunction::GenerateIntersection {
                hit_t: to.operand(hit_t)?,
            }
        }
        RayQueryFunction::ConfirmIntersection => RayQueryFunction::ConfirmIntersection,
        RayQueryFunction::Terminate => RayQueryFunction::Terminate,
    })
}

fn gather_mode(to: &mut impl Rebase, mode: GatherMode) -> Rebased<GatherMode> {
    Ok(match mode {
        GatherMode::BroadcastFirst => GatherMode::BroadcastFirst,
        GatherMode::Broadcast(lane) => GatherMode::Broadcast(to.operand(lane)?),
        GatherMode::Shuffle(lane) => GatherMode::Shuffle(to.operand(lane)?),
        GatherMode::ShuffleDown(delta) => GatherMode::ShuffleDown(to.operand(delta)?),
        GatherMode::ShuffleUp(delta) => GatherMode::ShuffleUp(to.operand(delta)?),
        GatherMode::ShuffleXor(mask) => GatherMode::ShuffleXor(to.operand(mask)?),
        GatherMode::QuadBroadcast(lane) => GatherMode::QuadBroadcast(to.operand(lane)?),
        GatherMode::QuadSwap(direction) => GatherMode::QuadSwap(direction),
    })
}
