//! The parts of a canonical module that people would name: its sections, functions and segments.

use std::collections::HashMap;
use std::ops::Range;

use wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use super::features;

/// The parts, in order and apart from each other. Bytes in none of them are headers and counts.
/// A canonical module parses; should it not, what comes after the fault has no part of its own.
pub(super) fn divide(bytes: &[u8]) -> Vec<(String, Range<usize>)> {
    let mut parser = Parser::new(0);
    parser.set_features(features());
    let mut parts = Parts::default();
    for payload in parser.parse_all(bytes) {
        let taken = payload.and_then(|payload| parts.take(payload));
        if taken.is_err() {
            break;
        }
    }
    parts.found
}

#[derive(Debug, Default)]
struct Parts {
    found: Vec<(String, Range<usize>)>,
    /// The functions seen so far, imports first.
    functions: u32,
    exported: HashMap<u32, String>,
}

impl Parts {
    fn take(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(section) => self.add("types", section.range()),
            Payload::ImportSection(section) => {
                self.add("imports", section.range());
                for import in section.into_imports() {
                    let ty = import?.ty;
                    let function = matches!(ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                    self.functions += u32::from(function);
                }
            }
            Payload::FunctionSection(section) => self.add("types of functions", section.range()),
            Payload::TableSection(section) => self.add("tables", section.range()),
            Payload::MemorySection(section) => self.add("memories", section.range()),
            Payload::TagSection(section) => self.add("tags", section.range()),
            Payload::GlobalSection(section) => self.add("globals", section.range()),
            Payload::ExportSection(section) => {
                self.add("exports", section.range());
                for export in section {
                    let export = export?;
                    if export.kind == ExternalKind::Func {
                        self.exported.insert(export.index, export.name.to_owned());
                    }
                }
            }
            Payload::StartSection { func: _, range } => self.add("start function", range),
            Payload::ElementSection(section) => self.add("elements", section.range()),
            Payload::CodeSectionEntry(body) => {
                let number = self.functions;
                self.functions += 1;
                let name = match self.exported.get(&number) {
                    Some(export) => format!("function {number}, exported as {export}"),
                    None => format!("function {number}"),
                };
                self.add(name, body.range());
            }
            Payload::DataSection(section) => {
                for (number, segment) in section.into_iter().enumerate() {
                    self.add(format!("data segment {number}"), segment?.range);
                }
            }
            Payload::CustomSection(section) => {
                self.add(
                    format!("custom section {}", section.name()),
                    section.range(),
                );
            }
            // Headers and counts, and what a module cannot have.
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, name: impl Into<String>, range: Range<u64>) {
        // The module is in memory, so every place in it fits.
        let range = range.start as usize..range.end as usize;
        self.found.push((name.into(), range));
    }
}
