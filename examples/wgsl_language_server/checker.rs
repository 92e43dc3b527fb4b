//! From a source to what is wrong with it, through the cache.
//!
//! The key of the findings is that of the source's bytes, and not that of the program: a canonical form
//! has no places. The scope names naga as it was resolved, so that the key says who found it.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use naga::valid::Capabilities;
use pipeline_cache::key::CompileScopeError;
use pipeline_cache::layered::{Abandoned, CompileContext};
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileError, CompileInput, CompileScope, LayeredPipelineCache,
    LookupOptions, LookupPriority, OpaqueProgram, PipelineFingerprint, StoreError, TierSelection,
    Unkeyable,
};
use tokio::io::AsyncReadExt as _;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::sleep;

use crate::findings::{FORMAT, Finding, MAX_MESSAGE, MAX_RELATED, find};
use crate::naga_compiler::scope;
use crate::wgsl_nesting::{DEEPEST, MOST_DECLARATIONS};

/// Who makes these artifacts.
pub(crate) const PROVENANCE: &str = "pipeline-cache-tools/wgsl_language_server";

/// How long a keystroke is answered from this machine alone. From then on the remote is asked as well:
/// somebody else may have checked the same source.
const LOCAL: Duration = Duration::from_millis(20);

/// Checks sources.
#[derive(Debug)]
pub(crate) struct Checker {
    /// `None` to compare with it.
    cache: Option<LayeredPipelineCache>,
    scope: CompileScope,
    max_source: u64,
}

/// Why a source was not checked.
#[derive(Debug)]
pub(crate) struct Unchecked(String);

impl fmt::Display for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Nobody waits for the findings any more: there is a later version.
#[derive(Debug)]
struct Superseded;

impl From<Unkeyable> for Superseded {
    /// Never: bytes always have a key.
    fn from(_: Unkeyable) -> Self {
        Self
    }
}

impl Checker {
    pub(crate) fn new(
        cache: Option<LayeredPipelineCache>,
        max_source: u64,
    ) -> Result<Self, CompileScopeError> {
        Ok(Self {
            cache,
            // All that a finding follows from besides the source and naga.
            scope: scope(
                "wgsl-findings",
                Capabilities::all(),
                &[
                    ("format", &FORMAT),
                    ("pipeline-cache", &env!("CARGO_PKG_VERSION")),
                    ("deepest", &DEEPEST),
                    ("most-declarations", &MOST_DECLARATIONS),
                    ("max-message", &MAX_MESSAGE),
                    ("max-related", &MAX_RELATED),
                ],
            )?,
            max_source,
        })
    }

    pub(crate) fn is_too_large(&self, source: &[u8]) -> bool {
        source.len() as u64 > self.max_source
    }

    /// What is wrong with a source that is looked at. What is found is written to these tiers.
    ///
    /// Dropping the future ends the check, unless another caller waits for it.
    pub(crate) async fn check(
        &self,
        source: Bytes,
        writes: TierSelection,
    ) -> Result<Vec<Finding>, Unchecked> {
        if self.is_too_large(&source) {
            let most = self.max_source;
            return Ok(vec![Finding::of_source(format!(
                "not checked: larger than {most} bytes (--max-source)"
            ))]);
        }
        let Some(cache) = &self.cache else {
            return find_anew(source).await;
        };
        let key = self.key(&source)?;
        let local = cache
            .compile(&self.scope)
            .program(program(&source))
            .tiers(TierSelection::Local)
            .writes(writes)
            // The next keystroke drops this.
            .when_abandoned(Abandoned::Cancel)
            .run(compile);
        let remote = async {
            sleep(LOCAL).await;
            let lookup = cache.lookup(&key, &LookupOptions::new()).await;
            match lookup.into_artifact() {
                Some(artifact) => artifact,
                // The compile is what is left.
                None => std::future::pending().await,
            }
        };
        let artifact = tokio::select! {
            biased;
            compiled = local => compiled.map(|compiled| compiled.artifact),
            artifact = remote => Ok(artifact),
        };
        read(artifact, source).await
    }

    /// A file, if it is a text that is not too large.
    pub(crate) async fn read_file(&self, file: &Path) -> Option<Bytes> {
        let file = tokio::fs::File::open(file).await.ok()?;
        let mut text = String::new();
        let mut start = file.take(self.max_source.saturating_add(1));
        start.read_to_string(&mut text).await.ok()?;
        let source = Bytes::from(text);
        (!self.is_too_large(&source)).then_some(source)
    }

    /// Checks a source that nobody looks at now, so that the cache knows it.
    pub(crate) async fn warm(&self, source: Bytes) -> Result<Vec<Finding>, Unchecked> {
        let Some(cache) = &self.cache else {
            return Ok(Vec::new());
        };
        let compiled = cache
            .compile(&self.scope)
            .program(program(&source))
            .priority(LookupPriority::Background)
            .run(compile)
            .await;
        read(compiled.map(|compiled| compiled.artifact), source).await
    }

    /// Puts what is known of a source to every tier: what is only being typed is in those of this machine.
    pub(crate) async fn keep(&self, source: &Bytes) -> Result<(), StoreError> {
        let (Some(cache), Ok(key)) = (&self.cache, self.key(source)) else {
            return Ok(());
        };
        if self.is_too_large(source) {
            return Ok(());
        }
        // Its check may not be over: this joins it, and the next keystroke no longer ends it.
        let compiled = cache
            .compile(&self.scope)
            .program(program(source))
            .tiers(TierSelection::Local)
            .run(compile)
            .await;
        match compiled {
            Ok(compiled) if compiled.source_label() == "compiled" => Ok(()),
            Ok(compiled) => cache.put(&key, compiled.artifact).await,
            // Told where it was asked for first.
            Err(_) => Ok(()),
        }
    }

    fn key(&self, source: &Bytes) -> Result<PipelineFingerprint, Unchecked> {
        let key = PipelineFingerprint::of(&program(source));
        let key = key.map_err(|reason| Unchecked(reason.to_string()))?;
        Ok(key.scoped(&self.scope))
    }
}

fn program(source: &Bytes) -> OpaqueProgram {
    OpaqueProgram::new("wgsl", source.clone())
}

/// On the compile pool.
fn compile(
    input: CompileInput<OpaqueProgram>,
    cx: &CompileContext,
) -> Result<Artifact, Superseded> {
    let source = input.into_canonical()?;
    let text = String::from_utf8_lossy(source.bytes());
    let findings = find(&text, || cx.is_wanted()).ok_or(Superseded)?;
    let payload = serde_json::to_vec(&findings).unwrap_or_default();
    let metadata = ArtifactMetadata::new()
        .with_provenance(PROVENANCE)
        .with_device(cx.scope().target());
    Ok(Artifact::with_metadata(payload, metadata))
}

async fn read(
    artifact: Result<Artifact, CompileError<Superseded>>,
    source: Bytes,
) -> Result<Vec<Finding>, Unchecked> {
    match artifact {
        Ok(artifact) => match serde_json::from_slice(artifact.payload()) {
            Ok(findings) => Ok(findings),
            // Whoever wrote it to the remote has not kept to the format.
            Err(error) => {
                tracing::warn!(%error, "unreadable findings in the cache: the source is checked anew");
                find_anew(source).await
            }
        },
        Err(CompileError::Panicked(message)) => Ok(vec![Finding::of_source(format!(
            "not checked: naga panicked: {message}"
        ))]),
        Err(error) => Err(Unchecked(error.to_string())),
    }
}

/// Past the cache.
async fn find_anew(source: Bytes) -> Result<Vec<Finding>, Unchecked> {
    let found = spawn_blocking(move || find(&String::from_utf8_lossy(&source), || true)).await;
    let found = found.map_err(|error: JoinError| Unchecked(error.to_string()))?;
    Ok(found.unwrap_or_default())
}
