//! Shaders that share a key compute the same results.
//!
//! Generated shaders are changed in one place, and run in an interpreter of naga's IR that sees
//! every bit. Those of one key are run each, and each shader beside its canonical form; of those of
//! other keys, a fourth is run too, to see that the interpreter is not blind. Half of the shaders have
//! several entry points, of vertices, fragments and computing. Three of four, and an eighth of what
//! is made of these, are written as SPIR-V and read again, and are among them then: their entry
//! points wrap what they do.
//!
//! `PIPELINE_CACHE_NAGA_PAIRS` sets how many pairs: 1,000 if it is not set. A million takes about
//! half an hour of two processors. `PIPELINE_CACHE_NAGA_SEED` is the first seed; one that failed is
//! printed.
//!
//! `cargo test --release --all-features --test keys naga::results -- --nocapture`.

use super::support::{evaluate, generate, mutate, spirv};
use std::collections::BTreeMap;
use std::panic::{catch_unwind, resume_unwind};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use naga::Module;
use pipeline_cache::key::naga::CanonicalModule;
use pipeline_cache::{PipelineFingerprint, Program as _, ToWire as _};

use evaluate::{Outcome, run, run_from_outside};
use generate::Random;

/// How many inputs each pair is run on.
const INPUTS: u64 = 4;

fn pairs() -> u32 {
    number("PIPELINE_CACHE_NAGA_PAIRS", 1_000)
}

fn number<T: FromStr>(variable: &str, default: T) -> T {
    let text = std::env::var(variable).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

type Run = fn(&Module, u64) -> Outcome;

/// A module, its canonical form and their key.
struct Case {
    /// Runs it: private variables are not seen where a wrapper may hold inputs and outputs in them.
    run: Run,
    text: String,
    module: Module,
    canonical: CanonicalModule,
    key: PipelineFingerprint,
}

impl Case {
    /// None where the text is not valid.
    fn new(text: String, run: Run) -> Option<Self> {
        let module = naga::front::wgsl::parse_str(&text).ok()?;
        let canonical = module.canonicalize().ok()?;
        // An index that is known once it is written out can be out of bounds, which naga refuses.
        canonical.info().ok()?;
        let key = canonical.fingerprint();
        Some(Self {
            run,
            text,
            module,
            canonical,
            key,
        })
    }

    /// Runs the shader and its canonical form, which must agree.
    fn run(&self) -> Vec<Outcome> {
        let outcomes = self.outcomes();
        let after = outcomes_of(self.run, self.canonical.module());
        for (before, after) in outcomes.iter().zip(after) {
            assert_eq!(*before, after, "{}\n{:?}", self.text, self.canonical);
        }
        outcomes
    }

    fn outcomes(&self) -> Vec<Outcome> {
        outcomes_of(self.run, &self.module)
    }
}

fn outcomes_of(run: Run, module: &Module) -> Vec<Outcome> {
    (0..INPUTS).map(|seed| run(module, seed)).collect()
}

fn outcomes_from_outside(module: &Module) -> Vec<Outcome> {
    outcomes_of(run_from_outside, module)
}

/// What comes back from the SPIR-V of a shader.
struct Read {
    key: PipelineFingerprint,
    outcomes: Vec<Outcome>,
}

impl Read {
    /// Runs it and its canonical form, which must agree. None where naga cannot write or read it,
    /// or it has no key.
    fn new(case: &Case, options: &naga::back::spv::Options<'_>) -> Option<Self> {
        let module = spirv::round_trip(&case.module, options)?;
        let canonical: CanonicalModule = module.canonicalize().ok()?;
        canonical.info().ok()?;
        let outcomes = outcomes_from_outside(&module);
        let after = outcomes_from_outside(canonical.module());
        assert_eq!(outcomes, after, "{}\n{canonical:?}", case.text);
        let key = canonical.fingerprint();
        Some(Self { key, outcomes })
    }

    /// Whether it shares the key of a shader, which must compute the same then.
    fn is_one_with(&self, case: &Case) -> bool {
        let is_one = self.key == case.key;
        if is_one {
            let same = self.outcomes == outcomes_from_outside(&case.module);
            assert!(same, "{}\n{:?}", case.text, case.canonical);
        }
        is_one
    }
}

#[derive(Default)]
struct Row {
    pairs: u32,
    /// Of one key.
    equal: u32,
    /// Of two keys, and run.
    ran: u32,
    /// Of these, those with other results.
    told: u32,
}

type Rows = BTreeMap<&'static str, Row>;

#[derive(Default)]
struct Counts {
    rows: Rows,
    total: u32,
    shaders: u32,
    invalid: u32,
    /// Shaders that were read from SPIR-V, and those of one key with what they came from.
    read: u32,
    read_equal: u32,
    /// Pairs of which one or both are read from SPIR-V, and those of one key.
    read_pairs: u32,
    read_pairs_equal: u32,
}

impl Counts {
    fn add(&mut self, other: Self) {
        let Self {
            rows,
            total,
            shaders,
            invalid,
            read,
            read_equal,
            read_pairs,
            read_pairs_equal,
        } = other;
        self.total += total;
        self.read += read;
        self.read_equal += read_equal;
        self.read_pairs += read_pairs;
        self.read_pairs_equal += read_pairs_equal;
        self.shaders += shaders;
        self.invalid += invalid;
        for (change, row) in rows {
            let sum = self.rows.entry(change).or_default();
            sum.pairs += row.pairs;
            sum.equal += row.equal;
            sum.ran += row.ran;
            sum.told += row.told;
        }
    }
}

/// A shader beside some that are changed in one place.
fn look(seed: u64) -> Counts {
    let mut counts = Counts::default();
    // Half have entry points of any stage, and three of four are read from SPIR-V as well.
    let (shader, run): (_, Run) = if seed % 4 < 2 {
        (generate::several(seed), run_from_outside)
    } else {
        (generate::shader(seed), run)
    };
    let Some(one) = Case::new(shader.print(), run) else {
        counts.invalid += 1;
        return counts;
    };
    counts.shaders += 1;
    let outcomes = one.run();
    let options = [spirv::bare(), spirv::guarded()];
    let options = &options[(seed / 4 % 2) as usize];
    let read = (seed % 4 < 3).then(|| Read::new(&one, options)).flatten();
    if let Some(read) = &read {
        counts.read += 1;
        counts.read_equal += u32::from(read.is_one_with(&one));
    }
    let mut random = Random(seed);
    for _ in 0..5 {
        let change = random.pick(&mutate::CHANGES);
        let mutant = mutate::mutate(&shader, change, &mut random);
        let Some(two) = mutant.and_then(|mutant| Case::new(mutant.print(), run)) else {
            counts.invalid += 1;
            continue;
        };
        if one.text == two.text {
            continue;
        }
        let row = counts.rows.entry(change).or_default();
        counts.total += 1;
        row.pairs += 1;
        if one.key == two.key {
            let same = outcomes == two.outcomes();
            assert!(same, "{change}\n{}\n{}", one.text, two.text);
            row.equal += 1;
        } else if random.one_in(4) {
            row.ran += 1;
            row.told += u32::from(outcomes != two.run());
        }
        let Some(read) = &read else { continue };
        counts.read_pairs += 1;
        counts.read_pairs_equal += u32::from(read.is_one_with(&two));
        let other = random.one_in(8).then(|| Read::new(&two, options));
        let Some(other) = other.flatten() else {
            continue;
        };
        counts.read_pairs += 2;
        counts.read_pairs_equal += u32::from(other.is_one_with(&one));
        if other.key == read.key {
            assert!(
                other.outcomes == read.outcomes,
                "{change}\n{}\n{}",
                one.text,
                two.text
            );
            counts.read_pairs_equal += 1;
        }
    }
    counts
}

#[test]
fn shaders_that_share_a_key_compute_the_same_results() {
    let counts = Mutex::new(Counts::default());
    let next = AtomicU64::new(number("PIPELINE_CACHE_NAGA_SEED", 1));
    let work = || {
        while counts.lock().unwrap().total < pairs() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let looked = catch_unwind(|| look(seed)).unwrap_or_else(|panic| {
                eprintln!("of seed {seed}");
                resume_unwind(panic)
            });
            counts.lock().unwrap().add(looked);
        }
    };
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let Counts {
        rows,
        total,
        shaders,
        invalid,
        read,
        read_equal,
        read_pairs,
        read_pairs_equal,
    } = counts.into_inner().unwrap();
    let sum = |of: fn(&Row) -> u32| rows.values().map(of).sum::<u32>();
    let (equal, ran, told) = (
        sum(|row| row.equal),
        sum(|row| row.ran),
        sum(|row| row.told),
    );
    println!(
        "{:<26} {:>7} {:>7} {:>9} {:>16}",
        "change", "pairs", "one key", "two, run", "other results"
    );
    for (change, row) in &rows {
        println!(
            "{change:<26} {:>7} {:>7} {:>9} {:>16}",
            row.pairs, row.equal, row.ran, row.told
        );
    }
    println!(
        "{total} pairs of {shaders} shaders on {INPUTS} inputs: {equal} with one key; of {ran} others that were run, {told} with other results; {invalid} invalid"
    );
    println!(
        "{read} shaders read from SPIR-V, {read_equal} with the key they came from; of {read_pairs} pairs with a changed one {read_pairs_equal} with one key"
    );
    // Without equal keys nothing is proved, and without other results the interpreter is blind.
    assert!(
        read_pairs_equal * 20 > read_pairs,
        "{read_pairs_equal} of {read_pairs}"
    );
    assert!(equal * 5 > total, "{equal} of {total}");
    assert!(told * 5 > ran, "{told} of {ran}");
    assert_eq!(rows.len(), mutate::CHANGES.len());
}

/// What ends a loop is read after each `continue` as well, although nothing else is done there.
#[test]
fn what_ends_a_loop_is_read_where_the_loop_goes_on() {
    let source = |first: &str, then: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> d: array<u32>;
             @compute @workgroup_size(1) fn main() {{
                 var x: bool = {first};
                 var n = 0u;
                 loop {{
                     n += 1u;
                     if n > 20u {{ break; }}
                     if (n % 2u) == 1u {{ continue; }}
                     x = {then};
                     d[0] += 1u;
                     continuing {{ break if x; }}
                 }}
                 d[1] = n;
             }}"
        )
    };
    let cases = [
        ("true", "true"),
        ("false", "true"),
        ("true", "d[n] > 3u"),
        ("false", "d[n] > 3u"),
    ]
    .map(|(first, then)| {
        let case = Case::new(source(first, then), run).expect("it has a key");
        case.run();
        case.key
    });
    let keys: std::collections::BTreeSet<_> = cases.into_iter().collect();
    assert_eq!(keys.len(), 4);
}
