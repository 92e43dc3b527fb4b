//! Values of shaders, and what operators make of them, bit for bit.

use naga::{
    AtomicFunction, BinaryOperator, MathFunction, RelationalFunction, ScalarKind, UnaryOperator,
};

use super::generate::Random;

/// A value. Floats are their bits, so that two NaNs are one value only if they are one NaN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Bool(bool),
    Int(i32),
    Uint(u32),
    Float(u32),
    Composite(Vec<Self>),
    Pointer { variable: usize, path: Vec<usize> },
}

impl Value {
    pub(crate) fn variable(variable: usize) -> Self {
        let path = Vec::new();
        Self::Pointer { variable, path }
    }

    pub(crate) fn of_bits(kind: ScalarKind, bits: u32) -> Self {
        match kind {
            ScalarKind::Sint => Self::Int(bits as i32),
            ScalarKind::Uint => Self::Uint(bits),
            ScalarKind::Float => Self::Float(bits),
            ScalarKind::Bool => Self::Bool(bits & 1 == 1),
            ScalarKind::AbstractInt | ScalarKind::AbstractFloat => panic!("an abstract value"),
        }
    }

    fn bits(&self) -> u32 {
        match *self {
            Self::Bool(value) => u32::from(value),
            Self::Int(value) => value as u32,
            Self::Uint(value) | Self::Float(value) => value,
            Self::Composite(_) | Self::Pointer { .. } => panic!("no scalar: {self:?}"),
        }
    }

    /// The components of a vector; a scalar is its own.
    pub(crate) fn into_parts(self) -> Vec<Self> {
        match self {
            Self::Composite(parts) => parts,
            scalar => vec![scalar],
        }
    }

    /// Changes every number.
    pub(crate) fn disturb(&mut self, salt: u32) {
        match self {
            Self::Bool(value) => *value ^= salt & 1 == 1,
            Self::Int(value) => *value ^= salt as i32,
            Self::Uint(value) | Self::Float(value) => *value ^= salt,
            Self::Composite(parts) => parts.iter_mut().for_each(|part| part.disturb(salt)),
            Self::Pointer { .. } => panic!("memory holds no pointer"),
        }
    }
}

/// Bits that tell a float from its likes, and integers from theirs.
pub(crate) fn interesting(kind: ScalarKind, random: &mut Random) -> u32 {
    const FLOATS: [u32; 10] = [
        0x0000_0000, // 0.0
        0x8000_0000, // -0.0
        0x3f80_0000, // 1.0
        0xc020_0000, // -2.5
        0x7fc0_0001, // two NaNs
        0xffc1_2345,
        0x7f80_0000, // infinities
        0xff80_0000,
        0x0000_0001, // a denormal
        0x7f7f_ffff, // the largest
    ];
    const INTEGERS: [u32; 6] = [0, 1, 2, 7, u32::MAX, 1 << 31];
    let any = random.next() as u32;
    match (kind, random.below(3)) {
        (ScalarKind::Float, 0) => random.pick(&FLOATS),
        // Small, with a fraction: what rounds otherwise when it is added otherwise.
        (ScalarKind::Float, _) => (any as i32 as f32 / 1e8).to_bits(),
        (_, 0) => random.pick(&INTEGERS),
        (_, 1) => any % 16,
        (_, _) => any,
    }
}

/// Applies an operation to each component; a scalar goes with each component of a vector.
fn each(arguments: Vec<Value>, op: &dyn Fn(&[Value]) -> Value) -> Value {
    let lengths = arguments.iter().filter_map(|argument| match argument {
        Value::Composite(parts) => Some(parts.len()),
        _ => None,
    });
    let Some(length) = lengths.max() else {
        return op(&arguments);
    };
    let component = |argument: &Value, index: usize| match argument {
        Value::Composite(parts) => parts[index].clone(),
        scalar => scalar.clone(),
    };
    let at = |index| -> Vec<_> { arguments.iter().map(|of| component(of, index)).collect() };
    Value::Composite((0..length).map(|index| op(&at(index))).collect())
}

/// Float arithmetic. The first NaN wins, as on most processors.
fn float(arguments: &[u32], op: impl Fn(&[f32]) -> f32) -> u32 {
    let floats: Vec<_> = arguments.iter().map(|bits| f32::from_bits(*bits)).collect();
    if let Some(nan) = floats.iter().find(|float| float.is_nan()) {
        return nan.to_bits() | 0x0040_0000;
    }
    let value = op(&floats);
    if value.is_nan() {
        0x7fc0_0000
    } else {
        value.to_bits()
    }
}

fn float_value(arguments: &[u32], op: impl Fn(&[f32]) -> f32) -> Value {
    Value::Float(float(arguments, op))
}

pub(crate) fn unary(op: UnaryOperator, value: Value) -> Value {
    each(vec![value], &|of| match (op, &of[0]) {
        (UnaryOperator::Negate, Value::Int(value)) => Value::Int(value.wrapping_neg()),
        (UnaryOperator::Negate, Value::Float(bits)) => Value::Float(bits ^ 1 << 31),
        (UnaryOperator::LogicalNot, Value::Bool(value)) => Value::Bool(!value),
        (UnaryOperator::BitwiseNot, Value::Int(value)) => Value::Int(!value),
        (UnaryOperator::BitwiseNot, Value::Uint(value)) => Value::Uint(!value),
        other => panic!("not evaluated: {other:?}"),
    })
}

pub(crate) fn binary(op: BinaryOperator, left: Value, right: Value) -> Value {
    each(vec![left, right], &|of| match (&of[0], &of[1]) {
        (Value::Float(a), Value::Float(b)) => floats(op, *a, *b),
        (Value::Bool(a), Value::Bool(b)) => bools(op, *a, *b),
        (Value::Int(a), Value::Int(b)) => match ordered(op, a, b) {
            Some(value) => Value::Bool(value),
            None => Value::Int(ints(op, *a, *b)),
        },
        (Value::Int(a), Value::Uint(b)) => Value::Int(ints(op, *a, *b as i32)),
        (Value::Uint(a), Value::Uint(b)) => match ordered(op, a, b) {
            Some(value) => Value::Bool(value),
            None => Value::Uint(uints(op, *a, *b)),
        },
        other => panic!("not evaluated: {op:?} {other:?}"),
    })
}

fn ordered<T: PartialOrd>(op: BinaryOperator, a: &T, b: &T) -> Option<bool> {
    Some(match op {
        BinaryOperator::Equal => a == b,
        BinaryOperator::NotEqual => a != b,
        BinaryOperator::Less => a < b,
        BinaryOperator::LessEqual => a <= b,
        BinaryOperator::Greater => a > b,
        BinaryOperator::GreaterEqual => a >= b,
        _ => return None,
    })
}

fn floats(op: BinaryOperator, a: u32, b: u32) -> Value {
    if let Some(value) = ordered(op, &f32::from_bits(a), &f32::from_bits(b)) {
        return Value::Bool(value);
    }
    float_value(&[a, b], |of| match op {
        BinaryOperator::Add => of[0] + of[1],
        BinaryOperator::Subtract => of[0] - of[1],
        BinaryOperator::Multiply => of[0] * of[1],
        BinaryOperator::Divide => of[0] / of[1],
        BinaryOperator::Modulo => of[0] % of[1],
        other => panic!("not evaluated: {other:?}"),
    })
}

fn bools(op: BinaryOperator, a: bool, b: bool) -> Value {
    Value::Bool(match op {
        BinaryOperator::Equal => a == b,
        BinaryOperator::NotEqual | BinaryOperator::ExclusiveOr => a != b,
        BinaryOperator::And | BinaryOperator::LogicalAnd => a && b,
        BinaryOperator::InclusiveOr | BinaryOperator::LogicalOr => a || b,
        other => panic!("not evaluated: {other:?}"),
    })
}

fn ints(op: BinaryOperator, a: i32, b: i32) -> i32 {
    match op {
        BinaryOperator::Divide if b == 0 => a,
        BinaryOperator::Divide => a.wrapping_div(b),
        BinaryOperator::Modulo if b == 0 => 0,
        BinaryOperator::Modulo => a.wrapping_rem(b),
        BinaryOperator::ShiftRight => a.wrapping_shr(b as u32),
        other => uints(other, a as u32, b as u32) as i32,
    }
}

fn uints(op: BinaryOperator, a: u32, b: u32) -> u32 {
    match op {
        BinaryOperator::Add => a.wrapping_add(b),
        BinaryOperator::Subtract => a.wrapping_sub(b),
        BinaryOperator::Multiply => a.wrapping_mul(b),
        BinaryOperator::Divide => a.checked_div(b).unwrap_or(a),
        BinaryOperator::Modulo => a.checked_rem(b).unwrap_or(0),
        BinaryOperator::And => a & b,
        BinaryOperator::ExclusiveOr => a ^ b,
        BinaryOperator::InclusiveOr => a | b,
        BinaryOperator::ShiftLeft => a.wrapping_shl(b),
        BinaryOperator::ShiftRight => a.wrapping_shr(b),
        other => panic!("not evaluated: {other:?}"),
    }
}

pub(crate) fn select(condition: Value, accept: Value, reject: Value) -> Value {
    if let Value::Bool(condition) = condition {
        return if condition { accept } else { reject };
    }
    each(vec![condition, accept, reject], &|of| {
        let taken = of[0] == Value::Bool(true);
        of[if taken { 1 } else { 2 }].clone()
    })
}

pub(crate) fn relational(fun: RelationalFunction, argument: Value) -> Value {
    let mut parts = argument.into_parts().into_iter();
    let holds = |part: Value| part == Value::Bool(true);
    Value::Bool(match fun {
        RelationalFunction::All => parts.all(holds),
        RelationalFunction::Any => parts.any(holds),
        RelationalFunction::IsNan | RelationalFunction::IsInf => panic!("not evaluated: {fun:?}"),
    })
}

pub(crate) fn convert(value: Value, kind: ScalarKind, converts: bool) -> Value {
    each(vec![value], &|of| {
        if !converts {
            return Value::of_bits(kind, of[0].bits());
        }
        let number = match of[0] {
            Value::Float(bits) => f64::from(f32::from_bits(bits)),
            Value::Int(value) => f64::from(value),
            ref other => f64::from(other.bits()),
        };
        // Casts of Rust saturate.
        match (kind, &of[0]) {
            (ScalarKind::Float, Value::Float(bits)) => Value::Float(*bits),
            (ScalarKind::Float, _) => Value::Float((number as f32).to_bits()),
            (ScalarKind::Bool, _) => Value::Bool(number != 0.0),
            (_, Value::Float(_)) if kind == ScalarKind::Sint => Value::Int(number as i32),
            (_, Value::Float(_)) => Value::Uint(number as u32),
            (_, other) => Value::of_bits(kind, other.bits()),
        }
    })
}

pub(crate) fn atomic(fun: AtomicFunction, old: &Value, operand: &Value) -> Value {
    let (a, b) = (old.clone(), operand.clone());
    let op = match fun {
        AtomicFunction::Add => BinaryOperator::Add,
        AtomicFunction::Subtract => BinaryOperator::Subtract,
        AtomicFunction::And => BinaryOperator::And,
        AtomicFunction::ExclusiveOr => BinaryOperator::ExclusiveOr,
        AtomicFunction::InclusiveOr => BinaryOperator::InclusiveOr,
        AtomicFunction::Min => return math(MathFunction::Min, vec![a, b]),
        AtomicFunction::Max => return math(MathFunction::Max, vec![a, b]),
        AtomicFunction::Exchange { compare: _ } => panic!("an exchange computes nothing"),
    };
    binary(op, a, b)
}

pub(crate) fn math(fun: MathFunction, arguments: Vec<Value>) -> Value {
    if fun == MathFunction::Dot {
        let [a, b]: [Value; 2] = arguments.try_into().unwrap();
        let products = binary(BinaryOperator::Multiply, a, b).into_parts();
        let sum = |a, b| binary(BinaryOperator::Add, a, b);
        return products.into_iter().reduce(sum).unwrap();
    }
    each(arguments, &|of| {
        let bits: Vec<_> = of.iter().map(Value::bits).collect();
        match of[0] {
            Value::Float(_) => float_math(fun, &bits),
            Value::Int(a) => Value::Int(match fun {
                MathFunction::Abs => a.wrapping_abs(),
                MathFunction::Sign => a.signum(),
                MathFunction::Min => a.min(bits[1] as i32),
                MathFunction::Max => a.max(bits[1] as i32),
                MathFunction::Clamp => a.max(bits[1] as i32).min(bits[2] as i32),
                other => uint_math(other, &bits) as i32,
            }),
            _ => Value::Uint(uint_math(fun, &bits)),
        }
    })
}

fn uint_math(fun: MathFunction, of: &[u32]) -> u32 {
    match fun {
        MathFunction::Abs => of[0],
        // naga takes it, which WGSL does not.
        MathFunction::Sign => of[0].min(1),
        MathFunction::Min => of[0].min(of[1]),
        MathFunction::Max => of[0].max(of[1]),
        MathFunction::Clamp => of[0].max(of[1]).min(of[2]),
        MathFunction::CountOneBits => of[0].count_ones(),
        MathFunction::ReverseBits => of[0].reverse_bits(),
        other => panic!("not evaluated: {other:?}"),
    }
}

/// `min` and `max` keep their first operand, be it NaN or a zero of the other sign.
fn float_math(fun: MathFunction, of: &[u32]) -> Value {
    let value = |index: usize| f32::from_bits(of[index]);
    let smaller = |a: f32, b: f32| if b < a { b } else { a };
    let larger = |a: f32, b: f32| if a < b { b } else { a };
    let kept = match fun {
        MathFunction::Min => Some(smaller(value(0), value(1))),
        MathFunction::Max => Some(larger(value(0), value(1))),
        MathFunction::Clamp => Some(smaller(larger(value(0), value(1)), value(2))),
        _ => None,
    };
    if let Some(kept) = kept {
        return Value::Float(kept.to_bits());
    }
    float_value(of, |of| match fun {
        MathFunction::Abs => of[0].abs(),
        MathFunction::Floor => of[0].floor(),
        MathFunction::Ceil => of[0].ceil(),
        MathFunction::Trunc => of[0].trunc(),
        MathFunction::Sqrt => of[0].sqrt(),
        MathFunction::Fma => of[0].mul_add(of[1], of[2]),
        MathFunction::Mix => of[0] * (1.0 - of[2]) + of[1] * of[2],
        MathFunction::Sign if of[0] == 0.0 => of[0],
        MathFunction::Sign => of[0].signum(),
        MathFunction::Step => f32::from(of[1] >= of[0]),
        other => panic!("not evaluated: {other:?}"),
    })
}
