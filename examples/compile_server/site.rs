//! The paths of the server, and the way of every request: it finds a place among those that are
//! served at once, its path is answered, and its end is counted and logged.

use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use pipeline_cache::key::naga::ValidatedModule;
use pipeline_cache::layered::{Compiled, MetricsExporter};
use pipeline_cache::{
    Artifact, ArtifactMetadata, CompileInput, LayeredPipelineCache, LookupOptions, LookupPriority,
    PipelineFingerprint,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{Instrument as _, Span, field};

use crate::http_server::connection::Connection;
use crate::http_server::connections::ConnectionMetrics;
use crate::http_server::console;
use crate::http_server::counters::{Counted, Gauge};
use crate::http_server::exchange::{End, Exchange, Record, announced};
use crate::naga_compiler::NAGA;
use crate::problem::Problem;
use crate::shader::{self, ShaderError};
use crate::targets::{Choices, Language, Target, Targets};

/// Who makes these artifacts. What another machine serves must say the same.
pub(crate) const PROVENANCE: &str = "pipeline-cache-examples/compile_server";

const DEADLINE: &str = "compile-deadline-ms";
const PRIORITY: &str = "compile-priority";
const KEY: HeaderName = HeaderName::from_static("artifact-key");
const SOURCE: HeaderName = HeaderName::from_static("artifact-source");
const TIMING: HeaderName = HeaderName::from_static("server-timing");

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) cache: LayeredPipelineCache,
    pub(crate) targets: Targets,
    pub(crate) exporter: MetricsExporter,
    pub(crate) prometheus: PrometheusHandle,
    pub(crate) connections: Arc<ConnectionMetrics>,
    pub(crate) under_way: Gauge,
    pub(crate) request_permits: Arc<Semaphore>,
    pub(crate) stopping: AtomicBool,
    pub(crate) max_source: u64,
    /// The longest that a request waits for its artifact.
    pub(crate) deadline: Duration,
    /// How long a request waits for its source, and for a permit.
    pub(crate) inactivity: Duration,
}

/// The service of the whole site.
pub(crate) fn router(site: Arc<Site>) -> Router {
    // Checks and metrics take no permit: they answer while all are taken.
    let limited = Router::new()
        .route("/compile/{target}", post(compile))
        .route("/artifact/{key}", get(artifact))
        .layer(from_fn_with_state(Arc::clone(&site), limit));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "well\n"))
        .route("/readyz", get(ready))
        .merge(limited)
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(from_fn_with_state(Arc::clone(&site), exchange))
        .with_state(site)
}

/// What is counted and logged of a request.
struct Asked {
    /// The first part of the path, if it is one of the server's.
    path: &'static str,
    span: Span,
    _under_way: Counted,
}

impl Record for Asked {
    fn over(&mut self, end: &End) {
        // As other servers log a client that left before its answer.
        let status = end.status.map_or(499, |status| status.as_u16());
        let elapsed = end.elapsed.as_secs_f64();
        counter!("compile_server_requests_total", "path" => self.path, "status" => status.to_string())
            .increment(1);
        histogram!("compile_server_request_seconds", "path" => self.path).record(elapsed);
        let (sent, left) = (end.sent, end.left);
        let millis = format_args!("{:.3}", elapsed * 1e3);
        tracing::info!(parent: &self.span, status, sent, left, millis, "answered");
    }
}

async fn exchange(
    State(site): State<Arc<Site>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path());
    let span = tracing::info_span!(
        "request",
        %peer,
        %method,
        path,
        key = field::Empty,
        source = field::Empty,
    );
    let asked = Asked {
        path: match path.split('/').nth(1) {
            Some("compile") => "compile",
            Some("artifact") => "artifact",
            Some("metrics" | "healthz" | "readyz") => "checks",
            _ => "other",
        },
        span: span.clone(),
        _under_way: site.under_way.enter(),
    };
    let exchange = Exchange::begin(method, connection.request(), asked);
    let answer = next.run(request).instrument(span).await;
    // HTTP/2 has no such header.
    if answer.headers().contains_key(CONNECTION) {
        connection.end();
    }
    exchange.watch(answer)
}

/// Serves so many requests at once, and no more. The permit is held until the answer is sent.
async fn limit(State(site): State<Arc<Site>>, request: Request, next: Next) -> Response {
    let permit = Arc::clone(&site.request_permits).acquire_owned();
    let Ok(Ok(permit)) = timeout(site.inactivity, permit).await else {
        return Problem::Busy.into_response();
    };
    next.run(request).await.map(|body| held(body, permit))
}

/// The body, which holds the permit until it is dropped.
fn held(body: Body, permit: OwnedSemaphorePermit) -> Body {
    Body::new(body.map_frame(move |frame| {
        let _ = &permit;
        frame
    }))
}

async fn compile(
    State(site): State<Arc<Site>>,
    Path(target): Path<String>,
    choices: Result<Query<Choices>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let language = Language::of(&target).ok_or(Problem::UnknownTarget)?;
    let Query(choices) = choices?;
    let target = site.targets.get(language, choices)?;
    let deadline = deadline(&headers)?.unwrap_or(site.deadline);
    let priority = priority(&headers)?;
    let source = site.read(&headers, body).await?;
    let (capabilities, compiler) = (target.capabilities, Arc::clone(&target));
    let compiled = site
        .cache
        .compile(&target.scope)
        .source(target.front_end.as_str(), source, move |source| {
            shader::parse(source, capabilities)
        })
        .deadline(deadline.min(site.deadline))
        .priority(priority)
        // What is wrong with a shader depends on nothing else.
        .remember_failures(true)
        .run(move |input, _cx| write(&compiler, &input))
        .await?;
    Ok(answer(&compiled))
}

/// Compiles, on the compile pool.
fn write(target: &Target, input: &CompileInput<ValidatedModule>) -> Result<Artifact, ShaderError> {
    let began = Instant::now();
    let code = match input {
        CompileInput::Canonical(canonical) => {
            target.write(canonical.module(), canonical.info()?)?
        }
        CompileInput::Unkeyable(program, _) | CompileInput::PassedBy(program) => {
            target.write(program.module(), program.info())?
        }
        _ => return Err(ShaderError::new("an unknown kind of input".to_owned())),
    };
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
        insert(ETAG, &format!("\"{key}\""));
        Span::current().record("key", field::display(key));
    }
    insert(SOURCE, source);
    insert(TIMING, &compiled.timing());
    Span::current().record("source", source);
    counter!("compile_server_artifacts_total", "source" => source.to_owned()).increment(1);
    response
}

/// An artifact, with the type of what it was compiled for.
fn payload(artifact: &Artifact) -> Response {
    let device = artifact.metadata().device().unwrap_or_default();
    let kind = match device.split('-').next() {
        Some("msl" | "hlsl" | "glsl") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let head = [(CONTENT_TYPE, kind)];
    (head, Body::from(artifact.payload().clone())).into_response()
}

async fn artifact(
    State(site): State<Arc<Site>>,
    Path(key): Path<String>,
) -> Result<Response, Problem> {
    let key = PipelineFingerprint::from_str(&key).map_err(|_| Problem::NotAKey)?;
    let options = LookupOptions::new().deadline(site.deadline);
    let lookup = site.cache.lookup(&key, &options).await;
    match lookup.artifact() {
        Some(artifact) => {
            let mut response = payload(artifact);
            if let Ok(tag) = HeaderValue::from_str(&format!("\"{key}\"")) {
                response.headers_mut().insert(ETAG, tag);
            }
            Ok(response)
        }
        None if lookup.is_degraded() => Err(Problem::Degraded),
        None => Err(Problem::NotFound),
    }
}

async fn metrics(State(site): State<Arc<Site>>) -> Response {
    site.exporter.export(&site.cache.layered_metrics());
    gauge!("compile_server_requests_under_way").set(site.under_way.get() as f64);
    gauge!("compile_server_connections").set(site.connections.open.get() as f64);
    counter!("compile_server_connections_displaced_total")
        .absolute(site.connections.displaced.get());
    counter!("compile_server_log_lines_lost_total").absolute(console::lost());
    let head = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (head, site.prometheus.render()).into_response()
}

async fn ready(State(site): State<Arc<Site>>) -> Result<&'static str, Problem> {
    match site.stopping.load(Ordering::Relaxed) {
        true => Err(Problem::Stopping),
        false => Ok("ready\n"),
    }
}

impl Site {
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
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
