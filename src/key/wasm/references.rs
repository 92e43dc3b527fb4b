//! The types that a type refers to.

use wasmparser::{
    ArrayType, CompositeInnerType, CompositeType, ContType, FieldType, HeapType, PackedIndex,
    StorageType, SubType, UnpackedIndex, ValType,
};

/// Names each reference of a type to another one of the module, in the order in which a type
/// lists them.
pub(super) fn each_reference(ty: &SubType, mut see: impl FnMut(u32)) {
    let SubType {
        is_final: _,
        supertype_idxs,
        composite_type:
            CompositeType {
                inner,
                shared: _,
                descriptor_idx,
                describes_idx,
            },
    } = ty;
    let mut packed = |index: &PackedIndex| see_index(index.unpack(), &mut see);
    supertype_idxs.iter().for_each(&mut packed);
    descriptor_idx.iter().for_each(&mut packed);
    describes_idx.iter().for_each(&mut packed);
    match inner {
        CompositeInnerType::Func(function) => {
            for ty in function.params().iter().chain(function.results()) {
                see_value(*ty, &mut see);
            }
        }
        CompositeInnerType::Array(ArrayType(field)) => see_field(field, &mut see),
        CompositeInnerType::Struct(structure) => {
            for field in &structure.fields {
                see_field(field, &mut see);
            }
        }
        CompositeInnerType::Cont(ContType(index)) => packed(index),
    }
}

fn see_field(field: &FieldType, see: &mut impl FnMut(u32)) {
    let FieldType {
        element_type,
        mutable: _,
    } = *field;
    match element_type {
        StorageType::I8 | StorageType::I16 => {}
        StorageType::Val(ty) => see_value(ty, see),
    }
}

fn see_value(ty: ValType, see: &mut impl FnMut(u32)) {
    match ty {
        ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64 | ValType::V128 => {}
        ValType::Ref(reference) => match reference.heap_type() {
            HeapType::Abstract { shared: _, ty: _ } => {}
            HeapType::Concrete(index) | HeapType::Exact(index) => see_index(index, see),
        },
    }
}

/// A parsed type names others by their index in the module alone.
fn see_index(index: UnpackedIndex, see: &mut impl FnMut(u32)) {
    if let UnpackedIndex::Module(index) = index {
        see(index);
    }
}
