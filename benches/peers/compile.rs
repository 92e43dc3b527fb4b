//! What a hit saves: the way from a program to its artifact beside the compile it stands for.

use bytes::Bytes;
use pipeline_cache::key::wasm::WasmModule;
use pipeline_cache::{
    Artifact, CompileInput, CompileScope, CompileSource, InMemoryPipelineCache,
    LayeredPipelineCache, PipelineCacheStore as _, SourceAliases, Unkeyable,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Arc;
use wasm_encoder::{
    CodeSection, ExportKind, ExportSection, Function, FunctionSection, Module, TypeSection, ValType,
};

use crate::measure::{Contender, Plan};
use crate::report::Report;
use crate::runtime::Tokio;

const MODULE_BYTES: usize = 1_000_000;
const FRONT_END: &str = "wasm";

pub(crate) fn cases(plan: &Plan, report: &mut Report) {
    let case = "get_or_compile, a hit of a 1 MB module";
    if !plan.wants(case) {
        return;
    }
    let tokio = Tokio::multi();
    let source = module(plan.count(MODULE_BYTES));
    let engine = wasmtime::Engine::default();
    let memory = Arc::new(InMemoryPipelineCache::new());
    let cache = Arc::new(LayeredPipelineCache::new([memory as _]));
    let aliases = Arc::new(SourceAliases::new());
    let hit = || {
        let (cache, engine, source) = (Arc::clone(&cache), engine.clone(), source.clone());
        tokio.run(async move { get_or_compile(&cache, engine, source).await })
    };
    assert_eq!(hit(), CompileSource::Compiled);
    let known = || {
        let (cache, aliases) = (Arc::clone(&cache), Arc::clone(&aliases));
        let source = source.clone();
        tokio.run(async move { get_known(&cache, &aliases, source).await })
    };
    let figures = plan.contend(vec![
        Contender::new("ours: get_or_compile", 1, || {
            assert_ne!(hit(), CompileSource::Compiled);
        }),
        Contender::new("ours, by the alias of its source", 1, known),
        Contender::new("wasmtime compile", 1, || compile(&engine, &source).len()),
    ]);
    report.case(case, &figures, &[]);
    let saved = figures[2].median / figures[0].median;
    report.bound(case, "times faster than the compile", saved, None);
}

async fn get_or_compile(
    cache: &LayeredPipelineCache,
    engine: wasmtime::Engine,
    source: Bytes,
) -> CompileSource {
    let scope = scope();
    let compile = move |input: CompileInput<WasmModule>, _| async move {
        let program = input.into_canonical()?;
        Ok::<_, Unkeyable>(Artifact::new(compile(&engine, program.bytes())))
    };
    let program = WasmModule::new(source);
    let compiled = cache.get_or_compile(&program, &scope, compile);
    compiled.await.expect("an artifact").source
}

/// Of a source that was seen before, in its very spelling.
async fn get_known(cache: &LayeredPipelineCache, aliases: &SourceAliases, source: Bytes) -> usize {
    let parse = |source: &Bytes| Ok::<_, Unkeyable>(WasmModule::new(source.clone()));
    let key = aliases.fingerprint(FRONT_END, &source, parse).await;
    let key = key.expect("a key").scoped(&scope());
    let hit = cache.peek(&key).expect("it was compiled before");
    hit.len()
}

fn scope() -> CompileScope {
    CompileScope::new("wasmtime 48", std::env::consts::ARCH).unwrap()
}

fn compile(engine: &wasmtime::Engine, source: &[u8]) -> Vec<u8> {
    engine.precompile_module(source).expect("it compiles")
}

/// A module of so many bytes: functions of integer arithmetic, none like its neighbour.
fn module(bytes: usize) -> Bytes {
    const INSTRUCTIONS: usize = 500;
    let mut random = SmallRng::seed_from_u64(7);
    let mut types = TypeSection::new();
    types
        .ty()
        .function([ValType::I32, ValType::I32], [ValType::I32]);
    let (mut functions, mut exports, mut code) = (
        FunctionSection::new(),
        ExportSection::new(),
        CodeSection::new(),
    );
    let mut number = 0;
    while code.byte_len() < bytes {
        let mut body = Function::new([(6, ValType::I32)]);
        let mut write = body.instructions();
        for _ in 0..INSTRUCTIONS {
            write.local_get(random.random_range(0..8));
            write.i32_const(random.random());
            match random.random_range(0..5) {
                0 => write.i32_add(),
                1 => write.i32_mul(),
                2 => write.i32_xor(),
                3 => write.i32_rotl(),
                _ => write.i32_sub(),
            };
            write.local_set(random.random_range(0..8));
        }
        write.local_get(random.random_range(0..8)).end();
        functions.function(0);
        exports.export(&format!("f{number}"), ExportKind::Func, number);
        code.function(&body);
        number += 1;
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&exports)
        .section(&code);
    module.finish().into()
}
