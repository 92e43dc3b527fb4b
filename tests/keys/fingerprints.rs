//! Keys are stable across releases, and tell apart what must not be shared.

#[cfg(feature = "naga")]
use crate::naga::support::{generate, mutate, shuffle, vello, writers};
#[cfg(feature = "wasm")]
use crate::wasm::support::{
    ast as wasm_ast, generate as wasm, shuffle as wasm_shuffle, tools as wasm_tools,
};
#[cfg(any(feature = "naga", feature = "wasm"))]
use std::collections::BTreeMap;

use pipeline_cache::key::CompileScopeError;
use pipeline_cache::{CompileScope, OpaqueProgram, PipelineFingerprint, ToWire};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every stored artifact hangs on these bytes. If this test fails, raise `SCHEMA`.
#[test]
fn golden_wire_and_fingerprints() {
    let program = OpaqueProgram::new("wgsl", "fn main() {}");
    assert_eq!(
        hex(&program.to_wire()),
        concat!(
            "7063776972650d0a", // magic
            "0100",             // wire version
            "1500000000000000",
            "706970656c696e652d63616368652f6f7061717565", // domain
            "01000000",                                   // schema
            "0400000000000000",
            "7767736c", // format
            "0c00000000000000",
            "666e206d61696e2829207b7d", // program
        )
    );

    let bare = PipelineFingerprint::of(&program).unwrap();
    assert_eq!(
        bare.to_hex(),
        "9a2779abb65939a7b213c5dee6e482e9c02a00ea1e3a2704190d4c467c73dbfe"
    );
    let scope = CompileScope::new("compiler 1", "target")
        .unwrap()
        .option("opt-level", "3")
        .arguments(["-g"])
        .environment("LANG", None);
    assert_eq!(
        bare.scoped(&scope).to_hex(),
        "8012c971b41f32fe2b44f1656be24ae95aa06a6569559f3d8d6c5598ef201d62"
    );
}

#[test]
fn a_fingerprint_is_the_hash_of_the_wire() {
    for length in [0, 1, 16 * 1024 - 100, 16 * 1024, 1_000_000] {
        let program = OpaqueProgram::new("x", vec![7; length]);
        assert_eq!(
            PipelineFingerprint::of(&program).unwrap().as_bytes(),
            blake3::hash(&program.to_wire()).as_bytes()
        );
    }
}

#[test]
fn a_scope_without_a_compiler_or_a_target_is_refused() {
    for blank in ["", " ", "\t\n"] {
        assert_eq!(
            CompileScope::new(blank, "x86_64"),
            Err(CompileScopeError::NoCompiler)
        );
        assert_eq!(
            CompileScope::new("cc 1", blank),
            Err(CompileScopeError::NoTarget)
        );
        assert_eq!(
            CompileScope::new(blank, blank),
            Err(CompileScopeError::NoCompiler)
        );
    }
}

/// A scope is every one of its parts: what differs in one differs in the key.
#[test]
fn every_part_of_a_scope_counts() {
    let base = || CompileScope::new("cc 1", "x86_64").unwrap();
    let scopes = [
        base(),
        CompileScope::new("cc 2", "x86_64").unwrap(),
        CompileScope::new("cc 1", "aarch64").unwrap(),
        CompileScope::new("cc 1x86_6", "4").unwrap(),
        base().option("O", "3"),
        base().option("O", "2"),
        base().option("O3", ""),
        base().option("O", "3").option("g", "1"),
        base().arguments(["O", "3"]),
        base().arguments(["3", "O"]),
        base().arguments(["O3"]),
        base().environment("O", Some("3".into())),
        base().environment("O", Some(String::new())),
        base().environment("O", None),
    ];
    let program = PipelineFingerprint::from_bytes([1; 32]);
    let mut keys: Vec<_> = scopes.iter().map(|scope| program.scoped(scope)).collect();
    keys.push(program);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), scopes.len() + 1);
}

#[test]
fn the_order_of_named_options_does_not_count() {
    let program = PipelineFingerprint::from_bytes([1; 32]);
    let one = CompileScope::new("cc", "t")
        .unwrap()
        .option("a", "1")
        .option("b", "2");
    let two = CompileScope::new("cc", "t")
        .unwrap()
        .option("b", "2")
        .option("a", "1");
    assert_eq!(program.scoped(&one), program.scoped(&two));
}

#[test]
fn only_the_one_spelling_of_a_fingerprint_is_read() {
    let fingerprint = PipelineFingerprint::from_bytes([0xab; 32]);
    let hex = fingerprint.to_string();
    assert_eq!(hex.parse(), Ok(fingerprint));
    let wrong = [
        String::new(),
        hex.to_uppercase(),
        hex[..63].to_owned(),
        format!("{hex}0"),
        format!(" {hex}"),
        "zz".repeat(32),
        "é".repeat(32),
    ];
    for text in wrong {
        assert!(text.parse::<PipelineFingerprint>().is_err(), "{text:?}");
    }
}

/// What a transformation that keeps the meaning did to keys.
#[cfg(any(feature = "naga", feature = "wasm"))]
#[derive(Default)]
struct Row {
    pairs: u32,
    unified: u32,
}

#[cfg(any(feature = "naga", feature = "wasm"))]
impl Row {
    fn add(&mut self, unified: bool) {
        self.pairs += 1;
        self.unified += u32::from(unified);
    }
}

#[cfg(any(feature = "naga", feature = "wasm"))]
fn print_table(title: &str, rows: &BTreeMap<String, Row>) {
    println!(
        "{title:<52} {:>6} {:>8} {:>8}",
        "pairs", "unified", "percent"
    );
    for (transformation, Row { pairs, unified }) in rows {
        let percent = f64::from(*unified) * 100.0 / f64::from(*pairs);
        println!("  {transformation:<50} {pairs:>6} {unified:>8} {percent:>7.1}%");
    }
}

/// Transformations of shaders that keep the meaning. All must unify.
#[cfg(feature = "naga")]
#[test]
fn the_table_of_shader_spellings() {
    let key = |source: &str| {
        let module = naga::front::wgsl::parse_str(source)
            .unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)));
        PipelineFingerprint::of(&module).unwrap()
    };
    // Of each pair of words: a spelling, and another.
    let transformations: &[(&str, &str, &str)] = &[
        ("comment", "fn main(", "/* a comment */ fn /* more */ main("),
        ("white space", " ", " \n\t "),
        ("name of a function", "step_of", "renamed"),
        ("name of a resource", "data", "renamed"),
        ("name of a local", "next", "renamed"),
        ("name of a member", "scale", "renamed"),
        ("alias", "array<u32>", "array<Word>"),
        (
            "`let` written out",
            "let next = at + 1u; data[at] = next;",
            "data[at] = at + 1u;",
        ),
        ("compound assignment", "sum += at;", "sum = sum + at;"),
        ("parentheses", "at + 1u", "((at) + (1u))"),
        ("block", "sum += at;", "{ { sum += at; } }"),
        ("literal", "1u", "0x1u"),
        ("constant", "at > 7u", "at > SEVEN"),
        ("comparison turned round", "at > 7u", "7u < at"),
        ("comparison negated", "at > 7u", "!(at <= 7u)"),
        ("equality negated", "sum == at", "!(sum != at)"),
        ("vector of one component", "vec3(at)", "vec3(at, at, at)"),
        ("commuted sum of integers", "at + 1u", "1u + at"),
        ("dead `let`", "sum += at;", "let dead = at * 9u; sum += at;"),
        ("unreached function", "struct", "fn unreached() {} struct"),
    ];
    let programs = [
        "",
        "sum += 3u;",
        "if at > 7u { sum += at; }",
        "sum = step_of(sum);",
    ];
    let mut rows = BTreeMap::<String, Row>::new();
    for program in programs {
        let source = format!(
            "alias Word = u32; const SEVEN = 7u;
             struct Settings {{ scale: u32, offset: u32 }}
             @group(0) @binding(0) var<storage, read_write> data: array<u32>;
             @group(0) @binding(1) var<uniform> settings: Settings;
             fn step_of(x: u32) -> u32 {{ return x * settings.scale; }}
             @compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                 let at = id.x; var sum = step_of(at);
                 let next = at + 1u; data[at] = next;
                 sum += at; if at > 7u {{ sum = 0u; }} {program}
                 if sum == at {{ data[sum] = dot(vec3(at), id); }}
                 data[at + 1u] = sum;
             }}"
        );
        for (name, from, to) in transformations {
            let other = source.replace(from, to);
            assert_ne!(source, other, "{name}");
            rows.entry((*name).to_owned())
                .or_default()
                .add(key(&source) == key(&other));
        }
    }
    print_table("naga", &rows);
    for (transformation, row) in &rows {
        assert_eq!(row.pairs, row.unified, "{transformation}");
    }
}

/// Generated shaders, changed at a random place in a way that keeps the meaning.
/// `PIPELINE_CACHE_LONG_TESTS=1` makes more of them.
#[cfg(feature = "naga")]
#[test]
fn the_table_of_generated_shaders() {
    use generate::shader;
    use pipeline_cache::Program as _;
    use pipeline_cache::key::naga::CanonicalModule;

    let canonical = |text: &str| -> Option<CanonicalModule> {
        let module = naga::front::wgsl::parse_str(text).ok()?;
        let canonical = module.canonicalize().ok()?;
        canonical.info().is_ok().then_some(canonical)
    };
    let rounds = match std::env::var_os("PIPELINE_CACHE_LONG_TESTS") {
        Some(_) => 3_000,
        None => 60,
    };
    let mut rows = BTreeMap::<String, Row>::new();
    for seed in 0..rounds {
        let source = shader(seed);
        let Some(one) = canonical(&source.print()) else {
            continue;
        };
        let key = one.fingerprint();
        let mut row = |name: &str, other: &CanonicalModule| {
            let unified = other.fingerprint() == key;
            rows.entry(name.to_owned()).or_default().add(unified);
        };
        let written = writers::wgsl(one.module());
        if let Some(other) = canonical(&written) {
            row("the canonical form as WGSL, read back", &other);
        }
        for change in mutate::SAME {
            let mut random = generate::Random(seed);
            let mutant = mutate::mutate(&source, change, &mut random);
            if let Some(other) = mutant.and_then(|mutant| canonical(&mutant.print())) {
                row(change, &other);
            }
        }
    }
    print_table("naga, generated shaders", &rows);
    // naga's WGSL writer leaves out resources that are only named, and its front end folds more
    // than is exact. What is stored by `+=` is read at another place than what is stored by `=`.
    let incomplete = [
        "the canonical form as WGSL, read back",
        "assignment spelled out",
    ];
    for (transformation, row) in &rows {
        let is_complete = row.pairs == row.unified;
        let is_known = incomplete.contains(&transformation.as_str());
        assert!(is_complete || is_known, "{transformation}");
    }
    assert!(rows.len() >= mutate::SAME.len(), "{}", rows.len());
}

/// Real shaders in another order, and through other tools and back.
///
/// SPIR-V says something else, and none of it unifies: naga's writer counts the rounds of every
/// loop and sets workgroup memory to zero, buffers become the structs that SPIR-V asks for, and
/// naga's reader calls the entry point from another that hands it its inputs in private variables.
#[cfg(feature = "naga")]
#[test]
fn the_table_of_shader_round_trips() {
    use naga::Module;
    use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
    use pipeline_cache::Program as _;

    fn through_wgsl(module: &Module, info: &ModuleInfo) -> Module {
        let flags = naga::back::wgsl::WriterFlags::empty();
        let text = naga::back::wgsl::write_string(module, info, flags).unwrap();
        naga::front::wgsl::parse_str(&text).unwrap()
    }
    fn through_spirv(module: &Module, info: &ModuleInfo) -> Module {
        let options = naga::back::spv::Options::default();
        let words = naga::back::spv::write_vec(module, info, &options, None).unwrap();
        let options = naga::front::spv::Options::default();
        let front_end = naga::front::spv::Frontend::new(words.into_iter(), &options);
        front_end.parse().unwrap()
    }
    let mut rows = std::collections::BTreeMap::<String, Row>::new();
    for (seed, (name, module)) in vello::vello().into_iter().enumerate() {
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        let info = validator.validate(&module).unwrap();
        let canonical = module.canonicalize().unwrap();
        let key = canonical.fingerprint();
        let shuffled = shuffle::shuffle(&module, &mut generate::Random(seed as u64));
        let others = [
            ("every arena in another order", shuffled),
            ("naga's WGSL writer and back", through_wgsl(&module, &info)),
            (
                "the canonical form by naga's WGSL writer and back",
                through_wgsl(canonical.module(), canonical.info().unwrap()),
            ),
            (
                "naga's SPIR-V writer and back",
                through_spirv(&module, &info),
            ),
        ];
        for (transformation, other) in others {
            match other.canonicalize() {
                Ok(other) => {
                    let row = rows.entry(transformation.to_owned()).or_default();
                    row.add(other.fingerprint() == key);
                }
                Err(reason) => println!("{transformation}: {name}: {reason}"),
            }
        }
    }
    print_table("naga, vello's shaders", &rows);
    for complete in [
        "every arena in another order",
        "naga's WGSL writer and back",
    ] {
        assert_eq!((rows[complete].pairs, rows[complete].unified), (23, 23));
    }
}

/// Mutations of generated modules that keep the meaning. Those outside of bodies unify, but for
/// what the rules keep: custom sections that are added, and unused memories, tables and segments.
#[cfg(feature = "wasm")]
#[test]
fn the_table_of_wasm_mutations() {
    let rounds = wasm::rounds();
    let mut rows = BTreeMap::<String, Row>::new();
    for seed in 0..rounds * 4 {
        let module = wasm::runnable(&mut wasm::Random(seed));
        let expected = wasm_key(&module);
        for round in 0..4 {
            for (mutator, mutant) in wasm::mutations(&module, seed * 4 + round, true, 4) {
                let mutator = mutator.rsplit("::").next().unwrap_or_default().to_owned();
                rows.entry(mutator)
                    .or_default()
                    .add(wasm_key(&mutant) == expected);
            }
        }
    }
    print_table("wasm, mutations that keep the meaning", &rows);
    for complete in ["AddTypeMutator", "AddFunctionMutator", "AddGlobalMutator"] {
        let row = &rows[complete];
        assert_eq!(row.pairs, row.unified, "{complete}");
    }
    let sum = |without: &[&str]| {
        let mut sum = Row::default();
        for (mutator, row) in &rows {
            if !without.contains(&mutator.as_str()) {
                sum.pairs += row.pairs;
                sum.unified += row.unified;
            }
        }
        sum
    };
    let inside = ["CodemotionMutator", "PeepholeMutator"];
    let outside = sum(&inside);
    // It adds a section of a random name, which is part of the program as far as anyone knows.
    let without_added = sum(&[&inside[..], &["AddCustomSectionMutator"]].concat());
    assert!(without_added.unified * 100 >= without_added.pairs * 95);
    let sums = [
        ("all", sum(&[])),
        ("outside of bodies", outside),
        ("outside of bodies, no custom section added", without_added),
    ];
    let sums = sums.map(|(name, row)| (name.to_owned(), row));
    print_table("wasm, together", &BTreeMap::from(sums));
}

/// The same modules as written by other hands: in another order, and by other tools.
#[cfg(feature = "wasm")]
#[test]
fn the_table_of_wasm_spellings() {
    let fixtures = wasm::FIXTURES.iter();
    let generated = (0..wasm::rounds() / 2).map(|seed| wasm::runnable(&mut wasm::Random(seed)));
    let modules: Vec<(bool, Vec<u8>)> = fixtures
        .map(|text| (true, wat::parse_str(text).unwrap()))
        .chain(generated.map(|module| (false, module)))
        .collect();
    let mut rows = BTreeMap::<String, Row>::new();
    for (number, (_, module)) in modules.iter().enumerate() {
        for round in 0..4 {
            let mut random = wasm::Random(number as u64 * 4 + round);
            let other = wasm_shuffle::shuffle(module, &mut random);
            rows.entry("declarations in another order, long forms".to_owned())
                .or_default()
                .add(wasm_key(&other) == wasm_key(module));
        }
    }
    let mut causes = BTreeMap::<String, u32>::new();
    for tool in wasm_tools::TOOLS {
        if !tool.is_installed() {
            continue;
        }
        for (by_hand, module) in &modules {
            let kind = if *by_hand { "by hand" } else { "generated" };
            match tool.rewrite(module) {
                Ok(other) => {
                    let cause = difference(module, &other);
                    rows.entry(format!("{} ({kind})", tool.name))
                        .or_default()
                        .add(cause.is_none());
                    if let Some(cause) = cause {
                        let reason = NOT_KEPT.iter().find(|(name, part, _)| {
                            tool.name.starts_with(name) && cause.ends_with(part)
                        });
                        let (_, _, reason) =
                            reason.unwrap_or_else(|| panic!("{}: {cause}", tool.name));
                        let cause = format!("{}: {cause}: {reason}", tool.name);
                        *causes.entry(cause).or_default() += 1;
                    }
                }
                Err(error) => {
                    let cause = format!("not read by {}: {error}", tool.name);
                    *causes.entry(cause).or_default() += 1;
                }
            }
        }
    }
    print_table("wasm, other spellings", &rows);
    for (cause, count) in causes {
        println!("    {count:>3} {cause}");
    }
    for (spelling, row) in &rows {
        if !spelling.contains(':') {
            assert_eq!(row.pairs, row.unified, "{spelling}");
        }
    }
}

/// What other tools do not keep, and rules therefore tell apart.
#[cfg(feature = "wasm")]
const NOT_KEPT: [(&str, &str, &str); 3] = [
    (
        "wabt: to text and back",
        "elements",
        "it writes expressions that are all `ref.func` as functions: elements of another type",
    ),
    ("binaryen", "elements", "the same"),
    (
        "binaryen",
        "code",
        "it writes bodies anew from a tree: without dead code, with other blocks",
    ),
];

/// What differs between the canonical forms of two modules.
#[cfg(feature = "wasm")]
fn difference(one: &[u8], two: &[u8]) -> Option<String> {
    use pipeline_cache::Program as _;
    use pipeline_cache::key::wasm::WasmModule;
    let canonical = |bytes: &[u8]| WasmModule::new(bytes.to_vec()).canonicalize();
    match (canonical(one), canonical(two)) {
        (Ok(one), Ok(two)) if one == two => None,
        (Ok(one), Ok(two)) => {
            let (one, two) = (one.bytes(), two.bytes());
            let parts = wasm_ast::Ast::read(one).differences(&wasm_ast::Ast::read(two));
            Some(parts.join(", "))
        }
        (Err(error), _) | (_, Err(error)) => Some(error.to_string()),
    }
}

#[cfg(feature = "wasm")]
fn wasm_key(bytes: &[u8]) -> PipelineFingerprint {
    use pipeline_cache::key::wasm::WasmModule;
    PipelineFingerprint::of(&WasmModule::new(bytes.to_vec())).unwrap()
}
