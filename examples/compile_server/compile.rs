//! `POST /compile/{target}`: from a source to its artifact, through the cache.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use metrics::counter;
use pipeline_cache::key::naga::ValidatedModule;
use pipeline_cache::layered::Compiled;
use pipeline_cache::{Artifact, ArtifactMetadata, CompileError, CompileInput, LookupPriority};
use tokio::time::timeout;
use tracing::{Span, field};

use crate::artifact::{payload, validators};
use crate::http_server::exchange::announced;
use crate::naga_compiler::NAGA;
use crate::problem::Problem;
use crate::shader::{self, ShaderError};
use crate::site::{PROVENANCE, Site};
use crate::targets::{Choices, Language, Target};

/// What is not compiled by naga.
pub(crate) const NATIVE: &str = "native";

const DEADLINE: &str = "compile-deadline-ms";
const PRIORITY: &str = "compile-priority";
pub(crate) const KEY: HeaderName = HeaderName::from_static("artifact-key");
pub(crate) const SOURCE: HeaderName = HeaderName::from_static("artifact-source");
pub(crate) const TIMING: HeaderName = HeaderName::from_static("server-timing");

pub(crate) async fn compile(
    State(site): State<Arc<Site>>,
    Path(target): Path<String>,
    choices: Result<Query<Choices>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let began = Instant::now();
    // Whatever the answer is: a body that is not read would end the connection.
    let source = site.read(&headers, body).await?;
    let Query(choices) = choices?;
    let mut wish = site.wish(&headers, source)?;
    // Waits for the source took none of the places, and are part of the deadline.
    let deadline = wish.deadline;
    let permit = site
        .permit(deadline.saturating_sub(began.elapsed()))
        .await?;
    wish.deadline = deadline.saturating_sub(began.elapsed());
    let compiled = match target.as_str() {
        NATIVE => native(&site, &choices, wish).await,
        name => shader(&site, name, choices, wish).await,
    };
    let mut response = compiled.map_err(|problem| match problem {
        // As it was asked for.
        Problem::DeadlineExceeded(_left) => Problem::DeadlineExceeded(deadline),
        problem => problem,
    })?;
    response.extensions_mut().insert(permit);
    Ok(response)
}

async fn shader(
    site: &Site,
    name: &str,
    choices: Choices,
    wish: Wish,
) -> Result<Response, Problem> {
    let language = Language::of(name).ok_or(Problem::UnknownTarget)?;
    let target = site.targets.get(language, choices)?;
    let (capabilities, compiler) = (target.capabilities, Arc::clone(&target));
    let compiled = site
        .cache
        .compile(&target.scope)
        .source(target.front_end.as_str(), wish.source, move |source| {
            shader::parse(source, capabilities)
        })
        .deadline(wish.deadline)
        .priority(wish.priority)
        // What is wrong with a shader depends on nothing else.
        .remember_failures(true)
        .run(move |input, _cx| write(&compiler, &input))
        .await?;
    Ok(answer(&compiled))
}

async fn native(site: &Site, choices: &Choices, wish: Wish) -> Result<Response, Problem> {
    let native = site.native.as_ref().ok_or(Problem::UnknownTarget)?;
    if *choices != Choices::default() {
        let reason = "native: no options: it is for the machine of the server";
        return Err(Problem::BadRequest(reason.to_owned()));
    }
    match native.compile(&site.cache, wish).await {
        Ok(compiled) => Ok(answer(&compiled)),
        Err(CompileError::Failed(error)) => Err(Problem::Module(error.message.clone())),
        Err(error) => Err(error.into()),
    }
}

/// What a request asks for, whatever the compiler.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) source: Bytes,
    pub(crate) deadline: Duration,
    pub(crate) priority: LookupPriority,
}

/// Compiles, on the compile pool.
fn write(target: &Target, input: &CompileInput<ValidatedModule>) -> Result<Artifact, ShaderError> {
    let began = Instant::now();
    let code = target.compile(input)?;
    let metadata = ArtifactMetadata::new()
        .with_provenance(PROVENANCE)
        .with_device(target.scope.target())
        .with_toolchain(format!("naga {}", NAGA.version("naga").unwrap_or_default()))
        .with_compile_time(began.elapsed());
    Ok(Artifact::with_metadata(code, metadata))
}

fn answer(compiled: &Compiled) -> Response {
    let source = compiled.source_label();
    let mut response = payload(&compiled.artifact);
    let headers = response.headers_mut();
    let mut insert = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    if let Some(key) = compiled.key {
        insert(KEY, &key.to_string());
        Span::current().record("key", field::display(key));
    }
    insert(SOURCE, source);
    insert(TIMING, &compiled.timing());
    Span::current().record("source", source);
    counter!("compile_server_artifacts_total", "source" => source.to_owned()).increment(1);
    response
        .headers_mut()
        .extend(compiled.key.as_ref().and_then(validators));
    response
}

impl Site {
    fn wish(&self, headers: &HeaderMap, source: Bytes) -> Result<Wish, Problem> {
        let deadline = deadline(headers)?.unwrap_or(self.deadline);
        Ok(Wish {
            deadline: deadline.min(self.deadline),
            priority: priority(headers)?,
            source,
        })
    }

    pub(crate) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
        let most = self.max_source;
        if announced(headers).is_some_and(|length| length > most) {
            return Err(Problem::TooLarge(most));
        }
        let limit = usize::try_from(most).unwrap_or(usize::MAX);
        match timeout(self.inactivity, Limited::new(body, limit).collect()).await {
            Ok(Ok(whole)) => Ok(whole.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::TooLarge(most)),
            Ok(Err(_)) => Err(Problem::BrokenOff),
            Err(_) => Err(Problem::TooSlow),
        }
    }
}

fn deadline(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(DEADLINE) else {
        return Ok(None);
    };
    let millis = value.to_str().ok().and_then(|text| text.parse().ok());
    let Some(millis) = millis else {
        return Err(Problem::BadRequest(
            "Compile-Deadline-Ms: not a number of milliseconds".to_owned(),
        ));
    };
    Ok(Some(Duration::from_millis(millis)))
}

fn priority(headers: &HeaderMap) -> Result<LookupPriority, Problem> {
    match headers.get(PRIORITY).map(HeaderValue::as_bytes) {
        None | Some(b"interactive") => Ok(LookupPriority::Interactive),
        Some(b"background") => Ok(LookupPriority::Background),
        Some(_) => Err(Problem::BadRequest(
            "Compile-Priority: neither interactive nor background".to_owned(),
        )),
    }
}
