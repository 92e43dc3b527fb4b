//! Types, bindings and module-level items on the wire.

use naga::{
    AddressSpace, ArraySize, Binding, BuiltIn, Constant, EarlyDepthTest, GlobalVariable,
    ImageClass, Override, ResourceBinding, Scalar, StructMember, Type, TypeInner,
};

use super::{References, tags};
use crate::key::WireWriter;

pub(super) fn type_(wire: &mut WireWriter, to: &mut impl References, ty: &Type) {
    let Type { name, inner } = ty;
    wire.option(name.as_deref(), WireWriter::str);
    // Only the types that back ends know by name keep one, and with it those of their members.
    type_inner(wire, to, inner, true);
}

/// Writes a type, with or without the names of its members.
pub(in super::super) fn type_inner(
    wire: &mut WireWriter,
    to: &mut impl References,
    inner: &TypeInner,
    named: bool,
) {
    match inner {
        TypeInner::Scalar(of) => {
            wire.u8(0);
            scalar(wire, *of);
        }
        TypeInner::Vector { size, scalar: of } => {
            wire.u8(1);
            tags::vector_size(wire, *size);
            scalar(wire, *of);
        }
        TypeInner::Matrix {
            columns,
            rows,
            scalar: of,
        } => {
            wire.u8(2);
            tags::vector_size(wire, *columns);
            tags::vector_size(wire, *rows);
            scalar(wire, *of);
        }
        TypeInner::CooperativeMatrix {
            columns,
            rows,
            scalar: of,
            role,
        } => {
            wire.u8(3);
            tags::cooperative_size(wire, *columns);
            tags::cooperative_size(wire, *rows);
            scalar(wire, *of);
            tags::cooperative_role(wire, *role);
        }
        TypeInner::Atomic(of) => {
            wire.u8(4);
            scalar(wire, *of);
        }
        TypeInner::Pointer { base, space } => {
            wire.u8(5);
            to.ty(wire, *base);
            address_space(wire, *space);
        }
        TypeInner::ValuePointer {
            size,
            scalar: of,
            space,
        } => {
            wire.u8(6);
            wire.option(*size, tags::vector_size);
            scalar(wire, *of);
            address_space(wire, *space);
        }
        TypeInner::Array { base, size, stride } => {
            wire.u8(7);
            to.ty(wire, *base);
            array_size(wire, to, *size);
            wire.u32(*stride);
        }
        TypeInner::Struct { members, span } => {
            wire.u8(8);
            wire.seq(members, |wire, member| {
                struct_member(wire, to, member, named);
            });
            wire.u32(*span);
        }
        TypeInner::Image {
            dim,
            arrayed,
            class,
        } => {
            wire.u8(9);
            tags::image_dimension(wire, *dim);
            wire.bool(*arrayed);
            image_class(wire, *class);
        }
        TypeInner::Sampler { comparison } => {
            wire.u8(10);
            wire.bool(*comparison);
        }
        TypeInner::AccelerationStructure { vertex_return } => {
            wire.u8(11);
            wire.bool(*vertex_return);
        }
        TypeInner::RayQuery { vertex_return } => {
            wire.u8(12);
            wire.bool(*vertex_return);
        }
        TypeInner::BindingArray { base, size } => {
            wire.u8(13);
            to.ty(wire, *base);
            array_size(wire, to, *size);
        }
    }
}

fn struct_member(
    wire: &mut WireWriter,
    to: &mut impl References,
    member: &StructMember,
    named: bool,
) {
    let StructMember {
        name,
        ty,
        binding: bound,
        offset,
    } = member;
    wire.option(name.as_deref().filter(|_| named), WireWriter::str);
    to.ty(wire, *ty);
    wire.option(bound.as_ref(), binding);
    wire.u32(*offset);
}

pub(super) fn scalar(wire: &mut WireWriter, scalar: Scalar) {
    let Scalar { kind, width } = scalar;
    tags::scalar_kind(wire, kind);
    wire.u8(width);
}

fn array_size(wire: &mut WireWriter, to: &mut impl References, size: ArraySize) {
    match size {
        ArraySize::Constant(count) => {
            wire.u8(0);
            wire.u32(count.get());
        }
        ArraySize::Pending(handle) => {
            wire.u8(1);
            to.override_(wire, handle);
        }
        ArraySize::Dynamic => wire.u8(2),
    }
}

fn address_space(wire: &mut WireWriter, space: AddressSpace) {
    match space {
        AddressSpace::Function => wire.u8(0),
        AddressSpace::Private => wire.u8(1),
        AddressSpace::WorkGroup => wire.u8(2),
        AddressSpace::Uniform => wire.u8(3),
        AddressSpace::Storage { access } => {
            wire.u8(4);
            wire.u32(access.bits());
        }
        AddressSpace::Handle => wire.u8(5),
        AddressSpace::Immediate => wire.u8(6),
        AddressSpace::TaskPayload => wire.u8(7),
        AddressSpace::RayPayload => wire.u8(8),
        AddressSpace::IncomingRayPayload => wire.u8(9),
    }
}

fn image_class(wire: &mut WireWriter, class: ImageClass) {
    match class {
        ImageClass::Sampled { kind, multi } => {
            wire.u8(0);
            tags::scalar_kind(wire, kind);
            wire.bool(multi);
        }
        ImageClass::Depth { multi } => {
            wire.u8(1);
            wire.bool(multi);
        }
        ImageClass::External => wire.u8(2),
        ImageClass::Storage { format, access } => {
            wire.u8(3);
            tags::storage_format(wire, format);
            wire.u32(access.bits());
        }
    }
}

pub(super) fn early_depth_test(wire: &mut WireWriter, test: EarlyDepthTest) {
    match test {
        EarlyDepthTest::Force => wire.u8(0),
        EarlyDepthTest::Allow { conservative } => {
            wire.u8(1);
            tags::conservative_depth(wire, conservative);
        }
    }
}

pub(super) fn binding(wire: &mut WireWriter, binding: &Binding) {
    match binding {
        Binding::BuiltIn(builtin) => {
            wire.u8(0);
            built_in(wire, *builtin);
        }
        Binding::Location {
            location,
            interpolation,
            sampling,
            blend_src,
            per_primitive,
        } => {
            wire.u8(1);
            wire.u32(*location);
            wire.option(*interpolation, tags::interpolation);
            wire.option(*sampling, tags::sampling);
            wire.option(*blend_src, WireWriter::u32);
            wire.bool(*per_primitive);
        }
    }
}

fn built_in(wire: &mut WireWriter, builtin: BuiltIn) {
    let (tag, detail) = match builtin {
        BuiltIn::PrimitiveIndex => (0, None),
        BuiltIn::Position { invariant } => (1, Some(invariant)),
        BuiltIn::ViewIndex => (2, None),
        BuiltIn::BaseInstance => (3, None),
        BuiltIn::BaseVertex => (4, None),
        BuiltIn::ClipDistances => (5, None),
        BuiltIn::CullDistance => (6, None),
        BuiltIn::InstanceIndex => (7, None),
        BuiltIn::PointSize => (8, None),
        BuiltIn::VertexIndex => (9, None),
        BuiltIn::DrawIndex => (10, None),
        BuiltIn::FragDepth => (11, None),
        BuiltIn::PointCoord => (12, None),
        BuiltIn::FrontFacing => (13, None),
        BuiltIn::Barycentric { perspective } => (14, Some(perspective)),
        BuiltIn::SampleIndex => (15, None),
        BuiltIn::SampleMask => (16, None),
        BuiltIn::GlobalInvocationId => (17, None),
        BuiltIn::LocalInvocationId => (18, None),
        BuiltIn::LocalInvocationIndex => (19, None),
        BuiltIn::WorkGroupId => (20, None),
        BuiltIn::WorkGroupSize => (21, None),
        BuiltIn::NumWorkGroups => (22, None),
        BuiltIn::NumSubgroups => (23, None),
        BuiltIn::SubgroupId => (24, None),
        BuiltIn::SubgroupSize => (25, None),
        BuiltIn::SubgroupInvocationId => (26, None),
        BuiltIn::MeshTaskSize => (27, None),
        BuiltIn::CullPrimitive => (28, None),
        BuiltIn::PointIndex => (29, None),
        BuiltIn::LineIndices => (30, None),
        BuiltIn::TriangleIndices => (31, None),
        BuiltIn::VertexCount => (32, None),
        BuiltIn::Vertices => (33, None),
        BuiltIn::PrimitiveCount => (34, None),
        BuiltIn::Primitives => (35, None),
        BuiltIn::RayInvocationId => (36, None),
        BuiltIn::NumRayInvocations => (37, None),
        BuiltIn::InstanceCustomData => (38, None),
        BuiltIn::GeometryIndex => (39, None),
        BuiltIn::WorldRayOrigin => (40, None),
        BuiltIn::WorldRayDirection => (41, None),
        BuiltIn::ObjectRayOrigin => (42, None),
        BuiltIn::ObjectRayDirection => (43, None),
        BuiltIn::RayTmin => (44, None),
        BuiltIn::RayTCurrentMax => (45, None),
        BuiltIn::ObjectToWorld => (46, None),
        BuiltIn::WorldToObject => (47, None),
        BuiltIn::HitKind => (48, None),
    };
    wire.u8(tag);
    // The tag says whether there is one.
    if let Some(detail) = detail {
        wire.bool(detail);
    }
}

pub(super) fn constant(wire: &mut WireWriter, to: &mut impl References, constant: &Constant) {
    let Constant { name, ty, init } = constant;
    wire.option(name.as_deref(), WireWriter::str);
    to.ty(wire, *ty);
    to.expression(wire, *init);
}

pub(super) fn override_(wire: &mut WireWriter, to: &mut impl References, item: &Override) {
    let Override { name, id, ty, init } = item;
    wire.option(name.as_deref(), WireWriter::str);
    wire.option(*id, WireWriter::u16);
    to.ty(wire, *ty);
    wire.option(*init, |wire, init| to.expression(wire, init));
}

pub(super) fn global(wire: &mut WireWriter, to: &mut impl References, global: &GlobalVariable) {
    global_head(wire, global);
    let GlobalVariable {
        name,
        space: _,
        binding: _,
        ty,
        init,
        memory_decorations: _,
    } = global;
    wire.option(name.as_deref(), WireWriter::str);
    to.ty(wire, *ty);
    wire.option(*init, |wire, init| to.expression(wire, init));
}

/// Writes where a global lives, without its name, type and initial value.
pub(in super::super) fn global_head(wire: &mut WireWriter, global: &GlobalVariable) {
    let GlobalVariable {
        name: _,
        space,
        binding,
        ty: _,
        init: _,
        memory_decorations,
    } = global;
    address_space(wire, *space);
    wire.option(*binding, |wire, resource| {
        let ResourceBinding { group, binding } = resource;
        wire.u32(group);
        wire.u32(binding);
    });
    wire.u8(memory_decorations.bits());
}
