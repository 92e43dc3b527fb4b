//! Modules of one key do one thing: an interpreter is asked.
//!
//! Keys are hashes of canonical forms, so two modules share a key where both behave as the one
//! canonical form does. Generated modules, their mutants and other spellings of them are run beside
//! their canonical forms, and beside each other where they share a key: results, traps, memories,
//! globals and tables must be the same for several inputs to every export.
//!
//! `PIPELINE_CACHE_WASM_ROUNDS` sets how many: 60 if it is not set, 50,000 for over a million pairs
//! (in release: `cargo test --release --all-features --test keys wasm::behaviour -- --nocapture`).

use super::support::{generate as wasm, shuffle as wasm_shuffle};
use std::sync::atomic::{AtomicU64, Ordering};

use pipeline_cache::Program as _;
use pipeline_cache::key::wasm::{CanonicalModule, WasmModule};
use wasm::{Random, behaviour, mutations, rounds, runnable};

/// What came of all pairs.
#[derive(Debug, Default)]
struct Counts {
    pairs: u64,
    /// Of one key, and different bytes.
    shared: u64,
    /// Of these, those whose features the interpreter knows.
    ran: u64,
    /// Mutants made to change the meaning.
    mutants: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.shared += other.shared;
        self.ran += other.ran;
        self.mutants += other.mutants;
    }
}

fn canonical(bytes: &[u8]) -> Option<CanonicalModule> {
    WasmModule::new(bytes.to_vec()).canonicalize().ok()
}

/// A module against its canonical form, spellings and mutants of it.
fn pairs(seed: u64) -> Counts {
    let mut random = Random(seed);
    let module = runnable(&mut random);
    let expected = canonical(&module).unwrap();
    let expected_behaviour = behaviour(&module);
    let mut counts = Counts::default();
    let mut compare = |what: &str, other: &[u8], other_canonical: &CanonicalModule| {
        counts.pairs += 1;
        if *other_canonical != expected || other == module {
            return;
        }
        counts.shared += 1;
        if let (Some(one), Some(two)) = (&expected_behaviour, behaviour(other)) {
            counts.ran += 1;
            assert_eq!(*one, two, "seed {seed}: {what}");
        }
    };
    compare("canonical form", expected.bytes(), &expected);
    for _ in 0..2 {
        let other = wasm_shuffle::shuffle(&module, &mut random);
        compare("another spelling", &other, &canonical(&other).unwrap());
    }
    let mut mutants = 0;
    for round in 0..2 {
        for preserve_semantics in [false, true] {
            for (mutator, mutant) in mutations(&module, seed * 2 + round, preserve_semantics, 4) {
                if let Some(canonical) = canonical(&mutant) {
                    compare(&mutator, &mutant, &canonical);
                    mutants += u64::from(!preserve_semantics);
                }
            }
        }
    }
    Counts { mutants, ..counts }
}

#[test]
fn modules_that_share_a_key_behave_alike() {
    let modules = rounds() * 3;
    let next = AtomicU64::new(0);
    let work = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= modules {
                return counts;
            }
            counts.add(&pairs(seed));
        }
    };
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            counts.add(&thread.join().unwrap());
        }
    });
    println!("{modules} modules: {counts:?}");
    assert!(counts.shared > modules && counts.mutants > modules);
    assert!(counts.ran * 100 > counts.shared * 85, "{counts:?}");
}
