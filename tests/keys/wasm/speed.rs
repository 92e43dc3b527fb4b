//! A key costs about what validation costs, also where a module is all types.
//!
//! It measures, so it is run by hand, in a release build on a quiet machine:
//! `cargo test --release --all-features --test keys wasm::speed -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use pipeline_cache::PipelineFingerprint;
use pipeline_cache::key::wasm::WasmModule;
use wasm_encoder::{
    EntityType, FieldType, HeapType, ImportSection, Module, RefType, StorageType, TypeSection,
    ValType,
};

const TYPES: u32 = 100_000;
const ROUNDS: usize = 9;

fn best(mut work: impl FnMut()) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

/// Distinct function types: the bits of their number as parameters.
fn plain_types(types: &mut TypeSection) {
    for number in 0..TYPES {
        let bit = |bit: u32| [ValType::I32, ValType::I64][(number >> bit & 1) as usize];
        types.ty().function((0..17).map(bit), []);
    }
}

/// Structs, each with a reference to the one before.
fn chained_types(types: &mut TypeSection) {
    for number in 0..TYPES {
        let element_type = match number.checked_sub(1) {
            Some(before) => ValType::Ref(RefType {
                nullable: true,
                heap_type: HeapType::Concrete(before),
            }),
            None => ValType::I32,
        };
        let mutable = true;
        let element_type = StorageType::Val(element_type);
        types.ty().struct_([FieldType {
            element_type,
            mutable,
        }]);
    }
}

fn module(types: &TypeSection, imports: &ImportSection) -> Vec<u8> {
    let mut module = Module::new();
    module.section(types);
    if !imports.is_empty() {
        module.section(imports);
    }
    module.finish()
}

#[test]
#[ignore = "measures time"]
fn types_are_keyed_about_as_fast_as_they_are_validated() {
    let (mut plain, mut chained) = (TypeSection::new(), TypeSection::new());
    plain_types(&mut plain);
    chained_types(&mut chained);
    let none = ImportSection::new();
    let mut functions = ImportSection::new();
    // The parser bounds the size of the types of all imports together.
    for number in (0..TYPES).step_by(4) {
        functions.import("", "", EntityType::Function(number));
    }
    let mut last = ImportSection::new();
    let val_type = ValType::Ref(RefType {
        nullable: true,
        heap_type: HeapType::Concrete(TYPES - 1),
    });
    let global = wasm_encoder::GlobalType {
        val_type,
        mutable: false,
        shared: false,
    };
    last.import("", "", EntityType::Global(global));
    let shapes = [
        ("types that nothing uses", module(&plain, &none)),
        ("types of imported functions", module(&plain, &functions)),
        (
            "a chain of types that nothing uses",
            module(&chained, &none),
        ),
        ("a chain of types", module(&chained, &last)),
    ];
    println!("{:<40} {:>9} {:>9} {:>6}", "ms", "validate", "key", "times");
    for (name, bytes) in shapes {
        let program = WasmModule::new(bytes);
        let validation = best(|| {
            black_box(wasmparser::validate(program.bytes()).unwrap());
        });
        let key = best(|| {
            black_box(PipelineFingerprint::of(&program).unwrap());
        });
        let times = key / validation;
        println!(
            "{name:<40} {:>9.1} {:>9.1} {times:>6.2}",
            validation * 1e3,
            key * 1e3
        );
        assert!(times < 2.0, "{name}: {times}");
    }
}
