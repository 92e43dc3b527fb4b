//! Every field of a canonical shader counts: changed alone, it changes the key, or leaves no valid
//! shader, or stands on a list with the reason why it does not count.

use super::support::parts;
use std::collections::{BTreeMap, BTreeSet};

use naga::Module;
use pipeline_cache::{PipelineFingerprint, Program as _, ToWire as _};

use parts::Part as _;

/// Between them, most of what shaders hold.
const SHADERS: [&str; 11] = [
    "override size: u32 = 4; @id(7) override scale: f32; override twice = 2 * scale;
     struct Settings { count: u32, @align(16) offset: vec3<i32>, m: mat2x3<f32> }
     struct Out { total: atomic<u32>, pad: u32, items: array<vec4<f32>> }
     @group(0) @binding(0) var<uniform> settings: Settings;
     @group(0) @binding(1) var<storage, read_write> out: Out;
     @group(1) @binding(0) var<storage, read> words: array<i32, 5>;
     var<workgroup> shared_words: array<u32, size>;
     var<private> state: vec2<f32> = vec2(1.0, -0.0);
     const TABLE = array(1.5, 2.5, 3.5);
     fn helper(x: f32, p: ptr<function, u32>) -> vec2<f32> { *p += 1u; return state * x; }
     @compute @workgroup_size(size, 2, 1)
     fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) at: u32) {
         var n = 3u;
         var local: array<i32, 3>;
         shared_words[at & 3u] = id.x;
         workgroupBarrier();
         storageBarrier();
         let h = helper(scale + twice, &n);
         state = h;
         local[id.y % 3u] = words[id.x & 3u] - settings.offset.y;
         for (var i = 0; i < 4; i++) { if i == 2 { continue; } local[1] += i; if local[0] > 9 { break; } }
         switch local[0] { case 1, -2: { n = 5u; } case 7: { n = 6u; } default: {} }
         if n > 4u && id.z != 0u { atomicAdd(&out.total, n); return; } else { n <<= 2u; }
         out.items[id.x] = vec4(h.yx, TABLE[n % 3u], f32(arrayLength(&out.items)));
         let v = settings.m * vec2(1.0, h.x);
         out.items[1] = select(vec4(v, 1.0), vec4(0.5), vec4(v.x > 1.0)) * out.items[2].wzyx;
         out.pad = bitcast<u32>(v.z) | u32(any(v.xy < v.yz)) | shared_words[0];
     }",
    "@group(0) @binding(0) var<storage, read_write> f: array<f32, 16>;
     @compute @workgroup_size(1) fn main() {
         let m = modf(f[0]); f[1] = m.fract + m.whole;
         let e = frexp(vec2(f[2], f[3])); f[4] = e.fract.x + f32(e.exp.y);
         f[5] = fma(f[1], clamp(f[2], 0.0, 1.0), -min(f[3], f[4])) / max(f[5], f[6]);
         f[6] = dot(vec3(f[0]), vec3(f[1], f[2], f[3])) % f[4];
     }",
    "@group(0) @binding(0) var<storage, read_write> a: array<atomic<i32>, 4>;
     @compute @workgroup_size(1) fn main() {
         let r = atomicCompareExchangeWeak(&a[0], 1, 2);
         if !r.exchanged { atomicStore(&a[1], atomicLoad(&a[2])); }
         atomicSub(&a[1], 1); atomicAnd(&a[1], 2); atomicOr(&a[1], 3); atomicXor(&a[1], 4);
         atomicMin(&a[1], 5); atomicMax(&a[1], r.old_value); atomicStore(&a[3], atomicExchange(&a[1], ~7));
     }",
    "enable wgpu_ray_query;
     @group(0) @binding(0) var scene: acceleration_structure;
     @group(0) @binding(1) var<storage, read_write> o: f32;
     @compute @workgroup_size(1) fn main() {
         var query: ray_query;
         rayQueryInitialize(&query, scene,
             RayDesc(0u, 255u, 0.1, 100.0, vec3(0.0), vec3(0.0, 1.0, 0.0)));
         while rayQueryProceed(&query) {
             let candidate = rayQueryGetCandidateIntersection(&query);
             if candidate.t > 1.0 { rayQueryGenerateIntersection(&query, 3.0); }
             else if candidate.t > 2.0 { rayQueryConfirmIntersection(&query); }
             else { rayQueryTerminate(&query); }
         }
         let hit = rayQueryGetCommittedIntersection(&query);
         o = hit.t;
     }",
    "@group(0) @binding(0) var image: texture_external;
     @group(0) @binding(1) var image_sampler: sampler;
     @fragment fn main() -> @location(0) vec4<f32> {
         return textureSampleBaseClampToEdge(image, image_sampler, vec2(0.5));
     }",
    "struct Varying {
         @builtin(position) @invariant position: vec4<f32>,
         @location(0) @interpolate(linear, centroid) uv: vec2<f32>,
         @location(1) @interpolate(flat) layer: u32,
     }
     @vertex fn vertex(@builtin(vertex_index) index: u32, @location(3) at: vec2<f32>) -> Varying {
         return Varying(vec4(at, 0.0, f32(index)), at, index);
     }
     @group(0) @binding(0) var image: texture_2d_array<f32>;
     @group(0) @binding(1) var image_sampler: sampler;
     @group(0) @binding(2) var shadow: texture_depth_2d;
     @group(0) @binding(3) var shadow_sampler: sampler_comparison;
     @group(0) @binding(4) var samples: texture_multisampled_2d<f32>;
     struct Pixel { @location(0) color: vec4<f32>, @builtin(frag_depth) depth: f32 }
     @fragment fn fragment(in: Varying, @builtin(sample_index) sample: u32) -> Pixel {
         var color = textureSample(image, image_sampler, in.uv, in.layer, vec2(1, 0));
         color += textureSampleLevel(image, image_sampler, in.uv, in.layer, 1.0);
         color += textureSampleBias(image, image_sampler, in.uv, in.layer, 0.5);
         color += textureSampleGrad(image, image_sampler, in.uv, in.layer, dpdx(in.uv), dpdyFine(in.uv));
         color += textureGather(1, image, image_sampler, in.uv, in.layer);
         color += textureLoad(image, vec2(1, 2), 0, 1) + textureLoad(samples, vec2(1, 2), sample);
         let lit = textureSampleCompare(shadow, shadow_sampler, in.uv, 0.5);
         if lit < 0.1 { discard; }
         let size = textureDimensions(image, 1) + textureDimensions(shadow);
         let counts = textureNumLayers(image) + textureNumLevels(image) + textureNumSamples(samples);
         return Pixel(color * fwidthCoarse(lit) * f32(size.x + counts), lit);
     }",
    "@group(0) @binding(0) var image: texture_storage_2d_array<rgba8unorm, write>;
     @group(0) @binding(1) var counts: texture_storage_2d<r32uint, atomic>;
     @compute @workgroup_size(2) fn main(@builtin(workgroup_id) at: vec3<u32>) {
         textureStore(image, at.xy, at.z, vec4(1.0, 0.5, 0.25, 0.0));
         textureAtomicAdd(counts, at.xy, 1u);
         textureBarrier();
     }",
    "@group(0) @binding(0) var<storage, read_write> u: array<u32>;
     @compute @workgroup_size(2)
     fn main(@builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) size: u32) {
         u[0] = subgroupBallot(lane > 1u).x + subgroupAdd(lane) + subgroupExclusiveMul(lane);
         u[1] = subgroupBroadcast(lane, 1u) + subgroupShuffleXor(size, 2u) + subgroupBroadcastFirst(lane);
         u[2] = subgroupShuffle(lane, size) + subgroupShuffleUp(lane, 1u) + quadSwapX(lane) + quadBroadcast(lane, 1u);
         subgroupBarrier();
     }",
    "var<workgroup> w: u32;
     @group(0) @binding(0) var<storage, read_write> u: array<u32>;
     @compute @workgroup_size(1) fn main() { u[0] = workgroupUniformLoad(&w); }",
    "enable f16;
     @group(0) @binding(0) var<storage, read_write> h: array<f16>;
     @group(0) @binding(1) var<storage, read_write> l: array<i64>;
     @compute @workgroup_size(1) fn main() {
         h[0] = 1.5h * h[1] + f16(l[0]);
         l[1] = (l[0] + 5li) ^ l[2];
     }",
    "enable dual_source_blending;
     struct Light { @location(0) @blend_src(0) color: vec4<f32>, @location(0) @blend_src(1) mask: vec4<f32> }
     @fragment fn main() -> Light { return Light(vec4(1.0), vec4(0.5)); }",
];

/// Changes that do not count, by how their path ends, and why.
const DO_NOT_COUNT: [(&str, &str); 19] = [
    ("Type.name", "a name that no back end looks up"),
    ("StructMember.name", "a name that no back end looks up"),
    ("GlobalVariable.name", "pipelines bind by group and binding"),
    ("LocalVariable.name", "nothing outside sees it"),
    ("FunctionArgument.name", "pipelines bind by location"),
    ("Function.name", "an entry point has a name of its own"),
    ("Constant.name", "a constant is its value"),
    ("named_expressions longer", "the name of a `let`"),
    (
        "Location.sampling",
        "the center, which is meant where nothing is said",
    ),
    ("Swizzle.pattern", "components past the size of the result"),
    ("entry_points swapped", "the order of declarations"),
    (
        "predeclared_types swapped",
        "the order of a table that is looked up",
    ),
    ("constants longer", "nothing uses it"),
    ("global_expressions longer", "nothing uses it"),
    ("expressions longer", "nothing uses it"),
    (
        "expressions swapped",
        "two that nothing uses, or that are equal but for their place",
    ),
    ("Emit.0", "pure values are computed where they are needed"),
    (
        "Store.pointer",
        "the same place, named by an expression of another block",
    ),
    (
        "",
        "an `Emit` of pure values more, or somewhere else in its block",
    ),
];

/// Lists of statements, whose changes the last line of the list above is about.
const BLOCKS: [&str; 5] = [".body", ".accept", ".reject", ".continuing", "Block.0"];

/// Why a change may leave the key as it is, if it may.
fn reason(path: &str) -> Option<&'static str> {
    let in_block = |change: &str| {
        let list = path.strip_suffix(change).unwrap_or_default();
        BLOCKS.iter().any(|block| list.ends_with(block))
    };
    let known = DO_NOT_COUNT.iter().find(|(end, _)| match *end {
        "" => in_block(" longer") || in_block(" swapped"),
        end => path.ends_with(end),
    });
    known.map(|(_, reason)| *reason)
}

fn canonical(source: &str) -> Module {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}", error.emit_to_string(source)));
    module.canonicalize().unwrap().into_parts().unwrap().0
}

#[test]
fn every_field_of_a_shader_counts() {
    let every = match std::env::var_os("PIPELINE_CACHE_LONG_TESTS") {
        Some(_) => 1,
        None => 12,
    };
    // naga's validator panics on some of the changed modules, which makes them unkeyable.
    std::panic::set_hook(Box::new(|_| {}));
    let mut tried = BTreeSet::new();
    let mut counted = BTreeSet::new();
    let (mut changes, mut invalid) = (0, 0);
    let mut silent = BTreeMap::<String, u32>::new();
    for source in SHADERS {
        let module = canonical(source);
        let key = PipelineFingerprint::of(&module).unwrap();
        for (path, changed) in module.fields().into_iter().step_by(every) {
            changes += 1;
            let fields = || path.split(' ').map(str::to_owned);
            tried.extend(fields());
            match changed.canonicalize() {
                Err(_) => invalid += 1,
                Ok(canonical) if canonical.fingerprint() != key => counted.extend(fields()),
                Ok(_) => *silent.entry(path).or_default() += 1,
            }
        }
    }
    let _ = std::panic::take_hook();
    println!("{changes} changes, of which {invalid} leave no valid shader");
    let tried = tried.len();
    println!(
        "{} of {tried} fields change the key; unseen:",
        counted.len()
    );
    for (path, times) in &silent {
        let reason = reason(path).unwrap_or_else(|| panic!("{path} does not count"));
        println!("{times:>6} {path}: {reason}");
    }
    // What has no valid change of its own is shown to be on the wire by the tests beside it.
    assert!(counted.len() > 80, "{}", counted.len());
}
