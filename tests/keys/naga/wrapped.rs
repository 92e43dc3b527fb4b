//! Entry points that wrap their code have the key of the plain ones, and never that of another.
//!
//! The wrappers are written in WGSL here, as naga's reader of SPIR-V makes them.

use super::support::{evaluate, writers};
use naga::Module;
use pipeline_cache::key::naga::CanonicalModule;
use pipeline_cache::{Program as _, ToWire as _};

fn parse(source: &str) -> Module {
    naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|error| panic!("{}\n{source}", error.emit_to_string(source)))
}

fn canonical(source: &str) -> CanonicalModule {
    let module = parse(source);
    let canonical = module.canonicalize().unwrap();
    writers::compiled(
        source,
        &module,
        (canonical.module(), canonical.info().unwrap()),
    );
    let again = canonical.module().canonicalize().unwrap();
    assert!(again.to_wire() == canonical.to_wire(), "{source}");
    canonical
}

#[track_caller]
fn assert_one(one: &str, two: &str) {
    let [a, b] = [one, two].map(canonical);
    assert!(
        a.to_wire() == b.to_wire(),
        "{one}\n{two}\n{}\n{}",
        writers::wgsl(a.module()),
        writers::wgsl(b.module())
    );
}

#[track_caller]
fn assert_two(one: &str, two: &str) {
    let [a, b] = [one, two].map(|source| canonical(source).fingerprint());
    assert_ne!(a, b, "{one}\n{two}");
}

/// A vertex shader around its code, with two inputs, two outputs and a helper.
fn vertex(code: &str) -> String {
    format!(
        "struct Out {{ @builtin(position) place: vec4<f32>, @location(0) color: vec4<f32> }}
         var<private> a: vec4<f32>;
         var<private> b: vec4<f32>;
         var<private> place: vec4<f32> = vec4(0.0, 0.0, 0.0, 1.0);
         var<private> color: vec4<f32>;
         fn helper() -> vec4<f32> {{ return a; }}
         fn code() {{ {code} }}
         @vertex fn main(@location(0) in_a: vec4<f32>, @location(1) in_b: vec4<f32>) -> Out {{
             a = in_a;
             b = in_b;
             code();
             return Out(place, color);
         }}"
    )
}

/// What code returns in a plain vertex shader.
fn plain(code: &str) -> String {
    format!(
        "struct Out {{ @builtin(position) place: vec4<f32>, @location(0) color: vec4<f32> }}
         @vertex fn main(@location(0) a: vec4<f32>, @location(1) b: vec4<f32>) -> Out {{ {code} }}"
    )
}

#[test]
fn a_wrapper_is_its_code() {
    let pairs = [
        ("place = a; color = b;", "return Out(a, b);"),
        ("color = b; place = a;", "return Out(a, b);"),
        // What is stored last is returned.
        ("place = b; place = a; color = b;", "return Out(a, b);"),
        // What is not stored has its initial value.
        ("place = a;", "return Out(a, vec4(0.0));"),
        ("color = a;", "return Out(vec4(0.0, 0.0, 0.0, 1.0), a);"),
        (
            "if a.x > 1.0 { place = a; color = a; return; } place = a; color = b;",
            "if a.x > 1.0 { return Out(a, a); } return Out(a, b);",
        ),
        (
            "if a.x > 1.0 { place = a; color = a; } else { place = b; color = b; }",
            "if a.x > 1.0 { return Out(a, a); } else { return Out(b, b); }",
        ),
        // An output can be read again.
        ("place = a; color = place + b;", "return Out(a, a + b);"),
    ];
    for (wrapped, code) in pairs {
        assert_one(&vertex(wrapped), &plain(code));
    }
}

#[test]
fn wrappers_of_other_code_have_other_keys() {
    let pairs = [
        ("place = a; color = b;", "return Out(b, a);"),
        ("place = a; color = b;", "return Out(a, a);"),
        ("place = b; place = a; color = b;", "return Out(b, b);"),
        // Stored under a condition.
        (
            "place = a; color = b; if a.x > 1.0 { color = a; }",
            "return Out(a, a);",
        ),
        (
            "place = a; color = b; if a.x > 1.0 { color = a; }",
            "return Out(a, b);",
        ),
        (
            "place = a; color = b; if a.x > 1.0 { color = a; return; }",
            "if a.x > 1.0 { return Out(a, b); } return Out(a, b);",
        ),
        // In a loop that may not run.
        (
            "place = a; for (var i = 0.0; i < b.x; i += 1.0) { color = b; }",
            "return Out(a, b);",
        ),
        // A part of it.
        ("place = a; color = b; color.x = a.x;", "return Out(a, b);"),
        // Not stored, or with another initial value.
        ("place = a;", "return Out(a, vec4(1.0));"),
        ("color = b;", "return Out(vec4(0.0), b);"),
        // Stored, but after it is read.
        ("place = a; color = place; place = b;", "return Out(b, b);"),
        // Written by the code and then read.
        ("a = b; place = a; color = a;", "return Out(a, a);"),
        // Read by another function, which sees what the code has written.
        ("a = b; place = helper(); color = b;", "return Out(a, b);"),
    ];
    for (wrapped, code) in pairs {
        assert_two(&vertex(wrapped), &plain(code));
    }
    // A variable that another function reads stays one, and what it holds counts.
    assert_two(
        &vertex("place = helper(); color = b;"),
        &vertex("a = b; place = helper(); color = b;"),
    );
}

#[test]
fn every_part_of_a_wrapper_counts() {
    let wrapper = vertex("place = a; color = b;");
    let others = [
        ("a = in_a;", "a = in_b;"),
        ("a = in_a;", ""),
        ("a = in_a;", "a = -in_a;"),
        ("b = in_b;", "b = in_b; b = in_a;"),
        ("return Out(place, color);", "return Out(color, place);"),
        ("return Out(place, color);", "return Out(place, place);"),
        ("code();", "code(); code();"),
        ("code();", "code(); color = in_a;"),
        ("code();", ""),
        ("a = in_a;\n", "code(); a = in_a;\n"),
        ("@location(0) in_a", "@location(2) in_a"),
        (
            "@location(0) in_a: vec4<f32>, @location(1) in_b",
            "@location(1) in_a: vec4<f32>, @location(0) in_b",
        ),
        ("@location(0) color", "@location(1) color"),
        (
            "@location(0) color",
            "@location(0) @interpolate(linear) color",
        ),
        (
            "@location(0) color",
            "@location(0) @interpolate(flat) color",
        ),
        (
            "@location(0) color",
            "@location(0) @interpolate(perspective, centroid) color",
        ),
        ("@builtin(position)", "@builtin(position) @invariant"),
        ("@builtin(position)", "@builtin(position) @invariant"),
    ];
    for (from, to) in others {
        assert!(wrapper.contains(from), "{from}");
        assert_two(&wrapper, &wrapper.replace(from, to));
    }
    // The initial value of an output that is not stored.
    let unset = vertex("place = a;");
    assert_two(
        &unset,
        &unset.replace("color: vec4<f32>;", "color: vec4<f32> = vec4(1.0);"),
    );
}

#[test]
fn builtins_are_told_apart() {
    let wrapper = |one: &str, two: &str| {
        format!(
            "var<private> x: u32;
             var<private> y: u32;
             var<private> place: vec4<f32>;
             fn code() {{ place = vec4(f32(x), f32(y), 0.0, 1.0); }}
             @vertex fn main(@builtin({one}) one: u32, @builtin({two}) two: u32)
                 -> @builtin(position) vec4<f32> {{
                 x = one;
                 y = two;
                 code();
                 return place;
             }}"
        )
    };
    let plain = "@vertex fn main(@builtin(vertex_index) x: u32, @builtin(instance_index) y: u32)
             -> @builtin(position) vec4<f32> { return vec4(f32(x), f32(y), 0.0, 1.0); }";
    assert_one(&wrapper("vertex_index", "instance_index"), plain);
    assert_two(&wrapper("instance_index", "vertex_index"), plain);
}

/// A structure of inputs, and one of outputs.
#[test]
fn structures_are_put_together_where_their_parts_are_all_there() {
    let shader = |made: &str, returned: &str| {
        format!(
            "struct In {{ @location(0) a: vec4<f32>, @location(1) b: vec4<f32> }}
             struct Plain {{ a: vec4<f32>, b: vec4<f32> }}
             struct Out {{ @builtin(position) place: vec4<f32>, @location(0) color: vec4<f32> }}
             var<private> a: vec4<f32>;
             var<private> b: vec4<f32>;
             var<private> place: vec4<f32>;
             var<private> color: vec4<f32>;
             fn mixed(x: Plain) -> Plain {{ return Plain(x.a + x.b, x.b); }}
             fn code() {{
                 let in = {made};
                 let out = mixed(in);
                 place = {returned};
             }}
             @vertex fn main(@location(0) in_a: vec4<f32>, @location(1) in_b: vec4<f32>) -> Out {{
                 a = in_a;
                 b = in_b;
                 code();
                 return Out(place, color);
             }}"
        )
    };
    let plain = |ty: &str| {
        format!(
            "struct Plain {{ {ty} }}
             struct Out {{ @builtin(position) place: vec4<f32>, @location(0) color: vec4<f32> }}
             fn mixed(x: Plain) -> Plain {{ return Plain(x.a + x.b, x.b); }}
             @vertex fn main(in: Plain) -> Out {{ let out = mixed(in); return Out(out.a, out.b); }}"
        )
    };
    let whole = shader("Plain(a, b)", "out.a; color = out.b");
    let bound = "@location(0) a: vec4<f32>, @location(1) b: vec4<f32>";
    let turned = "@location(1) a: vec4<f32>, @location(0) b: vec4<f32>";
    // Both structures take bindings, as one type or as two.
    assert_two(&whole, &plain(turned));
    for other in [
        shader("Plain(b, a)", "out.a; color = out.b"),
        shader("Plain(a, a)", "out.a; color = out.b"),
        shader("Plain(a, b)", "out.b; color = out.a"),
        shader("Plain(a, b)", "out.a; color = in.b"),
        shader("Plain(a, b)", "out.a"),
    ] {
        assert_two(&whole, &other);
        assert_two(&plain(bound), &other);
    }
}

/// Two entry points of one module.
#[test]
fn entry_points_keep_apart_what_they_share() {
    let two = |first: &str, second: &str, stored: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
             var<private> id: vec3<u32>;
             fn one() {{ out[id.x] = 1u; }}
             fn two() {{ out[id.y] = 2u; }}
             @compute @workgroup_size(1)
             fn first(@builtin(global_invocation_id) at: vec3<u32>) {{ id = {stored}; {first}(); }}
             @compute @workgroup_size(1)
             fn second(@builtin(global_invocation_id) at: vec3<u32>) {{ id = at; {second}(); }}"
        )
    };
    let plain = "@group(0) @binding(0) var<storage, read_write> out: array<u32>;
         @compute @workgroup_size(1)
         fn first(@builtin(global_invocation_id) id: vec3<u32>) { out[id.x] = 1u; }
         @compute @workgroup_size(1)
         fn second(@builtin(global_invocation_id) id: vec3<u32>) { out[id.y] = 2u; }";
    // Each has its own variable, though both have one name.
    assert_one(&two("one", "two", "at"), plain);
    for (first, second, stored) in [
        ("two", "one", "at"),
        ("one", "one", "at"),
        ("two", "two", "at"),
        ("one", "two", "at.yxz"),
    ] {
        assert_two(&two(first, second, stored), plain);
    }
    // Code that two of them call stays a function, and its variable one of the module.
    let shared = canonical(&two("one", "one", "at"));
    assert_eq!(shared.module().functions.len(), 1);
    assert_eq!(shared.module().global_variables.len(), 2);
}

/// Each changes the other's meaning if it is taken for it.
#[test]
fn spellings_of_wrapped_code_keep_their_meaning() {
    let shader = |body: &str| {
        format!(
            "@group(0) @binding(0) var<storage, read_write> u: array<u32>;
             @group(0) @binding(1) var<storage, read_write> f: array<f32>;
             @group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>, 4>;
             var<private> id: vec3<u32>;
             fn code() {{ {body} }}
             @compute @workgroup_size(1)
             fn main(@builtin(global_invocation_id) at: vec3<u32>) {{ id = at; code(); }}"
        )
    };
    let pairs = [
        (
            "u[0] = select(0u, 1u, id.x > 2u);",
            "u[0] = u32(id.x <= 2u);",
        ),
        (
            "u[0] = select(1u, 0u, id.x > 2u);",
            "u[0] = u32(id.x > 2u);",
        ),
        (
            "f[0] = select(-0.0, 1.0, id.x > 2u);",
            "f[0] = f32(id.x > 2u);",
        ),
        (
            "f[0] = select(0.0, 2.0, id.x > 2u);",
            "f[0] = f32(id.x > 2u);",
        ),
        (
            "v[0] = select(v[1], v[2], vec4(id.x > 2u, id.x > 2u, id.x > 2u, id.y > 2u));",
            "v[0] = select(v[1], v[2], id.x > 2u);",
        ),
        ("let k = 1u; v[k] = vec4(1.0);", "v[2] = vec4(1.0);"),
        (
            "switch i32(id.x) { case -1: { u[0] = 1u; } default: {} }",
            "switch id.x { case 1u: { u[0] = 1u; } default: {} }",
        ),
        (
            "switch id.x { case 2u, 1u: { u[0] = 1u; } case 3u: { u[0] = 2u; } default: {} }",
            "switch id.x { case 2u: { u[0] = 1u; } case 3u, 1u: { u[0] = 2u; } default: {} }",
        ),
        (
            "switch id.x { case 2u: { if id.y > 1u { break; } u[0] = 1u; } default: {} }",
            "switch id.x { case 2u: { u[0] = 1u; } default: {} }",
        ),
        (
            "for (var n = 0u; n < 4u; n++) { if id.y == n { continue; } u[n] = 1u; }",
            "for (var n = 0u; n < 4u; n++) { u[n] = 1u; }",
        ),
    ];
    for (one, two) in pairs {
        assert_two(&shader(one), &shader(two));
    }
    let pairs = [
        (
            "u[0] = select(0u, 1u, id.x > 2u);",
            "u[0] = u32(id.x > 2u);",
        ),
        (
            "f[0] = select(0.0, 1.0, id.x > 2u);",
            "f[0] = f32(id.x > 2u);",
        ),
        (
            "v[0] = select(v[1], v[2], vec4(id.x > 2u));",
            "v[0] = select(v[1], v[2], id.x > 2u);",
        ),
        (
            "u[0] = bitcast<u32>(bitcast<i32>(id.x) + 1);",
            "u[0] = u32(i32(id.x) + 1);",
        ),
        ("let k = 1u; v[k] = vec4(1.0);", "v[1] = vec4(1.0);"),
        (
            "switch i32(id.x) { case 2, 1: { u[0] = 1u; } default: {} }",
            "switch id.x { case 1u, 2u: { u[0] = 1u; break; } default: { break; } }",
        ),
        (
            "for (var n = 0u; n < 4u; n++) { u[n] = 1u; continue; }",
            "for (var n = 0u; n < 4u; n++) { u[n] = 1u; }",
        ),
    ];
    for (one, two) in pairs {
        let [one, two] = [one, two].map(shader);
        assert_one(&one, &two);
        let [one, two] = [one, two].map(|source| parse(&source));
        for seed in 0..8 {
            let outcomes = [&one, &two].map(|it| evaluate::run_from_outside(it, seed));
            assert_eq!(outcomes[0], outcomes[1]);
        }
    }
}

/// A buffer that holds a structure of one member.
#[test]
fn a_structure_of_one_member_around_a_buffer_is_taken_away() {
    let shader = |ty: &str, space: &str, use_: &str| {
        format!(
            "struct Held {{ {ty} }}
             @group(0) @binding(0) var<{space}> held: Held;
             @group(0) @binding(1) var<storage, read_write> out: vec4<f32>;
             var<private> id: vec3<u32>;
             fn code() {{ out = {use_}; }}
             @compute @workgroup_size(1)
             fn main(@builtin(global_invocation_id) at: vec3<u32>) {{ id = at; code(); }}"
        )
    };
    let plain = |ty: &str, space: &str, use_: &str| {
        format!(
            "@group(0) @binding(0) var<{space}> held: {ty};
             @group(0) @binding(1) var<storage, read_write> out: vec4<f32>;
             @compute @workgroup_size(1)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ out = {use_}; }}"
        )
    };
    assert_one(
        &shader("x: vec4<f32>", "uniform", "held.x"),
        &plain("vec4<f32>", "uniform", "held"),
    );
    assert_one(
        &shader("x: array<vec4<f32>>", "storage", "held.x[id.x]"),
        &plain("array<vec4<f32>>", "storage", "held[id.x]"),
    );
    let others = [
        // It is larger than its member.
        (
            shader("@size(32) x: vec4<f32>", "uniform", "held.x"),
            plain("vec4<f32>", "uniform", "held"),
        ),
        (
            shader("x: vec3<f32>", "uniform", "held.x.xyzz"),
            plain("vec3<f32>", "uniform", "held.xyzz"),
        ),
        (
            shader("x: vec4<f32>, y: vec4<f32>", "uniform", "held.x"),
            plain("vec4<f32>", "uniform", "held"),
        ),
        (
            shader("x: vec4<f32>", "uniform", "held.x"),
            plain("vec4<f32>", "storage", "held"),
        ),
        (
            shader("x: vec4<f32>", "uniform", "held.x"),
            plain("vec4<u32>", "uniform", "vec4<f32>(held)"),
        ),
        (
            shader("x: array<vec4<f32>, 2>", "uniform", "held.x[0]"),
            plain("array<vec4<f32>, 2>", "uniform", "held[1]"),
        ),
    ];
    for (one, two) in others {
        assert_two(&one, &two);
    }
}

/// A part of an input that the wrapper or the code writes is no part of the argument.
#[test]
fn an_input_that_is_written_in_part_is_no_argument() {
    let shader = |stored: &str, code: &str| {
        format!(
            "struct Pair {{ a: vec4<f32>, b: vec4<f32> }}
             var<private> a: vec4<f32>;
             var<private> b: vec4<f32>;
             var<private> place: vec4<f32>;
             fn code() {{ {code} let pair = Pair(a, b); place = pair.a + pair.b; }}
             @vertex fn main(@location(0) in_a: vec4<f32>, @location(1) in_b: vec4<f32>)
                 -> @builtin(position) vec4<f32> {{ {stored} b = in_b; code(); return place; }}"
        )
    };
    let unchanged = canonical(&shader("a = in_a;", ""));
    assert_eq!(
        unchanged.module().entry_points[0].function.arguments.len(),
        1
    );
    let turned = "@location(0) in_a: f32";
    for source in [
        shader("a = in_a;", "a.x = 1.0;"),
        shader("a = in_a;", "b[u32(a.x) & 3u] = a.y;"),
        shader("a = in_a;", "if a.y > 1.0 { b.w = a.w; }"),
        shader("a = in_a;", "a = b;"),
        // The only store there is, and of an argument.
        shader("a.x = in_a;", "").replace("@location(0) in_a: vec4<f32>", turned),
    ] {
        let (module, changed) = (parse(&source), canonical(&source));
        assert_ne!(unchanged.fingerprint(), changed.fingerprint(), "{source}");
        let main = &changed.module().entry_points[0].function;
        assert_eq!(main.arguments.len(), 2, "{source}");
        for seed in 0..4 {
            let outcomes =
                [&module, changed.module()].map(|it| evaluate::run_from_outside(it, seed));
            assert_eq!(outcomes[0], outcomes[1], "{source}");
        }
    }
}

/// A structure is returned whole where all of its parts are returned, in order.
#[test]
fn parts_in_another_order_are_not_the_structure() {
    let shader = |one: &str, two: &str| {
        format!(
            "struct Made {{ a: vec4<f32>, b: vec4<f32> }}
             struct Out {{ @builtin(position) place: vec4<f32>, @location(0) color: vec4<f32> }}
             var<private> a: vec4<f32>;
             var<private> place: vec4<f32>;
             var<private> color: vec4<f32>;
             fn made(v: vec4<f32>) -> Made {{ return Made(v.wzyx, v + 1.0); }}
             fn code() {{ let it = made(a); place = it.{one}; color = it.{two}; }}
             @vertex fn main(@location(0) in_a: vec4<f32>) -> Out {{
                 a = in_a;
                 code();
                 return Out(place, color);
             }}"
        )
    };
    let plain = "struct Out { @builtin(position) place: vec4<f32>, @location(0) color: vec4<f32> }
         fn made(v: vec4<f32>) -> Out { return Out(v.wzyx, v + 1.0); }
         @vertex fn main(@location(0) a: vec4<f32>) -> Out { return made(a); }";
    assert_one(&shader("a", "b"), plain);
    for (one, two) in [("b", "a"), ("a", "a"), ("b", "b")] {
        let source = shader(one, two);
        assert_two(&source, plain);
        let (module, canonical) = (parse(&source), canonical(&source));
        for seed in 0..4 {
            let outcomes =
                [&module, canonical.module()].map(|it| evaluate::run_from_outside(it, seed));
            assert_eq!(outcomes[0], outcomes[1], "{source}");
        }
    }
}

/// What the wrapper does to an input after it is stored is no part of the argument.
#[test]
fn an_input_that_the_wrapper_changes_is_no_argument() {
    let shader = |changed: &str| {
        format!(
            "struct Pair {{ a: vec4<f32>, b: vec4<f32> }}
             var<private> a: vec4<f32>;
             var<private> b: vec4<f32>;
             var<private> place: vec4<f32>;
             fn code() {{ let pair = Pair(a, b); place = pair.a + pair.b; }}
             @vertex fn main(@location(0) in_a: vec4<f32>, @location(1) in_b: vec4<f32>)
                 -> @builtin(position) vec4<f32> {{
                 a = in_a;
                 b = in_b;
                 {changed}
                 code();
                 return place;
             }}"
        )
    };
    let unchanged = shader("");
    let argument = canonical(&unchanged).module().entry_points[0]
        .function
        .arguments
        .len();
    assert_eq!(argument, 1, "the structure becomes an argument");
    for changed in [
        "a.x = 1.0;",
        "b.w = a.w;",
        "a = -a;",
        "a = in_b;",
        "a = a;",
        "b = in_a; b = in_b;",
    ] {
        let shader = shader(changed);
        let [one, two] = [&unchanged, &shader].map(|it| canonical(it).fingerprint());
        let is_same = matches!(changed, "a = a;" | "b = in_a; b = in_b;");
        assert!(is_same || one != two, "{changed}");
        let (module, canonical) = (parse(&shader), canonical(&shader));
        for seed in 0..4 {
            let outcomes =
                [&module, canonical.module()].map(|it| evaluate::run_from_outside(it, seed));
            assert_eq!(outcomes[0], outcomes[1], "{changed}");
        }
    }
}

/// The cases of a `switch` that falls through, which WGSL cannot write but SPIR-V can.
#[test]
fn a_case_that_ends_does_not_fall_through() {
    let source = "@group(0) @binding(0) var<storage, read_write> u: array<u32>;
        var<private> id: vec3<u32>;
        fn code() { switch id.x { case 1u, 2u: { u[0] = 1u; } default: {} } }
        @compute @workgroup_size(1)
        fn main(@builtin(global_invocation_id) at: vec3<u32>) { id = at; code(); }";
    let falls = parse(source);
    let mut ends = falls.clone();
    let (_, code) = ends.functions.iter_mut().next().unwrap();
    let cases = code.body.iter_mut().find_map(|statement| match statement {
        naga::Statement::Switch { selector: _, cases } => Some(cases),
        _ => None,
    });
    let first = &mut cases.unwrap()[0];
    assert!(first.fall_through && first.body.is_empty());
    first
        .body
        .push(naga::Statement::Break, naga::Span::UNDEFINED);
    let outcomes = |module: &Module| {
        (0..8)
            .map(|it| evaluate::run_from_outside(module, it))
            .collect::<Vec<_>>()
    };
    let [falls, ends] = [falls, ends].map(|module| {
        let canonical = module.canonicalize().unwrap();
        canonical.info().unwrap();
        assert_eq!(outcomes(&module), outcomes(canonical.module()));
        canonical.fingerprint()
    });
    assert_ne!(falls, ends);
}

/// A function that ends with a `discard` goes on where targets do, and so does what it becomes.
#[test]
fn what_follows_a_discard_is_returned() {
    let shader = |code: &str| {
        format!(
            "var<private> a: vec4<f32>;
             var<private> color: vec4<f32>;
             fn code() {{ {code} }}
             @fragment fn main(@location(0) in_a: vec4<f32>) -> @location(0) vec4<f32> {{
                 a = in_a;
                 code();
                 return color;
             }}"
        )
    };
    for code in [
        "color = a; discard;",
        "if a.x > 1.0 { color = a; return; } else { discard; }",
        "if a.x > 1.0 { discard; } else { color = a; return; }",
        "if a.x > 1.0 { { discard; } } else { { color = a; return; } }",
    ] {
        let source = shader(code);
        let canonical = canonical(&source);
        let main = &canonical.module().entry_points[0].function;
        assert!(canonical.module().functions.is_empty(), "{code}");
        let last = main.body.last();
        assert!(
            matches!(last, Some(naga::Statement::Return { value: Some(_) })),
            "{code} {last:?}"
        );
        let module = parse(&source);
        for seed in 0..8 {
            let outcomes =
                [&module, canonical.module()].map(|it| evaluate::run_from_outside(it, seed));
            assert_eq!(outcomes[0], outcomes[1], "{code}");
        }
    }
}

/// Immediates keep the structure around them, without which not every back end takes them.
#[test]
fn immediates_keep_their_structure() {
    let shader = |wrapper: bool| {
        let (given, private) = if wrapper {
            (
                "at",
                "var<private> id: vec3<u32>; fn code() { out[id.x] = held.x; }",
            )
        } else {
            ("id", "")
        };
        let code = if wrapper {
            "id = at; code();"
        } else {
            "out[id.x] = held.x;"
        };
        format!(
            "struct Held {{ x: u32 }}
             var<immediate> held: Held;
             @group(0) @binding(1) var<storage, read_write> out: array<u32>;
             {private}
             @compute @workgroup_size(1)
             fn main(@builtin(global_invocation_id) {given}: vec3<u32>) {{ {code} }}"
        )
    };
    assert_one(&shader(true), &shader(false));
    let plain = shader(false)
        .replace("Held;", "u32;")
        .replace("held.x", "held");
    assert_two(&shader(true), &plain);
}

/// What follows the call is written at each `return`, but no more than that is held.
#[test]
fn a_wrapper_that_would_grow_too_large_stays_one() {
    let source = |returns: usize, stored: &str| {
        let code = "if x > 1.0 { return; }".repeat(returns);
        format!(
            "var<private> x: f32;
             var<private> many: array<f32, 400>;
             fn code() {{ {code} }}
             @fragment fn main(@location(0) in_x: f32) -> @location(0) f32 {{
                 x = in_x;
                 code();
                 {stored}
                 return x;
             }}"
        )
    };
    let repeated = |module: &mut Module, times: usize| {
        // One statement many times over: no expression is added.
        let body = &mut module.entry_points[0].function.body;
        let is_store = |it: &naga::Statement| {
            matches!(
                it,
                naga::Statement::Store {
                    pointer: _,
                    value: _
                }
            )
        };
        let last = body.iter().rposition(is_store).unwrap();
        let store = body[last].clone();
        for _ in 0..times {
            let mut one = naga::Block::new();
            one.push(store.clone(), naga::Span::UNDEFINED);
            body.splice(last..last, one);
        }
    };
    let functions = |module: &Module| {
        let canonical = module.canonicalize().unwrap();
        canonical.info().unwrap();
        canonical.module().functions.len()
    };
    // Little of it is written everywhere.
    assert_eq!(functions(&parse(&source(20, "x = in_x;"))), 0);
    // Many statements.
    let mut module = parse(&source(1_000, "x = in_x;"));
    repeated(&mut module, 400);
    assert_eq!(functions(&module), 1);
    // Many operands.
    let parts = vec!["in_x"; 400].join(", ");
    let module = parse(&source(1_000, &format!("many = array({parts});")));
    assert_eq!(functions(&module), 1);
}

/// Structures that are returned, each from a variable of its own, take the bindings of the result.
#[test]
fn structures_are_returned_from_variables() {
    let source = |count: usize| {
        let returns: String = (0..count)
            .map(|at| {
                format!(
                    "if x > {at}.0 {{
                         var pair: Pair;
                         pair.a = x;
                         let whole = pair;
                         y = whole.a;
                         z = whole.b;
                         return;
                     }}"
                )
            })
            .collect();
        format!(
            "struct Pair {{ a: f32, b: f32 }}
             struct Out {{ @location(2) y: f32, @location(3) z: f32 }}
             var<private> w: f32;
             var<private> x: f32;
             var<private> y: f32;
             var<private> z: f32;
             fn code() {{
                 let given = Pair(w, x);
                 {returns}
                 let last = Pair(given.b, given.b);
                 y = last.a;
                 z = last.b;
             }}
             @fragment fn main(@location(0) in_w: f32, @location(1) in_x: f32) -> Out {{
                 w = in_w;
                 x = in_x;
                 code();
                 return Out(y, z);
             }}"
        )
    };
    let source = source(40);
    let (module, canonical) = (parse(&source), canonical(&source));
    assert!(canonical.module().functions.is_empty());
    for seed in 0..4 {
        let outcomes = [&module, canonical.module()].map(|it| evaluate::run_from_outside(it, seed));
        assert_eq!(outcomes[0], outcomes[1]);
    }
}
