//! What a pipeline sees of a shader beside its code, and what naga's writer of HLSL takes from the
//! place of a type: neither changes with the spelling.

use naga::Module;
use naga::back::hlsl;
use naga::valid::ModuleInfo;
use pipeline_cache::key::naga::CanonicalModule;
use pipeline_cache::{Program as _, ToWire as _};

use super::support::writers;

fn parse(source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}\n{source}", error.emit_to_string(source)))
}

fn hlsl(module: &Module, info: &ModuleInfo) -> String {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_6,
        special_constants_binding: Some(hlsl::BindTarget::default()),
        ..Default::default()
    };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &Default::default())
        .write(module, info, None)
        .unwrap();
    text
}

/// The canonical form as HLSL, of which each back end takes as much as of the source.
fn canonical(source: &str) -> (CanonicalModule, String) {
    let module = parse(source);
    let canonical = module.canonicalize().unwrap();
    let info = canonical.info().unwrap();
    writers::compiled(source, &module, (canonical.module(), info));
    let text = hlsl(canonical.module(), info);
    (canonical, text)
}

/// Layouts may be made from what an entry point names, so that it counts in a wrapper too.
#[test]
fn a_resource_that_a_wrapper_names_counts() {
    let shader = |named: &str| {
        format!(
            "struct Held {{ x: vec4<f32>, y: vec4<f32> }}
             @group(0) @binding(0) var<storage, read_write> out: array<u32>;
             @group(0) @binding(1) var texture: texture_2d<f32>;
             @group(0) @binding(2) var<uniform> held: Held;
             var<private> id: vec3<u32>;
             fn code() {{ out[id.x] = 1u; }}
             @compute @workgroup_size(1)
             fn main(@builtin(global_invocation_id) at: vec3<u32>) {{ {named} id = at; code(); }}"
        )
    };
    let mut keys = std::collections::BTreeSet::new();
    for (named, count) in [
        ("", 1),
        ("_ = texture;", 2),
        ("_ = &held;", 2),
        ("let part = &held.y; _ = texture;", 3),
    ] {
        let (canonical, _) = canonical(&shader(named));
        let info = canonical.info().unwrap().get_entry_point(0);
        let globals = canonical.module().global_variables.iter();
        let used = globals
            .filter(|(handle, global)| global.binding.is_some() && !info[*handle].is_empty());
        assert_eq!(used.count(), count, "{named}");
        assert!(keys.insert(canonical.fingerprint()), "{named}");
    }
}

/// HLSL has no offsets: naga writes what stands between two members, unless these are bound.
#[test]
fn a_structure_of_a_buffer_keeps_its_layout() {
    let source = "struct Held { a: f32, b: vec2<f32>, c: vec4<f32> }
         struct Out { @location(0) a: f32, @location(1) b: vec2<f32>, @location(2) c: vec4<f32> }
         @group(0) @binding(0) var<uniform> held: array<Held, 2>;
         var<private> at: u32;
         var<private> a: f32;
         var<private> b: vec2<f32>;
         var<private> c: vec4<f32>;
         fn code() { let it = held[at & 1u]; a = it.a; b = it.b; c = it.c; }
         @fragment fn main(@location(0) @interpolate(flat) in_at: u32) -> Out {
             at = in_at;
             code();
             return Out(a, b, c);
         }";
    let (_, text) = canonical(source);
    assert!(text.contains("int _pad1_0"), "{text}");
}

/// A fragment shader's `@location(0)` is a target, a vertex shader's is not. naga decides by the type.
#[test]
fn inputs_and_targets_do_not_share_a_structure() {
    let plain = "struct In { @location(0) a: vec4<f32>, @location(1) b: vec4<f32> }
         struct Targets { @location(0) x: vec4<f32>, @location(1) y: vec4<f32> }
         @vertex fn vertex(in: In) -> @builtin(position) vec4<f32> { return in.a + in.b; }
         @fragment fn fragment(@location(0) a: vec4<f32>) -> Targets { return Targets(a, a); }";
    let wrapped = "struct Pair { a: vec4<f32>, b: vec4<f32> }
         struct Targets { @location(0) x: vec4<f32>, @location(1) y: vec4<f32> }
         var<private> a: vec4<f32>;
         var<private> b: vec4<f32>;
         var<private> x: vec4<f32>;
         var<private> y: vec4<f32>;
         fn turned(in: Pair) -> Pair { return Pair(in.b, in.a); }
         fn one() { let out = turned(Pair(a, b)); x = out.b; }
         @vertex fn vertex(@location(0) in_a: vec4<f32>, @location(1) in_b: vec4<f32>)
             -> @builtin(position) vec4<f32> { a = in_a; b = in_b; one(); return x; }
         fn two() { let out = turned(Pair(a, a)); x = out.a; y = out.b; }
         @fragment fn fragment(@location(0) in_a: vec4<f32>) -> Targets {
             a = in_a;
             two();
             return Targets(x, y);
         }";
    for source in [plain, wrapped] {
        let (canonical, text) = canonical(source);
        assert!(text.contains("SV_Target1"), "{text}");
        assert!(text.contains("LOC1"), "{text}");
        let again = canonical.module().canonicalize().unwrap();
        assert_eq!(again.fingerprint(), canonical.fingerprint());
    }
}

/// Direct3D counts vertices from 0, which naga makes up for where it reads the argument itself.
#[test]
fn an_index_of_a_vertex_is_read_where_it_is_corrected() {
    let source = "struct In { at: u32, a: vec4<f32> }
         var<private> at: u32;
         var<private> a: vec4<f32>;
         var<private> place: vec4<f32>;
         fn moved(in: In) -> vec4<f32> { return in.a + f32(in.at); }
         fn code() { place = moved(In(at, a)); }
         @vertex fn main(@builtin(vertex_index) in_at: u32, @location(0) in_a: vec4<f32>)
             -> @builtin(position) vec4<f32> {
             at = in_at;
             a = in_a;
             code();
             return place;
         }";
    let (_, text) = canonical(source);
    assert!(text.contains("first_vertex +"), "{text}");
}

/// Back ends know a ray by its type and the names in it.
#[test]
fn a_ray_is_no_argument() {
    let source = "enable wgpu_ray_query;
         @group(0) @binding(0) var scene: acceleration_structure;
         var<private> flags: u32;
         var<private> mask: u32;
         var<private> near: f32;
         var<private> far: f32;
         var<private> origin: vec3<f32>;
         var<private> way: vec3<f32>;
         var<private> color: vec4<f32>;
         fn code() {
             var query: ray_query;
             rayQueryInitialize(&query, scene, RayDesc(flags, mask, near, far, origin, way));
             while rayQueryProceed(&query) {}
             color = vec4(rayQueryGetCommittedIntersection(&query).t);
         }
         @fragment fn main(
             @location(0) @interpolate(flat) in_flags: u32,
             @location(1) @interpolate(flat) in_mask: u32,
             @location(2) in_near: f32,
             @location(3) in_far: f32,
             @location(4) in_origin: vec3<f32>,
             @location(5) in_way: vec3<f32>,
         ) -> @location(0) vec4<f32> {
             flags = in_flags;
             mask = in_mask;
             near = in_near;
             far = in_far;
             origin = in_origin;
             way = in_way;
             code();
             return color;
         }";
    let (canonical, _) = canonical(source);
    let module = canonical.module();
    let ray = &module.types[module.special_types.ray_desc.unwrap()];
    assert_eq!(ray.name.as_deref(), Some("RayDesc"));
}
