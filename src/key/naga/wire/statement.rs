//! Statements on the wire.
//!
//! Recursion is as deep as blocks nest, which the canonical form bounds.

use naga::{
    AtomicFunction, Block, Expression, GatherMode, Handle, RayPipelineFunction, RayQueryFunction,
    Statement, SwitchCase, SwitchValue,
};

use super::expression::cooperative_data;
use super::{Indices, index, tags};
use crate::key::WireWriter;

pub(super) fn block(wire: &mut WireWriter, block: &Block) {
    wire.seq(block, statement);
}

fn statement(wire: &mut WireWriter, statement: &Statement) {
    match statement {
        Statement::Emit(range) => {
            wire.tag(0);
            wire.option(range.first_and_last(), |wire, (first, last)| {
                index(wire, first);
                index(wire, last);
            });
        }
        Statement::Block(inner) => {
            wire.tag(1);
            block(wire, inner);
        }
        Statement::If {
            condition,
            accept,
            reject,
        } => {
            wire.tag(2);
            index(wire, *condition);
            block(wire, accept);
            block(wire, reject);
        }
        Statement::Switch { selector, cases } => {
            wire.tag(3);
            index(wire, *selector);
            wire.seq(cases, switch_case);
        }
        Statement::Loop {
            body,
            continuing,
            break_if,
        } => {
            wire.tag(4);
            block(wire, body);
            block(wire, continuing);
            wire.option(*break_if, index);
        }
        Statement::Break => wire.tag(5),
        Statement::Continue => wire.tag(6),
        Statement::Return { value } => {
            wire.tag(7);
            wire.option(*value, index);
        }
        Statement::Kill => wire.tag(8),
        Statement::ControlBarrier(barrier) => {
            wire.tag(9);
            wire.u32(barrier.bits());
        }
        Statement::MemoryBarrier(barrier) => {
            wire.tag(10);
            wire.u32(barrier.bits());
        }
        Statement::Store { pointer, value } => {
            wire.tag(11);
            index(wire, *pointer);
            index(wire, *value);
        }
        Statement::ImageStore {
            image,
            coordinate,
            array_index,
            value,
        } => {
            wire.tag(12);
            index(wire, *image);
            index(wire, *coordinate);
            wire.option(*array_index, index);
            index(wire, *value);
        }
        Statement::Atomic {
            pointer,
            fun,
            value,
            result,
        } => {
            wire.tag(13);
            index(wire, *pointer);
            atomic_function(wire, *fun);
            index(wire, *value);
            wire.option(*result, index);
        }
        Statement::ImageAtomic {
            image,
            coordinate,
            array_index,
            fun,
            value,
        } => {
            wire.tag(14);
            index(wire, *image);
            index(wire, *coordinate);
            wire.option(*array_index, index);
            atomic_function(wire, *fun);
            index(wire, *value);
        }
        Statement::WorkGroupUniformLoad { pointer, result } => {
            wire.tag(15);
            index(wire, *pointer);
            index(wire, *result);
        }
        Statement::Call {
            function,
            arguments,
            result,
        } => {
            wire.tag(16);
            index(wire, *function);
            wire.seq(arguments, |wire, argument| index(wire, *argument));
            wire.option(*result, index);
        }
        Statement::RayQuery { query, fun } => {
            wire.tag(17);
            index(wire, *query);
            ray_query(wire, fun);
        }
        Statement::RayPipelineFunction(RayPipelineFunction::TraceRay {
            acceleration_structure,
            descriptor,
            payload,
        }) => {
            wire.tag(18);
            index(wire, *acceleration_structure);
            index(wire, *descriptor);
            index(wire, *payload);
        }
        Statement::SubgroupBallot { result, predicate } => {
            wire.tag(19);
            index(wire, *result);
            wire.option(*predicate, index);
        }
        Statement::SubgroupGather {
            mode,
            argument,
            result,
        } => {
            wire.tag(20);
            gather_mode(wire, *mode);
            index(wire, *argument);
            index(wire, *result);
        }
        Statement::SubgroupCollectiveOperation {
            op,
            collective_op,
            argument,
            result,
        } => {
            wire.tag(21);
            tags::subgroup_operation(wire, *op);
            tags::collective_operation(wire, *collective_op);
            index(wire, *argument);
            index(wire, *result);
        }
        Statement::CooperativeStore { target, data } => {
            wire.tag(22);
            index(wire, *target);
            cooperative_data(wire, &mut Indices, data);
        }
    }
}

fn switch_case(wire: &mut WireWriter, case: &SwitchCase) {
    let SwitchCase {
        value,
        body,
        fall_through,
    } = case;
    match value {
        SwitchValue::I32(value) => {
            wire.tag(0);
            wire.i32(*value);
        }
        SwitchValue::U32(value) => {
            wire.tag(1);
            wire.u32(*value);
        }
        SwitchValue::Default => wire.tag(2),
    }
    block(wire, body);
    wire.bool(*fall_through);
}

fn atomic_function(wire: &mut WireWriter, function: AtomicFunction) {
    match function {
        AtomicFunction::Add => wire.tag(0),
        AtomicFunction::Subtract => wire.tag(1),
        AtomicFunction::And => wire.tag(2),
        AtomicFunction::ExclusiveOr => wire.tag(3),
        AtomicFunction::InclusiveOr => wire.tag(4),
        AtomicFunction::Min => wire.tag(5),
        AtomicFunction::Max => wire.tag(6),
        AtomicFunction::Exchange { compare } => {
            wire.tag(7);
            wire.option(compare, index);
        }
    }
}

fn ray_query(wire: &mut WireWriter, function: &RayQueryFunction) {
    match function {
        RayQueryFunction::Initialize {
            acceleration_structure,
            descriptor,
        } => {
            wire.tag(0);
            index(wire, *acceleration_structure);
            index(wire, *descriptor);
        }
        RayQueryFunction::Proceed { result } => {
            wire.tag(1);
            index(wire, *result);
        }
        RayQueryFunction::GenerateIntersection { hit_t } => {
            wire.tag(2);
            index(wire, *hit_t);
        }
        RayQueryFunction::ConfirmIntersection => wire.tag(3),
        RayQueryFunction::Terminate => wire.tag(4),
    }
}

fn gather_mode(wire: &mut WireWriter, mode: GatherMode) {
    let lane = |wire: &mut WireWriter, tag, lane: Handle<Expression>| {
        wire.tag(tag);
        index(wire, lane);
    };
    match mode {
        GatherMode::BroadcastFirst => wire.tag(0),
        GatherMode::Broadcast(index) => lane(wire, 1, index),
        GatherMode::Shuffle(index) => lane(wire, 2, index),
        GatherMode::ShuffleDown(delta) => lane(wire, 3, delta),
        GatherMode::ShuffleUp(delta) => lane(wire, 4, delta),
        GatherMode::ShuffleXor(mask) => lane(wire, 5, mask),
        GatherMode::QuadBroadcast(index) => lane(wire, 6, index),
        GatherMode::QuadSwap(direction) => {
            wire.tag(7);
            tags::direction(wire, direction);
        }
    }
}
