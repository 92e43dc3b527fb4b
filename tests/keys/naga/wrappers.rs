//! Entry points that wrap a function compute what they did, whatever the wrapper does, and share a
//! key only if they compute the same.
//!
//! Wrappers are made up, changed in one place, written as SPIR-V and read again, and run.
//! `PIPELINE_CACHE_LONG_TESTS=1` makes up more of them.

use super::support::{evaluate, spirv, wrap};
use std::collections::{BTreeMap, HashMap};

use naga::{AddressSpace, Module};
use pipeline_cache::{Program as _, ToWire as _};

use crate::random::Random;
use evaluate::{Outcome, run_from_outside};

/// How many inputs each shader is run on.
const INPUTS: u64 = 4;

/// All that share a key, by it.
type Known = HashMap<pipeline_cache::PipelineFingerprint, (String, Vec<Outcome>)>;

fn outcomes(module: &Module) -> Vec<Outcome> {
    (0..INPUTS)
        .map(|seed| run_from_outside(module, seed))
        .collect()
}

/// Whether a canonical module has lost the private variables of its wrapper. Two are used by other
/// functions.
fn is_plain(module: &Module) -> bool {
    let globals = module.global_variables.iter();
    let private = globals.filter(|(_, global)| global.space == AddressSpace::Private);
    private.count() <= 2
}

/// Keys a shader and runs it, beside its canonical form and all that have its key. Says whether it
/// is plain, and whether it was the first of its key.
fn look(text: &str, module: &Module, known: &mut Known) -> Option<(bool, bool)> {
    let canonical = module.canonicalize().ok()?;
    // What is out of bounds once it is written out is refused.
    canonical.info().ok()?;
    let before = outcomes(module);
    let after = outcomes(canonical.module());
    assert_eq!(
        before,
        after,
        "{text}\n{}",
        super::support::writers::wgsl(canonical.module())
    );
    let mut is_first = false;
    let (other, outcomes) = known.entry(canonical.fingerprint()).or_insert_with(|| {
        is_first = true;
        (text.to_owned(), before.clone())
    });
    assert!(before == *outcomes, "one key:\n{text}\n{other}");
    Some((is_plain(canonical.module()), is_first))
}

#[test]
fn wrappers_compute_what_they_did() {
    let is_long = std::env::var_os("PIPELINE_CACHE_LONG_TESTS").is_some();
    let seeds = if is_long { 40_000 } else { 60 };
    let mut rows: BTreeMap<&str, [u32; 3]> = BTreeMap::new();
    let bare = spirv::bare();
    for seed in 1..=seeds {
        let shader = wrap::wrapped(seed);
        let mut known = Known::new();
        let mut add = |how: &'static str, text: &str, known: &mut Known| {
            let Ok(module) = naga::front::wgsl::parse_str(text) else {
                return;
            };
            let read = spirv::round_trip(&module, &bare);
            let all = [(how, Some(module)), ("read from SPIR-V", read)];
            for (how, module) in all {
                let Some(module) = module else { continue };
                let Some((is_plain, is_first)) = look(text, &module, known) else {
                    continue;
                };
                let row = rows.entry(how).or_default();
                row[0] += 1;
                row[1] += u32::from(is_plain);
                row[2] += u32::from(!is_first);
            }
        };
        add("as made", &shader.print(), &mut known);
        let mut random = Random(seed);
        for _ in 0..6 {
            let how = random.pick(&wrap::CHANGES);
            if let Some(changed) = wrap::change(&shader, how, &mut random) {
                add(how, &changed.print(), &mut known);
            }
        }
    }
    println!(
        "{:<26} {:>7} {:>7} {:>7}",
        "shader", "keyed", "plain", "shared"
    );
    for (how, [keyed, plain, shared]) in &rows {
        println!("{how:<26} {keyed:>7} {plain:>7} {shared:>7}");
    }
    let sum = |at: usize| rows.values().map(|row| row[at]).sum::<u32>();
    // Where nothing is unwrapped or shared, nothing is shown.
    assert!(sum(0) > 300, "{}", sum(0));
    assert!(sum(1) * 4 > sum(0), "{} of {}", sum(1), sum(0));
    assert!(sum(2) * 10 > sum(0), "{} of {}", sum(2), sum(0));
}
