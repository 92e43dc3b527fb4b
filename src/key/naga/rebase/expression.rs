//! Expressions, operand by operand.

use naga::{CooperativeData, Expression, ImageQuery, SampleLevel};

use super::refusal::Rebased;
use super::target::Rebase;

/// Copies an expression.
pub(in super::super) fn expression(
    to: &mut impl Rebase,
    source: &Expression,
) -> Rebased<Expression> {
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

pub(super) fn cooperative_data(
    to: &mut impl Rebase,
    data: CooperativeData,
) -> Rebased<CooperativeData> {
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
