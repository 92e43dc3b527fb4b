//! The number of every variant that carries nothing.
//!
//! A number that has been given is never given again: it is part of every stored key.

use naga::{
    BinaryOperator, CollectiveOperation, ConservativeDepth, CooperativeRole, CooperativeSize,
    DerivativeAxis, DerivativeControl, Direction, ImageDimension, Interpolation, MathFunction,
    MeshOutputTopology, RelationalFunction, Sampling, ScalarKind, ShaderStage, StorageFormat,
    SubgroupOperation, SwizzleComponent, UnaryOperator, VectorSize,
};

use naga::diagnostic_filter::Severity;

use crate::key::WireWriter;

macro_rules! tags {
    ($($name:ident($type:ident) { $($variant:ident = $tag:literal,)* })*) => {
        $(pub(super) fn $name(wire: &mut WireWriter, value: $type) {
            wire.u8(match value {
                $($type::$variant => $tag,)*
            });
        })*
    };
}

tags! {
    severity(Severity) {
        Off = 0,
        Info = 1,
        Warning = 2,
        Error = 3,
    }
    conservative_depth(ConservativeDepth) {
        GreaterEqual = 0,
        LessEqual = 1,
        Unchanged = 2,
    }
    cooperative_role(CooperativeRole) {
        A = 0,
        B = 1,
        C = 2,
    }
    cooperative_size(CooperativeSize) {
        Eight = 0,
        Sixteen = 1,
    }
    vector_size(VectorSize) {
        Bi = 0,
        Tri = 1,
        Quad = 2,
    }
    scalar_kind(ScalarKind) {
        Sint = 0,
        Uint = 1,
        Float = 2,
        Bool = 3,
        AbstractInt = 4,
        AbstractFloat = 5,
    }
    interpolation(Interpolation) {
        Perspective = 0,
        Linear = 1,
        Flat = 2,
        PerVertex = 3,
    }
    sampling(Sampling) {
        Center = 0,
        Centroid = 1,
        Sample = 2,
        First = 3,
        Either = 4,
    }
    image_dimension(ImageDimension) {
        D1 = 0,
        D2 = 1,
        D3 = 2,
        Cube = 3,
    }
    storage_format(StorageFormat) {
        R8Unorm = 0,
        R8Snorm = 1,
        R8Uint = 2,
        R8Sint = 3,
        R16Uint = 4,
        R16Sint = 5,
        R16Float = 6,
        Rg8Unorm = 7,
        Rg8Snorm = 8,
        Rg8Uint = 9,
        Rg8Sint = 10,
        R32Uint = 11,
        R32Sint = 12,
        R32Float = 13,
        Rg16Uint = 14,
        Rg16Sint = 15,
        Rg16Float = 16,
        Rgba8Unorm = 17,
        Rgba8Snorm = 18,
        Rgba8Uint = 19,
        Rgba8Sint = 20,
        Bgra8Unorm = 21,
        Rgb10a2Uint = 22,
        Rgb10a2Unorm = 23,
        Rg11b10Ufloat = 24,
        R64Uint = 25,
        Rg32Uint = 26,
        Rg32Sint = 27,
        Rg32Float = 28,
        Rgba16Uint = 29,
        Rgba16Sint = 30,
        Rgba16Float = 31,
        Rgba32Uint = 32,
        Rgba32Sint = 33,
        Rgba32Float = 34,
        R16Unorm = 35,
        R16Snorm = 36,
        Rg16Unorm = 37,
        Rg16Snorm = 38,
        Rgba16Unorm = 39,
        Rgba16Snorm = 40,
    }
    mesh_topology(MeshOutputTopology) {
        Points = 0,
        Lines = 1,
        Triangles = 2,
    }
    shader_stage(ShaderStage) {
        Vertex = 0,
        Task = 1,
        Mesh = 2,
        Fragment = 3,
        Compute = 4,
        RayGeneration = 5,
        Miss = 6,
        AnyHit = 7,
        ClosestHit = 8,
    }
    unary_operator(UnaryOperator) {
        Negate = 0,
        LogicalNot = 1,
        BitwiseNot = 2,
    }
    binary_operator(BinaryOperator) {
        Add = 0,
        Subtract = 1,
        Multiply = 2,
        Divide = 3,
        Modulo = 4,
        Equal = 5,
        NotEqual = 6,
        Less = 7,
        LessEqual = 8,
        Greater = 9,
        GreaterEqual = 10,
        And = 11,
        ExclusiveOr = 12,
        InclusiveOr = 13,
        LogicalAnd = 14,
        LogicalOr = 15,
        ShiftLeft = 16,
        ShiftRight = 17,
    }
    derivative_axis(DerivativeAxis) {
        X = 0,
        Y = 1,
        Width = 2,
    }
    derivative_control(DerivativeControl) {
        Coarse = 0,
        Fine = 1,
        None = 2,
    }
    relational_function(RelationalFunction) {
        All = 0,
        Any = 1,
        IsNan = 2,
        IsInf = 3,
    }
    math_function(MathFunction) {
        Abs = 0,
        Min = 1,
        Max = 2,
        Clamp = 3,
        Saturate = 4,
        Cos = 5,
        Cosh = 6,
        Sin = 7,
        Sinh = 8,
        Tan = 9,
        Tanh = 10,
        Acos = 11,
        Asin = 12,
        Atan = 13,
        Atan2 = 14,
        Asinh = 15,
        Acosh = 16,
        Atanh = 17,
        Radians = 18,
        Degrees = 19,
        Ceil = 20,
        Floor = 21,
        Round = 22,
        Fract = 23,
        Trunc = 24,
        Modf = 25,
        Frexp = 26,
        Ldexp = 27,
        Exp = 28,
        Exp2 = 29,
        Log = 30,
        Log2 = 31,
        Pow = 32,
        Dot = 33,
        Dot4I8Packed = 34,
        Dot4U8Packed = 35,
        Outer = 36,
        Cross = 37,
        Distance = 38,
        Length = 39,
        Normalize = 40,
        FaceForward = 41,
        Reflect = 42,
        Refract = 43,
        Sign = 44,
        Fma = 45,
        Mix = 46,
        Step = 47,
        SmoothStep = 48,
        Sqrt = 49,
        InverseSqrt = 50,
        Inverse = 51,
        Transpose = 52,
        Determinant = 53,
        QuantizeToF16 = 54,
        CountTrailingZeros = 55,
        CountLeadingZeros = 56,
        CountOneBits = 57,
        ReverseBits = 58,
        ExtractBits = 59,
        InsertBits = 60,
        FirstTrailingBit = 61,
        FirstLeadingBit = 62,
        Pack4x8snorm = 63,
        Pack4x8unorm = 64,
        Pack2x16snorm = 65,
        Pack2x16unorm = 66,
        Pack2x16float = 67,
        Pack4xI8 = 68,
        Pack4xU8 = 69,
        Pack4xI8Clamp = 70,
        Pack4xU8Clamp = 71,
        Unpack4x8snorm = 72,
        Unpack4x8unorm = 73,
        Unpack2x16snorm = 74,
        Unpack2x16unorm = 75,
        Unpack2x16float = 76,
        Unpack4xI8 = 77,
        Unpack4xU8 = 78,
    }
    swizzle_component(SwizzleComponent) {
        X = 0,
        Y = 1,
        Z = 2,
        W = 3,
    }
    direction(Direction) {
        X = 0,
        Y = 1,
        Diagonal = 2,
    }
    subgroup_operation(SubgroupOperation) {
        All = 0,
        Any = 1,
        Add = 2,
        Mul = 3,
        Min = 4,
        Max = 5,
        And = 6,
        Or = 7,
        Xor = 8,
    }
    collective_operation(CollectiveOperation) {
        Reduce = 0,
        InclusiveScan = 1,
        ExclusiveScan = 2,
    }
}
