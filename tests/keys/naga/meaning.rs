//! Shaders that mean one thing share one key, and shaders that do not never do.

use super::support::{vello, writers};
use naga::Module;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pipeline_cache::key::naga::{CanonicalModule, InvalidModule, MAX_NESTING, ValidatedModule};
use pipeline_cache::{PipelineFingerprint, Program as _, ToWire as _};

use vello::vello;
use writers::validate;

fn parse(source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}\n{source}", error.emit_to_string(source)))
}

fn canonical(module: &Module) -> CanonicalModule {
    let canonical = module.canonicalize().unwrap();
    canonical.info().unwrap();
    canonical
}

/// The module as naga prints it, read back.
fn respelled(module: &Module) -> Module {
    let flags = naga::back::wgsl::WriterFlags::empty();
    parse(&naga::back::wgsl::write_string(module, &validate(module), flags).unwrap())
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
         fn thrice(x: f32) -> f32 {{ return x * 3.0; }}
         fn bump(x: ptr<function, f32>) {{ *x += 1.0; }}
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
        // Comparisons of floats are not each other's opposite, and of integers only the right ones.
        (
            "let x = f[1]; let y = f[2]; if !(x < y) { u[0] = 1u; }",
            "let x = f[1]; let y = f[2]; if x >= y { u[0] = 1u; }",
        ),
        (
            "let x = f[1]; let y = f[2]; if !(x <= y) { u[0] = 1u; }",
            "let x = f[1]; let y = f[2]; if x > y { u[0] = 1u; }",
        ),
        (
            "if !(id.x < id.y) { u[0] = 1u; }",
            "if id.x <= id.y { u[0] = 1u; }",
        ),
        (
            "if !(id.x <= id.y) { u[0] = 1u; }",
            "if id.x < id.y { u[0] = 1u; }",
        ),
        (
            "if !(id.x == id.y) { u[0] = 1u; }",
            "if id.x == id.y { u[0] = 1u; }",
        ),
        (
            "f[0] = length(vec3(f[1]));",
            "f[0] = length(vec3(f[1], f[1], f[2]));",
        ),
        (
            "let x = f[1]; f[0] = length(vec3(x));",
            "let x = f[1]; f[0] = length(vec2(x));",
        ),
        (
            "f[0] = length(vec2(f[1]));",
            "f[0] = length(vec2(f[1], f[1]));",
        ),
        // Neighbours of rules that hold.
        ("let x = 7; i[0] = x / 2;", "i[0] = 4;"),
        ("let x = 2147483647; i[0] = x + 1;", "i[0] = -2147483647;"),
        ("let x = -1; u[0] = u32(x);", "u[0] = 1u;"),
        ("let x = 7u; u[0] = x & 3u;", "u[0] = 7u;"),
        ("if id.x > 3u { u[1] = 2u; } u[0] = 1u;", "u[0] = 1u;"),
        ("if u[2] > 3u {} u[0] = 1u;", "u[0] = 1u;"),
        ("if id.x > 3u { _ = u[3]; } u[0] = 1u;", "u[0] = 1u;"),
        (
            "if id.x > 3u { workgroupBarrier(); } u[0] = 1u;",
            "u[0] = 1u;",
        ),
        ("if id.x > 3u { return; } u[0] = 1u;", "u[0] = 1u;"),
        (
            "if id.x > 3u { return; } u[1] = 2u;",
            "if id.x > 3u { return; } else { return; } u[1] = 2u;",
        ),
        (
            "if id.x > 3u { u[0] = 1u; return; } u[1] = 2u;",
            "if id.x > 3u { u[0] = 1u; } u[1] = 2u;",
        ),
        (
            "if f[0] > 3.0 {} else { u[0] = 1u; }",
            "if f[0] <= 3.0 { u[0] = 1u; }",
        ),
        (
            "if f[0] > 3.0 {} else { u[0] = 1u; }",
            "if f[0] > 3.0 { u[0] = 1u; }",
        ),
        (
            "const DEBUG = true; if DEBUG { u[1] = 2u; }",
            "const DEBUG = false; if DEBUG { u[1] = 2u; }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { if u[n] == 2u { continue; } u[n] = 1u; }",
            "var n = 0u; loop { if n >= id.x { break; } if u[n] == 2u { continue; } u[n] = 1u; n++; }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { u[n] = 1u; }",
            "var n = 0u; loop { if n > id.x { break; } u[n] = 1u; n++; }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { u[n] = 1u; }",
            "var n = 0u; loop { u[n] = 1u; n++; if n >= id.x { break; } }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { u[n] = 1u; }",
            "var n = 0u; loop { if n >= id.x { break; } n++; u[n] = 1u; }",
        ),
        (
            "var x = f[0]; while x < 3.0 { x *= 2.0; } f[1] = x;",
            "var x = f[0]; loop { if x >= 3.0 { break; } x *= 2.0; } f[1] = x;",
        ),
        (
            "var x = id.x; if id.y > 1u { x = 2u; } u[0] = x;",
            "u[0] = id.x;",
        ),
        (
            "var x: u32; if id.y > 1u { x = 2u; } u[0] = x;",
            "u[0] = 2u;",
        ),
        ("var x: u32; u[0] = x; x = 2u;", "u[0] = 2u;"),
        (
            "var x = u[1]; u[1] = 2u; u[0] = x;",
            "u[1] = 2u; var x = u[1]; u[0] = x;",
        ),
        (
            "var x = 0u; for (var n = 0u; n < 4u; n++) { u[n] = x; x = n; }",
            "for (var n = 0u; n < 4u; n++) { u[n] = n; }",
        ),
        (
            "var x = 0u; for (var n = 0u; n < 4u; n++) { u[n] = x; x = n; }",
            "for (var n = 0u; n < 4u; n++) { u[n] = 0u; }",
        ),
        (
            "var a = array(id.x, id.y); u[0] = a[id.z & 1u];",
            "u[0] = id.y;",
        ),
        (
            "var a = array(id.x, id.y); u[0] = a[0];",
            "var a = array(id.x, id.y); u[0] = a[1];",
        ),
        (
            "var v = id; v.x = 2u; u[0] = v.x;",
            "let v = id; u[0] = v.x;",
        ),
        (
            "var v = id; v.x = 2u; u[0] = v.y;",
            "var v = id; v.y = 2u; u[0] = v.y;",
        ),
        (
            "var x = f[1]; bump(&x); f[0] = x;",
            "var x = f[1]; f[0] = x;",
        ),
        (
            "f[0] = twice(f[1]); f[2] = twice(f[3]);",
            "f[0] = twice(f[1]); f[2] = thrice(f[3]);",
        ),
        (
            "let b = f[0] < f[1]; if b == false { u[0] = 1u; }",
            "let b = f[0] < f[1]; if b == true { u[0] = 1u; }",
        ),
        (
            "let b = f[0] < f[1]; if b == false { u[0] = 1u; }",
            "if f[0] >= f[1] { u[0] = 1u; }",
        ),
        (
            "let b = f[0] == f[1]; if b != true { u[0] = 1u; }",
            "if f[0] == f[1] { u[0] = 1u; }",
        ),
        ("u[0] = u32(i32(id.x));", "u[0] = u32(f32(id.x));"),
        ("f[0] = f32(id.x);", "f[0] = bitcast<f32>(id.x);"),
        ("u[0] = u32(i[0]) / 2u;", "u[0] = u32(i[0] / 2);"),
        (
            "u[0] = dot(vec3(id.x, id.z, id.y), id);",
            "u[0] = dot(id, id);",
        ),
        ("u[0] = dot(vec3(id.xy, id.y), id);", "u[0] = dot(id, id);"),
        ("u[0] = dot(id.zyx.yz, id.xy);", "u[0] = dot(id.yz, id.xy);"),
        (
            "f[0] = length(vec3<f32>() + f[1]);",
            "f[0] = length(vec3(-0.0) + f[1]);",
        ),
        (
            "f[0] = length(vec3(0.0) + f[1]);",
            "f[0] = length(vec3(0.0, 0.0, -0.0) + f[1]);",
        ),
        ("f[0] = f32();", "f[0] = -0.0;"),
        (
            "var v: vec3<f32>; v.x += f[1]; f[0] = v.x;",
            "var v = vec3(0.0, 0.0, 1.0); v.x += f[1]; f[0] = v.x;",
        ),
        (
            "var v: vec3<f32>; v.x += f[1]; f[0] = v.x;",
            "var v = vec3(-0.0); v.x += f[1]; f[0] = v.x;",
        ),
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
        // Rounded, flushed, or signed: not for the compiler of one machine to say.
        ("let x = 0.1; f[0] = x * 3.0;", "f[0] = 0.3;"),
        ("let x = 0.1; f[0] = x * 3.0;", "f[0] = 0.1 * 3.0;"),
        ("let x = 1.0; f[0] = x - 1.0;", "f[0] = 0.0;"),
        ("let x = 1e-38; f[0] = x * 0.125;", "f[0] = 1e-38 * 0.125;"),
        ("let x = 16777216.0; f[0] = x + 1.0;", "f[0] = 16777216.0;"),
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
        // Sizes, and arithmetic that only looks the same.
        ("f[0] = length(vec2(f[1]));", "f[0] = length(vec3(f[1]));"),
        ("f[0] = length(vec3(f[1]));", "f[0] = length(vec4(f[1]));"),
        (
            "f[0] = f[1] * f[2] + f[3];",
            "f[0] = fma(f[1], f[2], f[3]);",
        ),
        ("let x = f[1]; f[0] = x - x;", "let x = f[1]; f[0] = 0.0;"),
        ("let x = f[1]; f[0] = 0.0 - x;", "let x = f[1]; f[0] = -x;"),
        (
            "let x = f[1]; f[0] = select(0.0, 1.0, x == x);",
            "let x = f[1]; f[0] = 1.0;",
        ),
        (
            "let x = f[1]; f[0] = select(0.0, 1.0, !(x == 1.0));",
            "let x = f[1]; f[0] = select(0.0, 1.0, x < 1.0 || x > 1.0);",
        ),
        (
            "let x = f[1]; f[0] = clamp(x, 0.0, 1.0);",
            "let x = f[1]; f[0] = min(max(x, 0.0), 1.0);",
        ),
        (
            "let x = f[1]; f[0] = clamp(x, 0.0, 1.0);",
            "let x = f[1]; f[0] = saturate(x);",
        ),
        ("i[0] = i[1] / 2;", "i[0] = i[1] >> 1u;"),
        ("i[0] = abs(i[1]);", "i[0] = max(i[1], -i[1]);"),
        ("u[0] = u32(f[1]);", "u[0] = u32(i32(f[1]));"),
        // Atomics as operands: their order is the order of memory.
        (
            "u[0] = atomicAdd(&a, 1u) + atomicAdd(&a, 2u);",
            "u[0] = atomicAdd(&a, 2u) + atomicAdd(&a, 1u);",
        ),
        (
            "u[0] = atomicLoad(&a) + atomicAdd(&a, 2u);",
            "u[0] = atomicAdd(&a, 2u) + atomicLoad(&a);",
        ),
        ("u[0] = workgroupUniformLoad(&w[0]);", "u[0] = w[0];"),
        // Which store comes first, and how many there are.
        ("u[0] = 1u; u[1] = 2u;", "u[1] = 2u; u[0] = 1u;"),
        ("u[0] = 1u; u[0] = 2u;", "u[0] = 2u;"),
        (
            "var x = u[0]; u[0] = 1u; u[1] = x;",
            "u[0] = 1u; var x = u[0]; u[1] = x;",
        ),
        (
            "f[0] = twice(f[1]); f[1] = twice(f[0]);",
            "f[1] = twice(f[0]); f[0] = twice(f[1]);",
        ),
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
        // Names that would run together without their lengths.
        "override ab: u32 = 1; override c: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
        "override a: u32 = 1; override bc: u32 = 1; @group(0) @binding(0) var<storage, read_write> b: array<u32>; @compute @workgroup_size(1) fn main() { b[0] = 1u; }",
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
        (
            "u[0] = bitcast<u32>(bitcast<i32>(id.x) + i[1]);",
            "u[0] = u32(i32(id.x) + i[1]);",
        ),
        (
            "let v = bitcast<vec3<i32>>(id); i[0] = v.x;",
            "let v = vec3<i32>(id); i[0] = v.x;",
        ),
        (
            "var a = array(id.x, id.y); let x = a[id.z & 1u]; u[0] = 1u;",
            "u[0] = 1u;",
        ),
        ("let x = 16.0; f[0] = x - 1.0;", "f[0] = 15.0;"),
        (
            "let x = 2.0; for (var n = 0u; n < 4u; n++) { f[n] = x * 0.25; }",
            "for (var n = 0u; n < 4u; n++) { f[n] = 0.5; }",
        ),
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
        ("atomicAdd(&a, 1u);", "let dead = atomicAdd(&a, 1u);"),
        ("_ = twice(1.0);", "let dead = twice(1.0);"),
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
            "if !(id.x != id.y) { u[0] = 1u; }",
            "if id.y == id.x { u[0] = 1u; }",
        ),
        (
            "let same = i[0] == i[1]; if !same { u[0] = 1u; }",
            "if i[0] != i[1] { u[0] = 1u; }",
        ),
        (
            "if !(id.x < 3u) { u[0] = 1u; }",
            "if id.x >= 3u { u[0] = 1u; }",
        ),
        (
            "if !(id.x <= 3u) { u[0] = 1u; }",
            "if id.x > 3u { u[0] = 1u; }",
        ),
        (
            "if !(id.x > 3u) { u[0] = 1u; }",
            "if id.x <= 3u { u[0] = 1u; }",
        ),
        (
            "if any(!(id.xy == id.yz)) { u[0] = 1u; }",
            "if any(id.yz != id.xy) { u[0] = 1u; }",
        ),
        (
            "let x = f[1]; f[0] = length(vec3(x));",
            "let x = f[1]; f[0] = length(vec3(x, x, x));",
        ),
        // Comparisons with what is known.
        (
            "let b = id.x < id.y; if b == true { u[0] = 1u; }",
            "if id.x < id.y { u[0] = 1u; }",
        ),
        (
            "let b = f[0] < f[1]; if false == b { u[0] = 1u; }",
            "if !(f[0] < f[1]) { u[0] = 1u; }",
        ),
        (
            "let b = f[0] < f[1]; if b != true { u[0] = 1u; }",
            "if !(f[0] < f[1]) { u[0] = 1u; }",
        ),
        (
            "if (id.x == id.y) == false { u[0] = 1u; }",
            "if id.x != id.y { u[0] = 1u; }",
        ),
        (
            "if !((f[0] < f[1]) != false) { u[0] = 1u; }",
            "if !(f[0] < f[1]) { u[0] = 1u; }",
        ),
        (
            "if any((id.xy < id.yz) == vec2(true)) { u[0] = 1u; }",
            "if any(id.xy < id.yz) { u[0] = 1u; }",
        ),
        // Conversions to what a value is.
        ("u[0] = u32(id.x);", "u[0] = id.x;"),
        ("u[0] = bitcast<u32>(id.x);", "u[0] = id.x;"),
        ("let x = f[1]; f[0] = f32(x);", "f[0] = f[1];"),
        (
            "let v = vec2(f[1]); f[0] = length(vec2<f32>(v));",
            "f[0] = length(vec2(f[1]));",
        ),
        // Vectors taken apart and put together.
        (
            "u[0] = dot(vec3(id.x, id.y, id.z), id);",
            "u[0] = dot(id, id);",
        ),
        (
            "u[0] = dot(vec3(id.xy, id.z), id.xyz);",
            "u[0] = dot(id, id);",
        ),
        (
            "u[0] = dot(vec2(id.z, id.x), id.xy);",
            "u[0] = dot(id.zx, id.xy);",
        ),
        ("u[0] = dot(id.zyx.yz, id.xy);", "u[0] = dot(id.yx, id.xy);"),
        ("u[0] = dot(id.zzz, id);", "u[0] = dot(vec3(id.z), id);"),
        ("u[0] = id.zyx.x;", "u[0] = id.z;"),
        ("u[0] = vec2(id.y, id.z).y;", "u[0] = id.z;"),
        ("u[0] = vec2(id.y).y;", "u[0] = id.y;"),
        // Exact arithmetic on what is known.
        ("let x = 7u; u[0] = (x & 3u) * id.x;", "u[0] = 3u * id.x;"),
        ("let x = true; u[0] = u32(x) + id.x;", "u[0] = 1u + id.x;"),
        (
            "let x = 7; if x > 8 { u[1] = 2u; } u[0] = 1u;",
            "u[0] = 1u;",
        ),
        // Statements that do nothing, and those that are never executed.
        ("if id.x > 3u {} u[0] = 1u;", "u[0] = 1u;"),
        (
            "if id.x > 3u { let x = id.y * 3u; } else { if id.y > 1u {} } u[0] = 1u;",
            "u[0] = 1u;",
        ),
        (
            "switch id.x { case 1u: {} default: {} } u[0] = 1u;",
            "u[0] = 1u;",
        ),
        ("u[0] = 1u; return; u[1] = 2u;", "u[0] = 1u;"),
        (
            "if id.x > 3u { u[0] = 1u; return; u[1] = 2u; }",
            "if id.x > 3u { u[0] = 1u; return; }",
        ),
        (
            "if id.x > 3u { u[0] = 1u; return; } else { return; } u[1] = 2u;",
            "if id.x > 3u { u[0] = 1u; return; } else { return; }",
        ),
        (
            "for (var n = 0u; n < 4u; n++) { if n > id.x { break; u[2] = 3u; } u[n] = 1u; }",
            "for (var n = 0u; n < 4u; n++) { if n > id.x { break; } u[n] = 1u; }",
        ),
        (
            "const DEBUG = false; if DEBUG { u[1] = 2u; } u[0] = 1u;",
            "u[0] = 1u;",
        ),
        (
            "const DEBUG = true; if DEBUG { u[1] = 2u; } else { u[2] = 3u; } u[0] = 1u;",
            "u[1] = 2u; u[0] = 1u;",
        ),
        (
            "if 1u > 2u { u[1] = u32(twice(1.0)); } u[0] = 1u;",
            "u[0] = 1u;",
        ),
        (
            "var debug = false; if debug { u[1] = 2u; } u[0] = 1u;",
            "u[0] = 1u;",
        ),
        ("if true { u[0] = 1u; return; } u[1] = 2u;", "u[0] = 1u;"),
        // Branches and loops.
        (
            "if id.x > 3u {} else { u[0] = 1u; }",
            "if id.x <= 3u { u[0] = 1u; }",
        ),
        (
            "if f[0] > 3.0 {} else { u[0] = 1u; }",
            "if !(f[0] > 3.0) { u[0] = 1u; }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { u[n] = 1u; }",
            "var n = 0u; while n < id.x { u[n] = 1u; n++; }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { u[n] = 1u; }",
            "var n = 0u; loop { if n >= id.x { break; } u[n] = 1u; n += 1u; }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { u[n] = 1u; }",
            "var n = 0u; loop { if !(n < id.x) { break; } u[n] = 1u; continuing { n++; } }",
        ),
        (
            "var x = f[0]; while x < 3.0 { x *= 2.0; } f[1] = x;",
            "var x = f[0]; loop { if !(x < 3.0) { break; } x *= 2.0; } f[1] = x;",
        ),
        (
            "var n = 0u; loop { u[n] = 1u; continuing { n++; break if n > id.x; } }",
            "var n = 0u; loop { u[n] = 1u; n++; if n > id.x { break; } }",
        ),
        (
            "loop { u[0] += 1u; if u[0] > id.x { return; } }",
            "while true { u[0] += 1u; if u[0] > id.x { return; } }",
        ),
        (
            "for (var n = 0u; n < id.x; n++) { if u[n] == 2u { continue; } u[n] = 1u; }",
            "var n = 0u; loop { if n >= id.x { break; } if u[n] == 2u { continue; } u[n] = 1u; continuing { n++; } }",
        ),
        // Variables that are values.
        (
            "var x = f[1] * 2.0; f[0] = x + x;",
            "let x = f[1] * 2.0; f[0] = x + x;",
        ),
        ("var x = 3u; u[0] = x; u[1] = x;", "u[0] = 3u; u[1] = 3u;"),
        ("var x: u32; u[id.x] = x;", "u[id.x] = 0u;"),
        (
            "var v = id; u[0] = v.y; u[1] = v.z;",
            "u[0] = id.y; u[1] = id.z;",
        ),
        (
            "var v = id; let w = v; u[0] = w.y;",
            "var v = id; u[0] = v.y;",
        ),
        (
            "var x = u[1]; u[1] = 2u; u[0] = x;",
            "let x = u[1]; u[1] = 2u; u[0] = x;",
        ),
        (
            "var x: u32; x = id.x * 2u; u[0] = x;",
            "let x = id.x * 2u; u[0] = x;",
        ),
        (
            "for (var n = 0u; n < 4u; n++) { var x = n * 2u; u[id.x] = x; }",
            "for (var n = 0u; n < 4u; n++) { u[id.x] = n * 2u; }",
        ),
        (
            "var x = id.x; var y = x + 1u; if y > 2u { u[0] = y; }",
            "let y = id.x + 1u; if y > 2u { u[0] = y; }",
        ),
        ("var never = 1.0; never = 2.0; u[0] = 1u;", "u[0] = 1u;"),
        ("var never = u[1]; u[0] = 1u;", "_ = u[1]; u[0] = 1u;"),
        ("var a = array(id.x, id.y); u[0] = a[1];", "u[0] = id.y;"),
        // Functions.
        (
            "f[0] = twice(f[1]); f[2] = twice(f[3]);",
            "f[0] = twice(f[1]); f[2] = twofold(f[3]);",
        ),
        // Zeros.
        (
            "f[0] = length(vec3<f32>() + f[1]);",
            "f[0] = length(vec3(0.0) + f[1]);",
        ),
        (
            "f[0] = length(vec3(0.0, 0.0, 0.0) + f[1]);",
            "f[0] = length(vec3(0.0) + f[1]);",
        ),
        ("f[0] = f32();", "f[0] = 0.0;"),
        ("u[0] = u32() + id.x;", "u[0] = 0u + id.x;"),
        (
            "var v: vec3<f32>; v.x += f[1]; f[0] = v.x;",
            "var v = vec3(0.0); v.x += f[1]; f[0] = v.x;",
        ),
        (
            "var v: vec3<f32>; v.x += f[1]; f[0] = v.x;",
            "var v = vec3<f32>(); v.x += f[1]; f[0] = v.x;",
        ),
        (
            "var v: array<f32, 2>; v[id.x] += f[1]; f[0] = v[1];",
            "var v = array(0.0, 0.0); v[id.x] += f[1]; f[0] = v[1];",
        ),
        (
            "let v = vec2(f[1], f[2]); f[0] = length(vec4(v, v));",
            "let v = vec2(f[1], f[2]); let w = vec4(v, v); f[0] = length(w);",
        ),
        (
            "const X = vec3(2.5, 2.5, 2.5); f[0] = length(X * f32(id.x));",
            "f[0] = length(vec3(2.5, 2.5, 2.5) * f32(id.x));",
        ),
        (
            "const X = vec3(2.5, 2.5, 2.5); f[0] = length(X * f32(id.x));",
            "f[0] = length(vec3(2.5) * f32(id.x));",
        ),
        (
            "var v = vec2(f[1] * 2.0); f[0] = v.y;",
            "let x = f[1]; var v = vec2(x * 2.0, x * 2.0); f[0] = v.y;",
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
    let with_helper = |body: &str| {
        compute(body)
            + "fn id_f() -> f32 { return 1.0; } fn twofold(y: f32) -> f32 { return y * 2.0; }"
    };
    let mut apart = Vec::new();
    for (one, two) in pairs {
        let canonical = |body| canonical(&parse(&with_helper(body)));
        let [a, b] = [one, two].map(canonical);
        if a.to_wire() != b.to_wire() {
            let [a, b] = [a, b].map(|canonical| writers::wgsl(canonical.module()));
            apart.push(format!("{one}\n{two}\n{a}\n{b}"));
        }
    }
    assert!(apart.is_empty(), "{}", apart.join("\n\n"));
}

#[test]
fn sampling_at_the_center_can_be_spelled_out() {
    let member = |varying: &str| render(varying, "@location(0) vec4<f32>", "return vec4(in.x);");
    let argument = |varying: &str| {
        format!("@fragment fn f({varying}) -> @location(0) vec4<f32> {{ return vec4(x); }}")
    };
    let result = |varying: &str| {
        let output = varying.replace("x: f32", "vec4<f32>");
        format!("@fragment fn f() -> {output} {{ return vec4(1.0); }}")
    };
    for shader in [&member as &dyn Fn(&str) -> String, &argument, &result] {
        let key = |interpolation| {
            let varying = format!("@location(0) {interpolation} x: f32");
            let canonical = canonical(&parse(&shader(&varying)));
            (canonical.to_wire(), format!("{:?}", canonical.module()))
        };
        let default = key("");
        assert_eq!(default, key("@interpolate(perspective)"));
        assert_eq!(default, key("@interpolate(perspective, center)"));
        let linear = key("@interpolate(linear)");
        assert_eq!(linear, key("@interpolate(linear, center)"));
        let others = [
            default,
            linear,
            key("@interpolate(perspective, centroid)"),
            key("@interpolate(linear, centroid)"),
            key("@interpolate(flat)"),
            key("@interpolate(flat, first)"),
            key("@interpolate(flat, either)"),
        ];
        for (index, other) in others.iter().enumerate() {
            assert!(!others[..index].contains(other), "{index}");
        }
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
        let main = with.info().unwrap().get_entry_point(0);
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
    assert_eq!(keys.len(), 23);
}

/// Another front end, with another way to lay out expressions and control flow.
#[test]
fn shaders_read_from_spirv_have_one_key_too() {
    let mut read_back = 0;
    for (name, module) in vello() {
        let source = canonical(&module);
        let options = naga::back::spv::Options::default();
        let words =
            naga::back::spv::write_vec(source.module(), source.info().unwrap(), &options, None)
                .unwrap();
        let options = naga::front::spv::Options::default();
        let read = naga::front::spv::Frontend::new(words.into_iter(), &options)
            .parse()
            .unwrap();
        // naga's reader gives some types a layout that its validator then refuses.
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
        if validator.validate(&read).is_err() {
            assert!(read.canonicalize().is_err());
            continue;
        }
        read_back += 1;
        let once = canonical(&read);
        let twice = canonical(once.module());
        assert!(once.to_wire() == twice.to_wire(), "{name}");
    }
    println!("{read_back}");
    assert!(read_back >= 10, "{read_back}");
}

/// How often the canonical main function multiplies.
fn products(body: &str) -> usize {
    let canonical = canonical(&parse(&compute(body)));
    let main = &canonical.module().entry_points[0].function;
    let is_product = |expression: &naga::Expression| matches!(expression, naga::Expression::Binary { op, .. } if *op == naga::BinaryOperator::Multiply);
    let expressions = main.expressions.iter();
    expressions
        .filter(|(_, expression)| is_product(expression))
        .count()
}

/// A `continue` can skip what the body computes, so that `continuing` computes it anew.
#[test]
fn continuing_blocks_share_nothing_with_the_body() {
    let body = "var n = 0u;
        loop {
            if n == 2u { continue; }
            u[n] = id.x * id.y;
            continuing { n += id.x * id.y; break if n > 3u; }
        }";
    assert_eq!(products(body), 2);
    assert_eq!(products("u[0] = id.x * id.y; u[1] = id.y * id.x;"), 1);
    assert_eq!(products("let unused = id.x * id.y;"), 0);
    let outside = "let x = id.x * id.y; for (var n = 0u; n < 4u; n++) { u[n] = x; }";
    let inside = "for (var n = 0u; n < 4u; n++) { u[n] = id.x * id.y; }";
    assert_ne!(key(&compute(outside)), key(&compute(inside)));
    let both = "let x = id.x * id.y; for (var n = 0u; n < 4u; n++) { u[n] = x + id.y * id.x; }";
    assert_eq!(products(both), 1);
}

/// Shaders that use what back ends know by name.
const SPECIAL: [&str; 5] = [
    "@group(0) @binding(0) var<storage, read_write> f: array<f32>;
     @compute @workgroup_size(1) fn main() {
         let m = modf(f[0]); f[1] = m.fract + m.whole;
         let e = frexp(vec2(f[2], f[3])); f[4] = e.fract.x + f32(e.exp.y);
     }",
    "@group(0) @binding(0) var<storage, read_write> a: atomic<i32>;
     @group(0) @binding(1) var<storage, read_write> o: i32;
     @compute @workgroup_size(1) fn main() {
         let r = atomicCompareExchangeWeak(&a, 1, 2);
         if r.exchanged { o = r.old_value; }
     }",
    "enable wgpu_ray_query;
     @group(0) @binding(0) var scene: acceleration_structure;
     @group(0) @binding(1) var<storage, read_write> o: f32;
     @compute @workgroup_size(1) fn main() {
         var query: ray_query;
         rayQueryInitialize(&query, scene,
             RayDesc(0u, 255u, 0.1, 100.0, vec3(0.0), vec3(0.0, 1.0, 0.0)));
         while rayQueryProceed(&query) {}
         let hit = rayQueryGetCommittedIntersection(&query);
         o = hit.t;
     }",
    "@group(0) @binding(0) var image: texture_external;
     @group(0) @binding(1) var image_sampler: sampler;
     @fragment fn main() -> @location(0) vec4<f32> {
         return textureSampleBaseClampToEdge(image, image_sampler, vec2(0.5));
     }",
    "const TABLE = array(1.0, 2.0, 3.0, 4.0);
     var<workgroup> shared_value: u32;
     struct Io { @location(0) a: f32, @location(1) @interpolate(flat) b: vec2<u32> }
     @fragment fn main(in: Io, @builtin(sample_index) sample: u32) -> @location(0) vec4<f32> {
         var sum = 0.0;
         for (var n = in.b.x; n < in.b.y; n++) {
             if n == 7u { continue; }
             sum += TABLE[n & 3u] * in.a;
         }
         switch sample { case 0u, 1u: { sum += 1.0; } default: { discard; } }
         return vec4(sum);
     }",
];

#[test]
fn canonical_modules_compile_wherever_their_sources_do() {
    let special = SPECIAL.iter().map(|source| ("special", parse(source)));
    let mut compiled = 0;
    for (name, module) in vello().into_iter().chain(special) {
        let canonical = canonical(&module);
        let canonical = (canonical.module(), canonical.info().unwrap());
        compiled += writers::compiled(name, &module, canonical);
    }
    // 23 shaders to five targets, and the special ones to what naga supports.
    assert!(compiled >= 125, "{compiled}");
}

#[test]
fn respelled_vello_shaders_share_their_keys() {
    for (name, module) in vello() {
        let respelled = canonical(&respelled(&module));
        assert!(
            canonical(&module).to_wire() == respelled.to_wire(),
            "{name}"
        );
    }
}

/// What no source language can say is still told apart.
mod by_hand {
    use super::*;
    use naga::{
        Arena, Block, ConservativeDepth, EarlyDepthTest, Expression, Handle, Literal, Span,
        Statement, SwitchCase, SwitchValue,
    };

    const STORE: &str = "@group(0) @binding(0) var<storage, read_write> f: f32;
        @compute @workgroup_size(1) fn main() { f = 1.0; }";

    fn with_literal(literal: Literal) -> Module {
        let mut module = parse(STORE);
        let expressions = &mut module.entry_points[0].function.expressions;
        for (_, expression) in expressions.iter_mut() {
            if matches!(expression, Expression::Literal(_)) {
                *expression = Expression::Literal(literal);
            }
        }
        module
    }

    #[test]
    fn literals_differ_by_their_bits() {
        let bits = [0, 1, 1 << 31, 0x3f80_0000, 0x3f80_0001];
        let mut keys: Vec<_> = bits
            .map(|bits| Literal::F32(f32::from_bits(bits)))
            .map(|literal| canonical(&with_literal(literal)).fingerprint())
            .into();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), bits.len());
        // naga refuses a literal NaN or infinity, and with it the whole module.
        for literal in [f32::NAN, f32::INFINITY] {
            assert!(with_literal(Literal::F32(literal)).canonicalize().is_err());
        }
    }

    #[test]
    fn early_depth_tests_differ() {
        let allow = |conservative| Some(EarlyDepthTest::Allow { conservative });
        let tests = [
            None,
            Some(EarlyDepthTest::Force),
            allow(ConservativeDepth::GreaterEqual),
            allow(ConservativeDepth::LessEqual),
            allow(ConservativeDepth::Unchanged),
        ];
        let mut keys: Vec<_> = tests
            .map(|test| {
                let mut module = parse("@fragment fn main() {}");
                module.entry_points[0].early_depth_test = test;
                canonical(&module).fingerprint()
            })
            .into();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), tests.len());
    }

    #[test]
    fn falling_through_differs_from_breaking() {
        let switch = |fall_through| {
            let mut module = parse(STORE);
            let main = &mut module.entry_points[0].function;
            let selector = Expression::Literal(Literal::I32(1));
            let selector = main.expressions.append(selector, Span::UNDEFINED);
            let store = std::mem::take(&mut main.body);
            let case = |value, body, fall_through| SwitchCase {
                value,
                body,
                fall_through,
            };
            let cases = vec![
                case(SwitchValue::I32(1), Block::new(), fall_through),
                case(SwitchValue::Default, store, false),
            ];
            let switch = Statement::Switch { selector, cases };
            main.body.push(switch, Span::UNDEFINED);
            canonical(&module).fingerprint()
        };
        assert_ne!(switch(true), switch(false));
    }

    /// A block that nests blocks, to a depth.
    fn nested(depth: usize, wrap: impl Fn(Block) -> Statement) -> Module {
        let mut module = parse("@compute @workgroup_size(1) fn main() {}");
        let mut block = Block::new();
        for _ in 1..depth {
            block = Block::from_vec(vec![wrap(block)]);
        }
        module.entry_points[0].function.body = block;
        module
    }

    #[test]
    fn nesting_is_bounded_and_not_the_stack() {
        let wraps: [fn(Block) -> Statement; 2] = [Statement::Block, |body| Statement::Loop {
            body,
            continuing: Block::new(),
            break_if: None,
        }];
        for wrap in wraps {
            assert!(nested(MAX_NESTING, wrap).canonicalize().is_ok());
            let error = nested(MAX_NESTING + 1, wrap).canonicalize().unwrap_err();
            assert_eq!(error.reason(), "blocks nest deeper than 1000");
        }
    }

    #[test]
    fn a_long_expression_needs_no_stack() {
        let mut module = parse(STORE);
        let main = &mut module.entry_points[0].function;
        let (sum, one) = chain(&mut main.expressions, 20_000);
        let pointer = main
            .expressions
            .iter()
            .find(|(_, expression)| matches!(expression, Expression::GlobalVariable(_)))
            .unwrap()
            .0;
        let _ = one;
        let emitted = naga::Range::new_from_bounds(one, sum);
        main.body = Block::from_vec(vec![
            Statement::Emit(emitted),
            Statement::Store {
                pointer,
                value: sum,
            },
        ]);
        canonical(&module);
    }

    /// A literal negated many times over: the last and the first of the negations.
    fn chain(
        expressions: &mut Arena<Expression>,
        length: usize,
    ) -> (Handle<Expression>, Handle<Expression>) {
        let literal = Expression::Literal(Literal::F32(1.0));
        let mut last = expressions.append(literal, Span::UNDEFINED);
        let mut first = None;
        for _ in 0..length {
            let negation = Expression::Unary {
                op: naga::UnaryOperator::Negate,
                expr: last,
            };
            last = expressions.append(negation, Span::UNDEFINED);
            first.get_or_insert(last);
        }
        (last, first.unwrap())
    }

    /// Two plain blocks, between them a store, and in each the same load.
    #[test]
    fn a_load_that_two_blocks_evaluate_is_not_shared() {
        let mut module = parse(
            "@group(0) @binding(0) var<storage, read_write> f: array<f32, 4>;
             @compute @workgroup_size(1) fn main() { f[1] = f[0] * 2.0; }",
        );
        let body = &mut module.entry_points[0].function.body;
        let once = Block::from_vec(body.iter().take(body.len() - 1).cloned().collect());
        *body = Block::from_vec(vec![Statement::Block(once.clone()), Statement::Block(once)]);
        validate(&module);
        let error = module.canonicalize().unwrap_err();
        assert_eq!(error.reason(), "two blocks evaluate one expression");
    }

    fn stored_value(body: &mut Block) -> &mut Handle<Expression> {
        let store = body.iter_mut().find_map(|statement| match statement {
            Statement::Store { value, .. } => Some(value),
            _ => None,
        });
        store.unwrap()
    }

    #[test]
    fn what_is_invalid_has_no_key() {
        let mut unemitted = parse(STORE);
        let main = &mut unemitted.entry_points[0].function;
        let (sum, _) = chain(&mut main.expressions, 1);
        *stored_value(&mut main.body) = sum;
        // A handle of another module's arena, out of range in this one.
        let mut stray = parse(STORE);
        let far = chain(&mut Arena::new(), 100).0;
        *stored_value(&mut stray.entry_points[0].function.body) = far;
        let mut no_type = parse(STORE);
        no_type.types.clear();
        for module in [unemitted, stray, no_type] {
            let error = module.canonicalize().unwrap_err();
            assert!(
                error
                    .reason()
                    .starts_with("naga finds the module invalid: "),
                "{error}"
            );
        }
    }

    /// Two functions in the other order, with globals, constants and types in front of them.
    #[test]
    fn the_order_of_arenas_does_not_count() {
        let source = |module: &mut Module| {
            let mut globals: Vec<_> = module.global_variables.drain().map(|(_, g, _)| g).collect();
            globals.reverse();
            let last = globals.len() - 1;
            let mut handles = Vec::new();
            for global in globals {
                handles.push(module.global_variables.append(global, Span::UNDEFINED));
            }
            let functions = module.functions.iter_mut().map(|(_, function)| function);
            let mains = module
                .entry_points
                .iter_mut()
                .map(|entry| &mut entry.function);
            for function in functions.chain(mains) {
                for (_, expression) in function.expressions.iter_mut() {
                    if let Expression::GlobalVariable(global) = expression {
                        *global = handles[last - global.index()];
                    }
                }
            }
            module.entry_points.reverse();
        };
        for (name, module) in vello() {
            let mut shuffled = module.clone();
            source(&mut shuffled);
            assert!(
                canonical(&module).to_wire() == canonical(&shuffled).to_wire(),
                "{name}"
            );
        }
    }
}

/// Every stored artifact of a shader hangs on this. If it fails, raise `SCHEMA`.
#[test]
fn golden_fingerprint() {
    let source = "@group(0) @binding(0) var<storage, read_write> data: array<u32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            data[id.x] = data[id.x] * 2u + 1u;
        }";
    assert_eq!(
        key(source).to_hex(),
        "8765231f5b9162c491cb8a3f2adf4415cfb30a626fe031fd743ac4a0083d3d45"
    );
}

/// naga's WGSL writer names payloads in attributes as the module does, and at their declaration as
/// it likes: the names of the canonical module must survive that.
#[test]
fn payloads_of_mesh_shaders_can_be_written() {
    let source = "
        enable wgpu_mesh_shader;
        struct Payload { mask: vec4<f32>, visible: bool }
        var<task_payload> payload: Payload;
        struct Vertex { @builtin(position) position: vec4<f32>, @location(0) color: vec4<f32> }
        struct Primitive {
            @builtin(triangle_indices) indices: vec3<u32>,
            @builtin(cull_primitive) cull: bool,
            @per_primitive @location(1) mask: vec4<f32>,
        }
        struct Output {
            @builtin(vertices) vertices: array<Vertex, 3>,
            @builtin(primitives) primitives: array<Primitive, 1>,
            @builtin(vertex_count) vertex_count: u32,
            @builtin(primitive_count) primitive_count: u32,
        }
        var<workgroup> output: Output;
        @task @payload(payload) @workgroup_size(1)
        fn task() -> @builtin(mesh_task_size) vec3<u32> {
            payload.mask = vec4(1.0, 1.0, 0.0, 1.0);
            payload.visible = true;
            return vec3(1u, 1u, 1u);
        }
        @mesh(output) @payload(payload) @workgroup_size(1)
        fn mesh() {
            output.vertex_count = 3u;
            output.primitive_count = 1u;
            output.vertices[0].position = vec4(0.0, 1.0, 0.0, 1.0);
            output.vertices[0].color = vec4(1.0) * payload.mask;
            output.primitives[0].indices = vec3<u32>(0u, 1u, 2u);
            output.primitives[0].cull = !payload.visible;
            output.primitives[0].mask = vec4<f32>(1.0, 0.0, 1.0, 1.0);
        }";
    let module = parse(source);
    let renamed = source
        .replace("payload", "other7")
        .replace("output", "result1");
    let renamed = parse(
        &renamed
            .replace("task_other7", "task_payload")
            .replace("@other7", "@payload"),
    );
    let key = |module: &Module| PipelineFingerprint::of(module).unwrap();
    assert_eq!(key(&module), key(&renamed));
    let canonical = canonical(&module);
    assert_eq!(key(canonical.module()), key(&module));
    assert_eq!(key(&respelled(canonical.module())), key(&module));
}

/// Whoever imports a library calls its functions by their names.
#[test]
fn a_module_without_an_entry_point_is_keyed_by_its_functions() {
    let one = "struct Pair { a: f32, b: f32 }
        fn sum(pair: Pair) -> f32 { return pair.a + pair.b; }
        fn twice(x: f32) -> f32 { return sum(Pair(x, x)); }";
    let respelled = "const NEVER = 3u; struct Two { x: f32, y: f32 }
        fn twice(y: f32) -> f32 { let both = Two(y, y); return sum(both); }
        fn sum(two: Two) -> f32 { return two.x + two.y; }";
    assert_eq!(key(one), key(respelled));
    let canonical = canonical(&parse(one));
    let functions = canonical.module().functions.iter();
    let names: Vec<_> = functions.map(|(_, it)| it.name.as_deref()).collect();
    assert_eq!(names, [Some("sum"), Some("twice")]);
    assert_eq!(
        PipelineFingerprint::of(canonical.module()).unwrap(),
        key(one)
    );

    let others = [
        one,
        "fn f(x: f32) -> f32 { return x + 1.0; }",
        "fn f(x: f32) -> f32 { return x + 2.0; }",
        "fn g(x: f32) -> f32 { return x + 1.0; }",
        "fn f(x: f32) -> f32 { return x + 1.0; } fn g() {}",
        "fn f(x: f32) -> f32 { return x + 1.0; } @compute @workgroup_size(1) fn g() {}",
        "@group(0) @binding(0) var<uniform> u: f32;
         fn f(x: f32) -> f32 { _ = u; return x + 1.0; }",
        "@group(0) @binding(1) var<uniform> u: f32;
         fn f(x: f32) -> f32 { _ = u; return x + 1.0; }",
        "override o: f32 = 1.0; fn f(x: f32) -> f32 { return x + 1.0; }",
    ];
    let mut keys: Vec<_> = others.iter().map(|source| key(source)).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), others.len());
}

/// A divisor or a shift that settles can be one that naga refuses as a literal.
#[test]
fn what_is_refused_once_it_settles_is_not_cached() {
    let cases = [
        ("var k = 0u; u[0] = u[1] / k;", false),
        ("var k = 0u; u[0] = u[1] % k;", false),
        ("var k = 0i; i[0] = i[1] / k;", false),
        ("var k = 32u; u[0] = u[1] << k;", false),
        ("var k = 32u; u[0] = u[1] >> k;", false),
        ("var k = 1u; u[0] = u[1] / k;", true),
        ("var k = 31u; u[0] = u[1] << k;", true),
    ];
    for (body, is_cached) in cases {
        let source = parse(&compute(body));
        validate(&source);
        let canonical = source.canonicalize().unwrap();
        assert_eq!(canonical.check().is_ok(), is_cached, "{body}");
    }
}

#[test]
fn a_module_that_offers_nothing_has_no_key() {
    for source in [
        "",
        "override scale = 1.0;",
        "const X = 1.0; struct S { x: f32 }",
    ] {
        let reason = PipelineFingerprint::of(&parse(source)).unwrap_err();
        let expected = "the module has neither an entry point nor a function";
        assert_eq!(reason.reason(), expected, "{source}");
    }
    // naga's other front ends may leave out names.
    let source = "fn f() {} fn g() {}";
    for name in [None, Some("f")] {
        let mut module = parse(source);
        for (_, function) in module.functions.iter_mut() {
            function.name = name.map(str::to_owned);
        }
        let reason = PipelineFingerprint::of(&module).unwrap_err();
        assert!(reason.reason().ends_with("a name of its own"), "{reason}");
    }
}

/// Different entry points may use different variables at one binding.
#[test]
fn the_order_of_variables_at_one_binding_does_not_count() {
    let mains = "@compute @workgroup_size(1) fn first() { a[0] = 1u; }
        @compute @workgroup_size(1) fn second() { b[0] = 2u; }
        @compute @workgroup_size(1) fn third() { a[0] = c[0]; }";
    let variables = [
        "@group(0) @binding(0) var<storage, read_write> a: array<u32>;",
        "@group(0) @binding(0) var<storage, read_write> b: array<u32>;",
        "@group(0) @binding(1) var<storage, read> c: array<u32>;",
        "@group(0) @binding(1) var<uniform> d: vec4<u32>;",
        "@compute @workgroup_size(1) fn fourth() { b[0] = d.x; }",
    ];
    let forwards = variables.concat() + mains;
    let backwards: String = variables.iter().rev().copied().collect();
    assert_eq!(key(&forwards), key(&(backwards + mains)));
    assert_ne!(
        key(&forwards),
        key(&forwards.replace("a[0] = c", "a[0] = 7u + c"))
    );
}

#[test]
fn plain_code_meets_no_limit() {
    for arms in [48, 300] {
        let arms: String = (0..arms)
            .map(|n| format!("if id.x == {n}u {{ u[0] = {n}u; }} else "))
            .collect();
        let source = compute(&format!("{arms} {{ u[0] = 0u; }}"));
        // naga's front end needs more stack than a thread has by default. A key does not.
        let parser = std::thread::Builder::new().stack_size(256 << 20);
        let module = parser.spawn(move || parse(&source)).unwrap().join();
        canonical(&module.unwrap()).to_wire();
    }
    for length in [25, 300] {
        let chain: String = (0..length)
            .map(|n| format!("override o{}: u32 = o{n} + 1u;", n + 1))
            .collect();
        let source = format!("override o0: u32; {chain}") + &compute(&format!("u[0] = o{length};"));
        canonical(&parse(&source));
    }
}

/// What many branches share is computed before them, so that an artifact is not many times the
/// source's.
#[test]
fn what_branches_share_is_computed_once() {
    let words = |module: &Module, info: &naga::valid::ModuleInfo| {
        let options = naga::back::spv::Options {
            flags: naga::back::spv::WriterFlags::empty(),
            ..Default::default()
        };
        naga::back::spv::write_vec(module, info, &options, None)
            .unwrap()
            .len()
    };
    for (lets, branches) in [(60, 20), (300, 40)] {
        let chain: String = (0..lets)
            .map(|n| format!("let s{} = s{n} * s{n} + {n}u;", n + 1))
            .collect();
        let ends: String = (0..branches)
            .map(|n| format!("if u[{n}] == 0u {{ u[{n}] = s{lets}; }}"))
            .collect();
        let source = parse(&compute(&format!("let s0 = u[0]; {chain} {ends}")));
        let canonical = canonical(&source);
        let of_source = words(&source, &validate(&source));
        let of_canonical = words(canonical.module(), canonical.info().unwrap());
        println!("{lets} lets, {branches} branches: {of_source} and {of_canonical} words");
        assert!(of_canonical <= of_source * 11 / 10);
    }
    let large = "f32(id.x) * 2.0 + f32(id.y) * 3.0 + f32(id.z) * 4.0";
    // Before both branches, wherever the source computes it.
    let before = format!("let x = {large}; if id.x > 1u {{ f[0] = x; }} else {{ f[1] = x; }}");
    let inside = format!("if id.x > 1u {{ f[0] = {large}; }} else {{ f[1] = {large}; }}");
    assert_eq!(key(&compute(&before)), key(&compute(&inside)));
    assert_eq!(products(&before), 3);
    // In the one branch that needs it.
    let one = format!("let x = {large}; if id.x > 1u {{ f[0] = x; }}");
    let other = format!("if id.x > 1u {{ let x = {large}; f[0] = x; }}");
    assert_eq!(key(&compute(&one)), key(&compute(&other)));
    // Not before the branch that keeps it from dividing by zero.
    let divided = format!("u32({large}) / id.y");
    let guarded = format!(
        "if id.y != 0u {{ u[0] = {divided}; }} if id.y != 0u && id.x > 1u {{ u[1] = {divided}; }}"
    );
    let canonical = canonical(&parse(&compute(&guarded)));
    let main = &canonical.module().entry_points[0].function;
    let divisions = main.expressions.iter().filter(|(_, expression)| {
        matches!(expression, naga::Expression::Binary { op, .. } if *op == naga::BinaryOperator::Divide)
    });
    assert_eq!(divisions.count(), 2);
}

/// Where the words of the canonical SPIR-V have their first product and their first discard.
fn product_and_discard(source: &str) -> (usize, usize) {
    const VECTOR_TIMES_SCALAR: u32 = 142;
    const KILL: u32 = 252;
    let canonical = canonical(&parse(source));
    let options = naga::back::spv::Options::default();
    let info = canonical.info().unwrap();
    let words = naga::back::spv::write_vec(canonical.module(), info, &options, None).unwrap();
    let mut opcodes = Vec::new();
    let mut at = 5;
    while at < words.len() {
        opcodes.push(words[at] & 0xffff);
        at += (words[at] >> 16) as usize;
    }
    let first = |wanted| opcodes.iter().position(|opcode| *opcode == wanted).unwrap();
    (first(VECTOR_TIMES_SCALAR), first(KILL))
}

/// A target may stop the invocations that have discarded. What derivatives compare with them is
/// computed before, where the source computes it before.
#[test]
fn what_a_derivative_compares_stays_on_its_side_of_a_discard() {
    let shader = |body: &str| {
        format!(
            "@group(0) @binding(0) var t: texture_2d<f32>;
             @group(0) @binding(1) var s: sampler;
             fn sampled(at: vec2<f32>) -> vec4<f32> {{ return textureSample(t, s, at); }}
             fn stop(a: f32) {{ if a < 0.5 {{ discard; }} }}
             @fragment
             fn main(@location(0) uv: vec2<f32>, @location(1) a: f32) -> @location(0) vec4<f32> {{
                 {body}
             }}"
        )
    };
    let pairs = [
        (
            "let c = uv * 4.0; if a < 0.5 { discard; } return textureSample(t, s, c);",
            "if a < 0.5 { discard; } let c = uv * 4.0; return textureSample(t, s, c);",
        ),
        (
            "let c = uv * 4.0; if a < 0.5 { discard; } return sampled(c);",
            "if a < 0.5 { discard; } return sampled(uv * 4.0);",
        ),
        (
            "let c = uv * 4.0; if a < 0.5 { discard; } return vec4(dpdx(c.x));",
            "if a < 0.5 { discard; } return vec4(dpdx((uv * 4.0).x));",
        ),
        (
            "let c = uv * 4.0; if a < 0.5 { if a > 0.1 { discard; } } return textureSample(t, s, c);",
            "if a < 0.5 { if a > 0.1 { discard; } } return textureSample(t, s, uv * 4.0);",
        ),
    ];
    for (before, after) in pairs {
        let (before, after) = (shader(before), shader(after));
        assert_ne!(key(&before), key(&after), "{before}");
        let (product, discard) = product_and_discard(&before);
        assert!(product < discard, "{before}");
        let (product, discard) = product_and_discard(&after);
        assert!(discard < product, "{after}");
        for source in [&before, &after] {
            let canonical = canonical(&parse(source));
            let again = PipelineFingerprint::of(canonical.module()).unwrap();
            assert_eq!(again, key(source), "{source}");
        }
    }
    // By what a called function does.
    let before = shader("let c = uv * 4.0; stop(a); return textureSample(t, s, c);");
    let after = shader("stop(a); return textureSample(t, s, uv * 4.0);");
    assert_ne!(key(&before), key(&after));
    // Into a branch. naga takes it for non-uniform, so that a filter has to allow it.
    let filter = "diagnostic(off, derivative_uniformity);";
    let branch = |first: &str, second: &str| {
        let body = format!(
            "{first} if a < 0.5 {{ {second} return textureSample(t, s, c); }} return vec4(0.0);"
        );
        key(&format!("{filter} {}", shader(&body)))
    };
    let product = "let c = uv * 4.0;";
    assert_ne!(branch(product, ""), branch("", product));
    // Nothing is compared: the place does not matter.
    let before =
        "let c = uv * 4.0; if a < 0.5 { discard; } return textureLoad(t, vec2<i32>(c), 0);";
    let after = "if a < 0.5 { discard; } return textureLoad(t, vec2<i32>(uv * 4.0), 0);";
    assert_eq!(key(&shader(before)), key(&shader(after)));
    let explicit = "return textureSampleLevel(t, s, uv * 4.0, 0.0);";
    let before = format!("let c = uv * 4.0; if a < 0.5 {{ discard; }} {explicit}");
    let after = format!("if a < 0.5 {{ discard; }} {explicit}");
    assert_eq!(key(&shader(&before)), key(&shader(&after)));
    // Neighbours do not part in between.
    let before =
        "let c = uv * 4.0; var x = 0.0; if a < 0.5 { x = 1.0; } return textureSample(t, s, c) * x;";
    let after = "var x = 0.0; if a < 0.5 { x = 1.0; } return textureSample(t, s, uv * 4.0) * x;";
    assert_eq!(key(&shader(before)), key(&shader(after)));
}

/// A filter lets a shader be non-uniform. What its canonical form is compiled with must let it.
#[test]
fn a_diagnostic_filter_around_a_derivative_is_kept() {
    use naga::diagnostic_filter::Severity;

    let shader = |directive: &str, attribute: &str, level: &str| {
        format!(
            "{directive}
             @group(0) @binding(0) var image: texture_2d<f32>;
             @group(0) @binding(1) var image_sampler: sampler;
             {attribute} fn sampled(at: vec2<f32>) -> vec4<f32> {{
                 return textureSample{level};
             }}
             @fragment fn main(@location(0) at: vec2<f32>) -> @location(0) vec4<f32> {{
                 return sampled(at);
             }}"
        )
    };
    let implicit = "(image, image_sampler, at)";
    let explicit = "Level(image, image_sampler, at, 0.0)";
    let off = "diagnostic(off, derivative_uniformity);";
    let plain = key(&shader("", "", implicit));
    let filtered = key(&shader(off, "", implicit));
    assert_ne!(plain, filtered);
    let attribute = "@diagnostic(off, derivative_uniformity)";
    assert_eq!(filtered, key(&shader("", attribute, implicit)));
    let warning = "@diagnostic(warning, derivative_uniformity)";
    assert_ne!(filtered, key(&shader(off, warning, implicit)));
    let error = "@diagnostic(error, derivative_uniformity)";
    assert_eq!(plain, key(&shader(off, error, implicit)));
    assert_eq!(
        key(&shader(off, "", explicit)),
        key(&shader("", "", explicit))
    );

    let only_with_it = format!(
        "{off} @fragment fn main(@location(0) x: f32) -> @location(0) f32 {{
             if x > 1.0 {{ return dpdx(x); }} return 0.0;
         }}"
    );
    let canonical = canonical(&parse(&only_with_it));
    let module = canonical.module();
    let leaf = module.entry_points[0]
        .function
        .diagnostic_filter_leaf
        .unwrap();
    assert_eq!(
        module.diagnostic_filters[leaf].inner.new_severity,
        Severity::Off
    );
    validate(module);
    assert_eq!(PipelineFingerprint::of(module).unwrap(), key(&only_with_it));
}

/// Who has validated a module pays for that once.
#[test]
fn a_validated_module_has_the_key_of_the_bare_one() {
    for (name, module) in vello() {
        let bare = canonical(&module).to_wire();
        let capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
        let validated = ValidatedModule::new(module, capabilities).unwrap();
        let canonical = validated.canonicalize().unwrap();
        assert!(canonical.to_wire() == bare, "{name}");
        assert!(canonical.info().is_ok(), "{name}");
    }
    let f16 = "enable f16; @compute @workgroup_size(1) fn main() { var x = 1h; }";
    let error = ValidatedModule::new(parse(f16), Capabilities::empty()).unwrap_err();
    assert!(matches!(error, InvalidModule::Invalid { .. }), "{error}");
    assert!(ValidatedModule::new(parse(f16), Capabilities::SHADER_FLOAT16).is_ok());
}

/// What a pipeline sets is set in the canonical module with the same result as in the source.
#[test]
fn overrides_can_be_set_in_the_canonical_module() {
    use naga::back::PipelineConstants;
    use naga::back::pipeline_constants::process_overrides;

    let source = parse(
        "override width: u32 = 4;
         @id(7) override scale: f32;
         override area: u32 = width * (width + 1u);
         override flag: bool = true;
         override unused: i32 = -3;
         override group = width * 2;
         var<workgroup> cells: array<f32, area>;
         @group(0) @binding(0) var<storage, read_write> f: array<f32>;
         @compute @workgroup_size(width, group)
         fn main(@builtin(local_invocation_index) at: u32) {
             cells[at % area] = scale * f32(width);
             if flag { f[at] = cells[0] + f32(area); }
         }",
    );
    let canonical = canonical(&source);
    let constants = |pairs: &[(&str, f64)]| -> PipelineConstants {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    };
    let sets = [
        constants(&[("7", 0.5)]),
        constants(&[("7", 2.0), ("width", 3.0)]),
        constants(&[("7", 2.0), ("width", 8.0), ("flag", 0.0), ("unused", 1.0)]),
        constants(&[("7", 2.0), ("area", 5.0), ("group", 1.0)]),
    ];
    for constants in sets {
        let set = |module: &Module, info: &naga::valid::ModuleInfo| {
            let (module, info) = process_overrides(module, info, None, &constants).unwrap();
            validate(&module);
            let options = naga::back::spv::Options {
                flags: naga::back::spv::WriterFlags::empty(),
                ..Default::default()
            };
            let words = naga::back::spv::write_vec(&module, &info, &options, None).unwrap();
            (PipelineFingerprint::of(&*module).unwrap(), words.len())
        };
        let from_source = set(&source, &validate(&source));
        let from_canonical = set(canonical.module(), canonical.info().unwrap());
        assert_eq!(from_source.0, from_canonical.0, "{constants:?}");
        assert!(from_canonical.1 <= from_source.1, "{constants:?}");
    }
    let missing = process_overrides(
        canonical.module(),
        canonical.info().unwrap(),
        None,
        &PipelineConstants::default(),
    );
    assert!(missing.is_err(), "an override without a value");
}
