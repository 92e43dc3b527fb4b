//! Shaders that share a key compute the same results.
//!
//! Generated shaders are changed in one place, and run in an interpreter of naga's IR that sees
//! every bit. Those of one key are run each, and each shader beside its canonical form; of those of
//! other keys, a fourth is run too, to see that the interpreter is not blind.
//!
//! `PIPELINE_CACHE_NAGA_PAIRS` sets how many pairs: 1,000 if it is not set. A million takes about
//! half an hour of two processors, in release:
//! `cargo test --release --all-features --test keys naga::results -- --nocapture`.

use super::support::{evaluate, generate, mutate};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use naga::Module;
use pipeline_cache::key::naga::CanonicalModule;
use pipeline_cache::{PipelineFingerprint, Program as _, ToWire as _};

use evaluate::{Outcome, run};
use generate::Random;

/// How many inputs each pair is run on.
const INPUTS: u64 = 4;

fn pairs() -> u32 {
    let pairs = std::env::var("PIPELINE_CACHE_NAGA_PAIRS").ok();
    pairs.and_then(|pairs| pairs.parse().ok()).unwrap_or(1_000)
}

/// A module, its canonical form and their key.
struct Case {
    text: String,
    module: Module,
    canonical: CanonicalModule,
    key: PipelineFingerprint,
}

impl Case {
    /// None where the text is not valid.
    fn new(text: String) -> Option<Self> {
        let module = naga::front::wgsl::parse_str(&text).ok()?;
        let canonical = module.canonicalize().ok()?;
        // An index that is known once it is written out can be out of bounds, which naga refuses.
        canonical.info().ok()?;
        let key = canonical.fingerprint();
        Some(Self {
            text,
            module,
            canonical,
            key,
        })
    }

    /// Runs the shader and its canonical form, which must agree.
    fn run(&self) -> Vec<Outcome> {
        let outcomes = outcomes(&self.module);
        let after = self::outcomes(self.canonical.module());
        for (before, after) in outcomes.iter().zip(after) {
            assert_eq!(*before, after, "{}\n{:?}", self.text, self.canonical);
        }
        outcomes
    }
}

fn outcomes(module: &Module) -> Vec<Outcome> {
    (0..INPUTS).map(|seed| run(module, seed)).collect()
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
}

impl Counts {
    fn add(&mut self, other: Self) {
        let Self {
            rows,
            total,
            shaders,
            invalid,
        } = other;
        self.total += total;
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
    let shader = generate::shader(seed);
    let Some(one) = Case::new(shader.print()) else {
        counts.invalid += 1;
        return counts;
    };
    counts.shaders += 1;
    let outcomes = one.run();
    let mut random = Random(seed);
    for _ in 0..5 {
        let change = random.pick(&mutate::CHANGES);
        let mutant = mutate::mutate(&shader, change, &mut random);
        let Some(two) = mutant.and_then(|mutant| Case::new(mutant.print())) else {
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
            let same = outcomes == self::outcomes(&two.module);
            assert!(same, "{change}\n{}\n{}", one.text, two.text);
            row.equal += 1;
        } else if random.one_in(4) {
            row.ran += 1;
            row.told += u32::from(outcomes != two.run());
        }
    }
    counts
}

#[test]
fn shaders_that_share_a_key_compute_the_same_results() {
    let counts = Mutex::new(Counts::default());
    let next = AtomicU64::new(1);
    let work = || {
        while counts.lock().unwrap().total < pairs() {
            let looked = look(next.fetch_add(1, Ordering::Relaxed));
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
    // Without equal keys nothing is proved, and without other results the interpreter is blind.
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
        let case = Case::new(source(first, then)).expect("it has a key");
        case.run();
        case.key
    });
    let keys: std::collections::BTreeSet<_> = cases.into_iter().collect();
    assert_eq!(keys.len(), 4);
}
