//! The wire can be read back: two canonical modules never run together into the same bytes.
//!
//! Here and not in `tests/`, since only the private writer takes modules that are not canonical.
#![allow(
    dead_code,
    reason = "of what the tests of keys share, a part is needed"
)]

#[path = "../../../../tests/keys/naga/support/entries.rs"]
mod entries;
#[path = "../../../../tests/keys/naga/support/generate.rs"]
mod generate;
#[path = "../../../../tests/keys/naga/support/grammar.rs"]
mod grammar;
#[path = "../../../../tests/keys/naga/support/parts.rs"]
mod parts;
#[path = "../../../../tests/keys/random.rs"]
mod random;
#[path = "../../../../tests/keys/naga/support/vello.rs"]
mod vello;

use std::collections::BTreeSet;

use naga::{
    Arena, Constant, EntryPoint, Expression, Function, Module, Span, SpecialTypes, Statement, Type,
    TypeInner, UniqueArena,
};

use super::tests::parts::{Part, Reader};
use super::write;
use crate::key::Program as _;

/// Reads a wire by the grammar of the tests, which the writer does not know.
fn read(wire: &[u8]) -> Module {
    let mut rest = wire;
    let rest = &mut rest;
    let counts: Vec<_> = part(rest, |wire| (0..7).map(|_| wire.count()).collect());
    let [
        types,
        constants,
        overrides,
        globals,
        expressions,
        functions,
        entry_points,
    ] = counts[..]
    else {
        panic!("counts are seven");
    };
    let mut module = Module::default();
    part(rest, |wire| {
        for _ in 0..types {
            module.types.insert(Type::read(wire), Span::UNDEFINED);
        }
        module.special_types = SpecialTypes::read(wire);
    });
    module.constants = part(rest, |wire| arena::<Constant>(wire, constants));
    for _ in 0..overrides {
        let item = part(rest, Part::read);
        module.overrides.append(item, Span::UNDEFINED);
    }
    for _ in 0..globals {
        let item = part(rest, Part::read);
        module.global_variables.append(item, Span::UNDEFINED);
    }
    module.global_expressions = part(rest, |wire| arena(wire, expressions));
    for _ in 0..functions {
        let item = part(rest, |wire| {
            let counts = function_counts(wire);
            function(wire, counts)
        });
        module.functions.append(item, Span::UNDEFINED);
    }
    for _ in 0..entry_points {
        module.entry_points.push(part(rest, entry_point));
    }
    assert!(rest.is_empty(), "{} bytes left", rest.len());
    module
}

/// Reads a part, which is two runs of bytes.
fn part<T>(wire: &mut &[u8], read: impl FnOnce(&mut Reader<'_>) -> T) -> T {
    let [fields, references] = [(); 2].map(|()| {
        let (length, rest) = wire.split_first_chunk().unwrap();
        let (run, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        *wire = rest;
        run
    });
    let mut reader = Reader { fields, references };
    let item = read(&mut reader);
    assert!(reader.fields.is_empty() && reader.references.is_empty());
    item
}

fn arena<T: Part>(wire: &mut Reader<'_>, count: usize) -> Arena<T> {
    let mut arena = Arena::new();
    for _ in 0..count {
        arena.append(T::read(wire), Span::UNDEFINED);
    }
    arena
}

fn function_counts(wire: &mut Reader<'_>) -> [usize; 3] {
    [wire.count(), wire.count(), wire.count()]
}

fn function(wire: &mut Reader<'_>, [locals, expressions, named]: [usize; 3]) -> Function {
    let (name, arguments, result) = (Part::read(wire), Part::read(wire), Part::read(wire));
    assert!(!bool::read(wire), "no filter");
    Function {
        name,
        arguments,
        result,
        local_variables: arena(wire, locals),
        expressions: arena(wire, expressions),
        named_expressions: (0..named).map(|_| Part::read(wire)).collect(),
        body: Part::read(wire),
        diagnostic_filter_leaf: None,
    }
}

fn entry_point(wire: &mut Reader<'_>) -> EntryPoint {
    let counts = function_counts(wire);
    EntryPoint {
        name: Part::read(wire),
        stage: Part::read(wire),
        early_depth_test: Part::read(wire),
        workgroup_size: Part::read(wire),
        workgroup_size_overrides: Part::read(wire),
        mesh_info: Part::read(wire),
        task_payload: Part::read(wire),
        incoming_ray_payload: Part::read(wire),
        function: function(wire, counts),
    }
}

fn text(module: &Module) -> String {
    format!("{module:?}")
}

#[test]
fn canonical_modules_read_back() {
    let shaders = vello::vello().into_iter().map(|(_, module)| module);
    let generated = (0..200).filter_map(|seed| {
        let source = generate::shader(seed).print();
        naga::front::wgsl::parse_str(&source).ok()
    });
    let mut read_back = 0;
    for module in shaders.chain(generated) {
        // Not all that is made up is valid.
        let Ok(canonical) = module.canonicalize() else {
            continue;
        };
        let module = canonical.module();
        let wire = write(module);
        assert!(text(&read(&wire)) == text(module));
        assert!(text(&super::read_back(&wire).unwrap()) == text(module));
        read_back += 1;
    }
    assert!(read_back > 23 + 50, "{read_back}");
}

/// A module, not a valid one, that holds every variant of every construct.
fn everything() -> Module {
    let mut module = Module::sample();
    let expressions = || {
        let mut arena = Arena::new();
        for expression in Expression::samples() {
            arena.append(expression, Span::UNDEFINED);
        }
        arena
    };
    let mut types = UniqueArena::new();
    for inner in TypeInner::samples() {
        let name = Some(String::from("type"));
        types.insert(Type { name, inner }, Span::UNDEFINED);
    }
    module.types = types;
    module.global_expressions = expressions();
    for (_, function) in module.functions.iter_mut() {
        function.expressions = expressions();
        function.body = naga::Block::from_vec(Statement::samples());
    }
    module
}

#[test]
fn every_field_of_every_construct_is_on_the_wire() {
    let module = everything();
    let wire = write(&module);
    assert!(text(&read(&wire)) == text(&module));
    let mut fields = BTreeSet::new();
    let changes = module.fields();
    let count = changes.len();
    for (field, changed) in changes {
        let other = write(&changed);
        assert!(wire != other, "{field}");
        assert!(text(&read(&other)) == text(&changed), "{field}");
        fields.extend(field.split(' ').map(str::to_owned));
    }
    println!("{count} changes of {} fields", fields.len());
    assert!(
        count > 2000 && fields.len() > 200,
        "{count} {}",
        fields.len()
    );
}
