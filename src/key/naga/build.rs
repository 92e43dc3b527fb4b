//! The order of a canonical module, from its entry points.
//!
//! Overrides come first, by id and name, then resources, by group and binding; then functions,
//! callees before callers, in the order in which the entry points call them. Everything else
//! follows from these: it stands where it is first needed.

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{
    Block, EntryPoint, Expression, Function, GlobalVariable, Handle, MeshStageInfo, Module, Span,
};

use super::MAX_NESTING;
use super::context::Context;
use super::global_set::GlobalSet;
use super::items::Items;
use super::module::{ModuleBuilder, is_interface, payloads};
use super::place;
use super::rebase::{Rebase as _, Rebased, Refusal, Shape, shape};
use super::scratch::{FunctionScratch, Scratch, with_scratch};
use super::special::SpecialRoles;

/// The name of the expressions that keep a resource in the interface though no code reads it.
const PHONY_NAME: &str = "phony";

/// Builds the canonical form of a module that naga finds valid, with what it found.
pub(super) fn canonicalize(source: &Module, info: &ModuleInfo) -> Rebased<Module> {
    with_scratch(|scratch| canonicalize_with(scratch, source, info))
}

fn canonicalize_with(scratch: &mut Scratch, source: &Module, info: &ModuleInfo) -> Rebased<Module> {
    let special = SpecialRoles::new(source)?;
    let entry_points = sorted_entry_points(source);
    let globals = sorted_globals(source, info, &entry_points);
    let items = Items::new(source, &special, &globals, &mut scratch.items)?;
    if items.depth() as usize > MAX_NESTING {
        return Err(Refusal("types and constants nest deeper than 48"));
    }
    let mut build = Build {
        source,
        info,
        entry_points,
        globals_of: Vec::new(),
        module: ModuleBuilder::new(source, &items, &special),
        scratch: &mut scratch.function,
    };
    build.overrides()?;
    build.resources(&globals)?;
    build.functions()?;
    build.pin_interface()?;
    Ok(build.module.out)
}

struct Build<'m> {
    source: &'m Module,
    info: &'m ModuleInfo,
    /// Indices of the source's entry points, in canonical order.
    entry_points: Vec<usize>,
    /// The variables that each canonical entry point uses.
    globals_of: Vec<GlobalSet>,
    module: ModuleBuilder<'m>,
    scratch: &'m mut FunctionScratch,
}

impl Build<'_> {
    /// A pipeline can set every override that has an id or a name, whether or not a shader reads
    /// it, and must set those without an initial value: all of them are part of the interface.
    fn overrides(&mut self) -> Rebased<()> {
        let mut visible: Vec<_> = self
            .source
            .overrides
            .iter()
            .filter(|(_, item)| item.id.is_some() || item.name.is_some())
            .collect();
        visible.sort_by_key(|(_, item)| (item.id, &item.name));
        for (handle, _) in visible {
            self.module.override_(handle)?;
        }
        Ok(())
    }

    /// The resources that an entry point uses, by group and binding.
    fn resources(&mut self, globals: &[Handle<GlobalVariable>]) -> Rebased<()> {
        for handle in globals {
            let is_bound = self.source.global_variables[*handle].binding.is_some();
            if is_bound && first_user(self.info, &self.entry_points, *handle).is_some() {
                self.module.global(*handle)?;
            }
        }
        Ok(())
    }

    fn functions(&mut self) -> Rebased<()> {
        let mut done = vec![false; self.source.functions.len()];
        for entry in self.entry_points.clone() {
            let entry_point = &self.source.entry_points[entry];
            for handle in callees_first(self.source, &entry_point.function, &mut done) {
                let function = &self.source.functions[handle];
                let (function, globals) = self.function(function, &self.info[handle])?;
                self.module.add_function(handle, function, globals);
            }
            let info = self.info.get_entry_point(entry);
            let (main, mut globals) = self.function(&entry_point.function, info)?;
            for payload in payloads(entry_point) {
                globals.insert(self.module.global(payload)?);
            }
            let entry_point = self.entry_point(entry_point, main)?;
            self.module.out.entry_points.push(entry_point);
            self.globals_of.push(globals);
        }
        Ok(())
    }

    fn function(
        &mut self,
        function: &Function,
        info: &FunctionInfo,
    ) -> Rebased<(Function, GlobalSet)> {
        let context = Context {
            module: self.source,
            items: self.module.items,
            special: self.module.special,
            function,
            info,
        };
        place::function(&mut self.module, self.scratch, context)
    }

    fn entry_point(&mut self, source: &EntryPoint, main: Function) -> Rebased<EntryPoint> {
        let EntryPoint {
            name,
            stage,
            early_depth_test,
            workgroup_size,
            workgroup_size_overrides,
            function: _,
            mesh_info,
            task_payload,
            incoming_ray_payload,
        } = source;
        let mut overrides = *workgroup_size_overrides;
        for size in overrides.iter_mut().flatten() {
            *size = self.module.optional(*size)?;
        }
        Ok(EntryPoint {
            name: name.clone(),
            stage: *stage,
            early_depth_test: *early_depth_test,
            workgroup_size: *workgroup_size,
            workgroup_size_overrides: overrides,
            function: main,
            mesh_info: self.mesh_info(mesh_info.as_ref())?,
            task_payload: self.optional_global(*task_payload)?,
            incoming_ray_payload: self.optional_global(*incoming_ray_payload)?,
        })
    }

    fn mesh_info(&mut self, source: Option<&MeshStageInfo>) -> Rebased<Option<MeshStageInfo>> {
        let Some(MeshStageInfo {
            topology,
            max_vertices,
            max_vertices_override,
            max_primitives,
            max_primitives_override,
            vertex_output_type,
            primitive_output_type,
            output_variable,
        }) = source
        else {
            return Ok(None);
        };
        Ok(Some(MeshStageInfo {
            topology: *topology,
            max_vertices: *max_vertices,
            max_vertices_override: self.module.optional(*max_vertices_override)?,
            max_primitives: *max_primitives,
            max_primitives_override: self.module.optional(*max_primitives_override)?,
            vertex_output_type: self.module.ty(*vertex_output_type)?,
            primitive_output_type: self.module.ty(*primitive_output_type)?,
            output_variable: self.module.global(*output_variable)?,
        }))
    }

    fn optional_global(
        &mut self,
        source: Option<Handle<GlobalVariable>>,
    ) -> Rebased<Option<Handle<GlobalVariable>>> {
        source.map(|source| self.module.global(source)).transpose()
    }

    /// A variable that a pipeline can see stays used by each entry point that uses it, even where
    /// the use was `_ = buffer;` or dead: the layout of the pipeline may be made from it.
    fn pin_interface(&mut self) -> Rebased<()> {
        for (index, entry) in self.entry_points.clone().into_iter().enumerate() {
            let before = self.info.get_entry_point(entry);
            let mut lost = Vec::new();
            for (handle, global) in self.source.global_variables.iter() {
                if !is_interface(global.space) || before[handle].is_empty() {
                    continue;
                }
                let known = self.module.known_global(handle);
                if known.is_none_or(|known| !self.globals_of[index].contains(known)) {
                    lost.push(self.module.global(handle)?);
                }
            }
            lost.sort();
            let main = &mut self.module.out.entry_points[index].function;
            for global in lost {
                let expression = Expression::GlobalVariable(global);
                let handle = main.expressions.append(expression, Span::UNDEFINED);
                main.named_expressions.insert(handle, PHONY_NAME.to_owned());
            }
        }
        Ok(())
    }
}

/// The first entry point, in canonical order, that uses a variable.
fn first_user(
    info: &ModuleInfo,
    entry_points: &[usize],
    global: Handle<GlobalVariable>,
) -> Option<usize> {
    let uses = |entry: &usize| !info.get_entry_point(*entry)[global].is_empty();
    entry_points.iter().position(uses)
}

/// The variables of a module: by group and binding, and of those that share a binding, which
/// different entry points may, by the first entry point that uses them.
fn sorted_globals(
    module: &Module,
    info: &ModuleInfo,
    entry_points: &[usize],
) -> Vec<Handle<GlobalVariable>> {
    let globals = module.global_variables.iter();
    let mut globals: Vec<_> = globals.map(|(handle, _)| handle).collect();
    globals.sort_by_cached_key(|handle| {
        let binding = module.global_variables[*handle].binding;
        (binding, first_user(info, entry_points, *handle))
    });
    globals
}

/// By stage and name, which together are unique.
fn sorted_entry_points(module: &Module) -> Vec<usize> {
    let mut order: Vec<_> = (0..module.entry_points.len()).collect();
    order.sort_by_key(|index| {
        let entry = &module.entry_points[*index];
        (entry.stage, &entry.name)
    });
    order
}

/// The functions that `main` reaches and that are not done yet, each after all that it calls.
fn callees_first(module: &Module, main: &Function, done: &mut [bool]) -> Vec<Handle<Function>> {
    let mut order = Vec::new();
    let mut open = vec![(None, calls(&main.body).into_iter())];
    while let Some((caller, callees)) = open.last_mut() {
        match callees.next() {
            Some(next) if !std::mem::replace(&mut done[next.index()], true) => {
                let callees = calls(&module.functions[next].body);
                open.push((Some(next), callees.into_iter()));
            }
            Some(_) => {}
            None => {
                order.extend(*caller);
                open.pop();
            }
        }
    }
    order
}

/// The functions that a block calls, in order.
fn calls(block: &Block) -> Vec<Handle<Function>> {
    let mut calls = Vec::new();
    let mut pending = vec![block.iter()];
    while let Some(mut statements) = pending.pop() {
        while let Some(statement) = statements.next() {
            match shape(statement) {
                Shape::Emit(_) => continue,
                Shape::Leaf(leaf) => {
                    calls.extend(leaf.callee());
                    continue;
                }
                _ => {}
            }
            pending.push(statements);
            match shape(statement) {
                Shape::Emit(_) | Shape::Leaf(_) => {}
                Shape::Block(inner) => pending.push(inner.iter()),
                Shape::If {
                    condition: _,
                    accept,
                    reject,
                } => pending.extend([reject.iter(), accept.iter()]),
                Shape::Switch { selector: _, cases } => {
                    pending.extend(cases.iter().rev().map(|case| case.body.iter()));
                }
                Shape::Loop {
                    body,
                    continuing,
                    break_if: _,
                } => pending.extend([continuing.iter(), body.iter()]),
            }
            break;
        }
    }
    calls
}
