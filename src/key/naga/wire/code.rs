//! Expressions and statements.

use naga::{
    Arena, AtomicFunction, Block, CooperativeData, Expression, GatherMode, ImageQuery, Literal,
    Range, RayPipelineFunction, RayQueryFunction, SampleLevel, Statement, SwitchCase, SwitchValue,
};

use super::construct::{Construct, Definition as _, constructs};
use super::reader::Reader;
use super::target::Target;

use tag::{BINARY, COMPOSE, EMIT, IF, LITERAL, LOAD, LOOP, SPLAT, STORE, SWITCH, SWIZZLE, UNARY};

/// The tags of statements that are written bit by bit, and of expressions that are looked at.
pub(in super::super) mod tag {
    pub(in super::super::super) const LITERAL: u8 = 0;
    pub(in super::super::super) const COMPOSE: u8 = 4;
    pub(in super::super::super) const SPLAT: u8 = 7;
    pub(in super::super::super) const SWIZZLE: u8 = 8;
    pub(in super::super::super) const LOAD: u8 = 12;
    pub(in super::super::super) const UNARY: u8 = 16;
    pub(in super::super::super) const BINARY: u8 = 17;
    /// Of a value that is a read or a call. No expression begins so on the wire.
    pub(in super::super::super) const ANCHOR: u8 = u8::MAX;

    pub(in super::super::super) const EMIT: u8 = 0;
    pub(in super::super::super) const IF: u8 = 2;
    pub(in super::super::super) const SWITCH: u8 = 3;
    pub(in super::super::super) const LOOP: u8 = 4;
    pub(in super::super::super) const STORE: u8 = 11;
}

constructs! {
    enum Expression {
        LITERAL Literal(value),
        1 Constant(value),
        2 Override(value),
        3 ZeroValue(value),
        COMPOSE Compose { ty, components },
        5 Access { base, index },
        6 AccessIndex { base, index },
        SPLAT Splat { size, value },
        SWIZZLE Swizzle { size, pattern, vector },
        9 FunctionArgument(value),
        10 GlobalVariable(value),
        11 LocalVariable(value),
        LOAD Load { pointer },
        13 ImageSample {
            image, sampler, gather, coordinate, array_index, offset, level, depth_ref,
            clamp_to_edge
        },
        14 ImageLoad { image, coordinate, array_index, sample, level },
        15 ImageQuery { image, query },
        UNARY Unary { op, expr },
        BINARY Binary { op, left, right },
        18 Select { condition, accept, reject },
        19 Derivative { axis, ctrl, expr },
        20 Relational { fun, argument },
        21 Math { fun, arg, arg1, arg2, arg3 },
        22 As { expr, kind, convert },
        23 CallResult(value),
        24 AtomicResult { ty, comparison },
        25 WorkGroupUniformLoadResult { ty },
        26 ArrayLength(value),
        27 RayQueryVertexPositions { query, committed },
        28 RayQueryProceedResult,
        29 RayQueryGetIntersection { query, committed },
        30 SubgroupBallotResult,
        31 SubgroupOperationResult { ty },
        32 CooperativeLoad { columns, rows, role, data },
        33 CooperativeMultiplyAdd { a, b, c },
    }
    enum SampleLevel {
        0 Auto,
        1 Zero,
        2 Exact(value),
        3 Bias(value),
        4 Gradient { x, y },
    }
    enum ImageQuery {
        0 Size { level },
        1 NumLevels,
        2 NumLayers,
        3 NumSamples,
    }
    struct CooperativeData { pointer, stride, row_major }
}

constructs! {
    enum Statement {
        EMIT Emit(value),
        1 Block(value),
        IF If { condition, accept, reject },
        SWITCH Switch { selector, cases },
        LOOP Loop { body, continuing, break_if },
        5 Break,
        6 Continue,
        7 Return { value },
        8 Kill,
        9 ControlBarrier(value),
        10 MemoryBarrier(value),
        STORE Store { pointer, value },
        12 ImageStore { image, coordinate, array_index, value },
        13 Atomic { pointer, fun, value; result },
        14 ImageAtomic { image, coordinate, array_index, fun, value },
        15 WorkGroupUniformLoad { pointer; result },
        16 Call { function, arguments; result },
        17 RayQuery { query, fun },
        18 RayPipelineFunction(value),
        19 SubgroupBallot { predicate; result },
        20 SubgroupGather { mode, argument; result },
        21 SubgroupCollectiveOperation { op, collective_op, argument; result },
        22 CooperativeStore { target, data },
    }
    struct SwitchCase { value, body, fall_through }
    enum SwitchValue {
        0 I32(value),
        1 U32(value),
        2 Default,
    }
    enum AtomicFunction {
        0 Add, 1 Subtract, 2 And, 3 ExclusiveOr, 4 InclusiveOr, 5 Min, 6 Max,
        7 Exchange { compare },
    }
    enum RayQueryFunction {
        0 Initialize { acceleration_structure, descriptor },
        1 Proceed {; result },
        2 GenerateIntersection { hit_t },
        3 ConfirmIntersection,
        4 Terminate,
    }
    enum GatherMode {
        0 BroadcastFirst,
        1 Broadcast(value),
        2 Shuffle(value),
        3 ShuffleDown(value),
        4 ShuffleUp(value),
        5 ShuffleXor(value),
        6 QuadBroadcast(value),
        7 QuadSwap(value),
    }
}

macro_rules! literals {
    ($($tag:literal $variant:ident,)*) => {
        impl Construct for Literal {
            #[inline]
            fn write(&self, to: &mut impl Target) {
                match *self {
                    $(Self::$variant(value) => {
                        to.u8($tag);
                        value.write(to);
                    })*
                    Self::F16(value) => {
                        to.u8(HALF);
                        value.to_bits().write(to);
                    }
                }
            }

            fn read(from: &mut Reader<'_>) -> Option<Self> {
                Some(match from.u8()? {
                    $($tag => Self::$variant(Construct::read(from)?),)*
                    HALF => Self::F16(half(u16::read(from)?).to_string().parse().ok()?),
                    _ => return None,
                })
            }
        }
    };
}

/// naga does not name its type of half floats, so that they have a line of their own.
const HALF: u8 = 2;

literals! {
    0 F64,
    1 F32,
    3 U16,
    4 I16,
    5 U32,
    6 I32,
    7 U64,
    8 I64,
    9 Bool,
    10 AbstractInt,
    11 AbstractFloat,
}

/// The value of a half float. A valid module has none that is not finite.
fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    match exponent {
        0 => sign * fraction * 2f32.powi(-14),
        exponent => sign * (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

impl Construct for Block {
    fn write(&self, to: &mut impl Target) {
        // Of one width, so that whoever writes statement by statement can fill it in.
        to.u32(self.len() as u32);
        self.iter().for_each(|statement| statement.write(to));
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let count = u32::read(from)?;
        let statements: Option<_> = (0..count).map(|_| Construct::read(from)).collect();
        Some(Self::from_vec(statements?))
    }
}

impl Construct for Range<Expression> {
    fn write(&self, to: &mut impl Target) {
        let bounds = self.first_and_last();
        to.bool(bounds.is_some());
        if let Some((first, last)) = bounds {
            first.write(to);
            last.write(to);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(if from.bool()? {
            Self::new_from_bounds(Construct::read(from)?, Construct::read(from)?)
        } else {
            Self::from_index_range(0..0, &Arena::new())
        })
    }
}

impl Construct for RayPipelineFunction {
    fn write(&self, to: &mut impl Target) {
        let Self::TraceRay {
            acceleration_structure,
            descriptor,
            payload,
        } = self;
        [*acceleration_structure, *descriptor, *payload].write(to);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let [acceleration_structure, descriptor, payload] = Construct::read(from)?;
        Some(Self::TraceRay {
            acceleration_structure,
            descriptor,
            payload,
        })
    }
}
