//! A key costs less than the front end that made the module.
//!
//! It measures, so it is run by hand, in a release build on a quiet machine:
//! `cargo test --release --features naga --test keys naga::speed -- --ignored --nocapture`.

use super::support::vello;
use std::hint::black_box;
use std::time::{Duration, Instant};

use naga::Module;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pipeline_cache::PipelineFingerprint;

const ROUNDS: usize = 41;

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn parse(source: &str) -> Module {
    naga::front::wgsl::parse_str(source).unwrap()
}

fn validate(module: &Module) {
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    black_box(validator.validate(module).unwrap());
}

/// All three in turn in each round, so that what else the machine does falls on all alike.
#[test]
#[ignore = "measures time"]
fn a_key_costs_at_most_one_and_a_half_front_ends() {
    let sources = vello::sources();
    let modules: Vec<_> = sources.iter().map(|(_, source)| parse(source)).collect();
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(timed(|| {
            for (_, source) in &sources {
                black_box(parse(source));
            }
        }));
        times[1].push(timed(|| modules.iter().for_each(validate)));
        times[2].push(timed(|| {
            for module in &modules {
                black_box(PipelineFingerprint::of(module).unwrap());
            }
        }));
    }
    let mut ratios: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let front_end = times[0][round] + times[1][round];
            times[2][round].as_secs_f64() / front_end.as_secs_f64()
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "{} shaders, {ROUNDS} rounds: min, median, max",
        modules.len()
    );
    for (what, times) in ["parse", "validate", "key"].iter().zip(&mut times) {
        times.sort();
        let [min, median, max] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| times[at]);
        println!("{what:<10} {min:>10.2?} {median:>10.2?} {max:>10.2?}");
    }
    let [min, median, max] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| ratios[at]);
    println!("key / (parse + validate) {min:.2} {median:.2} {max:.2}");
    assert!(median < 1.5, "{median}");
}

/// A fragment shader around statements, with something to sample.
fn fragment(statements: &str) -> String {
    format!(
        "@group(0) @binding(0) var image: texture_2d<f32>;
         @group(0) @binding(1) var image_sampler: sampler;
         @fragment fn main(@location(0) at: vec2<f32>) -> @location(0) vec4<f32> {{
             {statements}
             return textureSample(image, image_sampler, at);
         }}"
    )
}

/// Against naga's validator on the same module, which takes time in proportion to its size.
#[test]
fn early_exits_beside_samples_take_time_in_proportion_to_their_number() {
    let exits: String = (0..4_000)
        .map(|i| format!("if at.x < {i}.5 {{ discard; }}\n"))
        .collect();
    let module = parse(&fragment(&exits));
    // The best of several, in turn: what else the machine does only adds to a time.
    let [mut validated, mut keyed] = [Duration::MAX; 2];
    for _ in 0..5 {
        validated = validated.min(timed(|| validate(&module)));
        keyed = keyed.min(timed(|| {
            black_box(PipelineFingerprint::of(&module).unwrap());
        }));
    }
    let ratio = keyed.as_secs_f64() / validated.as_secs_f64();
    assert!(ratio < 12.0, "{validated:?}, {keyed:?}");
}
