//! Rewrites of a single value, each beside the reason why it keeps the meaning.
//!
//! What is not named here stays as it is written. Operands of floating-point arithmetic stay in
//! order: `a + b` and `b + a` can differ in the payload of a NaN.

use naga::{
    Arena, BinaryOperator, Expression, Handle, Literal, ScalarKind, SwizzleComponent, TypeInner,
    VectorSize,
};

use super::digest::Digest;

/// The one spelling of a value.
///
/// `sortable` tells that both operands of a binary operator have one [exact](is_exact) type.
pub(super) fn normalize(
    expression: Expression,
    operands: &Arena<Expression>,
    sortable: bool,
    digest: impl Fn(Handle<Expression>) -> Digest,
) -> Expression {
    // An expression without a rule is its own one spelling, whatever it is.
    if let Expression::Binary { op, left, right } = expression {
        if let Some(value) = exact_value(op, &operands[left], &operands[right]) {
            return Expression::Literal(Literal::F32(value));
        }
        let (op, left, right) = binary(op, left, right, sortable, digest);
        return Expression::Binary { op, left, right };
    }
    if let Expression::Swizzle {
        size,
        vector,
        mut pattern,
    } = expression
    {
        clear_unread(size, &mut pattern);
        return Expression::Swizzle {
            size,
            vector,
            pattern,
        };
    }
    expression
}

/// The value of float arithmetic on literals, where no device can round it.
///
/// Sums, differences and products are rounded correctly wherever shaders run. One that is exact
/// needs no rounding, in any mode and in any contraction; one that is normal, of normal operands,
/// is never flushed to zero.
fn exact_value(op: BinaryOperator, left: &Expression, right: &Expression) -> Option<f32> {
    let (Expression::Literal(Literal::F32(left)), Expression::Literal(Literal::F32(right))) =
        (left, right)
    else {
        return None;
    };
    let (a, b) = (f64::from(*left), f64::from(*right));
    let exact = match op {
        BinaryOperator::Add => exact_sum(a, b)?,
        BinaryOperator::Subtract => exact_sum(a, -b)?,
        // 24 bits by 24 bits always fit.
        BinaryOperator::Multiply => a * b,
        BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::Equal
        | BinaryOperator::NotEqual
        | BinaryOperator::Less
        | BinaryOperator::LessEqual
        | BinaryOperator::Greater
        | BinaryOperator::GreaterEqual
        | BinaryOperator::And
        | BinaryOperator::ExclusiveOr
        | BinaryOperator::InclusiveOr
        | BinaryOperator::LogicalAnd
        | BinaryOperator::LogicalOr
        | BinaryOperator::ShiftLeft
        | BinaryOperator::ShiftRight => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "compared with the exact value below"
    )]
    let value = exact as f32;
    let normal = left.is_normal() && right.is_normal() && value.is_normal();
    (normal && f64::from(value).to_bits() == exact.to_bits()).then_some(value)
}

/// A sum, if it is not rounded: taking the larger part away gives the smaller one back.
fn exact_sum(a: f64, b: f64) -> Option<f64> {
    let (large, small) = if a.abs() < b.abs() { (b, a) } else { (a, b) };
    let sum = large + small;
    ((sum - large).to_bits() == small.to_bits()).then_some(sum)
}

/// Back ends read as many components as there are in the result, so that what stands behind these
/// cannot count.
fn clear_unread(size: VectorSize, pattern: &mut [SwizzleComponent; 4]) {
    let length = match size {
        VectorSize::Bi => 2,
        VectorSize::Tri => 3,
        VectorSize::Quad => 4,
    };
    for unread in pattern.iter_mut().skip(length) {
        *unread = SwizzleComponent::X;
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
