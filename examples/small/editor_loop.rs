//! What a language server does at each keystroke: a check of WGSL with a deadline, from local tiers
//! alone, which the next keystroke drops, and which remembers what is wrong with a draft.

use bytes::Bytes;
use pipeline_cache::layered::{Abandoned, CompileContext};
use pipeline_cache::{
    Artifact, CompileError, CompileInput, CompileScope, InMemoryPipelineCache,
    LayeredPipelineCache as Cache, TierSelection, Unkeyable,
};
use std::time::Duration;

/// Why a draft is no shader.
struct Diagnostic(String);

impl From<Unkeyable> for Diagnostic {
    fn from(reason: Unkeyable) -> Self {
        Self(reason.to_string())
    }
}

fn parse(source: &Bytes) -> Result<naga::Module, Diagnostic> {
    let text = String::from_utf8_lossy(source);
    naga::front::wgsl::parse_str(&text).map_err(|error| Diagnostic(error.message().to_owned()))
}

/// Lists the entry points. A check that takes long asks `is_wanted` now and then.
fn check(input: CompileInput<naga::Module>, cx: &CompileContext) -> Result<Artifact, Diagnostic> {
    if !cx.is_wanted() {
        return Err(Diagnostic("the draft was replaced".to_owned()));
    }
    let canonical = input.into_canonical()?;
    let points = &canonical.module().entry_points;
    let names: Vec<_> = points.iter().map(|point| &*point.name).collect();
    Ok(Artifact::new(names.join(", ")))
}

async fn keystroke(cache: &Cache, scope: &CompileScope, draft: &'static str) -> String {
    let checked = cache
        .compile(scope)
        .source("naga 30", draft, parse)
        .tiers(TierSelection::Local) // no keystroke waits for a network
        .writes(TierSelection::Local) // and no draft goes there
        .deadline(Duration::from_secs(30)) // 20 ms in an editor; more here, for slow machines
        .remember_failures(true) // most drafts do not parse
        .when_abandoned(Abandoned::Cancel)
        .run(check);
    match checked.await {
        Ok(compiled) => String::from_utf8_lossy(compiled.artifact.payload()).into_owned(),
        Err(CompileError::Failed(diagnostic)) => format!("error: {}", diagnostic.0),
        Err(CompileError::DeadlineExceeded(_)) => "checking …".to_owned(), // old findings stay
        Err(error) => format!("not checked: {error}"),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cache = Cache::builder().tier(InMemoryPipelineCache::new()).build();
    let scope = CompileScope::new("wgsl-check 1.0, naga 30", "entry points")?;
    let whole = "@compute @workgroup_size(1) fn main() {}";

    // Somebody types faster than a check takes: each keystroke drops the check before it.
    let mut typing = tokio::task::JoinSet::new();
    for end in 1..=whole.len() {
        let (cache, scope) = (cache.clone(), scope.clone());
        typing.abort_all();
        typing.spawn(async move { keystroke(&cache, &scope, &whole[..end]).await });
    }
    while let Some(ended) = typing.join_next().await {
        if let Ok(finding) = ended {
            println!("while typing: {finding}"); // of the last draft, and of others that were quick
        }
    }
    for text in ["fn main(", whole, "fn main(", whole] {
        println!("{text:?}: {}", keystroke(&cache, &scope, text).await);
    }
    let remembered = cache.layered_metrics().remembered_failures;
    println!("remembered failures: {remembered}");
    Ok(())
}
