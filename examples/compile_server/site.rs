//! The paths of the server, and the way of every request: it finds a place among those that are
//! served at once, its path is answered, and its end is counted and logged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use pipeline_cache::LayeredPipelineCache;
use pipeline_cache::layered::MetricsExporter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{Instrument as _, Span, field};

use crate::activity::{Activity, Answered};
use crate::artifact::artifact;
use crate::compile::{KEY, NATIVE, SOURCE, TIMING, compile};
use crate::http_server::connection::Connection;
use crate::http_server::connections::ConnectionMetrics;
use crate::http_server::console;
use crate::http_server::counters::{Counted, Gauge};
use crate::http_server::exchange::{End, Exchange, Record};
use crate::native::Native;
use crate::problem::Problem;
use crate::status;
use crate::targets::{Language, Targets};

/// Who makes these artifacts. What another machine serves must say the same.
pub(crate) const PROVENANCE: &str = "pipeline-cache-tools/compile_server";

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) activity: Activity,
    pub(crate) began: Instant,
    pub(crate) cache: LayeredPipelineCache,
    pub(crate) targets: Targets,
    /// `None` in a build without it.
    pub(crate) native: Option<Native>,
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
    Router::new()
        .route("/compile/{target}", post(compile))
        .route("/artifact/{key}", get(artifact))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "well\n"))
        .route("/readyz", get(ready))
        .merge(status::router())
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn_with_state(Arc::clone(&site), exchange))
        .with_state(site)
}

/// What is counted and logged of a request.
struct Asked {
    /// The first part of the path, if it is one of the server's.
    path: &'static str,
    /// Of a compile request: what is shown of it.
    compile: Option<Answered>,
    /// Held until the answer is sent.
    permit: Option<Permit>,
    span: Span,
    site: Arc<Site>,
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
        if let Some(mut answered) = self.compile.take() {
            answered.status = status;
            answered.elapsed = end.elapsed;
            self.site.activity.add(answered);
        }
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
    #[cfg(feature = "otlp")]
    crate::traces::join(&span, request.headers());
    let asked = Asked {
        path: match path.split('/').nth(1) {
            Some("compile") => "compile",
            Some("artifact") => "artifact",
            Some("metrics" | "healthz" | "readyz") => "checks",
            Some("" | "page.js" | "page.css" | "status.json") => "status",
            _ => "other",
        },
        compile: asked_for(path),
        permit: None,
        span: span.clone(),
        _under_way: site.under_way.enter(),
        site,
    };
    let mut exchange = Exchange::begin(method, connection.request(), asked);
    let mut answer = next.run(request).instrument(span).await;
    exchange.record.permit = answer.extensions_mut().remove();
    if let Some(answered) = &mut exchange.record.compile {
        let told = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        answered.source = told(SOURCE);
        answered.key = told(KEY);
        answered.timing = told(TIMING);
    }
    // HTTP/2 has no such header.
    if answer.headers().contains_key(CONNECTION) {
        connection.end();
    }
    exchange.watch(answer)
}

/// What is shown of a compile request.
fn asked_for(path: &str) -> Option<Answered> {
    let target = path.strip_prefix("/compile/")?;
    let is_known = target == NATIVE || Language::of(target).is_some();
    Some(Answered {
        // No text of the client's own.
        target: if is_known { target } else { "unknown" }.to_owned(),
        ..Answered::default()
    })
}

async fn not_found(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Problem {
    // A body that is not read would end the connection.
    let read = site.read(&headers, body).await;
    read.err().unwrap_or(Problem::NotFound)
}

async fn not_allowed(State(site): State<Arc<Site>>, headers: HeaderMap, body: Body) -> Problem {
    let read = site.read(&headers, body).await;
    read.err().unwrap_or(Problem::MethodNotAllowed)
}

/// A place among the requests that are served at once, until the answer is sent. Checks, metrics and
/// the page need none: they answer while all are taken.
#[derive(Debug, Clone)]
pub(crate) struct Permit(#[expect(dead_code, reason = "it is held")] Arc<OwnedSemaphorePermit>);

impl Site {
    pub(crate) async fn permit(&self, patience: Duration) -> Result<Permit, Problem> {
        let permit = Arc::clone(&self.request_permits).acquire_owned();
        match timeout(patience.min(self.inactivity), permit).await {
            Ok(Ok(permit)) => Ok(Permit(Arc::new(permit))),
            _ => Err(Problem::Busy),
        }
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
