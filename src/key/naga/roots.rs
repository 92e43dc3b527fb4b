//! What a module offers: where its canonical form begins.

use std::collections::HashSet;

use naga::valid::{FunctionInfo, ModuleInfo};
use naga::{Function, Handle, Module};

use super::rebase::{Rebased, Refusal};

/// What a module offers, in canonical order.
pub(super) enum Roots {
    /// By stage and name, which together are unique.
    EntryPoints(Vec<usize>),
    /// Of a module without an entry point, all functions, by name: whoever imports it calls them
    /// by their names.
    Functions(Vec<Handle<Function>>),
}

impl Roots {
    pub(super) fn new(module: &Module) -> Rebased<Self> {
        if module.entry_points.is_empty() {
            return library(module).map(Self::Functions);
        }
        let mut order: Vec<_> = (0..module.entry_points.len()).collect();
        order.sort_by_key(|index| {
            let entry = &module.entry_points[*index];
            (entry.stage, &entry.name)
        });
        Ok(Self::EntryPoints(order))
    }

    /// What naga found out about each root.
    pub(super) fn infos<'i>(&self, info: &'i ModuleInfo) -> Vec<&'i FunctionInfo> {
        match self {
            Self::EntryPoints(entries) => {
                let infos = entries.iter().map(|entry| info.get_entry_point(*entry));
                infos.collect()
            }
            Self::Functions(functions) => {
                functions.iter().map(|function| &info[*function]).collect()
            }
        }
    }
}

fn library(module: &Module) -> Rebased<Vec<Handle<Function>>> {
    if module.functions.is_empty() {
        return Err(Refusal(
            &"the module has neither an entry point nor a function",
        ));
    }
    let mut names = HashSet::new();
    let mut functions = Vec::new();
    for (handle, function) in module.functions.iter() {
        let name = function.name.as_deref();
        if !name.is_some_and(|name| names.insert(name)) {
            return Err(Refusal(
                &"the module has no entry point, and not each function a name of its own",
            ));
        }
        functions.push(handle);
    }
    functions.sort_by_key(|handle| &module.functions[*handle].name);
    Ok(functions)
}
