//! Shaders that mean one thing share one key, and shaders that do not never do.
#![cfg(feature = "naga")]

use naga::Module;
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use pipeline_cache::program::naga::CanonicalModule;
use pipeline_cache::{PipelineFingerprint, Program as _, ToWire as _};

fn parse(source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}\n{source}", error.emit_to_string(source)))
}

fn validate(module: &Module) -> ModuleInfo {
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(module)
        .unwrap()
}

fn canonical(module: &Module) -> CanonicalModule {
    module.canonicalize().unwrap()
}

/// The module as naga prints it, read back.
fn respelled(module: &Module) -> Module {
    let flags = naga::back::wgsl::WriterFlags::empty();
    parse(&naga::back::wgsl::write_string(module, &validate(module), flags).unwrap())
}

fn vello() -> Vec<(&'static str, Module)> {
    macro_rules! shaders {
        ($($name:ident)*) => {
            vec![$((stringify!($name), parse(&vello_shaders::SHADERS.$name.wgsl.code)),)*]
        };
    }
    shaders!(
        backdrop
        backdrop_dyn
        bbox_clear
        binning
        clip_leaf
        clip_reduce
        coarse
        draw_leaf
        draw_reduce
        fine_area
        fine_msaa16
        fine_msaa8
        flatten
        path_count
        path_count_setup
        path_tiling
        path_tiling_setup
        pathtag_reduce
        pathtag_reduce2
        pathtag_scan1
        pathtag_scan_large
        pathtag_scan_small
        tile_alloc
    )
}

fn key(source: &str) -> PipelineFingerprint {
    PipelineFingerprint::of(&parse(source)).unwrap()
}

/// A compute shader around a body, with buffers of floats, signed and unsigned integers.
fn compute(body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> f: array<f32>;
         @group(0) @binding(1) var<storage, read_write> i: array<i32>;
         @group(0) @binding(2) var<storage, read_write> u: array<u32>;
         @group(0) @binding(3) var<storage, read_write> a: atomic<u32>;
         var<workgroup> w: array<u32, 64>;
         fn twice(x: f32) -> f32 {{ return x * 2.0; }}
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
             {body}
         }}"
    )
}

/// A vertex and a fragment shader around what stands between them.
fn render(varying: &str, output: &str, body: &str) -> String {
    format!(
        "struct Varying {{ @builtin(position) position: vec4<f32>, {varying} }}
         @group(0) @binding(0) var image: texture_2d<f32>;
         @group(0) @binding(1) var image_sampler: sampler;
         @vertex fn vertex(@builtin(vertex_index) index: u32) -> Varying {{
             var out: Varying;
             out.position = vec4(f32(index));
             return out;
         }}
         @fragment fn fragment(in: Varying) -> {output} {{
             {body}
         }}"
    )
}

#[test]
fn bodies_that_differ_in_meaning_have_two_keys() {
    let pairs = [
        // Floats: order, signed zero, identities that are none.
        ("f[0] = f[1] - f[2];", "f[0] = f[2] - f[1];"),
        (
            "let x = f[1]; let y = f[2]; f[0] = x + y;",
            "let x = f[1]; let y = f[2]; f[0] = y + x;",
        ),
        (
            "let x = f[1]; let y = f[2]; f[0] = x * y;",
            "let x = f[1]; let y = f[2]; f[0] = y * x;",
        ),
        (
            "let x = f[1]; let y = f[2]; f[0] = min(x, y);",
            "let x = f[1]; let y = f[2]; f[0] = min(y, x);",
        ),
        (
            "let x = f[1]; let y = f[2]; f[0] = max(x, y);",
            "let x = f[1]; let y = f[2]; f[0] = max(y, x);",
        ),
        ("f[0] = 0.0;", "f[0] = -0.0;"),
        ("f[0] = f[1] + 0.0;", "f[0] = f[1];"),
        ("f[0] = f[1] * 0.0;", "f[0] = 0.0;"),
        ("f[0] = f[1] * 1.0;", "f[0] = f[1];"),
        ("f[0] = f[1] + f[2] + f[3];", "f[0] = f[1] + (f[2] + f[3]);"),
        (
            "let x = f[1]; let y = f[2]; f[0] = select(0.0, 1.0, !(x < y));",
            "let x = f[1]; let y = f[2]; f[0] = select(0.0, 1.0, x >= y);",
        ),
        (
            "let x = f[1]; let y = f[2]; f[0] = select(0.0, 1.0, x < y);",
            "let x = f[1]; let y = f[2]; f[0] = select(0.0, 1.0, x <= y);",
        ),
        (
            "let x = f[1]; let y = f[2]; f[0] = select(0.0, 1.0, x < y);",
            "let x = f[1]; let y = f[2]; f[0] = select(0.0, 1.0, x > y);",
        ),
        // Integers.
        (
            "let x = i[1]; let y = i[2]; i[0] = x - y;",
            "let x = i[1]; let y = i[2]; i[0] = y - x;",
        ),
        (
            "let x = i[1]; let y = i[2]; i[0] = x / y;",
            "let x = i[1]; let y = i[2]; i[0] = y / x;",
        ),
        (
            "let x = u[1]; u[0] = x << 2u;",
            "let x = u[1]; u[0] = x >> 2u;",
        ),
        ("i[0] = i32(u[1]) >> 1u;", "i[0] = i32(u[1] >> 1u);"),
        ("u[0] = 1u;", "u[0] = 2u;"),
        ("u[0] = u[1];", "u[1] = u[0];"),
        ("u[0] = u32(f[0]);", "u[0] = bitcast<u32>(f[0]);"),
        (
            "let v = vec3(u[1], u[2], u[3]); u[0] = v.x;",
            "let v = vec3(u[1], u[2], u[3]); u[0] = v.y;",
        ),
        (
            "let v = vec2(u[1], u[2]); u[0] = v.yx.x;",
            "let v = vec2(u[1], u[2]); u[0] = v.xy.x;",
        ),
        // When memory is read.
        (
            "let x = u[0]; u[0] = 7u; u[1] = x;",
            "u[0] = 7u; let x = u[0]; u[1] = x;",
        ),
        (
            "let x = u[0]; u[1] = x; u[2] = x;",
            "u[1] = u[0]; u[2] = u[0];",
        ),
        (
            "let x = w[0]; workgroupBarrier(); u[0] = x;",
            "workgroupBarrier(); let x = w[0]; u[0] = x;",
        ),
        (
            "w[id.x] = 1u; workgroupBarrier(); u[0] = w[0];",
            "w[id.x] = 1u; u[0] = w[0];",
        ),
        (
            "w[id.x] = 1u; workgroupBarrier(); u[0] = w[0];",
            "w[id.x] = 1u; storageBarrier(); u[0] = w[0];",
        ),
        (
            "w[id.x] = 1u; workgroupBarrier(); u[0] = w[0];",
            "workgroupBarrier(); w[id.x] = 1u; u[0] = w[0];",
        ),
        (
            "let x = atomicLoad(&a); atomicStore(&a, 1u); u[0] = x;",
            "atomicStore(&a, 1u); let x = atomicLoad(&a); u[0] = x;",
        ),
        (
            "let x = atomicAdd(&a, 1u); let y = u[1]; u[0] = x - y;",
            "let y = u[1]; let x = atomicAdd(&a, 1u); u[0] = x - y;",
        ),
        (
            "let x = atomicAdd(&a, 1u); let y = atomicAdd(&a, 2u); u[0] = x - y;",
            "let y = atomicAdd(&a, 2u); let x = atomicAdd(&a, 1u); u[0] = x - y;",
        ),
        // Two reads of one atomic are two values.
        (
            "let x = atomicLoad(&a); u[0] = x + x;",
            "u[0] = atomicLoad(&a) + atomicLoad(&a);",
        ),
        ("atomicAdd(&a, 1u);", "atomicMax(&a, 1u);"),
        ("atomicAdd(&a, 1u);", "atomicSub(&a, 1u);"),
        ("atomicAdd(&a, 1u);", "atomicAdd(&a, 2u);"),
        ("atomicAnd(&a, 1u);", "atomicOr(&a, 1u);"),
        ("atomicMin(&a, 1u);", "atomicXor(&a, 1u);"),
        (
            "let r = atomicCompareExchangeWeak(&a, 1u, 2u); u[0] = r.old_value;",
            "let r = atomicCompareExchangeWeak(&a, 2u, 1u); u[0] = r.old_value;",
        ),
        // Control flow.
        (
            "if id.x > 4u { return; } u[0] = 1u;",
            "u[0] = 1u; if id.x > 4u { return; }",
        ),
        (
            "if id.x < 4u { u[0] = 1u; }",
            "if id.x < 4u { u[0] = 1u; } else { u[0] = 2u; }",
        ),
        (
            "if id.x < 4u { u[0] = 1u; } else { u[0] = 2u; }",
            "if id.x < 4u { u[0] = 2u; } else { u[0] = 1u; }",
        ),
        (
            "for (var n = 0; n < 4; n++) { i[n] = n; }",
            "for (var n = 0; n < 4; n += 2) { i[n] = n; }",
        ),
        (
            "var n = 0; loop { n++; if n > 3 { break; } }",
            "var n = 0; n++;",
        ),
        (
            "var n = 0; loop { if n > 3 { break; } n++; }",
            "var n = 0; loop { n++; if n > 3 { break; } }",
        ),
        (
            "var n = 0; loop { if n == 2 { continue; } u[n] = 1u; continuing { n++; break if n > 3; } }",
            "var n = 0; loop { if n == 2 { break; } u[n] = 1u; continuing { n++; break if n > 3; } }",
        ),
        (
            "switch id.x { case 0u: { u[0] = 1u; } default: { u[0] = 2u; } }",
            "switch id.x { case 1u: { u[0] = 1u; } default: { u[0] = 2u; } }",
        ),
        (
            "switch id.x { case 0u: { u[0] = 1u; } default: { u[0] = 2u; } }",
            "switch id.x { case 0u, default: { u[0] = 1u; } }",
        ),
        (
            "switch id.x { case 0u, 1u: { u[0] = 1u; } default: {} }",
            "switch id.x { case 0u: {} case 1u: { u[0] = 1u; } default: {} }",
        ),
        ("u[id.x & 3u] = 1u;", "u[min(id.x, 3u)] = 1u;"),
        ("f[0] = twice(1.0);", "f[0] = 2.0;"),
        // A guard in front of what it guards.
        (
            "let x = u[1]; let y = u[2]; if x > 1u && y > 2u { u[0] = 1u; }",
            "let x = u[1]; let y = u[2]; if y > 2u && x > 1u { u[0] = 1u; }",
        ),
    ];
    for (one, two) in pairs {
        assert_ne!(key(&compute(one)), key(&compute(two)), "{one}\n{two}");
    }
}

#[test]
fn every_part_of_the_interface_counts() {
    let shaders = [
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(2) fn main() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1, 2) fn main() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1, 1, 2) fn main() { b[0] = 1u; }",
        "@group(1) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "@group(0) @binding(1) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn other() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<i32>; @compute @workgroup_size(1) fn main() { b[0] = 1i; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<f32>; @compute @workgroup_size(1) fn main() { b[0] = 1f; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32, 4>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32, 5>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: vec3<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: vec4<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "struct S { x: u32, y: u32 } @group(0) @binding(0) var<storage, read_write> b: S; @compute @workgroup_size(1) fn main() { b.x = 1u; }",
        "struct S { x: u32, @align(8) y: u32 } @group(0) @binding(0) var<storage, read_write> b: S; @compute @workgroup_size(1) fn main() { b.x = 1u; }",
        "struct S { x: u32, @size(8) y: u32 } @group(0) @binding(0) var<storage, read_write> b: S; @compute @workgroup_size(1) fn main() { b.x = 1u; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @group(0) @binding(1) var<storage, read> c: u32; @compute @workgroup_size(1) fn main() { b[0] = 1u; _ = &c; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @group(0) @binding(1) var<uniform> c: u32; @compute @workgroup_size(1) fn main() { b[0] = 1u; _ = &c; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @group(0) @binding(1) var<storage, read> c: u32; @compute @workgroup_size(1) fn main() { b[0] = c; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @group(0) @binding(1) var<storage, read_write> c: u32; @compute @workgroup_size(1) fn main() { b[0] = c; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; @group(0) @binding(1) var<uniform> c: u32; @compute @workgroup_size(1) fn main() { b[0] = c; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; var<private> c: u32; @compute @workgroup_size(1) fn main() { b[0] = c; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; var<private> c: u32 = 1; @compute @workgroup_size(1) fn main() { b[0] = c; }",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>; var<workgroup> c: u32; @compute @workgroup_size(1) fn main() { b[0] = c; }",
        "override o: u32; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = o; }",
        "override p: u32; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = p; }",
        "override o: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = o; }",
        "override o: u32 = 2; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = o; }",
        "@id(1) override o: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = o; }",
        "@id(2) override o: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = o; }",
        "override o: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "override o: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(o) fn main() { b[0] = 1u; }",
        "override o: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; var<workgroup> w: array<u32, o>; @compute @workgroup_size(1) fn main() { b[0] = w[0]; }",
        "override o: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; var<workgroup> w: array<u32, o + 1>; @compute @workgroup_size(1) fn main() { b[0] = w[0]; }",
    ];
    let mut keys: Vec<_> = shaders.iter().map(|shader| key(shader)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), shaders.len());
}

#[test]
fn every_part_of_a_stage_counts() {
    let color = "@location(0) vec4<f32>";
    let shaders = [
        render("@location(0) x: f32", color, "return vec4(in.x);"),
        render("@location(1) x: f32", color, "return vec4(in.x);"),
        render("@location(0) x: vec2<f32>", color, "return vec4(in.x.x);"),
        render(
            "@location(0) @interpolate(flat) x: f32",
            color,
            "return vec4(in.x);",
        ),
        render(
            "@location(0) @interpolate(linear) x: f32",
            color,
            "return vec4(in.x);",
        ),
        render(
            "@location(0) @interpolate(perspective, centroid) x: f32",
            color,
            "return vec4(in.x);",
        ),
        render(
            "@location(0) @interpolate(perspective, sample) x: f32",
            color,
            "return vec4(in.x);",
        ),
        render(
            "@location(0) x: f32",
            "@location(1) vec4<f32>",
            "return vec4(in.x);",
        ),
        render(
            "@location(0) x: f32",
            "@builtin(frag_depth) f32",
            "return in.x;",
        ),
        render("@location(0) x: f32", color, "return dpdx(vec4(in.x));"),
        render("@location(0) x: f32", color, "return dpdy(vec4(in.x));"),
        render("@location(0) x: f32", color, "return dpdxFine(vec4(in.x));"),
        render(
            "@location(0) x: f32",
            color,
            "return dpdxCoarse(vec4(in.x));",
        ),
        render("@location(0) x: f32", color, "return fwidth(vec4(in.x));"),
        render(
            "@location(0) x: f32",
            color,
            "return textureSample(image, image_sampler, vec2(in.x));",
        ),
        render(
            "@location(0) x: f32",
            color,
            "return textureSampleLevel(image, image_sampler, vec2(in.x), 0.0);",
        ),
        render(
            "@location(0) x: f32",
            color,
            "return textureSampleBias(image, image_sampler, vec2(in.x), 0.0);",
        ),
        render(
            "@location(0) x: f32",
            color,
            "return textureSample(image, image_sampler, vec2(in.x), vec2(1, 0));",
        ),
        render(
            "@location(0) x: f32",
            color,
            "return textureLoad(image, vec2(0, 0), 0);",
        ),
        render(
            "@location(0) x: f32",
            color,
            "return textureGather(0, image, image_sampler, vec2(in.x));",
        ),
        render(
            "@location(0) x: f32",
            color,
            "return textureGather(1, image, image_sampler, vec2(in.x));",
        ),
        // A derivative or a sample stays on its side of control flow.
        render(
            "@location(0) x: f32",
            color,
            "let d = dpdx(in.x); if in.x > 1.0 { return vec4(d); } return vec4(0.0);",
        ),
        render(
            "@location(0) x: f32",
            color,
            "if in.x > 1.0 { return vec4(dpdx(in.x)); } return vec4(0.0);",
        ),
        render(
            "@location(0) x: f32",
            color,
            "if in.x > 1.0 { discard; } return vec4(in.x);",
        ),
        render(
            "@location(0) x: f32",
            color,
            "if in.x > 1.0 { return vec4(in.x); } return vec4(in.x);",
        ),
    ];
    let mut keys: Vec<_> = shaders.iter().map(|shader| key(shader)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), shaders.len());
}

#[test]
fn bodies_that_differ_in_spelling_share_a_key() {
    let pairs = [
        ("u[0] = u[1] + 1u;", "  u[ 0 ]=( u[1]+(1u) ) ; // a comment"),
        ("u[0] += 1u;", "u[0] = u[0] + 1u;"),
        ("u[0]++;", "u[0] = u[0] + 1u;"),
        (
            "f[0] = id_f();",
            "let unused = 3.0 * f32(id.x); f[0] = id_f();",
        ),
        (
            "let x = f32(id.x) * 2.0; f[0] = x; f[1] = x;",
            "f[0] = f32(id.x) * 2.0; f[1] = f32(id.x) * 2.0;",
        ),
        (
            "let x = f32(id.x) * 2.0; if id.y > 1u { f[0] = x; }",
            "if id.y > 1u { let y = f32(id.x) * 2.0; f[0] = y; }",
        ),
        (
            "let x = f32(id.x); if id.y > 1u { f[0] = x; } else { f[1] = x; }",
            "if id.y > 1u { f[0] = f32(id.x); } else { f[1] = f32(id.x); }",
        ),
        ("const X = 5u; u[0] = X;", "u[0] = 5u;"),
        (
            "const X = vec3(1.0, 2.0, 3.0); f[0] = length(X * f32(id.x));",
            "f[0] = length(vec3(1.0, 2.0, 3.0) * f32(id.x));",
        ),
        ("{ { u[0] = 1u; } } u[1] = 2u;", "u[0] = 1u; u[1] = 2u;"),
        ("let p = &u[id.x]; *p = 3u;", "u[id.x] = 3u;"),
        (
            "var x = 3u; u[0] = x;",
            "var different_name = 3u; u[0] = different_name;",
        ),
        (
            "var x = 3u; u[0] = x;",
            "var unused: f32; var x = 3u; u[0] = x;",
        ),
        (
            "var x = 3u; u[0] = x;",
            "var x = 3u; let dead = x; u[0] = x;",
        ),
        ("if id.x > 3u { u[0] = 1u; }", "if 3u < id.x { u[0] = 1u; }"),
        (
            "if id.x >= 3u { u[0] = 1u; }",
            "if 3u <= id.x { u[0] = 1u; }",
        ),
        (
            "let x = f[1]; let y = f[2]; if x > y { u[0] = 1u; }",
            "let x = f[1]; let y = f[2]; if y < x { u[0] = 1u; }",
        ),
        ("u[0] = id.x + id.y;", "u[0] = id.y + id.x;"),
        ("u[0] = id.x * id.y + id.z;", "u[0] = id.z + id.y * id.x;"),
        (
            "u[0] = (id.x & id.y) | (id.x ^ id.z);",
            "u[0] = (id.z ^ id.x) | (id.y & id.x);",
        ),
        (
            "if id.x == id.y { u[0] = 1u; }",
            "if id.y == id.x { u[0] = 1u; }",
        ),
        (
            "let x = u[1]; let y = u[2]; u[0] = x + y;",
            "let x = u[1]; let y = u[2]; u[0] = y + x;",
        ),
        (
            "let v = id.xy + id.yz; u[0] = v.x;",
            "let v = id.yz + id.xy; u[0] = v.x;",
        ),
        (
            "const N = 4; for (var n = 0; n < N; n++) { i[n] = n; }",
            "for (var m = 0; m < 4; m = m + 1) { i[m] = m; }",
        ),
        (
            "for (var n = 0u; n < 4u; n++) { u[n] = id.x * id.y; }",
            "for (var n = 0u; n < 4u; n++) { let x = id.x * id.y; u[n] = x; }",
        ),
    ];
    let with_helper = |body: &str| compute(body) + "fn id_f() -> f32 { return 1.0; }";
    for (one, two) in pairs {
        assert_eq!(
            key(&with_helper(one)),
            key(&with_helper(two)),
            "{one}\n{two}"
        );
    }
}

#[test]
fn modules_that_differ_in_spelling_share_a_key() {
    let base = "
        struct Config { width: u32, height: u32 }
        @group(0) @binding(0) var<uniform> config: Config;
        @group(0) @binding(1) var<storage, read_write> out: array<u32>;
        override scale: u32 = 2;
        override bias: u32 = 3;
        const LIMIT = 10u;
        var<private> counter: u32;
        fn area() -> u32 { return config.width * config.height; }
        fn clamped(x: u32) -> u32 { return min(x, LIMIT) * scale + bias; }
        @compute @workgroup_size(8) fn first() { counter = area(); out[0] = clamped(counter); }
        @compute @workgroup_size(8) fn second() { out[1] = clamped(1u); }";
    let respelled = "
        /// Documented.
        fn limited(value: u32) -> u32 { return min(value, 10u) * scale + bias; }
        @compute @workgroup_size(4 + 4) fn second() { output[1] = limited(1u); }
        fn dead() -> u32 { return limited(7u) + never; }
        var<private> never: u32 = 3;
        override bias: u32 = 3;
        override scale: u32 = 2;
        alias Word = u32;
        struct Unused { x: Other }
        struct Other { x: f32 }
        struct Size { w: Word, h: Word }
        @group(3) @binding(9) var<uniform> unused: Unused;
        @group(0) @binding(1) var<storage, read_write> output: array<Word>;
        @group(0) @binding(0) var<uniform> size: Size;
        var<private> state: u32;
        @compute @workgroup_size(8) fn first() { state = surface(); output[0] = limited(state); }
        fn surface() -> Word { return size.width_and_height(); }";
    let respelled = respelled.replace("size.width_and_height()", "size.w * size.h");
    assert_eq!(key(base), key(&respelled));
}

/// `_ = buffer;` has no effect but on the interface of the pipeline.
#[test]
fn a_resource_that_is_only_named_stays_in_the_interface() {
    let shader = |body: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> b: array<u32>;
             @group(0) @binding(1) var<storage, read> c: array<u32>;
             @compute @workgroup_size(1) fn main() {{ b[0] = 1u; {body} }}"
        )
    };
    let without = canonical(&parse(&shader("")));
    assert_eq!(without.module().global_variables.len(), 1);
    for body in ["_ = &c;", "let dead = arrayLength(&c);", "let dead = c[0];"] {
        let with = canonical(&parse(&shader(body)));
        assert_ne!(with.to_wire(), without.to_wire(), "{body}");
        let main = with.info().get_entry_point(0);
        for (global, _) in with.module().global_variables.iter() {
            assert!(!main[global].is_empty(), "{body}");
        }
        assert_eq!(with.module().global_variables.len(), 2, "{body}");
        assert_eq!(canonical(with.module()).to_wire(), with.to_wire(), "{body}");
    }
}

#[test]
fn vello_shaders_have_one_key_however_often_they_are_canonicalized() {
    let mut keys = Vec::new();
    for (name, module) in vello() {
        let once = canonical(&module);
        let twice = canonical(once.module());
        assert!(once.to_wire() == twice.to_wire(), "{name}");
        keys.push(once.fingerprint());
    }
    keys.sort();
    keys.dedup();
    // One shader is in the crate under two names.
    println!("{} keys", keys.len());
}

#[test]
fn respelled_vello_shaders_share_their_keys() {
    // What naga's front end computes when it reads its own output, where the source has a `let`.
    let folded = ["fine_msaa16", "fine_msaa8", "path_tiling"];
    for (name, module) in vello() {
        let respelled = canonical(&respelled(&module));
        let shared = canonical(&module).to_wire() == respelled.to_wire();
        assert_eq!(shared, !folded.contains(&name), "{name}");
    }
}
