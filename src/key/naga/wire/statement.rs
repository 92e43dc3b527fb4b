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
            wire.u8(0);
            wire.option(range.first_and_last(), |wire, (first, last)| {
                index(wire, first);
                index(wire, last);
            });
        }
        Statement::Block(inner) => {
            wire.u8(1);
            block(wire, inner);
        }
        Statement::If {
            condition,
            accept,
            reject,
        } => {
            wire.u8(2);
            index(wire, *condition);
            block(wire, accept);
            block(wire, reject);
        }
        Statement::Switch { selector, cases } => {
            wire.u8(3);
            index(wire, *selector);
            wire.seq(cases, switch_case);
        }
        Statement::Loop {
            body,
            continuing,
            break_if,
        } => {
            wire.u8(4);
            block(wire, body);
            block(wire, continuing);
            wire.option(*break_if, index);
        }
        Statement::Break => wire.u8(5),
        Statement::Continue => wire.u8(6),
        Statement::Return { value } => {
            wire.u8(7);
            wire.option(*value, index);
        }
        Statement::Kill => wire.u8(8),
        Statement::ControlBarrier(barrier) => {
            wire.u8(9);
            wire.u32(barrier.bits());
        }
        Statement::MemoryBarrier(barrier) => {
            wire.u8(10);
            wire.u32(barrier.bits());
        }
        Statement::Store { pointer, value } => {
            wire.u8(11);
            index(wire, *pointer);
            index(wire, *value);
        }
        Statement::ImageStore {
            image,
            coordinate,
            array_index,
            value,
        } => {
            wire.u8(12);
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
            wire.u8(13);
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
            wire.u8(14);
            index(wire, *image);
            index(wire, *coordinate);
            wire.option(*array_index, index);
            atomic_function(wire, *fun);
            index(wire, *value);
        }
        Statement::WorkGroupUniformLoad { pointer, result } => {
            wire.u8(15);
            index(wire, *pointer);
            index(wire, *result);
        }
        Statement::Call {
            function,
            arguments,
            result,
        } => {
            wire.u8(16);
            index(wire, *function);
            wire.seq(arguments, |wire, argument| index(wire, *argument));
            wire.option(*result, index);
        }
        Statement::RayQuery { query, fun } => {
            wire.u8(17);
            index(wire, *query);
            ray_query(wire, fun);
        }
        Statement::RayPipelineFunction(RayPipelineFunction::TraceRay {
            acceleration_structure,
            descriptor,
            payload,
        }) => {
            wire.u8(18);
            index(wire, *acceleration_structure);
            index(wire, *descriptor);
            index(wire, *payload);
        }
        Statement::SubgroupBallot { result, predicate } => {
            wire.u8(19);
            index(wire, *result);
            wire.option(*predicate, index);
        }
        Statement::SubgroupGather {
            mode,
            argument,
            result,
        } => {
            wire.u8(20);
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
            wire.u8(21);
            tags::subgroup_operation(wire, *op);
            tags::collective_operation(wire, *collective_op);
            index(wire, *argument);
            index(wire, *result);
        }
        Statement::CooperativeStore { target, data } => {
            wire.u8(22);
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
            wire.u8(0);
            wire.i32(*value);
        }
        SwitchValue::U32(value) => {
            wire.u8(1);
            wire.u32(*value);
        }
        SwitchValue::Default => wire.u8(2),
    }
    block(wire, body);
    wire.bool(*fall_through);
}

fn atomic_function(wire: &mut WireWriter, function: AtomicFunction) {
    match function {
        AtomicFunction::Add => wire.u8(0),
        AtomicFunction::Subtract => wire.u8(1),
        AtomicFunction::And => wire.u8(2),
        AtomicFunction::ExclusiveOr => wire.u8(3),
        AtomicFunction::InclusiveOr => wire.u8(4),
        AtomicFunction::Min => wire.u8(5),
        AtomicFunction::Max => wire.u8(6),
        AtomicFunction::Exchange { compare } => {
            wire.u8(7);
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
            wire.u8(0);
            index(wire, *acceleration_structure);
            index(wire, *descriptor);
        }
        RayQueryFunction::Proceed { result } => {
            wire.u8(1);
            index(wire, *result);
        }
        RayQueryFunction::GenerateIntersection { hit_t } => {
            wire.u8(2);
            index(wire, *hit_t);
        }
        RayQueryFunction::ConfirmIntersection => wire.u8(3),
        RayQueryFunction::Terminate => wire.u8(4),
    }
}

fn gather_mode(wire: &mut WireWriter, mode: GatherMode) {
    let lane = |wire: &mut WireWriter, tag, lane: Handle<Expression>| {
        wire.u8(tag);
        index(wire, lane);
    };
    match mode {
        GatherMode::BroadcastFirst => wire.u8(0),
        GatherMode::Broadcast(index) => lane(wire, 1, index),
        GatherMode::Shuffle(index) => lane(wire, 2, index),
        GatherMode::ShuffleDown(delta) => lane(wire, 3, delta),
        GatherMode::ShuffleUp(delta) => lane(wire, 4, delta),
        GatherMode::ShuffleXor(mask) => lane(wire, 5, mask),
        GatherMode::QuadBroadcast(index) => lane(wire, 6, index),
        GatherMode::QuadSwap(direction) => {
            wire.u8(7);
            tags::direction(wire, direction);
        }
    }
}
