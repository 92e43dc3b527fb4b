//! The programs that people write: a compile server and an editor.

use bytes::Bytes;
use naga::Module;
use pipeline_cache::layered::CompileContext;
use pipeline_cache::{
    Artifact, CompileError, CompileInput, CompileScope, Compiled, InMemoryPipelineCache,
    LayeredPipelineCache, TierSelection,
};
use std::time::Duration;

type Error = Box<dyn std::error::Error + Send + Sync>;

const FRONT_END: &str = "naga 30 wgsl-in";

fn parse(source: &Bytes) -> Result<Module, Error> {
    Ok(naga::front::wgsl::parse_str(std::str::from_utf8(source)?)?)
}

fn spirv(input: CompileInput<Module>, cx: &CompileContext) -> Result<Artifact, Error> {
    let canonical = input.into_canonical()?;
    let info = canonical.info()?;
    let options = naga::back::spv::Options::default();
    let words = naga::back::spv::write_vec(canonical.module(), info, &options, None)?;
    assert!(cx.is_wanted());
    let bytes: Vec<_> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    Ok(Artifact::new(bytes))
}

fn validate(input: CompileInput<Module>, _: &CompileContext) -> Result<Artifact, Error> {
    input.into_canonical()?.info()?;
    Ok(Artifact::new("valid"))
}

async fn handle(
    cache: &LayeredPipelineCache,
    scope: &CompileScope,
    body: Bytes,
) -> Result<(Compiled, String), CompileError<Error>> {
    let compiled = cache
        .compile(scope)
        .source(FRONT_END, body, parse)
        .deadline(Duration::from_secs(60))
        .run(|module, cx| spirv(module, cx))
        .await?;
    let timing = compiled.timing();
    Ok((compiled, timing))
}

async fn keystroke(
    cache: &LayeredPipelineCache,
    scope: &CompileScope,
    text: String,
) -> Result<Compiled, CompileError<Error>> {
    cache
        .compile(scope)
        .source(FRONT_END, text, parse)
        .tiers(TierSelection::Local)
        .deadline(Duration::from_secs(60))
        .remember_failures(true)
        .run(validate)
        .await
}

#[tokio::test]
async fn a_compile_server_and_an_editor_are_a_few_lines() {
    let cache = LayeredPipelineCache::builder()
        .tier(InMemoryPipelineCache::new())
        .build();
    let server = CompileScope::new("naga 30 spv-out", "spirv-1.1").unwrap();
    let editor = CompileScope::new("naga 30 validate", "any").unwrap();
    let source = "@compute @workgroup_size(1) fn main() {}";
    let (compiled, timing) = handle(&cache, &server, source.into()).await.unwrap();
    assert_eq!(
        compiled.artifact.payload()[..4],
        0x0723_0203_u32.to_le_bytes()
    );
    assert!(timing.contains("compile;dur="), "{timing}");
    keystroke(&cache, &editor, source.to_owned()).await.unwrap();
    let broken = || keystroke(&cache, &editor, "fn main( {}".to_owned());
    let (first, again) = (broken().await.unwrap_err(), broken().await.unwrap_err());
    assert_eq!(
        first.failed().unwrap().to_string(),
        again.failed().unwrap().to_string()
    );
    assert_eq!(cache.layered_metrics().remembered_failures, 1);
}
