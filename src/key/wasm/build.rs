//! The canonical module, built from what hosts can reach.
//!
//! Functions, globals and types are numbered when they are first written about. What is never
//! written about is left out.

use bytes::Bytes;
use wasm_encoder::reencode::Reencode as _;
use wasm_encoder::{
    CodeSection, CustomSection, DataCountSection, ElementSection, ExportSection, FunctionSection,
    GlobalSection, ImportSection, MemorySection, Module, StartSection, TableSection, TagSection,
};
use wasmparser::{ConstExpr, ElementKind, Global, Operator};

use super::custom::Fate;
use super::source::{Place, Source};
use super::types::Types;
use super::{Unkeyable, encode, invalid, operators};

pub(super) fn canonicalize(bytes: &Bytes, ignored: &[String]) -> Result<Bytes, Unkeyable> {
    let mut source = Source::read(bytes, ignored)?;
    match source.pinned {
        Some(Fate::PinsFile) => return Ok(bytes.clone()),
        Some(Fate::PinsProgram) => return Ok(without(bytes, &source)),
        Some(Fate::Kept | Fate::Dropped) | None => {}
    }
    let types = std::mem::take(&mut source.types);
    Builder::new(&source, types).build()
}

/// The module as it is, apart from the sections to drop.
fn without(bytes: &Bytes, source: &Source<'_>) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len());
    let mut copied = 0;
    for dropped in &source.dropped {
        out.extend_from_slice(&bytes[copied..dropped.start]);
        copied = dropped.end;
    }
    out.extend_from_slice(&bytes[copied..]);
    out.into()
}

/// The bytes that engines take at most in one body. Other numbers may be longer ones.
const MAX_BODY: usize = 7_654_321;

/// The canonical module under construction.
#[derive(Debug)]
pub(super) struct Builder<'s, 'a> {
    pub(super) source: &'s Source<'a>,
    pub(super) types: Types,
    /// The canonical number of each function of the source.
    functions: Vec<Option<u32>>,
    /// Those that are not imported, by their canonical number, counted from zero.
    reached: Vec<usize>,
    globals: Vec<GlobalState>,
    global_section: GlobalSection,
    pub(super) needs_data_count: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GlobalState {
    Unseen,
    /// The globals of its initializer are being numbered.
    Waiting,
    Numbered(u32),
}

impl<'s, 'a> Builder<'s, 'a> {
    fn new(source: &'s Source<'a>, types: Types) -> Self {
        let mut functions: Vec<_> = (0..source.imported_functions).map(Some).collect();
        functions.resize(functions.len() + source.functions.len(), None);
        let mut globals: Vec<_> = (0..source.imported_globals)
            .map(GlobalState::Numbered)
            .collect();
        globals.resize(globals.len() + source.globals.len(), GlobalState::Unseen);
        Self {
            source,
            types,
            functions,
            reached: Vec::new(),
            globals,
            global_section: GlobalSection::new(),
            needs_data_count: false,
        }
    }

    pub(super) fn ty(&mut self, source: u32) -> u32 {
        self.types.number(source)
    }

    pub(super) fn function(&mut self, source: u32) -> u32 {
        let imported = self.source.imported_functions;
        *self.functions[source as usize].get_or_insert_with(|| {
            self.reached.push((source - imported) as usize);
            imported + self.reached.len() as u32 - 1
        })
    }

    /// The canonical number of a global. If it has none yet, the globals of its initializer are
    /// numbered first, and it is written; without recursion, since a chain of globals may be as
    /// long as the module.
    pub(super) fn global(&mut self, source: u32) -> Result<u32, Unkeyable> {
        let mut stack = vec![source];
        loop {
            let Some(&top) = stack.last() else {
                return Err(Unkeyable::new("a global that depends on nothing it names"));
            };
            match self.globals[top as usize] {
                GlobalState::Numbered(number) => {
                    stack.pop();
                    if stack.is_empty() {
                        return Ok(number);
                    }
                }
                GlobalState::Unseen => {
                    self.globals[top as usize] = GlobalState::Waiting;
                    let first = stack.len();
                    for operator in self.initializer(top).get_operators_reader() {
                        if let Operator::GlobalGet { global_index } = operator.map_err(invalid)? {
                            stack.push(global_index);
                        }
                    }
                    stack[first..].reverse();
                }
                GlobalState::Waiting => {
                    let number = self.source.imported_globals + self.global_section.len();
                    let Global { ty, init_expr } = self.defined_global(top).clone();
                    let ty = self.global_type(ty).map_err(encode::failed)?;
                    let value = self.const_expr(init_expr).map_err(encode::failed)?;
                    self.global_section.global(ty, &value);
                    self.globals[top as usize] = GlobalState::Numbered(number);
                }
            }
        }
    }

    fn defined_global(&self, source: u32) -> &'s Global<'a> {
        &self.source.globals[(source - self.source.imported_globals) as usize]
    }

    fn initializer(&self, source: u32) -> &'s ConstExpr<'a> {
        &self.defined_global(source).init_expr
    }

    fn build(mut self) -> Result<Bytes, Unkeyable> {
        // The order of these steps is the order of first use, and so part of the schema.
        let imports = self.imports()?;
        let exports = self.exports()?;
        let start = self.source.start.map(|function| self.function(function));
        let tables = self.tables()?;
        let memories = self.memories()?;
        let tags = self.tags()?;
        let elements = self.elements()?;
        let data = self.data()?;
        self.globals_with_effects()?;
        let (functions, code) = self.functions()?;
        let types = self.types.section()?;

        let mut out = Sections {
            module: Module::new(),
            source: self.source,
            customs: 0,
        };
        out.section(Place::Types, &types, types.is_empty());
        out.section(Place::Imports, &imports, imports.is_empty());
        out.section(Place::Functions, &functions, functions.is_empty());
        out.section(Place::Tables, &tables, tables.is_empty());
        out.section(Place::Memories, &memories, memories.is_empty());
        out.section(Place::Tags, &tags, tags.is_empty());
        let globals = &self.global_section;
        out.section(Place::Globals, globals, globals.is_empty());
        out.section(Place::Exports, &exports, exports.is_empty());
        let function_index = start.unwrap_or_default();
        let section = StartSection { function_index };
        out.section(Place::StartFunction, &section, start.is_none());
        out.section(Place::Elements, &elements, elements.is_empty());
        let section = DataCountSection { count: data.len() };
        out.section(Place::DataCount, &section, !self.needs_data_count);
        out.section(Place::Code, &code, code.is_empty());
        out.section(Place::Data, &data, data.is_empty());
        Ok(out.finish())
    }

    fn imports(&mut self) -> Result<ImportSection, Unkeyable> {
        let mut section = ImportSection::new();
        for import in self.source.imports.iter().cloned() {
            // One by one, however they were grouped.
            for import in import.into_imports() {
                self.parse_import(&mut section, import.map_err(invalid)?)
                    .map_err(encode::failed)?;
            }
        }
        Ok(section)
    }

    fn exports(&mut self) -> Result<ExportSection, Unkeyable> {
        let mut section = ExportSection::new();
        for reader in self.source.exports.iter().cloned() {
            self.parse_export_section(&mut section, reader)
                .map_err(encode::failed)?;
        }
        Ok(section)
    }

    fn tables(&mut self) -> Result<TableSection, Unkeyable> {
        let mut section = TableSection::new();
        for reader in self.source.tables.iter().cloned() {
            self.parse_table_section(&mut section, reader)
                .map_err(encode::failed)?;
        }
        Ok(section)
    }

    fn memories(&mut self) -> Result<MemorySection, Unkeyable> {
        let mut section = MemorySection::new();
        for reader in self.source.memories.iter().cloned() {
            self.parse_memory_section(&mut section, reader)
                .map_err(encode::failed)?;
        }
        Ok(section)
    }

    fn tags(&mut self) -> Result<TagSection, Unkeyable> {
        let mut section = TagSection::new();
        for reader in self.source.tags.iter().cloned() {
            self.parse_tag_section(&mut section, reader)
                .map_err(encode::failed)?;
        }
        Ok(section)
    }

    fn elements(&mut self) -> Result<ElementSection, Unkeyable> {
        let mut section = ElementSection::new();
        for reader in self.source.elements.iter().cloned() {
            for element in reader {
                let mut element = element.map_err(invalid)?;
                if let ElementKind::Active {
                    table_index,
                    offset_expr: _,
                } = &mut element.kind
                {
                    // Table 0 is the one that is meant where none is named.
                    *table_index = table_index.filter(|&table| table != 0);
                }
                self.parse_element(&mut section, element)
                    .map_err(encode::failed)?;
            }
        }
        Ok(section)
    }

    /// Keeps the globals whose initializer may fail, whether anything reaches them or not.
    fn globals_with_effects(&mut self) -> Result<(), Unkeyable> {
        let imported = self.source.imported_globals;
        for global in imported..imported + self.source.globals.len() as u32 {
            if self.globals[global as usize] == GlobalState::Unseen
                && may_fail(self.initializer(global))?
            {
                self.global(global)?;
            }
        }
        Ok(())
    }

    fn functions(&mut self) -> Result<(FunctionSection, CodeSection), Unkeyable> {
        let mut functions = FunctionSection::new();
        let mut code = CodeSection::new();
        let mut body = Vec::new();
        let mut next = 0;
        // Bodies reach further functions, which are appended.
        while let Some(&function) = self.reached.get(next) {
            functions.function(self.ty(self.source.functions[function]));
            body.clear();
            self.body(&self.source.code.bodies[function], &mut body)?;
            if body.len() > MAX_BODY {
                return Err(Unkeyable::new(
                    "a body is too large when it is numbered anew",
                ));
            }
            code.raw(&body);
            next += 1;
        }
        Ok((functions, code))
    }
}

/// Whether an initializer does more than yield a value. An allow-list: the rest may allocate.
fn may_fail(initializer: &ConstExpr<'_>) -> Result<bool, Unkeyable> {
    for operator in initializer.get_operators_reader() {
        let operator = operator.map_err(invalid)?;
        operators::check(&operator)?;
        if !operators::is_pure_constant(&operator) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts sections and the custom sections between them in order.
struct Sections<'s, 'a> {
    module: Module,
    source: &'s Source<'a>,
    customs: usize,
}

impl Sections<'_, '_> {
    fn section(&mut self, place: Place, section: &impl wasm_encoder::Section, empty: bool) {
        self.customs_before(place);
        if !empty {
            self.module.section(section);
        }
    }

    /// Custom sections keep their order and their place between those of the program.
    fn customs_before(&mut self, place: Place) {
        while let Some(custom) = self.source.customs.get(self.customs) {
            if custom.after >= place {
                break;
            }
            self.custom();
        }
    }

    fn custom(&mut self) {
        if let Some(custom) = self.source.customs.get(self.customs) {
            self.module.section(&CustomSection {
                name: custom.name.into(),
                data: custom.data.into(),
            });
        }
        self.customs += 1;
    }

    fn finish(mut self) -> Bytes {
        while self.customs < self.source.customs.len() {
            self.custom();
        }
        self.module.finish().into()
    }
}
