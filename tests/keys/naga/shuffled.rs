//! A shader in another order is the same shader: `canonicalize` of a shuffled module is that of the
//! module, and of itself.
//!
//! `PIPELINE_CACHE_LONG_TESTS=1` shuffles more of them.

use super::support::{evaluate, generate, shuffle, vello, writers};
use naga::Module;
use pipeline_cache::{Program as _, ToWire as _};

use generate::Random;

fn is_long() -> bool {
    std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some()
}

/// Valid shaders that are made up.
fn generated(count: usize) -> Vec<(String, Module)> {
    let shaders = (1..).filter_map(|seed| {
        let text = generate::shader(seed).print();
        let module = naga::front::wgsl::parse_str(&text).ok()?;
        module.canonicalize().ok()?.info().ok()?;
        Some((text, module))
    });
    shaders.take(count).collect()
}

fn assert_order_does_not_count(name: &str, module: &Module, random: &mut Random) -> Module {
    let shuffled = shuffle::shuffle(module, random);
    writers::validate(&shuffled);
    let canonical = module.canonicalize().unwrap();
    canonical.info().unwrap();
    let other = shuffled.canonicalize().unwrap();
    assert!(
        canonical.to_wire() == other.to_wire(),
        "{name}\n{}\n{}",
        writers::wgsl(canonical.module()),
        writers::wgsl(other.module())
    );
    let again = canonical.module().canonicalize().unwrap();
    assert!(
        canonical.to_wire() == again.to_wire(),
        "{name}\n{}\n{}",
        writers::wgsl(canonical.module()),
        writers::wgsl(again.module())
    );
    shuffled
}

#[test]
fn the_order_of_vello_shaders_does_not_count() {
    let rounds = if is_long() { 20 } else { 1 };
    for round in 0..rounds {
        for (name, module) in vello::vello() {
            assert_order_does_not_count(name, &module, &mut Random(round));
        }
    }
}

#[test]
fn the_order_of_generated_shaders_does_not_count() {
    let count = if is_long() { 10_000 } else { 150 };
    for (seed, (text, module)) in generated(count).into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let shuffled = assert_order_does_not_count(&text, &module, &mut random);
        for input in 0..2 {
            let kept = evaluate::run(&module, input) == evaluate::run(&shuffled, input);
            assert!(kept, "{text}");
        }
    }
}

#[test]
fn canonical_modules_compile_wherever_generated_shaders_do() {
    let count = if is_long() { 2_000 } else { 40 };
    let mut compiled = 0;
    for (text, module) in generated(count) {
        let canonical = module.canonicalize().unwrap();
        let canonical = (canonical.module(), canonical.info().unwrap());
        compiled += writers::compiled(&text, &module, canonical);
    }
    println!("{count} shaders, {compiled} of {} outputs", count * 5);
    assert!(compiled > count * 3, "{compiled}");
}

/// As naga's front ends write it, whatever is left of the end of a function: back ends and
/// readers of the canonical form know no other.
#[test]
fn canonical_functions_without_a_result_end_with_a_return() {
    let shaders = vello::vello().into_iter().map(|(_, module)| module);
    let generated = (0..400).filter_map(|seed| {
        let source = generate::shader(seed).print();
        naga::front::wgsl::parse_str(&source).ok()
    });
    let mut functions = 0;
    for module in shaders.chain(generated) {
        // Not all that is made up is valid.
        let Ok(canonical) = module.canonicalize() else {
            continue;
        };
        let module = canonical.module();
        let mains = module.entry_points.iter().map(|entry| &entry.function);
        let all = module.functions.iter().map(|(_, function)| function);
        for function in all.chain(mains).filter(|it| it.result.is_none()) {
            let mut body = function.body.clone();
            naga::proc::ensure_block_returns(&mut body);
            assert_eq!(format!("{body:?}"), format!("{:?}", function.body));
            functions += 1;
        }
    }
    assert!(functions > 100, "{functions}");
}
