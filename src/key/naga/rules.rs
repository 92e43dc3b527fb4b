//! Rewrites of a single value or binding, each beside the reason why it keeps the meaning.
//!
//! What is not named here stays as it is written. Operands of floating-point arithmetic stay in
//! order: `a + b` and `b + a` can differ in the payload of a NaN.

use naga::{
    BinaryOperator, Binding, Interpolation, Literal, Sampling, Scalar, ScalarKind,
    SwizzleComponent, TypeInner, VectorSize,
};

/// The value of arithmetic on literals, where no device can round it.
///
/// Integers and booleans are exact. A sum that overflows is left: naga's front ends refuse it.
///
/// Sums, differences and products are rounded correctly wherever shaders run. One that is exact
/// needs no rounding, in any mode and in any contraction; one that is normal, of normal operands,
/// is never flushed to zero.
pub(super) fn exact_value(op: BinaryOperator, left: Literal, right: Literal) -> Option<Literal> {
    let (left, right) = match (left, right) {
        (Literal::F32(left), Literal::F32(right)) => (left, right),
        (Literal::I32(left), Literal::I32(right)) => {
            return exact_integer(op, left, right, i32::checked_add, i32::checked_mul)
                .or_else(|| exact_bits(op, left as u32, right as u32).map(|bits| bits as i32))
                .map(Literal::I32)
                .or_else(|| compared(op, left, right));
        }
        (Literal::U32(left), Literal::U32(right)) => {
            return exact_integer(op, left, right, u32::checked_add, u32::checked_mul)
                .or_else(|| exact_bits(op, left, right))
                .map(Literal::U32)
                .or_else(|| compared(op, left, right));
        }
        (Literal::Bool(left), Literal::Bool(right)) => return exact_truth(op, left, right),
        _ => return None,
    };
    let (a, b) = (f64::from(left), f64::from(right));
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
    let unrounded = f64::from(value).to_bits() == exact.to_bits();
    (normal && unrounded).then_some(Literal::F32(value))
}

fn exact_integer<T>(
    op: BinaryOperator,
    left: T,
    right: T,
    sum: fn(T, T) -> Option<T>,
    product: fn(T, T) -> Option<T>,
) -> Option<T> {
    match op {
        BinaryOperator::Add => sum(left, right),
        BinaryOperator::Multiply => product(left, right),
        _ => None,
    }
}

const fn exact_bits(op: BinaryOperator, left: u32, right: u32) -> Option<u32> {
    match op {
        BinaryOperator::And => Some(left & right),
        BinaryOperator::ExclusiveOr => Some(left ^ right),
        BinaryOperator::InclusiveOr => Some(left | right),
        _ => None,
    }
}

fn compared<T: Ord>(op: BinaryOperator, left: T, right: T) -> Option<Literal> {
    let holds = match op {
        BinaryOperator::Equal => left == right,
        BinaryOperator::NotEqual => left != right,
        BinaryOperator::Less => left < right,
        BinaryOperator::LessEqual => left <= right,
        BinaryOperator::Greater => left > right,
        BinaryOperator::GreaterEqual => left >= right,
        _ => return None,
    };
    Some(Literal::Bool(holds))
}

fn exact_truth(op: BinaryOperator, left: bool, right: bool) -> Option<Literal> {
    let holds = match op {
        BinaryOperator::Equal => left == right,
        BinaryOperator::NotEqual | BinaryOperator::ExclusiveOr => left != right,
        BinaryOperator::And | BinaryOperator::LogicalAnd => left && right,
        BinaryOperator::InclusiveOr | BinaryOperator::LogicalOr => left || right,
        _ => return None,
    };
    Some(Literal::Bool(holds))
}

/// A literal of a scalar type as one of another, where that is exact.
pub(super) fn converted(literal: Literal, kind: ScalarKind, width: u8) -> Option<Literal> {
    if width != 4 && kind != ScalarKind::Bool {
        return None;
    }
    let bits = match literal {
        Literal::U32(value) => value,
        Literal::I32(value) => value as u32,
        Literal::Bool(value) => u32::from(value),
        _ => return None,
    };
    match kind {
        ScalarKind::Sint => Some(Literal::I32(bits as i32)),
        ScalarKind::Uint => Some(Literal::U32(bits)),
        ScalarKind::Bool => Some(Literal::Bool(bits != 0)),
        ScalarKind::Float | ScalarKind::AbstractInt | ScalarKind::AbstractFloat => None,
    }
}

/// A sum, if it is not rounded: taking the larger part away gives the smaller one back.
fn exact_sum(a: f64, b: f64) -> Option<f64> {
    let (large, small) = if a.abs() < b.abs() { (b, a) } else { (a, b) };
    let sum = large + small;
    ((sum - large).to_bits() == small.to_bits()).then_some(sum)
}

/// Back ends read as many components as there are in the result, so that what stands behind these
/// cannot count.
pub(super) fn clear_unread(
    size: VectorSize,
    mut pattern: [SwizzleComponent; 4],
) -> [SwizzleComponent; 4] {
    let length = match size {
        VectorSize::Bi => 2,
        VectorSize::Tri => 3,
        VectorSize::Quad => 4,
    };
    for unread in pattern.iter_mut().skip(length) {
        *unread = SwizzleComponent::X;
    }
    pattern
}

/// The one comparison for what is read from either side, and whether the operands change places;
/// for floats too, where both are false on NaN.
pub(super) const fn turned(op: BinaryOperator) -> (BinaryOperator, bool) {
    match op {
        BinaryOperator::Greater => (BinaryOperator::Less, true),
        BinaryOperator::GreaterEqual => (BinaryOperator::LessEqual, true),
        BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::Equal
        | BinaryOperator::NotEqual
        | BinaryOperator::Less
        | BinaryOperator::LessEqual
        | BinaryOperator::And
        | BinaryOperator::ExclusiveOr
        | BinaryOperator::InclusiveOr
        | BinaryOperator::LogicalAnd
        | BinaryOperator::LogicalOr
        | BinaryOperator::ShiftLeft
        | BinaryOperator::ShiftRight => (op, false),
    }
}

/// The comparison that holds where another does not, and whether the operands change places.
/// For integers and booleans: with a NaN, neither `a < b` nor `b <= a` holds.
pub(super) const fn negated(op: BinaryOperator) -> Option<(BinaryOperator, bool)> {
    Some(match op {
        BinaryOperator::Equal => (BinaryOperator::NotEqual, false),
        BinaryOperator::NotEqual => (BinaryOperator::Equal, false),
        BinaryOperator::Less => (BinaryOperator::LessEqual, true),
        BinaryOperator::LessEqual => (BinaryOperator::Less, true),
        // Greater is less turned around, by now.
        BinaryOperator::Greater
        | BinaryOperator::GreaterEqual
        | BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::And
        | BinaryOperator::ExclusiveOr
        | BinaryOperator::InclusiveOr
        | BinaryOperator::LogicalAnd
        | BinaryOperator::LogicalOr
        | BinaryOperator::ShiftLeft
        | BinaryOperator::ShiftRight => return None,
    })
}

/// Whether an operator holds where booleans are equal, or where they are not.
pub(super) const fn equality(op: BinaryOperator) -> Option<bool> {
    match op {
        BinaryOperator::Equal => Some(true),
        BinaryOperator::NotEqual => Some(false),
        BinaryOperator::Add
        | BinaryOperator::Subtract
        | BinaryOperator::Multiply
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
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
        | BinaryOperator::ShiftRight => None,
    }
}

/// Whether each bit of a literal is zero. -0.0 has one that is not.
pub(super) fn is_zero(literal: Literal) -> bool {
    match literal {
        Literal::F64(value) => value.to_bits() == 0,
        Literal::F32(value) => value.to_bits() == 0,
        Literal::F16(value) => value.to_bits() == 0,
        Literal::U16(value) => value == 0,
        Literal::I16(value) => value == 0,
        Literal::U32(value) => value == 0,
        Literal::I32(value) => value == 0,
        Literal::U64(value) => value == 0,
        Literal::I64(value) => value == 0,
        Literal::Bool(value) => !value,
        // They are gone before a shader runs.
        Literal::AbstractInt(_) | Literal::AbstractFloat(_) => false,
    }
}

/// A binding with its sampling spelled out.
pub(super) fn binding(source: &Binding) -> Binding {
    let mut binding = source.clone();
    if let Binding::Location {
        location: _,
        interpolation,
        ref mut sampling,
        blend_src: _,
        per_primitive: _,
    } = binding
    {
        *sampling = spelled_out(interpolation, *sampling);
    }
    binding
}

/// What is interpolated is sampled at the center unless it says otherwise: WGSL has it so, and
/// all back ends write it so.
///
/// `flat` and `flat, first` stay two, though WGSL has them as one: the GLSL back end writes the
/// one and refuses the other, since that language takes the last vertex.
const fn spelled_out(
    interpolation: Option<Interpolation>,
    sampling: Option<Sampling>,
) -> Option<Sampling> {
    match (interpolation, sampling) {
        (Some(Interpolation::Perspective | Interpolation::Linear), None) => Some(Sampling::Center),
        (Some(_) | None, sampling) => sampling,
    }
}

/// Whether the order of operands of one [exact](is_exact) type cannot be seen.
pub(super) const fn is_commutative(op: BinaryOperator) -> bool {
    match op {
        // Integers wrap and bits are independent: exact, so that the order cannot be seen. The
        // operands are values already; what they read was read at its own place.
        BinaryOperator::Add
        | BinaryOperator::Multiply
        | BinaryOperator::And
        | BinaryOperator::ExclusiveOr
        | BinaryOperator::InclusiveOr
        | BinaryOperator::Equal
        | BinaryOperator::NotEqual => true,
        // Order is meaning. For `&&` and `||` it is in the text that some back ends write, where
        // the left operand guards the right one.
        BinaryOperator::Subtract
        | BinaryOperator::Divide
        | BinaryOperator::Modulo
        | BinaryOperator::Less
        | BinaryOperator::LessEqual
        | BinaryOperator::Greater
        | BinaryOperator::GreaterEqual
        | BinaryOperator::LogicalAnd
        | BinaryOperator::LogicalOr
        | BinaryOperator::ShiftLeft
        | BinaryOperator::ShiftRight => false,
    }
}

/// Whether a type is of integers or booleans, alone or in a vector.
pub(super) fn is_exact(ty: &TypeInner) -> bool {
    exact(ty).is_some()
}

/// What a type of integers or booleans is, alone or in a vector.
pub(super) const fn exact(ty: &TypeInner) -> Option<(Scalar, Option<VectorSize>)> {
    let (scalar, size) = match *ty {
        TypeInner::Scalar(scalar) => (scalar, None),
        TypeInner::Vector { size, scalar } => (scalar, Some(size)),
        _ => return None,
    };
    match scalar.kind {
        ScalarKind::Sint | ScalarKind::Uint | ScalarKind::Bool => Some((scalar, size)),
        // Abstract integers do not wrap; they are gone before a shader runs.
        ScalarKind::Float | ScalarKind::AbstractInt | ScalarKind::AbstractFloat => None,
    }
}
