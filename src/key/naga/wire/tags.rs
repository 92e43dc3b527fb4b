//! The number of every variant that carries nothing.
//!
//! A number that has been given is never given again: it is part of every stored key.

use naga::diagnostic_filter::Severity;
use naga::{
    BinaryOperator, CollectiveOperation, ConservativeDepth, CooperativeRole, CooperativeSize,
    DerivativeAxis, DerivativeControl, Direction, ImageDimension, Interpolation, MathFunction,
    MeshOutputTopology, RelationalFunction, Sampling, ScalarKind, ShaderStage, StorageFormat,
    SubgroupOperation, SwizzleComponent, UnaryOperator, VectorSize,
};

use super::construct::{Construct, constructs};
use super::reader::Reader;
use super::target::Target;

constructs! {
    enum Severity {
        0 Off, 1 Info, 2 Warning, 3 Error,
    }
    enum ConservativeDepth {
        0 GreaterEqual, 1 LessEqual, 2 Unchanged,
    }
    enum CooperativeRole {
        0 A, 1 B, 2 C,
    }
    enum CooperativeSize {
        0 Eight, 1 Sixteen,
    }
    enum VectorSize {
        0 Bi, 1 Tri, 2 Quad,
    }
    enum ScalarKind {
        0 Sint, 1 Uint, 2 Float, 3 Bool, 4 AbstractInt, 5 AbstractFloat,
    }
    enum Interpolation {
        0 Perspective, 1 Linear, 2 Flat, 3 PerVertex,
    }
    enum Sampling {
        0 Center, 1 Centroid, 2 Sample, 3 First, 4 Either,
    }
    enum ImageDimension {
        0 D1, 1 D2, 2 D3, 3 Cube,
    }
    enum StorageFormat {
        0 R8Unorm, 1 R8Snorm, 2 R8Uint, 3 R8Sint, 4 R16Uint, 5 R16Sint, 6 R16Float, 7 Rg8Unorm,
        8 Rg8Snorm, 9 Rg8Uint, 10 Rg8Sint, 11 R32Uint, 12 R32Sint, 13 R32Float, 14 Rg16Uint,
        15 Rg16Sint, 16 Rg16Float, 17 Rgba8Unorm, 18 Rgba8Snorm, 19 Rgba8Uint, 20 Rgba8Sint,
        21 Bgra8Unorm, 22 Rgb10a2Uint, 23 Rgb10a2Unorm, 24 Rg11b10Ufloat, 25 R64Uint, 26 Rg32Uint,
        27 Rg32Sint, 28 Rg32Float, 29 Rgba16Uint, 30 Rgba16Sint, 31 Rgba16Float, 32 Rgba32Uint,
        33 Rgba32Sint, 34 Rgba32Float, 35 R16Unorm, 36 R16Snorm, 37 Rg16Unorm, 38 Rg16Snorm,
        39 Rgba16Unorm, 40 Rgba16Snorm,
    }
    enum MeshOutputTopology {
        0 Points, 1 Lines, 2 Triangles,
    }
    enum ShaderStage {
        0 Vertex, 1 Task, 2 Mesh, 3 Fragment, 4 Compute, 5 RayGeneration, 6 Miss, 7 AnyHit,
        8 ClosestHit,
    }
    enum UnaryOperator {
        0 Negate, 1 LogicalNot, 2 BitwiseNot,
    }
    enum BinaryOperator {
        0 Add, 1 Subtract, 2 Multiply, 3 Divide, 4 Modulo, 5 Equal, 6 NotEqual, 7 Less,
        8 LessEqual, 9 Greater, 10 GreaterEqual, 11 And, 12 ExclusiveOr, 13 InclusiveOr,
        14 LogicalAnd, 15 LogicalOr, 16 ShiftLeft, 17 ShiftRight,
    }
    enum DerivativeAxis {
        0 X, 1 Y, 2 Width,
    }
    enum DerivativeControl {
        0 Coarse, 1 Fine, 2 None,
    }
    enum RelationalFunction {
        0 All, 1 Any, 2 IsNan, 3 IsInf,
    }
    enum MathFunction {
        0 Abs, 1 Min, 2 Max, 3 Clamp, 4 Saturate, 5 Cos, 6 Cosh, 7 Sin, 8 Sinh, 9 Tan, 10 Tanh,
        11 Acos, 12 Asin, 13 Atan, 14 Atan2, 15 Asinh, 16 Acosh, 17 Atanh, 18 Radians, 19 Degrees,
        20 Ceil, 21 Floor, 22 Round, 23 Fract, 24 Trunc, 25 Modf, 26 Frexp, 27 Ldexp, 28 Exp,
        29 Exp2, 30 Log, 31 Log2, 32 Pow, 33 Dot, 34 Dot4I8Packed, 35 Dot4U8Packed, 36 Outer,
        37 Cross, 38 Distance, 39 Length, 40 Normalize, 41 FaceForward, 42 Reflect, 43 Refract,
        44 Sign, 45 Fma, 46 Mix, 47 Step, 48 SmoothStep, 49 Sqrt, 50 InverseSqrt, 51 Inverse,
        52 Transpose, 53 Determinant, 54 QuantizeToF16, 55 CountTrailingZeros,
        56 CountLeadingZeros, 57 CountOneBits, 58 ReverseBits, 59 ExtractBits, 60 InsertBits,
        61 FirstTrailingBit, 62 FirstLeadingBit, 63 Pack4x8snorm, 64 Pack4x8unorm,
        65 Pack2x16snorm, 66 Pack2x16unorm, 67 Pack2x16float, 68 Pack4xI8, 69 Pack4xU8,
        70 Pack4xI8Clamp, 71 Pack4xU8Clamp, 72 Unpack4x8snorm, 73 Unpack4x8unorm,
        74 Unpack2x16snorm, 75 Unpack2x16unorm, 76 Unpack2x16float, 77 Unpack4xI8, 78 Unpack4xU8,
    }
    enum SwizzleComponent {
        0 X, 1 Y, 2 Z, 3 W,
    }
    enum Direction {
        0 X, 1 Y, 2 Diagonal,
    }
    enum SubgroupOperation {
        0 All, 1 Any, 2 Add, 3 Mul, 4 Min, 5 Max, 6 And, 7 Or, 8 Xor,
    }
    enum CollectiveOperation {
        0 Reduce, 1 InclusiveScan, 2 ExclusiveScan,
    }
}
