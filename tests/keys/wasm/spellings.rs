//! All spellings of a module have one canonical form, and that form is final: it can be read and
//! written by other hands without a change.

use super::support::{ast as wasm_ast, generate as wasm, shuffle as wasm_shuffle};
use pipeline_cache::Program as _;
use pipeline_cache::key::wasm::WasmModule;
use wasm::{FIXTURES, Random, any, rounds, runnable};
use wasm_ast::Ast;
use wasm_encoder::reencode::{Reencode as _, RoundtripReencoder};
use wasmparser::{Parser, Validator, WasmFeatures};

fn canonical(bytes: &[u8]) -> Vec<u8> {
    let module = WasmModule::new(bytes.to_vec());
    let canonical = module.canonicalize();
    canonical
        .unwrap_or_else(|error| panic!("{error}: {bytes:?}"))
        .bytes()
        .to_vec()
}

/// Modules written by hand, with many features, and generated ones.
fn modules() -> impl Iterator<Item = Vec<u8>> {
    let fixtures = FIXTURES.iter().map(|text| wat::parse_str(text).unwrap());
    let generated = (0..rounds() * 2).flat_map(|seed| {
        let mut random = Random(seed);
        [runnable(&mut random), any(&mut random)]
    });
    fixtures.chain(generated)
}

#[test]
fn a_module_written_in_another_way_has_the_same_canonical_form() {
    let (mut pairs, mut different) = (0, 0);
    for (number, module) in modules().enumerate() {
        let expected = canonical(&module);
        for round in 0..3 {
            let mut random = Random(number as u64 * 3 + round);
            let other = wasm_shuffle::shuffle(&module, &mut random);
            assert_eq!(canonical(&other), expected, "{module:?}");
            pairs += 1;
            different += u32::from(other != module);
        }
    }
    println!("{pairs} spellings, {different} of them other than the module");
    assert_eq!(pairs, different);
}

#[test]
fn a_canonical_module_is_read_and_written_without_a_change() {
    let mut count = 0;
    for module in modules() {
        let canonical = canonical(&module);
        Validator::new_with_features(WasmFeatures::all())
            .validate_all(&canonical)
            .unwrap();
        assert_eq!(self::canonical(&canonical), canonical);
        let tree = Ast::read(&canonical);
        assert_eq!(tree.write(&mut RoundtripReencoder), canonical);
        let mut again = wasm_encoder::Module::new();
        RoundtripReencoder
            .parse_core_module(&mut again, Parser::new(0), &canonical)
            .unwrap();
        assert_eq!(again.finish(), canonical);
        count += 1;
    }
    println!("{count} canonical modules");
}
