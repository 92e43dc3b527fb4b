//! The same module, written in another way: declarations in another order and with unused ones
//! among them, numbers padded, runs of locals split, long forms for short ones, sections for
//! debuggers.

use std::collections::BTreeSet;
use std::convert::Infallible;

use wasm_encoder::Encode as _;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasmparser::{
    BinaryReader, BlockType, CompositeInnerType, CompositeType, ConstExpr, ElementKind, FuncType,
    Global, GlobalType, Operator, SubType, TypeRef, ValType,
};

use super::ast::{Ast, Body, Custom, Group, Items, ORDER, Style};
use super::generate::Random;

/// Writes a module in another way. Nothing that a rule keeps is touched.
pub(crate) fn shuffle(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut ast = Ast::read(bytes);
    let mut numbers = Numbers {
        types: types(&mut ast, random),
        functions: functions(&mut ast, random),
        globals: Vec::new(),
        empty: 0,
        random,
    };
    // The type that the last step but one has added last.
    numbers.empty = ast
        .types
        .iter()
        .map(|group| group.types.len())
        .sum::<usize>() as u32
        - 1;
    numbers.globals = globals(&mut ast, numbers.random);
    for body in &mut ast.bodies {
        body.locals = split(&body.locals, numbers.random);
    }
    for element in &mut ast.elements {
        if let (ElementKind::Active { table_index, .. }, Items::Functions(_)) =
            (&mut element.kind, &element.items)
        {
            if matches!(table_index, None | Some(0)) {
                *table_index = (numbers.random.below(2) == 0).then_some(0);
            }
        }
    }
    for name in [
        "name",
        "producers",
        ".debug_info",
        "sourceMappingURL",
        "external_debug_info",
    ] {
        let after = numbers.random.below(ORDER.len() + 1);
        let at = ast.customs.partition_point(|custom| custom.after <= after);
        let data = b"read by people";
        ast.customs.insert(at, Custom { after, name, data });
    }
    ast.data_count |= numbers.random.below(2) == 0;
    // The numbers of what is in the lists already are new; the items of the lists are not.
    ast.write(&mut numbers)
}

/// The new number of everything, and how to spell it.
struct Numbers<'r> {
    types: Vec<u32>,
    functions: Vec<u32>,
    globals: Vec<u32>,
    /// A type without parameters and results.
    empty: u32,
    random: &'r mut Random,
}

impl Reencode for Numbers<'_> {
    type Error = Infallible;

    fn type_index(&mut self, source: u32) -> Result<u32, Error> {
        Ok(self.types.get(source as usize).copied().unwrap_or(source))
    }

    fn function_index(&mut self, source: u32) -> Result<u32, Error> {
        Ok(self.functions[source as usize])
    }

    fn global_index(&mut self, source: u32) -> Result<u32, Error> {
        Ok(self.globals[source as usize])
    }

    fn block_type(&mut self, source: BlockType) -> Result<wasm_encoder::BlockType, Error> {
        if source == BlockType::Empty && self.random.below(2) == 0 {
            return Ok(wasm_encoder::BlockType::FunctionType(self.empty));
        }
        utils::block_type(self, source)
    }
}

impl Style for Numbers<'_> {
    fn operator(&mut self, operator: &[u8], out: &mut Vec<u8>) {
        // Those that are an opcode and a number.
        let width = match operator[0] {
            0x0c | 0x0d | 0x10 | 0x12 | 0x20..=0x26 | 0x41 | 0xd2 => 5,
            0x42 => 10,
            _ => 0,
        };
        if width == 0 || self.random.below(4) > 0 {
            out.extend_from_slice(operator);
            return;
        }
        let last = operator.len() - 1;
        let signed = matches!(operator[0], 0x41 | 0x42);
        let fill = if signed && operator[last] & 0x40 != 0 {
            0x7f
        } else {
            0
        };
        let width = last + self.random.below(width - last + 1);
        out.extend_from_slice(&operator[..last]);
        pad(operator[last], fill, width - last, out);
    }

    fn size(&mut self, size: usize, out: &mut Vec<u8>) {
        let mut shortest = Vec::new();
        size.encode(&mut shortest);
        let last = shortest.pop().unwrap();
        let padding = self.random.below(5 - shortest.len());
        out.extend_from_slice(&shortest);
        pad(last, 0, padding, out);
    }

    fn empty_section(&mut self) -> bool {
        self.random.below(2) == 0
    }
}

/// The last byte of a number, and so many more that add nothing.
fn pad(last: u8, fill: u8, padding: usize, out: &mut Vec<u8>) {
    if padding == 0 {
        out.push(last);
        return;
    }
    out.push(last | 0x80);
    out.extend(std::iter::repeat_n(fill | 0x80, padding - 1));
    out.push(fill);
}

/// Another order of recursion groups, with some of them twice and an empty function type last.
fn types(ast: &mut Ast<'_>, random: &mut Random) -> Vec<u32> {
    let old = std::mem::take(&mut ast.types);
    let mut first = 0;
    let firsts: Vec<u32> = old
        .iter()
        .map(|group| {
            first += group.types.len() as u32;
            first - group.types.len() as u32
        })
        .collect();
    let group_of = |ty: u32| firsts.partition_point(|&first| first <= ty) - 1;
    let needs = old.iter().enumerate().map(|(place, group)| {
        let mut mentioned = Mentioned::default();
        for ty in &group.types {
            mentioned.sub_type(ty.clone()).unwrap();
        }
        let groups = mentioned.types.into_iter().map(group_of);
        groups.filter(|&other| other != place).collect()
    });
    let order = any_order(&needs.collect::<Vec<_>>(), random);
    let mut numbers = vec![0; first as usize];
    let mut next = 0;
    for &place in &order {
        for member in 0..old[place].types.len() {
            numbers[firsts[place] as usize + member] = next;
            next += 1;
        }
        ast.types.push(old[place].clone());
    }
    // Twins, which nothing names: inside they name their elder's members, and so are no twins if
    // they are recursive, but then they are unused all the same.
    for _ in 0..random.below(3) {
        if let Some(group) = old.get(random.below(old.len() + 1)) {
            ast.types.push(group.clone());
        }
    }
    ast.types.push(Group {
        // Not every tool knows groups.
        explicit: ast.types.iter().any(|group| group.explicit),
        types: vec![SubType {
            is_final: true,
            supertype_idxs: Vec::new(),
            composite_type: CompositeType {
                inner: CompositeInnerType::Func(FuncType::new([], [])),
                shared: false,
                descriptor_idx: None,
                describes_idx: None,
            },
        }],
    });
    numbers
}

/// The types that a type mentions.
#[derive(Default)]
struct Mentioned {
    types: BTreeSet<u32>,
}

impl Reencode for Mentioned {
    type Error = Infallible;

    fn type_index(&mut self, source: u32) -> Result<u32, Error> {
        self.types.insert(source);
        Ok(source)
    }
}

/// The places of all items in an order in which each comes after those it needs.
fn any_order(needs: &[BTreeSet<usize>], random: &mut Random) -> Vec<usize> {
    let mut waiting: Vec<usize> = (0..needs.len()).collect();
    let mut done = BTreeSet::new();
    let mut order = Vec::new();
    while !waiting.is_empty() {
        let ready: Vec<usize> = (0..waiting.len())
            .filter(|&at| needs[waiting[at]].is_subset(&done))
            .collect();
        let item = waiting.remove(ready[random.below(ready.len())]);
        done.insert(item);
        order.push(item);
    }
    order
}

/// Another order of the functions that are not imported, with unused ones among them.
fn functions(ast: &mut Ast<'_>, random: &mut Random) -> Vec<u32> {
    let functions = |import: &&wasmparser::Import<'_>| {
        matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_))
    };
    let imported = ast.imports.iter().filter(functions).count();
    let old: Vec<_> = ast.functions.drain(..).zip(ast.bodies.drain(..)).collect();
    let unused = 1 + random.below(2);
    let order = any_order(&vec![BTreeSet::new(); old.len() + unused], random);
    let mut numbers: Vec<u32> = (0..(imported + old.len()) as u32).collect();
    for (number, &place) in order.iter().enumerate() {
        match old.get(place) {
            Some((ty, body)) => {
                numbers[imported + place] = (imported + number) as u32;
                ast.functions.push(*ty);
                ast.bodies.push(body.clone());
            }
            None => {
                // Of any type, since the body does not return.
                let types: usize = ast.types.iter().map(|group| group.types.len()).sum();
                ast.functions.push(types as u32 - 1);
                ast.bodies.push(Body {
                    locals: vec![(2, ValType::I64)],
                    operators: vec![Operator::Unreachable, Operator::End],
                });
            }
        }
    }
    numbers
}

/// Another order of the globals that are not imported, with an unused one among them. Those whose
/// initializer may fail stay in their order.
fn globals(ast: &mut Ast<'_>, random: &mut Random) -> Vec<u32> {
    let globals = |import: &&wasmparser::Import<'_>| matches!(import.ty, TypeRef::Global(_));
    let imported = ast.imports.iter().filter(globals).count();
    let mut old = std::mem::take(&mut ast.globals);
    old.push(Global {
        ty: GlobalType {
            content_type: ValType::I32,
            mutable: false,
            shared: false,
        },
        init_expr: ConstExpr::new(BinaryReader::new(&[0x41, 0x2a, 0x0b], 0)),
    });
    let mut last_kept = None;
    let needs = old.iter().enumerate().map(|(place, global)| {
        let mut needs = BTreeSet::new();
        let mut kept = false;
        for operator in global.init_expr.get_operators_reader() {
            match operator.unwrap() {
                Operator::GlobalGet { global_index } => {
                    needs.extend((global_index as usize).checked_sub(imported));
                }
                Operator::I32Const { .. } | Operator::I64Const { .. } | Operator::End => {}
                _ => kept = true,
            }
        }
        if kept {
            needs.extend(last_kept.replace(place));
        }
        needs
    });
    let order = any_order(&needs.collect::<Vec<_>>(), random);
    let mut numbers: Vec<u32> = (0..(imported + old.len()) as u32).collect();
    for (number, &place) in order.iter().enumerate() {
        numbers[imported + place] = (imported + number) as u32;
        ast.globals.push(old[place].clone());
    }
    numbers
}

/// Runs of locals in pieces, some of them empty.
fn split(locals: &[(u32, ValType)], random: &mut Random) -> Vec<(u32, ValType)> {
    let mut pieces = Vec::new();
    for &(count, ty) in locals {
        let first = random.below(count as usize + 1) as u32;
        pieces.extend([(first, ty), (count - first, ty)]);
    }
    pieces.push((0, ValType::F32));
    pieces
}
