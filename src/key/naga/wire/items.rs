//! Module-level items, types and bindings.

use naga::{
    AddressSpace, ArraySize, Binding, BuiltIn, Constant, EarlyDepthTest, FunctionArgument,
    FunctionResult, GlobalVariable, ImageClass, LocalVariable, MeshStageInfo, Override,
    PredeclaredType, ResourceBinding, Scalar, SpecialTypes, StructMember, Type, TypeInner,
};

use super::construct::{Construct, constructs};
use super::reader::Reader;
use super::target::Target;

constructs! {
    struct SpecialTypes {
        ray_desc, ray_intersection, ray_vertex_return, external_texture_params,
        external_texture_transfer_function, predeclared_types
    }
    enum PredeclaredType {
        0 AtomicCompareExchangeWeakResult(value),
        1 ModfResult { size, scalar },
        2 FrexpResult { size, scalar },
    }
    struct Constant { name, ty, init }
    struct Override { name, id, ty, init }
    struct GlobalVariable { space, binding, memory_decorations, name, ty, init }
    struct ResourceBinding { group, binding }
    struct LocalVariable { name, ty, init }
    struct FunctionArgument { name, ty, binding }
    struct FunctionResult { ty, binding }
    enum EarlyDepthTest {
        0 Force,
        1 Allow { conservative },
    }
    struct MeshStageInfo {
        topology, max_vertices, max_vertices_override, max_primitives, max_primitives_override,
        vertex_output_type, primitive_output_type, output_variable
    }
}

constructs! {
    struct Type { name, inner }
    enum TypeInner {
        0 Scalar(value),
        1 Vector { size, scalar },
        2 Matrix { columns, rows, scalar },
        3 CooperativeMatrix { columns, rows, scalar, role },
        4 Atomic(value),
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
        0 Constant(value),
        1 Pending(value),
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
        0 BuiltIn(value),
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
