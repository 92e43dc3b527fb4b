//! The wire can be read back: two canonical modules never run together into the same bytes.
//!
//! Here and not in `tests/`, since only the private writer takes modules that are not canonical.
#![allow(
    dead_code,
    reason = "of what the tests of keys share, a part is needed"
)]

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

use naga::{Arena, Expression, Module, Span, Statement, Type, TypeInner, UniqueArena};

use super::tests::parts::{Part, Reader};
use crate::key::{Program as _, WireWriter};

fn write(module: &Module) -> Vec<u8> {
    let mut wire = WireWriter::collecting();
    super::module(&mut wire, module);
    wire.into_vec()
}

fn read(wire: &[u8]) -> Module {
    let mut wire = Reader(wire);
    let module = Module::read(&mut wire);
    assert!(wire.0.is_empty(), "{} bytes left", wire.0.len());
    module
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
        assert!(text(&read(&write(module))) == text(module));
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
