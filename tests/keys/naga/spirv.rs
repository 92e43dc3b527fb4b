//! Shaders read from SPIR-V have the key of the WGSL that they came from, or one of their own;
//! never that of another.
//!
//! `PIPELINE_CACHE_WGSL` names folders of further WGSL, for more rows of the table, and
//! `PIPELINE_CACHE_LONG_TESTS=1` makes up more shaders:
//! `cargo test --all-features --test keys naga::spirv -- --nocapture`.

use super::support::{evaluate, generate, mutate, spirv, vello, writers};
use naga::Module;
use pipeline_cache::key::naga::CanonicalModule;
use pipeline_cache::{Program as _, ToWire as _};

use evaluate::run_from_outside;
use generate::Random;

/// How many inputs each shader is run on.
const INPUTS: u64 = 3;

fn is_long() -> bool {
    std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some()
}

fn canonical(module: &Module) -> CanonicalModule {
    let canonical = module.canonicalize().unwrap();
    canonical.info().unwrap();
    canonical
}

/// A shader and what comes back from its SPIR-V, each with its canonical form.
struct Pair {
    canonical: CanonicalModule,
    read: Module,
    read_canonical: CanonicalModule,
}

impl Pair {
    /// None where the shader has no key, or naga cannot write or read it.
    fn new(module: &Module, options: &naga::back::spv::Options<'_>) -> Option<Self> {
        if module.entry_points.is_empty() {
            return None;
        }
        let canonical = module.canonicalize().ok()?;
        canonical.info().ok()?;
        let read = spirv::round_trip(module, options)?;
        // A module without a key has none in the cache either.
        let read_canonical = read.canonicalize().ok()?;
        Some(Self {
            canonical,
            read,
            read_canonical,
        })
    }

    fn is_one(&self) -> bool {
        self.canonical.fingerprint() == self.read_canonical.fingerprint()
    }
}

fn generated(count: usize) -> Vec<Module> {
    let shaders = (1..).filter_map(|seed| {
        let text = generate::shader(seed).print();
        let module = naga::front::wgsl::parse_str(&text).ok()?;
        module.canonicalize().ok()?.info().ok()?;
        Some(module)
    });
    shaders.take(count).collect()
}

/// The WGSL in folders, but what naga does not take.
fn folders() -> Vec<(String, Vec<Module>)> {
    let folders = std::env::var_os("PIPELINE_CACHE_WGSL").unwrap_or_default();
    let modules = |folder: &std::path::Path| {
        let mut modules = Vec::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
            modules.extend(naga::front::wgsl::parse_str(&text));
        }
        modules
    };
    let folders = std::env::split_paths(&folders);
    let folders = folders.filter(|folder| !folder.as_os_str().is_empty());
    let folders = folders.map(|folder| (folder.display().to_string(), modules(&folder)));
    folders.collect()
}

/// What a shader and its SPIR-V share, in numbers.
#[test]
fn shaders_and_their_spirv_share_keys() {
    let vello = vello::vello().into_iter().map(|(_, module)| module);
    let mut corpora = vec![
        ("vello".to_owned(), vello.collect()),
        (
            "made up".to_owned(),
            generated(if is_long() { 2_000 } else { 120 }),
        ),
    ];
    corpora.extend(folders());
    let options = [("bare", spirv::bare()), ("guarded", spirv::guarded())];
    println!(
        "{:<24} {:<8} {:>7} {:>7} {:>7} {:>8}",
        "corpus", "SPIR-V", "shaders", "pairs", "united", "percent"
    );
    for (corpus, modules) in &corpora {
        for (how, options) in &options {
            let pairs = modules
                .iter()
                .filter_map(|module| Pair::new(module, options));
            let (mut count, mut united) = (0, 0);
            for pair in pairs {
                pair.read_canonical.info().unwrap();
                let again = canonical(pair.read_canonical.module());
                assert!(
                    again.to_wire() == pair.read_canonical.to_wire(),
                    "{}\n{}",
                    writers::wgsl(pair.read_canonical.module()),
                    writers::wgsl(again.module())
                );
                count += 1;
                united += usize::from(pair.is_one());
            }
            let percent = 100.0 * united as f64 / count.max(1) as f64;
            let name = corpus.rsplit('/').next().unwrap_or(corpus);
            println!(
                "{name:<24} {how:<8} {:>7} {count:>7} {united:>7} {percent:>7.1}%",
                modules.len()
            );
            let least = match (&**corpus, *how) {
                ("vello", "bare") => 40.0,
                ("made up", "bare") => 45.0,
                _ => 0.0,
            };
            assert!(percent >= least, "{corpus} {how}: {percent}");
        }
    }
}

/// What is read back runs as the shader did, and so does its canonical form; and shaders that are
/// changed in one place have the key of the SPIR-V of another only if they compute the same.
#[test]
fn shaders_that_share_the_key_of_spirv_compute_the_same() {
    let seeds = if is_long() { 20_000 } else { 250 };
    let options = [spirv::bare(), spirv::guarded()];
    let outcomes = |module: &Module| -> Vec<_> {
        (0..INPUTS).map(|it| run_from_outside(module, it)).collect()
    };
    let (mut pairs, mut one, mut two, mut told) = (0, 0, 0, 0);
    for seed in 1..=seeds {
        let options = &options[seed as usize % options.len()];
        let shader = generate::shader(seed);
        let text = shader.print();
        let Ok(module) = naga::front::wgsl::parse_str(&text) else {
            continue;
        };
        let Some(pair) = Pair::new(&module, options) else {
            continue;
        };
        pairs += 1;
        let read = outcomes(&pair.read);
        assert_eq!(read, outcomes(pair.read_canonical.module()), "{text}");
        if pair.is_one() {
            assert_eq!(read, outcomes(&module), "{text}");
        }
        let key = pair.read_canonical.fingerprint();
        let mut random = Random(seed);
        for _ in 0..3 {
            let change = random.pick(&mutate::CHANGES);
            let Some(mutant) = mutate::mutate(&shader, change, &mut random) else {
                continue;
            };
            let mutant = mutant.print();
            let Ok(module) = naga::front::wgsl::parse_str(&mutant) else {
                continue;
            };
            let Some(other) = Pair::new(&module, options) else {
                continue;
            };
            let is_one = [&other.canonical, &other.read_canonical]
                .map(|canonical| canonical.fingerprint())
                .contains(&key);
            let is_same = read == outcomes(&other.read);
            if is_one {
                one += 1;
                assert!(is_same, "{change}\n{text}\n{mutant}");
            } else {
                two += 1;
                told += usize::from(!is_same);
            }
        }
    }
    println!(
        "{pairs} shaders from SPIR-V; of their mutants {one} with one key, {two} with two, {told} of these with other results"
    );
    // Without equal keys nothing is proved, and without other results the interpreter is blind.
    assert!(pairs * 3 > seeds as usize && one > 20, "{pairs} {one}");
    assert!(told * 5 > two, "{told} of {two}");
}
