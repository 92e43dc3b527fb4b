//! Back ends recurse, on the stack of whoever compiles.

use naga::back::{glsl, hlsl, msl, spv, wgsl};
use naga::{Module, ShaderStage};
use pipeline_cache::Program as _;

/// Steps of which each uses the one before once. In the source each has a name.
const STEPS: usize = 2_000;

/// The stack of a thread unless it asks for another.
const ORDINARY: usize = 2 << 20;

fn long_computation() -> String {
    let steps: String = (0..STEPS)
        .map(|n| match n % 3 {
            0 => format!("let x{} = x{n} * 3.5;\n", n + 1),
            1 => format!("let x{} = -x{n};\n", n + 1),
            _ => format!("let x{} = vec2(x{n}).yx.y;\n", n + 1),
        })
        .collect();
    format!(
        "@group(0) @binding(0) var<storage, read_write> f: array<f32>;
         @compute @workgroup_size(1) fn main() {{
             let x0 = f[0];
             {steps} f[1] = x{STEPS};
         }}"
    )
}

/// Each step is the index of the next.
fn long_chain_of_indices() -> String {
    let steps: String = (0..STEPS)
        .map(|n| format!("let x{} = v[x{n}];\n", n + 1))
        .collect();
    format!(
        "@group(0) @binding(0) var<storage, read_write> u: array<u32>;
         @compute @workgroup_size(1) fn main() {{
             let v = vec4(u[2], u[3], u[4], u[5]);
             let x0 = u[0];
             {steps} u[1] = x{STEPS};
         }}"
    )
}

/// naga writes the operand of each of these twice in one of its languages: 2 to the power of 60 times
/// in all.
#[test]
fn back_ends_write_no_operand_again_and_again() {
    for (before, after) in [("textureDimensions(t, ", ").x"), ("u32(f32(", ") % 3.5)")] {
        let steps: String = (0..60)
            .map(|n| format!("let x{} = {before}x{n}{after};\n", n + 1))
            .collect();
        let source = format!(
            "@group(0) @binding(0) var<storage, read_write> u: array<u32>;
             @group(0) @binding(1) var t: texture_2d<f32>;
             @compute @workgroup_size(1) fn main() {{
                 let x0 = u[0];
                 {steps} u[1] = x60 + textureDimensions(t).x;
             }}"
        );
        let module = naga::front::wgsl::parse_str(&source).unwrap();
        for (language, text) in write_all(&module) {
            assert!(text.len() < 1 << 20, "{language}: {} bytes", text.len());
        }
    }
}

#[test]
fn back_ends_write_a_long_computation_on_an_ordinary_stack() {
    writes_on_an_ordinary_stack(&long_computation());
}

#[test]
fn back_ends_write_a_long_chain_of_indices_on_an_ordinary_stack() {
    writes_on_an_ordinary_stack(&long_chain_of_indices());
}

fn writes_on_an_ordinary_stack(source: &str) {
    let module = naga::front::wgsl::parse_str(source).unwrap();
    let thread = std::thread::Builder::new().stack_size(ORDINARY);
    let written = thread.spawn(move || write_all(&module)).unwrap().join();
    for (language, text) in written.unwrap() {
        // Some steps are kept in variables of their own.
        let variables = text.matches("part").count();
        assert!(variables >= STEPS / 64, "{language}: {variables}");
    }
}

/// What each writer makes of the canonical module, where it is text.
fn write_all(module: &Module) -> Vec<(&'static str, String)> {
    let canonical = module.canonicalize().unwrap();
    let (module, info) = (canonical.module(), canonical.info().unwrap());
    spv::write_vec(module, info, &spv::Options::default(), None).unwrap();

    let options = msl::Options {
        fake_missing_bindings: true,
        ..Default::default()
    };
    let pipeline = msl::PipelineOptions::default();
    let metal = msl::write_string(module, info, &options, &pipeline).unwrap();

    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    hlsl::Writer::new(&mut text, &hlsl::Options::default(), &pipeline)
        .write(module, info, None)
        .unwrap();
    let hlsl = text;

    let mut text = String::new();
    let options = glsl::Options {
        version: glsl::Version::Desktop(450),
        ..Default::default()
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: "main".to_owned(),
        multiview: None,
    };
    let policies = naga::proc::BoundsCheckPolicies::default();
    glsl::Writer::new(&mut text, module, info, &options, &pipeline, policies)
        .unwrap()
        .write()
        .unwrap();

    let wgsl = wgsl::write_string(module, info, wgsl::WriterFlags::empty()).unwrap();
    vec![
        ("MSL", metal.0),
        ("HLSL", hlsl),
        ("GLSL", text),
        ("WGSL", wgsl),
    ]
}
