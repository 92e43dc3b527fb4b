//! The canonical module on the wire: every field of every construct that is left in it.
//!
//! Each pattern names all variants and all fields, so that a new one upstream fails to compile
//! here instead of being left out of the key. How a reference to another item is written is up to
//! [`References`]: its index for the wire, nothing where it is gathered beside the fields.

mod expression;
mod statement;
mod tags;
#[cfg(test)]
mod tests;
mod types;

pub(super) use expression::expression;
pub(super) use types::{global_head, type_inner};

use std::fmt;

use naga::{
    Constant, EntryPoint, Expression, Function, GlobalVariable, Handle, LocalVariable,
    MeshStageInfo, Module, Override, PredeclaredType, SpecialTypes, Type,
};

use super::filters;
use super::wire::types::{binding, constant, global, override_, scalar, type_};
use crate::key::WireWriter;

/// How a reference to another item is written.
pub(super) trait References {
    fn ty(&mut self, wire: &mut WireWriter, handle: Handle<Type>);
    fn expression(&mut self, wire: &mut WireWriter, handle: Handle<Expression>);
    fn constant(&mut self, wire: &mut WireWriter, handle: Handle<Constant>);
    fn override_(&mut self, wire: &mut WireWriter, handle: Handle<Override>);
    fn global(&mut self, wire: &mut WireWriter, handle: Handle<GlobalVariable>);
    fn local(&mut self, wire: &mut WireWriter, handle: Handle<LocalVariable>);
    fn function(&mut self, wire: &mut WireWriter, handle: Handle<Function>);
}

/// References as indices: what the wire of a canonical module holds.
struct Indices;

fn index<T>(wire: &mut WireWriter, handle: Handle<T>) {
    // An arena holds at most `u32::MAX` items, so the index always fits.
    wire.u32(u32::try_from(handle.index()).unwrap_or(u32::MAX));
}

impl References for Indices {
    fn ty(&mut self, wire: &mut WireWriter, handle: Handle<Type>) {
        index(wire, handle);
    }

    fn expression(&mut self, wire: &mut WireWriter, handle: Handle<Expression>) {
        index(wire, handle);
    }

    fn constant(&mut self, wire: &mut WireWriter, handle: Handle<Constant>) {
        index(wire, handle);
    }

    fn override_(&mut self, wire: &mut WireWriter, handle: Handle<Override>) {
        index(wire, handle);
    }

    fn global(&mut self, wire: &mut WireWriter, handle: Handle<GlobalVariable>) {
        index(wire, handle);
    }

    fn local(&mut self, wire: &mut WireWriter, handle: Handle<LocalVariable>) {
        index(wire, handle);
    }

    fn function(&mut self, wire: &mut WireWriter, handle: Handle<Function>) {
        index(wire, handle);
    }
}

/// Writes a canonical module. Spans are not written: the canonical module has none.
pub(super) fn module(wire: &mut WireWriter, module: &Module) {
    let Module {
        types,
        special_types: special,
        constants,
        overrides,
        global_variables,
        global_expressions,
        functions,
        entry_points,
        // Written by `filters`.
        diagnostic_filters: _,
        diagnostic_filter_leaf: _,
        doc_comments: _,
    } = module;
    wire.part("types", |wire| {
        wire.items(types.iter(), |wire, (_, item)| {
            type_(wire, &mut Indices, item);
        });
        special_types(wire, special);
    });
    wire.part("constants", |wire| {
        wire.items(constants.iter(), |wire, (_, item)| {
            constant(wire, &mut Indices, item);
        });
    });
    wire.items(overrides.iter(), |wire, (handle, item)| {
        wire.part(OverrideName(handle, item), |wire| {
            override_(wire, &mut Indices, item);
        });
    });
    wire.items(global_variables.iter(), |wire, (handle, item)| {
        wire.part(GlobalName(handle, item), |wire| {
            global(wire, &mut Indices, item);
        });
    });
    wire.part("constant expressions", |wire| {
        wire.items(global_expressions.iter(), |wire, (_, item)| {
            expression(wire, &mut Indices, item);
        });
    });
    wire.items(functions.iter(), |wire, (handle, item)| {
        let name = format_args!("function {}", handle.index());
        wire.part(name, |wire| function(wire, item));
    });
    wire.seq(entry_points, |wire, item| {
        let name = format_args!("entry point {} ({:?})", item.name, item.stage);
        wire.part(name, |wire| entry_point(wire, item));
    });
}

/// Writes the functions and entry points that have a diagnostic filter, and what it says.
pub(super) fn filters(wire: &mut WireWriter, module: &Module) {
    let functions = module.functions.iter().map(|(_, function)| function);
    let mains = module.entry_points.iter().map(|entry| &entry.function);
    let severity = |function: &Function| {
        let leaf = function.diagnostic_filter_leaf;
        filters::severity(&module.diagnostic_filters, leaf)
    };
    let filtered: Vec<_> = (0_u32..)
        .zip(functions.chain(mains))
        .filter_map(|(index, function)| Some((index, severity(function)?)))
        .collect();
    wire.part("diagnostic filters", |wire| {
        wire.seq(&filtered, |wire, (index, severity)| {
            wire.u32(*index);
            tags::severity(wire, *severity);
        });
    });
}

/// What people call an override: what a pipeline sets it by.
struct OverrideName<'m>(Handle<Override>, &'m Override);

impl fmt::Display for OverrideName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(handle, item) = self;
        match (&item.name, item.id) {
            (Some(name), _) => write!(f, "override {name}"),
            (None, Some(id)) => write!(f, "override @id({id})"),
            (None, None) => write!(f, "override {}", handle.index()),
        }
    }
}

/// What people call a global that has lost its name: where it is bound.
struct GlobalName<'m>(Handle<GlobalVariable>, &'m GlobalVariable);

impl fmt::Display for GlobalName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(handle, item) = self;
        match item.binding {
            Some(at) => write!(f, "resource @group({}) @binding({})", at.group, at.binding),
            None => write!(f, "variable {}", handle.index()),
        }
    }
}

fn special_types(wire: &mut WireWriter, special: &SpecialTypes) {
    let SpecialTypes {
        ray_desc,
        ray_intersection,
        ray_vertex_return,
        external_texture_params,
        external_texture_transfer_function,
        predeclared_types,
    } = special;
    for ty in [
        ray_desc,
        ray_intersection,
        ray_vertex_return,
        external_texture_params,
        external_texture_transfer_function,
    ] {
        wire.option(*ty, index);
    }
    wire.items(predeclared_types.iter(), |wire, (key, ty)| {
        predeclared_type(wire, key);
        index(wire, *ty);
    });
}

fn predeclared_type(wire: &mut WireWriter, ty: &PredeclaredType) {
    match ty {
        PredeclaredType::AtomicCompareExchangeWeakResult(of) => {
            wire.u8(0);
            scalar(wire, *of);
        }
        PredeclaredType::ModfResult { size, scalar: of } => {
            wire.u8(1);
            wire.option(*size, tags::vector_size);
            scalar(wire, *of);
        }
        PredeclaredType::FrexpResult { size, scalar: of } => {
            wire.u8(2);
            wire.option(*size, tags::vector_size);
            scalar(wire, *of);
        }
    }
}

fn function(wire: &mut WireWriter, function: &Function) {
    let Function {
        name,
        arguments,
        result,
        local_variables,
        expressions,
        named_expressions,
        body,
        // Written by `filters`.
        diagnostic_filter_leaf: _,
    } = function;
    wire.option(name.as_deref(), WireWriter::str);
    wire.seq(arguments, |wire, argument| {
        let naga::FunctionArgument {
            name,
            ty,
            binding: bound,
        } = argument;
        wire.option(name.as_deref(), WireWriter::str);
        index(wire, *ty);
        wire.option(bound.as_ref(), binding);
    });
    wire.option(result.as_ref(), |wire, result| {
        let naga::FunctionResult { ty, binding: bound } = result;
        index(wire, *ty);
        wire.option(bound.as_ref(), binding);
    });
    wire.items(local_variables.iter(), |wire, (_, local)| {
        let LocalVariable { name, ty, init } = local;
        wire.option(name.as_deref(), WireWriter::str);
        index(wire, *ty);
        wire.option(*init, index);
    });
    wire.items(expressions.iter(), |wire, (_, item)| {
        expression(wire, &mut Indices, item);
    });
    wire.items(named_expressions.iter(), |wire, (handle, name)| {
        index(wire, *handle);
        wire.str(name);
    });
    statement::block(wire, body);
}

fn entry_point(wire: &mut WireWriter, entry: &EntryPoint) {
    let EntryPoint {
        name,
        stage,
        early_depth_test,
        workgroup_size,
        workgroup_size_overrides,
        function: main,
        mesh_info,
        task_payload,
        incoming_ray_payload,
    } = entry;
    wire.str(name);
    tags::shader_stage(wire, *stage);
    wire.option(*early_depth_test, types::early_depth_test);
    workgroup_size.iter().for_each(|size| wire.u32(*size));
    wire.option(workgroup_size_overrides.as_ref(), |wire, sizes| {
        sizes.iter().for_each(|size| wire.option(*size, index));
    });
    function(wire, main);
    wire.option(mesh_info.as_ref(), mesh_stage_info);
    wire.option(*task_payload, index);
    wire.option(*incoming_ray_payload, index);
}

fn mesh_stage_info(wire: &mut WireWriter, info: &MeshStageInfo) {
    let MeshStageInfo {
        topology,
        max_vertices,
        max_vertices_override,
        max_primitives,
        max_primitives_override,
        vertex_output_type,
        primitive_output_type,
        output_variable,
    } = info;
    tags::mesh_topology(wire, *topology);
    wire.u32(*max_vertices);
    wire.option(*max_vertices_override, index);
    wire.u32(*max_primitives);
    wire.option(*max_primitives_override, index);
    index(wire, *vertex_output_type);
    index(wire, *primitive_output_type);
    index(wire, *output_variable);
}
