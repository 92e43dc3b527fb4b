//! When naga evaluates an expression.

use naga::Expression;

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

impl Timing {
    /// Whether each evaluation is a value of its own.
    pub(super) const fn is_anchored(self) -> bool {
        match self {
            Self::Static | Self::Pure => false,
            Self::Anchored | Self::Defined => true,
        }
    }
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
