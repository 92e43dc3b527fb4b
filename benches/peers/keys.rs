//! Keys: shaders beside naga's own front end, modules beside their validation, known sources beside
//! their hash.

use bytes::Bytes;
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
    let modules: Vec<_> = sources.iter().map(parse).collect();
    let canonical: Vec<_> = modules
        .iter()
        .map(|module| module.canonicalize().expect("a form"))
        .collect();
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
        Contender::new("ours: PipelineFingerprint::of", 1, || {
            let of = |module| PipelineFingerprint::of(module).is_ok();
            modules.iter().filter(|module| of(*module)).count()
        }),
        Contender::new("naga: parse and validate", 1, || {
            for source in &sources {
                black_box(validate(&parse(source)));
            }
        }),
        Contender::new("of it, wire and hash in one pass", 1, || {
            canonical
                .iter()
                .map(|form| form.fingerprint())
                .fold(0, |sum, key| sum ^ key.as_bytes()[0])
        }),
    ]);
    let goals = [("naga: parse and validate", 1.5)];
    report.case("fingerprint naga, 23 shaders", &figures, &goals);

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
