//! A WebAssembly module as a tree, which can be changed and written again by another hand than the
//! rules' own. Nothing of the binary format is left out of it but how numbers are spelled.

use std::convert::Infallible;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    DataCountSection, DataSection, ElementSection, Elements, Encode, ExportSection,
    FunctionSection, GlobalSection, ImportSection, MemorySection, StartSection, TableSection,
    TagSection, TypeSection,
};
use wasmparser::{
    ConstExpr, Data, ElementItems, ElementKind, Export, Global, Import, MemoryType, Operator,
    Parser, Payload, RefType, SubType, Table, TagType, ValType,
};

/// A recursion group, and whether it is spelled as one.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) explicit: bool,
    pub(crate) types: Vec<SubType>,
}

#[derive(Clone)]
pub(crate) struct Element<'a> {
    pub(crate) kind: ElementKind<'a>,
    pub(crate) items: Items<'a>,
}

#[derive(Clone)]
pub(crate) enum Items<'a> {
    Functions(Vec<u32>),
    Expressions(RefType, Vec<ConstExpr<'a>>),
}

#[derive(Clone)]
pub(crate) struct Body<'a> {
    pub(crate) locals: Vec<(u32, ValType)>,
    pub(crate) operators: Vec<Operator<'a>>,
}

#[derive(Clone)]
pub(crate) struct Custom<'a> {
    /// How many of [`ORDER`] come before it.
    pub(crate) after: usize,
    pub(crate) name: &'a str,
    pub(crate) data: &'a [u8],
}

/// The sections by their ids, in the order of the format.
pub(crate) const ORDER: [u8; 13] = [1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11];

const NAMES: [&str; 13] = [
    "types",
    "imports",
    "functions",
    "tables",
    "memories",
    "tags",
    "globals",
    "exports",
    "start",
    "elements",
    "data count",
    "code",
    "data",
];

#[derive(Clone, Default)]
pub(crate) struct Ast<'a> {
    pub(crate) types: Vec<Group>,
    pub(crate) imports: Vec<Import<'a>>,
    pub(crate) functions: Vec<u32>,
    pub(crate) tables: Vec<Table<'a>>,
    pub(crate) memories: Vec<MemoryType>,
    pub(crate) tags: Vec<TagType>,
    pub(crate) globals: Vec<Global<'a>>,
    pub(crate) exports: Vec<Export<'a>>,
    pub(crate) start: Option<u32>,
    pub(crate) elements: Vec<Element<'a>>,
    pub(crate) data_count: bool,
    pub(crate) data: Vec<Data<'a>>,
    pub(crate) bodies: Vec<Body<'a>>,
    pub(crate) customs: Vec<Custom<'a>>,
}

/// What the format lets a writer choose.
pub(crate) trait Style: Reencode<Error = Infallible> {
    /// Spells an operator that has been written in the shortest way.
    fn operator(&mut self, operator: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(operator);
    }

    /// Spells a size.
    fn size(&mut self, size: usize, out: &mut Vec<u8>) {
        size.encode(out);
    }

    /// Whether to write a section that holds nothing.
    fn empty_section(&mut self) -> bool {
        false
    }
}

impl Style for RoundtripReencoder {}

impl<'a> Ast<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Self {
        let mut ast = Self::default();
        let mut after = 0;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.unwrap();
            if let Some((id, _)) = payload.as_section() {
                if id != 0 {
                    after = 1 + ORDER.iter().position(|&known| known == id).unwrap();
                }
            }
            ast.payload(payload, after);
        }
        ast
    }

    fn payload(&mut self, payload: Payload<'a>, after: usize) {
        match payload {
            Payload::TypeSection(reader) => {
                self.types.extend(reader.into_iter().map(|group| {
                    let group = group.unwrap();
                    Group {
                        explicit: group.is_explicit_rec_group(),
                        types: group.into_types().collect(),
                    }
                }));
            }
            Payload::ImportSection(reader) => {
                self.imports
                    .extend(reader.into_imports().map(Result::unwrap));
            }
            Payload::FunctionSection(reader) => self.functions = collect(reader),
            Payload::TableSection(reader) => self.tables = collect(reader),
            Payload::MemorySection(reader) => self.memories = collect(reader),
            Payload::TagSection(reader) => self.tags = collect(reader),
            Payload::GlobalSection(reader) => self.globals = collect(reader),
            Payload::ExportSection(reader) => self.exports = collect(reader),
            Payload::StartSection { func, range: _ } => self.start = Some(func),
            Payload::ElementSection(reader) => {
                self.elements.extend(reader.into_iter().map(|element| {
                    let element = element.unwrap();
                    Element {
                        kind: element.kind,
                        items: match element.items {
                            ElementItems::Functions(items) => Items::Functions(collect(items)),
                            ElementItems::Expressions(ty, items) => {
                                Items::Expressions(ty, collect(items))
                            }
                        },
                    }
                }));
            }
            Payload::DataSection(reader) => self.data = collect(reader),
            Payload::CodeSectionEntry(body) => {
                let locals = body.get_locals_reader().unwrap().into_iter();
                let operators = body.get_operators_reader().unwrap().into_iter();
                self.bodies.push(Body {
                    locals: locals.map(Result::unwrap).collect(),
                    operators: operators.map(Result::unwrap).collect(),
                });
            }
            Payload::CustomSection(reader) => self.customs.push(Custom {
                after,
                name: reader.name(),
                data: reader.data(),
            }),
            Payload::DataCountSection { .. } => self.data_count = true,
            Payload::Version { .. } | Payload::CodeSectionStart { .. } | Payload::End(_) => {}
            other => panic!("not of a module: {other:?}"),
        }
    }

    pub(crate) fn write(&self, style: &mut impl Style) -> Vec<u8> {
        let mut out = b"\0asm\x01\0\0\0".to_vec();
        let mut customs = self.customs.iter().peekable();
        for (place, id) in ORDER.into_iter().enumerate() {
            while let Some(custom) = customs.next_if(|custom| custom.after <= place) {
                write_custom(custom, style, &mut out);
            }
            let (count, contents) = self.section(id, style);
            // A start function and a data count are there or not; not every tool knows tags.
            if count > 0 || (!matches!(id, 8 | 12 | 13) && style.empty_section()) {
                out.push(id);
                style.size(contents.len(), &mut out);
                out.extend_from_slice(&contents);
            }
        }
        for custom in customs {
            write_custom(custom, style, &mut out);
        }
        out
    }

    /// The parts that differ between two modules, for people.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let style = &mut RoundtripReencoder;
        let mut parts = Vec::new();
        let customs = |ast: &Self| -> Vec<_> {
            let customs = ast.customs.iter();
            customs
                .map(|custom| (custom.name.to_owned(), custom.data.to_vec()))
                .collect()
        };
        let (mine, others) = (customs(self), customs(other));
        let lost = mine.iter().filter(|custom| !others.contains(custom));
        parts.extend(lost.map(|(name, _)| format!("custom section {name:?} lost")));
        let added = others.iter().filter(|custom| !mine.contains(custom));
        parts.extend(added.map(|(name, _)| format!("custom section {name:?} added")));
        for (id, name) in ORDER.into_iter().zip(NAMES) {
            if self.section(id, style) != other.section(id, style) {
                parts.push(name.to_owned());
            }
        }
        parts
    }

    /// The number of items of a section, and its contents.
    fn section(&self, id: u8, style: &mut impl Style) -> (usize, Vec<u8>) {
        match id {
            1 => {
                let mut section = TypeSection::new();
                for group in &self.types {
                    let types = group.types.iter().cloned();
                    let types: Vec<_> = types.map(|ty| style.sub_type(ty).unwrap()).collect();
                    match types.as_slice() {
                        [ty] if !group.explicit => section.ty().subtype(ty),
                        [..] => section.ty().rec(types),
                    }
                }
                (self.types.len(), contents(&section))
            }
            2 => {
                let mut section = ImportSection::new();
                for &import in &self.imports {
                    style.parse_import(&mut section, import).unwrap();
                }
                (self.imports.len(), contents(&section))
            }
            3 => {
                let mut section = FunctionSection::new();
                for &ty in &self.functions {
                    section.function(style.type_index(ty).unwrap());
                }
                (self.functions.len(), contents(&section))
            }
            4 => {
                let mut section = TableSection::new();
                for table in self.tables.iter().cloned() {
                    style.parse_table(&mut section, table).unwrap();
                }
                (self.tables.len(), contents(&section))
            }
            5 => {
                let mut section = MemorySection::new();
                for &memory in &self.memories {
                    section.memory(style.memory_type(memory).unwrap());
                }
                (self.memories.len(), contents(&section))
            }
            13 => {
                let mut section = TagSection::new();
                for &tag in &self.tags {
                    section.tag(style.tag_type(tag).unwrap());
                }
                (self.tags.len(), contents(&section))
            }
            6 => {
                let mut section = GlobalSection::new();
                for global in self.globals.iter().cloned() {
                    style.parse_global(&mut section, global).unwrap();
                }
                (self.globals.len(), contents(&section))
            }
            7 => {
                let mut section = ExportSection::new();
                for &export in &self.exports {
                    style.parse_export(&mut section, export).unwrap();
                }
                (self.exports.len(), contents(&section))
            }
            8 => {
                let Some(function) = self.start else {
                    return (0, Vec::new());
                };
                let function_index = style.function_index(function).unwrap();
                (1, contents(&StartSection { function_index }))
            }
            9 => (self.elements.len(), contents(&self.element_section(style))),
            12 => {
                let count = self.data.len() as u32;
                let section = DataCountSection { count };
                (usize::from(self.data_count), contents(&section))
            }
            10 => (self.bodies.len(), self.code_section(style)),
            11 => {
                let mut section = DataSection::new();
                for data in self.data.iter().cloned() {
                    style.parse_data(&mut section, data).unwrap();
                }
                (self.data.len(), contents(&section))
            }
            other => panic!("not of a module: {other}"),
        }
    }

    fn element_section(&self, style: &mut impl Style) -> ElementSection {
        let mut section = ElementSection::new();
        for element in &self.elements {
            let items = match &element.items {
                Items::Functions(functions) => {
                    let functions = functions.iter();
                    let functions = functions.map(|&at| style.function_index(at).unwrap());
                    Elements::Functions(functions.collect())
                }
                Items::Expressions(ty, expressions) => {
                    let ty = style.ref_type(*ty).unwrap();
                    let expressions = expressions.iter().cloned();
                    let expressions = expressions.map(|value| style.const_expr(value).unwrap());
                    Elements::Expressions(ty, expressions.collect())
                }
            };
            match element.kind.clone() {
                ElementKind::Passive => section.passive(items),
                ElementKind::Active {
                    table_index,
                    offset_expr,
                } => {
                    let offset = style.const_expr(offset_expr).unwrap();
                    section.active(table_index, &offset, items)
                }
                ElementKind::Declared => section.declared(items),
            };
        }
        section
    }

    fn code_section(&self, style: &mut impl Style) -> Vec<u8> {
        let mut section = Vec::new();
        style.size(self.bodies.len(), &mut section);
        for body in &self.bodies {
            let (mut bytes, mut operator) = (Vec::new(), Vec::new());
            style.size(body.locals.len(), &mut bytes);
            for &(count, ty) in &body.locals {
                style.size(count as usize, &mut bytes);
                style.val_type(ty).unwrap().encode(&mut bytes);
            }
            for instruction in &body.operators {
                operator.clear();
                let instruction = style.instruction(instruction.clone()).unwrap();
                instruction.encode(&mut operator);
                style.operator(&operator, &mut bytes);
            }
            style.size(bytes.len(), &mut section);
            section.extend_from_slice(&bytes);
        }
        section
    }
}

fn collect<'a, T: wasmparser::FromReader<'a>>(reader: wasmparser::SectionLimited<'a, T>) -> Vec<T> {
    reader.into_iter().map(Result::unwrap).collect()
}

/// What a section holds, without its size.
fn contents(section: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    section.encode(&mut bytes);
    let size = bytes.iter().position(|&byte| byte < 0x80).unwrap() + 1;
    bytes.split_off(size)
}

fn write_custom(custom: &Custom<'_>, style: &mut impl Style, out: &mut Vec<u8>) {
    let mut contents = Vec::new();
    style.size(custom.name.len(), &mut contents);
    contents.extend_from_slice(custom.name.as_bytes());
    contents.extend_from_slice(custom.data);
    out.push(0);
    style.size(contents.len(), out);
    out.extend_from_slice(&contents);
}
