//! A module as the sequence of its parts.

use naga::diagnostic_filter::{DiagnosticFilterNode, Severity};
use naga::{Arena, EntryPoint, Function, Module, Span};

use super::construct::{Construct, read_arena, read_unique_arena, write_arena};
use super::reader::{Counts, Handles, Reader, run};
use super::target::{Part, Target, frame};
use crate::key::naga::filters;

/// About how many bytes the types and constants of a module take.
const ITEMS: usize = 4096;

/// The parts of a module, which can be made in any order.
#[derive(Default)]
pub(in super::super) struct Sections {
    pub(in super::super) types: List,
    pub(in super::super) special_types: Part,
    pub(in super::super) constants: List,
    pub(in super::super) overrides: Framed,
    pub(in super::super) globals: Framed,
    pub(in super::super) expressions: List,
    pub(in super::super) functions: Framed,
    pub(in super::super) entry_points: Framed,
    /// Where an item is written before it is pushed.
    pub(in super::super) item: Part,
}

/// Items in one part.
#[derive(Default)]
pub(in super::super) struct List {
    pub(in super::super) part: Part,
    pub(in super::super) count: u32,
}

impl List {
    pub(in super::super) fn clear(&mut self) {
        self.part.clear();
        self.count = 0;
    }

    /// Counts an item, which is written by then, and tells its index.
    #[inline]
    pub(in super::super) const fn next(&mut self) -> u32 {
        self.count += 1;
        self.count - 1
    }
}

/// Items with a part for each.
#[derive(Default)]
pub(in super::super) struct Framed {
    wire: Vec<u8>,
    pub(in super::super) count: u32,
}

impl Framed {
    fn clear(&mut self) {
        self.wire.clear();
        self.count = 0;
    }

    /// Adds an item, and tells its index.
    pub(in super::super) fn push(&mut self, item: &[&Part]) -> u32 {
        frame(item, &mut self.wire);
        self.count += 1;
        self.count - 1
    }

    /// All items so far, one after the other.
    pub(in super::super) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Removes the last item, which begins at a place.
    pub(in super::super) fn pop(&mut self, start: usize) {
        self.wire.truncate(start);
        self.count -= 1;
    }
}

/// A function, which can be made in any order.
#[derive(Default)]
pub(in super::super) struct FunctionParts {
    /// Its name, its arguments, its result and what its diagnostic filter says.
    pub(in super::super) signature: Part,
    /// How many locals, expressions and names there are. Written last.
    counts: Part,
    pub(in super::super) locals: List,
    pub(in super::super) expressions: List,
    pub(in super::super) named: List,
    pub(in super::super) body: Part,
}

impl FunctionParts {
    pub(in super::super) fn clear(&mut self) {
        let Self {
            signature,
            counts,
            locals,
            expressions,
            named,
            body,
        } = self;
        for part in [signature, counts, body] {
            part.clear();
        }
        for list in [locals, expressions, named] {
            list.clear();
        }
    }

    /// How many bytes there is room for.
    pub(in super::super) fn capacity(&self) -> usize {
        self.expressions.part.capacity().max(self.body.capacity())
    }

    /// The parts in their order on the wire.
    fn parts(&mut self) -> [&Part; 6] {
        let Self {
            signature,
            counts,
            locals,
            expressions,
            named,
            body,
        } = self;
        counts.clear();
        for list in [&locals, &expressions, &named] {
            counts.count(list.count as usize);
        }
        [
            counts,
            signature,
            &locals.part,
            &expressions.part,
            &named.part,
            body,
        ]
    }

    fn of(source: &Module, function: &Function) -> Self {
        let Function {
            name,
            arguments,
            result,
            local_variables,
            expressions,
            named_expressions,
            body,
            diagnostic_filter_leaf,
        } = function;
        let mut parts = Self::default();
        name.write(&mut parts.signature);
        arguments.write(&mut parts.signature);
        result.write(&mut parts.signature);
        filters::severity(&source.diagnostic_filters, *diagnostic_filter_leaf)
            .write(&mut parts.signature);
        write_arena(local_variables, &mut parts.locals.part);
        parts.locals.count = local_variables.len() as u32;
        write_arena(expressions, &mut parts.expressions.part);
        parts.expressions.count = expressions.len() as u32;
        for (handle, name) in named_expressions {
            handle.write(&mut parts.named.part);
            name.write(&mut parts.named.part);
            parts.named.count += 1;
        }
        body.write(&mut parts.body);
        parts
    }
}

/// How many locals, expressions and names a function has, which its part begins with.
type FunctionCounts = [usize; 3];

fn read_counts(from: &mut Reader<'_>) -> Option<FunctionCounts> {
    Some([from.count()?, from.count()?, from.count()?])
}

/// Reads a function, and adds the filter that it has to those of the module.
fn read_function(
    from: &mut Reader<'_>,
    [locals, expressions, named]: FunctionCounts,
    filters: &mut Arena<DiagnosticFilterNode>,
) -> Option<Function> {
    let name = Construct::read(from)?;
    let arguments = Construct::read(from)?;
    let result = Construct::read(from)?;
    let severity = Option::<Severity>::read(from)?;
    Some(Function {
        name,
        arguments,
        result,
        local_variables: read_arena(from, locals)?,
        expressions: read_arena(from, expressions)?,
        named_expressions: (0..named)
            .map(|_| Some((Construct::read(from)?, String::read(from)?)))
            .collect::<Option<_>>()?,
        body: Construct::read(from)?,
        diagnostic_filter_leaf: severity.map(|severity| filters::filter(filters, severity)),
    })
}

/// An entry point without its function, which stands behind it.
fn write_head(entry: &EntryPoint, to: &mut Part) {
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
    } = entry;
    name.write(to);
    stage.write(to);
    early_depth_test.write(to);
    workgroup_size.write(to);
    workgroup_size_overrides.write(to);
    mesh_info.write(to);
    task_payload.write(to);
    incoming_ray_payload.write(to);
}

fn read_entry_point(
    from: &mut Reader<'_>,
    filters: &mut Arena<DiagnosticFilterNode>,
) -> Option<EntryPoint> {
    let counts = read_counts(from)?;
    Some(EntryPoint {
        name: Construct::read(from)?,
        stage: Construct::read(from)?,
        early_depth_test: Construct::read(from)?,
        workgroup_size: Construct::read(from)?,
        workgroup_size_overrides: Construct::read(from)?,
        mesh_info: Construct::read(from)?,
        task_payload: Construct::read(from)?,
        incoming_ray_payload: Construct::read(from)?,
        function: read_function(from, counts, filters)?,
    })
}

impl Sections {
    pub(in super::super) fn clear(&mut self) {
        let Self {
            types,
            special_types,
            constants,
            overrides,
            globals,
            expressions,
            functions,
            entry_points,
            item,
        } = self;
        special_types.clear();
        item.clear();
        for list in [types, constants, expressions] {
            list.clear();
        }
        for framed in [overrides, globals, functions, entry_points] {
            framed.clear();
        }
    }

    /// How many bytes there is room for.
    pub(in super::super) fn capacity(&self) -> usize {
        let wires = [&self.functions.wire, &self.entry_points.wire];
        wires.iter().map(|wire| wire.capacity()).sum()
    }

    /// Adds a function, and tells its index.
    pub(in super::super) fn push_function(&mut self, function: &mut FunctionParts) -> u32 {
        self.functions.push(&function.parts())
    }

    /// Adds an entry point, of which `head` is all but the function.
    pub(in super::super) fn push_entry_point(&mut self, head: &Part, function: &mut FunctionParts) {
        let [counts, signature, locals, expressions, named, body] = function.parts();
        let parts = [counts, head, signature, locals, expressions, named, body];
        self.entry_points.push(&parts);
    }

    fn of(module: &Module) -> Self {
        let Module {
            types,
            special_types,
            constants,
            overrides,
            global_variables,
            global_expressions,
            functions,
            entry_points,
            // What counts of them is written with the functions.
            diagnostic_filters: _,
            diagnostic_filter_leaf: _,
            doc_comments: _,
        } = module;
        let mut sections = Self::default();
        for (_, ty) in types.iter() {
            ty.write(&mut sections.types.part);
        }
        sections.types.count = types.len() as u32;
        special_types.write(&mut sections.special_types);
        write_arena(constants, &mut sections.constants.part);
        sections.constants.count = constants.len() as u32;
        for (_, item) in overrides.iter() {
            sections.overrides.push(&[&part(|to| item.write(to))]);
        }
        for (_, item) in global_variables.iter() {
            sections.globals.push(&[&part(|to| item.write(to))]);
        }
        write_arena(global_expressions, &mut sections.expressions.part);
        sections.expressions.count = global_expressions.len() as u32;
        for (_, function) in functions.iter() {
            sections.push_function(&mut FunctionParts::of(module, function));
        }
        for entry in entry_points {
            let mut function = FunctionParts::of(module, &entry.function);
            sections.push_entry_point(&part(|to| write_head(entry, to)), &mut function);
        }
        sections
    }

    /// The wire of the module.
    pub(in super::super) fn assemble(&self) -> Vec<u8> {
        let Self {
            types,
            special_types,
            constants,
            overrides,
            globals,
            expressions,
            functions,
            entry_points,
            item: _,
        } = self;
        let counts = part(|to| {
            for count in [
                types.count,
                constants.count,
                overrides.count,
                globals.count,
                expressions.count,
                functions.count,
                entry_points.count,
            ] {
                to.count(count as usize);
            }
        });
        let items = [&overrides.wire, &globals.wire];
        let code = [&functions.wire, &entry_points.wire];
        let lengths = items.iter().chain(&code).map(|wire| wire.len());
        let mut wire = Vec::with_capacity(lengths.sum::<usize>() + ITEMS);
        frame(&[&counts], &mut wire);
        frame(&[&types.part, special_types], &mut wire);
        frame(&[&constants.part], &mut wire);
        items.iter().for_each(|items| wire.extend_from_slice(items));
        frame(&[&expressions.part], &mut wire);
        code.iter().for_each(|code| wire.extend_from_slice(code));
        wire
    }
}

/// Writes the copy of a module. Spans are not written: the canonical module has none.
pub(in super::super) fn write(module: &Module) -> Vec<u8> {
    Sections::of(module).assemble()
}

/// Reads a module back that is written as the same bytes again: what is read is what they say.
pub(in super::super) fn read_back(wire: &[u8]) -> Option<Module> {
    read(wire).filter(|module| write(module) == wire)
}

/// Reads a module.
pub(super) fn read(wire: &[u8]) -> Option<Module> {
    let mut rest = wire;
    let none = Handles::default();
    let mut counts = Reader::new(&mut rest, &none)?;
    // Each item takes a byte at least.
    let mut next = || counts.count().filter(|count| *count <= wire.len());
    let counts = Counts {
        types: next()?,
        constants: next()?,
        overrides: next()?,
        globals: next()?,
        expressions: next()?,
        functions: next()?,
        entry_points: next()?,
    };
    let (most_locals, most_expressions) = most(rest, &counts)?;
    let handles = Handles::new(&counts, most_locals, most_expressions);
    let mut module = Module::default();
    read_part(&mut rest, &handles, |from| {
        module.types = read_unique_arena(from, counts.types)?;
        module.special_types = Construct::read(from)?;
        Some(())
    })?;
    module.constants = read_part(&mut rest, &handles, |from| {
        read_arena(from, counts.constants)
    })?;
    for _ in 0..counts.overrides {
        let item = read_part(&mut rest, &handles, Construct::read)?;
        module.overrides.append(item, Span::UNDEFINED);
    }
    for _ in 0..counts.globals {
        let item = read_part(&mut rest, &handles, Construct::read)?;
        module.global_variables.append(item, Span::UNDEFINED);
    }
    module.global_expressions = read_part(&mut rest, &handles, |from| {
        read_arena(from, counts.expressions)
    })?;
    let filters = &mut module.diagnostic_filters;
    for _ in 0..counts.functions {
        let item = read_part(&mut rest, &handles, |from| {
            let counts = read_counts(from)?;
            read_function(from, counts, filters)
        })?;
        module.functions.append(item, Span::UNDEFINED);
    }
    for _ in 0..counts.entry_points {
        let item = read_part(&mut rest, &handles, |from| read_entry_point(from, filters))?;
        module.entry_points.push(item);
    }
    rest.is_empty().then_some(module)
}

/// The most locals and the most expressions that a function has.
fn most(wire: &[u8], counts: &Counts) -> Option<(usize, usize)> {
    let mut rest = wire;
    // Types, constants and constant expressions have one part each.
    for _ in 0..counts.overrides + counts.globals + 3 {
        skip(&mut rest)?;
    }
    let none = Handles::default();
    let mut most = (0, 0);
    for _ in 0..counts.functions + counts.entry_points {
        let mut from = Reader::new(&mut rest, &none)?;
        let [locals, expressions, _] = read_counts(&mut from)?;
        most = (most.0.max(locals), most.1.max(expressions));
    }
    // Each takes a byte at least.
    (most.0.max(most.1) <= wire.len()).then_some(most)
}

pub(super) fn skip(wire: &mut &[u8]) -> Option<()> {
    run(wire)?;
    run(wire)?;
    Some(())
}

fn part(write: impl FnOnce(&mut Part)) -> Part {
    let mut part = Part::default();
    write(&mut part);
    part
}

fn read_part<'a, T>(
    wire: &mut &'a [u8],
    handles: &'a Handles,
    read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
) -> Option<T> {
    let mut from = Reader::new(wire, handles)?;
    let item = read(&mut from)?;
    from.is_done().then_some(item)
}
