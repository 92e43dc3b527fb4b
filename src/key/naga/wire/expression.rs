//! Expressions on the wire.

use naga::{
    CooperativeData, Expression, ImageQuery, Literal, SampleLevel, SwizzleComponent, VectorSize,
};

use super::{References, tags};
use crate::key::WireWriter;

/// Writes an expression, with its operands as `to` writes references.
pub(in super::super) fn expression(
    wire: &mut WireWriter,
    to: &mut impl References,
    expression: &Expression,
) {
    match expression {
        Expression::Literal(value) => {
            wire.u8(0);
            literal(wire, *value);
        }
        Expression::Constant(handle) => {
            wire.u8(1);
            to.constant(wire, *handle);
        }
        Expression::Override(handle) => {
            wire.u8(2);
            to.override_(wire, *handle);
        }
        Expression::ZeroValue(ty) => {
            wire.u8(3);
            to.ty(wire, *ty);
        }
        Expression::Compose { ty, components } => {
            wire.u8(4);
            to.ty(wire, *ty);
            wire.seq(components, |wire, part| to.expression(wire, *part));
        }
        Expression::Access { base, index } => {
            wire.u8(5);
            to.expression(wire, *base);
            to.expression(wire, *index);
        }
        Expression::AccessIndex { base, index } => {
            wire.u8(6);
            to.expression(wire, *base);
            wire.u32(*index);
        }
        Expression::Splat { size, value } => {
            wire.u8(7);
            tags::vector_size(wire, *size);
            to.expression(wire, *value);
        }
        Expression::Swizzle {
            size,
            vector,
            pattern,
        } => {
            wire.u8(8);
            swizzle(wire, *size, *pattern);
            to.expression(wire, *vector);
        }
        Expression::FunctionArgument(position) => {
            wire.u8(9);
            wire.u32(*position);
        }
        Expression::GlobalVariable(handle) => {
            wire.u8(10);
            to.global(wire, *handle);
        }
        Expression::LocalVariable(handle) => {
            wire.u8(11);
            to.local(wire, *handle);
        }
        Expression::Load { pointer } => {
            wire.u8(12);
            to.expression(wire, *pointer);
        }
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
        } => {
            wire.u8(13);
            to.expression(wire, *image);
            to.expression(wire, *sampler);
            wire.option(*gather, tags::swizzle_component);
            to.expression(wire, *coordinate);
            wire.option(*array_index, |wire, index| to.expression(wire, index));
            wire.option(*offset, |wire, offset| to.expression(wire, offset));
            sample_level(wire, to, *level);
            wire.option(*depth_ref, |wire, depth| to.expression(wire, depth));
            wire.bool(*clamp_to_edge);
        }
        Expression::ImageLoad {
            image,
            coordinate,
            array_index,
            sample,
            level,
        } => {
            wire.u8(14);
            to.expression(wire, *image);
            to.expression(wire, *coordinate);
            wire.option(*array_index, |wire, index| to.expression(wire, index));
            wire.option(*sample, |wire, sample| to.expression(wire, sample));
            wire.option(*level, |wire, level| to.expression(wire, level));
        }
        Expression::ImageQuery { image, query } => {
            wire.u8(15);
            to.expression(wire, *image);
            image_query(wire, to, *query);
        }
        Expression::Unary { op, expr } => {
            wire.u8(16);
            tags::unary_operator(wire, *op);
            to.expression(wire, *expr);
        }
        Expression::Binary { op, left, right } => {
            wire.u8(17);
            tags::binary_operator(wire, *op);
            to.expression(wire, *left);
            to.expression(wire, *right);
        }
        Expression::Select {
            condition,
            accept,
            reject,
        } => {
            wire.u8(18);
            to.expression(wire, *condition);
            to.expression(wire, *accept);
            to.expression(wire, *reject);
        }
        Expression::Derivative { axis, ctrl, expr } => {
            wire.u8(19);
            tags::derivative_axis(wire, *axis);
            tags::derivative_control(wire, *ctrl);
            to.expression(wire, *expr);
        }
        Expression::Relational { fun, argument } => {
            wire.u8(20);
            tags::relational_function(wire, *fun);
            to.expression(wire, *argument);
        }
        Expression::Math {
            fun,
            arg,
            arg1,
            arg2,
            arg3,
        } => {
            wire.u8(21);
            tags::math_function(wire, *fun);
            to.expression(wire, *arg);
            for arg in [arg1, arg2, arg3] {
                wire.option(*arg, |wire, arg| to.expression(wire, arg));
            }
        }
        Expression::As {
            expr,
            kind,
            convert,
        } => {
            wire.u8(22);
            to.expression(wire, *expr);
            tags::scalar_kind(wire, *kind);
            wire.option(*convert, WireWriter::u8);
        }
        Expression::CallResult(handle) => {
            wire.u8(23);
            to.function(wire, *handle);
        }
        Expression::AtomicResult { ty, comparison } => {
            wire.u8(24);
            to.ty(wire, *ty);
            wire.bool(*comparison);
        }
        Expression::WorkGroupUniformLoadResult { ty } => {
            wire.u8(25);
            to.ty(wire, *ty);
        }
        Expression::ArrayLength(array) => {
            wire.u8(26);
            to.expression(wire, *array);
        }
        Expression::RayQueryVertexPositions { query, committed } => {
            wire.u8(27);
            to.expression(wire, *query);
            wire.bool(*committed);
        }
        Expression::RayQueryProceedResult => wire.u8(28),
        Expression::RayQueryGetIntersection { query, committed } => {
            wire.u8(29);
            to.expression(wire, *query);
            wire.bool(*committed);
        }
        Expression::SubgroupBallotResult => wire.u8(30),
        Expression::SubgroupOperationResult { ty } => {
            wire.u8(31);
            to.ty(wire, *ty);
        }
        Expression::CooperativeLoad {
            columns,
            rows,
            role,
            data,
        } => {
            wire.u8(32);
            tags::cooperative_size(wire, *columns);
            tags::cooperative_size(wire, *rows);
            tags::cooperative_role(wire, *role);
            cooperative_data(wire, to, data);
        }
        Expression::CooperativeMultiplyAdd { a, b, c } => {
            wire.u8(33);
            to.expression(wire, *a);
            to.expression(wire, *b);
            to.expression(wire, *c);
        }
    }
}

/// A literal by its type and its bits: `-0.0` is not `0.0`, and every NaN is its own.
fn literal(wire: &mut WireWriter, literal: Literal) {
    match literal {
        Literal::F64(value) => {
            wire.u8(0);
            wire.f64(value);
        }
        Literal::F32(value) => {
            wire.u8(1);
            wire.f32(value);
        }
        Literal::F16(value) => {
            wire.u8(2);
            wire.u16(value.to_bits());
        }
        Literal::U16(value) => {
            wire.u8(3);
            wire.u16(value);
        }
        Literal::I16(value) => {
            wire.u8(4);
            wire.i16(value);
        }
        Literal::U32(value) => {
            wire.u8(5);
            wire.u32(value);
        }
        Literal::I32(value) => {
            wire.u8(6);
            wire.i32(value);
        }
        Literal::U64(value) => {
            wire.u8(7);
            wire.u64(value);
        }
        Literal::I64(value) => {
            wire.u8(8);
            wire.i64(value);
        }
        Literal::Bool(value) => {
            wire.u8(9);
            wire.bool(value);
        }
        Literal::AbstractInt(value) => {
            wire.u8(10);
            wire.i64(value);
        }
        Literal::AbstractFloat(value) => {
            wire.u8(11);
            wire.f64(value);
        }
    }
}

fn swizzle(wire: &mut WireWriter, size: VectorSize, pattern: [SwizzleComponent; 4]) {
    tags::vector_size(wire, size);
    for component in pattern {
        tags::swizzle_component(wire, component);
    }
}

fn sample_level(wire: &mut WireWriter, to: &mut impl References, level: SampleLevel) {
    match level {
        SampleLevel::Auto => wire.u8(0),
        SampleLevel::Zero => wire.u8(1),
        SampleLevel::Exact(level) => {
            wire.u8(2);
            to.expression(wire, level);
        }
        SampleLevel::Bias(bias) => {
            wire.u8(3);
            to.expression(wire, bias);
        }
        SampleLevel::Gradient { x, y } => {
            wire.u8(4);
            to.expression(wire, x);
            to.expression(wire, y);
        }
    }
}

fn image_query(wire: &mut WireWriter, to: &mut impl References, query: ImageQuery) {
    match query {
        ImageQuery::Size { level } => {
            wire.u8(0);
            wire.option(level, |wire, level| to.expression(wire, level));
        }
        ImageQuery::NumLevels => wire.u8(1),
        ImageQuery::NumLayers => wire.u8(2),
        ImageQuery::NumSamples => wire.u8(3),
    }
}

pub(super) fn cooperative_data(
    wire: &mut WireWriter,
    to: &mut impl References,
    data: &CooperativeData,
) {
    let CooperativeData {
        pointer,
        stride,
        row_major,
    } = data;
    to.expression(wire, *pointer);
    to.expression(wire, *stride);
    wire.bool(*row_major);
}
