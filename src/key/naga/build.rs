//! The order of a canonical module, from its entry points.
//!
//! Overrides come first, by id and name, then resources, by group and binding; then functions,
//! callees before callers, in the order in which the entry points call them. Everything else
//! follows from these: it stands where it is first needed.

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{
    Block, EntryPoint, Expression, Function, GlobalVariable, Handle, MeshStageInfo, Module, Span,
};

use super::context::Context;
use super::deep::with_stack;
use super::effects::Effects;
use super::filters;
use super::global_set::GlobalSet;
use super::items::Items;
use super::module::{ModuleBuilder, is_interface, payloads};
use super::place;
use super::rebase::{Rebase as _, Rebased, Shape, shape};
use super::roots::Roots;
use super::scratch::{FunctionScratch, Scratch, with_scratch};
use super::special::SpecialRoles;

/// The name of the expressions that keep a resource in the interface though no code reads it.
const PHONY_NAME: &str = "phony";

/// Builds the canonical form of a module that naga finds valid, with what it found. The module
/// nests to `depth`.
pub(super) fn canonicalize(source: &Module, info: &ModuleInfo, depth: usize) -> Rebased<Module> {
    with_stack(depth, || {
        with_scratch(|scratch| canonicalize_with(scratch, source, info))
    })?
}

fn canonicalize_with(scratch: &mut Scratch, source: &Module, info: &ModuleInfo) -> Rebased<Module> {
    let special = SpecialRoles::new(source)?;
    let roots = Roots::new(source)?;
    let globals = sorted_globals(source, &roots.infos(info));
    let items = Items::new(source, &special, &globals, &mut scratch.items)?;
    let mut build = Build {
        source,
        info,
        module: ModuleBuilder::new(source, &items, &special),
        scratch: &mut scratch.function,
        effects: vec![Effects::default(); source.functions.len()],
    };
    build.overrides()?;
    build.resources(&globals, &roots)?;
    build.functions(&roots)?;
    Ok(build.module.out)
}

struct Build<'m> {
    source: &'m Module,
    info: &'m ModuleInfo,
    module: ModuleBuilder<'m>,
    scratch: &'m mut FunctionScratch,
    /// By the index of the function in the source.
    effects: Vec<Effects>,
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

    /// The resources that a root uses, by group and binding.
    fn resources(&mut self, globals: &[Handle<GlobalVariable>], roots: &Roots) -> Rebased<()> {
        let infos = roots.infos(self.info);
        for handle in globals {
            let is_bound = self.source.global_variables[*handle].binding.is_some();
            if is_bound && first_user(&infos, *handle).is_some() {
                self.module.global(*handle)?;
            }
        }
        Ok(())
    }

    fn functions(&mut self, roots: &Roots) -> Rebased<()> {
        let mut done = vec![false; self.source.functions.len()];
        match roots {
            Roots::EntryPoints(entry_points) => {
                for entry in entry_points {
                    let source = &self.source.entry_points[*entry];
                    for handle in callees_first(self.source, &source.function, &mut done) {
                        self.add_function(handle, None)?;
                    }
                    self.add_entry_point(source, self.info.get_entry_point(*entry))?;
                }
            }
            Roots::Functions(functions) => {
                for root in functions {
                    let source = &self.source.functions[*root];
                    let callees = callees_first(self.source, source, &mut done);
                    let is_new = !std::mem::replace(&mut done[root.index()], true);
                    for handle in callees.into_iter().chain(is_new.then_some(*root)) {
                        let name = self.source.functions[handle].name.clone();
                        self.add_function(handle, name)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a function. One with a name is part of the interface.
    fn add_function(&mut self, handle: Handle<Function>, name: Option<String>) -> Rebased<()> {
        let info = &self.info[handle];
        let source = &self.source.functions[handle];
        let (mut function, mut globals, effects) = self.function(source, info)?;
        self.effects[handle.index()] = effects;
        if name.is_some() {
            self.pin_interface(&mut function, &mut globals, info)?;
        }
        function.name = name;
        self.module.add_function(handle, function, globals);
        Ok(())
    }

    fn add_entry_point(&mut self, source: &EntryPoint, info: &FunctionInfo) -> Rebased<()> {
        let (mut main, mut globals, _) = self.function(&source.function, info)?;
        for payload in payloads(source) {
            globals.insert(self.module.global(payload)?);
        }
        self.pin_interface(&mut main, &mut globals, info)?;
        let entry_point = self.entry_point(source, main)?;
        self.module.out.entry_points.push(entry_point);
        Ok(())
    }

    fn function(
        &mut self,
        source: &Function,
        info: &FunctionInfo,
    ) -> Rebased<(Function, GlobalSet, Effects)> {
        let context = Context {
            module: self.source,
            items: self.module.items,
            special: self.module.special,
            effects: &self.effects,
            function: source,
            info,
        };
        let (mut function, globals, effects) =
            place::function(&mut self.module, self.scratch, context)?;
        let filters = &mut self.module.out.diagnostic_filters;
        filters::keep(
            self.source,
            source.diagnostic_filter_leaf,
            filters,
            &mut function,
        );
        Ok((function, globals, effects))
    }

    /// A variable that a pipeline can see stays used by each root that uses it, even where the
    /// use was `_ = buffer;` or dead: the layout of the pipeline may be made from it.
    fn pin_interface(
        &mut self,
        function: &mut Function,
        globals: &mut GlobalSet,
        before: &FunctionInfo,
    ) -> Rebased<()> {
        let mut lost = Vec::new();
        for (handle, global) in self.source.global_variables.iter() {
            if !is_interface(global.space) || before[handle].is_empty() {
                continue;
            }
            let known = self.module.known_global(handle);
            if known.is_none_or(|known| !globals.contains(known)) {
                lost.push(self.module.global(handle)?);
            }
        }
        lost.sort();
        for global in lost {
            let expression = Expression::GlobalVariable(global);
            let handle = function.expressions.append(expression, Span::UNDEFINED);
            let name = PHONY_NAME.to_owned();
            function.named_expressions.insert(handle, name);
            globals.insert(global);
        }
        Ok(())
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
}

/// The first root, in canonical order, that uses a variable.
fn first_user(roots: &[&FunctionInfo], global: Handle<GlobalVariable>) -> Option<usize> {
    roots.iter().position(|root| !root[global].is_empty())
}

/// The variables of a module: by group and binding, and of those that share a binding, which
/// different entry points may, by the first of them that uses it.
fn sorted_globals(module: &Module, roots: &[&FunctionInfo]) -> Vec<Handle<GlobalVariable>> {
    let globals = module.global_variables.iter();
    let mut globals: Vec<_> = globals.map(|(handle, _)| handle).collect();
    globals.sort_by_cached_key(|handle| {
        let binding = module.global_variables[*handle].binding;
        (binding, first_user(roots, *handle))
    });
    globals
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
