//! Every field of every declaration counts in the key of a module.
//!
//! Modules are taken apart into the parser's own types. Each field of each of them is changed, one
//! at a time, and the module is written again: if it is valid, its key is another. The patterns
//! name all fields and all variants, so that a new one upstream does not compile before it has
//! been thought of. Operators have a test of their own.

use super::support::ast as wasm_ast;
use std::collections::BTreeMap;

use pipeline_cache::PipelineFingerprint;
use pipeline_cache::key::wasm::WasmModule;
use wasm_ast::{Ast, Body, Custom, Element, Group, Items};
use wasm_encoder::reencode::RoundtripReencoder;
use wasmparser::{
    AbstractHeapType, ArrayType, BinaryReader, CompositeInnerType, CompositeType, ConstExpr,
    ContType, Data, DataKind, ElementKind, Export, ExternalKind, FieldType, FuncType, Global,
    GlobalType, HeapType, Import, MemoryType, Operator, PackedIndex, RefType, StorageType,
    StructType, SubType, Table, TableInit, TableType, TagKind, TagType, TypeRef, UnpackedIndex,
    ValType,
};

/// Ways to change a value, each with the field that it changes.
type Changes<T> = Vec<(&'static str, T)>;

trait Fields: Sized {
    fn changes(&self) -> Changes<Self>;
}

/// The changes of a part, each put back into the whole.
fn within<T: Fields, W>(part: &T, whole: impl Fn(T) -> W) -> Changes<W> {
    let changes = part.changes().into_iter();
    changes.map(|(field, part)| (field, whole(part))).collect()
}

/// One item changed, left out, doubled, or in the place of the next.
fn items<T: Fields + Clone>(name: [&'static str; 3], list: &[T]) -> Changes<Vec<T>> {
    let [left_out, doubled, order] = name;
    let mut changes = Vec::new();
    for (at, item) in list.iter().enumerate() {
        changes.extend(within(item, |item| {
            let mut list = list.to_vec();
            list[at] = item;
            list
        }));
        let mut list = list.to_vec();
        list.insert(at, item.clone());
        changes.push((doubled, list.clone()));
        list.drain(at..at + 2);
        changes.push((left_out, list.clone()));
        if at < list.len() {
            list.insert(at + 1, item.clone());
            changes.push((order, list));
        }
    }
    changes
}

macro_rules! items {
    ($name:literal, $list:expr) => {
        items(
            [
                concat!($name, ", one left out"),
                concat!($name, ", one twice"),
                concat!($name, ", order"),
            ],
            $list,
        )
    };
}

/// An index, one up and one down.
fn index(field: &'static str, index: u32) -> Changes<u32> {
    let down = index.checked_sub(1).map(|down| (field, down));
    down.into_iter().chain([(field, index + 1)]).collect()
}

impl Fields for u32 {
    fn changes(&self) -> Changes<Self> {
        index("an index in a list", *self)
    }
}

impl<'a> Fields for Ast<'a> {
    fn changes(&self) -> Changes<Self> {
        let Self {
            types,
            imports,
            functions,
            tables,
            memories,
            tags,
            globals,
            exports,
            start,
            elements,
            data_count,
            data,
            bodies,
            customs,
        } = self;
        let mut changes = Vec::new();
        for (field, types) in items!("types", types) {
            changes.push((
                field,
                Self {
                    types,
                    ..self.clone()
                },
            ));
        }
        for (field, imports) in items!("imports", imports) {
            changes.push((
                field,
                Self {
                    imports,
                    ..self.clone()
                },
            ));
        }
        for (field, tables) in items!("tables", tables) {
            changes.push((
                field,
                Self {
                    tables,
                    ..self.clone()
                },
            ));
        }
        for (field, memories) in items!("memories", memories) {
            changes.push((
                field,
                Self {
                    memories,
                    ..self.clone()
                },
            ));
        }
        for (field, tags) in items!("tags", tags) {
            changes.push((
                field,
                Self {
                    tags,
                    ..self.clone()
                },
            ));
        }
        for (field, globals) in items!("globals", globals) {
            changes.push((
                field,
                Self {
                    globals,
                    ..self.clone()
                },
            ));
        }
        for (field, exports) in items!("exports", exports) {
            changes.push((
                field,
                Self {
                    exports,
                    ..self.clone()
                },
            ));
        }
        for (field, elements) in items!("elements", elements) {
            changes.push((
                field,
                Self {
                    elements,
                    ..self.clone()
                },
            ));
        }
        for (field, data) in items!("data", data) {
            changes.push((
                field,
                Self {
                    data,
                    ..self.clone()
                },
            ));
        }
        for (field, customs) in items!("custom sections", customs) {
            changes.push((
                field,
                Self {
                    customs,
                    ..self.clone()
                },
            ));
        }
        let data_count = !data_count;
        changes.push((
            "data count",
            Self {
                data_count,
                ..self.clone()
            },
        ));
        // A function is its type and its body.
        let whole: Vec<_> = functions
            .iter()
            .copied()
            .zip(bodies.iter().cloned())
            .collect();
        for (field, whole) in items!("functions", &whole) {
            let (functions, bodies) = whole.into_iter().unzip();
            changes.push((
                field,
                Self {
                    functions,
                    bodies,
                    ..self.clone()
                },
            ));
        }
        let starts: Changes<_> = match *start {
            Some(function) => {
                let others = index("start function", function).into_iter();
                let others = others.map(|(field, function)| (field, Some(function)));
                others.chain([("start function, none", None)]).collect()
            }
            None => vec![("start function, one", Some(0))],
        };
        for (field, start) in starts {
            changes.push((
                field,
                Self {
                    start,
                    ..self.clone()
                },
            ));
        }
        changes
    }
}

impl Fields for (u32, Body<'_>) {
    fn changes(&self) -> Changes<Self> {
        let (ty, Body { locals, operators }) = self;
        let mut changes = Vec::new();
        for (field, ty) in index("type of a function", *ty) {
            changes.push((field, (ty, self.1.clone())));
        }
        for (field, locals) in items!("runs of locals", locals) {
            let operators = operators.clone();
            changes.push((field, (*ty, Body { locals, operators })));
        }
        let mut longer = operators.clone();
        longer.insert(0, Operator::Nop);
        let (locals, operators) = (locals.clone(), longer);
        changes.push(("operators, one more", (*ty, Body { locals, operators })));
        changes
    }
}

impl Fields for (u32, ValType) {
    fn changes(&self) -> Changes<Self> {
        let (count, ty) = *self;
        let mut changes = vec![("number of locals", (count + 1, ty))];
        changes.extend(within(&ty, |ty| (count, ty)));
        changes
    }
}

impl Fields for Group {
    fn changes(&self) -> Changes<Self> {
        let Self { explicit, types } = self;
        let mut changes = vec![(
            "`rec` around one type",
            Self {
                explicit: !explicit,
                types: types.clone(),
            },
        )];
        for (field, types) in items!("types of a group", types) {
            let explicit = *explicit;
            changes.push((field, Self { explicit, types }));
        }
        changes
    }
}

impl Fields for SubType {
    fn changes(&self) -> Changes<Self> {
        let Self {
            is_final,
            supertype_idxs,
            composite_type,
        } = self;
        let mut changes = vec![(
            "finality",
            Self {
                is_final: !is_final,
                ..self.clone()
            },
        )];
        let mut with = |field, supertypes: Vec<u32>| {
            let supertypes = supertypes.into_iter().map(PackedIndex::from_module_index);
            let supertype_idxs = supertypes.map(Option::unwrap).collect();
            changes.push((
                field,
                Self {
                    supertype_idxs,
                    ..self.clone()
                },
            ));
        };
        match supertype_idxs.as_slice() {
            [] => (0..9).for_each(|supertype| with("supertype, one", vec![supertype])),
            [supertype, ..] => {
                with("supertype, none", vec![]);
                let supertype = supertype.unpack().as_module_index().unwrap();
                for other in (0..9).filter(|&other| other != supertype) {
                    with("supertype", vec![other]);
                }
                with("supertypes, two", vec![supertype, supertype]);
            }
        }
        changes.extend(within(composite_type, |composite_type| Self {
            composite_type,
            ..self.clone()
        }));
        changes
    }
}

impl Fields for CompositeType {
    fn changes(&self) -> Changes<Self> {
        let Self {
            inner,
            shared,
            descriptor_idx,
            describes_idx,
        } = self;
        assert!(descriptor_idx.is_none() && describes_idx.is_none());
        let zero = PackedIndex::from_module_index(0);
        let mut changes = vec![
            (
                "a shared type",
                Self {
                    shared: !shared,
                    ..self.clone()
                },
            ),
            (
                "descriptor",
                Self {
                    descriptor_idx: zero,
                    ..self.clone()
                },
            ),
            (
                "described type",
                Self {
                    describes_idx: zero,
                    ..self.clone()
                },
            ),
        ];
        changes.extend(within(inner, |inner| Self {
            inner,
            ..self.clone()
        }));
        changes
    }
}

impl Fields for CompositeInnerType {
    fn changes(&self) -> Changes<Self> {
        let kinds = [
            Self::Func(FuncType::new([], [])),
            Self::Array(ArrayType(FieldType {
                element_type: StorageType::I8,
                mutable: false,
            })),
            Self::Struct(StructType {
                fields: Box::new([]),
            }),
            Self::Cont(ContType(PackedIndex::from_module_index(0).unwrap())),
        ];
        let kinds = kinds.into_iter().filter(|kind| kind != self);
        let mut changes: Changes<_> = kinds.map(|kind| ("kind of a type", kind)).collect();
        changes.extend(match self {
            Self::Func(function) => {
                let (params, results) = (function.params(), function.results());
                let mut changes = Vec::new();
                for (field, params) in items!("parameters", params) {
                    let results = results.iter().copied();
                    changes.push((field, Self::Func(FuncType::new(params, results))));
                }
                for (field, results) in items!("results", results) {
                    let params = params.iter().copied();
                    changes.push((field, Self::Func(FuncType::new(params, results))));
                }
                let all = params.iter().chain(results).copied();
                let moved = FuncType::new([], all);
                if moved != *function {
                    changes.push(("a parameter that is a result", Self::Func(moved)));
                }
                changes
            }
            Self::Array(ArrayType(field)) => within(field, |field| Self::Array(ArrayType(field))),
            Self::Struct(StructType { fields }) => {
                let changes = items!("fields", fields).into_iter();
                let put = |fields: Vec<_>| {
                    Self::Struct(StructType {
                        fields: fields.into(),
                    })
                };
                changes
                    .map(|(field, fields)| (field, put(fields)))
                    .collect()
            }
            // Of stack switching, which the validator does not let through.
            Self::Cont(ContType(_)) => Vec::new(),
        });
        changes
    }
}

impl Fields for FieldType {
    fn changes(&self) -> Changes<Self> {
        let Self {
            element_type,
            mutable,
        } = *self;
        let mut changes = vec![(
            "mutability of a field",
            Self {
                element_type,
                mutable: !mutable,
            },
        )];
        changes.extend(within(&element_type, |element_type| Self {
            element_type,
            mutable,
        }));
        changes
    }
}

impl Fields for StorageType {
    fn changes(&self) -> Changes<Self> {
        match self {
            Self::I8 => vec![("storage", Self::I16)],
            Self::I16 => vec![("storage", Self::Val(ValType::I32))],
            Self::Val(ty) => {
                let mut changes = vec![("storage", Self::I8)];
                changes.extend(within(ty, Self::Val));
                changes
            }
        }
    }
}

impl Fields for ValType {
    fn changes(&self) -> Changes<Self> {
        let all = [
            Self::I32,
            Self::I64,
            Self::F32,
            Self::F64,
            Self::V128,
            Self::FUNCREF,
        ];
        let others = all.into_iter().filter(|other| other != self);
        let mut changes: Changes<_> = others.map(|other| ("type of a value", other)).collect();
        match self {
            Self::I32 | Self::I64 | Self::F32 | Self::F64 | Self::V128 => {}
            Self::Ref(reference) => changes.extend(within(reference, Self::Ref)),
        }
        changes
    }
}

impl Fields for RefType {
    fn changes(&self) -> Changes<Self> {
        let (nullable, heap_type) = (self.is_nullable(), self.heap_type());
        let mut changes: Changes<_> = Self::new(!nullable, heap_type)
            .map(|other| ("nullability", other))
            .into_iter()
            .collect();
        for (field, heap_type) in heap_type.changes() {
            changes.extend(Self::new(nullable, heap_type).map(|other| (field, other)));
        }
        changes
    }
}

impl Fields for HeapType {
    fn changes(&self) -> Changes<Self> {
        let mut changes = Vec::new();
        match *self {
            Self::Abstract { shared, ty } => {
                changes.push((
                    "a shared heap type",
                    Self::Abstract {
                        shared: !shared,
                        ty,
                    },
                ));
                changes.extend(within(&ty, |ty| Self::Abstract { shared, ty }));
                changes.push((
                    "a heap type by index",
                    Self::Concrete(UnpackedIndex::Module(0)),
                ));
            }
            Self::Concrete(ty) => {
                let ty = ty.as_module_index().unwrap();
                for (field, ty) in index("index of a heap type", ty) {
                    changes.push((field, Self::Concrete(UnpackedIndex::Module(ty))));
                }
                changes.push(("an exact heap type", Self::Exact(UnpackedIndex::Module(ty))));
                changes.push(("an abstract heap type", Self::FUNC));
            }
            Self::Exact(_) => panic!("of custom descriptors"),
        }
        changes
    }
}

impl Fields for AbstractHeapType {
    fn changes(&self) -> Changes<Self> {
        use AbstractHeapType::{
            Any, Array, Cont, Eq, Exn, Extern, Func, I31, NoCont, NoExn, NoExtern, NoFunc, None,
            Struct,
        };
        let next = match self {
            Func => Extern,
            Extern => Any,
            Any => None,
            None => NoExtern,
            NoExtern => NoFunc,
            NoFunc => Eq,
            Eq => Struct,
            Struct => Array,
            Array => I31,
            I31 => Exn,
            Exn => NoExn,
            NoExn => Cont,
            Cont => NoCont,
            NoCont => Func,
        };
        vec![("heap type", next)]
    }
}

impl Fields for Import<'_> {
    fn changes(&self) -> Changes<Self> {
        let Self { module, name, ty } = *self;
        let mut changes = vec![
            (
                "name of an imported module",
                Self {
                    module: "else",
                    ..*self
                },
            ),
            (
                "name of an import",
                Self {
                    name: "else",
                    ..*self
                },
            ),
            (
                "names of an import, one for the other",
                Self {
                    module: name,
                    name: module,
                    ty,
                },
            ),
        ];
        changes.extend(within(&ty, |ty| Self { ty, ..*self }));
        changes
    }
}

impl Fields for TypeRef {
    fn changes(&self) -> Changes<Self> {
        let mut changes = match self {
            Self::Func(_) => vec![("kind of an import", Self::Tag(tag(0)))],
            Self::Tag(_) | Self::Memory(_) | Self::Table(_) | Self::Global(_) => {
                vec![("kind of an import", Self::Func(0))]
            }
            Self::FuncExact(_) => panic!("of custom descriptors"),
        };
        changes.extend(match self {
            Self::Func(ty) => {
                let mut changes: Changes<_> = index("type of an imported function", *ty)
                    .into_iter()
                    .map(|(field, ty)| (field, Self::Func(ty)))
                    .collect();
                changes.push(("an import of an exact type", Self::FuncExact(*ty)));
                changes
            }
            Self::Table(table) => within(table, Self::Table),
            Self::Memory(memory) => within(memory, Self::Memory),
            Self::Global(global) => within(global, Self::Global),
            Self::Tag(tag) => within(tag, Self::Tag),
            Self::FuncExact(_) => Vec::new(),
        });
        changes
    }
}

fn tag(func_type_idx: u32) -> TagType {
    TagType {
        kind: TagKind::Exception,
        func_type_idx,
    }
}

impl Fields for TagType {
    fn changes(&self) -> Changes<Self> {
        let Self {
            kind: TagKind::Exception,
            func_type_idx,
        } = *self;
        let changes = index("type of a tag", func_type_idx).into_iter();
        changes.map(|(field, ty)| (field, tag(ty))).collect()
    }
}

/// A limit: none, or another.
fn limit(field: &'static str, limit: Option<u64>) -> Changes<Option<u64>> {
    let others = [None, Some(limit.unwrap_or(8) + 1), Some(1 << 12)];
    let others = others.into_iter().filter(|other| *other != limit);
    others.map(|other| (field, other)).collect()
}

impl Fields for TableType {
    fn changes(&self) -> Changes<Self> {
        let Self {
            element_type,
            table64,
            initial,
            maximum,
            shared,
        } = *self;
        let mut changes = vec![
            (
                "a table with 64 bits",
                Self {
                    table64: !table64,
                    ..*self
                },
            ),
            (
                "size of a table",
                Self {
                    initial: initial + 1,
                    ..*self
                },
            ),
            (
                "a shared table",
                Self {
                    shared: !shared,
                    ..*self
                },
            ),
        ];
        for (field, maximum) in limit("largest size of a table", maximum) {
            changes.push((field, Self { maximum, ..*self }));
        }
        changes.extend(within(&element_type, |element_type| Self {
            element_type,
            ..*self
        }));
        changes
    }
}

impl Fields for Table<'_> {
    fn changes(&self) -> Changes<Self> {
        let Self { ty, init } = self;
        let mut changes = within(ty, |ty| Self {
            ty,
            init: init.clone(),
        });
        match init {
            TableInit::RefNull => {}
            TableInit::Expr(value) => changes.extend(within(value, |value| Self {
                ty: *ty,
                init: TableInit::Expr(value),
            })),
        }
        let null = expression(&[0xd0, 0x70, 0x0b]);
        changes.push((
            "initial value of a table",
            Self {
                ty: *ty,
                init: TableInit::Expr(null),
            },
        ));
        changes
    }
}

impl Fields for MemoryType {
    fn changes(&self) -> Changes<Self> {
        let Self {
            memory64,
            shared,
            initial,
            maximum,
            page_size_log2,
        } = *self;
        let page_size = match page_size_log2 {
            None => Some(0),
            Some(_) => None,
        };
        let mut changes = vec![
            (
                "a memory with 64 bits",
                Self {
                    memory64: !memory64,
                    ..*self
                },
            ),
            (
                "a shared memory",
                Self {
                    shared: !shared,
                    ..*self
                },
            ),
            (
                "size of a memory",
                Self {
                    initial: initial + 1,
                    ..*self
                },
            ),
            (
                "size of a page",
                Self {
                    page_size_log2: page_size,
                    ..*self
                },
            ),
        ];
        for (field, maximum) in limit("largest size of a memory", maximum) {
            changes.push((field, Self { maximum, ..*self }));
        }
        changes
    }
}

impl Fields for GlobalType {
    fn changes(&self) -> Changes<Self> {
        let Self {
            content_type,
            mutable,
            shared,
        } = *self;
        let mut changes = vec![
            (
                "mutability of a global",
                Self {
                    mutable: !mutable,
                    ..*self
                },
            ),
            (
                "a shared global",
                Self {
                    shared: !shared,
                    ..*self
                },
            ),
        ];
        changes.extend(within(&content_type, |content_type| Self {
            content_type,
            ..*self
        }));
        changes
    }
}

impl Fields for Global<'_> {
    fn changes(&self) -> Changes<Self> {
        let Self { ty, init_expr } = self;
        let mut changes = within(ty, |ty| Self {
            ty,
            init_expr: init_expr.clone(),
        });
        changes.extend(within(init_expr, |init_expr| Self { ty: *ty, init_expr }));
        changes
    }
}

fn expression(bytes: &'static [u8]) -> ConstExpr<'static> {
    ConstExpr::new(BinaryReader::new(bytes, 0))
}

/// Its operators are changed in the test of all operators.
impl Fields for ConstExpr<'_> {
    fn changes(&self) -> Changes<Self> {
        let others: [&[u8]; 12] = [
            &[0x41, 0x05, 0x0b],
            &[0x41, 0x06, 0x0b],
            &[0x41, 0x03, 0x41, 0x03, 0x6a, 0x0b],
            &[0x42, 0x05, 0x0b],
            &[0x43, 0, 0, 0, 0x80, 0x0b],
            &[0x44, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x0b],
            &[0x23, 0x00, 0x0b],
            &[0xd2, 0x00, 0x0b],
            &[0xd2, 0x01, 0x0b],
            &[0xd0, 0x70, 0x0b],
            &[0xd0, 0x73, 0x0b],
            &[0xd0, 0x6f, 0x0b],
        ];
        let own: Vec<_> = self.get_operators_reader().into_iter().collect();
        others
            .into_iter()
            .map(expression)
            .filter(|other| {
                let other = other.get_operators_reader().into_iter();
                !other
                    .map(Result::unwrap)
                    .eq(own.iter().map(|own| own.clone().unwrap()))
            })
            .map(|other| ("initializer or offset", other))
            .collect()
    }
}

impl Fields for Export<'_> {
    fn changes(&self) -> Changes<Self> {
        let Self {
            name: _,
            kind,
            index,
        } = *self;
        let mut changes = vec![(
            "name of an export",
            Self {
                name: "else",
                ..*self
            },
        )];
        let kinds = [
            ExternalKind::Func,
            ExternalKind::Table,
            ExternalKind::Memory,
            ExternalKind::Global,
            ExternalKind::Tag,
        ];
        changes.extend(
            kinds
                .into_iter()
                .filter(|other| *other != kind)
                .map(|kind| ("kind of an export", Self { kind, ..*self })),
        );
        let field = match kind {
            ExternalKind::Func => "index of an exported function",
            ExternalKind::Table => "index of an exported table",
            ExternalKind::Memory => "index of an exported memory",
            ExternalKind::Global => "index of an exported global",
            ExternalKind::Tag => "index of an exported tag",
            ExternalKind::FuncExact => panic!("of custom descriptors"),
        };
        let indices = self::index(field, index).into_iter();
        changes.extend(indices.map(|(field, index)| (field, Self { index, ..*self })));
        changes
    }
}

impl Fields for Element<'_> {
    fn changes(&self) -> Changes<Self> {
        let Self { kind, items } = self;
        let mut changes = Vec::new();
        for (field, kind) in kind.changes() {
            let items = items.clone();
            changes.push((field, Self { kind, items }));
        }
        let changed: Changes<_> = match items {
            Items::Functions(functions) => {
                let changes = items!("functions of a segment", functions).into_iter();
                let mut changes: Changes<_> = changes
                    .map(|(field, functions)| (field, Items::Functions(functions)))
                    .collect();
                let values: &[&[u8]] = &[&[0xd2, 0, 0x0b], &[0xd2, 1, 0x0b], &[0xd2, 2, 0x0b]];
                let values = functions.iter().filter_map(|&at| values.get(at as usize));
                let values = values.map(|bytes| expression(bytes)).collect();
                changes.push((
                    "functions as expressions",
                    Items::Expressions(RefType::FUNCREF, values),
                ));
                changes
            }
            Items::Expressions(ty, values) => {
                let mut changes = Vec::new();
                for (field, ty) in ty.changes() {
                    changes.push((field, Items::Expressions(ty, values.clone())));
                }
                for (field, values) in items!("expressions of a segment", values) {
                    changes.push((field, Items::Expressions(*ty, values)));
                }
                changes
            }
        };
        for (field, items) in changed {
            let kind = kind.clone();
            changes.push((field, Self { kind, items }));
        }
        changes
    }
}

impl Fields for ElementKind<'_> {
    fn changes(&self) -> Changes<Self> {
        let offset_expr = expression(&[0x41, 0x00, 0x0b]);
        match self {
            Self::Passive => vec![
                ("kind of elements", Self::Declared),
                (
                    "kind of elements",
                    Self::Active {
                        table_index: None,
                        offset_expr,
                    },
                ),
            ],
            Self::Declared => vec![("kind of elements", Self::Passive)],
            Self::Active {
                table_index,
                offset_expr,
            } => {
                let mut changes = vec![("kind of elements", Self::Passive)];
                for (field, table) in index("table of elements", table_index.unwrap_or(0)) {
                    let table_index = Some(table);
                    let offset_expr = offset_expr.clone();
                    changes.push((
                        field,
                        Self::Active {
                            table_index,
                            offset_expr,
                        },
                    ));
                }
                let spelled_out = match table_index {
                    None => Some(0),
                    Some(0) => None,
                    Some(other) => Some(*other),
                };
                if spelled_out != *table_index {
                    let offset_expr = offset_expr.clone();
                    let spelled_out = Self::Active {
                        table_index: spelled_out,
                        offset_expr,
                    };
                    changes.push(("table 0, spelled out", spelled_out));
                }
                changes.extend(within(offset_expr, |offset_expr| Self::Active {
                    table_index: *table_index,
                    offset_expr,
                }));
                changes
            }
        }
    }
}

impl Fields for Data<'_> {
    fn changes(&self) -> Changes<Self> {
        let Self {
            kind,
            data,
            // Where it was.
            range: _,
        } = self;
        let others: [&[u8]; 3] = [b"", b"other", b"\0"];
        let others = others.into_iter().filter(|other| other != data);
        let mut changes: Changes<_> = others
            .map(|data| {
                (
                    "bytes of a segment",
                    Self {
                        data,
                        ..self.clone()
                    },
                )
            })
            .collect();
        let zero = || expression(&[0x41, 0x00, 0x0b]);
        let kinds: Changes<_> = match kind {
            DataKind::Passive => vec![(
                "kind of data",
                DataKind::Active {
                    memory_index: 0,
                    offset_expr: zero(),
                },
            )],
            DataKind::Active {
                memory_index,
                offset_expr,
            } => {
                let mut changes = vec![("kind of data", DataKind::Passive)];
                for (field, memory_index) in index("memory of data", *memory_index) {
                    let offset_expr = offset_expr.clone();
                    changes.push((
                        field,
                        DataKind::Active {
                            memory_index,
                            offset_expr,
                        },
                    ));
                }
                changes.extend(within(offset_expr, |offset_expr| DataKind::Active {
                    memory_index: *memory_index,
                    offset_expr,
                }));
                changes
            }
        };
        for (field, kind) in kinds {
            changes.push((
                field,
                Self {
                    kind,
                    ..self.clone()
                },
            ));
        }
        changes
    }
}

impl Fields for Custom<'_> {
    fn changes(&self) -> Changes<Self> {
        let Self { after, name, data } = self;
        let mut changes = vec![
            (
                "name of a custom section",
                Self {
                    name: "build_id",
                    ..self.clone()
                },
            ),
            (
                "name of a custom section, dropped",
                Self {
                    name: "name",
                    ..self.clone()
                },
            ),
            (
                "data of a custom section",
                Self {
                    data: b"other",
                    ..self.clone()
                },
            ),
        ];
        let after = if *after == 0 { 13 } else { 0 };
        assert!(!name.is_empty() && !data.is_empty());
        changes.push((
            "place of a custom section",
            Self {
                after,
                ..self.clone()
            },
        ));
        changes
    }
}

/// Modules in which everything is reached, and bodies are valid whatever the types are.
const MODULES: &[&str] = &[
    r#"(module
        (type (func)) (type (func (param i32 i64) (result f32)))
        (type (sub (func (param i32)))) (type (sub 2 (func (param i32))))
        (type (array i8)) (type (sub (struct (field (mut i32)) (field i16) (field (ref null 4)))))
        (type (sub 5 (struct (field (mut i32)) (field i16) (field (ref null 4)) (field f64))))
        (rec (type (func (param (ref null 8)))) (type (struct (field (ref null 7)) (field f32))))
        (rec (type (func (result i64))) (type (func (param i64)))) (type (sub 2 (func (param i32))))
        (type (func (param i32)))
        (import "a" "f" (func (type 0))) (import "a" "t" (table 1 2 funcref))
        (import "b" "m" (memory 1 4)) (import "b" "g" (global i32)) (import "b" "e" (tag (type 0)))
        (table 3 9 funcref) (table 2 (ref null 0) (ref.null 0)) (memory 2 8) (memory i64 1) (memory 3)
        (table 4 funcref)
        (tag (type 0)) (tag (type 2))
        (global (export "g") (mut i32) (i32.const 1)) (global (export "h") i64 (i64.const 2))
        (global (export "i") funcref (ref.func 1)) (global (export "j") anyref (ref.null any))
        (global (export "k") (ref null 5) (ref.null 5)) (global (export "l") i32 (global.get 0))
        (export "f" (func 1)) (export "f2" (func 2)) (export "t" (table 1)) (export "m" (memory 1))
        (export "e" (tag 1)) (export "f3" (func 3)) (export "f4" (func 4)) (export "f5" (func 5))
        (start 1)
        (elem (i32.const 0) func 1 2) (elem (table 1) (i32.const 1) func 2)
        (elem func 0 1) (elem declare func 2 1) (elem funcref (ref.func 1) (ref.null func))
        (data (i32.const 0) "data") (data (memory 1) (i32.const 1) "more") (data "passive")
        (func (type 0) (local i32 i32 i64) unreachable) (func (type 1) (local f64) unreachable)
        (func (type 3) unreachable i32.const 1 drop) (func (type 7) unreachable nop)
        (func (export "n") (type 9) unreachable) (func (export "o") (type 10) unreachable)
        (func (export "p") (type 11) unreachable) (func (export "q") (type 12) unreachable)
        (func (export "s") (param (ref null 6) externref exnref (ref null i31)) unreachable nop nop)
        (@custom "dylink.0" (before first) "x") (@custom "target_features" "y"))"#,
    // Without a table or a memory beside the one.
    r#"(module (type (func)) (type (func (result i32)))
        (memory 1) (table 2 externref) (table 1 funcref)
        (func (export "g") (type 0) unreachable) (func (export "f") (type 1) unreachable)
        (elem (table 1) (i32.const 0) funcref (ref.func 0)) (data (i32.const 0) "x"))"#,
];

/// Changes after which the module is the same by a rule.
const SAME: &[(&str, &str)] = &[
    (
        "types, one twice",
        "equal types are one, and the last twin shifts no number",
    ),
    ("functions, one twice", "nothing reaches the last twin"),
    ("globals, one twice", "nothing reaches the last twin"),
    ("`rec` around one type", "a group of one is that type"),
    ("table 0, spelled out", "one segment, two spellings"),
    ("data count", "it is there where a body needs it"),
];

/// Changes that no valid module has, among those that the rules know.
const NEVER_VALID: &[(&str, &str)] = &[
    ("a shared type", "shared-everything-threads"),
    ("a shared heap type", "shared-everything-threads"),
    ("a shared global", "shared-everything-threads"),
    ("a shared table", "shared-everything-threads"),
    ("descriptor", "custom descriptors"),
    ("described type", "custom descriptors"),
    ("an exact heap type", "custom descriptors"),
    ("an import of an exact type", "custom descriptors"),
    ("supertypes, two", "a type has one at most"),
    ("exports, one twice", "names of exports are unique"),
    (
        "functions, one left out",
        "the last number is named, and then names nothing",
    ),
    (
        "globals, one left out",
        "the last number is named, and then names nothing",
    ),
    (
        "types, one left out",
        "the last number is named, and then names nothing",
    ),
    (
        "types of a group, one left out",
        "the last number is named, and then names nothing",
    ),
];

#[test]
fn every_field_of_every_declaration_counts() {
    let key = |ast: &Ast<'_>| {
        let bytes = ast.write(&mut RoundtripReencoder);
        PipelineFingerprint::of(&WasmModule::new(bytes))
    };
    // Of each field: modules of another key, of the same, and invalid ones.
    let mut fields = BTreeMap::<&str, [u32; 3]>::new();
    for module in MODULES {
        let bytes = wat::parse_str(module).unwrap();
        let ast = Ast::read(&bytes);
        let expected = key(&ast).unwrap();
        for (field, changed) in ast.changes() {
            let outcome = match key(&changed) {
                Ok(key) if key != expected => 0,
                Ok(_) => 1,
                Err(_) => 2,
            };
            fields.entry(field).or_default()[outcome] += 1;
        }
    }
    let mut wrong = Vec::new();
    for (field, &[other, same, invalid]) in &fields {
        println!("{field:<44} {other:>4} other {same:>4} same {invalid:>4} invalid");
        let may_be_same = SAME.iter().any(|(name, _)| name == field);
        let never_valid = NEVER_VALID.iter().any(|(name, _)| name == field);
        let only_same = other == 0 && may_be_same;
        if (same > 0) != may_be_same || (other == 0) != (never_valid || only_same) {
            wrong.push(*field);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
