//! The module as it came, validated and taken apart in one pass.

use std::ops::Range;

use wasmparser::{
    ElementSectionReader, Encoding, ExportSectionReader, Global, ImportSectionReader,
    MemorySectionReader, Parser, Payload, RecGroup, TableSectionReader, TagSectionReader, TypeRef,
    ValidPayload, Validator, WasmFeatures,
};

use super::custom;
use super::custom::Fate;
use super::types::Types;
use super::validate::{Pending, Validated};
use super::{Unkeyable, features, invalid};

/// A custom section that is kept, and where it stands.
#[derive(Debug)]
pub(super) struct Custom<'a> {
    pub(super) name: &'a str,
    pub(super) data: &'a [u8],
    /// The sections of the program that come before it.
    pub(super) after: Place,
}

/// The sections of a program in the one order in which the format allows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Start,
    Types,
    Imports,
    Functions,
    Tables,
    Memories,
    Tags,
    Globals,
    Exports,
    StartFunction,
    Elements,
    DataCount,
    Code,
    Data,
}

/// A valid module, in pieces that borrow its bytes.
#[derive(Debug, Default)]
pub(super) struct Source<'a> {
    pub(super) bytes: &'a [u8],
    /// What the module was validated with.
    pub(super) features: WasmFeatures,
    rec_groups: Vec<RecGroup>,
    pub(super) types: Types,
    pub(super) imports: Option<ImportSectionReader<'a>>,
    pub(super) imported_functions: u32,
    pub(super) imported_globals: u32,
    /// The type of each function that is not imported.
    pub(super) functions: Vec<u32>,
    pub(super) tables: Option<TableSectionReader<'a>>,
    pub(super) memories: Option<MemorySectionReader<'a>>,
    pub(super) tags: Option<TagSectionReader<'a>>,
    pub(super) globals: Vec<Global<'a>>,
    pub(super) exports: Option<ExportSectionReader<'a>>,
    pub(super) start: Option<u32>,
    pub(super) elements: Option<ElementSectionReader<'a>>,
    /// The contents of the data section, from the start of the module.
    pub(super) data: Option<Range<usize>>,
    pub(super) code: Validated<'a>,
    pub(super) customs: Vec<Custom<'a>>,
    /// The sections to drop, as they lie in the module.
    pub(super) dropped: Vec<Range<usize>>,
    pub(super) pinned: Option<Fate>,
}

impl<'a> Source<'a> {
    /// Custom sections of the names in `ignored` are dropped.
    pub(super) fn read(bytes: &'a [u8], ignored: &[String]) -> Result<Self, Unkeyable> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(Unkeyable::new("the module is larger than 4 GiB"));
        }
        let features = features();
        let mut parser = Parser::new(0);
        parser.set_features(features);
        let mut validator = Validator::new_with_features(features);
        let mut pending = Pending::default();
        let mut source = Self {
            bytes,
            features,
            ..Self::default()
        };
        let mut place = Place::Start;
        let mut section_start = 0;
        for payload in parser.parse_all(bytes) {
            let payload = payload.map_err(invalid)?;
            if let Payload::Version {
                encoding: Encoding::Component,
                num: _,
                range: _,
            } = payload
            {
                return Err(Unkeyable::new("components have no canonical form yet"));
            }
            if let Payload::ImportSection(reader) = &payload {
                bound_names(reader, bytes.len())?;
            }
            match validator.payload(&payload).map_err(invalid)? {
                ValidPayload::Ok => {}
                ValidPayload::End(types) => {
                    let rec_groups = std::mem::take(&mut source.rec_groups);
                    source.types = Types::new(rec_groups, types.as_ref());
                }
                ValidPayload::Parser(_) => {
                    return Err(Unkeyable::new("a module inside of the module"));
                }
                ValidPayload::Func(function, body) => {
                    pending.push(function, body);
                    continue;
                }
            }
            section_start = source.section(payload, ignored, &mut place, section_start)?;
        }
        source.code = pending.validate(bytes, features)?;
        Ok(source)
    }

    /// Takes one section and says where it ends.
    fn section(
        &mut self,
        payload: Payload<'a>,
        ignored: &[String],
        place: &mut Place,
        section_start: usize,
    ) -> Result<usize, Unkeyable> {
        let (now, range) = match payload {
            Payload::Version {
                num: _,
                encoding: _,
                range,
            } => (Place::Start, range),
            Payload::TypeSection(reader) => {
                let range = reader.range();
                self.rec_groups = collect(reader)?;
                (Place::Types, range)
            }
            Payload::ImportSection(reader) => {
                let range = reader.range();
                for import in reader.clone().into_imports() {
                    match import.map_err(invalid)?.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => self.imported_functions += 1,
                        TypeRef::Global(_) => self.imported_globals += 1,
                        TypeRef::Table(_) | TypeRef::Memory(_) | TypeRef::Tag(_) => {}
                    }
                }
                self.imports = Some(reader);
                (Place::Imports, range)
            }
            Payload::FunctionSection(reader) => {
                let range = reader.range();
                self.functions = collect(reader)?;
                (Place::Functions, range)
            }
            Payload::TableSection(reader) => {
                let range = reader.range();
                self.tables = Some(reader);
                (Place::Tables, range)
            }
            Payload::MemorySection(reader) => {
                let range = reader.range();
                self.memories = Some(reader);
                (Place::Memories, range)
            }
            Payload::TagSection(reader) => {
                let range = reader.range();
                self.tags = Some(reader);
                (Place::Tags, range)
            }
            Payload::GlobalSection(reader) => {
                let range = reader.range();
                self.globals = collect(reader)?;
                (Place::Globals, range)
            }
            Payload::ExportSection(reader) => {
                let range = reader.range();
                self.exports = Some(reader);
                (Place::Exports, range)
            }
            Payload::StartSection { func, range } => {
                self.start = Some(func);
                (Place::StartFunction, range)
            }
            Payload::ElementSection(reader) => {
                let range = reader.range();
                self.elements = Some(reader);
                (Place::Elements, range)
            }
            Payload::DataCountSection { count: _, range } => (Place::DataCount, range),
            Payload::CodeSectionStart {
                count: _,
                unchecked_range: range,
                size: _,
            } => (Place::Code, range),
            Payload::DataSection(reader) => {
                let range = reader.range();
                self.data = Some(index(range.start)?..index(range.end)?);
                (Place::Data, range)
            }
            Payload::CustomSection(reader) => {
                let end = index(reader.range().end)?;
                match custom::fate(reader.name(), ignored) {
                    Fate::Dropped => self.dropped.push(section_start..end),
                    Fate::Kept => self.customs.push(Custom {
                        name: reader.name(),
                        data: reader.data(),
                        after: *place,
                    }),
                    Fate::PinsProgram => {
                        self.pinned = self.pinned.or(Some(Fate::PinsProgram));
                    }
                    Fate::PinsFile => self.pinned = Some(Fate::PinsFile),
                }
                return Ok(end);
            }
            Payload::End(offset) => return index(offset),
            // The validator hands bodies out as functions.
            Payload::CodeSectionEntry(_) => return Ok(section_start),
            Payload::UnknownSection {
                id,
                contents: _,
                range: _,
            } => {
                return Err(Unkeyable::new(format!("a section of unknown kind {id}")));
            }
            other => {
                return Err(Unkeyable::new(format!(
                    "a part that the rules do not know: {other:?}"
                )));
            }
        };
        *place = now;
        index(range.end)
    }
}

/// Refuses imports that take many times the module when each has its names written out: a name can
/// be shared by as many imports as there are. Asked before the validator copies the names.
fn bound_names(imports: &ImportSectionReader<'_>, module: usize) -> Result<(), Unkeyable> {
    let mut names = 0;
    for import in imports.clone().into_imports() {
        let import = import.map_err(invalid)?;
        names += import.module.len() + import.name.len();
        if names > 4 * module {
            return Err(Unkeyable::new(
                "the names that its imports share take many times the module when written out",
            ));
        }
    }
    Ok(())
}

fn collect<'a, T: wasmparser::FromReader<'a>>(
    reader: wasmparser::SectionLimited<'a, T>,
) -> Result<Vec<T>, Unkeyable> {
    reader
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(invalid)
}

/// A place in a module whose size has been found to fit.
fn index(offset: u64) -> Result<usize, Unkeyable> {
    usize::try_from(offset).map_err(|_| Unkeyable::new("the module is larger than the memory"))
}
