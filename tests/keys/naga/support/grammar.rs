//! Every construct of naga's IR as it stands on the wire: its tag and its fields, in order.
//!
//! It is written down a second time here, apart from the writer, so that neither can lose a field
//! or renumber a variant without the other.

use std::sync::OnceLock;

use naga::*;

use super::parts::{Arm, Change, Handles, Part, Reader, named, parts, plain, pool};

/// What handles point to.
pub(crate) trait Pooled: Clone + std::fmt::Debug + 'static {
    const ARM: Arm;

    /// Handles by their index: as many as any test needs.
    fn pool() -> &'static [Handle<Self>];
}

macro_rules! pools {
    ($($item:ident: $arm:ident $count:literal,)*) => {
        $(impl Pooled for $item {
            const ARM: Arm = Arm::$arm;

            fn pool() -> &'static [Handle<Self>] {
                static POOL: OnceLock<Vec<Handle<$item>>> = OnceLock::new();
                POOL.get_or_init(|| pool(Self::sample(), $count))
            }
        })*
    };
}
pools! {
    Type: Type 1000,
    Constant: Constant 1000,
    Override: Override 1000,
    GlobalVariable: Global 1000,
    LocalVariable: Local 1000,
    Function: Function 1000,
    Expression: Expression 20_000,
}

parts! {
    struct Module without { diagnostic_filters, diagnostic_filter_leaf, doc_comments } {
        types, special_types, constants, overrides, global_variables, global_expressions,
        functions, entry_points
    }
    struct SpecialTypes {
        ray_desc, ray_intersection, ray_vertex_return, external_texture_params,
        external_texture_transfer_function, predeclared_types
    }
    enum PredeclaredType {
        0 AtomicCompareExchangeWeakResult { 0 },
        1 ModfResult { size, scalar },
        2 FrexpResult { size, scalar },
    }
    struct Constant { name, ty, init }
    struct Override { name, id, ty, init }
    struct GlobalVariable { space, binding, memory_decorations, name, ty, init }
    struct ResourceBinding { group, binding }
    struct LocalVariable { name, ty, init }
    struct Function without { diagnostic_filter_leaf } {
        name, arguments, result, local_variables, expressions, named_expressions, body
    }
    struct FunctionArgument { name, ty, binding }
    struct FunctionResult { ty, binding }
    struct EntryPoint {
        name, stage, early_depth_test, workgroup_size, workgroup_size_overrides, function,
        mesh_info, task_payload, incoming_ray_payload
    }
    enum EarlyDepthTest {
        0 Force,
        1 Allow { conservative },
    }
    struct MeshStageInfo {
        topology, max_vertices, max_vertices_override, max_primitives, max_primitives_override,
        vertex_output_type, primitive_output_type, output_variable
    }
}

// Types.
parts! {
    struct Type { name, inner }
    enum TypeInner {
        0 Scalar { 0 },
        1 Vector { size, scalar },
        2 Matrix { columns, rows, scalar },
        3 CooperativeMatrix { columns, rows, scalar, role },
        4 Atomic { 0 },
        5 Pointer { base, space },
        6 ValuePointer { size, scalar, space },
        7 Array { base, size, stride },
        8 Struct { members, span },
        9 Image { dim, arrayed, class },
        10 Sampler { comparison },
        11 AccelerationStructure { vertex_return },
        12 RayQuery { vertex_return },
        13 BindingArray { base, size },
    }
    struct StructMember { name, ty, binding, offset }
    struct Scalar { kind, width }
    enum ArraySize {
        0 Constant { 0 },
        1 Pending { 0 },
        2 Dynamic,
    }
    enum AddressSpace {
        0 Function, 1 Private, 2 WorkGroup, 3 Uniform,
        4 Storage { access },
        5 Handle, 6 Immediate, 7 TaskPayload, 8 RayPayload, 9 IncomingRayPayload,
    }
    enum ImageClass {
        0 Sampled { kind, multi },
        1 Depth { multi },
        2 External,
        3 Storage { format, access },
    }
    enum Binding {
        0 BuiltIn { 0 },
        1 Location { location, interpolation, sampling, blend_src, per_primitive },
    }
    enum BuiltIn {
        0 PrimitiveIndex, 2 ViewIndex, 3 BaseInstance, 4 BaseVertex, 5 ClipDistances,
        6 CullDistance, 7 InstanceIndex, 8 PointSize, 9 VertexIndex, 10 DrawIndex, 11 FragDepth,
        12 PointCoord, 13 FrontFacing, 15 SampleIndex, 16 SampleMask, 17 GlobalInvocationId,
        18 LocalInvocationId, 19 LocalInvocationIndex, 20 WorkGroupId, 21 WorkGroupSize,
        22 NumWorkGroups, 23 NumSubgroups, 24 SubgroupId, 25 SubgroupSize,
        26 SubgroupInvocationId, 27 MeshTaskSize, 28 CullPrimitive, 29 PointIndex, 30 LineIndices,
        31 TriangleIndices, 32 VertexCount, 33 Vertices, 34 PrimitiveCount, 35 Primitives,
        36 RayInvocationId, 37 NumRayInvocations, 38 InstanceCustomData, 39 GeometryIndex,
        40 WorldRayOrigin, 41 WorldRayDirection, 42 ObjectRayOrigin, 43 ObjectRayDirection,
        44 RayTmin, 45 RayTCurrentMax, 46 ObjectToWorld, 47 WorldToObject, 48 HitKind,
        1 Position { invariant }, 14 Barycentric { perspective },
    }
}

parts! {
    enum Expression {
        0 Literal { 0 },
        1 Constant { 0 },
        2 Override { 0 },
        3 ZeroValue { 0 },
        4 Compose { ty, components },
        5 Access { base, index },
        6 AccessIndex { base, index },
        7 Splat { size, value },
        8 Swizzle { size, pattern, vector },
        9 FunctionArgument { 0 },
        10 GlobalVariable { 0 },
        11 LocalVariable { 0 },
        12 Load { pointer },
        13 ImageSample {
            image, sampler, gather, coordinate, array_index, offset, level, depth_ref,
            clamp_to_edge
        },
        14 ImageLoad { image, coordinate, array_index, sample, level },
        15 ImageQuery { image, query },
        16 Unary { op, expr },
        17 Binary { op, left, right },
        18 Select { condition, accept, reject },
        19 Derivative { axis, ctrl, expr },
        20 Relational { fun, argument },
        21 Math { fun, arg, arg1, arg2, arg3 },
        22 As { expr, kind, convert },
        23 CallResult { 0 },
        24 AtomicResult { ty, comparison },
        25 WorkGroupUniformLoadResult { ty },
        26 ArrayLength { 0 },
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
        2 Exact { 0 },
        3 Bias { 0 },
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

parts! {
    enum Statement {
        0 Emit { 0 },
        1 Block { 0 },
        2 If { condition, accept, reject },
        3 Switch { selector, cases },
        4 Loop { body, continuing, break_if },
        5 Break,
        6 Continue,
        7 Return { value },
        8 Kill,
        9 ControlBarrier { 0 },
        10 MemoryBarrier { 0 },
        11 Store { pointer, value },
        12 ImageStore { image, coordinate, array_index, value },
        13 Atomic { pointer, fun, value, result },
        14 ImageAtomic { image, coordinate, array_index, fun, value },
        15 WorkGroupUniformLoad { pointer, result },
        16 Call { function, arguments, result },
        17 RayQuery { query, fun },
        18 RayPipelineFunction { 0 },
        19 SubgroupBallot { predicate, result },
        20 SubgroupGather { mode, argument, result },
        21 SubgroupCollectiveOperation { op, collective_op, argument, result },
        22 CooperativeStore { target, data },
    }
    struct SwitchCase { value, body, fall_through }
    enum SwitchValue {
        0 I32 { 0 },
        1 U32 { 0 },
        2 Default,
    }
    enum AtomicFunction {
        0 Add, 1 Subtract, 2 And, 3 ExclusiveOr, 4 InclusiveOr, 5 Min, 6 Max,
        7 Exchange { compare },
    }
    enum RayQueryFunction {
        0 Initialize { acceleration_structure, descriptor },
        1 Proceed { result },
        2 GenerateIntersection { hit_t },
        3 ConfirmIntersection,
        4 Terminate,
    }
    enum GatherMode {
        0 BroadcastFirst,
        1 Broadcast { 0 },
        2 Shuffle { 0 },
        3 ShuffleDown { 0 },
        4 ShuffleUp { 0 },
        5 ShuffleXor { 0 },
        6 QuadBroadcast { 0 },
        7 QuadSwap { 0 },
    }
}

parts! {
    tags ConservativeDepth {
        0 GreaterEqual, 1 LessEqual, 2 Unchanged,
    }
    tags CooperativeRole {
        0 A, 1 B, 2 C,
    }
    tags CooperativeSize {
        0 Eight, 1 Sixteen,
    }
    tags VectorSize {
        0 Bi, 1 Tri, 2 Quad,
    }
    tags ScalarKind {
        0 Sint, 1 Uint, 2 Float, 3 Bool, 4 AbstractInt, 5 AbstractFloat,
    }
    tags Interpolation {
        0 Perspective, 1 Linear, 2 Flat, 3 PerVertex,
    }
    tags Sampling {
        0 Center, 1 Centroid, 2 Sample, 3 First, 4 Either,
    }
    tags ImageDimension {
        0 D1, 1 D2, 2 D3, 3 Cube,
    }
    tags StorageFormat {
        0 R8Unorm, 1 R8Snorm, 2 R8Uint, 3 R8Sint, 4 R16Uint, 5 R16Sint, 6 R16Float, 7 Rg8Unorm,
        8 Rg8Snorm, 9 Rg8Uint, 10 Rg8Sint, 11 R32Uint, 12 R32Sint, 13 R32Float, 14 Rg16Uint,
        15 Rg16Sint, 16 Rg16Float, 17 Rgba8Unorm, 18 Rgba8Snorm, 19 Rgba8Uint, 20 Rgba8Sint,
        21 Bgra8Unorm, 22 Rgb10a2Uint, 23 Rgb10a2Unorm, 24 Rg11b10Ufloat, 25 R64Uint, 26 Rg32Uint,
        27 Rg32Sint, 28 Rg32Float, 29 Rgba16Uint, 30 Rgba16Sint, 31 Rgba16Float, 32 Rgba32Uint,
        33 Rgba32Sint, 34 Rgba32Float, 35 R16Unorm, 36 R16Snorm, 37 Rg16Unorm, 38 Rg16Snorm,
        39 Rgba16Unorm, 40 Rgba16Snorm,
    }
    tags MeshOutputTopology {
        0 Points, 1 Lines, 2 Triangles,
    }
    tags ShaderStage {
        0 Vertex, 1 Task, 2 Mesh, 3 Fragment, 4 Compute, 5 RayGeneration, 6 Miss, 7 AnyHit,
        8 ClosestHit,
    }
    tags UnaryOperator {
        0 Negate, 1 LogicalNot, 2 BitwiseNot,
    }
    tags BinaryOperator {
        0 Add, 1 Subtract, 2 Multiply, 3 Divide, 4 Modulo, 5 Equal, 6 NotEqual, 7 Less,
        8 LessEqual, 9 Greater, 10 GreaterEqual, 11 And, 12 ExclusiveOr, 13 InclusiveOr,
        14 LogicalAnd, 15 LogicalOr, 16 ShiftLeft, 17 ShiftRight,
    }
    tags DerivativeAxis {
        0 X, 1 Y, 2 Width,
    }
    tags DerivativeControl {
        0 Coarse, 1 Fine, 2 None,
    }
    tags RelationalFunction {
        0 All, 1 Any, 2 IsNan, 3 IsInf,
    }
    tags MathFunction {
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
    tags SwizzleComponent {
        0 X, 1 Y, 2 Z, 3 W,
    }
    tags Direction {
        0 X, 1 Y, 2 Diagonal,
    }
    tags SubgroupOperation {
        0 All, 1 Any, 2 Add, 3 Mul, 4 Min, 5 Max, 6 And, 7 Or, 8 Xor,
    }
    tags CollectiveOperation {
        0 Reduce, 1 InclusiveScan, 2 ExclusiveScan,
    }
}

impl Part for RayPipelineFunction {
    fn read(wire: &mut Reader<'_>) -> Self {
        let [acceleration_structure, descriptor, payload] = Part::read(wire);
        Self::TraceRay {
            acceleration_structure,
            descriptor,
            payload,
        }
    }

    fn variants() -> Vec<fn() -> Self> {
        vec![|| {
            let references = &[0; 12];
            let fields = &[];
            Self::read(&mut Reader { fields, references })
        }]
    }

    fn fields(&self) -> Vec<Change<Self>> {
        let Self::TraceRay {
            acceleration_structure,
            descriptor,
            payload,
        } = *self;
        let changes = [acceleration_structure, descriptor, payload].fields();
        let change = |(_, operands): Change<[_; 3]>| {
            let [acceleration_structure, descriptor, payload] = operands;
            let changed = Self::TraceRay {
                acceleration_structure,
                descriptor,
                payload,
            };
            (String::from("RayPipelineFunction::TraceRay"), changed)
        };
        changes.into_iter().map(change).collect()
    }

    fn mapped(&self, handles: &dyn Handles) -> Self {
        let Self::TraceRay {
            acceleration_structure,
            descriptor,
            payload,
        } = self;
        Self::TraceRay {
            acceleration_structure: acceleration_structure.mapped(handles),
            descriptor: descriptor.mapped(handles),
            payload: payload.mapped(handles),
        }
    }
}
