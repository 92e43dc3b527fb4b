//! What a key costs beside naga's validation of the same module.
//!
//! The first test measures, so it is run by hand, in a release build on a quiet machine:
//! `cargo test --release --features naga --test keys naga::speed -- --ignored --nocapture`.

use super::support::vello;
use std::hint::black_box;
use std::time::{Duration, Instant};

use naga::Module;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pipeline_cache::PipelineFingerprint;
use pipeline_cache::key::naga::ValidatedModule;

const ROUNDS: usize = 41;
/// The most that a key takes, validations of the same module. More than is measured, so that a
/// machine that is a little busy does not matter.
const MOST: f64 = 2.8;
const MOST_OF_VALIDATED: f64 = 1.9;

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

fn of_validated(source: &str) -> ValidatedModule {
    ValidatedModule::new(parse(source), Capabilities::all()).unwrap()
}

/// All in turn in each round, so that what else the machine does falls on all alike.
#[test]
#[ignore = "measures time"]
fn a_key_costs_little_more_than_two_validations() {
    let sources = vello::sources();
    let sources = || sources.iter().map(|(_, source)| *source);
    let modules: Vec<_> = sources().map(parse).collect();
    let validated: Vec<_> = sources().map(of_validated).collect();
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        times[0].push(timed(|| modules.iter().for_each(validate)));
        times[1].push(timed(|| {
            for module in &modules {
                black_box(PipelineFingerprint::of(module).unwrap());
            }
        }));
        times[2].push(timed(|| {
            for module in &validated {
                black_box(PipelineFingerprint::of(module).unwrap());
            }
        }));
    }
    println!(
        "{} shaders, {ROUNDS} rounds: min, median, max",
        modules.len()
    );
    let names = ["validation", "key", "key of a ValidatedModule"];
    let ratios = [0, 1, 2].map(|which| {
        let mut ratios: Vec<_> = (0..ROUNDS)
            .map(|round| times[which][round].as_secs_f64() / times[0][round].as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        let [min, median, max] = [0, ROUNDS / 2, ROUNDS - 1].map(|at| ratios[at]);
        println!("{:<25} {min:.2} {median:.2} {max:.2}", names[which]);
        median
    });
    let [_, key, of_validated] = ratios;
    assert!(key < MOST, "{key}");
    assert!(of_validated < MOST_OF_VALIDATED, "{of_validated}");
}

/// A count and no time, so that it holds on any machine.
#[test]
fn a_key_allocates_no_more_for_many_expressions_than_for_few() {
    let allocations = |statements: usize| {
        let statements: String = (0..statements)
            .map(|n| format!("if id.x > {n}u {{ data[id.x] += data[{n}] * vec4(id.y + {n}u); }}\n"))
            .collect();
        let module = of_validated(&format!(
            "@group(0) @binding(0) var<storage, read_write> data: array<vec4<u32>>;
             @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                 {statements}
             }}"
        ));
        // The first key makes the room that the next one has.
        let key = PipelineFingerprint::of(&module).unwrap();
        let counted = allocation_counter::measure(|| {
            assert_eq!(PipelineFingerprint::of(&module), Ok(key));
        });
        counted.count_total
    };
    let (few, many) = (allocations(20), allocations(600));
    assert!(many <= few + 8, "{few} for few, {many} for many");
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

/// Each statement is looked at as often as it is written, not once for each loop or branch around
/// it, which would take fifty validations and more.
#[test]
fn deep_nests_take_time_in_proportion_to_their_statements() {
    // naga's front end and validator recurse.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    thread.spawn(measure_deep_nests).unwrap().join().unwrap();
}

fn measure_deep_nests() {
    const DEPTH: usize = 100;
    let nested = |first: &str, inner: &str| {
        let first = |level: usize| first.replace("LEVEL", &level.to_string());
        let first: String = (0..DEPTH).map(first).collect();
        let inner: String = (0..1_000)
            .map(|n| inner.replace("N", &n.to_string()))
            .collect();
        format!("{first} {inner} {}", "}".repeat(DEPTH))
    };
    let loops = |carried: &str, inner: &str, used: &str| {
        let first = format!("{carried} for (var iLEVEL = 0u; iLEVEL < id.x; iLEVEL++) {{");
        format!(
            "@group(0) @binding(0) var<storage, read_write> data: array<u32>;
             @compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                 {} {used}
             }}",
            nested(&first, inner)
        )
    };
    let samples = nested(
        "let qLEVEL = at.x * LEVEL.5; if qLEVEL > 0.5 {",
        "c += textureSample(image, image_sampler, vec2(q0, q99));",
    );
    let carried = "let cLEVEL = id.z * LEVELu;";
    let sources = [
        loops("", "data[N] = id.y;", ""),
        loops(carried, "data[N] = id.y;", "data[0] = c0;"),
        loops(carried, "data[N] = c0 + c99;", ""),
        fragment(&format!("var c = vec4(0.0); {samples}")),
    ];
    for source in sources {
        let module = parse(&format!("diagnostic(off, derivative_uniformity); {source}"));
        let [mut validated, mut keyed] = [Duration::MAX; 2];
        for _ in 0..25 {
            validated = validated.min(timed(|| validate(&module)));
            keyed = keyed.min(timed(|| {
                black_box(PipelineFingerprint::of(&module).unwrap());
            }));
        }
        let ratio = keyed.as_secs_f64() / validated.as_secs_f64();
        println!("{ratio:.1}");
        assert!(ratio < 25.0, "{validated:?}, {keyed:?}: {}", &source[..400]);
    }
}
