//! Statements: what they nest, and a copy of those that nest nothing.

use naga::{
    AtomicFunction, Block, Expression, Function, GatherMode, Handle, Range, RayPipelineFunction,
    RayQueryFunction, Statement, SwitchCase,
};

use super::expression::cooperative_data;
use super::refusal::{Rebased, Refusal};
use super::target::Rebase;

/// A statement by what holds it together: what it nests, or that it nests nothing.
pub(in super::super) enum Shape<'a> {
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
pub(in super::super) struct Leaf<'a>(&'a Statement);

/// Tells what a statement nests.
#[inline]
pub(in super::super) fn shape(statement: &Statement) -> Shape<'_> {
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
    /// Whether neighbours in control flow may part here: it ends an invocation or leaves a block.
    pub(in super::super) const fn leaves(&self) -> bool {
        matches!(
            self.0,
            Statement::Kill
                | Statement::Return { value: _ }
                | Statement::Break
                | Statement::Continue
        )
    }

    /// Whether it ends the invocation.
    pub(in super::super) const fn discards(&self) -> bool {
        matches!(self.0, Statement::Kill)
    }

    /// The function this statement calls.
    pub(in super::super) const fn callee(&self) -> Option<Handle<Function>> {
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

    /// Copies the statement.
    pub(in super::super) fn rebase(&self, to: &mut impl Rebase) -> Rebased<Statement> {
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
            } => return Err(Refusal("a statement that nests others is no leaf")),
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
