//! The operands of an expression, without a copy of it.

use naga::{CooperativeData, Expression, Handle, ImageQuery, SampleLevel};

/// Names each operand of an expression, in the order in which it lists them.
#[inline]
pub(in super::super) fn each_operand(source: &Expression, mut see: impl FnMut(Handle<Expression>)) {
    match *source {
        Expression::Literal(_)
        | Expression::Constant(_)
        | Expression::Override(_)
        | Expression::ZeroValue(_)
        | Expression::FunctionArgument(_)
        | Expression::GlobalVariable(_)
        | Expression::LocalVariable(_)
        | Expression::CallResult(_)
        | Expression::AtomicResult {
            ty: _,
            comparison: _,
        }
        | Expression::WorkGroupUniformLoadResult { ty: _ }
        | Expression::RayQueryProceedResult
        | Expression::SubgroupBallotResult
        | Expression::SubgroupOperationResult { ty: _ } => {}
        Expression::Compose {
            ty: _,
            ref components,
        } => components.iter().copied().for_each(see),
        Expression::Access { base, index } => {
            see(base);
            see(index);
        }
        Expression::AccessIndex {
            base: operand,
            index: _,
        }
        | Expression::Splat {
            size: _,
            value: operand,
        }
        | Expression::Swizzle {
            size: _,
            vector: operand,
            pattern: _,
        }
        | Expression::Load { pointer: operand }
        | Expression::Unary {
            op: _,
            expr: operand,
        }
        | Expression::Derivative {
            axis: _,
            ctrl: _,
            expr: operand,
        }
        | Expression::Relational {
            fun: _,
            argument: operand,
        }
        | Expression::As {
            expr: operand,
            kind: _,
            convert: _,
        }
        | Expression::ArrayLength(operand)
        | Expression::RayQueryVertexPositions {
            query: operand,
            committed: _,
        }
        | Expression::RayQueryGetIntersection {
            query: operand,
            committed: _,
        } => see(operand),
        Expression::Binary { op: _, left, right } => {
            see(left);
            see(right);
        }
        Expression::Select {
            condition,
            accept,
            reject,
        } => {
            see(condition);
            see(accept);
            see(reject);
        }
        Expression::Math {
            fun: _,
            arg,
            arg1,
            arg2,
            arg3,
        } => {
            see(arg);
            if let Some(arg) = arg1 {
                see(arg);
            }
            if let Some(arg) = arg2 {
                see(arg);
            }
            if let Some(arg) = arg3 {
                see(arg);
            }
        }
        Expression::ImageSample {
            image,
            sampler,
            gather: _,
            coordinate,
            array_index,
            offset,
            level,
            depth_ref,
            clamp_to_edge: _,
        } => {
            see(image);
            see(sampler);
            see(coordinate);
            array_index.into_iter().chain(offset).for_each(&mut see);
            match level {
                SampleLevel::Auto | SampleLevel::Zero => {}
                SampleLevel::Exact(operand) | SampleLevel::Bias(operand) => see(operand),
                SampleLevel::Gradient { x, y } => {
                    see(x);
                    see(y);
                }
            }
            depth_ref.into_iter().for_each(see);
        }
        Expression::ImageLoad {
            image,
            coordinate,
            array_index,
            sample,
            level,
        } => {
            see(image);
            see(coordinate);
            [array_index, sample, level]
                .into_iter()
                .flatten()
                .for_each(see);
        }
        Expression::ImageQuery { image, query } => {
            see(image);
            match query {
                ImageQuery::Size { level } => level.into_iter().for_each(see),
                ImageQuery::NumLevels | ImageQuery::NumLayers | ImageQuery::NumSamples => {}
            }
        }
        Expression::CooperativeLoad {
            columns: _,
            rows: _,
            role: _,
            data:
                CooperativeData {
                    pointer,
                    stride,
                    row_major: _,
                },
        } => {
            see(pointer);
            see(stride);
        }
        Expression::CooperativeMultiplyAdd { a, b, c } => {
            see(a);
            see(b);
            see(c);
        }
    }
}
