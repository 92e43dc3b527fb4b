//! The module that a document spells: where its artifacts are, and how they are made.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use lsp_server::{ErrorCode, ResponseError};
use lsp_types::{
    CodeLens, Command, Hover, MarkupContent, MarkupKind, MessageType, Position, Range,
    ShowDocumentParams, ShowDocumentRequest, Uri,
};
use pipeline_cache::key::naga::ValidatedModule;
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileError, CompileInput, LookupOptions, LookupSource,
};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use url::Url;

use crate::checker::PROVENANCE;
use crate::server::{Answer, Out, Server, refusal};
use crate::shader::{self, ShaderError};
use crate::targets::{Choices, Language, Target};

pub(crate) const COMPILE: &str = "wgsl.compile";
pub(crate) const STATUS: &str = "wgsl.status";

/// How long a hover waits for the tiers.
const HOVER: Duration = Duration::from_millis(500);

/// How long a command waits for its artifact.
const COMMAND: Duration = Duration::from_secs(60);

/// What a document is compiled to: by which name, shown how, and the end of the file.
const LANGUAGES: [(&str, Language, &str, &str); 3] = [
    ("spirv", Language::Spirv, "SPIR-V", "spv"),
    ("msl", Language::Msl, "MSL", "metal"),
    ("hlsl", Language::Hlsl, "HLSL", "hlsl"),
];

/// A document as it was when the client asked.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) uri: Uri,
    pub(crate) source: Bytes,
}

pub(crate) fn lenses(uri: &Uri) -> Vec<CodeLens> {
    let top = Position::new(0, 0);
    let lens = |(name, _, shown, _)| CodeLens {
        range: Range::new(top, top),
        command: Some(Command {
            title: format!("Compile to {shown}"),
            command: COMPILE.to_owned(),
            arguments: Some(vec![json!(uri), json!(name)]),
            tooltip: None,
        }),
        data: None,
    };
    LANGUAGES.map(lens).into()
}

/// For each target the key of the module, and where its artifact is.
pub(crate) async fn hover(server: Arc<Server>, snapshot: Snapshot) -> Answer {
    let finds = LANGUAGES.map(|(_, language, shown, _)| {
        let (server, source) = (&server, &snapshot.source);
        async move {
            let target = target(server, language)?;
            Ok((shown, find(server, &target, source).await))
        }
    });
    let mut text = "**WGSL module**\n".to_owned();
    for found in join_all(finds).await {
        let (shown, found) = found?;
        let (key, place) = found.unwrap_or_else(|reason| (None, reason));
        // A string takes all that is written to it.
        let _ = write!(text, "\n- {shown}: {place}");
        if let Some(key) = key {
            let _ = write!(text, "  \n  `{key}`");
        }
    }
    let contents = MarkupContent::new(MarkupKind::Markdown, text).into();
    let hover = Hover {
        contents,
        range: None,
    };
    Ok(json!(hover))
}

/// The key of an artifact, and where it is; or why it cannot be.
async fn find(
    server: &Server,
    target: &Arc<Target>,
    source: &Bytes,
) -> Result<(Option<String>, String), String> {
    let cache = &server.cache;
    let request = cache
        .compile(&target.scope)
        .source(target.front_end.as_str(), source.clone(), parse(target))
        .remember_failures(true)
        .deadline(HOVER);
    let key = match request.find_key().await.map_err(|error| reason(&error))? {
        Ok(key) => key,
        Err(unkeyable) => return Ok((None, format!("cannot be cached: {unkeyable}"))),
    };
    let options = LookupOptions::new().deadline(HOVER);
    let lookup = cache.lookup(&key, &options).await;
    let place = match lookup.source() {
        Some(LookupSource::Tier(tier) | LookupSource::Promotion(tier)) => {
            let name = cache.tier_names().nth(tier).unwrap_or_default();
            format!("compiled, in {name}")
        }
        Some(_) => "compiled, on its way to the cache".to_owned(),
        None if lookup.is_degraded() => "not compiled here; the remote gave no answer".to_owned(),
        None => "not compiled yet".to_owned(),
    };
    Ok((Some(key.to_string()), place))
}

/// The command: compiles, writes the file, and opens it where it is a text.
pub(crate) async fn compile(
    server: Arc<Server>,
    snapshot: Snapshot,
    name: String,
    opens_documents: bool,
) -> Answer {
    let known = LANGUAGES.into_iter().find(|known| known.0 == name);
    let Some((_, language, shown, end)) = known else {
        let names = LANGUAGES.map(|(name, ..)| name).join(", ");
        return Err(refusal(
            ErrorCode::InvalidParams,
            format!("no target {name:?}: there are {names}"),
        ));
    };
    let target = target(&server, language)?;
    let compiler = Arc::clone(&target);
    let compiled = server
        .cache
        .compile(&target.scope)
        .source(
            target.front_end.as_str(),
            snapshot.source.clone(),
            parse(&target),
        )
        .deadline(COMMAND)
        .remember_failures(true)
        .run(move |input, _cx| write_module(&compiler, &input))
        .await
        .map_err(|error| failed(format!("{shown}: {}", reason(&error))))?;
    let payload = compiled.artifact.payload();
    let file = file_of(&server.out, &snapshot.uri, end);
    write_file(&file, payload)
        .await
        .map_err(|error| failed(format!("{}: {error}", file.display())))?;
    let uri = Url::from_file_path(&file)
        .map_err(|()| failed(format!("{}: not an absolute path", file.display())))?;
    let uri = Uri::from(uri.as_str());
    let is_text = language != Language::Spirv;
    if is_text && opens_documents {
        let show = ShowDocumentParams {
            uri: uri.clone(),
            external: None,
            take_focus: Some(true),
            selection: None,
        };
        server.client.ask::<ShowDocumentRequest>(show).await;
    } else {
        let told = format!("{shown}: {} bytes in {}", payload.len(), file.display());
        server.client.show(MessageType::Info, told).await;
    }
    Ok(json!({
        "uri": uri,
        "bytes": payload.len(),
        "key": compiled.key.map(|key| key.to_string()),
        "source": compiled.source_label(),
        "timing": compiled.timing(),
    }))
}

fn target(server: &Server, language: Language) -> Result<Arc<Target>, ResponseError> {
    let target = server.targets.get(language, Choices::default());
    target.map_err(|error| refusal(ErrorCode::InternalError, error.0))
}

/// Parses on the compile pool.
fn parse(
    target: &Target,
) -> impl Fn(&Bytes) -> Result<ValidatedModule, ShaderError> + Send + Sync + 'static + use<> {
    let capabilities = target.capabilities;
    move |source| shader::parse(source, capabilities)
}

fn write_module(
    target: &Target,
    input: &CompileInput<ValidatedModule>,
) -> Result<Artifact, ShaderError> {
    let code = target.compile(input)?;
    let metadata = ArtifactMetadata::new()
        .with_provenance(PROVENANCE)
        .with_device(target.scope.target());
    Ok(Artifact::with_metadata(code, metadata))
}

fn reason(error: &CompileError<ShaderError>) -> String {
    match error.failed() {
        Some(shader) => shader.to_string(),
        None => error.to_string(),
    }
}

fn failed(message: String) -> ResponseError {
    refusal(ErrorCode::RequestFailed, message)
}

/// The same for each compile of a document, so that an editor shows what has changed; another for each
/// document.
fn file_of(out: &Out, uri: &Uri, end: &str) -> PathBuf {
    let folder = match out {
        Out::Given(folder) => folder,
        Out::Own(folder) => folder.path(),
    };
    let id = &blake3::hash(uri.as_ref().as_bytes()).to_hex()[..8];
    let path = Url::parse(uri.as_ref()).ok();
    let path = path.and_then(|url| url.to_file_path().ok());
    let path = path.unwrap_or_default();
    let stem = path.file_stem().unwrap_or("shader".as_ref());
    let mut file = folder.join(id).join(stem).into_os_string();
    file.push(".");
    file.push(end);
    file.into()
}

async fn write_file(file: &Path, payload: &Bytes) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    let (file, payload) = (file.to_owned(), payload.clone());
    // Another compile of the same document may be writing.
    let write = move || {
        let folder = file.parent().unwrap_or(&file);
        let mut whole = NamedTempFile::new_in(folder)?;
        whole.write_all(&payload)?;
        whole.persist(&file)?;
        Ok(())
    };
    spawn_blocking(write).await?
}
