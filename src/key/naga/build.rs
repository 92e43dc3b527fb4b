//! The order of a canonical module, from its entry points.
//!
//! Overrides come first, by id and name, then resources, by group and binding; then functions,
//! callees before callers, in the order in which the entry points call them. Everything else
//! follows from these: it stands where it is first needed.

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{EntryPoint, Function, GlobalVariable, Handle, MeshStageInfo, Module};

use super::context::Context;
use super::deep::with_stack;
use super::effects::Effects;
use super::flow::{Flow, Flows};
use super::global_set::GlobalSet;
use super::items::Items;
use super::module::{ModuleBuilder, is_interface, payloads};
use super::place;
use super::place::Outcome;
use super::rebase::{Rebased, Refusal};
use super::roots::Roots;
use super::scratch::{FunctionScratch, Scratch, with_scratch};
use super::special::SpecialRoles;
use super::twins::Twins;
use super::validate;
use super::wire;
use super::wire::{Construct as _, Part, Target as _};
use super::wrapped;

/// Writes the canonical form of a module that naga finds valid, with what it found. The module
/// nests to `depth`.
pub(super) fn canonicalize(source: &Module, info: &ModuleInfo, depth: usize) -> Rebased<Vec<u8>> {
    with_stack(depth, || {
        with_scratch(|scratch| settle(scratch, source, info))
    })?
}

/// The most rounds that a module takes. Each but the last has left something out.
const ROUNDS: usize = 16;

/// What one round leaves out can leave more to leave out: nearly all modules take one.
fn settle(scratch: &mut Scratch, source: &Module, info: &ModuleInfo) -> Rebased<Vec<u8>> {
    let plain = wrapped::plain(source, info);
    let plain = plain.as_ref().map(|(module, info)| (module, info));
    let (source, info) = plain.unwrap_or((source, info));
    let (mut canonical, mut again) = canonicalize_with(scratch, source, info)?;
    for _ in 1..ROUNDS {
        if !again {
            return Ok(canonical);
        }
        let module = wire::read_back(&canonical);
        let module = module.ok_or(Refusal(
            &"a canonical form on the way to the last does not read back",
        ))?;
        let info = validate::validate_again(&module)?;
        (canonical, again) = canonicalize_with(scratch, &module, &info)?;
    }
    if again {
        return Err(Refusal(&"there is always more to leave out"));
    }
    Ok(canonical)
}

fn canonicalize_with(
    scratch: &mut Scratch,
    source: &Module,
    info: &ModuleInfo,
) -> Rebased<(Vec<u8>, bool)> {
    let special = SpecialRoles::new(source)?;
    let roots = Roots::new(source)?;
    let globals = sorted_globals(source, &roots.infos(info));
    let items = Items::new(source, &special, &globals, &mut scratch.items)?;
    let mut build = Build {
        source,
        info,
        module: ModuleBuilder::new(source, &items, &special, &mut scratch.sections),
        scratch: &mut scratch.function,
        flows: Flows::new(source),
        known: vec![None; source.functions.len()],
        twins: Twins::default(),
        again: false,
        effects: vec![Effects::default(); source.functions.len()],
    };
    build.overrides()?;
    build.resources(&globals, &roots)?;
    build.functions(&roots)?;
    Ok((build.module.finish(), build.again))
}

struct Build<'m> {
    source: &'m Module,
    info: &'m ModuleInfo,
    module: ModuleBuilder<'m>,
    scratch: &'m mut FunctionScratch,
    flows: Flows<'m>,
    /// The statements of the functions that are read, by their index in the source.
    known: Vec<Option<Flow>>,
    twins: Twins,
    /// Whether what was left out leaves more to leave out.
    again: bool,
    /// By the index of the function in the source.
    effects: Vec<Effects>,
}

impl<'m> Build<'m> {
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
                    let info = self.info.get_entry_point(*entry);
                    let flow = self.flows.read(&source.function, info);
                    for handle in self.callees_first(flow, &mut done) {
                        self.add_function(handle, None)?;
                    }
                    self.add_entry_point(source, info, flow)?;
                }
            }
            Roots::Functions(functions) => {
                for root in functions {
                    let flow = self.flow(*root);
                    let callees = self.callees_first(flow, &mut done);
                    let is_new = !std::mem::replace(&mut done[root.index()], true);
                    for handle in callees.into_iter().chain(is_new.then_some(*root)) {
                        let name = self.source.functions[handle].name.as_deref();
                        self.add_function(handle, name)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a function. One with a name is part of the interface.
    fn add_function(&mut self, handle: Handle<Function>, name: Option<&str>) -> Rebased<()> {
        let info = &self.info[handle];
        let source = &self.source.functions[handle];
        let flow = self.flow(handle);
        let is_root = name.is_some();
        let (globals, effects) = self.function((source, info, flow), name, &[], is_root)?;
        self.effects[handle.index()] = effects;
        let parts = &mut self.scratch.draft.parts;
        let twins = Some(&mut self.twins).filter(|_| !is_root);
        self.module.add_function(handle, parts, globals, twins);
        Ok(())
    }

    fn add_entry_point(
        &mut self,
        source: &EntryPoint,
        info: &FunctionInfo,
        flow: Flow,
    ) -> Rebased<()> {
        let payloads: Vec<_> = payloads(source).collect();
        self.function((&source.function, info, flow), None, &payloads, true)?;
        let head = self.entry_point(source)?;
        let function = &mut self.scratch.draft.parts;
        self.module.out.push_entry_point(&head, function);
        Ok(())
    }

    /// The statements of a function, which are read once.
    fn flow(&mut self, function: Handle<Function>) -> Flow {
        *self.known[function.index()].get_or_insert_with(|| {
            let source = &self.source.functions[function];
            self.flows.read(source, &self.info[function])
        })
    }

    /// The functions that `main` reaches and that are not done yet, each after all that it calls.
    fn callees_first(&mut self, main: Flow, done: &mut [bool]) -> Vec<Handle<Function>> {
        let mut order = Vec::new();
        let mut open = vec![(None, main.calls)];
        while let Some((caller, calls)) = open.last_mut() {
            match self.flows.next_call(calls) {
                Some(next) if !std::mem::replace(&mut done[next.index()], true) => {
                    open.push((Some(next), self.flow(next).calls));
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

    /// Builds a function in the scratch.
    ///
    /// A variable that a pipeline can see stays used by each root that uses it, even where the
    /// use was `_ = buffer;` or dead: the layout of the pipeline may be made from it. The
    /// `payloads` of an entry point are used beside its code.
    fn function(
        &mut self,
        (source, info, flow): (&Function, &FunctionInfo, Flow),
        name: Option<&str>,
        payloads: &[Handle<GlobalVariable>],
        is_root: bool,
    ) -> Rebased<(GlobalSet, Effects)> {
        let context = Context {
            module: self.source,
            items: self.module.items,
            special: self.module.special,
            effects: &self.effects,
            function: source,
            flows: &self.flows,
            flow,
            info,
        };
        let pinned = |module: &mut ModuleBuilder<'_>, globals: &GlobalSet| {
            if is_root {
                lost(module, globals, payloads, info)
            } else {
                Ok(Vec::new())
            }
        };
        let Outcome {
            globals,
            effects,
            again,
        } = place::function(&mut self.module, self.scratch, &context, name, pinned)?;
        self.again |= again;
        Ok((globals, effects))
    }

    /// All of an entry point but its function.
    fn entry_point(&mut self, source: &EntryPoint) -> Rebased<Part> {
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
        let mut head = Part::default();
        name.write(&mut head);
        stage.write(&mut head);
        early_depth_test.write(&mut head);
        workgroup_size.write(&mut head);
        head.bool(workgroup_size_overrides.is_some());
        for size in workgroup_size_overrides.iter().flatten() {
            head.optional(self.module.optional(*size)?);
        }
        head.bool(mesh_info.is_some());
        if let Some(info) = mesh_info {
            self.mesh_info(info, &mut head)?;
        }
        for payload in [*task_payload, *incoming_ray_payload] {
            let payload = payload.map(|payload| self.module.global(payload));
            head.optional(payload.transpose()?);
        }
        Ok(head)
    }

    fn mesh_info(&mut self, source: &MeshStageInfo, to: &mut Part) -> Rebased<()> {
        let MeshStageInfo {
            topology,
            max_vertices,
            max_vertices_override,
            max_primitives,
            max_primitives_override,
            vertex_output_type,
            primitive_output_type,
            output_variable,
        } = source;
        topology.write(to);
        max_vertices.write(to);
        to.optional(self.module.optional(*max_vertices_override)?);
        max_primitives.write(to);
        to.optional(self.module.optional(*max_primitives_override)?);
        to.reference(self.module.ty(*vertex_output_type)?);
        to.reference(self.module.ty(*primitive_output_type)?);
        to.reference(self.module.global(*output_variable)?);
        Ok(())
    }
}

/// The variables that a root has used and that its canonical form does not, in canonical order.
fn lost(
    module: &mut ModuleBuilder<'_>,
    globals: &GlobalSet,
    payloads: &[Handle<GlobalVariable>],
    before: &FunctionInfo,
) -> Rebased<Vec<Handle<GlobalVariable>>> {
    for payload in payloads {
        module.global(*payload)?;
    }
    let source = module.source;
    let mut lost = Vec::new();
    for (handle, global) in source.global_variables.iter() {
        if !is_interface(global.space) || before[handle].is_empty() || payloads.contains(&handle) {
            continue;
        }
        let known = module.known_global(handle);
        if known.is_none_or(|known| !globals.contains(known)) {
            lost.push((module.global(handle)?, handle));
        }
    }
    lost.sort();
    Ok(lost.into_iter().map(|(_, handle)| handle).collect())
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
