//! Shaders that share a key compute the same results.
//!
//! Generated shaders are changed in one place, and run in an interpreter of naga's IR that sees
//! every bit. `PIPELINE_CACHE_LONG_TESTS=1` runs 100,000 pairs instead of 1,000; in a release
//! build on a quiet machine that takes a few minutes.

use super::support::{evaluate, generate, mutate};
use std::collections::BTreeMap;

use naga::Module;
use pipeline_cache::key::naga::CanonicalModule;
use pipeline_cache::{Program as _, ToWire as _};

use evaluate::{Outcome, run};
use generate::Random;

/// How many inputs each pair is run on.
const INPUTS: u64 = 4;

fn pairs() -> u32 {
    match std::env::var_os("PIPELINE_CACHE_LONG_TESTS") {
        Some(_) => 100_000,
        None => 1_000,
    }
}

/// A module, its canonical form and what it computes.
struct Case {
    text: String,
    canonical: CanonicalModule,
    outcomes: Vec<Outcome>,
}

/// Runs a shader and its canonical form, which must agree. None where the text is not valid.
fn case(text: String) -> Option<Case> {
    let module = naga::front::wgsl::parse_str(&text).ok()?;
    let canonical = module.canonicalize().ok()?;
    canonical.info().unwrap();
    let outcomes = outcomes(&module);
    let after = self::outcomes(canonical.module());
    for (before, after) in outcomes.iter().zip(after) {
        let flags = naga::back::wgsl::WriterFlags::empty();
        let canonical =
            || naga::back::wgsl::write_string(canonical.module(), canonical.info().unwrap(), flags);
        assert_eq!(
            *before,
            after,
            "{text}
{:?}",
            canonical()
        );
    }
    Some(Case {
        text,
        canonical,
        outcomes,
    })
}

fn outcomes(module: &Module) -> Vec<Outcome> {
    (0..INPUTS).map(|seed| run(module, seed)).collect()
}

#[derive(Default)]
struct Row {
    pairs: u32,
    equal: u32,
    /// Keys differ, and so do the results.
    told: u32,
}

#[test]
fn shaders_that_share_a_key_compute_the_same_results() {
    let mut rows = BTreeMap::<&str, Row>::new();
    let (mut total, mut shaders, mut invalid) = (0, 0, 0);
    let mut seed = 0;
    while total < pairs() {
        seed += 1;
        let shader = generate::shader(seed);
        let Some(one) = case(shader.print()) else {
            invalid += 1;
            continue;
        };
        shaders += 1;
        let mut random = Random(seed);
        for _ in 0..5 {
            let change = random.pick(&mutate::CHANGES);
            let mutant = mutate::mutate(&shader, change, &mut random);
            let Some(two) = mutant.and_then(|mutant| case(mutant.print())) else {
                invalid += 1;
                continue;
            };
            if one.text == two.text {
                continue;
            }
            let same = one.outcomes == two.outcomes;
            let row = rows.entry(change).or_default();
            total += 1;
            row.pairs += 1;
            if one.canonical.fingerprint() == two.canonical.fingerprint() {
                assert!(same, "{change}\n{}\n{}", one.text, two.text);
                row.equal += 1;
            } else if !same {
                row.told += 1;
            }
        }
    }
    let sum = |of: fn(&Row) -> u32| rows.values().map(of).sum::<u32>();
    let (equal, told) = (sum(|row| row.equal), sum(|row| row.told));
    println!(
        "{:<26} {:>7} {:>7} {:>16}",
        "change", "pairs", "one key", "other results"
    );
    for (change, row) in &rows {
        println!(
            "{change:<26} {:>7} {:>7} {:>16}",
            row.pairs, row.equal, row.told
        );
    }
    println!(
        "{total} pairs of {shaders} shaders on {INPUTS} inputs: {equal} with one key, {told} with other results; {invalid} invalid"
    );
    // Without equal keys nothing is proved, and without other results the interpreter is blind.
    assert!(equal * 5 > total, "{equal} of {total}");
    assert!(told * 5 > total, "{told} of {total}");
    assert_eq!(rows.len(), mutate::CHANGES.len());
}
