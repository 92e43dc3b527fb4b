//! The order of a canonical module, from its entry points.
//!
//! Overrides come first, by id and name, then resources, by group and binding; then functions,
//! callees before callers, in the order in which the entry points call them. Everything else
//! follows from these: it stands where it is first needed.

use std::error::Error;
use std::fmt::Write as _;
use std::panic::{self, AssertUnwindSafe};

use naga::valid::{
    Capabilities, FunctionInfo, ModuleInfo, ValidationError, ValidationFlags, Validator,
};
use naga::{
    Block, EntryPoint, Expression, Function, GlobalVariable, Handle, MeshStageInfo, Module, Span,
};

use super::digest::Digests;
use super::module::{ModuleBuilder, is_interface};
use super::place;
use super::rebase::{Rebase, Rebased, Shape, shape};
use super::special::SpecialRoles;
use super::values::Context;
use super::{CanonicalModule, limits};
use crate::key::Unkeyable;

/// The name of the expressions that keep a resource in the interface though no code reads it.
const PHONY_NAME: &str = "phony";

/// Builds the canonical form of a module.
pub(super) fn canonicalize(source: &Module) -> Rebased<CanonicalModule> {
    // The canonical form holds what entry points reach. Without one it would be empty, and all
    // such modules would share a key.
    if source.entry_points.is_empty() {
        return Err(Unkeyable::new("the module has no entry point"));
    }
    limits::check(source)?;
    let special = SpecialRoles::new(source)?;
    let info = validate(source, ValidationFlags::all())?;
    let digests = Digests::new(source, &special)?;
    let mut build = Build {
        source,
        info: &info,
        entry_points: sorted_entry_points(source),
        module: ModuleBuilder::new(source, &digests, &special),
    };
    build.overrides()?;
    build.resources()?;
    build.functions()?;
    build.validated()
}

struct Build<'m> {
    source: &'m Module,
    info: &'m ModuleInfo,
    /// Indices of the source's entry points, in canonical order.
    entry_points: Vec<usize>,
    module: ModuleBuilder<'m>,
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

    /// The resources that an entry point uses, by group and binding. Those that share a binding,
    /// which different entry points may, are told apart by their digest.
    fn resources(&mut self) -> Rebased<()> {
        let used = |handle: Handle<GlobalVariable>| {
            let entry_points = &self.entry_points;
            entry_points
                .iter()
                .any(|entry| !self.info.get_entry_point(*entry)[handle].is_empty())
        };
        let mut bound: Vec<_> = self
            .source
            .global_variables
            .iter()
            .filter(|(handle, global)| global.binding.is_some() && used(*handle))
            .map(|(handle, global)| (global.binding, self.module.digests.ty(global.ty), handle))
            .collect();
        bound.sort_by_key(|(binding, ty, _)| (*binding, *ty));
        for (_, _, handle) in bound {
            self.module.global(handle)?;
        }
        Ok(())
    }

    fn functions(&mut self) -> Rebased<()> {
        let mut done = vec![false; self.source.functions.len()];
        for entry in self.entry_points.clone() {
            let entry_point = &self.source.entry_points[entry];
            for handle in callees_first(self.source, &entry_point.function, &mut done) {
                let function = &self.source.functions[handle];
                let function = self.function(function, &self.info[handle])?;
                self.module.add_function(handle, function);
            }
            let main = self.function(&entry_point.function, self.info.get_entry_point(entry))?;
            let entry_point = self.entry_point(entry_point, main)?;
            self.module.out.entry_points.push(entry_point);
        }
        Ok(())
    }

    fn function(&mut self, function: &Function, info: &FunctionInfo) -> Rebased<Function> {
        let context = Context {
            module: self.source,
            digests: self.module.digests,
            function,
            info,
        };
        place::function(&mut self.module, context)
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

    /// Has naga check the result, and puts back what the interface of an entry point lost with
    /// code that had no other effect.
    fn validated(mut self) -> Rebased<CanonicalModule> {
        let info = validate_canonical(&self.module.out)?;
        if !self.pin_interface(&info)? {
            let module = self.module.out;
            return Ok(CanonicalModule { module, info });
        }
        let module = self.module.out;
        let info = validate_canonical(&module)?;
        Ok(CanonicalModule { module, info })
    }

    /// A variable that a pipeline can see stays used by each entry point that uses it, even where
    /// the use was `_ = buffer;` or dead: the layout of the pipeline may be made from it.
    fn pin_interface(&mut self, info: &ModuleInfo) -> Rebased<bool> {
        let mut pinned = false;
        for (index, entry) in self.entry_points.clone().into_iter().enumerate() {
            let before = self.info.get_entry_point(entry);
            let mut lost = Vec::new();
            for (handle, global) in self.source.global_variables.iter() {
                if !is_interface(global.space) || before[handle].is_empty() {
                    continue;
                }
                let known = self.module.known_global(handle);
                if known.is_none_or(|known| info.get_entry_point(index)[known].is_empty()) {
                    lost.push(self.module.global(handle)?);
                }
            }
            lost.sort();
            let main = &mut self.module.out.entry_points[index].function;
            for global in lost {
                let expression = Expression::GlobalVariable(global);
                let handle = main.expressions.append(expression, Span::UNDEFINED);
                main.named_expressions.insert(handle, PHONY_NAME.to_owned());
                pinned = true;
            }
        }
        Ok(pinned)
    }
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
    let mut pending: Vec<_> = calls(&main.body).into_iter().rev().collect();
    while let Some(next) = pending.last().copied() {
        let known = pending.len();
        if !done[next.index()] {
            let callees = calls(&module.functions[next].body);
            let absent = |callee: &Handle<Function>| !done[callee.index()];
            pending.extend(callees.into_iter().rev().filter(absent));
        }
        if pending.len() == known {
            pending.pop();
            if !done[next.index()] {
                done[next.index()] = true;
                order.push(next);
            }
        }
    }
    order
}

/// The functions that a block calls, in order.
fn calls(block: &Block) -> Vec<Handle<Function>> {
    let mut calls = Vec::new();
    let mut pending = vec![block.iter()];
    while let Some(statements) = pending.last_mut() {
        let Some(statement) = statements.next() else {
            pending.pop();
            continue;
        };
        match shape(statement) {
            Shape::Emit(_) => {}
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
            Shape::Leaf(leaf) => calls.extend(leaf.callee()),
        }
    }
    calls
}

/// Diagnostic filters are not in the canonical module, so that what they allowed is not asked of
/// it again.
fn validate_canonical(module: &Module) -> Rebased<ModuleInfo> {
    let flags = ValidationFlags::all() - ValidationFlags::CONTROL_FLOW_UNIFORMITY;
    validate(module, flags)
        .map_err(|reason| Unkeyable::new(format!("its canonical form fails: {}", reason.reason())))
}

/// Every capability is allowed: whether a device has it is for its compiler to say.
///
/// On some modules that are not valid naga's validator panics: a member whose offset overflows, an
/// immediate whose length is overridable. That is a refusal as any other.
fn validate(module: &Module, flags: ValidationFlags) -> Rebased<ModuleInfo> {
    let validate = || {
        let mut validator = Validator::new(flags, Capabilities::all());
        let validated = validator.validate(module);
        validated.map_err(|error| refusal(error.as_inner()))
    };
    panic::catch_unwind(AssertUnwindSafe(validate))
        .unwrap_or_else(|_| Err(Unkeyable::new("naga's validator panics on the module")))
}

fn refusal(error: &ValidationError) -> Unkeyable {
    let mut reason = String::from("naga finds the module invalid");
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        // Writing to a string does not fail.
        let _ = write!(reason, ": {error}");
        cause = error.source();
    }
    Unkeyable::new(reason)
}
