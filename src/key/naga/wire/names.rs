//! The parts of a wire by their names for people.

use std::ops::Range;

use naga::{GlobalVariable, Handle, Module, Override};

use super::sections::skip;

/// Where the parts of the wire of a module are, by their names for people.
pub(in super::super) fn parts(module: &Module, wire: &[u8]) -> Vec<(String, Range<usize>)> {
    let overrides = module.overrides.iter().map(override_name);
    let globals = module.global_variables.iter().map(global_name);
    let functions = module.functions.iter();
    let functions = functions.map(|(handle, _)| format!("function {}", handle.index()));
    let entries = module.entry_points.iter();
    let entries = entries.map(|entry| format!("entry point {} ({:?})", entry.name, entry.stage));
    let names = ["counts", "types", "constants"]
        .map(String::from)
        .into_iter();
    let names = names.chain(overrides).chain(globals);
    let names = names.chain([String::from("constant expressions")]);
    let mut rest = wire;
    let mut parts = Vec::new();
    for name in names.chain(functions).chain(entries) {
        let start = wire.len() - rest.len();
        if skip(&mut rest).is_none() {
            break;
        }
        parts.push((name, start..wire.len() - rest.len()));
    }
    parts
}

/// What people call an override: what a pipeline sets it by.
fn override_name((handle, item): (Handle<Override>, &Override)) -> String {
    match (&item.name, item.id) {
        (Some(name), _) => format!("override {name}"),
        (None, Some(id)) => format!("override @id({id})"),
        (None, None) => format!("override {}", handle.index()),
    }
}

/// What people call a global that has lost its name: where it is bound.
fn global_name((handle, item): (Handle<GlobalVariable>, &GlobalVariable)) -> String {
    match item.binding {
        Some(at) => format!("resource @group({}) @binding({})", at.group, at.binding),
        None => format!("variable {}", handle.index()),
    }
}
