//! Rewrites of a single value, each beside the reason why it keeps the meaning.
//!
//! What is not named here stays as it is written. Operands of floating-point arithmetic stay in
//! order: `a + b` and `b + a` can differ in the payload of a NaN.

use naga::{BinaryOperator, Expression, Handle, ScalarKind, SwizzleComponent, TypeInner, VectorSize};

use super::digest::Digest;

/// The one spelling of a value.
///
/// `sortable` tells that both operands of a binary operator have one [exact](is_exact) type.
pub(super) fn normalize(
    expression: Expression,
    sortable: bool,
    digest: impl Fn(Handle<Expression>) -> Digest,
) -> Expression {
    match expression {
        Expression::Binary { op, left, right } => {
            let (op, left, right) = binary(op, left, right, sortable, digest);
            Expression::Binary { op, left, right }
        }
        // Back ends read as many components as there are in the result, so what stands behind
        // these cannot count.
        Expression::Swizzle {
            size,
            vector,
            mut pattern,
        } => {
            let length = match size {
                VectorSize::Bi => 2,
                VectorSize::Tri => 3,
                VectorSize::Quad => 4,
            };
            for unused in pattern.iter_mut().skip(length) {
                *unused = SwizzleComponent::X;
            }
            Expression::Swizzle {
                size,
                vector,
                pattern,
            }
        }
        // Not a match on meaning: an expression without a rule is its own one spelling.
        other => other,
    }
}

fn binary(
    op: BinaryOperator,
    left: Handle<Expression>,
    right: Handle<Expression>,
    sortable: bool,
    digest: impl Fn(Handle<Expression>) -> Digest,
) -> (BinaryOperator, Handle<Expression>, Handle<Expression>) {
    match op {
        // One comparison read from the other side; for floats too, where both are false on NaN.
        BinaryOperator::Greater => (BinaryOperator::Less, right, left),
        BinaryOperator::GreaterEqual => (BinaryOperator::LessEqual, right, left),
        // Integers wrap and bits are independent: exact, so that the order cannot be seen. The
        // operands are values already; what they read was read at its own place.
        BinaryOperator::Add
        | BinaryOperator::Multiply
        | BinaryOperator::And
        | BinaryOperator::ExclusiveOr
        | BinaryOperator::InclusiveOr
        | BinaryOperator::Equal
        | BinaryOperator::NotEqual => {
            if sortable && digest(right) < digest(left) {
                (op, right, left)
            } else {
                (op, left, right)
            }
        }
        // Order is meaning. For `&&` and `||` it is in the text that some back ends write, where
        // the left operand guards the right one.
        BinaryOperator::Subtract
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::Less
        | BinaryOperator::LessEqual
        | BinaryOperator::LogicalAnd
        | BinaryOperator::LogicalOr
        | BinaryOperator::ShiftLeft
        | BinaryOperator::ShiftRight => (op, left, right),
    }
}

/// Whether a type is of integers or booleans, alone or in a vector.
pub(super) const fn is_exact(ty: &TypeInner) -> bool {
    let (TypeInner::Scalar(scalar) | TypeInner::Vector { size: _, scalar }) = ty else {
        return false;
    };
    match scalar.kind {
        ScalarKind::Sint | ScalarKind::Uint | ScalarKind::Bool => true,
        // Abstract integers do not wrap; they are gone before a shader runs.
        ScalarKind::Float | ScalarKind::AbstractInt | ScalarKind::AbstractFloat => false,
    }
}
