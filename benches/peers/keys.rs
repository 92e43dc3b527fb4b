//! Keys: shaders beside naga's own front end, modules beside their validation, known sources beside
//! their hash.

use bytes::Bytes;
use pipeline_cache::key::naga::ValidatedModule;
use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{PipelineFingerprint, Program as _, SourceAliases, ToWire as _, Unkeyable};
use std::hint::black_box;
use std::path::Path;

use crate::measure::{Contender, Plan};
use crate::report::Report;
use crate::runtime::Tokio;

pub(crate) fn cases(plan: &Plan, wasm: Option<&Path>, report: &mut Report) {
    if plan.wants("fingerprint naga") {
        shaders(plan, report);
    }
    if plan.wants("fingerprint wasm") {
        modules(plan, wasm, report);
    }
}

fn sources() -> Vec<Bytes> {
    macro_rules! shaders {
        ($($name:ident)*) => {
            vec![$(Bytes::from(vello_shaders::SHADERS.$name.wgsl.code.as_bytes()),)*]
        };
    }
    shaders!(
        backdrop backdrop_dyn bbox_clear binning clip_leaf clip_reduce coarse draw_leaf
        draw_reduce fine_area fine_msaa16 fine_msaa8 flatten path_count path_count_setup
        path_tiling path_tiling_setup pathtag_reduce pathtag_reduce2 pathtag_scan1
        pathtag_scan_large pathtag_scan_small tile_alloc
    )
}

fn parse(source: &Bytes) -> naga::Module {
    let text = std::str::from_utf8(source).expect("a text");
    naga::front::wgsl::parse_str(text).expect("a shader")
}

fn validate(module: &naga::Module) -> naga::valid::ModuleInfo {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator.validate(module).expect("a valid shader")
}

fn shaders(plan: &Plan, report: &mut Report) {
    let sources = sources();
    phases("23 shaders", plan, &sources, report);
    let large = [composed()];
    phases("one composed of many imports", plan, &large, report);

    let aliases = SourceAliases::new();
    let tokio = Tokio::multi();
    let (known, new) = (aliases, sources.clone());
    let aliases = tokio.run(async move {
        for source in &new {
            let parse = |source: &Bytes| Ok::<_, Unkeyable>(parse(source));
            known
                .fingerprint("naga", source, parse)
                .await
                .expect("a key");
        }
        known
    });
    let figures = plan.contend(vec![
        Contender::new("ours: known aliases", 1, || {
            let known = |source: &&Bytes| aliases.peek::<naga::Module>("naga", source).is_some();
            assert_eq!(sources.iter().filter(known).count(), sources.len());
        }),
        Contender::new("bare blake3", 1, || {
            sources
                .iter()
                .map(|source| blake3::hash(source))
                .fold(0, |sum, hash| sum ^ hash.as_bytes()[0])
        }),
    ]);
    report.case(
        "fingerprint naga, known sources",
        &figures,
        &[("bare blake3", 1.5)],
    );
}

/// A shader as large shaders are: of many imports, which share nothing and are all used.
fn composed() -> Bytes {
    const IMPORTS: usize = 60;
    let mut source =
        String::from("@group(0) @binding(0) var<storage, read_write> data: array<u32>;");
    let mut calls = String::new();
    for import in 0..IMPORTS {
        source += &format!(
            "struct Part{import} {{ a: u32, b: vec4<f32>, c: array<u32, 4> }}
             fn mixed{import}(x: vec4<f32>, at: u32) -> vec4<f32> {{
                 let k = vec4(f32(at), 1.5, 2.5, {import}.0);
                 var sum = x * k + x.wzyx;
                 for (var n = 0u; n < at; n++) {{
                     if (data[n] & 1u) == 0u {{ sum += k * f32(n); continue; }}
                     sum = max(sum, k.yxwz) - clamp(x, vec4(0.0), k);
                 }}
                 return sum / (length(sum.xyz) + 1.0);
             }}
             fn part{import}(at: u32) -> u32 {{
                 var part = Part{import}(at, vec4(f32(at)), array(1u, 2u, 3u, at));
                 part.b = mixed{import}(part.b, at & 7u);
                 switch at % 3u {{
                     case 0u: {{ part.a += part.c[at & 3u] << 2u; }}
                     case 1u: {{ part.c[1] = part.a ^ (at * 5u + {import}u); }}
                     default: {{ data[at] = part.c[1] | u32(part.b.y); }}
                 }}
                 return part.a + part.c[1] * u32(part.b.x);
             }}"
        );
        calls += &format!("data[{import}] = part{import}(data[id.x]);");
    }
    source += &format!(
        "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ {calls} }}"
    );
    source.into()
}

/// A key beside what it is made of, beside what a miss adds, and beside the floor: copying the
/// module node by node and hashing what is written.
fn phases(name: &str, plan: &Plan, sources: &[Bytes], report: &mut Report) {
    let modules: Vec<_> = sources.iter().map(parse).collect();
    let validated: Vec<_> = modules.iter().map(of_validated).collect();
    let canonical: Vec<_> = modules
        .iter()
        .map(|module| module.canonicalize().expect("a form"))
        .collect();
    let figures = plan.contend(vec![
        Contender::new("ours: PipelineFingerprint::of", 1, || {
            let of = |module| PipelineFingerprint::of(module).is_ok();
            modules.iter().filter(|module| of(*module)).count()
        }),
        Contender::new("ours, of a ValidatedModule", 1, || {
            let of = |module| PipelineFingerprint::of(module).is_ok();
            validated.iter().filter(|module| of(*module)).count()
        }),
        Contender::new("naga: parse", 1, || {
            for source in sources {
                black_box(parse(source));
            }
        }),
        Contender::new("naga: validate", 1, || {
            for module in &modules {
                black_box(validate(module));
            }
        }),
        Contender::new("of ours, the canonical wire", 1, || {
            for module in &validated {
                black_box(module.canonicalize().expect("a form"));
            }
        }),
        Contender::new("of ours, the hash of the wire", 1, || {
            canonical
                .iter()
                .map(|form| form.fingerprint())
                .fold(0, |sum, key| sum ^ key.as_bytes()[0])
        }),
        Contender::new("on a miss, read back and validated", 1, || {
            for form in &canonical {
                // As new, since a form reads back once.
                black_box(form.clone()).check().expect("a valid module");
            }
        }),
        Contender::new("floor: copy what is used, and hash", 1, || {
            for (module, form) in modules.iter().zip(&canonical) {
                black_box(compacted(module));
                black_box(form.fingerprint());
            }
        }),
        Contender::new("below it: clone the module, and hash", 1, || {
            for (module, form) in modules.iter().zip(&canonical) {
                black_box(module.clone());
                black_box(form.fingerprint());
            }
        }),
    ]);
    let goals = [("naga: validate", 2.0)];
    let case = format!("fingerprint naga, {name}");
    report.case(&case, &figures, &goals);
    let [_, of_validated, _, validation, ..] = &figures[..] else {
        return;
    };
    let ratio = of_validated.median / validation.median;
    report.bound(&case, "validations, of a ValidatedModule", ratio, Some(1.2));
}

/// Copied node by node, with new numbers, as every canonical form has to be: naga's own way.
fn compacted(module: &naga::Module) -> naga::Module {
    let mut copy = module.clone();
    naga::compact::compact(&mut copy, naga::compact::KeepUnused::No);
    copy
}

fn of_validated(module: &naga::Module) -> ValidatedModule {
    let capabilities = naga::valid::Capabilities::all();
    ValidatedModule::new(module.clone(), capabilities).expect("a valid shader")
}

fn modules(plan: &Plan, file: Option<&Path>, report: &mut Report) {
    let Some(file) = file else {
        report.line("\nfingerprint wasm: not measured, for there is no --wasm FILE");
        return;
    };
    let bytes = Bytes::from(std::fs::read(file).expect("the module can be read"));
    let module = WasmModule::new(bytes.clone());
    let canonical = module.canonicalize().expect("the module has a key");
    let figures = plan.contend(vec![
        Contender::new("ours: PipelineFingerprint::of", 1, || {
            PipelineFingerprint::of(&module).expect("a key")
        }),
        Contender::new("wasmparser: validate", 1, || {
            wasmparser::validate(&bytes).expect("a valid module")
        }),
        Contender::new("of it, wire and hash in one pass", 1, || {
            canonical.fingerprint()
        }),
        Contender::new("bare blake3", 1, || blake3::hash(&bytes)),
    ]);
    let case = format!("fingerprint wasm, {}", file.display());
    report.case(&case, &figures, &[]);
    let speed = bytes.len() as f64 / figures[0].median * 1e3;
    report.bound(&case, "megabytes a second", speed, None);
}
